"""Checks of a submission before it is stored (429, 422), and the queue as people see it.

In: the submitter; a feed. Out: a Problem, or nothing; how a task waits.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from bulkhead.gateway_api.operators import PolicyDocument
from bulkhead.gateway_api.tasks import QueueDocument
from bulkhead.plans.plans import check_plan
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.errors import HandBack
from bulkhead.text.validation_errors import suggest_name
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import Plan
from bulkhead_contracts.task import RequesterClaim, TaskLimits
from bulkhead_services.gateway.admission.backpressure import OpenRequests
from bulkhead_services.gateway.admission.rate_limits import SubmissionRateLimits
from bulkhead_services.gateway.admission.run_queue import RunQueueState, queued_notice
from bulkhead_services.gateway.admission.run_slots import RunSlotAdmission
from bulkhead_services.gateway.problems import Problem, too_many
from bulkhead_services.gateway.read_model.feeds import InboxFeed

QUEUE_FULL_RETRY_S = 30


class SubmissionChecks:
    """Quotas and the tenant's policy, checked before a request is stored."""

    def __init__(
        self,
        quotas: TenantQuotas,
        spikes: SubmissionRateLimits,
        admission: RunSlotAdmission,
        backlog: OpenRequests,
        clock: Callable[[], int],
    ) -> None:
        self._quotas, self.spikes, self._admission = quotas, spikes, admission
        self._backlog, self._clock = backlog, clock

    def policy(self, tenant: str) -> PolicyDocument | None:
        """The tenant's policy, where it is known here."""
        return self._quotas.policy_of(tenant)

    async def check_submission(self, claim: RequesterClaim) -> None:
        """Count one submission; waits briefly while the tenant's last ones are not handled. Raises Problem (429)."""
        await self._backlog.wait_for_room(claim.tenant)
        exceeded = self.spikes.count_submission("http", claim.tenant, claim.person, self._clock())
        if exceeded is not None:
            title = "Too many tasks at once"
            raise too_many(
                "too_many_tasks",
                title,
                exceeded.message,
                exceeded.hint,
                retry_after_s=exceeded.wait_s,
                limit=exceeded.limit,
            )
        limit, state = self._quotas.quota_of(claim.tenant).waiting, self._admission.state
        if state is not None and state.count_waiting(claim.tenant) >= max(1, limit):
            raise too_many(
                "queue_full",
                "Too many tasks are waiting",
                f"{limit} tasks of your tenant wait for a place to run, which is its limit",
                "submit it again, with the same key, when some have begun: "
                "`bulkhead tasks` shows them; or cancel what is no longer wanted",
                retry_after_s=QUEUE_FULL_RETRY_S,
                limit=limit,
            )

    def check_tools(self, tenant: str, wanted: Iterable[str]) -> None:
        """Refuse tools that the tenant's policy does not name, where it is known here; the signer judges the rest.
        Raises Problem (422)."""
        granted = self._quotas.tools_of(tenant)
        if granted is None or not (foreign := sorted(set(wanted) - set(granted))):
            return
        detail = f"tenant {tenant} may not use: {', '.join(foreign)}"
        hint = f"it may use: {', '.join(granted) or 'no tool'}{suggest_name(foreign[0], granted)}"
        raise Problem(422, "tools_not_granted", "These tools cannot be used", detail, hint)

    def check_plan(self, plan: Plan | None, limits: TaskLimits) -> None:
        """Refuse a plan whose steps do not fit each other, before anything is stored; the planner, which knows the
        granted tools, checks the rest. Raises Problem (422)."""
        if plan is None:
            return
        now_unix_ms = self._clock()
        notes = check_plan(
            plan.steps, None, began_unix_ms=now_unix_ms, deadline_unix_ms=now_unix_ms + limits.deadline_ms
        )
        if errors := [note.message for note in notes if note.severity == "error"]:
            detail = "; ".join(errors)[: bounds.MAX_REASON_CHARS]
            hint = "mend what is named, and submit the plan again"
            raise Problem(422, "plan_rejected", "The plan cannot run", detail, hint)

    @contextmanager
    def pending_request(self, tenant: str, task: str) -> Iterator[Callable[[bool], None]]:
        """Count a request while it is being stored; it may be taken up before its ack is here. Call `mark_stored`
        with whether it lies there now.
        """
        is_stored = False

        def mark_stored(found: bool) -> None:
            nonlocal is_stored
            is_stored = found

        self._backlog.add_request(tenant, task)
        try:
            yield mark_stored
        finally:
            if not is_stored:
                self._backlog.discard_request(tenant, task)

    async def read_places(self) -> RunQueueState | None:
        """The tasks that run and wait now; None while that cannot be told. Raises BusError."""
        try:
            return await self._admission.read_current()
        except HandBack:
            return None

    async def queue_document(self, feed: InboxFeed) -> QueueDocument | None:
        """The queue before a task; None when it does not wait. Raises BusError."""
        if feed.view.status != "queued":
            return None
        state = await self.read_places()
        waiting = state.waiting.get((feed.tenant, feed.task)) if state is not None else None
        if state is None or waiting is None:
            return None  # Released just now.
        notice = queued_notice(state, self._admission.quotas, waiting)
        return QueueDocument(
            since_unix_ms=feed.view.queued_unix_ms,
            ahead=state.count_ahead(waiting),
            waiting=state.count_waiting(feed.tenant),
            full=notice.full,
            running=notice.running,
            limit=notice.limit,
        )
