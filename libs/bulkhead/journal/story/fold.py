"""The fold of a task's messages into its story. Pure.

In: entries of the journal, and the contents that could be read. Out: a `Story`. `contents_to_quote` names the
contents that make it whole; without them it has their summaries, of at most MAX_SUMMARY_CHARS.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from bulkhead.flow.step_calls import describe_step
from bulkhead.grounding.sentences import MARKER
from bulkhead.journal.history import JournalEntry, each_fact
from bulkhead.journal.rows import spending_by_step, step_of
from bulkhead.journal.story.calls import Texts, find_calls, text_of
from bulkhead.journal.story.happenings import find_causes, find_happenings
from bulkhead.journal.story.model import AttemptTold, Call, PlanTold, Source, StepTold, Story
from bulkhead.journal.story.sources import cited_sources, find_sources, sentences_with_sources
from bulkhead.journal.story.waits import attempts_of_step, waits_of_step, waits_of_task
from bulkhead.journal.why.reasons import explain_task
from bulkhead.text.plain_text import cut_line
from bulkhead_contracts.budget import Settled
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanRejected, PlanStep, planned_ids
from bulkhead_contracts.result import ContentRef, Usage
from bulkhead_contracts.retrieval import AHEAD_CALL_ID_PREFIX, RetrievalReplied
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.task import (
    StepEnded,
    StepStarted,
    TaskEnded,
    TaskPaused,
    TaskQueued,
    TaskRejected,
    TaskReleased,
    TaskRequested,
    TaskSubmitted,
)

MAX_CONTENTS = 64
MAX_OBJECTIVE_CHARS = 2_000
MAX_RESULT_CHARS = 2_000
NO_DRAFT = "no_draft"
"""The planner's note on a plan that is the objective as one step."""


def contents_to_quote(entries: Sequence[JournalEntry]) -> list[ContentRef]:
    """Contents that the story quotes, the weightiest first: the answer, results of steps, what models said."""
    facts = each_fact(entries)
    ends = [entry.body.result for entry in facts if isinstance(entry.body, TaskEnded) and entry.body.result]
    steps = [entry.body.result for entry in facts if isinstance(entry.body, StepEnded) and entry.body.result]
    statements = [
        entry.body.content for entry in facts if isinstance(entry.body, ModelCallReplied) and entry.body.tool_calls
    ]
    questions = [
        entry.body.conversation.messages[-1]
        for entry in facts
        if isinstance(entry.body, ModelCallRequested) and entry.body.conversation is not None
    ]
    refs = [result.content for result in (*ends, *steps)] + statements
    long = [ref for ref in refs if ref is not None and ref.summary.endswith("…")]
    return list({ref.sha256: ref for ref in long + questions}.values())[:MAX_CONTENTS]


def fold_story(
    entries: Sequence[JournalEntry], task: str, now_unix_ms: int, texts: Texts, newest_logic: int = 2**31
) -> Story:
    """The story of one task of one tenant. entries: at least one entry. newest_logic: as for `explain_task`."""
    facts = each_fact(entries)
    sources = find_sources(facts, texts)
    task_calls = find_calls(facts, texts)
    request = next((entry for entry in facts if isinstance(entry.body, TaskRequested)), None)
    task_request = request.body if request is not None and isinstance(request.body, TaskRequested) else None
    end = next((entry for entry in facts if isinstance(entry.body, TaskEnded | TaskRejected)), None)
    ended = end.body if end is not None and isinstance(end.body, TaskEnded) else None
    settled = {entry.body.reservation_id: entry.body for entry in facts if isinstance(entry.body, Settled)}
    usage = sum((settlement.usage for settlement in settled.values()), Usage())
    steps = _fold_steps(facts, task_calls, sources, texts, end.at_unix_ms if end is not None else None)
    plans = _fold_plans(facts, task_calls, task_request)
    in_steps = {call.call_id for step in steps for call in step.calls}
    answer = text_of(ended.result.content if ended and ended.result else None, texts)
    return Story(
        task_id=task,
        tenant=facts[0].tenant,
        status=_story_status(facts, ended, end),
        asked_by=task_request.requester.person if task_request and task_request.requester else facts[0].actor,
        objective=cut_line(task_request.objective, MAX_OBJECTIVE_CHARS) if task_request else "",
        began_unix_ms=facts[0].at_unix_ms,
        took_ms=max(0, (end or facts[-1]).at_unix_ms - facts[0].at_unix_ms),
        usage=usage if settled else ended.usage if ended else usage,
        waits=waits_of_task(facts),
        whole_cost=all(step.whole_cost for step in steps),
        plans=plans,
        steps=steps,
        planning=tuple(call for call in task_calls if call.call_id not in in_steps),
        happened=find_happenings(facts, task_calls),
        answer=sentences_with_sources(answer, sources),
        cause=() if ended is None or ended.status == "succeeded" else find_causes(facts, task_calls),
        reasons=tuple(explain_task(list(entries), task, now_unix_ms, newest_logic)),
        adopted=any(plan.origin == "adopted" for plan in plans),
    )


