"""Questions that an edge asks another service in the name of its caller.

In: a claim and a question. Out: the reply.
"""

from bulkhead.runtime.context import Context
from bulkhead_contracts import bounds
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
