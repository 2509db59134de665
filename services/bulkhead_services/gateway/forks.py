"""A task that forks another: what it takes over, and why it may not.

In: a request that names an ended task of its own tenant, and what the planner said of that task into this inbox. Out:
the results to hand to the planner by reference, with a label that says where they come from; or a refusal.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from bulkhead.runtime.consume import inbound
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import Unreadable
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.output import Delivery
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanStep
from bulkhead_contracts.result import ContentRef, Label, Result, digest_of, merge_labels
from bulkhead_contracts.step import StepInput
from bulkhead_contracts.task import ForkOf, StepEnded, StepStarted, TaskEnded, TaskRequested, list_facts
from bulkhead_contracts.tool import ToolSpec
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.read_model.feeds import INBOX
from bulkhead_services.gateway.read_model.task_view import RequestRefusal

Attempt = tuple[int, str, int]
"""Plan version, step, attempt."""
MAX_ANCESTORS = 32
UNTIL_SEEN = frozenset({"fork_unknown", "fork_not_ended", "fork_no_result", "fork_content_gone"})
"""Refusals that a follower which lags behind the earlier task's end, or behind its contents, gives, too."""
LOOKS = 4
LOOK_AGAIN_S = 0.4


@dataclass(slots=True)
class EarlierTask:
    """An earlier task as this inbox tells of it, in whatever order it was stored: the planner says it side by side."""

    request: TaskRequested | None = None
    sender: str = ""
    """Of the request."""
    ended: bool = False
    plans: dict[int, Plan] = field(default_factory=dict)
    started: set[Attempt] = field(default_factory=set)
    idle: set[Attempt] = field(default_factory=set)
    """Attempts that certainly called no tool."""
    accepted: dict[tuple[int, str], Result] = field(default_factory=dict)

    def apply_body(self, body: Body, sender: str) -> None:
        """One message of the task, in stream order."""
        match body:
            case TaskRequested():
                if self.request is None:
                    self.request, self.sender = body, sender
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

    def drafted_digests(self, agents: Collection[str]) -> frozenset[str]:
        """Digests of the texts that a model wrote, or may have: nobody's own words. Of the last plan's steps; of all
        where an agent asked for the task. agents: senders that are some."""
        request = self.request
        texts = _texts_of_plan(self.plan)
        if request is not None and is_of_model(request, self.sender, agents):
            texts.add(request.objective)
        elif request is not None and request.plan is not None and request.fork is None:
            texts -= _texts_of_plan(request.plan)
        return frozenset(map(digest_of, texts))

    def used_tools(self) -> dict[str, str]:
        """Tools that may have been used, under any plan: tool -> a step that may have used it."""
        may = {(version, step) for version, step, _ in self.started - self.idle}
        steps = (step for version, plan in self.plans.items() for step in plan.steps if (version, step.id) in may)
        return {tool: step.id for step in steps for tool in step.tools}


def _texts_of_plan(plan: Plan | None) -> set[str]:
    """The texts of its steps that labels cover."""
    steps = plan.steps if plan is not None else ()
    return {step.prompt_text for step in steps} | {step.call.text_in(step.id) for step in steps if step.call}


def is_of_model(request: TaskRequested, sender: str, agents: Collection[str]) -> bool:
    """True when a model wrote the request. agents: senders whose every word is a model's."""
    is_of_agent = request.requester is not None and request.requester.agent
    return request.written_by == "model" or is_of_agent or sender in agents


@dataclass(frozen=True, slots=True)
class ForkInheritance:
    """Inheritance of the new task. origin: the first task of the line of forks. used: as
    EarlierTask.used_tools, of the line. drafted: as EarlierTask.drafted_digests. delivery: of the earlier
    task's request.
    """

    origin: str
    given: tuple[StepInput, ...]
    used: dict[str, str]
    drafted: frozenset[str] = frozenset()
    delivery: Delivery | None = None


