"""The registry's edge: checks the signer's word on an act, stores what `core` makes of it, tells what is stored.

In: acts and questions (rpc, from the gateway alone). Out: versions and releases, each written once. Nobody but this
identity may write them: the word of a person that the signer signed is what moves a label, not the gateway's. By itself
it only drops a canary that does worse (`watch`).
"""

import asyncio
from collections.abc import Iterable
from typing import TypeVar

from bulkhead.bus.port import BusError, BusUnavailable, PubAck, WrongLastSequence
from bulkhead.grants import GrantRefused
from bulkhead.prompts.files import Prompts, PromptText
from bulkhead.prompts.labels import ReleaseLabels
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import EdgeComponent, ReceivedMessage, RpcTable
from bulkhead.telemetry import metrics, names
from bulkhead.telemetry.log import Log
from bulkhead.telemetry.metrics import ReadGauge
from bulkhead_contracts import bounds, envelope, subjects
from bulkhead_contracts.approval import ApprovalGrant, SignedKind
from bulkhead_contracts.evaluation import (
    EvaluationReplied,
    EvaluationReported,
    EvaluationRequested,
    EvaluationsRequested,
)
from bulkhead_contracts.prompt import (
    OF_WORKFLOW,
    TRIAL,
    CanaryWatch,
    PromptPublishReplied,
    PromptPublishRequested,
    PromptRelease,
    PromptsReplied,
    PromptsRequested,
    PromptSummary,
    PromptVersion,
    ReleaseMoveReplied,
    ReleaseMoveRequested,
    ReleasesReplied,
    ReleasesRequested,
)
from bulkhead_contracts.result import Failure
from bulkhead_contracts.tool import ToolSpec
from bulkhead_contracts.workflow import WorkflowActRequested, WorkflowsRequested
from bulkhead_services.registry.core import (
    judge_content,
    judge_rate,
    judge_repeat,
    make_version,
    plan_release,
    plan_rollback,
)
from bulkhead_services.registry.evaluations import EvaluationRegistry
from bulkhead_services.registry.reviews import ReviewDates
from bulkhead_services.registry.watch.reader import CanaryWatcher
from bulkhead_services.registry.watch.releases import WatchedReleases, subject_of
from bulkhead_services.registry.workflows import WorkflowRegistry

log = Log("registry")
TRIES = 5
"""For the number of a version, when several are version at once."""
MAX_PAGE_BYTES = 256 * 1024
Stored = TypeVar("Stored", PromptVersion, PromptRelease)


