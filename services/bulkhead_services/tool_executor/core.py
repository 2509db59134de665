"""Request to outcome: one tool call, checked, admitted, made, bounded.

Enters: ToolCallRequested. Leaves: ToolCallReplied. The way of a call: `hold_turn` checks it (known, granted, not
halted, arguments fit), asks the gate (policy, approval) and waits for a slot; `act` looks whether it is in time, makes
attempts (each admitted by budget), and has `replies` tell what came of them. Reads are retried; writes only under a key
that the tool honours.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from bulkhead.runtime.component import Component, Pool, RpcTable
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.doer.excerpts import make_excerpt
from bulkhead.runtime.doer.protocol import Doer, Job, JobContext, Reservation, SideHandlers, halt_reason
from bulkhead.runtime.errors import HandBack, JobRefused, NotDone
from bulkhead.telemetry import metrics, names
from bulkhead.tools.api import Arguments, Done, Failed
from bulkhead.tools.decorator import NOT_MADE
from bulkhead_contracts import bounds
from bulkhead_contracts.approval import ApprovalDecided
from bulkhead_contracts.budget import Amount
from bulkhead_contracts.result import Failure, Usage
from bulkhead_contracts.tool import LiveCall, ToolCallReplied, ToolCallRequested, WriteResolveRequested
from bulkhead_contracts.types import Body
from bulkhead_services.tool_executor.boundary.gate import Gate, GatePass
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.progress import ProgressPublisher
from bulkhead_services.tool_executor.registry import BEGUN_ELSEWHERE, RegisteredTool, ToolRegistry
from bulkhead_services.tool_executor.replies import CallAttempts, busy_failure, price_of_call, reply_to_call

SERVICE = "tool_executor"
SLOT_PATIENCE_S = 10.0
"""How long a call waits for a place here; then it goes back to the inbox for a moment: another replica may have places
by now, and calls behind a queue that fills every slot get their turn in it."""
SLOT_RETRY_S = 0.5
ELSEWHERE_RETRY_S = 5.0
"""How long a call that another replica may be at goes back to the inbox: that one's outcome is its outcome."""
NOT_OF_TAGS = re.compile(r"[^A-Za-z0-9_.-]")
MAX_OVERTIME_MS = 10_000
"""How long after the time of its attempts a call may still be at work: to start a process, to back off."""


def _idempotency_key(job: Job[ToolCallRequested]) -> str:
    """The idempotency key of a call."""
    return f"{job.tenant}.{job.authority.task.origin or job.task}.{job.request.call_id}"


@dataclass(frozen=True, slots=True)
class CallTurn:
    """A call that was checked and admitted by the gate, and has its slot."""

    tool: RegisteredTool
    arguments: Arguments
    gate_pass: GatePass


