"""A task's story as plain text: one screen for an ordinary task, all of it when asked for. Pure.

In: a story. Out: lines without control characters: what models, documents and people wrote is text.
"""

from collections.abc import Iterable, Iterator, Sequence

from bulkhead.amounts import cost, counted, seconds, tokens
from bulkhead.journal.story.calls import short_arguments
from bulkhead.journal.story.model import Call, Happened, Source, StepTold, Story
from bulkhead.journal.why.reason import Reason
from bulkhead.plain_text import cut, harmless, one_line
from bulkhead_contracts.result import Usage

LINE_CHARS = 150
CALLS, CITES, SENTENCES, NOTES, STEPS = 3, 3, 6, 5, 12
"""Lines of each kind that one screen has; `all` has every one."""
EFFECTS = {
    "done": "it was done",
    "not_done": "it was not done",
    "unknown": "nobody knows whether it was done",
    "": "it is under way",
}
ENDED = frozenset({"succeeded", "failed", "cancelled", "halted", "rejected"})


def text(story: Story, *, whole: bool = False) -> str:
    """The story for people. whole: every call, sentence and happening, uncut."""
    return "\n".join(harmless(one_line(line)) for line in _lines(story, whole))


def _lines(story: Story, whole: bool) -> Iterator[str]:
    yield _head(story)
    if story.objective:
        yield f"asked{f' by {story.asked_by}' if story.asked_by else ''}: {_cut(story.objective, whole)}"
    if not story.content:
        yield "texts are left out: only an operator, or who submitted the task, may read them"
    if story.cause:
        yield "because"
        yield from _rows((f"  {_happened(row, proven=True)}" for row in story.cause), whole, NOTES, "  ")
    if story.status not in ENDED and story.reasons:
        yield "now"
        yield from _reasons(story.reasons, whole)
    for plan in story.plans:
        refused = f"; {counted(plan.drafts_refused, 'draft')} before it refused" if plan.drafts_refused else ""
        yield f"plan {plan.version}: {counted(len(plan.steps), 'step')}, {_origin(plan.origin)} {plan.by}{refused}"
        if whole:
            yield from (f"  {note}" for note in plan.notes)
    if whole:
        yield from (f"  {line}" for call in story.planning for line in _call(call, whole))
    blocks = [list(_step(step, story, whole)) for step in story.steps]
    shown = blocks if whole else blocks[:STEPS]
    for block in shown:
        yield from block
    if len(blocks) > len(shown):
        yield f"and {counted(len(blocks) - len(shown), 'more step')}"
    yield from _written(story, whole)
    yield from _notes(story, whole)
    yield from _answer(story, whole)
    if story.cut:
        yield "the task has more messages than are read here: `bulkhead export` has them all"


def _head(story: Story) -> str:
    least = "" if story.whole_cost and story.status in ENDED else "at least "
    return f"{story.task_id} {story.status} after {seconds(story.took_ms)}, {least}{_paid(story.usage)}"


def _paid(usage: Usage) -> str:
    used = tokens(usage.input_tokens + usage.output_tokens, usage.estimated_tokens)
    return f"{cost(usage.cost_usd_micros, usage.estimated_usd_micros)}, {used}"


def _origin(origin: str) -> str:
    return {"submitted": "submitted by", "drafted": "drafted by", "fork": "from", "adopted": "of"}.get(
        origin, "made by"
    )


def _step(step: StepTold, story: Story, whole: bool) -> Iterator[str]:
    yield _step_head(step, story)
    shown = step.calls if whole or story.adopted else [call for call in step.calls if call.kind != "model"]
    calls = [line for call in shown for line in _call(call, whole)]
    yield from _rows((f"  {line}" for line in calls), whole, CALLS if not story.adopted else 20, "  ")
    if step.cites:
        more = f" (of {counted(step.seen, 'passage')} it was shown)" if step.seen else ""
        names = list(dict.fromkeys(_source(source) for source in step.cites))
        left = f" and {len(names) - CITES} more" if len(names) > CITES and not whole else ""
        yield f"  its result rests on {'; '.join(names if whole else names[:CITES])}{left}{more}"
    yield from (f"  not accepted, {_cut(line, whole)}" for line in step.refused)
    if step.standing != "ok":
        yield f"  {step.standing}: {_cut(step.standing_reason, whole)}"
    if whole and step.result:
        yield f"  result: {step.result}"


def _step_head(step: StepTold, story: Story) -> str:
    replanned = f" (plan {step.plan_version})" if len(story.plans) > 1 else ""
    taken = "taken over from the task it forks" if step.given else step.outcome.replace("_", " ")
    title = f" {cut(step.title, 60).rstrip(':')}" if step.title else ""
    said = [f"{step.step_id}{replanned}{title}: {taken}"]
    said += [f"on {', '.join(step.inputs)}"] if step.inputs else []
    if step.calls:
        said += [counted(step.attempts, "attempt")] if step.attempts > 1 else []
        models = [call for call in step.calls if call.kind == "model"]
        said += [seconds(step.took_ms), f"{'' if step.whole_cost else 'at least '}{cost(step.usage.cost_usd_micros)}"]
        said += [counted(len(models), "model call")] if models else []
    return ", ".join(said)


