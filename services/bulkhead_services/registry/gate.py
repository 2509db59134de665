"""The gate before a label, pure: whether a move may be made, by the statements of evaluations that there are.

In: the gate's policy, the release that the move would make, statements, the person. Out: the statements that it stands
on, or why it is refused and how to get what is missing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bulkhead.evaluation.statement import Expectation, Mismatch, VerifiedStatement, find_statement_misfits
from bulkhead_contracts.approval import ApprovalGrant
from bulkhead_contracts.prompt import BREAK_GLASS, PromptRelease, PromptVersion, ReleasedPrompt, ReleaseMoveRequested
from bulkhead_contracts.prompt.gate_policy import GatePolicy
from bulkhead_contracts.result import Failure

HOUR_MS = 3_600_000
ORDER = ("other_tenant", "other_digests", "other_set", "stale", "failed")
"""Codes of misfits: a statement whose worst is later in this order is nearer to what is needed."""


class StoredStatement(NamedTuple):
    """A statement that was reported. number: of its evaluation; person: who asked for it."""

    number: int
    verified: VerifiedStatement
    person: str


def needs_gate(
    move: ReleaseMoveRequested,
    standing: PromptRelease | None,
    release: PromptRelease,
    restored: PromptRelease | None = None,
) -> bool:
    """True when a move gives tasks what they had not: no way back, and no smaller share of a canary. restored: the
    release that it restores; of these only the last one, and those that stood on statements, are ways back."""
    if restored is not None:
        # After a way back, the last release is what was left.
        is_last = standing is not None and restored.number == standing.number - 1 and not standing.restores
        return not is_last and (not restored.gate or BREAK_GLASS in restored.gate or restored.canary is not None)
    if move.end_canary == "drop":
        return False
    before, after = standing.canary if standing is not None else None, release.canary
    if move.changes or move.end_canary or before is None or after is None:
        return True
    return after.percent > before.percent


def digest_prompts(rows: Iterable[ReleasedPrompt], shipped: Mapping[str, str]) -> dict[str, str]:
    """Digests of all prompts of the mesh, by id. shipped: of those that no row replaces."""
    return {**shipped, **{row.prompt: row.filled_sha256 for row in rows}}


def candidate_rows(release: PromptRelease) -> tuple[ReleasedPrompt, ...]:
    """Versions that tasks would get by a release, or by its canary where it has one."""
    return tuple(release.prompts_for(f"{release.ref}.canary").values())


def judge_move(
    tenant: str,
    policy: GatePolicy,
    move: ReleaseMoveRequested,
    standing: PromptRelease | None,
    *,
    digests: Mapping[str, str],
    changed: Iterable[PromptVersion],
    statements: Sequence[StoredStatement],
    signed_word: ApprovalGrant,
    now_unix_ms: int,
) -> tuple[str, ...] | Failure:
    """Statements that the move stands on. digests: of the candidate's prompts; changed: versions that the label did not
    have, or not with these values, which are the mover's own; statements: the newest first, signed by a key of the
    policy."""
    if policy.require_tokens and signed_word.via != "jwt":
        reason = f"{signed_word.person} came with an API key, and {move.label} wants a person who has signed in"
        return Failure.from_text("token_required", reason, "sign in, and move it with that token")
    if move.break_glass:
        if signed_word.role in policy.break_glass:
            return (BREAK_GLASS,)
        roles = " or ".join(policy.break_glass)
        reason = f"{signed_word.person} is {signed_word.role}, and may not break the glass before {move.label}"
        hint = f"ask one who is {roles}" if roles else "nobody may; get the statement, or have an operator name a role"
        return Failure.from_text("break_glass_refused", reason, hint)
    had_values = {row.prompt: row.values for row in (standing.prompts if standing is not None else ())}
    has_new_values = any(change.values and change.values != had_values.get(change.prompt) for change in move.changes)
    own_values = policy.four_eyes and has_new_values
    own_versions = [version.name for version in changed if version.person == signed_word.person]
    if policy.four_eyes and own_versions:
        names = ", ".join(own_versions)
        reason = f"{signed_word.person} published {names}, and {move.label} wants another person to move it"
        return Failure.from_text("four_eyes", reason, "ask another prompt editor or an operator to do it")
    stood_on = []
    for name, set_sha256 in policy.sets.items():
        expected = Expectation(
            tenant=tenant,
            case_set=name,
            set_sha256=set_sha256,
            prompts=digests,
            min_pass=policy.min_pass,
            max_age_ms=policy.max_age_h * HOUR_MS,
        )
        fitting = _find_fitting(name, expected, statements, now_unix_ms)
        if own_values and isinstance(fitting, StoredStatement) and fitting.person == signed_word.person:
            reason = f"{fitting.person} chose these values and asked for evaluation {fitting.number} of them"
            hint = "have another prompt editor evaluate them, or move the label"
            return Failure.from_text("four_eyes", reason, hint)
        if isinstance(fitting, Failure):
            return fitting
        stood_on.append(f"{name}#{fitting.number}@{fitting.verified.sha256}")
    return tuple(stood_on)


def _find_fitting(
    name: str, expected: Expectation, statements: Sequence[StoredStatement], now_unix_ms: int
) -> StoredStatement | Failure:
    """The newest statement that fits; or what the nearest one lacks."""
    nearest: tuple[int, StoredStatement, Mismatch] | None = None
    for stored in statements:
        statement = stored.verified.statement
        if statement.predicate.case_set != name:
            continue
        misfits = find_statement_misfits(statement, expected, now_unix_ms)
        if not misfits:
            return stored
        worst = min(misfits, key=lambda misfit: ORDER.index(misfit.code))
        rank = ORDER.index(worst.code)
        if nearest is None or rank > nearest[0]:
            nearest = rank, stored, worst
    hint = f"evaluate just this with the set {name}: Evaluate on the version's page, or `bulkhead prompts evaluate`"
    if nearest is None:
        reason = f"no statement says that these prompts pass the set {name}"
        return Failure.from_text("gate_statement_missing", reason, hint)
    _, stored, misfit = nearest
    reason = f"evaluation {stored.number} with the set {name}: {misfit.reason}"
    match misfit.code:
        case "stale":
            return Failure.from_text("gate_stale", reason, f"{hint} again")
        case "failed":
            hint = f"open evaluation {stored.number}, mend what fell in a new version, and evaluate that"
            return Failure.from_text("gate_failed", reason, hint)
        case "other_tenant":
            return Failure.from_text("gate_other_tenant", reason, hint)
        case "other_set":
            return Failure.from_text("gate_other_set", reason, "have the evaluator run the set that the gate names")
    return Failure.from_text("gate_other_digests", f"{reason}: it is of other prompts", hint)
