"""Calls that a halt or a breaker holds back: who put them off tells their askers when it is over; nobody has to poll.

In: calls that were put off in this replica, halts that are lifted and breakers that are closed, as heard live. Out:
`CallResumed` to whoever asked, one by one. It is remembered in memory alone: what is forgotten is asked again by the
asker's own timer.
"""

import asyncio
from dataclasses import dataclass
from itertools import islice

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusError
from bulkhead.runtime.consume.inbound import Received
from bulkhead.runtime.halts.live import Halts, Key
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.telemetry.log import Log
from bulkhead.telemetry.metrics import Counts
from bulkhead_contracts.control import CallResumed
from bulkhead_contracts.envelope import Envelope

log = Log("parked")

BACKSTOP_MS = 15_000
"""So long at least who will be woken waits before it asks by itself."""
MAX_PARKED = 50_000
AT_ONCE = 16
"""So many are told at a time: what waited all night must not come as one flood."""

Name = tuple[str, str, str, str]
"""Who asked, tenant, task, call."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was put off. head: of the request that was put off last."""

    sender: str
    tenant: str
    task: str
    head: Envelope
    call_id: str
    step_id: str

    @classmethod
    def of(cls, message: Received, call_id: str, step_id: str) -> "Call":
        """The call that a request is of; nothing is kept of the request's body."""
        return cls(message.sender, message.tenant, message.task, message.envelope, call_id, step_id)

    @property
    def name(self) -> Name:
        """The same for every request of one call."""
        return self.sender, self.tenant, self.task, self.call_id


class Parked:
    """What waits in this replica, by the halt or breaker that holds it."""

    def __init__(self, publisher: Publisher, halts: Halts) -> None:
        self._publisher, self._halts = publisher, halts
        self._waiting: dict[Key, dict[Name, Call]] = {}
        self._ages = BoundedDict[tuple[Key, Name], None](MAX_PARKED, self._forget)
        self._due: dict[Name, Call] = {}
        self._woken = asyncio.Event()
        halts.on_lift = self.lifted

    def put_off(self, key: Key, since_unix_ms: int, call: Call) -> None:
        """What this key names holds the call back since that time."""
        if self._halts.over(key, since_unix_ms):
            self._wake({call.name: call})  # It was lifted while the call was being put off.
            return
        self._waiting.setdefault(key, {})[call.name] = call
        self._ages[key, call.name] = None

    def _forget(self, place: tuple[Key, Name], _: None) -> None:
        key, name = place
        self._waiting[key].pop(name, None)
        if not self._waiting[key]:
            del self._waiting[key]

    def lifted(self, key: Key) -> None:
        """It is over. Another one may hold the same calls: then they are put off again."""
        calls = self._waiting.pop(key, None)
        if calls:
            for name in calls:
                self._ages.pop((key, name), None)
            self._wake(calls)

    def _wake(self, calls: dict[Name, Call]) -> None:
        self._due.update(calls)
        self._woken.set()

    def held(self) -> Counts:
        """How many calls wait for a halt to be lifted."""
        return {(): len(self._ages)}

    async def run(self) -> None:
        """Tell those whose halt was lifted, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._due:
                some = list(islice(self._due.items(), AT_ONCE))
                for name, _ in some:
                    del self._due[name]
                await asyncio.gather(*(self._tell(call) for _, call in some))

    async def _tell(self, call: Call) -> None:
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
