"""The judge: what it is shown, in rounds where that is much, and how its answer is read. A leaf, pure.

In: a case. Out: the call that asks; a `JudgeVerdict`. A judge that names a source for a sentence without one
is believed where that source was shown to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from bulkhead.flow import Send, Transition, bounded, replace
from bulkhead_contracts import bounds, envelope
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested, Part
from bulkhead_contracts.result import EVIDENCE_AUTHORS, Answered, Completeness, Omission
from bulkhead_contracts.step import Evidence, StepProposed
from bulkhead_services.checker import checks
from bulkhead_services.checker.state import CheckCase, CheckerState

OUTPUT_TOKENS = 800
ROUND_BYTES = 96 * 1024
"""Evidence that the judge is shown at once; the rest comes in further rounds."""
MAX_ROUNDS = 8
_EVIDENCE_KINDS = frozenset({"passage", "tool_result", "input"})


@dataclass(frozen=True, slots=True)
class JudgeVerdict:
    """A judge's answer. support: by a sentence's number, the marker of what says it."""

    accepted: bool
    reasons: tuple[str, ...] = ()
    score: float | None = None
    support: tuple[tuple[int, str], ...] = ()
    answered: Answered | None = None


def countable_evidence(body: StepProposed) -> tuple[Evidence, ...]:
    """Evidence of a result that may count."""
    return tuple(row for row in body.evidence if row.content.author in EVIDENCE_AUTHORS)


def evidence_rounds(body: StepProposed, cited: frozenset[str]) -> tuple[tuple[Part, ...], ...]:
    """The evidence in rounds: all that is cited; what is not cited fills the last of these rounds."""
    parts = [
        *(
            Part(kind="passage", content=row.content, source=row.citation.document)
            if row.citation
            else Part(kind="tool_result", content=row.content, source=row.label.source)
            for row in countable_evidence(body)
        ),
        *(
            Part(kind="input", content=step_input.result.content, step_id=step_input.step_id)
            for step_input in body.inputs
            if step_input.result.content
        ),
    ]
    parts.sort(key=lambda part: part.kind != "input" and part.content is not None and part.content.marker not in cited)
    rounds: list[tuple[Part, ...]] = [()]
    size = 0
    for part in parts:
        assert part.content is not None
        size += part.content.size_bytes
        if rounds[-1] and size > ROUND_BYTES:
            if part.content.marker not in cited or len(rounds) == MAX_ROUNDS:
                break
            rounds.append(())
            size = part.content.size_bytes
        rounds[-1] += (part,)
    return tuple(rounds)


def unshown_evidence(body: StepProposed, rounds: tuple[tuple[Part, ...], ...]) -> Completeness:
    """Evidence that no judge sees, as an omission."""
    inputs = sum(step_input.result.content is not None for step_input in body.inputs)
    left_out = len(countable_evidence(body)) + inputs - sum(map(len, rounds))
    if not left_out:
        return Completeness()
    missing_part = f"{left_out} pieces of evidence"
    detail = "the judge was not shown them; the plain checks read them"
    return Completeness.with_omissions(Omission(reason="pruned", what=missing_part, detail=detail))


def request_judgement(state: CheckerState, case: CheckCase) -> Transition[CheckerState]:
    """Ask the judge about the round that is next."""
    judge_call = _build_judge_call(case)
    case = replace(case, judge_call=judge_call, tries=case.tries + 1, is_asleep=False, is_held=False)
    return Transition(state.with_case(case), (Send("model_gateway", judge_call, grant=case.grant),))


def _build_judge_call(case: CheckCase) -> ModelCallRequested:
    proposed = case.proposed
    assert proposed is not None and proposed.result.content is not None
    step = proposed.step
    parts = [
        Part(kind="step", text=step.instruction, step_id=step.id),
        Part(kind="acceptance", text=step.acceptance),
        Part(kind="answer", content=proposed.result.content),
        *(Part(kind="context", text=text) for text in _judge_context(case)),
        *case.rounds[0],
    ]
    name = f"judge-{case.seen}-{len(case.rounds)}-{case.tries}"
    return ModelCallRequested(
        call_id=envelope.derive_id("checker", "/".join(map(str, case.key)), name),
        step_id=step.id,
        attempt=proposed.attempt,
        prompt_id="checker.judge",
        parts=tuple(parts),
        response="verdict",
        tier="judge",
        stream=False,
        max_output_tokens=OUTPUT_TOKENS,
        deadline_unix_ms=proposed.deadline_unix_ms,
    )


def _judge_context(case: CheckCase) -> Iterator[str]:
    """Context that the judge must know beside the parts that it judges."""
    total = case.seen + len(case.rounds)
    if total > 1:
        yield (
            f"This is part {case.seen + 1} of {total} of the evidence. Judge what the answer says of the parts shown "
            "here; what it cites of others is judged apart."
        )
    if topics := case.policy.topics:
        named = "\n".join(f"- {topic}" for topic in topics)
        yield f"A rule of the tenant: reject an answer that speaks of any of these.\n{named}"[
            : bounds.MAX_INSTRUCTION_CHARS
        ]
    if listed := checks.unsupported_sentences(case.checked.rows)[: checks.MAX_ASKED]:
        rows = "\n".join(f"{number}: {text[:300]}" for number, text in listed)
        yield f"Sentences for which no source was found, by number:\n{rows}"


def shown_markers(case: CheckCase) -> frozenset[str]:
    """Markers of the evidence that the judge was shown in the round that is asked now."""
    parts = case.judge_call.parts if case.judge_call is not None else ()
    return frozenset(part.content.marker for part in parts if part.content and part.kind in _EVIDENCE_KINDS)


def split_round(case: CheckCase, reply: ModelCallReplied) -> tuple[tuple[Part, ...], ...]:
    """Smaller rounds, when the judge's context could not hold this one; none where that does not help."""
    parts = case.rounds[0]
    cut = any(row.reason == "pruned" for row in reply.completeness.omissions)
    if not cut or len(parts) < 2 or case.seen + len(case.rounds) >= MAX_ROUNDS:
        return ()
    half = len(parts) // 2
    return (parts[:half], parts[half:], *case.rounds[1:])


