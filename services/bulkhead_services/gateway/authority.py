"""Authority for a caller who waits for the answer: the signer is asked while the caller's own token is at hand.

In: a claim and the caller's token. Out: the signer's reply, or a Problem. The token goes to the signer alone.
"""

from collections.abc import Awaitable
from typing import TypeVar

from bulkhead.bus.port import BusUnavailable
from bulkhead.callers.questions import request_voucher
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead_contracts import bounds
from bulkhead_contracts.grant import GrantReplied, GrantRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.problems import Problem, unavailable

Reply = TypeVar("Reply")


async def obtain_voucher(context: Context, claim: RequesterClaim, token: str, task: str) -> str:
    """The signer's word that it saw the caller's token, for a task that may begin days later; "" for who has none.
    Raises Problem (403, 503)."""
    reply = await _await_signer(request_voucher(context, claim, token, task))
    if (failure := reply.failure) is not None:
        raise Problem(403, failure.code, "The signer refuses this", failure.message, failure.hint or "ask the operator")
    return reply.voucher


async def request_grant(context: Context, ask: GrantRequested, task: str, index: str) -> GrantReplied:
    """The signer's word. Raises Problem (403, 503)."""
    claim, timeout_s = ask.requester, bounds.RPC_TIMEOUT_MS / 1000
    reply = await _await_signer(
        context.publisher.request(
            "signer", ask, tenant=claim.tenant, task=task, index=index, actor=claim.person, timeout_s=timeout_s
        )
    )
    assert isinstance(reply, GrantReplied)
    if not reply.granted:
        title, detail = "The tenant's policy does not allow this", reply.reason or "the signer refused"
        raise Problem(403, reply.code or "refused", title, detail, reply.hint or "ask the operator")
    return reply


async def _await_signer(asking: Awaitable[Reply]) -> Reply:
    try:
        return await asking
    except BusUnavailable as error:
        raise unavailable("the signer, which vouches for who asks, does not answer") from error
    except RpcRefused as error:
        raise unavailable(f"no authority could be signed: {error}") from error