class ToolExecutor(Doer[ToolCallRequested]):
    """The doer."""

    service = SERVICE
    handles: tuple[type[Body], ...] = (ToolCallRequested,)

    def __init__(
        self,
        registry: ToolRegistry,
        runner: ToolRunner,
        gate: Gate,
        side_handlers: SideHandlers | None = None,
        components: tuple[Component, ...] = (),
        policy_details: Mapping[str, object] | None = None,
        rpc: RpcTable | None = None,
    ) -> None:
        """policy_details: what `/readyz` tells of the rules. rpc: questions about tools and policy."""
        self.rpc = rpc or {}
        self._policy = policy_details
        self._registry, self._runner, self._gate, self._components = registry, runner, gate, components
        self.side_handlers: SideHandlers = {
            ApprovalDecided: gate.approvals.on_approval_decided,
            WriteResolveRequested: gate.uncertain_writes.on_write_resolve_requested,
            **(side_handlers or {}),
        }

    def has_own_process_tools(self) -> bool:
        """True when any tool gets a process of its own."""
        return any(tool.runs_in_own_process for tool in self._registry.tools.values())

    async def start(self) -> None:
        """Try the sandbox, where a tool will need it, and start the parts that run beside the calls."""
        for part in self._components:
            await part.start()
        if self._needs_sandbox():
            await asyncio.to_thread(self._runner.describe_isolation)

    def details(self) -> dict[str, object]:
        """The rules, and the isolation that this machine gives to plain tools."""
        details: dict[str, object] = {"policy": dict(self._policy)} if self._policy is not None else {}
        return details | ({"isolation": self._runner.describe_isolation()} if self._needs_sandbox() else {})

    def pools(self) -> dict[str, Pool]:
        """Places for the two kinds of tools."""
        kinds = {"plain": self._runner.process_slots, "awaited": self._runner.loop_slots}
        return {name: Pool(slots.capacity, slots.demand) for name, slots in kinds.items()}

    def _needs_sandbox(self) -> bool:
        return any(tool.runs_in_own_process or tool.spec.isolation != "none" for tool in self._registry.tools.values())

    def describe_degradation(self) -> str:
        """Tools that are refused here because nothing walls them off enough; what the parts lack."""
        low = {
            tool.spec.name: low
            for tool in self._registry.tools.values()
            if (low := self._runner.isolation_refusal(tool))
        }
        if not low:
            return next((problem for part in self._components if (problem := part.describe_degradation())), "")
        first = next(iter(low.values()))
        return f"{', '.join(low)}: refused, {first.message}; {first.hint}"[:2_000]

    async def stop(self) -> None:
        """Close connections."""
        for part in self._components:
            await part.stop()
        await self._gate.stop()
        await self._runner.close()

    def idempotency_key(self, request: ToolCallRequested) -> str:
        """The call id."""
        return request.call_id

    def needs_claim(self, job: Job[ToolCallRequested]) -> bool:
        """Only writes that honour no key are claimed: the others may simply be sent again under the same key."""
        tool = self._registry.find_tool(job.request.tool)
        return tool is not None and tool.spec.effect == "write" and not tool.spec.idempotent

    def may_change_world(self, request: ToolCallRequested) -> bool:
        """True when the tool writes: what was begun and has no outcome may have been done."""
        tool = self._registry.find_tool(request.tool)
        return tool is not None and tool.spec.effect == "write"

    def drain(self) -> None:
        """Calls that wait for a place are begun by another replica."""
        self._runner.process_slots.close()
        self._runner.loop_slots.close()
        for part in self._components:
            part.drain()

    @asynccontextmanager
    async def hold_turn(self, job: Job[ToolCallRequested], context: JobContext) -> AsyncIterator[CallTurn]:
        """The gate, then a place, shared fairly by tenant. Raises JobRefused (not granted, unfit, forbidden),
        this or Deferred when a halt, an approval or the deadline ends the wait, HandBack when the replica drains."""
        request = job.request
        tool, arguments = self._check_call(job, context)
        gate_pass = await self._gate.admit_call(job, tool, arguments)
        slots = self._runner.slots_of(tool)
        left_s = (request.deadline_unix_ms - context.now_unix_ms()) / 1000
        halt_event, since_ms = context.halt_event(job, tool=request.tool), job.envelope.time_unix_ms
        if not await slots.acquire_slot(job.tenant, min(left_s, SLOT_PATIENCE_S), halt_event, since_ms):
            if (stop := context.find_stop(job, tool=request.tool)) is not None:
                raise JobRefused(stop.to_failure())
            if context.now_unix_ms() + SLOT_RETRY_S * 1000 < request.deadline_unix_ms:
                raise HandBack(SLOT_RETRY_S, "it has not begun, and may find a place at another replica")
            raise JobRefused(busy_failure(job.tenant, tool, slots))
        try:
            yield CallTurn(tool, arguments, gate_pass)
        finally:
            slots.release_slot(job.tenant)

    async def act(self, job: Job[ToolCallRequested], context: JobContext, turn: CallTurn) -> ToolCallReplied:
        """Make the call in its turn, if it is in time; what it has become is the reply."""
        started = context.now_unix_ms()
        tool, arguments, gate_pass = turn.tool, turn.arguments, turn.gate_pass
        if self._registry.find_tool(tool.spec.name) is not tool:  # It was changed or taken out while the call waited.
            tool, arguments = self._check_call(job, context)
        deadline_unix_ms = job.request.deadline_unix_ms
        stop = context.find_stop(job, tool=tool.spec.name, deadline_unix_ms=deadline_unix_ms, begins=True)
        if stop is not None:
            raise JobRefused(stop.to_failure())
        attempts = await self._make_attempts(job, context, tool, arguments, gate_pass.approval)
        if attempts.maybe_done and (checked := await self._run_check(job, tool, arguments)) is not None:
            attempts = replace(attempts, outcome=checked, maybe_done=False)
        reply = await reply_to_call(
            job, context, tool, attempts, max(0, context.now_unix_ms() - started), gate_pass.carries
        )
        ruling_fields = {"rule": gate_pass.ruling.rule, "policy_sha256": gate_pass.ruling.policy_sha256}
        isolation_field = {"isolation": self._runner.isolation_of(tool)}
        return reply.model_copy(update={**ruling_fields, **isolation_field, "approval_id": gate_pass.approval_id})

    def _check_call(self, job: Job[ToolCallRequested], context: JobContext) -> tuple[RegisteredTool, Arguments]:
        """The tool of a granted call that may go on, and its arguments. Raises JobRefused or Deferred."""
        request, step, task = job.request, job.authority.step, job.authority.task
        tool = self._registry.find_tool(request.tool)
        if tool is None:
            raise JobRefused(self._registry.why_unavailable(request.tool))
        if step is None or request.tool not in step.tools or request.tool not in task.tools:
            hint = (
                f"use one of: {', '.join(step.tools)}" if step is not None and step.tools else "answer without a tool"
            )
            raise JobRefused(Failure.from_text("not_granted", f"this step was not granted {request.tool}", hint))
        if (step.step_id, step.attempt) != (request.step_id, request.attempt):
            hint = "send the grant that came with the step's assignment"
            raise JobRefused(Failure.from_text("wrong_step", "the grant is for another step or attempt", hint))
        if (stop := context.find_stop(job, tool=request.tool, deadline_unix_ms=request.deadline_unix_ms)) is not None:
            raise JobRefused(stop.to_failure())
        arguments = tool.read_arguments(request.arguments_json)
        if isinstance(arguments, Failure):
            raise JobRefused(arguments)
        if (step_only := sorted(tool.step_only_arguments & arguments.keys())) and not _is_of_delegated_step(job):
            message = f"{step_only[0]}: the mesh alone names results of earlier steps, for a step of a delegated role"
            hint = f"write what {tool.spec.name} is to know as text"
            raise JobRefused(Failure.from_text("bad_arguments", message, hint))
        if (low := self._runner.isolation_refusal(tool)) is not None:
            raise JobRefused(Failure.from_text(low.code, low.message, low.hint))
        return tool, arguments

    def refusal_reply(self, request: ToolCallRequested, failure: Failure) -> ToolCallReplied:
        """The reply that says no; nothing was done."""
        tool = self._registry.find_tool(request.tool)
        return ToolCallReplied(
            call_id=request.call_id,
            step_id=request.step_id,
            outcome="refused",
            failure=failure,
            standing="failed",
            effect=tool.spec.effect if tool is not None else "read",
        )

    async def refusal_after_start(self, job: Job[ToolCallRequested], failure: Failure) -> ToolCallReplied:
        """Refusal; uncertain where an earlier delivery may have sent it: who was told `refused` would do it again."""
        tool, step = self._registry.find_tool(job.request.tool), job.authority.step
        granted = tool is not None and step is not None and tool.spec.name in step.tools
        if tool is not None and granted and await _may_have_begun(job, tool):
            return self.uncertain_reply(job.request)
        return self.refusal_reply(job.request, failure)

    def uncertain_reply(self, request: ToolCallRequested) -> ToolCallReplied:
        """The reply when a claimed write has no recorded outcome."""
        message = f"{request.tool} was begun and its outcome was lost; it may have been done"
        metrics.writes_uncertain.add(1, {names.TOOL_NAME: request.tool})
        failure = Failure.from_text("uncertain", message, "it is not repeated: a person must look whether it happened")
        return self.refusal_reply(request, failure).model_copy(update={"outcome": "uncertain", "effect": "write"})

    def describe_call(self, request: ToolCallRequested, reply: Body | None, now_unix_ms: int) -> LiveCall:
        """Live word about a call: its tool and the beginning of its arguments, then of its result."""
        same = {name: getattr(request, name) for name in ("call_id", "step_id", "attempt", "tool")}
        common = same | {"time_unix_ms": now_unix_ms, "looks_at": make_excerpt(request.arguments_json)}
        if not isinstance(reply, ToolCallReplied):
            return LiveCall(event="tool.started", **common)
        result = reply.failure.message if reply.failure else reply.content.summary if reply.content else ""
        return LiveCall(
            event="tool.ended",
            outcome=reply.outcome,
            code=reply.failure.code if reply.failure else "",
            duration_ms=reply.duration_ms,
            excerpt=make_excerpt(result),
            **common,
        )

    async def on_outcome_stored(self, message: ReceivedMessage, reply: Body) -> None:
        """Tell people of a write that is uncertain."""
        if isinstance(reply, ToolCallReplied) and reply.outcome == "uncertain":
            request = message.body
            assert isinstance(request, ToolCallRequested)
            tool = self._registry.find_tool(request.tool)
            four_eyes = tool is not None and tool.spec.four_eyes
            await self._gate.uncertain_writes.tell_people(message, reply, four_eyes=four_eyes)

    async def resolve_claim(
        self, job: Job[ToolCallRequested], context: JobContext, begun_unix_ms: int
    ) -> ToolCallReplied | None:
        """Reply by the tool's own check of a call that was begun and has no outcome; None where nothing tells."""
        tool, started = self._registry.find_tool(job.request.tool), context.now_unix_ms()
        if tool is None or tool.check is None or self._runner.isolation_refusal(tool):
            return None
        arguments = tool.read_arguments(job.request.arguments_json)
        if isinstance(arguments, Failure):
            return None
        slots = self._runner.slots_of(tool)
        if not await slots.acquire_slot(job.tenant, SLOT_PATIENCE_S, None, job.envelope.time_unix_ms):
            raise HandBack(SLOT_RETRY_S, "whether it was made is asked when there is a place")
        try:
            checked = await self._run_check(job, tool, arguments)
        finally:
            slots.release_slot(job.tenant)
        if checked is None:
            return None
        if isinstance(checked, Failed):
            # Who began it may be at it still, and only cut off from the broker: what is not there may yet come.
            tries_ms = tool.spec.timeout_ms * (bounds.MAX_TOOL_RETRIES + 1)
            last_unix_ms = min(begun_unix_ms + tries_ms, job.request.deadline_unix_ms) + MAX_OVERTIME_MS
            if (left_ms := last_unix_ms - context.now_unix_ms()) > 0:
                raise HandBack(left_ms / 1000, "who began it may still be at it")
        spent_ms = max(0, context.now_unix_ms() - started)
        return await reply_to_call(job, context, tool, CallAttempts(checked, 0, False), spent_ms)

    async def _run_check(
        self, job: Job[ToolCallRequested], tool: RegisteredTool, arguments: Arguments
    ) -> Done | Failed | None:
        """Done: it was made. Failed: it certainly was not. None: the tool cannot tell, or has no check."""
        if tool.check is None:
            return None
        actor, timeout_s = job.authority.task.actor, tool.spec.timeout_ms / 1000
        answer = await self._runner.run(
            tool, arguments, _idempotency_key(job), timeout_s, None, lambda: None, actor, check=True
        )
        return answer if isinstance(answer, Done) or answer.code == NOT_MADE else None

    async def _make_attempts(
        self,
        job: Job[ToolCallRequested],
        context: JobContext,
        tool: RegisteredTool,
        arguments: Arguments,
        approval: str = "",
    ) -> CallAttempts:
        writes = tool.spec.effect == "write"
        report_progress = ProgressPublisher(job, context).publish_report if job.request.progress else None
        attempts = CallAttempts(
            Failed("deadline_exceeded", "the call's deadline passed", "give the task more time"), 0, False
        )
        for attempt in range(bounds.MAX_TOOL_RETRIES + 1):
            if attempt and context.find_stop(job, tool=tool.spec.name, defer=False):
                return attempts
            try:
                reservation = await self._reserve_in_time(job, context, tool, attempt)
            except NotDone:
                if attempt:
                    return attempts
                raise
            if reservation is None:
                return attempts if attempt else replace(attempts, maybe_done=await _may_have_begun(job, tool))
            # A write in flight is let finish: cutting it would only make its outcome unknown. What can be stopped where
            # it runs is stopped by a halt that ends its task.
            is_cuttable = not writes or tool.stop_call is not None
            halt_event = context.halt_event(job, tool=tool.spec.name, ends=writes) if is_cuttable else None
            until_unix_ms = reservation.bound_deadline(job.request.deadline_unix_ms)
            left_ms = until_unix_ms - context.now_unix_ms()
            outcome = await self._runner.run(
                tool,
                arguments,
                _idempotency_key(job),
                min(tool.spec.timeout_ms, left_ms) / 1000,
                halt_event,
                partial(_start_refusal, job, context),
                job.authority.task.actor,
                report_progress=report_progress,
                approval=approval,
            )
            if left_ms < tool.spec.timeout_ms and isinstance(outcome, Failed) and outcome.code == "timeout":
                # It says nothing about the tool: no breaker counts it.
                outcome = replace(outcome, code="deadline_too_short")
            if tool.stop_call is not None and isinstance(outcome, Failed) and outcome.code == BEGUN_ELSEWHERE:
                # Near its deadline it is told what is known: the next delivery could only refuse it.
                if job.request.deadline_unix_ms - context.now_unix_ms() > ELSEWHERE_RETRY_S * 1000 + MAX_OVERTIME_MS:
                    reservation.settle(Usage())
                    raise HandBack(ELSEWHERE_RETRY_S, outcome.message)
                outcome = replace(outcome, transient=False)
            usage = Usage(tool_calls=1, cost_usd_micros=price_of_call(tool, outcome))
            reservation.settle(usage, failed=_failure_tag(outcome))
            cost = attempts.cost_usd_micros + price_of_call(tool, outcome)
            metrics.tool_calls.add(1, {names.TOOL_NAME: tool.spec.name, names.OUTCOME: _outcome_name(outcome)})
            if isinstance(outcome, Failed) and outcome.code == "halted":
                # A read that was cut, or what had not begun: when the halt only pauses, this raises, and it is made
                # again later.
                by = halt_reason(context.find_cutting_halt(job, tool=tool.spec.name))
                outcome = replace(outcome, message=f"{outcome.message}: {by}"[:2000])
            if isinstance(outcome, Done):
                return CallAttempts(outcome, attempt + 1, False, cost)
            maybe_done = writes and outcome.effect == "unknown"
            attempts = CallAttempts(outcome, attempt + 1, attempts.maybe_done or maybe_done, cost)
            if not outcome.transient or (maybe_done and not tool.spec.idempotent):
                return attempts
            if attempt < bounds.MAX_TOOL_RETRIES:
                await self._runner.back_off(attempt)
        return attempts

    @staticmethod
    async def _reserve_in_time(
        job: Job[ToolCallRequested], context: JobContext, tool: RegisteredTool, attempt: int
    ) -> Reservation | None:
        """Money for one attempt; None when the call's time was over before, or is by then. Raises NotDone."""
        request, worst_case = job.request, Amount(tool_calls=1, cost_usd_micros=tool.row.price_usd_micros)
        if context.now_unix_ms() >= request.deadline_unix_ms:
            return None
        reservation = await context.reserve_attempt(
            job, request.call_id, attempt, purpose="tool", resource=tool.spec.name, worst_case=worst_case
        )
        if tool.spec.effect == "write":
            reservation.wall_until_unix_ms = 0  # Cut, its outcome would be unknown.
        if context.now_unix_ms() < reservation.bound_deadline(request.deadline_unix_ms):
            return reservation
        reservation.settle(Usage())  # The admission took the rest of its time.
        return None


