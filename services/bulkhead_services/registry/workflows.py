"""Workflows of all tenants: people's acts on them, and questions (rpc, from the gateway alone).

In: acts that the signer signed, questions. Out: versions and facts about them, each written once; rows, and versions
with all that they nest.
"""

from collections.abc import Awaitable, Callable, Mapping

from bulkhead.bus.port import BusError, BusUnavailable
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.telemetry.log import Log
from bulkhead.workflows.compose import compose_run, list_workflow_problems, plain_tool
from bulkhead.workflows.ledger import VersionRecord, WorkflowLedger
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.approval import ApprovalGrant
from bulkhead_contracts.prompt import CanaryWatch
from bulkhead_contracts.result import Failure
from bulkhead_contracts.tool import ToolSpec
from bulkhead_contracts.workflow import (
    WorkflowActReplied,
    WorkflowActRequested,
    WorkflowRelease,
    WorkflowRow,
    WorkflowsReplied,
    WorkflowsRequested,
    WorkflowVersion,
)
from bulkhead_services.registry.core import DAY_MS, judge_rate, judge_repeat
from bulkhead_services.registry.workflow_rules import (
    as_listed,
    describe_state,
    fit_rows,
    judge_role,
    make_version,
    plan_canary,
    plan_transition,
    shorten_history,
    size_of_rows,
    without_values,
)

log = Log("registry")
TRIES = 5
MAX_LISTED = 50
"""Versions of one workflow that are told."""
MAX_ANSWER_BYTES = bounds.MAX_MESSAGE_BYTES - 32 * 1024
"""Of rows and versions together, beside the frame of the answer."""


