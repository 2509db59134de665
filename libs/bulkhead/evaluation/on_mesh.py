"""Runs of an evaluation as tasks of a mesh, over its gateway: ceilings hold, and every run stands in the records.

In: cases and routes. Out: outcomes. Spending is counted under a feature, and under the route as its workflow.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from bulkhead.client import Mesh, MeshError, Task
from bulkhead.evaluation.answers import CaseAnswer, ToolCallRecord
from bulkhead.evaluation.cases import EvaluationCase
from bulkhead.evaluation.checks import needs_tool_calls
from bulkhead.evaluation.runs import CaseRunOutcome, Submission
from bulkhead_contracts.model import UNKNOWN_ROUTE

CEILING = "budget_exceeded"
"""Code of a task that is held back, or ended, since its money is spent."""
NOBODY_THERE = {
    CEILING: "its money is spent, and nobody will add to it",
    "approval_wanted": "it waits for a person, and an evaluation has none",
}
"""Codes of pauses that end a run, with the reason of its cancellation."""
CANCEL_S = 2.0


class UnknownRoute(MeshError):
    """The model gateway has no route of this name."""


class MeshRunner:
    """A `Runner`. plan_of: a plan in place of the planner's. check: whether the checker judges. leaves_running: a task
    goes on when its run is given up, for a later run under the same key to collect. reads_calls: the calls of tools
    are read whatever the checks are now, for others that come later. release: of the prompts that tasks get. tools:
    that they may use; () for the usual ones."""

    def __init__(
        self,
        mesh: Mesh,
        *,
        feature: str,
        deadline_s: float,
        plan_of: Callable[[EvaluationCase], Mapping[str, Any]] | None = None,
        check: bool = True,
        leaves_running: bool = False,
        reads_calls: bool = False,
        release: str = "",
        tools: tuple[str, ...] = (),
    ) -> None:
        self._mesh, self._feature, self._deadline_s = mesh, feature, deadline_s
        self._plan_of, self._check, self._leaves_running = plan_of, check, leaves_running
        self._reads_calls, self._release, self._tools = reads_calls, release, tools

    async def run(self, case: EvaluationCase, route: str, submission: Submission) -> CaseRunOutcome:
        """One task, to its end; it is cancelled when this is, unless it is left running. Raises MeshError."""
        began = asyncio.get_running_loop().time()
        task = await self._mesh.submit(
            case.objective,
            limit_usd=submission.limit_usd_micros / 1_000_000,
            deadline_s=self._deadline_s,
            plan=self._plan_of(case) if self._plan_of is not None else None,
            check=self._check,
            feature=self._feature,
            workflow=route,
            route=route,
            prompt_release=self._release,
            tools=self._tools,
            idempotency_key=submission.key,
        )
        try:
            times = await _follow_events(task, began)
            document = await task.show()
            if submission.repeated:
                times.ended_ms, times.texts = document["duration_ms"], {}  # It began before this process.
            wants_calls = self._reads_calls or needs_tool_calls(case.checks)
            calls = await _read_tool_calls(task) if wants_calls else None
            return _task_outcome(document, times, calls, self._release)
        except asyncio.CancelledError:
            if self._leaves_running:
                raise
            with suppress(MeshError, TimeoutError):
                await asyncio.wait_for(task.cancel("the evaluation was stopped"), CANCEL_S)
            raise


class _EventTimes:
    def __init__(self) -> None:
        self.texts: dict[str, int] = {}
        self.final, self.ended_ms, self.pause_code = "", 0, ""


async def _follow_events(task: Task, began: float) -> _EventTimes:
    """Times of a task's events, in milliseconds since the submission."""
    times, clock = _EventTimes(), asyncio.get_running_loop().time
    async for event in task.events():
        at_ms = round((clock() - began) * 1000)
        data = event.data
        if event.name == "text" and data["text"]:
            times.texts.setdefault(data["step_id"], at_ms)
        elif event.name == "step.ended" and data.get("final"):
            times.final = data["step_id"]
        elif event.name == "task.paused" and data["code"] in NOBODY_THERE:
            times.pause_code = data["code"]
            with suppress(MeshError):  # It has ended meanwhile.
                await task.cancel(NOBODY_THERE[data["code"]])
        times.ended_ms = at_ms
    return times


async def _read_tool_calls(task: Task) -> tuple[ToolCallRecord, ...] | None:
    """Calls of tools in their order; None where not all are told. Arguments of over 2,000 characters are cut."""
    document = await task.why()
    if document.cut:
        return None
    calls = (call for call in document.story.calls if call.kind == "tool")
    return tuple(ToolCallRecord(call.name, call.arguments, call.outcome) for call in calls)


def _task_outcome(
    document: Mapping[str, Any], times: _EventTimes, calls: tuple[ToolCallRecord, ...] | None, release: str
) -> CaseRunOutcome:
    usage, result, failure = document["usage"], document.get("result") or {}, document.get("failure") or {}
    code = str(failure.get("code") or "")
    if code == UNKNOWN_ROUTE:
        raise UnknownRoute(str(failure["message"]), str(failure.get("hint") or ""))
    cost_usd_micros = (document.get("charged") or usage)["cost_usd_micros"]
    answer, is_of_release = None, "." not in release or document["release"] == release
    if not is_of_release:
        code = "other_release"
    elif document["status"] == "succeeded" and document.get("answer") is not None:
        cited = dict.fromkeys(str(citation["document"]) for citation in result.get("citations") or ())
        answered = str(document.get("answered") or "")
        facts = (answered, calls, cost_usd_micros, times.ended_ms)
        answer = CaseAnswer(document["answer"], tuple(cited), *facts)
    labels = (label for label in result.get("provenance") or () if label["kind"] == "model_reply")
    at_ceiling = CEILING in (times.pause_code, code)
    return CaseRunOutcome(
        task=document["task_id"],
        status=document["status"],
        answer=answer,
        latency_ms=times.ended_ms,
        first_token_ms=times.texts.get(times.final) if times.final else None,
        cost_usd_micros=cost_usd_micros,
        tokens=usage["input_tokens"] + usage["output_tokens"],
        code="" if answer is not None else CEILING if at_ceiling else times.pause_code or code or "no_answer",
        standing=str(document.get("standing") or "ok"),
        models=tuple(sorted({str(label["source"]) for label in labels})),
        at_ceiling=at_ceiling,
    )
