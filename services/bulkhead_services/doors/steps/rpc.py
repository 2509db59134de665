"""Steps over the bus: requests of outside programs under their own identities, which the broker enforces.

In: StepTakeRequested, StepBeatRequested, StepAnswerRequested. Out: the reply, or a failure as a value.
"""

from bulkhead.bus.port import BusError
from bulkhead.callers.step_keys import Identity, StepKey
from bulkhead.runtime.edge.protocol import Received, RpcTable
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
from bulkhead_services.doors.http.places import Places
from bulkhead_services.doors.port import Refusal
from bulkhead_services.doors.steps.handover import HandOvers
from bulkhead_services.doors.steps.routes import claim_of

STANDING: frozenset[type[Body]] = frozenset((StepTakeRequested,))
"""Requests that wait; `places` bounds them before anything is waited for."""


class StepsRpc:
    """The handlers. places: of those that wait for a step, shared with HTTP."""

    def __init__(self, steps: HandOvers, places: Places) -> None:
        self._steps, self._places = steps, places

    def table(self) -> RpcTable:
        """By the type of the request."""
        return {StepTakeRequested: self.take, StepBeatRequested: self.beat, StepAnswerRequested: self.answer}

    async def take(self, message: Received) -> StepTakeReplied:
        """A step, or none for now."""
        body, identity = message.body, Identity(message.tenant, message.sender)
        assert isinstance(body, StepTakeRequested)
        try:
            release = self._places.take(claim_of(identity.tenant, identity.name))
            try:
                found = await self._steps.take(identity, body.role, body.holder, body.wait_ms / 1000)
            finally:
                release()
        except (Refusal, BusError) as error:
            return StepTakeReplied(failure=_failure(error))
        return StepTakeReplied(step=found)

    async def beat(self, message: Received) -> StepBeatReplied:
        """Whether to go on."""
        body = message.body
        assert isinstance(body, StepBeatRequested)
        try:
            return StepBeatReplied(beaten=await self._steps.beat(self._key(message, body.key)))
        except (Refusal, BusError) as error:
            return StepBeatReplied(failure=_failure(error))

    async def answer(self, message: Received) -> StepAnswerReplied:
        """Whether the answer counts."""
        body = message.body
        assert isinstance(body, StepAnswerRequested)
        try:
            return StepAnswerReplied(accepted=await self._steps.answer(self._key(message, body.key), body.answer))
        except (Refusal, BusError) as error:
            return StepAnswerReplied(failure=_failure(error))

    def _key(self, message: Received, text: str) -> StepKey:
        """A key of this very identity. Raises Refusal."""
        key = self._steps.keys.read(text)
        if key is None or (key.tenant, key.identity) != (message.tenant, message.sender):
            raise Refusal(401, "unauthorized", "this is no key of a step of yours", "send the key that came with it")
        return key


def _failure(error: Refusal | BusError) -> Failure:
    if isinstance(error, Refusal):
        return Failure.of(error.code, error.message, error.hint)
    return Failure.of("unavailable", f"the message broker does not answer: {error}", "ask again in a moment")
