"""The gate of every call: policy rules on it, and a call that policy asks about waits for a person.

In: a call whose grant holds and whose arguments fit. Out: the ruling under which it is made; JobRefused or Deferred
where it is not. Nothing was begun before.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pydantic import ValidationError

from bulkhead.bus.port import WrongLastSequence
from bulkhead.grants.attribution import verified_attribution
from bulkhead.policy.attribution import UNKNOWN_SOURCE
from bulkhead.policy.ruling import CallProposal, CallRuling
from bulkhead.policy.sinks import planned_place
from bulkhead.runtime.context import Context
from bulkhead.runtime.doer.attribution_process import Attributor
from bulkhead.runtime.doer.protocol import Job, target_of
from bulkhead.runtime.errors import Deferred, HandBack, JobRefused
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.tools.api import Arguments
from bulkhead_contracts import bounds, envelope, subjects
from bulkhead_contracts.approval import ApprovalRequested
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.plan import ASK_PERSON, ApprovalQuestion
from bulkhead_contracts.provenance import Attribution, Isolation, ValueOrigin
from bulkhead_contracts.result import Failure
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_services.tool_executor.boundary.approvals import (
    CONFLICT_RETRY_S,
    ApprovalRecord,
    CallApprovals,
    approval_id_of,
    canonicalize_and_digest,
)
from bulkhead_services.tool_executor.boundary.place_labels import PlaceLabels
from bulkhead_services.tool_executor.boundary.plan_calls import attribute_plan_call
from bulkhead_services.tool_executor.boundary.preview import escape_invisible, render_preview
from bulkhead_services.tool_executor.registry import RegisteredTool
from bulkhead_services.tool_executor.uncertain_writes import UncertainWrites

APPROVAL_WAITING = "approval_wanted"
"""Code of a call that waits for a person's word."""
APPROVAL_RECHECK_MS = 15_000, 1_800_000
"""A call that waits is asked again so often at first and later, should the word that resumes it be lost: seldom enough
that days of waiting do not fill the task's inboxes."""
_PLACE_MARK = "/"
"""Between the id of a planned call and its position in the plan, as counted; earlier versions counted ids alone."""
MAX_INLINE_BYTES = 1_000
"""Of arguments on which policy rules in the event loop: some milliseconds at most."""
MAX_WHY_CHARS = 400
"""Of each reason: all of a request to people, in whatever script, must fit one message."""
RESULTS_NOTE = "results, as the step's worker words them: nobody checked that these are all, and unchanged"
RulingFunction = Callable[[CallProposal], CallRuling]
IsolationOf = Callable[[RegisteredTool], Isolation]


@dataclass(frozen=True, slots=True)
class GatePass:
    """Under which ruling a call is made, and whose approval. carries: sources that were shown to whoever wrote where
    the call reads. approval: the person's word, where one was asked."""

    ruling: CallRuling
    approval_id: str = ""
    carries: tuple[str, ...] = ()
    approval: str = ""