class WorkflowRegistry:
    """Workflows of all tenants. tools: those that ship or come with packs, of which a check knows more than the name.
    put_once, check_word: of the registry. find_watch: the canary of a tenant's workflow, as it does."""

    def __init__(
        self,
        context: Context,
        quotas: TenantQuotas,
        tools: tuple[ToolSpec, ...],
        *,
        put_once: Callable[[str, bytes, str], Awaitable[bool]],
        check_word: Callable[[ReceivedMessage, WorkflowActRequested], ApprovalGrant | Failure],
        find_watch: Callable[[str, str], Awaitable[CanaryWatch | None]],
    ) -> None:
        self._context, self._quotas, self._tools = context, quotas, {tool.name: tool for tool in tools}
        self._put_once, self._check_word, self._find_watch = put_once, check_word, find_watch
        self.ledger = WorkflowLedger(context.bus)

    async def on_act_requested(self, message: ReceivedMessage) -> WorkflowActReplied:
        """Draft a version or move one on, or say why not."""
        request, tenant = message.body, message.tenant
        assert isinstance(request, WorkflowActRequested)
        signed_word = self._check_word(message, request)
        if not isinstance(signed_word, Failure):
            signed_word = judge_role(request.action, signed_word.role) or signed_word
        if isinstance(signed_word, Failure):
            return self._refuse_act(message, signed_word)
        try:
            await self.ledger.read_new()
            if request.canary is not None:
                record = await self._store_canary(tenant, request, signed_word)
            else:
                store = self._store_draft if request.action == "draft" else self._store_transition
                record = await store(tenant, request, signed_word)
        except BusError as error:
            record = _broker_unavailable(error)
        if isinstance(record, Failure):
            return self._refuse_act(message, record)
        row = record.row
        log.warning("workflow_moved", tenant=tenant, workflow=row.workflow, number=row.number, state=row.state)
        return WorkflowActReplied(row=self._with_canary(tenant, without_values(row)))

    async def on_workflows_requested(self, message: ReceivedMessage) -> WorkflowsReplied:
        """Workflows that there are, or one version with all that it nests."""
        request, tenant = message.body, message.tenant
        assert isinstance(request, WorkflowsRequested)
        if request.requester.tenant != tenant:
            reason = f"{request.requester.tenant} asks about {tenant}"
            return WorkflowsReplied(failure=Failure.from_text("foreign_tenant", reason, "this is a bug of the gateway"))
        try:
            await self.ledger.read_new()
            if not request.workflow:
                return self._answer_list(tenant, request.after)
            return await self._answer_version(tenant, request)
        except BusError as error:
            return WorkflowsReplied(failure=_broker_unavailable(error))

    def _answer_list(self, tenant: str, after: str) -> WorkflowsReplied:
        """Rows of the newest version of each workflow, of the newest that is published, and of those that begin runs by
        themselves, as many as fit."""
        rows: tuple[WorkflowRow, ...] = ()
        left_bytes = MAX_ANSWER_BYTES
        for name in self.ledger.list_names(tenant):
            if name <= after:
                continue
            versions, published = self.ledger.list_versions(tenant, name), self.ledger.find_published(tenant, name)
            shown = [record for record in versions if record in (versions[0], published) or record.row.begins_runs]
            listed = fit_rows((self._with_canary(tenant, as_listed(record.row)) for record in shown), MAX_ANSWER_BYTES)
            listed = listed[: bounds.MAX_WORKFLOW_ROWS]
            left_bytes -= size_of_rows(listed)
            if rows and (left_bytes < 0 or len(rows) + len(listed) > bounds.MAX_WORKFLOW_ROWS):
                return WorkflowsReplied(rows=rows, more=True)
            rows += listed
        return WorkflowsReplied(rows=rows)

    def _with_canary(self, tenant: str, row: WorkflowRow) -> WorkflowRow:
        """The row with the canary that stands of it."""
        release = self.ledger.find_canary(tenant, row.workflow)
        canary = release.canary if release is not None else None
        return row.model_copy(update={"canary": canary}) if canary is not None and canary.number == row.number else row

    async def _answer_version(self, tenant: str, request: WorkflowsRequested) -> WorkflowsReplied:
        """A version with its history. Raises BusError."""
        name, versions = request.workflow, self.ledger.list_versions(tenant, request.workflow)
        newest = self.ledger.find_published(tenant, name) or next(iter(versions), None)
        record = self.ledger.find_version(tenant, name, request.number) if request.number else newest
        release, chosen_by = self.ledger.find_canary(tenant, name), ""
        if request.run and not request.number and release is not None:
            chosen_by = release.ref_for(request.run, request.requester.person)
        is_canary = chosen_by.endswith(".canary")
        if is_canary and release is not None and release.canary is not None:
            record = self.ledger.find_version(tenant, name, release.canary.number)
        version = await self.ledger.read_version(tenant, name, record.row.number) if record is not None else None
        if record is None or version is None:
            name_of_missing = f"{name}.{request.number}" if request.number else name
            hint = "`bulkhead workflows list` shows those that there are"
            return WorkflowsReplied(
                failure=Failure.from_text("unknown_workflow", f"there is no {name_of_missing}", hint)
            )
        try:
            nested = await self.ledger.read_nested(tenant, version)
        except ValueError as error:
            return WorkflowsReplied(
                failure=Failure.from_text("bad_workflow", str(error), "nest fewer and smaller ones")
            )
        failure = self._judge_published(tenant, version.ref, record, nested, is_canary=is_canary)
        if request.runnable and failure is not None:
            return WorkflowsReplied(failure=failure)
        sizes = [len(inner.model_dump_json().encode()) for inner in (version, *nested.values())]
        left_bytes = MAX_ANSWER_BYTES - sum(sizes)
        row = self._with_canary(tenant, without_values(record.row))
        if (size := len(row.model_dump_json().encode())) > left_bytes:
            row = shorten_history(row)
            size = len(row.model_dump_json().encode())
        others = [
            self._with_canary(tenant, as_listed(other.row)) for other in versions[:MAX_LISTED] if other is not record
        ]
        rows = sorted((row, *fit_rows(others, left_bytes - size)), key=lambda row: -row.number)
        return WorkflowsReplied(
            rows=tuple(rows),
            version=version,
            nested=tuple(nested.values()),
            release=None if request.runnable else self.ledger.find_release(tenant, name),
            watch=None if request.runnable else await self._find_watch(tenant, name),
            chosen_by=chosen_by,
        )

    def _judge_published(
        self, tenant: str, ref: str, record: VersionRecord, nested: Mapping[str, WorkflowVersion], *, is_canary: bool
    ) -> Failure | None:
        """Reason for which a version may not run; None when it and all that it nests are published. is_canary: it runs
        for its share, approved."""
        if is_canary or record.row.state == "published":
            return self._judge_nested(tenant, ref, nested)
        reason = f"{ref} is {describe_state(record.row)}, and only a published version runs"
        hint = f"`bulkhead workflows show {record.row.workflow}` says how far it is"
        return Failure.from_text("not_published", reason, hint)

    def _judge_nested(self, tenant: str, ref: str, nested: Mapping[str, WorkflowVersion]) -> Failure | None:
        unpublished = self.ledger.find_unpublished(tenant, nested.values())
        if unpublished is None:
            return None
        inner_ref, state = unpublished
        reason = f"{ref} nests {inner_ref}, which is {state}, and not published"
        return Failure.from_text("not_published", reason, f"publish {inner_ref}, or draft {ref} anew without it")

    async def _store_draft(
        self, tenant: str, request: WorkflowActRequested, signed_word: ApprovalGrant
    ) -> VersionRecord | Failure:
        """A version under the next free number; the one that this act made already, as it is. Raises BusError."""
        name = request.workflow
        if request.content is None or request.number or request.sha256 or request.schedule:
            return Failure.from_text("bad_workflow", "a draft has a content, and neither number nor digest", "send it")
        if not self.ledger.list_versions(tenant, name) and len(self.ledger.list_names(tenant)) >= bounds.MAX_WORKFLOWS:
            reason = f"the tenant has {bounds.MAX_WORKFLOWS} workflows, and may have no more"
            return Failure.from_text("too_many_versions", reason, "draft it as the next version of one of them")
        for _ in range(TRIES):
            now_unix_ms, versions = self._context.clock(), self.ledger.list_versions(tenant, name)
            for record in versions[: bounds.MAX_WORKFLOW_DRAFTS_A_DAY]:
                if record.act == request.act:
                    return judge_repeat(record.act_sha256, request) or record
            newest = versions[0].row if versions else None
            if newest is not None and newest.sha256 == request.content.sha256 and newest.state != "retired":
                reason = f"{name}.{newest.number} has this very content, and is {describe_state(newest)}"
                return Failure.from_text("same_content", reason, "move that version on, or change something")
            # Of the tenant, and not of the workflow: all versions lie in one stream, which others need, too.
            if self.ledger.count_drafts(tenant, now_unix_ms - DAY_MS) >= bounds.MAX_WORKFLOW_DRAFTS_A_DAY:
                reason = f"{bounds.MAX_WORKFLOW_DRAFTS_A_DAY} versions of workflows were drafted within a day"
                return Failure.from_text("too_many_changes", reason, "wait until tomorrow; what is there can be run")
            version = make_version(request, signed_word, newest.number + 1 if newest is not None else 1, now_unix_ms)
            if isinstance(version, Failure):
                return version
            if (failure := await self._judge_content(tenant, version)) is not None:
                return failure
            subject = subjects.workflow_subject(tenant, name, version.number)
            stored = await self._put_once(subject, version.model_dump_json().encode(), request.act)
            await self.ledger.read_new()
            if stored and (stored_record := self.ledger.find_version(tenant, name, version.number)) is not None:
                return stored_record
        raise BusUnavailable(f"{TRIES} other versions of {name} were made at the same time")

    async def _judge_content(self, tenant: str, version: WorkflowVersion) -> Failure | None:
        """Reason for which this can be no version: it would not run. Raises BusError."""
        self._quotas.reload_if_changed()
        try:
            nested = await self.ledger.read_nested(tenant, version)
            contents = {ref: inner.content for ref, inner in nested.items()}
            names = self._quotas.tools_of(tenant)
            tools = None if names is None else [self._tools.get(name) or plain_tool(name) for name in names]
            problems = list_workflow_problems(version.content, contents, tools)
        except ValueError as error:
            problems = (str(error),)
        if not problems:
            return None
        hint = "`bulkhead workflows check FILE` tells most of what is wrong with a file"
        return Failure.from_text("bad_workflow", "; ".join(problems[:8]), hint)

    async def _store_transition(
        self, tenant: str, request: WorkflowActRequested, signed_word: ApprovalGrant
    ) -> VersionRecord | Failure:
        """The version after the act. Raises BusError."""
        name = f"{request.workflow}.{request.number}"
        record = self.ledger.find_version(tenant, request.workflow, request.number)
        if record is None:
            hint = "`bulkhead workflows list` shows those that there are"
            return Failure.from_text("unknown_workflow", f"there is no {name}", hint)
        for earlier in record.row.transitions:
            if earlier.act == request.act:
                return judge_repeat(earlier.act_sha256, request) or record
        fact = plan_transition(request, record.row, signed_word, self._context.clock())
        if isinstance(fact, Failure):
            return fact
        if request.action == "publish":
            failure = await self._judge_runnable(tenant, request.workflow, request.number)
            if failure is not None:
                return failure
        if request.schedule is not None:
            failure = await self._judge_binding(tenant, request, request.schedule.parameters)
            if failure is not None:
                return failure
        if request.trigger is not None:
            failure = await self._judge_binding(
                tenant, request, request.trigger.parameters, frozenset(request.trigger.fields)
            )
            if failure is not None:
                return failure
        subject = subjects.workflow_subject(tenant, request.workflow, request.number, fact.place)
        if not await self._put_once(subject, fact.model_dump_json().encode(), request.act):
            reason = f"{name} was moved by somebody else at this very moment"
            return Failure.from_text("wrong_state", reason, "look at it again, and do it again if it is still wanted")
        await self.ledger.read_new()
        return self.ledger.find_version(tenant, request.workflow, request.number) or record

    async def _store_canary(
        self, tenant: str, request: WorkflowActRequested, signed_word: ApprovalGrant
    ) -> VersionRecord | Failure:
        """The version after a canary of it began, got another share, or ended. Raises BusError."""
        name, now_unix_ms = request.workflow, self._context.clock()
        record, newest = self.ledger.find_version(tenant, name, request.number), self.ledger.find_release(tenant, name)
        if record is None:
            hint = "`bulkhead workflows list` shows those that there are"
            return Failure.from_text("unknown_workflow", f"there is no {name}.{request.number}", hint)
        if newest is not None and newest.act == request.act:
            return judge_repeat(newest.act_sha256, request) or record
        published, standing = self.ledger.find_published(tenant, name), self.ledger.find_canary(tenant, name)
        number = newest.number + 1 if newest is not None else 1
        row = published.row if published is not None else None
        release = plan_canary(request, record.row, row, standing, number, signed_word, now_unix_ms)
        if isinstance(release, Failure):
            return release
        if release.canary is not None:
            failure = await self._judge_runnable(tenant, name, request.number)
            failure = failure or await self._judge_count(tenant, release, is_new=standing is None)
            if failure is not None:
                return failure
        subject = subjects.workflow_subject(tenant, name, 0, number)
        if not await self._put_once(subject, release.model_dump_json().encode(), request.act):
            reason = f"the canary of {name} was changed by somebody else at this very moment"
            return Failure.from_text("wrong_state", reason, "look at it again, and do it again if it is still wanted")
        await self.ledger.read_new()
        return record

    async def _judge_runnable(self, tenant: str, name: str, number: int) -> Failure | None:
        """Reason for which no run of a version can begin: tools of the tenant, and versions that it nests, may have
        gone since it was drafted. Raises BusError."""
        version = await self.ledger.read_version(tenant, name, number)
        assert version is not None
        failure = await self._judge_content(tenant, version)
        return failure or self._judge_nested(tenant, version.ref, await self.ledger.read_nested(tenant, version))

    async def _judge_count(self, tenant: str, release: WorkflowRelease, *, is_new: bool) -> Failure | None:
        """Reason for which a canary does not begin or change: too many stand, or were changed. Raises BusError."""
        if is_new and sum(owner == tenant for owner, _ in self.ledger.list_canaries()) >= bounds.MAX_RELEASE_LABELS:
            reason = f"the tenant has {bounds.MAX_RELEASE_LABELS} canaries of workflows, and may have no more"
            return Failure.from_text("too_many_labels", reason, "end one of them")
        if (number := release.number - bounds.MAX_PROMPT_ACTS_A_DAY) < 1:
            return None
        subject = subjects.workflow_subject(tenant, release.workflow, 0, number)
        stored = await self._context.bus.last(subjects.PROMPTS_STREAM, subject)
        return judge_rate(stored.time_unix_ms, release.moved_unix_ms, release.workflow) if stored is not None else None

    async def _judge_binding(
        self,
        tenant: str,
        request: WorkflowActRequested,
        values: Mapping[str, str],
        from_event: frozenset[str] = frozenset(),
    ) -> Failure | None:
        """Reason for which no run of a schedule or trigger could begin with these values. from_event: parameters whose
        values an event has. Raises BusError."""
        version = await self.ledger.read_version(tenant, request.workflow, request.number)
        assert version is not None
        samples = {parameter.name: parameter.sample_value for parameter in version.content.parameters}
        values = {**values, **{name: samples.get(name, "") for name in from_event}}
        try:
            nested = await self.ledger.read_nested(tenant, version)
            compose_run(version.content, values, {ref: inner.content for ref, inner in nested.items()})
        except ValueError as error:
            hint = f"`bulkhead workflows show {request.workflow}` tells its parameters"
            return Failure.from_text("bad_schedule", f"no run could begin: {error}", hint)
        return self._judge_nested(tenant, version.ref, nested)

    def _refuse_act(self, message: ReceivedMessage, failure: Failure) -> WorkflowActReplied:
        log.warning("act_refused", tenant=message.tenant, act=message.task, code=failure.code, reason=failure.message)
        return WorkflowActReplied(failure=failure)


def _broker_unavailable(error: BusError) -> Failure:
    log.error("workflows_not_stored", reason=str(error))
    reason, hint = f"the broker does not answer: {error}", "do it again: nothing is done twice"
    return Failure.from_text("unavailable", reason, hint)
