"""`bulkhead replay TASK --from-step N --edit FILE`: an ended task again from one step on, as a new task.

In: the task's record (read under the operator's key) and an edit. Out: a submission through the gateway like any other:
its plan is the old one, edited; the results of the steps that come before stand in it by reference.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from bulkhead.bus.port import Stored
from bulkhead.journal.history import each_fact, entries, one_task
from bulkhead.validation_errors import misfits
from bulkhead_cli import target
from bulkhead_cli.options import Either
from bulkhead_cli.output import Exit, Stop, err, out, print_json
from bulkhead_cli.target import operator_bus
from bulkhead_cli.tasks import follow
from bulkhead_cli.tasks.tasks import rejected_at_once
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanStep
from bulkhead_contracts.task import StepEnded, TaskEnded, TaskLimits, TaskRequested, TaskSubmitted
from bulkhead_contracts.task.v1 import Objective
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested, ToolSpec
from bulkhead_contracts.types import Contract

MAX_EDIT_BYTES = 256 * 1024
SHOWN_ARGUMENTS_CHARS = 200
OF_THE_STEP = ("title", "instruction", "acceptance", "tools", "inputs", "role")


class Ceilings(TaskLimits, extra="forbid"):
    """The limits of the task that change."""


class Edit(Contract, extra="forbid"):
    """Changes in the new task; fields that are left out stay. The step's fields are those of a plan."""

    objective: Objective | None = None
    limits: Ceilings = Ceilings()
    title: str | None = None
    instruction: str | None = Field(default=None, min_length=1)
    acceptance: str | None = None
    tools: tuple[str, ...] | None = None
    inputs: tuple[str, ...] | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """A call that changed something outside, or may have, in a step that will run again."""

    step: str
    tool: str
    arguments: str
    outcome: str
    safe: bool
    """The tool honours idempotency keys: unchanged, it is sent under its old key and not done again."""