def read_verdict(text: str) -> JudgeVerdict | None:
    """The judge's verdict; None when that is no verdict."""
    try:
        answer = bounded.load_json(text)
    except ValueError:
        return None
    if not isinstance(answer, dict) or answer.get("verdict") not in ("accept", "reject"):
        return None
    reasons = answer.get("reasons")
    # Half of a surrogate pair can stand in JSON, and in no message.
    listed = (
        [str(row).encode("utf-8", "replace").decode()[: bounds.MAX_REASON_CHARS] for row in reasons[:8]]
        if isinstance(reasons, list)
        else []
    )
    score = answer.get("score")
    if not isinstance(score, int | float) or isinstance(score, bool) or not 0 <= score <= 1:
        score = None
    support = answer.get("support")
    rows = support[: checks.MAX_ASKED] if isinstance(support, list) else []
    answered = answer.get("answered")
    return JudgeVerdict(
        answer["verdict"] == "accept",
        tuple(listed),
        None if score is None else float(score),
        tuple(
            (row["sentence"], row["source"].strip("[]# "))
            for row in rows
            if isinstance(row, dict) and type(row.get("sentence")) is int and isinstance(row.get("source"), str)
        ),
        answered if answered in get_args(Answered) else None,
    )


def confirm_sources(checked: checks.CheckedText, verdict: JudgeVerdict, markers: frozenset[str]) -> checks.CheckedText:
    """The text with the sources that the judge has found for sentences without one, among those with these markers."""
    could = checked.possible
    support = {
        number: marker
        for number, marker in verdict.support
        if marker in markers and marker in could.get(number, frozenset())
    }
    if not support:
        return checked
    rows = tuple(
        replace(row, status="found", markers=(support[number],), flaws=()) if number in support else row
        for number, row in enumerate(checked.rows)
    )
    return replace(checked, rows=rows)
