"""The fold of a task's messages into its story. Pure.

In: entries of the journal, and the contents that could be read. Out: a `Story`. `wanted` names the contents that make
it whole; without them it has their summaries, of at most MAX_SUMMARY_CHARS.
"""

from collections.abc import Sequence
from dataclasses import replace

from bulkhead.grounding.sentences import MARKER
from bulkhead.journal.history import Entry, each_fact
from bulkhead.journal.rows import spent, step_of
from bulkhead.journal.story.calls import Texts, calls, text_of
from bulkhead.journal.story.happenings import cause, happened
from bulkhead.journal.story.model import Call, PlanTold, Source, StepTold, Story
from bulkhead.journal.story.sources import cited, resting, sources
from bulkhead.journal.why.reasons import explain
from bulkhead.plain_text import cut
from bulkhead_contracts.budget import Settled
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanRejected
from bulkhead_contracts.result import ContentRef, Usage
from bulkhead_contracts.retrieval import RetrievalReplied
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


def wanted(found: Sequence[Entry]) -> list[ContentRef]:
    """Contents that the story quotes, the weightiest first: the answer, results of steps, what models said."""
    told = each_fact(found)
    ends = [one.body.result for one in told if isinstance(one.body, TaskEnded) and one.body.result]
    steps = [one.body.result for one in told if isinstance(one.body, StepEnded) and one.body.result]
    said = [one.body.content for one in told if isinstance(one.body, ModelCallReplied) and one.body.tool_calls]
    refs = [one.content for one in (*ends, *steps)] + said
    long = [ref for ref in refs if ref is not None and ref.summary.endswith("…")]
    return list({ref.sha256: ref for ref in long}.values())[:MAX_CONTENTS]


def tell(found: Sequence[Entry], task: str, now_unix_ms: int, texts: Texts, newest_logic: int = 2**31) -> Story:
    """The story of one task of one tenant. found: at least one entry. newest_logic: as for `explain`."""
    told = each_fact(found)
    known = sources(told, texts)
    made = calls(told, texts)
    request = next((one for one in told if isinstance(one.body, TaskRequested)), None)
    asked = request.body if request is not None and isinstance(request.body, TaskRequested) else None
    end = next((one for one in told if isinstance(one.body, TaskEnded | TaskRejected)), None)
    ended = end.body if end is not None and isinstance(end.body, TaskEnded) else None
    settled = {one.body.reservation_id: one.body for one in told if isinstance(one.body, Settled)}
    usage = sum((one.usage for one in settled.values()), Usage())
    steps = _steps(told, made, known, texts)
    plans = _plans(told, made, asked)
    in_steps = {call.call_id for step in steps for call in step.calls}
    answer = text_of(ended.result.content if ended and ended.result else None, texts)
    return Story(
        task_id=task,
        tenant=told[0].tenant,
        status=_status(told, ended, end),
        asked_by=asked.requester.person if asked and asked.requester else told[0].actor,
        objective=cut(asked.objective, MAX_OBJECTIVE_CHARS) if asked else "",
        began_unix_ms=told[0].at_unix_ms,
        took_ms=max(0, (end or told[-1]).at_unix_ms - told[0].at_unix_ms),
        usage=usage if settled else ended.usage if ended else usage,
        whole_cost=all(step.whole_cost for step in steps),
        plans=plans,
        steps=steps,
        planning=tuple(call for call in made if call.call_id not in in_steps),
        happened=happened(told, made),
        answer=resting(answer, known),
        cause=() if ended is None or ended.status == "succeeded" else cause(told, made),
        reasons=tuple(explain(list(found), task, now_unix_ms, newest_logic)),
        adopted=any(plan.origin == "adopted" for plan in plans),
    )


def _status(told: Sequence[Entry], ended: TaskEnded | None, end: Entry | None) -> str:
    if ended is not None:
        return ended.status
    if end is not None:
        return "rejected"
    last = next((one.body for one in reversed(told) if isinstance(one.body, TaskPaused | TaskQueued | TaskReleased)), 0)
    if isinstance(last, TaskQueued):
        return "queued"
    return "paused" if isinstance(last, TaskPaused) and last.active else "running"


def _plans(told: Sequence[Entry], made: Sequence[Call], asked: TaskRequested | None) -> tuple[PlanTold, ...]:
    found: list[PlanTold] = []
    refused: list[PlanRejected] = []
    given = next((one.body for one in told if isinstance(one.body, TaskSubmitted)), None)
    drafts = [call for call in made if call.by == "planner" and call.outcome == "answered"]
    for entry in told:
        body = entry.body
        if isinstance(body, PlanRejected):
            refused.append(body)
        elif isinstance(body, PlanAdopted) and all(body.plan.version != one.version for one in found):
            before = [call for call in drafts if call.asked_unix_ms <= entry.at_unix_ms]
            found.append(_plan(body.plan, entry, given, asked, before, len(refused)))
            refused = []
    return tuple(found)


