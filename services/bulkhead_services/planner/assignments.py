"""Steps of a running plan are handed out: which, with what, until when. A leaf, pure.

In: a plan that passed its check, or the state after a step's result. Out: `StepAssigned` with its grant for whoever
carries the step out, `RetrievalForeseen` for steps that probably follow, progress for the gateway, the steps' timer;
the task's end when every step is done.
"""

from collections.abc import Collection, Mapping, Sequence

from bulkhead.flow import InboxMessage, Output, Send, SetTimer, Transition, bounded, replace, shown_tools, standing
from bulkhead.flow.step_calls import list_references, readable_references
from bulkhead.plans import plans
from bulkhead.plans.plan_types import branch_targets, due_of_wait, field_of_items, references_of
from bulkhead_contracts import bounds, envelope
from bulkhead_contracts.grant import StepGrant
from bulkhead_contracts.output import DRAFT
from bulkhead_contracts.outside_event import EventAwaited, event_channel
from bulkhead_contracts.plan import JUDGE_ROLE, Approval, AwaitedEvent, PlanAdopted, PlanNote, PlanStep
from bulkhead_contracts.provenance import Flow, PlannedCall
from bulkhead_contracts.result import Failure, Result, Usage, digest_of
from bulkhead_contracts.retrieval import AHEAD_CALL_ID_PREFIX, RetrievalForeseen, RetrievalRequested
from bulkhead_contracts.step import StepAssigned, StepInput
from bulkhead_contracts.task import StepStarted
from bulkhead_services.planner import maps
from bulkhead_services.planner.ending import end_task, step_ended
from bulkhead_services.planner.state import PlannerState, may_change_outside
from bulkhead_services.planner.step_table import StepState, StepTable

STEP_TIMER = "steps"
GRANT_SLACK_MS = 60_000
MAX_GATES = 3
"""Gates and branches between a step that runs and one whose query is embedded ahead: they take no time."""
DECIDED_AT_ONCE = frozenset({"validate", "branch"})
ANSWER_MARGIN_MS = 500
"""A step's deadline lies so long before the task's, so that the task can still say what happened."""


def adopt_plan(
    state: PlannerState,
    message: InboxMessage,
    steps: tuple[PlanStep, ...],
    notes: tuple[PlanNote, ...],
    approval: Approval = "not_required",
) -> Transition[PlannerState]:
    """Run these steps; those whose results are held are done from the start."""
    steps, left_out = _limit_shown_tools(state, steps)
    plan = plans.compose_plan(steps, (*notes, *left_out)[: bounds.MAX_PLAN_NOTES], state.generation)
    plan = plan.model_copy(update={"approval": approval})
    if (size_bytes := len(PlanAdopted(plan=plan).encode())) > bounds.MAX_MESSAGE_BYTES and plan.notes:
        plan = plan.model_copy(update={"notes": ()})
        size_bytes = len(PlanAdopted(plan=plan).encode())
    if size_bytes > bounds.MAX_MESSAGE_BYTES:
        reason = f"the plan and its last step, {plan.steps[-1].id}, take {size_bytes} bytes"
        hint = f"{bounds.MAX_MESSAGE_BYTES} fit: shorten its texts, or make a map of steps that are alike"
        return end_task(state, message, "failed", Failure.from_text("plan_too_large", reason, hint))
    state = replace(
        state,
        phase="running",
        plan=plan,
        first_steps=state.first_steps or plan.steps,
        steps=StepTable.from_steps(_take_over_results(plan.steps, state.held_steps)),
        flowing_steps=tuple(step for step in plan.steps if step.flows),
        # What nobody is asked about is for the submission to say, and not for who edits a draft.
        referred_flows=_referred_flows(plan.steps) if state.submitted_plan is not None else {},
        final_step_id=next(iter(plans.find_sinks(plan.steps)), ""),
    )
    taken_over = (
        step_ended(state, step, "accepted", step.notes, step.result, Usage()) for step in state.steps if step.result
    )
    return assign_ready_steps(state, message).preceded_by(Send("gateway", PlanAdopted(plan=plan)), *taken_over)