async def inherit_results(
    context: Context, tenant: str, task: str, request: TaskRequested, agents: Collection[str]
) -> ForkInheritance | RequestRefusal:
    """Results that a fork, which is `task`, takes over. The same request always gets the same: the earlier
    task has ended. agents: as in `is_of_model`. Raises BusError.
    """
    fork = request.fork
    assert fork is not None
    past = await _read_earlier_task(context, tenant, fork.task)
    refusal = _find_refusal(past, fork, request)
    if refusal is not None:
        return refusal
    inputs = []
    for name in fork.steps:
        result = past.results[name]
        if not await _is_there(context, tenant, result.content):
            message = f"the result of {name} in task {fork.task} is gone: it has expired"
            hint = f"contents are kept for a limited time: let {name} run again (fork from it)"
            return RequestRefusal("fork_content_gone", message, hint)
        labelled = relabel_result(
            context,
            tenant,
            (fork.task, task),
            name,
            result,
            same_person=_person_of(past.request) == _person_of(request),
        )
        inputs.append(StepInput(step_id=name, title=f"taken over from task {fork.task}", result=labelled))
    line = await _read_fork_line(context, tenant, fork.task, past, agents)
    if isinstance(line, RequestRefusal):
        return line
    origin, used, agents_words = line
    delivery = past.request.delivery if past.request is not None else None
    return ForkInheritance(origin, tuple(inputs), used, past.drafted_digests(agents) | agents_words, delivery)


def refuse_repeated_writes(
    taken_: ForkInheritance, request: TaskRequested, tools: Sequence[ToolSpec]
) -> RequestRefusal | None:
    """Refuse what would do again what cannot be undone: a write without idempotency that may have been done before."""
    assert request.fork is not None and request.plan is not None
    unsafe = {tool.name for tool in tools if tool.effect == "write" and not tool.idempotent}
    before = {name: step for name, step in taken_.used.items() if name in unsafe}
    for step in request.plan.steps:
        if step.id in request.fork.steps:
            continue
        for name in step.tools:
            if name in before:
                may = f"step {step.id} may use {name}, which writes and honours no idempotency key"
                did = f"step {before[name]} of task {request.fork.task}, or of one that it forked, may have used it"
                hint = f"fork from a later step, or take {name} out of the tools of {step.id}"
                return RequestRefusal("fork_repeats_effect", f"{may}, and {did}", hint)
    return None


def _find_refusal(past: EarlierTask, fork: ForkOf, request: TaskRequested) -> RequestRefusal | None:
    plan = request.plan
    if past.request is None:
        message = f"there is no task {fork.task} in this tenant"
        return RequestRefusal("fork_unknown", message, "GET /v1/tasks lists your tenant's tasks")
    if plan is None:
        hint = "send the earlier task's plan, edited, as `plan`"
        return RequestRefusal("fork_without_plan", "a fork brings the plan that it runs", hint)
    if not past.ended or past.plan is None:
        state = "had no plan" if past.ended else "has not ended"
        message = f"task {fork.task} {state}; what would be taken over is not certain"
        hint = "wait for its end or cancel it; a task without a plan is simply submitted again"
        return RequestRefusal("fork_not_ended", message, hint)
    steps, earlier = {one.id: one for one in plan.steps}, {one.id: one for one in past.plan.steps}
    for name in fork.steps:
        if name not in past.results:
            message = f"step {name} of task {fork.task} has no accepted result"
            return RequestRefusal("fork_no_result", message, "name only steps that were accepted; the others run")
        if name not in steps or not _is_same_step(steps[name], earlier[name]):
            message = f"step {name} is not what it was in task {fork.task}; its result stands for something else"
            return RequestRefusal("fork_changed_step", message, "let a changed step run again")
        if request.check and not past.request.check and steps[name].kind != "noop":
            message = f"the result of {name} was never checked: task {fork.task} ran without checks"
            return RequestRefusal("fork_unchecked", message, "let it run again, or submit the fork without checks, too")
    return None


