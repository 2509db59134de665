"""Decisions of the registry, pure: what a label stands for after a move, and what may become a version.

In: an act that a person signed, or a canary that has regressed; what stands now. Out: the next release or version, or
why not.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs

from bulkhead_contracts import bounds
from bulkhead_contracts.approval import ApprovalGrant
from bulkhead_contracts.evaluation import EvaluationRequested
from bulkhead_contracts.prompt import (
    REGISTRY,
    TRIAL,
    Canary,
    CanaryWatch,
    PromptPublishRequested,
    PromptRelease,
    PromptVersion,
    ReleaseChange,
    ReleasedPrompt,
    ReleaseMoveRequested,
    version_name,
)
from bulkhead_contracts.result import Failure
from bulkhead_contracts.workflow import WorkflowActRequested, WorkflowRelease

DAY_MS = 24 * 3600 * 1000
MOVING_MODEL = re.compile(r"(?:^|[-_:./@])(?:latest|auto|newest|stable|current)(?:$|[-_:./@])", re.I)
STRUCTURED_PROMPTS = ("planner.", "checker.")
"""Prompts that ask for a plan or a verdict."""
Versions = Mapping[tuple[str, int], PromptVersion]
"""Versions by prompt and number."""
Release = PromptRelease | WorkflowRelease


def judge_content(request: PromptPublishRequested, known: Mapping[str, Any]) -> Failure | None:
    """Reason for which no version can be made of this. known: prompts that the mesh asks for, by id."""
    if request.prompt not in known:
        reason = f"no service asks for a prompt {request.prompt}"
        return Failure.from_text("unknown_prompt", reason, f"prompts of this mesh: {', '.join(sorted(known))}")
    if problems := (*request.content.list_problems(), *_list_model_problems(request)):
        hint = "declare each {{name}} of the text once; the handbook on prompts says what model and schema may be"
        return Failure.from_text("bad_prompt", "; ".join(problems[:8]), hint)
    return None


def _list_model_problems(request: PromptPublishRequested) -> Iterator[str]:
    """Faults of the model and of the output schema, as far as they show without the model gateway's routes."""
    content = request.content
    if MOVING_MODEL.search(content.model):
        yield f"the model {content.model} is whatever is newest: name a dated version, or a route"
    if not content.output_schema:
        return
    if request.prompt.startswith(STRUCTURED_PROMPTS):
        yield f"{request.prompt} has a form of its own, which no output schema replaces"
    try:
        jsonschema_rs.validator_for(content.output_schema)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        yield f"the output schema is none: {str(error)[:200]}"


def make_version(
    request: PromptPublishRequested, signed_word: ApprovalGrant, number: int, now_unix_ms: int
) -> PromptVersion | Failure:
    """The version of this number."""
    if number > bounds.MAX_PROMPT_VERSIONS:
        reason = f"{request.prompt} has {bounds.MAX_PROMPT_VERSIONS:,} versions, and may have no more"
        return Failure.from_text("too_many_versions", reason, "give the prompt another name in a pack of yours")
    return PromptVersion(
        prompt=request.prompt,
        number=number,
        content=request.content,
        sha256=request.content.sha256,
        based_on=request.based_on,
        owner=request.owner,
        note=request.note,
        review_by=request.review_by,
        person=signed_word.person,
        role=signed_word.role,
        act=request.act,
        act_sha256=request.act_sha256,
        published_unix_ms=now_unix_ms,
    )