def _limit_shown_tools(
    state: PlannerState, steps: tuple[PlanStep, ...]
) -> tuple[tuple[PlanStep, ...], tuple[PlanNote, ...]]:
    """The steps with the tools that they are shown, and notes on what was left out."""
    shown_steps, notes = [], []
    about = state.objective.summary if state.objective is not None else ""
    for step in steps:
        if step.adopted or state.delegation(step) is not None:
            shown_steps.append(step)  # Its agent is shown tools by doors, and not by a prompt of the mesh.
            continue
        names, left_out = shown_tools.choose_tools(step.tools, state.tools, f"{step.title} {step.instruction} {about}")
        if left_out:
            text = f"step {step.id} has more tools than it can be shown; left out: {', '.join(left_out)}"
            notes.append(plans.warning_note("tools_left_out", text, step.id))
            step = step.model_copy(update={"tools": names})
        shown_steps.append(step)
    return tuple(shown_steps), tuple(notes)


def _take_over_results(steps: Sequence[PlanStep], held: Sequence[StepState]) -> tuple[StepState, ...]:
    """The steps to run: done are those that are held and the same, on inputs that are done in the same way."""
    by_id = {held_step.plan_step.id: held_step for held_step in held}
    taken_over: dict[str, StepState] = {}
    before = -1
    while by_id and before != (before := len(taken_over)):
        for step in steps:
            held_step = by_id.get(step.id)
            if (
                held_step is not None
                and _is_same_step(held_step.plan_step, step)
                and all(name in taken_over for name in step.inputs)
            ):
                taken_over[step.id] = replace(held_step, plan_step=step)
    return tuple(taken_over.get(step.id) or StepState(step) for step in steps)


def _is_same_step(earlier: PlanStep, step: PlanStep) -> bool:
    """The title is for people; what a step foresees bounds calls that are yet to be made."""
    return earlier == step.model_copy(update={"title": earlier.title, "flows": earlier.flows, "calls": earlier.calls})


def assign_ready_steps(state: PlannerState, message: InboxMessage) -> Transition[PlannerState]:
    """Hand out every step whose inputs are over; end the task when none is left."""
    if state.steps.over == len(state.steps):
        return end_task(state, message, "succeeded", None)
    outputs: list[Output] = []
    running: list[StepState] = []
    for step in state.steps.in_order(state.steps.ready):
        until = _begin_until(state, message, step)
        running.append(replace(step, status="running", attempt=step.attempt + 1, deadline_unix_ms=until))
        begin = _assign_step if step.plan_step.wait is None else _begin_wait
        assigned = begin(state, message, running[-1])
        if assigned.state.phase == "ended":
            return assigned  # Nothing that was to begin beside it is handed out.
        state = assigned.state
        outputs += assigned.outputs
    if not running:
        return Transition(state)
    state = replace(state, steps=state.steps.with_steps(*running))
    return _ask_ahead(state, message, running).preceded_by(*outputs)


def _ask_ahead(state: PlannerState, message: InboxMessage, begun: Sequence[StepState]) -> Transition[PlannerState]:
    """Have the queries of steps that follow these embedded, each under a grant of its step in which nothing can be
    searched: attempt 0 is none."""
    assert state.plan is not None
    sends: list[Output] = []
    room = state.retrievals_ahead - len(state.foreseen_steps)
    searches = _find_searches(state, [step.plan_step.id for step in begun], room)
    for step, query in searches:
        step_id, until = step.plan_step.id, step_deadline(state, message, step)
        call_id = envelope.derive_id("planner", f"{state.plan.version}/{step_id}", "ahead")
        request = RetrievalRequested(
            call_id=f"{AHEAD_CALL_ID_PREFIX}{call_id}",
            step_id=step_id,
            attempt=0,
            query=query,
            deadline_unix_ms=until,
            asked_ahead=True,
        )
        grant = make_step_grant(state, message, step, until).model_copy(update={"attempt": 0, "flows": (), "calls": ()})
        body = RetrievalForeseen(request=request)
        sends.append(Send("worker", body, grant=state.grant, step_grant=grant))
    foreseen_steps = state.foreseen_steps.union(step.plan_step.id for step, _ in searches)
    return Transition(replace(state, foreseen_steps=foreseen_steps), tuple(sends))


