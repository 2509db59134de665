"""Access to what was said in a task: the roles that may read it, and the log line of each look.

In: a caller's claim, and a task or an approval. Out: whether texts are shown; a line `content_read` in the log.
"""

from bulkhead.telemetry.log import Log
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.read_model.feeds import InboxFeed

log = Log("gateway.content")


def log_content_read(claim: RequesterClaim, what: str, task: str = "") -> None:
    """Each look at texts is on record. what: was read; task: "" where it is of several."""
    who = {"person": claim.person, "role": claim.role, "via": claim.via}
    log.info("content_read", what=what, tenant=claim.tenant, task=task, **who)


def may_read_history(claim: RequesterClaim, feed: InboxFeed) -> bool:
    """Operators may; so may who submitted the task, where the tenant's output policy delivers drafts: what a model says
    on the way no checker has read."""
    if claim.role == "operator":
        return True
    requester = feed.view.requester
    mine = claim.role in ("submitter", "evaluator") and requester is not None and requester.person == claim.person
    return mine and feed.view.delivery == "draft"


def may_read_sources(claim: RequesterClaim) -> bool:
    """All who work with answers may open what an answer rests on. An auditor and a prompt editor see names, places and
    digests of it."""
    return claim.role not in ("auditor", "prompt_editor")