def plan_release(
    move: ReleaseMoveRequested,
    standing: PromptRelease | None,
    versions: Versions,
    restored: PromptRelease | None,
    signed_word: ApprovalGrant,
    now_unix_ms: int,
) -> PromptRelease | Failure:
    """The next release of a label. versions: those that the changes name and that exist; restored: the release of the
    number that the move restores, if there is one."""
    if move.label == TRIAL:
        reason = f"{TRIAL} stands for what is evaluated, and nobody moves it"
        return Failure.from_text("reserved_label", reason, "choose another label")
    number = standing.number if standing is not None else 0
    if move.after != number:
        by = f", moved by {standing.person}: {standing.reason}" if standing is not None else ""
        reason = f"{move.label} is at release {number} now, and not at {move.after}{by}"
        return Failure.from_text("release_moved", reason, "look at what stands now, then move it again")
    ways = [bool(move.changes), bool(move.restore), bool(move.end_canary)]
    if sum(ways) > 1 or not (any(ways) or move.percent):
        hint = "give changes, or a release to restore, or the end of the canary, or its share: one of them"
        return Failure.from_text("no_single_change", "the move does not say one thing", hint)
    planned = _plan_fields(move, standing, versions, restored)
    if isinstance(planned, Failure):
        return planned
    if standing is not None and all(getattr(standing, name) == value for name, value in planned.items()):
        reason = f"{move.label} stands for these versions already, since release {number}"
        return Failure.from_text("nothing_changes", reason, "nothing is left to do")
    release = PromptRelease(
        label=move.label,
        number=number + 1,
        restores=move.restore,
        reason=move.reason,
        person=signed_word.person,
        role=signed_word.role,
        act=move.act,
        act_sha256=move.act_sha256,
        moved_unix_ms=now_unix_ms,
        **planned,
    )
    if (size := len(release.model_dump_json().encode())) > bounds.MAX_RELEASE_BYTES:
        reason = f"the release takes {size:,} bytes, of {bounds.MAX_RELEASE_BYTES:,}"
        return Failure.from_text("release_too_large", reason, "set fewer and shorter values")
    return release


def plan_rollback(standing: Release, watch: CanaryWatch, now_unix_ms: int) -> Release:
    """The next release of a label or workflow whose canary has regressed: what stood beside the canary, and nothing
    else."""
    cause = f"{watch.name}/{watch.began}/{standing.number}/regressed"
    fields: dict[str, Any] = {
        "number": standing.number + 1,
        "rolled_back": watch,
        "person": REGISTRY,
        "role": REGISTRY,
        "act": f"canary-{standing.number}",
        "act_sha256": hashlib.sha256(cause.encode()).hexdigest(),
        "moved_unix_ms": now_unix_ms,
    }
    if isinstance(standing, WorkflowRelease):
        names = f"{standing.workflow}.{standing.canary.number}" if standing.canary is not None else ""
        return WorkflowRelease(workflow=standing.workflow, reason=_reason_of_rollback(names, watch), **fields)
    names = ", ".join(_version_names(standing.canary.prompts)) if standing.canary is not None else ""
    release = PromptRelease(
        label=standing.label, prompts=standing.prompts, reason=_reason_of_rollback(names, watch), **fields
    )
    is_too_large = len(release.model_dump_json().encode()) > bounds.MAX_RELEASE_BYTES
    return release.model_copy(update={"rolled_back": None}) if is_too_large else release


def _reason_of_rollback(names: str, watch: CanaryWatch) -> str:
    return f"the canary of {names} does worse: {watch.reason}"[: bounds.MAX_REASON_CHARS]


def plan_trial(
    request: EvaluationRequested,
    standing: PromptRelease | None,
    versions: Versions,
    number: int,
    signed_word: ApprovalGrant,
    now_unix_ms: int,
) -> PromptRelease | Failure:
    """The release of TRIAL that stands for the changes on top of a label."""
    released = _released_rows(request.changes, versions)
    if isinstance(released, Failure):
        return released
    changed = {change.prompt for change in request.changes}
    unchanged = (row for row in (standing.prompts if standing is not None else ()) if row.prompt not in changed)
    return PromptRelease(
        label=TRIAL,
        number=number,
        prompts=_merge_rows(tuple(unchanged), released),
        reason=request.reason,
        person=signed_word.person,
        role=signed_word.role,
        act=request.act,
        act_sha256=request.act_sha256,
        moved_unix_ms=now_unix_ms,
    )


def judge_repeat(
    act_sha256: str, request: PromptPublishRequested | ReleaseMoveRequested | EvaluationRequested | WorkflowActRequested
) -> Failure | None:
    """Reason for which an act that was done under this id is not this one; None when it is.

    act_sha256: of the one that was done.
    """
    if act_sha256 == request.act_sha256:
        return None
    reason = "the Idempotency-Key was used for another act"
    return Failure.from_text("idempotency_reused", reason, "send a fresh key with every new act")