class PromptRegistry(EdgeComponent):
    """The edge. It has no inbox."""

    def __init__(
        self,
        context: Context,
        prompts: Prompts,
        max_age_ms: int,
        quotas: TenantQuotas,
        canary_tasks: int,
        tools: tuple[ToolSpec, ...] = (),
    ) -> None:
        self._context, self._max_age_ms = context, max_age_ms
        self._prompts = prompts
        self._shipped = {shipped.id: shipped for shipped in prompts.newest_of_each()}
        self._labels = ReleaseLabels(context.bus)
        self._evaluations = EvaluationRegistry(
            context,
            self._labels,
            quotas,
            {shipped.id: shipped.digest for shipped in self._shipped.values()},
            max_age_ms,
            put_once=self._put_once,
            read_version=self._read_version,
        )
        self._workflows = WorkflowRegistry(
            context, quotas, tools, put_once=self._put_once, check_word=self._check_word, find_watch=self._find_watch
        )
        self._watched = WatchedReleases(self._labels, self._workflows.ledger, self._read_release)
        self._watcher = CanaryWatcher(context.bus, self._watched, context.clock, self.drop_canary, canary_tasks)
        self.reviews = ReviewDates(self._labels, self._read_version, context.clock)
        self.rpc: RpcTable = {
            PromptsRequested: self.on_prompts_requested,
            PromptPublishRequested: self.on_publish_requested,
            ReleasesRequested: self.on_releases_requested,
            ReleaseMoveRequested: self.on_release_move_requested,
            EvaluationRequested: self.on_evaluation_requested,
            EvaluationReported: self._evaluations.on_evaluation_reported,
            EvaluationsRequested: self._evaluations.on_evaluations_requested,
            WorkflowActRequested: self._workflows.on_act_requested,
            WorkflowsRequested: self._workflows.on_workflows_requested,
        }

    async def start(self) -> None:
        """Watch over canaries, and read review dates."""
        self._watcher.start(self._context.background)
        self.reviews.start(self._context.background)

    async def stop(self) -> None:
        """End both."""
        await self._watcher.stop()
        await self.reviews.stop()

    def gauges(self) -> dict[str, ReadGauge]:
        """Metrics of canaries, drift and review dates."""
        return self._watcher.gauges() | {names.REVIEWS_OVERDUE: lambda: {(): self.reviews.count_overdue()}}

    async def on_publish_requested(self, message: ReceivedMessage) -> PromptPublishReplied:
        """Make a version, or say why not."""
        request = message.body
        assert isinstance(request, PromptPublishRequested)
        signed_word = self._check_word(message, request)
        failure = signed_word if isinstance(signed_word, Failure) else judge_content(request, self._shipped)
        if failure is not None:
            return PromptPublishReplied(failure=self._log_refusal(message, failure))
        assert isinstance(signed_word, ApprovalGrant)
        try:
            version = await self._store_version(message.tenant, request, signed_word)
        except BusError as error:
            version = _broker_unavailable(error)
        if isinstance(version, Failure):
            return PromptPublishReplied(failure=self._log_refusal(message, version))
        log.info("prompt_published", tenant=message.tenant, prompt=version.name, by=version.person)
        return PromptPublishReplied(version=version)

    async def on_release_move_requested(self, message: ReceivedMessage) -> ReleaseMoveReplied:
        """Move a label, or say why not."""
        move = message.body
        assert isinstance(move, ReleaseMoveRequested)
        signed_word = self._check_word(message, move)
        if isinstance(signed_word, Failure):
            return ReleaseMoveReplied(failure=self._log_refusal(message, signed_word))
        try:
            release = await self._store_release(message.tenant, move, signed_word)
        except BusError as error:
            release = _broker_unavailable(error)
        if isinstance(release, Failure):
            return ReleaseMoveReplied(failure=self._log_refusal(message, release))
        log.warning("label_moved", tenant=message.tenant, release=release.ref, by=release.person, reason=release.reason)
        return ReleaseMoveReplied(release=release)

    async def on_evaluation_requested(self, message: ReceivedMessage) -> EvaluationReplied:
        """Make a release of `trial` for changes, and keep that they are to be evaluated."""
        request = message.body
        assert isinstance(request, EvaluationRequested)
        signed_word = self._check_word(message, request)
        if isinstance(signed_word, Failure):
            return EvaluationReplied(failure=self._log_refusal(message, signed_word))
        try:
            row = await self._evaluations.store_request(message.tenant, request, signed_word)
        except BusError as error:
            row = _broker_unavailable(error)
        if isinstance(row, Failure):
            return EvaluationReplied(failure=self._log_refusal(message, row))
        return EvaluationReplied(row=row)

    async def on_prompts_requested(self, message: ReceivedMessage) -> PromptsReplied:
        """Prompts that there are, and the versions of one."""
        request, tenant = message.body, message.tenant
        assert isinstance(request, PromptsRequested)
        if (refusal := _check_tenant(request.requester.tenant, tenant)) is not None:
            return PromptsReplied(failure=refusal)
        if request.prompt and request.prompt not in self._shipped:
            reason = f"no service asks for a prompt {request.prompt}"
            hint = f"prompts of this mesh: {', '.join(sorted(self._shipped))}"
            return PromptsReplied(failure=Failure.from_text("unknown_prompt", reason, hint))
        try:
            await self._labels.read_new()
            chosen = [self._shipped[request.prompt]] if request.prompt else list(self._shipped.values())
            summaries = await asyncio.gather(*(self._summarize(tenant, shipped) for shipped in chosen))
            if not request.prompt:
                return PromptsReplied(prompts=tuple(summaries))
            [shipped], [summary] = chosen, summaries
            if request.version:
                return await self._answer_version(tenant, request, summary)
            first = min(summary.newest, (request.before or summary.newest + 1) - 1)
            versions, more = await self._read_versions(tenant, request.prompt, first)
        except BusError as error:
            return PromptsReplied(failure=_broker_unavailable(error))
        return PromptsReplied(
            prompts=(summary,), versions=versions, shipped_text=shipped.text, shipped_sha256=shipped.digest, more=more
        )

    async def _answer_version(self, tenant: str, request: PromptsRequested, summary: PromptSummary) -> PromptsReplied:
        """One version, with the values that a release sets. Raises BusError."""
        name = f"{request.prompt}@{request.version}"
        unknown = Failure.from_text(
            "unknown_version", f"there is no version {name}", f"GET /v1/prompts/{request.prompt} lists them"
        )
        if not request.version.startswith("r"):
            shipped = self._prompts.find_prompt(name)
            if shipped is None:
                return PromptsReplied(failure=unknown)
            return PromptsReplied(prompts=(summary,), shipped_text=shipped.text, shipped_sha256=shipped.digest)
        version = await self._read_version(tenant, request.prompt, int(request.version[1:]))
        if version is None:
            return PromptsReplied(failure=unknown)
        values: dict[str, str] = {}
        if request.release:
            label, number, *_ = request.release.split(".")
            release = await self._read_release(tenant, label, int(number))
            row = release.prompts_for(request.release).get(request.prompt) if release is not None else None
            if row is None or row.number != version.number:
                reason = f"the release {request.release} does not use {name}"
                hint = f"GET /v1/releases/{label} lists its releases"
                return PromptsReplied(failure=Failure.from_text("unknown_release", reason, hint))
            values = row.values
        return PromptsReplied(prompts=(summary,), versions=(version,), values=values)

    async def on_releases_requested(self, message: ReceivedMessage) -> ReleasesReplied:
        """Releases that labels stand for, and stood for."""
        request, tenant = message.body, message.tenant
        assert isinstance(request, ReleasesRequested)
        if (refusal := _check_tenant(request.requester.tenant, tenant)) is not None:
            return ReleasesReplied(failure=refusal)
        try:
            await self._watcher.match_canaries()
            standing = self._labels.of_tenant(tenant)
            if not request.label:
                canaries, drifts = self._watcher.list_canaries(tenant), self._watcher.list_drifts(tenant)
                releases = _cut_page(row for row in standing if row.label != TRIAL)
                return ReleasesReplied(releases=tuple(releases), canaries=canaries, drifts=drifts)
            newest = next((release.number for release in standing if release.label == request.label), 0)
            first = min(newest, (request.before or newest + 1) - 1)
            numbers = range(first, max(0, first - bounds.MAX_RELEASE_PAGE), -1)
            stored = await asyncio.gather(*(self._read_release(tenant, request.label, number) for number in numbers))
        except BusError as error:
            return ReleasesReplied(failure=_broker_unavailable(error))
        rows = tuple(_cut_page(release for release in stored if release is not None))
        canaries = self._watcher.list_canaries(tenant, request.label)
        more, gate = bool(rows) and rows[-1].number > 1, self._evaluations.gate_of(tenant, request.label)
        return ReleasesReplied(releases=rows, more=more, canaries=canaries, gate=gate)

    async def drop_canary(self, tenant: str, watch: CanaryWatch) -> None:
        """Let what stands beside a canary that has regressed stand alone. Where another move is first, or another
        replica, the next look shows what is left to do. Raises BusError."""
        standing = self._watched.find_newest(tenant, watch.name)
        if standing is None or standing.canary is None or standing.canary.began != watch.began:
            return
        release = plan_rollback(standing, watch, self._context.clock())
        subject = subject_of(tenant, release)
        ack = await self._publish_once(subject, release.model_dump_json().encode(), release.act)
        # Told by the one replica that stored it.
        if ack is not None and not ack.duplicate:
            metrics.canary_rollbacks.add(1, {names.LABEL: watch.name, names.KIND: watch.metric})
            log.warning("canary_rolled_back", tenant=tenant, release=release.ref, reason=release.reason)

    async def _find_watch(self, tenant: str, workflow: str) -> CanaryWatch | None:
        """The canary of a workflow as it stands now. Raises BusError."""
        await self._watcher.match_canaries()
        return next(iter(self._watcher.list_canaries(tenant, OF_WORKFLOW + workflow)), None)

    def _check_word(
        self,
        message: ReceivedMessage,
        act: PromptPublishRequested | ReleaseMoveRequested | EvaluationRequested | WorkflowActRequested,
    ) -> ApprovalGrant | Failure:
        """The signer's word on this very act."""
        kind: SignedKind = act.signed_kind if isinstance(act, WorkflowActRequested) else "prompt"
        try:
            signed_word = self._context.verifier.verify_approval(
                act.token, tenant=message.tenant, task=message.task, kind=kind
            )
        except GrantRefused as error:
            return Failure.from_text("not_signed", str(error), "do it over the gateway, as a person with the role")
        signed = signed_word.approval_id, signed_word.arguments_sha256, signed_word.decision
        if signed != (act.act, act.act_sha256, "granted") or message.task != act.act:
            return Failure.from_text("not_signed", "the signer signed another act", "do it again over the gateway")
        if abs(self._context.clock() - signed_word.decided_unix_ms) > self._max_age_ms:
            reason = f"the signer's word is more than {self._max_age_ms // 1000} s old, or the clocks differ"
            return Failure.from_text("word_too_old", reason, "do it again; set the clocks of all machines by NTP")
        return signed_word

    async def _store_version(
        self, tenant: str, request: PromptPublishRequested, signed_word: ApprovalGrant
    ) -> PromptVersion | Failure:
        """A version under the next free number; the one that this act made already, as it is. Raises BusError."""
        name = request.prompt
        for _ in range(TRIES):
            now_unix_ms = self._context.clock()
            newest = await self._newest_version(tenant, name)
            repeated = await self._find_made_of(request, tenant, newest)
            if repeated is not None:
                return judge_repeat(repeated.act_sha256, request) or repeated
            repeats = newest is not None and newest.sha256 == request.content.sha256
            if newest is not None and repeats and newest.review_by == request.review_by:
                hint = f"promote {newest.name} as it is, or change the text"
                return Failure.from_text("same_text", f"{newest.name} has this very text and these variables", hint)
            number = newest.number + 1 if newest is not None else 1
            earlier = await self._read_version(tenant, name, number - bounds.MAX_PROMPT_ACTS_A_DAY)
            if earlier is not None and (failure := judge_rate(earlier.published_unix_ms, now_unix_ms, name)):
                return failure
            version = make_version(request, signed_word, number, now_unix_ms)
            if isinstance(version, Failure):
                return version
            subject = subjects.prompt_version_subject(tenant, name, number)
            if await self._put_once(subject, version.model_dump_json().encode(), request.act):
                return version
        raise BusUnavailable(f"{TRIES} other versions of {name} were made at the same time")

    async def _find_made_of(
        self, request: PromptPublishRequested, tenant: str, newest: PromptVersion | None
    ) -> PromptVersion | None:
        """The version that an act made, among those that are younger than the signer's word may be."""
        since_unix_ms, version = self._context.clock() - 2 * self._max_age_ms, newest
        while version is not None and version.published_unix_ms >= since_unix_ms:
            if version.act == request.act:
                return version
            version = await self._read_version(tenant, request.prompt, version.number - 1)
        return None

    async def _store_release(
        self, tenant: str, move: ReleaseMoveRequested, signed_word: ApprovalGrant
    ) -> PromptRelease | Failure:
        """The next release; the one that this act made already, as it is. Raises BusError."""
        await self._labels.read_new()
        standing, now_unix_ms = self._labels.find_newest(tenant, move.label), self._context.clock()
        if standing is not None and standing.act == move.act:
            return judge_repeat(standing.act_sha256, move) or standing
        if (
            standing is None
            and sum(row.label != TRIAL for row in self._labels.of_tenant(tenant)) >= bounds.MAX_RELEASE_LABELS
        ):
            reason = f"the tenant has {bounds.MAX_RELEASE_LABELS} labels, and may have no more"
            return Failure.from_text("too_many_labels", reason, "use one of them")
        number = standing.number + 1 if standing is not None else 1
        earlier = await self._read_release(tenant, move.label, number - bounds.MAX_PROMPT_ACTS_A_DAY)
        # What was moved too often can still be taken back.
        if earlier is not None and not move.restore:
            failure = judge_rate(earlier.moved_unix_ms, now_unix_ms, move.label)
            if failure is not None:
                return failure
        version_keys = {(change.prompt, change.number) for change in move.changes if change.number}
        stored_versions = await asyncio.gather(*(self._read_version(tenant, *key) for key in version_keys))
        versions = {(version.prompt, version.number): version for version in stored_versions if version is not None}
        restored = await self._read_release(tenant, move.label, move.restore) if move.restore else None
        release = plan_release(move, standing, versions, restored, signed_word, now_unix_ms)
        if isinstance(release, Failure):
            return release
        stood_on = await self._evaluations.judge_move(tenant, move, standing, release, restored, signed_word)
        if isinstance(stood_on, Failure):
            return stood_on
        release = release.model_copy(update={"gate": stood_on})
        subject = subjects.release_subject(tenant, move.label, release.number)
        if not await self._put_once(subject, release.model_dump_json().encode(), move.act):
            reason = f"{move.label} was moved by somebody else at this very moment"
            return Failure.from_text("release_moved", reason, "look at what stands now, then move it again")
        await self._labels.read_new()
        return release

    async def _put_once(self, subject: str, body: bytes, act: str) -> bool:
        """Store it where nothing is stored; False where something else is. Raises BusError."""
        if await self._publish_once(subject, body, act) is not None:
            return True
        stored = await self._context.bus.last(subjects.PROMPTS_STREAM, subject)
        return stored is not None and stored.body == body

    async def _publish_once(self, subject: str, body: bytes, act: str) -> PubAck | None:
        """Store it where nothing is stored; None where something is. Raises BusError."""
        message_id = envelope.message_id(self._context.message_key, f"{subject}/{act}")
        headers = {"content-type": envelope.CONTENT_TYPE}
        try:
            return await self._context.bus.publish(subject, body, headers, message_id, expect_last_on_subject=0)
        except WrongLastSequence:
            return None

    async def _summarize(self, tenant: str, shipped: PromptText) -> PromptSummary:
        newest = await self._newest_version(tenant, shipped.id)
        used = {
            release.label: row.number
            for release in self._labels.of_tenant(tenant)
            for row in release.prompts
            if row.prompt == shipped.id and release.label != TRIAL
        }
        return PromptSummary(
            prompt=shipped.id,
            shipped=shipped.name,
            shipped_sha256=shipped.digest,
            description=shipped.description,
            owner=newest.owner if newest is not None else shipped.owner,
            newest=newest.number if newest is not None else 0,
            review_by=newest.review_by if newest is not None else "",
            person=newest.person if newest is not None else "",
            note=newest.note[: bounds.MAX_SUMMARY_CHARS] if newest is not None else "",
            published_unix_ms=newest.published_unix_ms if newest is not None else 0,
            used=dict(list(used.items())[: bounds.MAX_RELEASE_LABELS]),
        )

    async def _newest_version(self, tenant: str, prompt_id: str) -> PromptVersion | None:
        subject = subjects.prompt_version_subject(tenant, prompt_id, "*")
        stored = await self._context.bus.last(subjects.PROMPTS_STREAM, subject)
        return PromptVersion.model_validate_json(stored.body) if stored is not None else None

    async def _read_versions(self, tenant: str, prompt_id: str, first: int) -> tuple[tuple[PromptVersion, ...], bool]:
        """Versions from this number downwards, as many as fit one reply; and whether there are more."""
        numbers = range(first, max(0, first - bounds.MAX_PROMPT_PAGE), -1)
        stored_versions = await asyncio.gather(*(self._read_version(tenant, prompt_id, number) for number in numbers))
        versions = _cut_page(version for version in stored_versions if version is not None)
        return tuple(versions), bool(versions) and versions[-1].number > 1

    async def _read_version(self, tenant: str, prompt_id: str, number: int) -> PromptVersion | None:
        if number < 1:
            return None
        subject = subjects.prompt_version_subject(tenant, prompt_id, number)
        stored = await self._context.bus.last(subjects.PROMPTS_STREAM, subject)
        return PromptVersion.model_validate_json(stored.body) if stored is not None else None

    async def _read_release(self, tenant: str, label: str, number: int) -> PromptRelease | None:
        if number < 1:
            return None
        subject = subjects.release_subject(tenant, label, number)
        stored = await self._context.bus.last(subjects.PROMPTS_STREAM, subject)
        return PromptRelease.model_validate_json(stored.body) if stored is not None else None

    def _log_refusal(self, message: ReceivedMessage, failure: Failure) -> Failure:
        log.warning("act_refused", tenant=message.tenant, act=message.task, code=failure.code, reason=failure.message)
        return failure


def _cut_page(rows: Iterable[Stored]) -> list[Stored]:
    """The first rows, up to what fits one reply."""
    page: list[Stored] = []
    room = MAX_PAGE_BYTES
    for row in rows:
        room -= len(row.model_dump_json().encode())
        if page and room < 0:
            break
        page.append(row)
    return page


def _check_tenant(named: str, tenant: str) -> Failure | None:
    if named == tenant:
        return None
    return Failure.from_text("foreign_tenant", f"{named} asks about {tenant}", "this is a bug of the gateway")


def _broker_unavailable(error: BusError) -> Failure:
    log.error("prompts_not_stored", reason=str(error))
    return Failure.from_text(
        "unavailable", f"the broker does not answer: {error}", "do it again: nothing is done twice"
    )
