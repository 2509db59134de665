"""Request to outcome: a text comes back. In: EchoRequested. Out: EchoReplied."""

from bulkhead.runtime.doer.protocol import Doer, Job, JobContext
from bulkhead_contracts.echo import EchoReplied, EchoRequested
from bulkhead_contracts.result import Failure
from bulkhead_contracts.types import Body


class Echo(Doer[EchoRequested]):
    """The doer. It costs nothing and changes nothing."""

    service = "echo"
    handles: tuple[type[Body], ...] = (EchoRequested,)

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def idempotency_key(self, request: EchoRequested) -> str:
        """The call id."""
        return request.call_id

    def needs_claim(self, job: Job[EchoRequested]) -> bool:
        """No."""
        return False

    async def act(self, job: Job[EchoRequested], hands: JobContext, turn: object) -> Body:
        """The text, after the prefix."""
        return EchoReplied(call_id=job.request.call_id, text=self._prefix + job.request.text)

    def refusal_reply(self, request: EchoRequested, failure: Failure) -> Body:
        """The reply that says no."""
        return EchoReplied(call_id=request.call_id, failure=failure)

    def uncertain_reply(self, request: EchoRequested) -> Body:
        """The reply to a request that was never claimed: nothing is uncertain here."""
        failure = Failure(code="uncertain", message="nothing was claimed", hint="ask again: repeating is safe")
        return self.refusal_reply(request, failure)
