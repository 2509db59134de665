"""A task that forks another: what it takes over, and why it may not.

In: a request that names an ended task of its own tenant, and what the planner said of that task into this inbox. Out:
the results to hand to the planner by reference, with a label that says where they come from; or a refusal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bulkhead.runtime.consume import inbound
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import Unreadable
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.output import Delivery
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanStep
from bulkhead_contracts.result import ContentRef, Label, Result, digest_of, merge_labels
from bulkhead_contracts.step import StepInput
from bulkhead_contracts.task import ForkOf, StepEnded, StepStarted, TaskEnded, TaskRequested, facts
from bulkhead_contracts.tool import ToolSpec
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.read_model.feeds import INBOX
from bulkhead_services.gateway.read_model.task_view import Refusal

Attempt = tuple[int, str, int]
"""Plan version, step, attempt."""
MAX_ANCESTORS = 32
UNTIL_SEEN = frozenset({"fork_unknown", "fork_not_ended", "fork_no_result", "fork_content_gone"})
"""Refusals that a follower which lags behind the earlier task's end, or behind its contents, gives, too."""
LOOKS = 4
LOOK_AGAIN_S = 0.4


@dataclass(slots=True)
class Past:
    """What this inbox tells of an earlier task, in whatever order it was stored: the planner says it side by side."""

    request: TaskRequested | None = None
    ended: bool = False
    plans: dict[int, Plan] = field(default_factory=dict)
    started: set[Attempt] = field(default_factory=set)
    idle: set[Attempt] = field(default_factory=set)
    """Attempts that certainly called no tool."""
    accepted: dict[tuple[int, str], Result] = field(default_factory=dict)

    def take(self, body: Body) -> None:
        """One message of the task, in stream order."""
        match body:
            case TaskRequested():
                self.request = self.request or body
            case PlanAdopted():
                self.plans[body.plan.version] = body.plan
            case StepStarted():
                self.started.add((body.plan_version, body.step_id, body.attempt))
            case StepEnded():
                if body.usage.tool_calls == 0 and body.outcome != "failed":
                    self.idle.add((body.plan_version, body.step_id, body.attempt))
                if body.outcome == "accepted" and body.result is not None:
                    self.accepted[body.plan_version, body.step_id] = body.result
            case TaskEnded():
                self.ended = True
            case _:
                pass

    @property
    def plan(self) -> Plan | None:
        """The last plan, where plans were replaced."""
        return self.plans[max(self.plans)] if self.plans else None

    @property
    def results(self) -> dict[str, Result]:
        """Accepted results of the last plan's steps."""
        last = max(self.plans, default=0)
        return {step: result for (version, step), result in self.accepted.items() if version == last}

    def drafted(self) -> frozenset[str]:
        """Digests of the texts of the last plan's steps that a model wrote, or may have: nobody's own words."""
        request = self.request
        own = request.plan.steps if request is not None and request.plan is not None and request.fork is None else ()
        texts = {step.text for step in (self.plan.steps if self.plan else ())} - {step.text for step in own}
        return frozenset(map(digest_of, texts))

    def used(self) -> dict[str, str]:
        """Tools that may have been used, under any plan: tool -> a step that may have used it."""
        may = {(version, step) for version, step, _ in self.started - self.idle}
        steps = (step for version, plan in self.plans.items() for step in plan.steps if (version, step.id) in may)
        return {tool: step.id for step in steps for tool in step.tools}


@dataclass(frozen=True, slots=True)
class Taken:
    """What the new task begins with. origin: the first task of the line of forks. used: as Past.used, of the line.
    drafted: as Past.drafted. delivery: what the earlier task's request asked for."""

    origin: str
    given: tuple[StepInput, ...]
    used: dict[str, str]
    drafted: frozenset[str] = frozenset()
    delivery: Delivery | None = None


async def taken(context: Context, tenant: str, task: str, request: TaskRequested) -> Taken | Refusal:
    """What a fork, which is `task`, takes over. The same request always gets the same: the earlier task has ended.
    Raises BusError."""
    fork = request.fork
    assert fork is not None
    past = await _past(context, tenant, fork.task)
    refusal = _refusal(past, fork, request)
    if refusal is not None:
        return refusal
    given = []
    for name in fork.steps:
        result = past.results[name]
        if not await _is_there(context, tenant, result.content):
            what = f"the result of {name} in task {fork.task} is gone: it has expired"
            hint = f"contents are kept for a limited time: let {name} run again (fork from it)"
            return Refusal("fork_content_gone", what, hint)
        labelled = _labelled(
            context, tenant, (fork.task, task), name, result, same_person=_person(past.request) == _person(request)
        )
        given.append(StepInput(step_id=name, title=f"taken over from task {fork.task}", result=labelled))
    line = await _line(context, tenant, fork.task, past)
    if isinstance(line, Refusal):
        return line
    delivery = past.request.delivery if past.request is not None else None
    return Taken(line[0], tuple(given), line[1], past.drafted(), delivery)