class Gate:
    """See the module. ttl_ms: how long a person may take; the task may have less time for all its approvals.
    keeps_labels: of a tenant, whose rules ask which sources were shown."""

    def __init__(
        self,
        context: Context,
        rule: RulingFunction,
        isolation_of: IsolationOf,
        ttl_ms: int,
        keeps_labels: Callable[[str], bool] = lambda tenant: False,
        attributor: Attributor | None = None,
    ) -> None:
        self._context, self._rule, self._isolation_of, self._ttl_ms = context, rule, isolation_of, ttl_ms
        self._attributor = attributor or Attributor(own_process=False)
        self.approvals, self.uncertain_writes = CallApprovals(context), UncertainWrites(context)
        self._place_labels, self._keeps_labels = PlaceLabels(context), keeps_labels
        self._long_rulings = FairSemaphore(1)

    async def stop(self) -> None:
        """End the process that looks for values."""
        await self._attributor.stop()

    async def admit_call(self, job: Job[ToolCallRequested], tool: RegisteredTool, arguments: Arguments) -> GatePass:
        """The ruling under which the call may be made now. Raises JobRefused, Deferred, HandBack."""
        request = job.request
        try:
            canonical, digest = canonicalize_and_digest(job.tenant, job.task, tool.spec.name, arguments)
        except ValueError as error:
            hint = "send numbers up to 2^53, or as text"
            raise JobRefused(
                Failure.from_text("bad_arguments", f"the arguments have no canonical form: {error}", hint)
            ) from None
        if len(canonical) > bounds.MAX_ARGUMENTS_BYTES:
            message = (
                f"the arguments take {len(canonical)} bytes in canonical form; {bounds.MAX_ARGUMENTS_BYTES} are allowed"
            )
            raise JobRefused(Failure.from_text("bad_arguments", message, "send less at once"))
        question_sha256 = job.authority.step.question_sha256 if job.authority.step is not None else ""
        if tool.spec.name == ASK_PERSON and question_sha256 and _question_sha256(arguments) != question_sha256:
            raise JobRefused(_other_question_failure(request.step_id))
        calls_before = await self._calls_before(job, tool)
        planned_before = await self._planned_before(job, tool)
        attribution = verified_attribution(request, job.tenant, job.task, self._context.verifier)
        if attribution is None and request.basis is not None and tool.spec.is_consequential:
            attribution = await attribute_plan_call(job, arguments, self._context, self._attributor)
        proposal = self._build_proposal(job, tool, arguments, attribution, (calls_before, planned_before))
        carries: tuple[str, ...] = ()
        if self._keeps_labels(job.tenant):
            carries = await self._place_labels.find_sources(job.tenant, arguments)
            proposal = replace(proposal, shown=tuple(dict.fromkeys((*proposal.shown, *carries))))
        ruling = await self._rule_on(proposal, len(canonical))
        if ruling.effect == "forbid":
            raise JobRefused(_forbidden_failure(tool, ruling))
        approval_id, approval = "", ""
        if ruling.effect == "ask":
            approval_id = approval_id_of(request.call_id, digest)
            record = await self._require_approval(job, proposal, ruling, approval_id, (canonical, digest))
            approval = record.describe_grant()
        if tool.spec.most_calls:
            await self._count_once(job, "calls", tool.spec.name, request.call_id, tool.spec.most_calls)
        if planned_name := _planned_name(job, tool):
            item_id = f"{request.call_id}{_PLACE_MARK}{planned_place(proposal)}"
            await self._count_once(
                job, "planned", planned_name, item_id, bounds.MAX_PLANNED_CALLS, known=len(planned_before)
            )
        if self._keeps_labels(job.tenant):
            # Before the call: what it writes is never there without its label.
            await self._place_labels.add_sources(job.tenant, tool.spec, arguments, proposal.shown)
        return GatePass(ruling, approval_id, carries, approval)

    async def _rule_on(self, proposal: CallProposal, size_bytes: int) -> CallRuling:
        """The ruling: at once, or in a thread where the arguments are long, for all in them is looked at. Of those one
        is ruled on at a time, and tenants take turns: other calls go on meanwhile."""
        if size_bytes <= MAX_INLINE_BYTES:
            return self._rule(proposal)
        async with self._long_rulings.hold_slot(proposal.task.tenant, proposal.task.actor):
            return await asyncio.to_thread(self._rule, proposal)

    def _build_proposal(
        self,
        job: Job[ToolCallRequested],
        tool: RegisteredTool,
        arguments: Arguments,
        attribution: Attribution | None,
        before: tuple[int, tuple[int, ...]],
    ) -> CallProposal:
        """before: other calls of the tool in this task, and those of this step as planned ones."""
        task, step = job.authority.task, job.authority.step
        calls_before, planned_before = before
        return CallProposal(
            task=task,
            role=task.role,
            step=step,
            tool=tool.spec,
            arguments=arguments,
            values=attribution.values if attribution is not None else None,
            least_trusted=attribution.least if attribution is not None else "model",
            shown=(attribution.shown if attribution is not None else ()) or (UNKNOWN_SOURCE,),
            flows=step.flows if step is not None else (),
            constraints=(*task.constraints, *(step.constraints if step is not None else ())),
            agent=target_of(job).agents[-1],
            planned=step.calls if step is not None else (),
            planned_before=planned_before,
            calls_before=calls_before,
            isolation=self._isolation_of(tool),
        )

    async def _require_approval(
        self,
        job: Job[ToolCallRequested],
        proposal: CallProposal,
        ruling: CallRuling,
        approval_id: str,
        canonical_and_digest: tuple[str, str],
    ) -> ApprovalRecord:
        """The record of a person's grant of exactly this. Raises JobRefused (denied, expired) or Deferred."""
        now_unix_ms = self._context.clock()
        record, sequence = await self.approvals.find_record(job.tenant, job.task, approval_id)
        denial = await self.approvals.find_denial(job.tenant, job.task, canonical_and_digest[1])
        if denial is not None and (record is None or not record.outcome):
            raise JobRefused(_ended_failure(proposal.tool.name, denial))
        if record is None:
            await self._count_once(job, "approvals", "", approval_id, bounds.MAX_APPROVALS)
            approval_request = self._approval_request(job, proposal, ruling, approval_id, canonical_and_digest)
            record = await self.approvals.open_approval(job.tenant, job.task, approval_request, job.sender)
        elif record.outcome in ("", "expired") and now_unix_ms >= record.request.expires_unix_ms:
            record = await self.approvals.expire_approval(job.tenant, job.task, record, sequence)
        if record.outcome == "granted" and now_unix_ms < record.request.expires_unix_ms:
            return record
        if record.outcome:
            raise JobRefused(_ended_failure(proposal.tool.name, record))
        request = record.request
        shortest_ms, longest_ms = APPROVAL_RECHECK_MS
        after_ms = min(
            max((now_unix_ms - request.requested_unix_ms) // 4, shortest_ms),
            longest_ms,
            max(1, request.expires_unix_ms - now_unix_ms),
        )
        message = f"{proposal.tool.name} waits for an approval: {'; '.join(ruling.reasons[:2])}. "
        message += f"It goes on after `bulkhead approvals grant {approval_id}`"
        ask_people = partial(self.approvals.ask_people, job.tenant, job.task, approval_id)
        raise Deferred(
            after_ms,
            message[:2000],
            paused=True,
            code=APPROVAL_WAITING,
            then=ask_people,
            until_unix_ms=request.expires_unix_ms,
        )

    def _approval_request(
        self,
        job: Job[ToolCallRequested],
        proposal: CallProposal,
        ruling: CallRuling,
        approval_id: str,
        canonical_and_digest: tuple[str, str],
    ) -> ApprovalRequested:
        request, now_unix_ms = job.request, self._context.clock()
        tool = proposal.tool
        values = {(value.pointer, value.text): value for value in proposal.values or ()}
        # Those of the plan where the grant has its question; an agent's own only narrow what holds without them.
        question = proposal.arguments if tool.name == ASK_PERSON else {}
        ttl_ms = min(self._ttl_ms, question.get("expires_ms", self._ttl_ms))
        found_values = tuple(
            values.get((finding.pointer, finding.text))
            or ValueOrigin(pointer=finding.pointer[: bounds.MAX_POINTER_CHARS], text=finding.text[:200])
            for finding in ruling.findings
        )
        return ApprovalRequested(
            approval_id=approval_id,
            call_id=request.call_id,
            step_id=request.step_id,
            tool=tool.name,
            arguments_json=canonical_and_digest[0],
            arguments_sha256=canonical_and_digest[1],
            preview=render_preview(tool.name, proposal.arguments, RESULTS_NOTE if question.get("results") else ""),
            risk=ruling.risk,
            why=tuple(escape_invisible(reason)[:MAX_WHY_CHARS] for reason in _reasons_of(ruling))[
                : bounds.MAX_FINDINGS
            ],
            values=(*found_values, *(value for value in values.values() if value not in found_values))[
                : bounds.MAX_FINDINGS
            ],
            rule=ruling.rule,
            policy_sha256=ruling.policy_sha256,
            asked_for=job.authority.task.actor,
            four_eyes=tool.four_eyes,
            roles=tuple(question.get("roles", ())),
            requested_unix_ms=now_unix_ms,
            expires_unix_ms=max(now_unix_ms, min(now_unix_ms + ttl_ms, _decision_deadline_unix_ms(proposal.task))),
        )

    # What is counted in a task: calls of a tool, approvals

    async def _calls_before(self, job: Job[Any], tool: RegisteredTool) -> int:
        """Other calls of the tool in this task that were let through."""
        if not tool.spec.most_calls:
            return 0
        call_ids, _ = await self._read_counted(self._count_subject(job, "calls", tool.spec.name))
        return len([call_id for call_id in call_ids if call_id != job.request.call_id])

    async def _planned_before(self, job: Job[Any], tool: RegisteredTool) -> tuple[int, ...]:
        """Other calls of a tool in this step that were let through, each as one of those that the plan foresees."""
        planned_name = _planned_name(job, tool)
        if not planned_name:
            return ()
        items, _ = await self._read_counted(self._count_subject(job, "planned", planned_name))
        return tuple(
            int(item.partition(_PLACE_MARK)[2] or -1) for item in items if _counted_id(item) != job.request.call_id
        )

    async def _count_once(
        self, job: Job[Any], kind: str, name: str, item_id: str, limit: int, known: int | None = None
    ) -> None:
        """This is one of them from now on. known: the number of others that it was ruled on with. Raises JobRefused
        when there are so many already, and HandBack when another was first, so that it is ruled on anew."""
        subject = self._count_subject(job, kind, name)
        counted, sequence = await self._read_counted(subject)
        if any(_counted_id(item) == _counted_id(item_id) for item in counted):
            return
        if known is not None and len(counted) > known:
            raise HandBack(CONFLICT_RETRY_S, f"another of the {kind} was counted meanwhile")
        if len(counted) >= limit:
            text = f"this task has had {limit} {kind}{f' of {name}' if name else ''}, and may have no more"
            raise JobRefused(
                Failure.from_text(f"too_many_{kind}", text, "go on without it, and say that it was not done")
            )
        message_id = envelope.message_id(self._context.message_key, f"{subject}/{sequence}/{item_id}")
        headers, body = {"content-type": "text/plain"}, " ".join((*counted, item_id)).encode()
        try:
            await self._context.bus.publish(subject, body, headers, message_id, expect_last_on_subject=sequence)
        except WrongLastSequence as error:
            raise HandBack(CONFLICT_RETRY_S, f"another of the {kind} was counted meanwhile") from error

    async def _read_counted(self, subject: str) -> tuple[tuple[str, ...], int]:
        stored = await self._context.bus.last(subjects.records_stream(self._context.service), subject)
        return ((), 0) if stored is None else (tuple(stored.body.decode().split()), stored.sequence)

    def _count_subject(self, job: Job[Any], kind: str, name: str) -> str:
        return subjects.record_subject(self._context.service, job.tenant, job.task, envelope.derive_id(kind, name, ""))


def _counted_id(item: str) -> str:
    return item.partition(_PLACE_MARK)[0]


def _planned_name(job: Job[Any], tool: RegisteredTool) -> str:
    """Name under which the calls of a tool are counted in a step whose plan foresees them; "" where it does not."""
    step = job.authority.step
    planned = step is not None and any(call.tool == tool.spec.name for call in step.calls)
    return f"{step.step_id}/{tool.spec.name}" if step is not None and planned else ""


def _decision_deadline_unix_ms(task: TaskGrant) -> int:
    """Until when people may decide about calls of a task."""
    began = task.expires_unix_ms - bounds.GRANT_SLACK_MS - task.limits.lifetime_ms
    return began + task.limits.approvals_ms


def _reasons_of(ruling: CallRuling) -> tuple[str, ...]:
    finding_reasons = (f"{finding.pointer}: {finding.why}" for finding in ruling.findings)
    return (*ruling.reasons, *(reason for reason in finding_reasons if reason not in ruling.reasons))


def _question_sha256(arguments: Arguments) -> str:
    """Digest of the question that is asked by these arguments; "" of what no plan can ask."""
    try:
        return ApprovalQuestion(
            text=arguments["question"], roles=tuple(arguments.get("roles", ())), expires_ms=arguments["expires_ms"]
        ).signed_sha256
    except (KeyError, ValidationError):
        return ""


def _other_question_failure(step_id: str) -> Failure:
    message = f"this is not the question of step {step_id}: its text, roles or time are not those that the plan states"
    return Failure.from_text("other_question", message, "ask the step's question as the plan has it")


def _forbidden_failure(tool: RegisteredTool, ruling: CallRuling) -> Failure:
    message = f"policy forbids this call of {tool.spec.name} (rule {ruling.rule}): {'; '.join(_reasons_of(ruling))}"
    hint = "go on without it, or tell the user what would be needed; `bulkhead policy explain` shows the rule"
    return Failure.from_text(ruling.code or "forbidden", message, hint)


def _ended_failure(tool: str, record: ApprovalRecord) -> Failure:
    if record.outcome in ("expired", "granted"):
        message = f"nobody approved {tool} in time"
        if record.outcome == "granted":
            message = f"{record.person} approved {tool}, and it was not made before the approval expired"
        return Failure.from_text(
            "approval_expired", message, "do not repeat it; say that it was not done for want of an approval"
        )
    reason = f": {record.reason}" if record.reason else ""
    if tool == ASK_PERSON:
        hint = "nothing that builds on this was run: mend what the question is about, and run it again"
        return Failure.from_text("approval_denied", f"{record.person} said no{reason}", hint)
    message = f"{record.person} denied {tool}{reason}"
    return Failure.from_text(
        "approval_denied", message, "do not repeat it, nor the same by other means; say that it was denied"
    )
