"""The spending of an outside agent's run that goes on, as budget's ledger has it.

In: a feed, and its reader. Out: what is spent and what is held; None while that cannot be known. The steps of such a
run end with it, so that its own usage tells nothing before.
"""

import secrets

from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead.telemetry.log import Log
from bulkhead_contracts.budget import SpendReplied, SpendRequested
from bulkhead_contracts.catalog import DecodeError
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.http.schemas import SpendingDocument
from bulkhead_services.gateway.read_model.feeds import InboxFeed
from bulkhead_services.gateway.read_model.task_view import ENDED

log = Log("gateway.spending")
PATIENCE_S = 1.0


async def spending_now(context: Context, claim: RequesterClaim, feed: InboxFeed) -> SpendingDocument | None:
    """Ask budget about a run that goes on."""
    if feed.view.kind != "adopted" or feed.view.status in ENDED:
        return None
    try:
        reply = await context.publisher.request(
            "budget",
            SpendRequested(requester=claim, by="task", since_s=1, top=1, of_task=True),
            tenant=feed.tenant,
            task=feed.task,
            index=f"spending/{secrets.token_hex(8)}",
            actor=claim.person,
            timeout_s=PATIENCE_S,
        )
    except (BusUnavailable, PublishRefused, RpcRefused, DecodeError) as error:
        log.warning("spending_not_told", task=feed.task, reason=str(error))
        return None
    assert isinstance(reply, SpendReplied)
    row = next((row for row in reply.rows if row.name == feed.task), None)
    if row is None:
        return None
    return SpendingDocument(
        cost_usd_micros=row.spent.cost_usd_micros,
        tokens=row.spent.tokens,
        model_calls=row.spent.model_calls,
        tool_calls=row.spent.tool_calls,
        held_usd_micros=row.held.cost_usd_micros,
        held_tokens=row.held.tokens,
    )