async def _may_have_begun(job: Job[ToolCallRequested], tool: RegisteredTool) -> bool:
    """True when an earlier delivery of this write may have been sent. Raises BusError."""
    return tool.spec.effect == "write" and tool.was_sent is not None and await tool.was_sent(_idempotency_key(job))


def _is_of_delegated_step(job: Job[ToolCallRequested]) -> bool:
    """True for the one call of a step that no model carries out: its role is the grants' word. Programs outside
    choose theirs, and come by doors.
    """
    task, step, tool = job.authority.task, job.authority.step, job.request.tool
    roles = {row.role for row in task.delegated if row.agent_tool == tool}
    return job.sender == "worker" and step is not None and step.role in roles


def _start_refusal(job: Job[ToolCallRequested], context: JobContext) -> Failed | None:
    """Why a call that was admitted must not begin any more."""
    request = job.request
    stop = context.find_stop(
        job, tool=request.tool, deadline_unix_ms=request.deadline_unix_ms, what="the tool", defer=False
    )
    if stop is None:
        return None
    if stop.code == "halted":
        return Failed("halted", "the task was halted before the tool began", "an operator must lift the halt")
    return Failed(stop.code, stop.reason, "give the task more time")


def _failure_tag(outcome: Done | Failed) -> str:
    """Code under which an attempt's settlement counts as failed; "" for one that brought a result. A tool of a user
    may choose any code."""
    return "" if isinstance(outcome, Done) else NOT_OF_TAGS.sub("_", outcome.code)[: bounds.MAX_NAME_CHARS] or "failed"


def _outcome_name(outcome: Done | Failed) -> str:
    if isinstance(outcome, Failed):
        return outcome.code
    return "incomplete" if outcome.truncated or outcome.missing else "succeeded"