def repeats(taken_: Taken, request: TaskRequested, tools: Sequence[ToolSpec]) -> Refusal | None:
    """Refuse what would do again what cannot be undone: a write without idempotency that may have been done before."""
    assert request.fork is not None and request.plan is not None
    unsafe = {one.name for one in tools if one.effect == "write" and not one.idempotent}
    before = {name: step for name, step in taken_.used.items() if name in unsafe}
    for step in request.plan.steps:
        if step.id in request.fork.steps:
            continue
        for name in step.tools:
            if name in before:
                may = f"step {step.id} may use {name}, which writes and honours no idempotency key"
                did = f"step {before[name]} of task {request.fork.task}, or of one that it forked, may have used it"
                hint = f"fork from a later step, or take {name} out of the tools of {step.id}"
                return Refusal("fork_repeats_effect", f"{may}, and {did}", hint)
    return None


def _refusal(past: Past, fork: ForkOf, request: TaskRequested) -> Refusal | None:
    plan = request.plan
    if past.request is None:
        what = f"there is no task {fork.task} in this tenant"
        return Refusal("fork_unknown", what, "GET /v1/tasks lists your tenant's tasks")
    if plan is None:
        hint = "send the earlier task's plan, edited, as `plan`"
        return Refusal("fork_without_plan", "a fork brings the plan that it runs", hint)
    if not past.ended or past.plan is None:
        state = "had no plan" if past.ended else "has not ended"
        what = f"task {fork.task} {state}; what would be taken over is not certain"
        hint = "wait for its end or cancel it; a task without a plan is simply submitted again"
        return Refusal("fork_not_ended", what, hint)
    steps, earlier = {one.id: one for one in plan.steps}, {one.id: one for one in past.plan.steps}
    for name in fork.steps:
        if name not in past.results:
            what = f"step {name} of task {fork.task} has no accepted result"
            return Refusal("fork_no_result", what, "name only steps that were accepted; the others run")
        if name not in steps or not _same(steps[name], earlier[name]):
            what = f"step {name} is not what it was in task {fork.task}; its result stands for something else"
            return Refusal("fork_changed_step", what, "let a changed step run again")
        if request.check and not past.request.check and steps[name].kind != "noop":
            what = f"the result of {name} was never checked: task {fork.task} ran without checks"
            return Refusal("fork_unchecked", what, "let it run again, or submit the fork without checks, too")
    return None


def _same(one: PlanStep, other: PlanStep) -> bool:
    return one == other.model_copy(update={"title": one.title})


def _person(request: TaskRequested | None) -> str:
    return request.requester.person if request is not None and request.requester is not None else ""


def _labelled(
    context: Context, tenant: str, line: tuple[str, str], step: str, result: Result, *, same_person: bool
) -> Result:
    """The result as it was, and in its provenance first of all where it comes from. line: the earlier task, and this
    one, for which the labels are signed anew: those of the earlier task would be believed no more."""
    if result.content is None:
        return result
    task, fork = line
    source, sha256 = f"task {task} step {step}", result.content.sha256
    label = Label(sha256=sha256, kind="step_result", source=source, observed_by=context.service)

    def handed_on(seen: Label) -> Label:
        if not context.verifier.label(seen, tenant, task) or (seen.kind == "objective" and not same_person):
            return seen  # Nobody will believe it here either: what one person said is not said by another.
        return context.signer.label(seen.model_copy(update={"signed_by": context.service}), tenant, fork)

    before = tuple(handed_on(seen) for seen in result.provenance)
    labels = merge_labels((context.signer.label(label, tenant, fork),), before)
    return result.model_copy(update={"provenance": labels})


async def _is_there(context: Context, tenant: str, ref: ContentRef | None) -> bool:
    """Asked of the stream: what this replica remembers, others may no longer get."""
    if ref is None:
        return True
    subject = subjects.blob(ref.author, tenant, ref.sha256)
    return await context.bus.last(subjects.BLOBS_STREAM, subject) is not None


async def _past(context: Context, tenant: str, task: str) -> Past:
    past, after = Past(), 0
    while page := await context.bus.read(INBOX, subjects.task_filter("gateway", tenant, task), after=after):
        for stored in page:
            try:
                body = inbound.read(stored, "gateway").body
            except Unreadable:
                continue
            for fact in facts(body):
                past.take(fact)
        after = page[-1].sequence
    return past


async def _line(context: Context, tenant: str, task: str, past: Past) -> tuple[str, dict[str, str]] | Refusal:
    """The first task of the line, and the tools that may have been used in any of its tasks."""
    used: dict[str, str] = {}
    for _ in range(MAX_ANCESTORS):
        if past.request is None:
            what = f"task {task}, from which the forked one took over, was purged"
            what += ": what it did outside cannot be told any more"
            return Refusal("fork_ancestor_gone", what, "submit a new task")
        used |= past.used()
        if past.request.fork is None:
            return task, used
        task = past.request.fork.task
        past = await _past(context, tenant, task)
    return Refusal("fork_too_deep", f"a fork of a fork, over {MAX_ANCESTORS} times", "submit a new task")


def too_large(size_bytes: int) -> Refusal | None:
    """Refuse what no message can carry."""
    if size_bytes <= bounds.MAX_MESSAGE_BYTES:
        return None
    what = f"plan and results take {size_bytes} bytes; {bounds.MAX_MESSAGE_BYTES} fit"
    return Refusal("fork_too_large", what, "take over fewer steps")
