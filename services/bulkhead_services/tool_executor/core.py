"""Request to outcome: one tool call, checked, admitted, made, bounded.

Enters: ToolCallRequested. Leaves: ToolCallReplied. Order: has its place -> known -> granted -> not halted -> in time ->
arguments fit -> admitted (budget) -> made. Reads are retried; writes only under a key that the tool honours.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from bulkhead.runtime.doer.protocol import Doer, Hands, Job, SideHandlers, ended_by
from bulkhead.runtime.errors import HandBack, NotDone, Refused
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.tools.api import Arguments, Done, Failed
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import Amount
from bulkhead_contracts.result import Completeness, Failure, Label, Omission, Usage
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from bulkhead_contracts.types import Body
from bulkhead_services.tool_executor.registry import Cut, Registry, Tool, TooLate

SERVICE = "tool_executor"
PATIENCE_S = 10.0
"""How long a call waits for a place here; then it goes back to the inbox for a moment: another replica may have places
by now, and calls behind a queue that fills every slot get their turn in it."""
AGAIN_S = 0.5


class Bench(Protocol):
    """How a tool is run; effects.Workbench. plain, awaited: places for the two kinds of tools."""

    plain: FairSemaphore
    awaited: FairSemaphore

    async def run(
        self, tool: Tool, arguments: Arguments, key: str, timeout_s: float, cut: Cut, too_late: TooLate
    ) -> Done | Failed:
        """One attempt."""
        ...

    async def pause(self, attempt: int) -> None:
        """Back off."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


@dataclass(frozen=True, slots=True)
class Attempts:
    """The last attempt's outcome, how many were made, whether any may have changed the world without saying so."""

    outcome: Done | Failed
    made: int
    maybe_done: bool


