"""The gate of every call: policy rules on it, and a call that policy asks about waits for a person.

In: a call whose grant holds and whose arguments fit. Out: the ruling under which it is made; Refused or Deferred where
it is not. Nothing was begun before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from bulkhead.bus.port import WrongLastSequence
from bulkhead.grants.attribution import verified_attribution
from bulkhead.policy.ruling import Proposal, Ruling
from bulkhead.runtime.context import Context
from bulkhead.runtime.doer.protocol import Job, target_of
from bulkhead.runtime.errors import Deferred, HandBack, Refused
from bulkhead.tools.api import Arguments
from bulkhead_contracts import bounds, envelope, subjects
from bulkhead_contracts.approval import ApprovalRequested
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.provenance import Isolation, ValueOrigin
from bulkhead_contracts.result import Failure
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_services.tool_executor.boundary.approvals import AGAIN_S, Approvals, Standing, digest_of, id_of
from bulkhead_services.tool_executor.boundary.preview import preview, visible
from bulkhead_services.tool_executor.registry import Tool

WANTED = "approval_wanted"
"""Code of a call that waits for a person's word."""
LOOK_AGAIN_MS = 15_000, 1_800_000
"""A call that waits is asked again so often at first and later, should the word that resumes it be lost: seldom enough
that days of waiting do not fill the task's inboxes."""
MAX_POINTER_CHARS = 200
MAX_WHY_CHARS = 400
"""Of each reason: all of a request to people, in whatever script, must fit one message."""
Rule = Callable[[Proposal], Ruling]
IsolationOf = Callable[[Tool], Isolation]


@dataclass(frozen=True, slots=True)
class Passed:
    """Under which ruling a call is made, and whose approval."""

    ruling: Ruling
    approval_id: str = ""