def judge_rate(before_unix_ms: int, now_unix_ms: int, name: str) -> Failure | None:
    """Reason for which nothing is stored now: too much was lately; None when something may be.

    before_unix_ms: time of the act that was MAX_PROMPT_ACTS_A_DAY before this one.
    """
    if now_unix_ms - before_unix_ms >= DAY_MS:
        return None
    reason = f"{name} was changed {bounds.MAX_PROMPT_ACTS_A_DAY} times within a day"
    return Failure.from_text("too_many_changes", reason, "wait until tomorrow, or restore what stood before")


def _plan_fields(
    move: ReleaseMoveRequested, standing: PromptRelease | None, versions: Versions, restored: PromptRelease | None
) -> dict[str, Any] | Failure:
    """prompts and canary of the next release."""
    if move.restore:
        if restored is None:
            reason = f"{move.label} has no release {move.restore}"
            return Failure.from_text("unknown_release", reason, f"`bulkhead prompts releases {move.label}` lists them")
        return {"prompts": restored.prompts, "canary": None}
    prompts = standing.prompts if standing is not None else ()
    canary = standing.canary if standing is not None else None
    if not move.changes:
        if canary is None:
            reason = f"{move.label} has no canary"
            return Failure.from_text("no_canary", reason, "start one: promote a version with a share of percent")
        if move.end_canary == "promote":
            return {"prompts": _merge_rows(prompts, canary.prompts), "canary": None}
        if move.end_canary == "drop":
            return {"prompts": prompts, "canary": None}
        return {"prompts": prompts, "canary": canary.model_copy(update={"percent": move.percent})}
    if canary is not None:
        reason = f"a canary stands at {move.label}, of {', '.join(_version_names(canary.prompts))}"
        return Failure.from_text("canary_stands", reason, "end it first: promote it, or drop it")
    released = _released_rows(move.changes, versions)
    if isinstance(released, Failure):
        return released
    if not move.percent:
        removed = {change.prompt for change in move.changes if not change.number}
        return {
            "prompts": tuple(row for row in _merge_rows(prompts, released) if row.prompt not in removed),
            "canary": None,
        }
    if len(released) < len(move.changes):
        reason = "a canary of a shipped prompt has no version to name"
        return Failure.from_text("canary_of_shipped", reason, "publish the shipped text as a version, then name it")
    return {
        "prompts": prompts,
        "canary": Canary(prompts=released, percent=move.percent, sticky_by=move.sticky_by, began=move.after + 1),
    }


def _released_rows(changes: tuple[ReleaseChange, ...], versions: Versions) -> tuple[ReleasedPrompt, ...] | Failure:
    """Rows of the changes that name a version."""
    rows = []
    if len({change.prompt for change in changes}) < len(changes):
        return Failure.from_text("prompt_twice", "the move names a prompt twice", "name each prompt once")
    for change in changes:
        if not change.number:
            continue
        version = versions.get((change.prompt, change.number))
        if version is None:
            reason = f"there is no version {version_name(change.prompt, change.number)}"
            return Failure.from_text("unknown_version", reason, f"`bulkhead prompts show {change.prompt}` lists them")
        if problem := _value_misfit(version, change.values):
            return Failure.from_text("bad_value", f"{version.name}: {problem}", "set it as it is declared")
        rows.append(
            ReleasedPrompt(prompt=change.prompt, number=change.number, sha256=version.sha256, values=change.values)
        )
    return tuple(rows)


def _value_misfit(version: PromptVersion, values: Mapping[str, str]) -> str:
    declared = {variable.name: variable for variable in version.content.variables}
    for name, value in values.items():
        if name not in declared:
            return f"it has no variable {name}; it has {', '.join(declared) or 'none'}"
        if problem := declared[name].describe_misfit(value):
            return problem
    length = len(version.content.fill_variables(dict(values)))
    if length > bounds.MAX_PROMPT_CHARS:
        return f"with these values it has {length:,} characters, of {bounds.MAX_PROMPT_CHARS:,}"
    return ""


def _merge_rows(
    standing: tuple[ReleasedPrompt, ...], changed: tuple[ReleasedPrompt, ...]
) -> tuple[ReleasedPrompt, ...]:
    by_prompt = {row.prompt: row for row in (*standing, *changed)}
    return tuple(by_prompt[name] for name in sorted(by_prompt))


def _version_names(rows: tuple[ReleasedPrompt, ...]) -> list[str]:
    return [version_name(row.prompt, row.number) for row in rows]