def _story_status(entries: Sequence[JournalEntry], ended: TaskEnded | None, end: JournalEntry | None) -> str:
    if ended is not None:
        return ended.status
    if end is not None:
        return "rejected"
    last = next(
        (entry.body for entry in reversed(entries) if isinstance(entry.body, TaskPaused | TaskQueued | TaskReleased)), 0
    )
    if isinstance(last, TaskQueued):
        return "queued"
    return "paused" if isinstance(last, TaskPaused) and last.active else "running"


def _fold_plans(
    entries: Sequence[JournalEntry], calls: Sequence[Call], request: TaskRequested | None
) -> tuple[PlanTold, ...]:
    plans: list[PlanTold] = []
    refused: list[PlanRejected] = []
    submission = next((entry.body for entry in entries if isinstance(entry.body, TaskSubmitted)), None)
    drafts = [call for call in calls if call.by == "planner" and call.outcome == "answered"]
    for entry in entries:
        body = entry.body
        if isinstance(body, PlanRejected):
            refused.append(body)
        elif isinstance(body, PlanAdopted) and all(body.plan.version != plan.version for plan in plans):
            before = [call for call in drafts if call.asked_unix_ms <= entry.at_unix_ms]
            plans.append(_describe_plan(body.plan, entry, submission, request, before, len(refused)))
            refused = []
    return tuple(plans)


def _describe_plan(
    plan: Plan,
    entry: JournalEntry,
    given: TaskSubmitted | None,
    request: TaskRequested | None,
    drafts: Sequence[Call],
    refused: int,
) -> PlanTold:
    notes = tuple(f"{note.severity}: {note.message}" for note in plan.notes)
    steps = tuple(step.id for step in plan.steps)
    person = request.requester.person if request and request.requester else "its requester"

    def build_plan(origin: str, by: str) -> PlanTold:
        return PlanTold(
            plan.version,
            origin,  # type: ignore[arg-type]
            by,
            steps,
            refused,
            notes,
            entry.id,
            entry.at_unix_ms,
            plan.steps_sha256,
        )

    if any(note.code == NO_DRAFT for note in plan.notes):
        return build_plan("fallback", "the planner: no draft could be used, so the objective runs as one step")
    if given is not None and given.plan is not None and plan.version == given.plan.version:
        if any(step.adopted for step in plan.steps):
            return build_plan("adopted", f"the outside agent of {person}")
        if request is not None and request.fork is not None:
            return build_plan("fork", f"task {request.fork.task}, which this one forks")
        return build_plan("submitted", person)
    draft = drafts[-1] if drafts else None
    return build_plan("drafted", f"{draft.model or 'a model'} (prompt {draft.prompt_name})" if draft else "a model")


