"""Questions that an edge asks another service in the name of its caller.

In: a claim and a question, or the caller's own token, which goes to the signer alone. Out: the reply.
"""

from bulkhead.runtime.context import Context
from bulkhead_contracts import bounds
from bulkhead_contracts.grant import VouchReplied, VouchRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Body


async def ask_service(context: Context, to: str, question: Body, claim: RequesterClaim, task: str, index: str) -> Body:
    """The reply of a service. task: that it is about, or a name that stands for one. index: makes the question's id.
    Raises BusUnavailable, RpcRefused."""
    return await context.publisher.request(
        to,
        question,
        tenant=claim.tenant,
        task=task,
        index=index,
        actor=claim.person,
        timeout_s=bounds.RPC_TIMEOUT_MS / 1000,
    )


async def request_voucher(context: Context, claim: RequesterClaim, token: str, task: str) -> VouchReplied:
    """The signer's word that it saw the caller's token, for a task that may begin later, or why there is none; an
    empty reply for who has no token. Raises BusUnavailable, RpcRefused."""
    if not token:
        return VouchReplied()
    question = VouchRequested(requester=claim, requested_unix_ms=context.clock(), credential=token)
    reply = await ask_service(context, "signer", question, claim, task, f"voucher/{task}")
    assert isinstance(reply, VouchReplied)
    return reply