def _plan(
    plan: Plan,
    entry: Entry,
    given: TaskSubmitted | None,
    asked: TaskRequested | None,
    drafts: Sequence[Call],
    refused: int,
) -> PlanTold:
    notes = tuple(f"{note.severity}: {note.message}" for note in plan.notes)
    steps = tuple(step.id for step in plan.steps)
    person = asked.requester.person if asked and asked.requester else "its requester"

    def made(origin: str, by: str) -> PlanTold:
        return PlanTold(plan.version, origin, by, steps, refused, notes, entry.id)  # type: ignore[arg-type]

    if any(note.code == NO_DRAFT for note in plan.notes):
        return made("fallback", "the planner: no draft could be used, so the objective runs as one step")
    if given is not None and given.plan is not None and plan.version == given.plan.version:
        if any(step.adopted for step in plan.steps):
            return made("adopted", f"the outside agent of {person}")
        if asked is not None and asked.fork is not None:
            return made("fork", f"task {asked.fork.task}, which this one forks")
        return made("submitted", person)
    draft = drafts[-1] if drafts else None
    return made("drafted", f"{draft.model or 'a model'} (prompt {draft.name})" if draft else "a model")


def _steps(told: Sequence[Entry], made: Sequence[Call], known: dict[str, Source], texts: Texts) -> tuple[StepTold, ...]:
    """The steps in the order of their plans; one that was planned anew stands once for each plan that began it."""
    paid = spent(list(told))
    plans: dict[int, Plan] = {}
    for entry in told:
        if isinstance(entry.body, PlanAdopted):
            plans.setdefault(entry.body.plan.version, entry.body.plan)
    began: dict[str, list[tuple[int, int]]] = {}
    for entry in told:
        if isinstance(entry.body, StepAssigned):
            began.setdefault(entry.body.step.id, []).append((entry.body.plan_version, entry.at_unix_ms))
    given = {one.step_id for entry in told if isinstance(entry.body, TaskSubmitted) for one in entry.body.given}
    found = []
    for version, plan in sorted(plans.items()):
        for step in plan.steps:
            mine = [one for one in told if step_of(one) == step.id and _of_plan(one, version, began.get(step.id, []))]
            ids = {one.id for one in mine}
            own = tuple(call for call in made if call.message in ids)
            row = _step(step.id, mine, own, known, texts)
            usage, whole = paid.get(step.id, (Usage(), True))
            if len(plans) > 1 or not row.calls:
                usage = sum((call.usage for call in own), Usage())
            found.append(
                replace(
                    row,
                    title=step.title,
                    plan_version=version,
                    inputs=step.inputs,
                    usage=usage,
                    whole_cost=whole,
                    given=step.id in given and not own,
                )
            )
    return tuple(found)


def _of_plan(entry: Entry, version: int, began: Sequence[tuple[int, int]]) -> bool:
    """Whether a step's message belongs to this plan: by what it says, else by when the plan handed the step out."""
    said = getattr(entry.body, "plan_version", 0)
    if said:
        return bool(said == version)
    before = [plan for plan, at in began if at <= entry.at_unix_ms]
    return (before[-1] if before else 1) == version


def _step(
    step_id: str, mine: Sequence[Entry], own: tuple[Call, ...], known: dict[str, Source], texts: Texts
) -> StepTold:
    ends = [one.body for one in mine if isinstance(one.body, StepEnded)]
    starts = [one.body for one in mine if isinstance(one.body, StepStarted)]
    tries = [one.attempt for one in starts] + [one.attempt for one in ends]
    last = ends[-1] if ends else None
    result = last.result if last is not None else None
    text = text_of(result.content if result else None, texts)
    seen = {
        passage.content.marker
        for one in mine
        if isinstance(one.body, RetrievalReplied)
        for passage in one.body.passages
    }
    return StepTold(
        step_id=step_id,
        title="",
        plan_version=1,
        outcome=last.outcome if last else "stopped" if starts else "not_begun",
        attempts=max(tries, default=0),
        final=last.final if last else False,
        inputs=(),
        took_ms=max(0, mine[-1].at_unix_ms - mine[0].at_unix_ms) if mine else 0,
        calls=own,
        cites=cited(text, known),
        seen=len(seen),
        refused=tuple(f"attempt {one.attempt}: {'; '.join(one.reasons)}" for one in ends if one.outcome != "accepted"),
        standing=result.standing if result else "ok",
        standing_reason=result.standing_reason if result else "",
        result=cut(MARKER.sub("", text), MAX_RESULT_CHARS),
        usage=Usage(),
    )
