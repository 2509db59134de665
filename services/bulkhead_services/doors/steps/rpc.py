"""Steps over the bus: requests of outside programs under their own identities, which the broker enforces.

In: StepTakeRequested, StepBeatRequested, StepAnswerRequested. Out: the reply, or a failure as a value.
"""

from bulkhead.bus.port import BusError
from bulkhead.callers.step_keys import StepKey, WorkerIdentity
from bulkhead.runtime.edge.protocol import ReceivedMessage, RpcTable
from bulkhead_contracts.delegation import (
    StepAnswerReplied,
    StepAnswerRequested,
    StepBeatReplied,
    StepBeatRequested,
    StepTakeReplied,
    StepTakeRequested,
)
from bulkhead_contracts.result import Failure
from bulkhead_contracts.types import Body
from bulkhead_services.doors.places import CallPlaces
from bulkhead_services.doors.port import DoorRefusal
from bulkhead_services.doors.steps.handover import StepHandOvers
from bulkhead_services.doors.steps.routes import claim_of

STANDING: frozenset[type[Body]] = frozenset((StepTakeRequested,))
"""Requests that wait; `places` bounds them before anything is waited for."""


class StepsRpc:
    """The handlers. places: of those that wait for a step, shared with HTTP."""

    def __init__(self, steps: StepHandOvers, places: CallPlaces) -> None:
        self._steps, self._places = steps, places

    def rpc_table(self) -> RpcTable:
        """By the type of the request."""
        return {
            StepTakeRequested: self.take_step,
            StepBeatRequested: self.record_beat,
            StepAnswerRequested: self.submit_answer,
        }

    async def take_step(self, message: ReceivedMessage) -> StepTakeReplied:
        """A step, or none for now."""
        body, identity = message.body, WorkerIdentity(message.tenant, message.sender)
        assert isinstance(body, StepTakeRequested)
        try:
            with self._places.take_place(claim_of(identity.tenant, identity.name)):
                step = await self._steps.take_step(identity, body.role, body.holder, body.wait_ms / 1000)
        except (DoorRefusal, BusError) as error:
            return StepTakeReplied(failure=_failure_of(error))
        return StepTakeReplied(step=step)

    async def record_beat(self, message: ReceivedMessage) -> StepBeatReplied:
        """A beat; it is told whether to go on."""
        body = message.body
        assert isinstance(body, StepBeatRequested)
        try:
            return StepBeatReplied(beaten=await self._steps.record_beat(self._step_key(message, body.key)))
        except (DoorRefusal, BusError) as error:
            return StepBeatReplied(failure=_failure_of(error))

    async def submit_answer(self, message: ReceivedMessage) -> StepAnswerReplied:
        """An answer; it is told whether it counts."""
        body = message.body
        assert isinstance(body, StepAnswerRequested)
        try:
            return StepAnswerReplied(
                accepted=await self._steps.submit_answer(self._step_key(message, body.key), body.answer)
            )
        except (DoorRefusal, BusError) as error:
            return StepAnswerReplied(failure=_failure_of(error))

    def _step_key(self, message: ReceivedMessage, text: str) -> StepKey:
        """A key of this very identity. Raises DoorRefusal."""
        key = self._steps.keys.parse_key(text)
        if key is None or (key.tenant, key.identity) != (message.tenant, message.sender):
            raise DoorRefusal(
                401, "unauthorized", "this is no key of a step of yours", "send the key that came with it"
            )
        return key


def _failure_of(error: DoorRefusal | BusError) -> Failure:
    if isinstance(error, DoorRefusal):
        return Failure.from_text(error.code, error.message, error.hint)
    return Failure.from_text("unavailable", f"the message broker does not answer: {error}", "ask again in a moment")
