"""Delegated steps for a FastStream program: the same loop as over HTTP (`bulkhead.client.steps`), over the bus.

    steps = BusSteps("nats://127.0.0.1:4222", "identity/wrk_demo.nkey", tenant="demo", doors="http://127.0.0.1:8090")

    @steps.on("refunds")
    async def refund(step: Step) -> str: ...

    asyncio.run(steps.run())

In: the broker's address, the key of a worker of policy.yaml, the doors' address for calls of models and tools. Out:
requests to doors, typed by the catalog. The broker holds the identity to its tenant.
"""

import time
import uuid
from pathlib import Path
from typing import TypeVar

from faststream.nats import NatsBroker
from nats.errors import Error as NatsError

from bulkhead.client.errors import Refused, Unreachable
from bulkhead.client.steps import Steps
from bulkhead.faststream import broker as brokers
from bulkhead.telemetry import trace
from bulkhead_contracts import catalog, envelope, subjects
from bulkhead_contracts.catalog import DecodeError
from bulkhead_contracts.delegation import (
    AnswerAccepted,
    HandedStep,
    StepAnswer,
    StepAnswerReplied,
    StepAnswerRequested,
    StepBeaten,
    StepBeatReplied,
    StepBeatRequested,
    StepTakeReplied,
    StepTakeRequested,
)
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.result import Failure
from bulkhead_contracts.types import Body

MARGIN_S = 4.0
"""A reply is waited for so much longer than the request may stand."""
AGAIN = frozenset({"unavailable", "too_many_calls", "too_many_bytes"})
"""Codes of failures after which the same request may be sent again."""
R = TypeVar("R", StepTakeReplied, StepBeatReplied, StepAnswerReplied)


class BusSteps(Steps):
    """The roles that a program plays. `broker` is its FastStream broker, for other work beside it."""

    def __init__(
        self,
        url: str,
        identity_file: Path | str,
        *,
        tenant: str,
        doors: str,
        at_once: int = 1,
        ca_file: Path | None = None,
    ) -> None:
        """tenant: as in the worker's row. at_once: steps of each role. ca_file: TLS."""
        self.broker, name, _ = brokers.make_broker(url, Path(identity_file), ca_file)
        super().__init__(doors, "", at_once=at_once, port=_BusStepPort(self.broker, name, subjects.check_token(tenant)))

    async def run(self) -> None:
        """Until cancelled. The broker is connected meanwhile."""
        async with self.broker:
            await self.broker.start()
            await super().run()


class _BusStepPort:
    """Requests to doors."""

    def __init__(self, broker: NatsBroker, name: str, tenant: str) -> None:
        self._broker, self._name, self._tenant = broker, name, tenant

    async def take_step(self, role: str, holder: str) -> HandedStep | None:
        """A step, or None after a while."""
        request = StepTakeRequested(role=role, holder=holder)
        reply = await self._request_doors(request, StepTakeReplied, request.wait_ms / 1000 + MARGIN_S)
        return reply.step

    async def send_beat(self, step: HandedStep) -> StepBeaten:
        """The holder works on it."""
        reply = await self._request_doors(StepBeatRequested(key=step.key), StepBeatReplied, MARGIN_S)
        assert reply.beaten is not None
        return reply.beaten

    async def send_answer(self, step: HandedStep, answer: StepAnswer) -> AnswerAccepted:
        """The answer."""
        reply = await self._request_doors(
            StepAnswerRequested(key=step.key, answer=answer), StepAnswerReplied, 2 * MARGIN_S
        )
        assert reply.accepted is not None
        return reply.accepted

    async def close(self) -> None:
        """The broker is its owner's to close."""

    async def _request_doors(self, body: Body, kind: type[R], timeout_s: float) -> R:
        head = Envelope(
            id=envelope.derive_id(self._name, uuid.uuid4().hex, 0),
            type=body.ce_type(),
            source=self._name,
            time_unix_ms=time.time_ns() // 1_000_000,
            traceparent=trace.current_traceparent(),
        )
        # No task's: the key says which step is meant.
        subject = subjects.rpc_subject(self._name, "doors", self._tenant, self._name)
        try:
            answer = await self._broker.request(body.encode(), subject, headers=head.to_headers(), timeout=timeout_s)
            reply = catalog.decode_body(str(answer.headers.get("ce-type", "")), answer.body)
        except (NatsError, TimeoutError, DecodeError) as error:
            way = "a request outside this identity's rights is dropped without an answer"
            raise Unreachable(f"doors do not answer at {subject}: {error!r}; {way}") from error
        if not isinstance(reply, kind):
            raise Unreachable(f"doors answered with {type(reply).__name__}")
        if reply.failure is not None:
            raise _error_of(reply.failure)
        return reply


def _error_of(failure: Failure) -> Refused | Unreachable:
    if failure.code in AGAIN:
        return Unreachable(failure.message, failure.hint)
    return Refused(403, {"detail": failure.message, "code": failure.code, "hint": failure.hint})