@dataclass(slots=True)
class Past:
    """The recorded task with its last plan."""

    tenant: str
    request: TaskRequested | None = None
    tools: tuple[ToolSpec, ...] = ()
    plan: Plan | None = None
    accepted: set[str] = field(default_factory=set)
    ended: bool = False
    calls: dict[str, tuple[ToolCallRequested, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fork:
    """A submission, and what is to be said about it."""

    body: dict[str, Any]
    """Arguments of Mesh.submit."""
    taken: tuple[str, ...]
    again: tuple[str, ...]
    writes: tuple[Write, ...]
    ends: tuple[str, ...]
    """Steps that nothing else needs: where there are several, the planner adds one that composes the answer."""


def read_past(journal: Sequence[Stored]) -> Past:
    """A task's record as far as a fork needs it."""
    past = Past(journal[0].tenant)
    for entry in each_fact(entries(journal)):
        match entry.body:
            case TaskRequested() as body if entry.receiver == "gateway":
                past.request = past.request or body
            case TaskSubmitted() as body if entry.sender == "gateway":
                past.tools = body.tools
            case PlanAdopted() as body if entry.sender == "planner":
                past.plan, past.accepted = body.plan, set()
            case StepEnded() as body if entry.sender == "planner" and body.outcome == "accepted":
                past.accepted.add(body.step_id)
            case TaskEnded() if entry.sender == "planner":
                past.ended = True
            case ToolCallRequested() as body if entry.sender == "worker":
                past.calls[body.call_id] = (body, "unknown")
            case ToolCallReplied() as body if body.call_id in past.calls and entry.sender == "tool_executor":
                past.calls[body.call_id] = (past.calls[body.call_id][0], body.outcome)
            case _:
                pass
    return past


def plan_fork(task: str, past: Past, from_step: str, edit: Edit) -> Fork:
    """The submission that runs `from_step` and what depends on it again. Raises Stop, with what to do."""
    request = past.request
    if request is None or past.plan is None or not past.ended:
        what = "has not ended yet" if past.plan is not None and not past.ended else "never had a plan that ran"
        raise Stop(
            Exit.REFUSED, f"task {task} {what}", "wait for its end or cancel it; without a plan, submit it again"
        )
    steps = _edited(past.plan.steps, _named(past.plan.steps, from_step), edit)
    again = _again(steps, {_named(past.plan.steps, from_step)} | ({one.id for one in steps} - past.accepted))
    taken = tuple(one.id for one in steps if one.id not in again)
    ceilings = request.limits.model_copy(update=edit.limits.model_dump(exclude_unset=True))
    body = {
        "objective": edit.objective or request.objective,
        "limit_usd": ceilings.cost_usd_micros / 1_000_000,
        "limit_tokens": ceilings.tokens,
        "deadline_s": ceilings.deadline_ms / 1000,
        "tools": request.tools,
        "check": request.check,
        "feature": request.feature,
        "workflow": request.workflow,
        "route": request.route,
        "delivery": request.delivery or "",
        "replan": request.replan,
        "constraints": request.constraints,
        "plan": {"steps": [one.model_dump(mode="json") for one in steps]},
        "fork": {"task": task, "steps": list(taken)},
    }
    needed = {name for one in steps for name in one.inputs}
    return Fork(
        body,
        taken,
        tuple(one.id for one in steps if one.id in again),
        _writes(past, steps, again),
        tuple(one.id for one in steps if one.id not in needed),
    )


def _named(steps: Sequence[PlanStep], name: str) -> str:
    """A step by its id, or by its place in the plan, from 1."""
    if any(one.id == name for one in steps):
        return name
    if name.isascii() and name.isdigit() and 1 <= int(name[:6]) <= len(steps):
        return steps[int(name) - 1].id
    listed = ", ".join(f"{number} {one.id}" for number, one in enumerate(steps, 1))
    raise Stop(Exit.USAGE, f"the plan has no step {name[:64]!r}", f"its steps are: {listed}")


def _edited(steps: Sequence[PlanStep], name: str, edit: Edit) -> tuple[PlanStep, ...]:
    changes = {key: value for key in OF_THE_STEP if (value := getattr(edit, key)) is not None}
    try:
        found = tuple(PlanStep.model_validate(one.model_dump() | changes) if one.id == name else one for one in steps)
    except ValidationError as error:
        raise _bad_edit(error, PlanStep) from error
    unknown = sorted(set(edit.inputs or ()) - {one.id for one in steps})
    after = sorted(set(edit.inputs or ()) & _again(steps, {name}))
    if unknown or after:
        why = f"{', '.join(unknown)}: no such step" if unknown else f"{', '.join(after)} itself waits for {name}"
        raise Stop(Exit.USAGE, f"the edit's inputs do not fit: {why}", "name steps that come before it")
    return found


def _again(steps: Sequence[PlanStep], first: set[str]) -> set[str]:
    """These steps and all that depend on them."""
    found, before = set(first), -1
    while before != (before := len(found)):
        found |= {one.id for one in steps if found & set(one.inputs)}
    return found


def _writes(past: Past, steps: Sequence[PlanStep], again: set[str]) -> tuple[Write, ...]:
    """Calls of tools that write, in steps that run again and may still use the tool."""
    specs = {one.name: one for one in past.tools}
    allowed = {(one.id, tool) for one in steps if one.id in again for tool in one.tools}
    found = []
    for call, outcome in past.calls.values():
        spec = specs.get(call.tool)
        if spec is None or spec.effect != "write" or outcome == "refused":
            continue
        if (call.step_id, call.tool) in allowed:
            found.append(
                Write(call.step_id, call.tool, call.arguments_json[:SHOWN_ARGUMENTS_CHARS], outcome, spec.idempotent)
            )
    return tuple(found)


def read_edit(path: str) -> Edit:
    """The edit: a JSON object in a file, `-` for standard input. Raises Stop."""
    try:
        raw = sys.stdin.buffer.read(MAX_EDIT_BYTES + 1) if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise Stop(Exit.USAGE, f"{path} cannot be read: {error.strerror}", "--edit names a JSON file, or -") from error
    if len(raw) > MAX_EDIT_BYTES:
        raise Stop(Exit.USAGE, f"the edit exceeds {MAX_EDIT_BYTES} bytes", "it holds only what is to be different")
    try:
        return Edit.model_validate_json(raw)
    except ValidationError as error:
        raise _bad_edit(error) from error


def _bad_edit(error: ValidationError, model: type[BaseModel] = Edit) -> Stop:
    first = misfits(error, model)[0]
    what = f"the edit does not fit: {first}" if first.where else f"the edit is no JSON object: it {first}"
    return Stop(Exit.USAGE, what, f"it may hold {', '.join(Edit.model_fields)}")


# The command


async def fork_task(
    at: Either,
    task: str,
    from_step: str,
    edit: Edit,
    *,
    tenant: str = "",
    watch: bool = False,
    dry_run: bool = False,
    complete: bool = False,
) -> Exit:
    """Fork, say what that means, and with `watch` follow. Raises Stop, MeshError, BusError.

    The new task is that of whoever's key this is; the gateway lets a person fork tasks of the own tenant only.
    """
    async with operator_bus(at.data) as bus:
        journal = await one_task(bus, task, tenant, reservations=False)
    past = read_past(journal)
    fork = plan_fork(task, past, from_step, edit)
    if not at.as_json:
        _tell(fork, edit)
    refuse_repeats(fork)
    told = {
        "taken_over": fork.taken,
        "runs_again": fork.again,
        "ends_in": fork.ends,
        "writes": [_write(one) for one in fork.writes],
    }
    if dry_run:
        if at.as_json:
            print_json({"forks": task, **told, "submission": fork.body})
        return Exit.OK
    gateway = target.find(at.data, at.url, at.api_key, past.tenant, may_make_key=True)
    async with gateway.mesh() as mesh:
        new = await mesh.submit(**fork.body)
        if at.as_json:
            print_json({"event": "submitted", "task_id": new.id, "forks": task, **told})
        else:
            out.print(new.id, markup=False)
        if watch:
            return await follow.watch(new, out, as_json=at.as_json, complete=complete)
        rejection = await rejected_at_once(new)
    if rejection is not None:
        raise Stop(
            Exit.REFUSED,
            f"the task was rejected: {rejection['message']}",
            str(rejection.get("hint") or ""),
            name=str(rejection["code"]),
        )
    if not at.as_json:
        err.print(f"follow it: bulkhead watch {new.id}", style="dim", markup=False)
    return Exit.OK


def refuse_repeats(fork: Fork) -> None:
    """Raises Stop for a fork that would do again what nobody can tell apart from the first time."""
    if unsafe := sorted({f"{one.tool} in step {one.step}" for one in fork.writes if not one.safe}):
        raise Stop(
            Exit.REFUSED,
            f"the fork would repeat calls without an idempotency key: {', '.join(unsafe)}",
            "check whether it happened; then fork from a later step, or take the tool out of the step "
            '("tools" in the edit)',
            name="fork_repeats_effect",
        )


def _tell(fork: Fork, edit: Edit) -> None:
    err.print(f"reused: {', '.join(fork.taken) or 'nothing'}; runs again: {', '.join(fork.again)}", markup=False)
    if len(fork.ends) > 1:
        err.print(
            f"it ends in {', '.join(fork.ends)}: one more step is added, which composes the answer from theirs",
            markup=False,
        )
    if edit.objective is not None and fork.taken:
        err.print("the objective has changed: reused results were made for the old one", style="yellow")
    for one in fork.writes:
        how = (
            "if unchanged, it is sent under its old key and not repeated; if changed, it is done, unless another fork "
            "has done the same"
            if one.safe
            else "the tool supports no idempotency key: the call would be repeated"
        )
        err.print(
            f"side effect: {one.step} called {one.tool} {one.arguments} ({one.outcome}); {how}",
            style="yellow",
            markup=False,
        )


def _write(one: Write) -> dict[str, Any]:
    return {
        "step_id": one.step,
        "tool": one.tool,
        "arguments": one.arguments,
        "outcome": one.outcome,
        "idempotent": one.safe,
    }
