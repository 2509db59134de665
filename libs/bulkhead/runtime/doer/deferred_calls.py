"""Calls that a halt or a breaker holds back, and the message that resumes each one when it is over.

In: calls that this replica deferred, halts that are lifted and breakers that are closed, as heard live. Out:
`CallResumed` to each requester, so that none has to poll. The calls are kept in memory alone: a requester whose call
was forgotten asks again by its own timer.
"""

import asyncio
from itertools import islice
from typing import NamedTuple

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusError
from bulkhead.runtime.halts.live import Halts, Key
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.telemetry.log import Log
from bulkhead.telemetry.metrics import Counts
from bulkhead_contracts.control import CallResumed
from bulkhead_contracts.envelope import Envelope

log = Log("deferred_calls")

BACKSTOP_MS = 15_000
"""Shortest time for which a requester that will be resumed waits before it asks again by itself."""
MAX_DEFERRED = 50_000
MAX_RESUMED_AT_ONCE = 16
"""Calls that are resumed at a time: calls that waited all night must not come as one flood."""

CallName = tuple[str, str, str, str]
"""Requester, tenant, task, call."""


class DeferredCall(NamedTuple):
    """One deferred call. head: the envelope of the request that was deferred last."""

    sender: str
    tenant: str
    task: str
    call_id: str
    step_id: str
    head: Envelope

    @property
    def name(self) -> CallName:
        """The same for every request of one call."""
        return self[:4]


class DeferredCalls:
    """The deferred calls of this replica, by the halt or breaker that holds them back."""

    def __init__(self, publisher: Publisher, halts: Halts) -> None:
        self._publisher, self._halts = publisher, halts
        self._waiting: dict[Key, dict[CallName, DeferredCall]] = {}
        self._in_order_of_age = BoundedDict[tuple[Key, CallName], None](MAX_DEFERRED, self._forget_call)
        self._to_resume: dict[CallName, DeferredCall] = {}
        self._woken = asyncio.Event()
        halts.on_lift = self.on_halt_lifted

    def defer_call(self, key: Key, since_unix_ms: int, call: DeferredCall) -> None:
        """Remember that the halt or breaker of this key has held the call back since that time."""
        if self._halts.is_over(key, since_unix_ms):
            self._wake_calls({call.name: call})  # The halt was lifted while the call was being deferred.
            return
        self._waiting.setdefault(key, {})[call.name] = call
        self._in_order_of_age[key, call.name] = None

    def _forget_call(self, place: tuple[Key, CallName], _: None) -> None:
        key, name = place
        self._waiting[key].pop(name, None)
        if not self._waiting[key]:
            del self._waiting[key]

    def on_halt_lifted(self, key: Key) -> None:
        """Resume the calls of a halt that is over. If another holds them back as well, they are deferred again."""
        calls = self._waiting.pop(key, None)
        if calls:
            for name in calls:
                self._in_order_of_age.pop((key, name), None)
            self._wake_calls(calls)

    def _wake_calls(self, calls: dict[CallName, DeferredCall]) -> None:
        self._to_resume.update(calls)
        self._woken.set()

    def count_waiting(self) -> Counts:
        """Number of calls that wait for a halt to be lifted."""
        return {(): len(self._in_order_of_age)}

    async def run(self) -> None:
        """Resume calls whose halt was lifted, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._to_resume:
                batch = list(islice(self._to_resume.items(), MAX_RESUMED_AT_ONCE))
                for name, _ in batch:
                    del self._to_resume[name]
                await asyncio.gather(*(self._tell_requester(call) for _, call in batch))

    async def _tell_requester(self, call: DeferredCall) -> None:
        head = call.head
        try:
            await self._publisher.send(
                call.sender,
                CallResumed(call_id=call.call_id, step_id=call.step_id),
                tenant=call.tenant,
                task=call.task,
                cause=head.id,
                index="resumed",
                actor=head.actor,
                grant_digest=head.grant_digest,
                logic=head.logic,
            )
        except BusError as error:
            log.warning("not_woken", call=call.call_id, task=call.task, reason=str(error))
