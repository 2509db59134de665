"""Uncertain writes of a task that did not succeed, as budget finds them in the journal.

In: a feed, and its reader. Out: the writes and how many more there are; None while they cannot be known.
"""

import secrets

from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds
from bulkhead_contracts.catalog import DecodeError
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.tool import WritesReplied, WritesRequested
from bulkhead_services.gateway.http.task_document import NONE
from bulkhead_services.gateway.read_model.feeds import LOOK_AGAIN_S, InboxFeed

log = Log("gateway.writes")
BADLY = frozenset({"failed", "cancelled", "halted"})
"""A write whose outcome is unknown ends its task, unless that ends in another way meanwhile."""


async def find_uncertain_writes(context: Context, claim: RequesterClaim, feed: InboxFeed) -> WritesReplied | None:
    """Ask budget, at most once in LOOK_AGAIN_S per task: replies may still arrive after its end."""
    if feed.view.status not in BADLY:
        return NONE
    now_unix_ms = context.clock()
    if feed.writes is not None and now_unix_ms - feed.writes[0] < LOOK_AGAIN_S * 1_000:
        return feed.writes[1]
    try:
        reply = await context.publisher.request(
            "budget",
            WritesRequested(),
            tenant=feed.tenant,
            task=feed.task,
            index=f"writes/{secrets.token_hex(8)}",
            actor=claim.person,
            timeout_s=bounds.WRITES_TIMEOUT_MS / 1_000,
        )
    except (BusUnavailable, PublishRefused, RpcRefused, DecodeError) as error:
        log.warning("writes_not_told", task=feed.task, reason=str(error))
        return None
    assert isinstance(reply, WritesReplied)
    if reply.failure is not None:
        log.warning("writes_not_told", task=feed.task, reason=reply.failure.message)
        return None
    feed.writes = (now_unix_ms, reply)
    return reply