class ToolExecutor(Doer[ToolCallRequested]):
    """The doer."""

    service = SERVICE
    handles: tuple[type[Body], ...] = (ToolCallRequested,)

    def __init__(self, registry: Registry, bench: Bench, side_handlers: SideHandlers | None = None) -> None:
        self._registry, self._bench = registry, bench
        self.side_handlers: SideHandlers = side_handlers or {}

    def has_plain_tools(self) -> bool:
        """Whether any tool gets a process of its own."""
        return any(tool.plain for tool in self._registry.tools.values())

    async def stop(self) -> None:
        """Close connections."""
        await self._bench.close()

    def key(self, request: ToolCallRequested) -> str:
        """The call id."""
        return request.call_id

    def writes(self, job: Job[ToolCallRequested]) -> bool:
        """Only writes that honour no key are claimed: the others may simply be sent again under the same key."""
        tool = self._registry.find(job.request.tool)
        return tool is not None and tool.spec.effect == "write" and not tool.spec.idempotent

    def changes(self, request: ToolCallRequested) -> bool:
        """Whether the tool writes: what was begun and has no outcome may have been done."""
        tool = self._registry.find(request.tool)
        return tool is not None and tool.spec.effect == "write"

    def drain(self) -> None:
        """Calls that wait for a place are begun by another replica."""
        self._bench.plain.close()
        self._bench.awaited.close()

    @asynccontextmanager
    async def turn(self, job: Job[ToolCallRequested], hands: Hands) -> AsyncIterator[None]:
        """A place, shared fairly by tenant. Raises Refused or Deferred when a halt or the deadline ends the wait,
        HandBack when the replica drains."""
        request, tool = job.request, self._registry.find(job.request.tool)
        if tool is None:
            yield  # It is refused at once.
            return
        places = self._bench.plain if tool.plain else self._bench.awaited
        left_s = (request.deadline_unix_ms - hands.now_unix_ms()) / 1000
        cut, since_ms = hands.halt_event(job, tool=request.tool), job.envelope.time_unix_ms
        if not await places.enter(job.tenant, min(left_s, PATIENCE_S), cut, since_ms):
            if (stop := hands.may(job, tool=request.tool)) is not None:
                raise Refused(stop.failure())
            if hands.now_unix_ms() < request.deadline_unix_ms:
                raise HandBack(AGAIN_S, "it has not begun, and may find a place at another replica")
            raise Refused(_busy(job.tenant, tool, places))
        try:
            yield
        finally:
            places.leave(job.tenant)

    async def act(self, job: Job[ToolCallRequested], hands: Hands) -> ToolCallReplied:
        """See the module's docstring for the order."""
        request, started = job.request, hands.now_unix_ms()
        tool = self._registry.find(request.tool)
        if tool is None:
            return self.refuse(request, self._registry.why_not(request.tool))
        refusal = _refusal(job, hands)
        if refusal is not None:
            return self.refuse(request, refusal)
        arguments = tool.read_arguments(request.arguments_json)
        if isinstance(arguments, Failure):
            return self.refuse(request, arguments)
        if (stop := hands.may(job, tool=tool.spec.name, begins=True)) is not None:
            return self.refuse(request, stop.failure())
        tried = await self._attempt(job, hands, tool, arguments)
        spent_ms = max(0, hands.now_unix_ms() - started)
        if isinstance(tried.outcome, Failed):
            return _unsuccessful(request, tool, tried, spent_ms)
        return await _succeeded(job, hands, tool, tried, spent_ms)

    def refuse(self, request: ToolCallRequested, failure: Failure) -> ToolCallReplied:
        """The reply that says no; nothing was done."""
        tool = self._registry.find(request.tool)
        return ToolCallReplied(
            call_id=request.call_id,
            step_id=request.step_id,
            outcome="refused",
            failure=failure,
            standing="failed",
            effect=tool.spec.effect if tool is not None else "read",
        )

    def uncertain(self, request: ToolCallRequested) -> ToolCallReplied:
        """The reply when a claimed write has no recorded outcome."""
        what = f"{request.tool} was begun and its outcome was lost; it may have been done"
        failure = Failure.of("uncertain", what, "it is not repeated: a person must look whether it happened")
        return self.refuse(request, failure).model_copy(update={"outcome": "uncertain", "effect": "write"})

    async def _attempt(self, job: Job[ToolCallRequested], hands: Hands, tool: Tool, arguments: Arguments) -> Attempts:
        writes = tool.spec.effect == "write"
        tried = Attempts(Failed("deadline_exceeded", "the call's deadline passed", "give the task more time"), 0, False)
        for attempt in range(bounds.MAX_TOOL_RETRIES + 1):
            left_ms = job.request.deadline_unix_ms - hands.now_unix_ms()
            if left_ms <= 0 or (attempt and hands.may(job, tool=tool.spec.name, defer=False)):
                return tried
            try:
                worst_case = Amount(tool_calls=1)
                held = await hands.reserve(
                    job, job.request.call_id, attempt, purpose="tool", resource=tool.spec.name, worst_case=worst_case
                )
            except NotDone:
                if attempt:
                    return tried
                raise
            left_ms = job.request.deadline_unix_ms - hands.now_unix_ms()
            if left_ms <= 0:
                held.settle(Usage())  # The admission took the rest of its time.
                return tried
            # A write in flight is let finish: cutting it would only make its outcome unknown.
            outcome = await self._bench.run(
                tool,
                arguments,
                f"{job.tenant}.{job.authority.task.origin or job.task}.{job.request.call_id}",
                min(tool.spec.timeout_ms, left_ms) / 1000,
                None if writes else hands.halt_event(job, tool=tool.spec.name),
                partial(_too_late, job, hands),
            )
            held.settle(Usage(tool_calls=1))
            if isinstance(outcome, Failed) and outcome.code == "halted":
                # A read that was cut, or what had not begun: when the halt only pauses, this raises, and it is made
                # again later.
                by = ended_by(hands.cut(job, tool=tool.spec.name))
                outcome = replace(outcome, message=f"{outcome.message}: {by}"[:2000])
            if isinstance(outcome, Done):
                return Attempts(outcome, attempt + 1, False)
            lost = writes and outcome.effect == "unknown"
            tried = Attempts(outcome, attempt + 1, tried.maybe_done or lost)
            if not outcome.transient or (lost and not tool.spec.idempotent):
                return tried
            if attempt < bounds.MAX_TOOL_RETRIES:
                await self._bench.pause(attempt)
        return tried