def _fold_steps(
    entries: Sequence[JournalEntry],
    calls: Sequence[Call],
    sources: dict[str, Source],
    texts: Texts,
    end_unix_ms: int | None,
) -> tuple[StepTold, ...]:
    """The steps in the order of their plans; one that was planned anew stands once for each plan that began it.
    end_unix_ms: of the task, None while it goes on; a late message of a step makes it no longer than its task."""
    paid = spending_by_step(list(entries))
    plans: dict[int, tuple[Plan, int]] = {}
    assignments: dict[str, list[tuple[int, int]]] = {}
    by_step: dict[str, list[JournalEntry]] = {}
    for entry in entries:
        by_step.setdefault(step_of(entry), []).append(entry)
        if isinstance(entry.body, PlanAdopted):
            plans.setdefault(entry.body.plan.version, (entry.body.plan, entry.at_unix_ms))
        elif isinstance(entry.body, StepAssigned):
            assignments.setdefault(entry.body.step.id, []).append((entry.body.plan_version, entry.at_unix_ms))
    calls_by_message = {call.message: (place, call) for place, call in enumerate(calls)}
    given_steps = {
        step_input.step_id
        for entry in entries
        if isinstance(entry.body, TaskSubmitted)
        for step_input in entry.body.given
    }
    skipped = {name for entry in entries if isinstance(entry.body, StepEnded) for name in entry.body.skipped}
    rows = []
    for version, (plan, adopted_unix_ms) in sorted(plans.items()):
        for step in _with_items(plan.steps, by_step):
            step_entries = [
                entry
                for entry in by_step.get(step.id, [])
                if _belongs_to_plan(entry, version, assignments.get(step.id, []))
            ]
            calls_by_place = dict(calls_by_message[entry.id] for entry in step_entries if entry.id in calls_by_message)
            own_calls = tuple(calls_by_place[place] for place in sorted(calls_by_place))
            # A step lasts from its beginning, and not from what was made ready for it.
            step_entries = [entry for entry in step_entries if not _is_ahead(entry)]
            row = _fold_step(step.id, step_entries, own_calls, sources, texts)
            is_given = step.id in given_steps and not own_calls
            if end_unix_ms is not None and step_entries:
                row = replace(row, took_ms=min(row.took_ms, max(0, end_unix_ms - step_entries[0].at_unix_ms)))
            tried = attempts_of_step(step_entries, has_ended=end_unix_ms is not None)
            usage, is_complete = paid.get(step.id, (Usage(), True))
            if len(plans) > 1 or not row.calls:
                usage = sum((call.usage for call in own_calls), Usage())
            rows.append(
                replace(
                    row,
                    title=step.title,
                    plan_version=version,
                    inputs=step.inputs,
                    usage=usage,
                    whole_cost=is_complete,
                    given=is_given,
                    outcome=_outcome_of(row, tried, is_given=is_given, is_skipped=step.id in skipped),
                    instruction=cut_line(describe_step(step), MAX_RESULT_CHARS),
                    tried=tried,
                    waits=waits_of_step(step_entries, adopted_unix_ms if step.inputs else 0),
                    action=step.action,
                    retry=step.retry,
                    skippable=step.skippable,
                )
            )
    return tuple(rows)


def _is_ahead(entry: JournalEntry) -> bool:
    return str(getattr(entry.body, "call_id", "")).startswith(AHEAD_CALL_ID_PREFIX)


def _with_items(steps: Sequence[PlanStep], step_ids: Iterable[str]) -> Iterator[PlanStep]:
    """The steps, each map followed by those of its items that have begun."""
    items: dict[str, list[str]] = {}
    for step_id in step_ids:
        for map_id in planned_ids(step_id)[1:]:
            items.setdefault(map_id, []).append(step_id)
    for step in steps:
        yield step
        for step_id in sorted(items.get(step.id, ())) if step.over is not None else ():
            yield step.model_copy(update={"id": step_id, "over": None})


def _outcome_of(row: StepTold, tried: Sequence[AttemptTold], *, is_given: bool, is_skipped: bool) -> str:
    if is_skipped:
        return "skipped"
    return "accepted" if is_given else tried[-1].outcome if tried else row.outcome


def _belongs_to_plan(entry: JournalEntry, version: int, assignments: Sequence[tuple[int, int]]) -> bool:
    """True when a step's message belongs to this plan: by what it says, else by when the plan handed the step out."""
    stated_version = getattr(entry.body, "plan_version", 0)
    if stated_version:
        return bool(stated_version == version)
    before = [plan for plan, assigned_unix_ms in assignments if assigned_unix_ms <= entry.at_unix_ms]
    return (before[-1] if before else 1) == version


def _fold_step(
    step_id: str,
    step_entries: Sequence[JournalEntry],
    own_calls: tuple[Call, ...],
    sources: dict[str, Source],
    texts: Texts,
) -> StepTold:
    ends = [entry.body for entry in step_entries if isinstance(entry.body, StepEnded)]
    starts = [entry.body for entry in step_entries if isinstance(entry.body, StepStarted)]
    tries = [attempt.attempt for attempt in starts] + [one.attempt for one in ends]
    last = ends[-1] if ends else None
    result = last.result if last is not None else None
    text = text_of(result.content if result else None, texts)
    markers = {
        passage.content.marker
        for entry in step_entries
        if isinstance(entry.body, RetrievalReplied)
        for passage in entry.body.passages
    }
    return StepTold(
        step_id=step_id,
        title="",
        plan_version=1,
        outcome=last.outcome if last else "waiting",
        attempts=max(tries, default=0),
        final=last.final if last else False,
        inputs=(),
        took_ms=max(0, step_entries[-1].at_unix_ms - step_entries[0].at_unix_ms) if step_entries else 0,
        calls=own_calls,
        cites=cited_sources(text, sources),
        seen=len(markers),
        refused=tuple(f"attempt {end.attempt}: {'; '.join(end.reasons)}" for end in ends if end.outcome != "accepted"),
        standing=result.standing if result else "ok",
        standing_reason=result.standing_reason if result else "",
        result=cut_line(MARKER.sub("", text), MAX_RESULT_CHARS),
        usage=Usage(),
        answered=(result.answered or "") if result else "",
    )