def _find_searches(state: PlannerState, begun: Sequence[str], room: int) -> tuple[tuple[StepState, str], ...]:
    """The first `room` steps next to these that will search whatever comes before them, with their queries; none twice.
    None lies beyond a person's word or a wait: what waits for consent, or for its time, is not to be begun."""
    searches: list[tuple[StepState, str]] = []
    visited, layer = set(state.foreseen_steps), begun
    passed: set[str] = set()
    for _ in range(MAX_GATES + 1 if room > 0 else 0):
        between: list[str] = []
        for step_id in dict.fromkeys(name for begun_id in layer for name in state.steps.dependents.get(begun_id, ())):
            step = state.steps.by_id[step_id]
            if step_id in visited or step.status != "waiting" or not _comes_next(state, step.plan_step, passed):
                continue
            visited.add(step_id)
            if step.plan_step.action in DECIDED_AT_ONCE:
                between.append(step_id)
            elif query := _literal_query(state, step.plan_step):
                searches.append((step, query))
                if len(searches) == room:
                    return tuple(searches)
        layer = between
        passed.update(between)
    return tuple(searches)


def _comes_next(state: PlannerState, plan_step: PlanStep, passed: Collection[str]) -> bool:
    """True when each of its inputs is over, runs, or is one of the gates and branches that were passed."""
    return all(
        step.is_over or (_asks_nobody(step.plan_step) and (step.status == "running" or name in passed))
        for name in plan_step.inputs
        if (step := state.steps.by_id[name])
    )


def _asks_nobody(plan_step: PlanStep) -> bool:
    """True of a step that waits for no person's word, and for no time."""
    asks_person = plan_step.gate is not None and plan_step.gate.on_fail == "person"
    return not asks_person and plan_step.action not in ("approval", "wait")


def _literal_query(state: PlannerState, plan_step: PlanStep) -> str:
    """The query of a step that searches documents, without anything of earlier results; "" of any other."""
    call, tools = plan_step.call, state.tools_of(plan_step)
    if call is None or plan_step.over is not None or not any(tool.served_by == "rag" for tool in tools):
        return ""
    try:
        query = {} if list_references(call) else bounded.load_json(call.arguments_json)
    except ValueError:
        return ""  # The worker says what is wrong with it.
    text = query.get("query") if isinstance(query, dict) else None
    return text if isinstance(text, str) and len(text) <= bounds.MAX_QUERY_CHARS else ""


def _begin_until(state: PlannerState, message: InboxMessage, step: StepState) -> int:
    """Deadline of a step that begins now."""
    if step.plan_step.wait is None:
        return step_deadline(state, message, step)
    return max(message.time_unix_ms, due_of_wait(step.plan_step, message.time_unix_ms))