def _call(call: Call, whole: bool) -> Iterator[str]:
    took = f" {seconds(call.took_ms)}" if call.took_ms is not None else ""
    if call.kind == "model":
        came = f"{call.model or 'the model'}: {_cut(call.failure or call.result, whole)}"
        yield f"{call.by} asked a model ({call.name}), {came}{took}, {cost(call.usage.cost_usd_micros)}{_effort(call)}"
    elif call.kind == "search":
        what = call.failure or f"{counted(len(call.found), 'passage')} of {_documents(call.found)}"
        yield f"searched for “{_cut(call.arguments, whole, 70)}”: {what}{took}{_effort(call)}"
    else:
        arguments = call.arguments if whole else short_arguments(call.arguments, 70)
        came = call.failure or (f"{_cut(call.result, whole, 70)}" if call.result else call.outcome)
        yield f"called {call.name}({arguments}): {came}{took}{_effort(call)}"
    if call.why and call.kind != "model":
        yield f"  the model says why: “{_cut(call.why, whole, 110)}”"
    if whole:
        yield from (f"  put off: {why}" for why in call.put_off)


def _effort(call: Call) -> str:
    said = [f"{call.attempts} attempts"] if call.attempts > 1 else []
    said += [f"waited {seconds(call.waited_ms)} for {call.waited_for}"] if call.waited_ms >= 1_000 else []
    said += [f"{call.chosen_as}"] if call.chosen_as not in ("", "first") else []
    said += ["from the response cache"] if call.cached else []
    return f" ({', '.join(said)})" if said else ""


def _documents(found: Iterable[Source]) -> str:
    names = list(dict.fromkeys(one.name for one in found))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "no document"


def _source(source: Source) -> str:
    name = source.name
    if source.kind == "document":
        return f"{name}, {source.where}" if source.where else name
    if source.kind == "tool_result":
        return f"{name or 'a tool'} in step {source.step_id}" if source.step_id else f"the result of {name or 'a tool'}"
    return {"step_result": f"step {name}", "objective": "the objective"}.get(
        source.kind, f"[#{source.marker}], which nothing of the task names"
    )


def _written(story: Story, whole: bool) -> Iterator[str]:
    if not story.written:
        return
    yield "written"
    for call in story.written:
        arguments = call.arguments if whole else short_arguments(call.arguments, 70)
        approval = f"; a person was asked: {call.approval}" if call.approval else ""
        came = f": {_cut(call.result, whole, 60)}" if call.effect == "done" and call.result else ""
        yield f"  {call.name}({arguments}) in step {call.step_id}: {EFFECTS[call.effect]}{came}{approval}"


def _notes(story: Story, whole: bool) -> Iterator[str]:
    told = {row.what for row in story.cause}
    rows = [f"  {_happened(row, proven=whole)}" for row in story.happened if row.what not in told]
    found = [one for one in story.reasons if one.kind != "ended" and story.status in ENDED]
    if rows or found:
        yield "worth knowing"
    yield from _reasons(found, whole)
    yield from _rows(rows, whole, NOTES, "  ")


def _reasons(found: Sequence[Reason], whole: bool) -> Iterator[str]:
    for one in found if whole else found[:NOTES]:
        yield f"  {one.kind}: {_cut(one.what, whole)}"
        if one.todo:
            yield f"    → {_cut(one.todo, whole)}"


def _happened(row: Happened, *, proven: bool) -> str:
    step = f"step {row.step_id}: " if row.step_id else ""
    proof = f" [message {row.evidence[0]}]" if row.evidence and proven else ""
    return f"{row.kind.replace('_', ' ')}: {step}{cut(row.what, LINE_CHARS * 2)}{proof}"


def _answer(story: Story, whole: bool) -> Iterator[str]:
    if not story.answer:
        return
    yield "the answer"
    rows = []
    for one in story.answer:
        names = "; ".join(dict.fromkeys(_source(source) for source in one.sources))
        rows.append(f"  “{_cut(one.text, whole, 100)}” ← {names or 'nothing it names'}")
    yield from _rows(rows, whole, SENTENCES, "  ")


def _cut(said: str, whole: bool, chars: int = LINE_CHARS) -> str:
    return cut(said, 20_000 if whole else chars)


def _rows(rows: Iterable[str], whole: bool, most: int, indent: str) -> Iterator[str]:
    found: Sequence[str] = list(rows)
    yield from found if whole else found[:most]
    if len(found) > most and not whole:
        yield f"{indent}and {len(found) - most} more (--all)"
