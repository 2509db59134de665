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

from bulkhead.bus.port import StoredMessage
from bulkhead.journal.history import build_entries, each_fact, read_one_task
from bulkhead.plans.plan_types import must_run_again
from bulkhead.text.validation_errors import find_misfits
from bulkhead_cli import target
from bulkhead_cli.options import BrokerOrGatewayOptions
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import err, out
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


class ForkLimits(TaskLimits, extra="forbid"):
    """The limits of the task that change."""


class ForkEdit(Contract, extra="forbid"):
    """Changes in the new task; fields that are left out stay. The step's fields are those of a plan."""

    objective: Objective | None = None
    limits: ForkLimits = ForkLimits()
    title: str | None = None
    instruction: str | None = Field(default=None, min_length=1)
    acceptance: str | None = None
    tools: tuple[str, ...] | None = None
    inputs: tuple[str, ...] | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True)
class RepeatedWrite:
    """A call that changed something outside, or may have, in a step that will run again."""

    step: str
    tool: str
    arguments: str
    outcome: str
    safe: bool
    """The tool honours idempotency keys: unchanged, it is sent under its old key and not done again."""


@dataclass(slots=True)
class RecordedTask:
    """The recorded task with its last plan."""

    tenant: str
    request: TaskRequested | None = None
    tools: tuple[ToolSpec, ...] = ()
    plan: Plan | None = None
    accepted: set[str] = field(default_factory=set)
    ended: bool = False
    calls: dict[str, tuple[ToolCallRequested, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ForkSubmission:
    """A submission, and what is to be said about it."""

    body: dict[str, Any]
    """Arguments of Mesh.submit."""
    taken: tuple[str, ...]
    again: tuple[str, ...]
    writes: tuple[RepeatedWrite, ...]
    ends: tuple[str, ...]
    """Steps that nothing else needs: where there are several, the planner adds one that composes the answer."""


def read_recorded_task(journal: Sequence[StoredMessage]) -> RecordedTask:
    """A task's record as far as a fork needs it."""
    past = RecordedTask(journal[0].tenant)
    for entry in each_fact(build_entries(journal)):
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


def plan_fork(task: str, past: RecordedTask, from_step: str, edit: ForkEdit) -> ForkSubmission:
    """The submission that runs `from_step` and what depends on it again. Raises CommandError, with what to
    do.
    """
    request = past.request
    if request is None or past.plan is None or not past.ended:
        state = "has not ended yet" if past.plan is not None and not past.ended else "never had a plan that ran"
        raise CommandError(
            Exit.REFUSED, f"task {task} {state}", "wait for its end or cancel it; without a plan, submit it again"
        )
    steps = _edit_step(past.plan.steps, _find_step_id(past.plan.steps, from_step), edit)
    first = {_find_step_id(past.plan.steps, from_step)}
    first |= {step.id for step in steps if step.id not in past.accepted or must_run_again(step)}
    repeated = _dependent_steps(steps, first)
    reused = tuple(step.id for step in steps if step.id not in repeated)
    ceilings = request.limits.model_copy(update=edit.limits.model_dump(exclude_unset=True))
    body = {
        "objective": edit.objective or request.objective,
        "limit_usd": ceilings.cost_usd_micros / 1_000_000,
        "limit_tokens": ceilings.tokens,
        "deadline_s": ceilings.deadline_ms / 1000,
        **request.pick_options(),
        "plan": {"steps": [step.model_dump(mode="json") for step in steps]},
        "fork": {"task": task, "steps": list(reused)},
    }
    needed = {name for step in steps for name in step.inputs}
    return ForkSubmission(
        body,
        reused,
        tuple(step.id for step in steps if step.id in repeated),
        _find_repeated_writes(past, steps, repeated),
        tuple(step.id for step in steps if step.id not in needed),
    )


def _find_step_id(steps: Sequence[PlanStep], name: str) -> str:
    """A step by its id, or by its place in the plan, from 1."""
    if any(step.id == name for step in steps):
        return name
    if name.isascii() and name.isdigit() and 1 <= int(name[:6]) <= len(steps):
        return steps[int(name) - 1].id
    listed = ", ".join(f"{number} {step.id}" for number, step in enumerate(steps, 1))
    raise CommandError(Exit.USAGE, f"the plan has no step {name[:64]!r}", f"its steps are: {listed}")


def _edit_step(steps: Sequence[PlanStep], name: str, edit: ForkEdit) -> tuple[PlanStep, ...]:
    changes = {key: value for key in OF_THE_STEP if (value := getattr(edit, key)) is not None}
    try:
        edited = tuple(
            PlanStep.model_validate(step.model_dump() | changes) if step.id == name else step for step in steps
        )
    except ValidationError as error:
        raise _bad_edit_error(error, PlanStep) from error
    unknown = sorted(set(edit.inputs or ()) - {step.id for step in steps})
    after = sorted(set(edit.inputs or ()) & _dependent_steps(steps, {name}))
    if unknown or after:
        reason = f"{', '.join(unknown)}: no such step" if unknown else f"{', '.join(after)} itself waits for {name}"
        raise CommandError(Exit.USAGE, f"the edit's inputs do not fit: {reason}", "name steps that come before it")
    return edited


def _dependent_steps(steps: Sequence[PlanStep], first: set[str]) -> set[str]:
    """These steps and all that depend on them."""
    dependents, before = set(first), -1
    while before != (before := len(dependents)):
        dependents |= {step.id for step in steps if dependents & set(step.inputs)}
    return dependents


def _find_repeated_writes(past: RecordedTask, steps: Sequence[PlanStep], again: set[str]) -> tuple[RepeatedWrite, ...]:
    """Calls of tools that write, in steps that run again and may still use the tool."""
    specs = {spec_row.name: spec_row for spec_row in past.tools}
    allowed = {(step.id, tool) for step in steps if step.id in again for tool in step.tools}
    writes = []
    for call, outcome in past.calls.values():
        spec = specs.get(call.tool)
        if spec is None or spec.effect != "write" or outcome == "refused":
            continue
        if (call.step_id, call.tool) in allowed:
            writes.append(
                RepeatedWrite(
                    call.step_id, call.tool, call.arguments_json[:SHOWN_ARGUMENTS_CHARS], outcome, spec.idempotent
                )
            )
    return tuple(writes)


def read_edit(path: str) -> ForkEdit:
    """The edit: a JSON object in a file, `-` for standard input. Raises CommandError."""
    try:
        raw = sys.stdin.buffer.read(MAX_EDIT_BYTES + 1) if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise CommandError(
            Exit.USAGE, f"{path} cannot be read: {error.strerror}", "--edit names a JSON file, or -"
        ) from error
    if len(raw) > MAX_EDIT_BYTES:
        raise CommandError(
            Exit.USAGE, f"the edit exceeds {MAX_EDIT_BYTES} bytes", "it holds only what is to be different"
        )
    try:
        return ForkEdit.model_validate_json(raw)
    except ValidationError as error:
        raise _bad_edit_error(error) from error


def _bad_edit_error(error: ValidationError, model: type[BaseModel] = ForkEdit) -> CommandError:
    first = find_misfits(error, model)[0]
    problem = f"the edit does not fit: {first}" if first.where else f"the edit is no JSON object: it {first}"
    return CommandError(Exit.USAGE, problem, f"it may hold {', '.join(ForkEdit.model_fields)}")


# The command


async def fork_task(
    at: BrokerOrGatewayOptions,
    task: str,
    from_step: str,
    edit: ForkEdit,
    *,
    tenant: str = "",
    watch: bool = False,
    dry_run: bool = False,
    complete: bool = False,
) -> Exit:
    """Fork, say what that means, and with `watch` follow. Raises CommandError, MeshError, BusError.

    The new task is that of whoever's key this is; the gateway lets a person fork tasks of the own tenant
    only.
    """
    async with operator_bus(at.data) as bus:
        journal = await read_one_task(bus, task, tenant, reservations=False)
    past = read_recorded_task(journal)
    fork = plan_fork(task, past, from_step, edit)
    if not at.as_json:
        _print_fork(fork, edit)
    refuse_repeats(fork)
    summary = {
        "taken_over": fork.taken,
        "runs_again": fork.again,
        "ends_in": fork.ends,
        "writes": [_write_row(write) for write in fork.writes],
    }
    if dry_run:
        if at.as_json:
            print_json({"forks": task, **summary, "submission": fork.body})
        return Exit.OK
    gateway = target.find_target(at.data, at.url, at.api_key, past.tenant, may_make_key=True)
    async with gateway.mesh_client() as mesh:
        new = await mesh.submit(**fork.body)
        if at.as_json:
            print_json({"event": "submitted", "task_id": new.id, "forks": task, **summary})
        else:
            out.print(new.id, markup=False)
        if watch:
            return await follow.watch_to_end(new, out, as_json=at.as_json, complete=complete)
        rejection = await rejected_at_once(new)
    if rejection is not None:
        raise CommandError(
            Exit.REFUSED,
            f"the task was rejected: {rejection['message']}",
            str(rejection.get("hint") or ""),
            name=str(rejection["code"]),
        )
    if not at.as_json:
        err.print(f"follow it: bulkhead watch {new.id}", style="dim", markup=False)
    return Exit.OK


def refuse_repeats(fork: ForkSubmission) -> None:
    """Raises CommandError for a fork that would do again what nobody can tell apart from the first time."""
    if unsafe := sorted({f"{write.tool} in step {write.step}" for write in fork.writes if not write.safe}):
        raise CommandError(
            Exit.REFUSED,
            f"the fork would repeat calls without an idempotency key: {', '.join(unsafe)}",
            "check whether it happened; then fork from a later step, or take the tool out of the step "
            '("tools" in the edit)',
            name="fork_repeats_effect",
        )


def _print_fork(fork: ForkSubmission, edit: ForkEdit) -> None:
    err.print(f"reused: {', '.join(fork.taken) or 'nothing'}; runs again: {', '.join(fork.again)}", markup=False)
    if len(fork.ends) > 1:
        err.print(
            f"it ends in {', '.join(fork.ends)}: one more step is added, which composes the answer from theirs",
            markup=False,
        )
    if edit.objective is not None and fork.taken:
        err.print("the objective has changed: reused results were made for the old one", style="yellow")
    for write in fork.writes:
        how = (
            "if unchanged, it is sent under its old key and not repeated; if changed, it is done, unless another fork "
            "has done the same"
            if write.safe
            else "the tool supports no idempotency key: the call would be repeated"
        )
        err.print(
            f"side effect: {write.step} called {write.tool} {write.arguments} ({write.outcome}); {how}",
            style="yellow",
            markup=False,
        )


def _write_row(write: RepeatedWrite) -> dict[str, Any]:
    return {
        "step_id": write.step,
        "tool": write.tool,
        "arguments": write.arguments,
        "outcome": write.outcome,
        "idempotent": write.safe,
    }