def skip_steps(state: PlannerState, unchosen: Collection[str]) -> tuple[PlannerState, tuple[str, ...]]:
    """Skip these steps of a branch's other cases; and of the steps after them each whose inputs are all skipped, or
    that itself reads the result of a skipped one, and all that a skipped branch could begin: nobody else begins it.
    Also their ids, in the plan's order."""
    by_id, reads = state.steps.by_id, dict[str, frozenset[str]]()
    skipped = {step_id for step_id, step in by_id.items() if step.status == "skipped"}
    fresh: list[str] = []
    pending = list(unchosen)
    while pending:
        step_id = pending.pop()
        if step_id in skipped or step_id not in by_id:
            continue
        skipped.add(step_id)
        fresh.append(step_id)
        pending += branch_targets(by_id[step_id].plan_step)
        for name in state.steps.dependents.get(step_id, ()):
            plan_step = by_id[name].plan_step
            if name not in reads:
                reads[name] = frozenset(reference.step_id for reference in references_of(plan_step))
            if step_id in reads[name] or (plan_step.inputs and skipped.issuperset(plan_step.inputs)):
                pending.append(name)
    steps = [step for step in state.steps.in_order(fresh) if step.status == "waiting"]
    state = replace(state, steps=state.steps.with_steps(*(replace(step, status="skipped") for step in steps)))
    return state, tuple(step.plan_step.id for step in steps)


def _begin_wait(state: PlannerState, message: InboxMessage, step: StepState) -> Transition[PlannerState]:
    """A wait runs without anybody working on it: the steps' timer ends it, at once where its time is past."""
    assert state.plan is not None
    started = StepStarted(
        step_id=step.plan_step.id,
        title=step.plan_step.title,
        attempt=step.attempt,
        plan_version=state.plan.version,
        until_unix_ms=step.deadline_unix_ms,
    )
    sends = [Send("gateway", started)]
    wait = step.plan_step.wait
    if wait is not None and (event := wait.event) is not None:
        after = max(state.event_places.get(event_channel(event.name, event.key), (0,)))
        sends.append(await_event(state, message, step, event, max(0, message.time_unix_ms - event.early_ms), after))
    return _set_step_timer(state, step.deadline_unix_ms).preceded_by(*sends)


def await_event(
    state: PlannerState, message: InboxMessage, step: StepState, event: AwaitedEvent, since_unix_ms: int, after: int
) -> Send:
    """The word that a step waits for an event, no earlier than since_unix_ms, and behind the place `after`."""
    assert state.plan is not None
    awaited = EventAwaited(
        task=message.task,
        step_id=step.plan_step.id,
        attempt=step.attempt,
        plan_version=state.plan.version,
        name=event.name,
        key=event.key,
        sources=event.sources,
        since_unix_ms=since_unix_ms,
        until_unix_ms=step.deadline_unix_ms,
        after=after,
    )
    return Send("planner", awaited, task=event_channel(event.name, event.key))


def _assign_step(state: PlannerState, message: InboxMessage, step: StepState) -> Transition[PlannerState]:
    """Hand out a step that is to run; the state but for the step itself. The task's end where no message can hold it
    with its inputs."""
    assert state.plan is not None and state.objective is not None
    plan_step = step.plan_step
    feeding = {flow.from_tool for flow in _granted_flows(state, step) if flow.step_id == plan_step.id}
    tools = tuple(
        tool.model_copy(update={"feeds": True}) if tool.name in feeding else tool for tool in state.tools_of_step(step)
    )
    # Of the requester's own words this step shows the objective, and its text and call where he submitted the plan.
    own_texts = [plan_step.prompt_text] if state.submitted_plan else []
    if own_texts and plan_step.call is not None:
        own_texts.append(plan_step.call.text_in(step.map_id or plan_step.id))
    if step.gathering is not None:
        inputs = maps.inputs_to_gather(state, step)
    else:
        inputs = done_inputs(state, plan_step) if step.item is None else inputs_of_item(state, plan_step, step.item.of)
    shown_sha256 = dict.fromkeys((state.objective.sha256, *map(digest_of, own_texts)))
    assigned = StepAssigned(
        # A worker that knows no items would run an agent's step on the whole list; a noop it ends at once.
        step=plan_step if step.item is None else plan_step.model_copy(update={"kind": "noop"}),
        attempt=step.attempt,
        plan_version=state.plan.version,
        objective=state.objective,
        inputs=inputs,
        tools=tools,
        notes=step.notes[-16:],
        check=state.check and plan_step.role != JUDGE_ROLE,
        final=plan_step.id == state.final_step_id,
        output=state.output if state.output != DRAFT else None,
        deadline_unix_ms=step.deadline_unix_ms,
        route=state.route,
        labels=tuple(state.labels[sha256] for sha256 in shown_sha256 if sha256 in state.labels),
        delegated=state.delegation(plan_step),
        item=step.item,
        gathering=step.gathering,
    )
    if (size_bytes := len(assigned.encode())) > bounds.MAX_MESSAGE_BYTES:
        reason = f"step {plan_step.id} takes {size_bytes} bytes with what its {len(inputs)} inputs rest on"
        hint = f"{bounds.MAX_MESSAGE_BYTES} fit: let it build on fewer steps, or on one that puts some of them together"
        return end_task(state, message, "failed", Failure.from_text("step_too_large", reason, hint))
    started = StepStarted(
        step_id=plan_step.id, title=plan_step.title, attempt=step.attempt, plan_version=state.plan.version
    )
    grant = make_step_grant(state, message, step, step.deadline_unix_ms)
    state = replace(state, wrote=state.wrote or may_change_outside(tools))
    handed: list[Output] = [Send(step.assignee, assigned, grant=state.grant, step_grant=grant)]
    if step.gathering is None:  # Such a part of a map is no step of the plan, and the map itself has begun.
        handed.append(Send("gateway", started))
    if step.plan_step.adopted:
        return Transition(state, tuple(handed))
    return _set_step_timer(state, step.deadline_unix_ms).preceded_by(*handed)