def _refusal(job: Job[ToolCallRequested], hands: Hands) -> Failure | None:
    request, step, task = job.request, job.authority.step, job.authority.task
    if step is None or request.tool not in step.tools or request.tool not in task.tools:
        granted = ", ".join(step.tools) if step is not None else ""
        what = f"this step was not granted {request.tool}"
        return Failure.of("not_granted", what, f"use one of: {granted}" if granted else "answer without a tool")
    if (step.step_id, step.attempt) != (request.step_id, request.attempt):
        what = "the grant is for another step or attempt"
        return Failure.of("wrong_step", what, "send the grant that came with the step's assignment")
    stop = hands.may(job, tool=request.tool, deadline_unix_ms=request.deadline_unix_ms)
    return stop.failure() if stop is not None else None


def _busy(tenant: str, tool: Tool, places: FairSemaphore) -> Failure:
    kind, knob = ("plain tools", "PROCESSES") if tool.plain else ("tools", "PLACES")
    own = places.share < places.most and places.spent(tenant)
    which = f"{places.share} {kind} of tenant {tenant} (its share of {places.most})" if own else f"{places.most} {kind}"
    what = f"no place became free before the call's deadline: {which} are running"
    return Failure.of("busy", what, f"call fewer at once; an operator may raise BULKHEAD_TOOL_{knob}")


def _too_late(job: Job[ToolCallRequested], hands: Hands) -> Failed | None:
    """Why a call that was admitted must not begin any more."""
    request = job.request
    stop = hands.may(job, tool=request.tool, deadline_unix_ms=request.deadline_unix_ms, what="the tool", defer=False)
    if stop is None:
        return None
    if stop.code == "halted":
        return Failed("halted", "the task was halted before the tool began", "an operator must lift the halt")
    return Failed(stop.code, stop.reason, "give the task more time")


def _unsuccessful(request: ToolCallRequested, tool: Tool, tried: Attempts, spent_ms: int) -> ToolCallReplied:
    failed = tried.outcome
    assert isinstance(failed, Failed)
    message, hint = failed.message, failed.hint
    if tried.maybe_done:
        message = f"{message}; {tool.spec.name} may have been done all the same"
        hint = "it is not repeated: a person must look whether it happened"
    elif tried.made > 1:
        message = f"{message} (tried {tried.made} times)"
    return ToolCallReplied(
        call_id=request.call_id,
        step_id=request.step_id,
        outcome="uncertain" if tried.maybe_done else "failed",
        failure=Failure.of(failed.code, message, hint),
        standing="failed",
        effect=tool.spec.effect,
        usage=Usage(tool_calls=tried.made),
        duration_ms=spent_ms,
    )


async def _succeeded(
    job: Job[ToolCallRequested], hands: Hands, tool: Tool, tried: Attempts, spent_ms: int
) -> ToolCallReplied:
    done = tried.outcome
    assert isinstance(done, Done)
    raw = done.text.encode("utf-8", "replace")
    bound = tool.row.max_output_bytes
    text = raw[:bound].decode("utf-8", "ignore")
    cut = done.truncated or len(raw) > bound
    content = await hands.blobs.put(job.tenant, text)
    name, detail = tool.spec.name, f"output_truncated: cut at {bound} bytes"
    label = Label(sha256=content.sha256, kind="tool_result", source=name, trust="untrusted", observed_by=SERVICE)
    missing = Omission(reason="truncated", what=f"output of {name}", detail=detail)
    return ToolCallReplied(
        call_id=job.request.call_id,
        step_id=job.request.step_id,
        outcome="succeeded",
        content=content,
        completeness=Completeness.missing(missing) if cut else Completeness(),
        provenance=(hands.signer.label(label),),
        effect=tool.spec.effect,
        usage=Usage(tool_calls=tried.made),
        duration_ms=spent_ms,
    )