def _is_same_step(one: PlanStep, other: PlanStep) -> bool:
    return one == other.model_copy(update={"title": one.title})


def _person_of(request: TaskRequested | None) -> str:
    return request.requester.person if request is not None and request.requester is not None else ""


def relabel_result(
    context: Context, tenant: str, line: tuple[str, str], step: str, result: Result, *, same_person: bool
) -> Result:
    """The result as it was, and in its provenance first of all where it comes from. line: the earlier task, and this
    one, for which the labels are signed anew: those of the earlier task would be believed no more."""
    task, fork = line

    def handed_on(seen: Label) -> Label:
        if not context.verifier.verify_label(seen, tenant, task) or (seen.kind == "objective" and not same_person):
            return seen  # Nobody will believe it here either: what one person said is not said by another.
        return context.signer.sign_label(seen.model_copy(update={"signed_by": context.service}), tenant, fork)

    labels = tuple(handed_on(observed) for observed in result.provenance)
    if result.content is not None:
        source, sha256 = f"task {task} step {step}", result.content.sha256
        label = Label(sha256=sha256, kind="step_result", source=source, observed_by=context.service)
        labels = merge_labels((context.signer.sign_label(label, tenant, fork),), labels)
    return result.model_copy(update={"provenance": labels})


async def _is_there(context: Context, tenant: str, ref: ContentRef | None) -> bool:
    """Asked of the stream: what this replica remembers, others may no longer get."""
    if ref is None or ref.carried_text is not None:
        return True
    subject = subjects.blob_subject(ref.author, tenant, ref.sha256)
    return await context.bus.last(subjects.BLOBS_STREAM, subject) is not None


async def _read_earlier_task(context: Context, tenant: str, task: str) -> EarlierTask:
    past, after = EarlierTask(), 0
    while page := await context.bus.read(INBOX, subjects.task_filter("gateway", tenant, task), after=after):
        for stored in page:
            try:
                message = inbound.read_message(stored, "gateway")
            except Unreadable:
                continue
            for fact in list_facts(message.body):
                past.apply_body(fact, message.sender)
        after = page[-1].sequence
    return past


async def _read_fork_line(
    context: Context, tenant: str, task: str, past: EarlierTask, agents: Collection[str]
) -> tuple[str, dict[str, str], frozenset[str]] | RequestRefusal:
    """The first task of the line, the tools that may have been used in any of its tasks, and digests of the objectives
    that agents wrote: no fork makes them a person's words."""
    used: dict[str, str] = {}
    agents_words: set[str] = set()
    for _ in range(MAX_ANCESTORS):
        if past.request is None:
            message = f"task {task}, from which the forked one took over, was purged"
            message += ": what it did outside cannot be told any more"
            return RequestRefusal("fork_ancestor_gone", message, "submit a new task")
        used |= past.used_tools()
        if is_of_model(past.request, past.sender, agents):
            agents_words.add(digest_of(past.request.objective))
        if past.request.fork is None:
            return task, used, frozenset(agents_words)
        task = past.request.fork.task
        past = await _read_earlier_task(context, tenant, task)
    return RequestRefusal("fork_too_deep", f"a fork of a fork, over {MAX_ANCESTORS} times", "submit a new task")


def too_large(size_bytes: int, plan: Plan | None) -> RequestRefusal | None:
    """Refuse what no message can carry."""
    if size_bytes <= bounds.MAX_MESSAGE_BYTES:
        return None
    message = f"plan and results take {size_bytes} bytes; {bounds.MAX_MESSAGE_BYTES} fit"
    if plan is not None and plan.steps:
        sizes = {step.id: len(step.model_dump_json()) for step in plan.steps}
        longest = max(sizes, key=sizes.__getitem__)
        message += f"; step {longest} is the longest of {len(sizes)}, with {sizes[longest]}"
    return RequestRefusal("fork_too_large", message, "take over fewer steps, shorten their texts, or map alike ones")