def done_inputs(state: PlannerState, plan_step: PlanStep) -> tuple[StepInput, ...]:
    """The results that a step builds on; a skipped one has none."""
    steps = (step for name in plan_step.inputs if (step := state.step(name)) is not None)
    return tuple(
        StepInput(step_id=step.plan_step.id, title=step.plan_step.title, result=step.result)
        for step in steps
        if step.result is not None
    )


def handed_on_result(state: PlannerState, step: StepState) -> Result:
    """The result of a step that makes none: the one that it looks at, or a wait's only one; else its words."""
    plan_step, inputs = step.plan_step, done_inputs(state, step.plan_step)
    looked_at = plan_step.gate or plan_step.branch
    passed = [row.result for row in inputs if looked_at is None or row.step_id == looked_at.of]
    results = tuple(row.result for row in inputs)
    words = plan_step.instruction or plan_step.title
    return standing.merge_results(results, passed[0] if len(passed) == 1 else None, words)


def inputs_of_item(state: PlannerState, plan_step: PlanStep, list_id: str) -> tuple[StepInput, ...]:
    """The results that an item of a map is handed; of a call the list, and those that it refers to. list_id: step whose
    result has the list."""
    inputs = done_inputs(state, plan_step)
    if plan_step.call is None:
        return inputs
    referred = {list_id, *(reference.step_id for reference in readable_references(plan_step.call))}
    return tuple(row for row in inputs if row.step_id in referred)


def step_deadline(state: PlannerState, message: InboxMessage, step: StepState) -> int:
    """Until when a step may run that begins, or goes on, now: longer where its tools need longer than most. An adopted
    one lasts as long as its task."""
    if step.plan_step.adopted:
        return state.deadline_unix_ms
    now_unix_ms, last = message.time_unix_ms, state.deadline_unix_ms - ANSWER_MARGIN_MS
    if (delegated := state.delegation(step.plan_step)) is not None:
        return max(now_unix_ms + 1, min(last, now_unix_ms + delegated.deadline_ms))
    tools = state.tools_of(step.plan_step)
    longer_ms = sum(max(0, tool.timeout_ms - bounds.DEFAULT_TOOL_TIMEOUT_MS) for tool in tools)
    return max(now_unix_ms + 1, min(last, now_unix_ms + bounds.DEFAULT_STEP_TIMEOUT_MS + longer_ms))


