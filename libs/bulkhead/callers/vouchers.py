"""Vouchers: the signer's word that it saw a caller's own token, for a task that may begin later.

In: a claim and the caller's token. Out: the signer's reply. The token goes to the signer alone.
"""

from bulkhead.callers.questions import ask_service
from bulkhead.runtime.context import Context
from bulkhead_contracts.grant import VouchReplied, VouchRequested
from bulkhead_contracts.task import RequesterClaim


async def request_voucher(context: Context, claim: RequesterClaim, token: str, task: str) -> VouchReplied:
    """A voucher for this task, or why there is none; an empty reply for who has no token. Raises BusUnavailable,
    RpcRefused."""
    if not token:
        return VouchReplied()
    question = VouchRequested(requester=claim, requested_unix_ms=context.clock(), credential=token)
    reply = await ask_service(context, "signer", question, claim, task, f"voucher/{task}")
    assert isinstance(reply, VouchReplied)
    return reply
