"""A task's story as plain text: one screen for an ordinary task, all of it when asked for. Pure.

In: a story. Out: lines without control characters: what models, documents and people wrote is text.
"""

from collections.abc import Iterable, Iterator, Sequence

from bulkhead.journal.story.calls import short_arguments
from bulkhead.journal.story.model import Call, Happened, Source, StepTold, Story
from bulkhead.journal.why.reason import Reason
from bulkhead.text.amounts import format_cost, format_count, format_duration, format_tokens
from bulkhead.text.plain_text import cut_line, escape_controls, one_line
from bulkhead_contracts.result import Usage

LINE_CHARS = 150
MAX_CALLS, MAX_CITES, MAX_SENTENCES, MAX_NOTES, MAX_STEPS = 3, 3, 6, 5, 12
"""Lines of each kind that one screen has; `all` has every one."""
EFFECTS = {
    "done": "it was done",
    "not_done": "it was not done",
    "unknown": "nobody knows whether it was done",
    "": "it is under way",
}
ENDED = frozenset({"succeeded", "failed", "cancelled", "halted", "rejected"})


def render_story(story: Story, *, whole: bool = False) -> str:
    """The story for people. whole: every call, sentence and happening, uncut."""
    return "\n".join(escape_controls(one_line(line)) for line in _story_lines(story, whole))


def _story_lines(story: Story, whole: bool) -> Iterator[str]:
    yield _story_heading(story)
    if story.objective:
        yield f"asked{f' by {story.asked_by}' if story.asked_by else ''}: {_cut_line(story.objective, whole)}"
    if not story.content:
        yield "texts are left out: only an operator, or who submitted the task, may read them"
    if story.cause:
        yield "because"
        yield from _limited_rows(
            (f"  {_render_happening(row, proven=True)}" for row in story.cause), whole, MAX_NOTES, "  "
        )
    if story.status not in ENDED and story.reasons:
        yield "now"
        yield from _reason_lines(story.reasons, whole)
    for plan in story.plans:
        refused = f"; {format_count(plan.drafts_refused, 'draft')} before it refused" if plan.drafts_refused else ""
        yield (
            f"plan {plan.version}: {format_count(len(plan.steps), 'step')}, {_origin_words(plan.origin)} "
            f"{plan.by}{refused}"
        )
        if whole:
            yield from (f"  {note}" for note in plan.notes)
    if whole:
        yield from (f"  {line}" for call in story.planning for line in _call_lines(call, whole))
    blocks = [list(_step_lines(step, story, whole)) for step in story.steps]
    shown_blocks = blocks if whole else blocks[:MAX_STEPS]
    for block in shown_blocks:
        yield from block
    if len(blocks) > len(shown_blocks):
        yield f"and {format_count(len(blocks) - len(shown_blocks), 'more step')}"
    yield from _written_lines(story, whole)
    yield from _note_lines(story, whole)
    yield from _answer_lines(story, whole)
    if story.cut:
        yield "the task has more messages than are read here: `bulkhead export` has them all"


def _story_heading(story: Story) -> str:
    least = "" if story.whole_cost and story.status in ENDED else "at least "
    return f"{story.task_id} {story.status} after {format_duration(story.took_ms)}, {least}{_render_usage(story.usage)}"


def _render_usage(usage: Usage) -> str:
    used = format_tokens(usage.input_tokens + usage.output_tokens, usage.estimated_tokens)
    return f"{format_cost(usage.cost_usd_micros, usage.estimated_usd_micros)}, {used}"


def _origin_words(origin: str) -> str:
    return {"submitted": "submitted by", "drafted": "drafted by", "fork": "from", "adopted": "of"}.get(
        origin, "made by"
    )


def _step_lines(step: StepTold, story: Story, whole: bool) -> Iterator[str]:
    yield _step_heading(step, story)
    shown_calls = step.calls if whole or story.adopted else [call for call in step.calls if call.kind != "model"]
    calls = [line for call in shown_calls for line in _call_lines(call, whole)]
    yield from _limited_rows((f"  {line}" for line in calls), whole, MAX_CALLS if not story.adopted else 20, "  ")
    if step.cites:
        passages_note = f" (of {format_count(step.seen, 'passage')} it was shown)" if step.seen else ""
        names = list(dict.fromkeys(_source_name(source) for source in step.cites))
        overflow = f" and {len(names) - MAX_CITES} more" if len(names) > MAX_CITES and not whole else ""
        yield f"  its result rests on {'; '.join(names if whole else names[:MAX_CITES])}{overflow}{passages_note}"
    yield from (f"  not accepted, {_cut_line(line, whole)}" for line in step.refused)
    if step.answered in ("partly", "no"):
        yield "  not answered" if step.answered == "no" else "  partly answered"
    if step.standing != "ok":
        yield f"  {step.standing}: {_cut_line(step.standing_reason, whole)}"
    if whole and step.result:
        yield f"  result: {step.result}"


