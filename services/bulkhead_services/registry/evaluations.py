"""Evaluations of prompts: what people ask for, the statements in which evaluators end it, and moves held to these.

In: requests and reports (rpc, from the gateway alone). Out: a release of `trial` for what is to be evaluated, the facts
of the evaluation, each written once, and the statements on which a move stands.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

from bulkhead.bus.port import BusError, BusUnavailable
from bulkhead.evaluation.statement import (
    MAX_AHEAD_MS,
    Expectation,
    StatementError,
    find_statement_misfits,
    verify_envelope,
)
from bulkhead.gateway_api.evaluations import REPORTERS
from bulkhead.prompts.labels import ReleaseLabels
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.approval import ApprovalGrant
from bulkhead_contracts.evaluation import (
    Evaluation,
    EvaluationReplied,
    EvaluationReported,
    EvaluationRequested,
    EvaluationRow,
    EvaluationsReplied,
    EvaluationsRequested,
    SignedReport,
)
from bulkhead_contracts.prompt import TRIAL, PromptRelease, PromptVersion, ReleaseMoveRequested
from bulkhead_contracts.prompt.gate_policy import GatePolicy
from bulkhead_contracts.result import Failure
from bulkhead_services.registry import gate
from bulkhead_services.registry.core import judge_rate, judge_repeat, plan_trial

log = Log("registry")
TRIES = 5
SEARCH_PAGE, MAX_SEARCHED = 60, 2_000
"""Evaluations, the newest, that are read at once, and among which a move finds its statements: of ten days at least."""


class EvaluationRegistry:
    """Evaluations of all tenants. shipped: digests of the shipped prompts; max_age_ms: of the signer's word;
    put_once, read_version: of the registry."""

    def __init__(
        self,
        context: Context,
        labels: ReleaseLabels,
        quotas: TenantQuotas,
        shipped: Mapping[str, str],
        max_age_ms: int,
        *,
        put_once: Callable[[str, bytes, str], Awaitable[bool]],
        read_version: Callable[[str, str, int], Awaitable[PromptVersion | None]],
    ) -> None:
        self._context, self._labels, self._quotas, self._shipped = context, labels, quotas, shipped
        self._max_age_ms = max_age_ms
        self._put_once, self._read_version = put_once, read_version

    async def store_request(
        self, tenant: str, request: EvaluationRequested, signed_word: ApprovalGrant
    ) -> EvaluationRow | Failure:
        """The evaluation, and the release of `trial` that its tasks name; of a repeat the one that there is. Raises
        BusError."""
        await self._labels.read_new()
        if request.label == TRIAL:
            return Failure.from_text("reserved_label", f"{TRIAL} stands for evaluations alone", "name another label")
        standing = self._labels.find_newest(tenant, request.label)
        keys = {(change.prompt, change.number) for change in request.changes if change.number}
        versions = await self._read_versions(tenant, keys)
        if unknown := [change.prompt for change in request.changes if change.prompt not in self._shipped]:
            hint = f"prompts of this mesh: {', '.join(sorted(self._shipped))}"
            return Failure.from_text("unknown_prompt", f"no service asks for a prompt {unknown[0]}", hint)
        for _ in range(TRIES):
            newest = await self._newest_trial(tenant)
            trial = await self._find_made_of(request, tenant, newest)
            if trial is not None:
                if (failure := judge_repeat(trial.act_sha256, request)) is not None:
                    return failure
            else:
                number = newest.number + 1 if newest is not None else 1
                planned = await self._store_trial(tenant, request, standing, versions, number, signed_word)
                if isinstance(planned, Failure):
                    return planned
                if planned is None:
                    continue
                trial = planned
            evaluation = Evaluation(
                tenant=tenant,
                number=trial.number,
                case_set=request.case_set,
                label=request.label,
                base=standing.number if standing is not None else 0,
                changes=request.changes,
                release=trial.ref,
                prompts=gate.digest_prompts(trial.prompts, self._shipped),
                reason=request.reason,
                person=trial.person,
                role=trial.role,
                act=request.act,
                act_sha256=request.act_sha256,
                requested_unix_ms=trial.moved_unix_ms,
            )
            subject = subjects.evaluation_subject(tenant, evaluation.number)
            await self._put_once(subject, evaluation.model_dump_json().encode(), request.act)
            return await self._read_row(tenant, evaluation.number) or EvaluationRow(evaluation=evaluation)
        raise BusUnavailable(f"{TRIES} other evaluations were asked for at the same time")

    async def on_evaluation_reported(self, message: ReceivedMessage) -> EvaluationReplied:
        """Keep the statement that ends an evaluation, or say why not."""
        body, tenant = message.body, message.tenant
        assert isinstance(body, EvaluationReported)
        requester = body.requester
        if requester.tenant != tenant or requester.role not in REPORTERS.names:
            reason = f"{requester.person} is {requester.role} of {requester.tenant}, and may not report evaluations"
            hint = f"use a key of the tenant with the role {REPORTERS.needed}"
            return EvaluationReplied(failure=Failure.from_text("role_may_not_report", reason, hint))
        try:
            row = await self._store_report(tenant, body)
        except BusError as error:
            row = Failure.from_text("unavailable", f"the broker does not answer: {error}", "report it again")
        if isinstance(row, Failure):
            log.warning("report_refused", tenant=tenant, evaluation=body.number, code=row.code, reason=row.message)
            return EvaluationReplied(failure=row)
        log.info("evaluation_reported", tenant=tenant, evaluation=body.number, by=requester.person)
        return EvaluationReplied(row=_without_envelope(row))

    async def on_evaluations_requested(self, message: ReceivedMessage) -> EvaluationsReplied:
        """Evaluations, the newest first; or one with its envelope."""
        ask, tenant = message.body, message.tenant
        assert isinstance(ask, EvaluationsRequested)
        if ask.requester.tenant != tenant:
            reason = f"{ask.requester.tenant} asks about {tenant}"
            return EvaluationsReplied(failure=Failure.from_text("foreign_tenant", reason, "this is a gateway's bug"))
        try:
            if ask.number:
                row = await self._read_row(tenant, ask.number)
                if row is None:
                    return EvaluationsReplied(failure=_unknown(ask.number))
                return EvaluationsReplied(rows=(row,))
            trial = await self._newest_trial(tenant)
            first = min(trial.number if trial is not None else 0, ask.before - 1 if ask.before else 2**31)
            last = max(0, first - bounds.MAX_EVALUATION_PAGE)
            rows = await asyncio.gather(*(self._read_row(tenant, number) for number in range(first, last, -1)))
        except BusError as error:
            failure = Failure.from_text("unavailable", f"the broker does not answer: {error}", "ask again")
            return EvaluationsReplied(failure=failure)
        return EvaluationsReplied(rows=tuple(_without_envelope(row) for row in rows if row is not None), more=last > 0)

    def gate_of(self, tenant: str, label: str) -> GatePolicy | None:
        """The gate before a label, as the tenants file has it now."""
        self._quotas.reload_if_changed()
        return self._quotas.gates_of(tenant).get(label)

    async def judge_move(
        self,
        tenant: str,
        move: ReleaseMoveRequested,
        standing: PromptRelease | None,
        release: PromptRelease,
        restored: PromptRelease | None,
        signed_word: ApprovalGrant,
    ) -> tuple[str, ...] | Failure:
        """Statements on which a move stands: () where the label has no gate, or the move needs none. restored: the
        release that it restores. Raises BusError."""
        policy = self.gate_of(tenant, move.label)
        if policy is None or not gate.needs_gate(move, standing, release, restored):
            return ()
        candidate = gate.candidate_rows(release)
        digests = gate.digest_prompts(candidate, self._shipped)
        had = {(row.prompt, row.filled_sha256) for row in (standing.prompts if standing is not None else ())}
        new_rows = [row for row in candidate if (row.prompt, row.filled_sha256) not in had]
        changed = await self._read_versions(tenant, {(row.prompt, row.number) for row in new_rows})
        return gate.judge_move(
            tenant,
            policy,
            move,
            standing,
            digests=digests,
            changed=changed.values(),
            statements=await self._find_statements(tenant, policy, digests),
            signed_word=signed_word,
            now_unix_ms=self._context.clock(),
        )

    async def _store_trial(
        self,
        tenant: str,
        request: EvaluationRequested,
        standing: PromptRelease | None,
        versions: Mapping[tuple[str, int], PromptVersion],
        number: int,
        signed_word: ApprovalGrant,
    ) -> PromptRelease | Failure | None:
        """The next release of `trial`; None where another act has taken its number."""
        now_unix_ms = self._context.clock()
        earlier = await self._read_trial(tenant, number - bounds.MAX_PROMPT_ACTS_A_DAY)
        if earlier is not None and (failure := judge_rate(earlier.moved_unix_ms, now_unix_ms, TRIAL)) is not None:
            return failure
        trial = plan_trial(request, standing, versions, number, signed_word, now_unix_ms)
        if isinstance(trial, Failure):
            return trial
        subject = subjects.release_subject(tenant, TRIAL, number)
        return trial if await self._put_once(subject, trial.model_dump_json().encode(), request.act) else None

    async def _find_made_of(
        self, request: EvaluationRequested, tenant: str, newest: PromptRelease | None
    ) -> PromptRelease | None:
        """The release that an act made, among those that are younger than the signer's word may be."""
        since_unix_ms, trial = self._context.clock() - 2 * self._max_age_ms, newest
        while trial is not None and trial.moved_unix_ms >= since_unix_ms:
            if trial.act == request.act:
                return trial
            trial = await self._read_trial(tenant, trial.number - 1)
        return None

    async def _store_report(self, tenant: str, body: EvaluationReported) -> EvaluationRow | Failure:
        row = await self._read_row(tenant, body.number)
        if row is None or not row.evaluation.case_set:
            return _unknown(body.number)
        if row.report is not None:
            if row.report.envelope == body.envelope:
                return row
            reason = f"evaluation {body.number} has its report"
            return Failure.from_text("already_reported", reason, "ask for another evaluation")
        self._quotas.reload_if_changed()
        keys = {key for policy in self._quotas.gates_of(tenant).values() for key in policy.keys}
        evaluation, now_unix_ms = row.evaluation, self._context.clock()
        try:
            verified = verify_envelope(body.envelope, keys)
        except StatementError as error:
            return Failure.from_text("bad_statement", str(error), error.hint)
        predicate = verified.statement.predicate
        expected = Expectation(
            tenant=tenant,
            case_set=evaluation.case_set,
            prompts=evaluation.prompts,
            max_age_ms=max(0, now_unix_ms - evaluation.requested_unix_ms) + MAX_AHEAD_MS,
        )
        misfits = [
            row for row in find_statement_misfits(verified.statement, expected, now_unix_ms) if row.code != "failed"
        ]
        if misfits or (predicate.evaluation, predicate.release) != (evaluation.number, evaluation.release):
            reason = (
                misfits[0].reason if misfits else f"it is of evaluation {predicate.evaluation}, {predicate.release}"
            )
            hint = "report each evaluation with its own statement"
            if misfits and misfits[0].code == "stale":
                hint += "; if it is this one's, set the evaluator's clock, which differs from the registry's, by NTP"
            return Failure.from_text("other_evaluation", reason, hint)
        report = SignedReport(
            number=body.number,
            envelope=body.envelope,
            statement_sha256=verified.sha256,
            key_id=verified.key_id,
            passed=predicate.passed,
            failed_count=predicate.failed_count,
            person=body.requester.person,
            role=body.requester.role,
            reported_unix_ms=now_unix_ms,
        )
        subject = subjects.evaluation_report_subject(tenant, body.number)
        if not await self._put_once(subject, report.model_dump_json().encode(), verified.sha256):
            return await self._store_report(tenant, body)  # Another one was quicker: told as such.
        return EvaluationRow(evaluation=evaluation, report=report)

    async def _find_statements(
        self, tenant: str, policy: GatePolicy, digests: Mapping[str, str]
    ) -> list[gate.StoredStatement]:
        """Statements of the gate's sets that one of its keys signed, the newest first: all of these prompts that may be
        fresh, and those of other prompts on the newest page, for the words of a refusal."""
        trial = await self._newest_trial(tenant)
        newest = trial.number if trial is not None else 0
        # A request waits for its evaluator, who then takes his time.
        since_unix_ms = self._context.clock() - 2 * policy.max_age_h * gate.HOUR_MS
        gated: list[Evaluation] = []
        for first in range(newest, max(0, newest - MAX_SEARCHED), -SEARCH_PAGE):
            numbers = range(first, max(0, first - SEARCH_PAGE), -1)
            stored = await asyncio.gather(*(self._read_evaluation(tenant, number) for number in numbers))
            page = [row for row in stored if row is not None]
            gated += [
                row for row in page if row.case_set in policy.sets and (first == newest or row.prompts == digests)
            ]
            if page and page[-1].requested_unix_ms < since_unix_ms:
                break
        reports = await asyncio.gather(*(self._read_report(tenant, row.number) for row in gated))
        statements = []
        for evaluation, report in zip(gated, reports, strict=True):
            if report is not None:
                try:
                    verified = verify_envelope(report.envelope, policy.keys)
                    statements.append(gate.StoredStatement(report.number, verified, evaluation.person))
                except StatementError:
                    continue  # Of a key that is named no more.
        return statements

    async def _read_row(self, tenant: str, number: int) -> EvaluationRow | None:
        evaluation, report = await asyncio.gather(
            self._read_evaluation(tenant, number), self._read_report(tenant, number)
        )
        return EvaluationRow(evaluation=evaluation, report=report) if evaluation is not None else None

    async def _read_evaluation(self, tenant: str, number: int) -> Evaluation | None:
        stored = await self._context.bus.last(subjects.PROMPTS_STREAM, subjects.evaluation_subject(tenant, number))
        return Evaluation.model_validate_json(stored.body) if stored is not None else None

    async def _read_report(self, tenant: str, number: int) -> SignedReport | None:
        subject = subjects.evaluation_report_subject(tenant, number)
        stored = await self._context.bus.last(subjects.PROMPTS_STREAM, subject)
        return SignedReport.model_validate_json(stored.body) if stored is not None else None

    async def _newest_trial(self, tenant: str) -> PromptRelease | None:
        return await self._read_trial(tenant, "*")

    async def _read_trial(self, tenant: str, number: int | str) -> PromptRelease | None:
        if isinstance(number, int) and number < 1:
            return None
        subject = subjects.release_subject(tenant, TRIAL, number)
        stored = await self._context.bus.last(subjects.PROMPTS_STREAM, subject)
        return PromptRelease.model_validate_json(stored.body) if stored is not None else None

    async def _read_versions(
        self, tenant: str, keys: Iterable[tuple[str, int]]
    ) -> dict[tuple[str, int], PromptVersion]:
        versions = await asyncio.gather(*(self._read_version(tenant, *key) for key in keys))
        return {(version.prompt, version.number): version for version in versions if version is not None}


def _without_envelope(row: EvaluationRow) -> EvaluationRow:
    if row.report is None:
        return row
    return row.model_copy(update={"report": row.report.model_copy(update={"envelope": ""})})


def _unknown(number: int) -> Failure:
    return Failure.from_text("unknown_evaluation", f"there is no evaluation {number}", "GET /v1/evaluations lists them")