def make_step_grant(state: PlannerState, message: InboxMessage, step: StepState, until_unix_ms: int) -> StepGrant:
    """Grant of what this attempt may do. It names the agent's role, so that a halt of that agent reaches its calls."""
    assert state.plan is not None
    calls, question = _granted_calls(state, step), step.plan_step.question
    return StepGrant(
        tenant=message.tenant,
        task=message.task,
        step_id=step.plan_step.id,
        attempt=step.attempt,
        plan_version=state.plan.version,
        tools=tuple(tool.name for tool in state.tools_of_step(step)),
        expires_unix_ms=until_unix_ms + GRANT_SLACK_MS,
        role=step.plan_step.role,
        flows=_granted_flows(state, step),
        calls=plans.without_figures(calls) if state.is_objective_of_model else calls,
        question_sha256=question.signed_sha256 if question is not None else "",
    )


def _granted_flows(state: PlannerState, step_state: StepState) -> tuple[Flow, ...]:
    """Flows that the plan lets pass: none of a plan for a model's objective."""
    step = step_state.plan_step
    if state.is_objective_of_model:
        return ()
    flows = list(plans.flows_of(step, state.flowing_steps))
    room = bounds.MAX_GRANT_FLOWS_BYTES - sum(len(row.model_dump_json()) for row in (*flows, *step.calls))
    for flow in state.referred_flows.get(step_state.map_id or step.id, ()):
        if (room := room - len(flow.model_dump_json())) < 0 or len(flows) == bounds.MAX_FLOWS:
            break  # A person is asked about the others.
        flows.append(flow)
    return tuple(flows)


def _referred_flows(steps: Sequence[PlanStep]) -> Mapping[str, tuple[Flow, ...]]:
    """The references of steps' calls to fields of other calls' results, by either step: who wrote the plan has said
    where they go. The item of a map is such a field, too."""
    called = {plan_step.id: plan_step.call.tool for plan_step in steps if plan_step.call is not None}
    flows: dict[str, list[Flow]] = {}
    for caller in steps:
        for reference in readable_references(caller.call) if caller.call is not None else ():
            source_id, field = reference.step_id, reference.field
            if not source_id and caller.over is not None:
                source_id, field = caller.over.of, field_of_items(caller.over, reference)
            if source_id in called and 0 < len(field) <= bounds.MAX_POINTER_CHARS:
                flow = Flow(
                    tool=called[caller.id],
                    argument=reference.argument,
                    step_id=source_id,
                    from_tool=called[source_id],
                    field=field,
                )
                for step_id in (caller.id, source_id):
                    flows.setdefault(step_id, []).append(flow)
    return {step_id: tuple(rows) for step_id, rows in flows.items()}


def _granted_calls(state: PlannerState, step: StepState) -> tuple[PlannedCall, ...]:
    """Calls that bound the step: those of the first plan also where another plan has taken its place. That one may
    be made of what steps brought, which must not choose its own bound."""
    map_step = state.step(step.map_id) if step.map_id else None
    if state.generation == 1 or (map_step or step).plan_step in state.first_steps:
        return step.plan_step.calls
    calls = tuple(call for original in state.first_steps for call in original.calls)
    return plans.fit_calls(calls) or step.plan_step.calls


def arm_step_timer(state: PlannerState) -> Transition[PlannerState]:
    """One timer stands for all running steps: set for the earliest deadline, and again when it has fired. An adopted
    step has none: it ends with its task."""
    timed = (step for step in map(state.steps.by_id.__getitem__, state.steps.running) if not step.plan_step.adopted)
    due = min((step.deadline_unix_ms for step in timed), default=0)
    return _set_step_timer(state, due) if due else Transition(state)


def _set_step_timer(state: PlannerState, due: int) -> Transition[PlannerState]:
    """Let the steps' timer fire by then; one that stands for earlier does."""
    if 0 < state.step_timer_unix_ms <= due:
        return Transition(state)
    return Transition(replace(state, step_timer_unix_ms=due), (SetTimer(f"{STEP_TIMER}-{due}", due),))