class Gate:
    """See the module. ttl_ms: how long a person may take; the task may have less time for all its approvals."""

    def __init__(self, context: Context, rule: Rule, isolation_of: IsolationOf, ttl_ms: int) -> None:
        self._context, self._rule, self._isolation_of, self._ttl_ms = context, rule, isolation_of, ttl_ms
        self.approvals = Approvals(context)

    async def admit(self, job: Job[ToolCallRequested], tool: Tool, arguments: Arguments) -> Passed:
        """The ruling under which the call may be made now. Raises Refused, Deferred, HandBack."""
        request = job.request
        try:
            canonical, digest = digest_of(job.tenant, job.task, tool.spec.name, arguments)
        except ValueError as error:
            hint = "send numbers up to 2^53, or as text"
            raise Refused(Failure.of("bad_arguments", f"the arguments have no canonical form: {error}", hint)) from None
        if len(canonical) > bounds.MAX_ARGUMENTS_BYTES:
            what = (
                f"the arguments take {len(canonical)} bytes in canonical form; {bounds.MAX_ARGUMENTS_BYTES} are allowed"
            )
            raise Refused(Failure.of("bad_arguments", what, "send less at once"))
        before = await self._calls_before(job, tool)
        proposal = self._proposal(job, tool, arguments, before)
        ruling = self._rule(proposal)
        if ruling.effect == "forbid":
            raise Refused(_forbidden(tool, ruling))
        approval_id = ""
        if ruling.effect == "ask":
            approval_id = id_of(request.call_id, digest)
            await self._approved(job, proposal, ruling, approval_id, (canonical, digest))
        if tool.spec.most_calls:
            await self._count(job, "calls", tool.spec.name, request.call_id, tool.spec.most_calls)
        return Passed(ruling, approval_id)

    def _proposal(self, job: Job[ToolCallRequested], tool: Tool, arguments: Arguments, before: int) -> Proposal:
        task, step = job.authority.task, job.authority.step
        seen = verified_attribution(job.request, job.tenant, job.task, self._context.verifier)
        return Proposal(
            task=task,
            role=task.role,
            step=step,
            tool=tool.spec,
            arguments=arguments,
            values=seen.values if seen is not None else None,
            least=seen.least if seen is not None else "model",
            flows=step.flows if step is not None else (),
            constraints=(*task.constraints, *(step.constraints if step is not None else ())),
            agent=target_of(job).agents[-1],
            calls_before=before,
            isolation=self._isolation_of(tool),
        )

    async def _approved(
        self, job: Job[ToolCallRequested], proposal: Proposal, ruling: Ruling, approval_id: str, said: tuple[str, str]
    ) -> None:
        """Return when a person granted exactly this. Raises Refused (denied, expired) or Deferred."""
        now = self._context.clock()
        standing, sequence = await self.approvals.find(job.tenant, job.task, approval_id)
        denied = await self.approvals.denied(job.tenant, job.task, said[1])
        if denied is not None and (standing is None or not standing.outcome):
            raise Refused(_ended(proposal.tool.name, denied))
        if standing is None:
            await self._count(job, "approvals", "", approval_id, bounds.MAX_APPROVALS)
            first = self._asked(job, proposal, ruling, approval_id, said)
            standing = await self.approvals.open(job.tenant, job.task, first, job.sender)
        elif standing.outcome in ("", "expired") and now >= standing.request.expires_unix_ms:
            standing = await self.approvals.expire(job.tenant, job.task, standing, sequence)
        if standing.outcome == "granted" and now < standing.request.expires_unix_ms:
            return
        if standing.outcome:
            raise Refused(_ended(proposal.tool.name, standing))
        asked = standing.request
        least, most = LOOK_AGAIN_MS
        after_ms = min(max((now - asked.requested_unix_ms) // 4, least), most, max(1, asked.expires_unix_ms - now))
        what = f"{proposal.tool.name} waits for an approval: {'; '.join(ruling.reasons[:2])}. "
        what += f"It goes on after `bulkhead approvals grant {approval_id}`"
        tell = partial(self.approvals.tell, job.tenant, job.task, approval_id)
        raise Deferred(after_ms, what[:2000], paused=True, code=WANTED, then=tell, until_unix_ms=asked.expires_unix_ms)

    def _asked(
        self, job: Job[ToolCallRequested], proposal: Proposal, ruling: Ruling, approval_id: str, said: tuple[str, str]
    ) -> ApprovalRequested:
        request, now = job.request, self._context.clock()
        tool = proposal.tool
        values = {(one.pointer, one.text): one for one in proposal.values or ()}
        seen = tuple(
            values.get((one.pointer, one.text))
            or ValueOrigin(pointer=one.pointer[:MAX_POINTER_CHARS], text=one.text[:200])
            for one in ruling.findings
        )
        return ApprovalRequested(
            approval_id=approval_id,
            call_id=request.call_id,
            step_id=request.step_id,
            tool=tool.name,
            arguments_json=said[0],
            arguments_sha256=said[1],
            preview=preview(tool.name, proposal.arguments),
            risk=ruling.risk,
            why=tuple(visible(one)[:MAX_WHY_CHARS] for one in _why(ruling))[: bounds.MAX_FINDINGS],
            values=(*seen, *(one for one in values.values() if one not in seen))[: bounds.MAX_FINDINGS],
            rule=ruling.rule,
            policy_sha256=ruling.policy_sha256,
            asked_for=job.authority.task.actor,
            four_eyes=tool.four_eyes,
            requested_unix_ms=now,
            expires_unix_ms=max(now, min(now + self._ttl_ms, _decided_by(proposal.task))),
        )

    # What is counted in a task: calls of a tool, approvals

    async def _calls_before(self, job: Job[Any], tool: Tool) -> int:
        """Other calls of the tool in this task that were let through."""
        if not tool.spec.most_calls:
            return 0
        made, _ = await self._counted(self._subject(job, "calls", tool.spec.name))
        return len([one for one in made if one != job.request.call_id])

    async def _count(self, job: Job[Any], what: str, name: str, one: str, most: int) -> None:
        """This is one of them from now on. Raises Refused when there are so many already, and HandBack when another was
        first, so that it is ruled on anew."""
        subject = self._subject(job, what, name)
        made, sequence = await self._counted(subject)
        if one in made:
            return
        if len(made) >= most:
            text = f"this task has had {most} {what}{f' of {name}' if name else ''}, and may have no more"
            raise Refused(Failure.of(f"too_many_{what}", text, "go on without it, and say that it was not done"))
        message_id = envelope.message_id(self._context.message_key, f"{subject}/{sequence}/{one}")
        headers, body = {"content-type": "text/plain"}, " ".join((*made, one)).encode()
        try:
            await self._context.bus.publish(subject, body, headers, message_id, expect_last_on_subject=sequence)
        except WrongLastSequence as error:
            raise HandBack(AGAIN_S, f"another of the {what} was counted meanwhile") from error

    async def _counted(self, subject: str) -> tuple[tuple[str, ...], int]:
        stored = await self._context.bus.last(subjects.records_stream(self._context.service), subject)
        return ((), 0) if stored is None else (tuple(stored.body.decode().split()), stored.sequence)

    def _subject(self, job: Job[Any], what: str, name: str) -> str:
        return subjects.record(self._context.service, job.tenant, job.task, envelope.derive_id(what, name, ""))


def _decided_by(task: TaskGrant) -> int:
    """Until when people may decide about calls of a task."""
    began = task.expires_unix_ms - bounds.GRANT_SLACK_MS - task.limits.lifetime_ms
    return began + task.limits.approvals_ms


def _why(ruling: Ruling) -> tuple[str, ...]:
    found = (f"{one.pointer}: {one.why}" for one in ruling.findings)
    return (*ruling.reasons, *(one for one in found if one not in ruling.reasons))


def _forbidden(tool: Tool, ruling: Ruling) -> Failure:
    what = f"policy forbids this call of {tool.spec.name} (rule {ruling.rule}): {'; '.join(_why(ruling))}"
    hint = "go on without it, or tell the user what would be needed; `bulkhead policy explain` shows the rule"
    return Failure.of(ruling.code or "forbidden", what, hint)


def _ended(tool: str, standing: Standing) -> Failure:
    if standing.outcome in ("expired", "granted"):
        what = f"nobody approved {tool} in time"
        if standing.outcome == "granted":
            what = f"{standing.person} approved {tool}, and it was not made before the approval expired"
        return Failure.of(
            "approval_expired", what, "do not repeat it; say that it was not done for want of an approval"
        )
    what = f"{standing.person} denied {tool}" + (f": {standing.reason}" if standing.reason else "")
    return Failure.of("approval_denied", what, "do not repeat it, nor the same by other means; say that it was denied")