def _step_heading(step: StepTold, story: Story) -> str:
    replanned = f" (plan {step.plan_version})" if len(story.plans) > 1 else ""
    outcome = "taken over from the task it forks" if step.given else step.outcome.replace("_", " ")
    title = f" {cut_line(step.title, 60).rstrip(':')}" if step.title else ""
    parts = [f"{step.step_id}{replanned}{title}: {outcome}"]
    parts += [f"on {', '.join(step.inputs)}"] if step.inputs else []
    if step.calls:
        parts += [format_count(step.attempts, "attempt")] if step.attempts > 1 else []
        models = [call for call in step.calls if call.kind == "model"]
        parts += [
            format_duration(step.took_ms),
            f"{'' if step.whole_cost else 'at least '}{format_cost(step.usage.cost_usd_micros)}",
        ]
        parts += [format_count(len(models), "model call")] if models else []
    return ", ".join(parts)


def _call_lines(call: Call, whole: bool) -> Iterator[str]:
    took = f" {format_duration(call.took_ms)}" if call.took_ms is not None else ""
    if call.kind == "model":
        came = f"{call.model or 'the model'}: {_cut_line(call.failure or call.result, whole)}"
        yield (
            f"{call.by} asked a model ({call.name}), {came}{took}, "
            f"{format_cost(call.usage.cost_usd_micros)}{_effort_note(call)}"
        )
    elif call.kind == "search":
        outcome = call.failure or f"{format_count(len(call.found), 'passage')} of {_document_names(call.found)}"
        yield f"searched for “{_cut_line(call.arguments, whole, 70)}”: {outcome}{took}{_effort_note(call)}"
    else:
        arguments = call.arguments if whole else short_arguments(call.arguments, 70)
        came = call.failure or (f"{_cut_line(call.result, whole, 70)}" if call.result else call.outcome)
        yield f"called {call.name}({arguments}): {came}{took}{_effort_note(call)}"
    if call.why and call.kind != "model":
        yield f"  the model says why: “{_cut_line(call.why, whole, 110)}”"
    if whole:
        yield from (f"  put off: {reason}" for reason in call.put_off)


def _effort_note(call: Call) -> str:
    parts = [f"{call.attempts} attempts"] if call.attempts > 1 else []
    parts += [f"waited {format_duration(call.waited_ms)} for {call.waited_for}"] if call.waited_ms >= 1_000 else []
    parts += [f"{call.chosen_as}"] if call.chosen_as not in ("", "first") else []
    parts += ["from the response cache"] if call.cached else []
    return f" ({', '.join(parts)})" if parts else ""


def _document_names(sources: Iterable[Source]) -> str:
    names = list(dict.fromkeys(source.name for source in sources))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "no document"


def _source_name(source: Source) -> str:
    name = source.name
    if source.kind == "document":
        return f"{name}, {source.where}" if source.where else name
    if source.kind == "tool_result":
        return f"{name or 'a tool'} in step {source.step_id}" if source.step_id else f"the result of {name or 'a tool'}"
    return {"step_result": f"step {name}", "objective": "the objective"}.get(
        source.kind, f"[#{source.marker}], which nothing of the task names"
    )


def _written_lines(story: Story, whole: bool) -> Iterator[str]:
    if not story.write_calls:
        return
    yield "written"
    for call in story.write_calls:
        arguments = call.arguments if whole else short_arguments(call.arguments, 70)
        approval = f"; a person was asked: {call.approval}" if call.approval else ""
        came = f": {_cut_line(call.result, whole, 60)}" if call.effect == "done" and call.result else ""
        yield f"  {call.name}({arguments}) in step {call.step_id}: {EFFECTS[call.effect]}{came}{approval}"


def _note_lines(story: Story, whole: bool) -> Iterator[str]:
    shown_causes = {row.what for row in story.cause}
    rows = [f"  {_render_happening(row, proven=whole)}" for row in story.happened if row.what not in shown_causes]
    reasons = [reason for reason in story.reasons if reason.kind != "ended" and story.status in ENDED]
    if rows or reasons:
        yield "worth knowing"
    yield from _reason_lines(reasons, whole)
    yield from _limited_rows(rows, whole, MAX_NOTES, "  ")


def _reason_lines(sources: Sequence[Reason], whole: bool) -> Iterator[str]:
    for reason in sources if whole else sources[:MAX_NOTES]:
        yield f"  {reason.kind}: {_cut_line(reason.what, whole)}"
        if reason.todo:
            yield f"    → {_cut_line(reason.todo, whole)}"


def _render_happening(row: Happened, *, proven: bool) -> str:
    step = f"step {row.step_id}: " if row.step_id else ""
    proof = f" [message {row.evidence[0]}]" if row.evidence and proven else ""
    return f"{row.kind.replace('_', ' ')}: {step}{cut_line(row.what, LINE_CHARS * 2)}{proof}"


def _answer_lines(story: Story, whole: bool) -> Iterator[str]:
    if not story.answer:
        return
    yield "the answer"
    rows = []
    for sentence in story.answer:
        names = "; ".join(dict.fromkeys(_source_name(source) for source in sentence.sources))
        rows.append(f"  “{_cut_line(sentence.text, whole, 100)}” ← {names or 'nothing it names'}")
    yield from _limited_rows(rows, whole, MAX_SENTENCES, "  ")


def _cut_line(text: str, whole: bool, chars: int = LINE_CHARS) -> str:
    return cut_line(text, 20_000 if whole else chars)


def _limited_rows(rows: Iterable[str], whole: bool, limit: int, indent: str) -> Iterator[str]:
    lines: Sequence[str] = list(rows)
    yield from lines if whole else lines[:limit]
    if len(lines) > limit and not whole:
        yield f"{indent}and {len(lines) - limit} more (--all)"
