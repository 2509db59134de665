"""A task as it happens: one line per event, the final step's text as it is written, then the answer.

In: a task's events. Out: lines on a console (or JSON lines), and the exit code that the task's end deserves.
"""

import math
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bulkhead.client import MeshError, Task, TaskEvent
from bulkhead.text.amounts import format_cost, format_count, format_duration, format_time, format_tokens
from bulkhead.text.live_calls import CALL_EVENTS, describe_call
from bulkhead_cli.output import Exit, one_line, print_json
from bulkhead_cli.screen import err
from bulkhead_cli.tasks import answer, uncertain_writes

APPROVAL_ID_CHARS, MAX_WHY_CHARS = 12, 200
MAX_LIVE_LINES = 12
REFRESH_PER_S = 15
LOST_EVERY_S = 10.0


class TaskProgress:
    """State of a task as its events tell it; turns events into lines."""

    def __init__(self) -> None:
        self.titles: dict[str, str] = {}
        self.running: dict[str, int] = {}
        self.texts: dict[str, str] = {}
        self.final = ""
        self.asked: dict[str, dict[str, Any]] = {}
        """Calls that wait for a person, by approval."""
        self.done = 0
        self._began_ms = 0

    def render_event(self, event: TaskEvent) -> list[Text]:
        """Lines for an event; none for pieces of text."""
        data = event.data
        if event.name == "text":
            have = self.texts.get(data["step_id"], "")
            self.texts[data["step_id"]] = have[: data["offset"]] + data["text"]
            return []
        self._began_ms = self._began_ms or data["time_unix_ms"]
        elapsed = f"{(data['time_unix_ms'] - self._began_ms) / 1000:7.2f}s "
        lines = [Text.assemble((elapsed, "dim"), line) for line in self._event_lines(event.name, data)]
        for line in lines:
            line.plain = one_line(line.plain)
        return lines

    def _event_lines(self, name: str, data: dict[str, Any]) -> list[Text]:
        match name:
            case "task.queued":
                return [Text(answer.queue_line(data), "yellow")]
            case "task.released":
                return [Text("it is its turn", "blue")]
            case "task.accepted":
                lines = [Text("accepted, planning", "blue")]
                return [*lines, *(Text(line, "yellow") for line in answer.left_out_lines(data.get("left_out", ())))]
            case "plan.rejected":
                notes = "; ".join(note["message"] for note in data.get("notes", ()) if note["severity"] == "error")
                return [Text(f"plan draft rejected: {notes or 'see the plan checker'}", "yellow")]
            case "plan.adopted":
                return self._plan_lines(data["plan"])
            case "step.started":
                return [self._step_started_line(data)]
            case "step.ended":
                return [self._step_ended_line(data)]
            case call_event if call_event in CALL_EVENTS:
                return [_call_line(call_event, data)]
            case "task.ended":
                style = "bold green" if data["status"] == answer.GOOD else "bold red"
                return [
                    Text.assemble(
                        (f"task {data['status']}", style), (_result_doubts(data.get("result") or {}), "yellow")
                    )
                ]
            case "approval.requested":
                self.asked[data["approval_id"]] = data
                return [_question_line(data)]
            case "approval.ended":
                return [_decision_line(self.asked.pop(data["approval_id"], None), data)]
            case "task.paused" if data.get("until_unix_ms"):
                return []  # What it waits for stands on a line of its own.
            case "task.paused":
                return [Text(f"held back: {data['reason']}", "bold yellow")]
            case "task.resumed":
                return [Text("the wait is over", "blue")]
            case "budget.alerted":
                return [Text(f"budget: {data['what']}", "yellow")]
            case "task.rejected":
                return [Text(f"task rejected: {data['message']}", "bold red")]
            case _:
                return [Text(name, "dim")]

    def _plan_lines(self, plan: dict[str, Any]) -> list[Text]:
        steps = plan["steps"]
        self.titles |= {step["id"]: step["title"] for step in steps}
        needed = {name for step in steps for name in step["inputs"]}
        sinks = [step["id"] for step in steps if step["id"] not in needed]
        self.final = sinks[0] if len(sinks) == 1 else ""
        version = f" (version {plan['version']})" if plan["version"] > 1 else ""
        lines = [Text(f"plan of {format_count(len(steps), 'step')}{version}", "blue")]
        for step in steps:
            after = f"  after {', '.join(step['inputs'])}" if step["inputs"] else ""
            tools = f"  with {', '.join(step['tools'])}" if step["tools"] else ""
            lines.append(Text.assemble("  ", (step["id"], "bold"), f" {step['title']}", (after + tools, "dim")))
        return lines

    def _step_started_line(self, data: dict[str, Any]) -> Text:
        step = data["step_id"]
        self.titles[step] = data["title"] or self.titles.get(step, "")
        self.running[step] = data["time_unix_ms"]
        attempt = f" (attempt {data['attempt']})" if data["attempt"] > 1 else ""
        until = f" waits until {format_time(data['until_unix_ms'])}" if data.get("until_unix_ms") else ""
        return Text.assemble(("▸ ", "cyan"), (step, "bold"), f" {self.titles[step]}{attempt}{until}")

    def _step_ended_line(self, data: dict[str, Any]) -> Text:
        step, usage = data["step_id"], data["usage"]
        took = data["time_unix_ms"] - self.running.pop(step, data["time_unix_ms"])
        self.done += data["outcome"] == "accepted"
        mark, style = {"accepted": ("✓ ", "green"), "rejected": ("↻ ", "yellow")}.get(data["outcome"], ("✗ ", "red"))
        reasons = f": {'; '.join(data['reasons'])}" if data["reasons"] and data["outcome"] != "accepted" else ""
        reasons += f", skips {', '.join(data['skipped'])}" if data.get("skipped") else ""
        result = data.get("result") or {}
        if data["outcome"] == "accepted" and result.get("answered") == "no":
            mark, style = "– ", "yellow"
        doubt = _result_doubts(result)
        total = usage["input_tokens"] + usage["output_tokens"]
        used = format_tokens(total, usage.get("estimated_tokens", 0))
        used += f", {format_cost(usage['cost_usd_micros'], usage.get('estimated_usd_micros', 0))}"
        paid = f"  {format_duration(took)}, {used}"
        if data["outcome"] == "failed":
            # It was cut: calls that were in the works are paid, and not in what it says of itself.
            paid = (
                f"  {format_duration(took)}, at least {used}"
                if total
                else (f"  {format_duration(took)}; `bulkhead timeline` shows the cost of its calls")
            )
        return Text.assemble(
            (mark, style), (step, "bold"), (f" {data['outcome']}", style), (doubt, "yellow"), reasons, (paid, "dim")
        )

    def render_live(self, width: int) -> Text:
        """The moving part: which steps run, and the end of the text of the final one."""
        rendered = Text()
        for step in self.running:
            rendered.append(f"  … {step} {self.titles.get(step, '')}\n", "cyan")
        for approval, data in self.asked.items():
            rendered.append(f"  {_waiting_line(approval, data)}\n", "bold yellow")
        text = self.texts.get(self.final, "") if self.final in self.running else ""
        wrapped = [
            line[start : start + width]
            for line in text.splitlines()
            for start in range(0, max(1, len(line)), max(20, width))
        ]
        for line in wrapped[-MAX_LIVE_LINES:]:
            rendered.append(f"  {line}\n", "italic")
        return rendered


def _call_line(name: str, data: Mapping[str, Any]) -> Text:
    """A call of a step, as it begins or ends."""
    style = "dim" if data.get("outcome", "found") in ("found", "succeeded") else "yellow"
    return Text.assemble("  ", (data["step_id"], "bold"), (f" {describe_call(name, data)}", style))


def _result_doubts(result: dict[str, Any]) -> str:
    complete = (result.get("completeness") or {}).get("complete")
    return answer.doubt_labels(result.get("standing"), complete, result.get("answered"))


class ConnectionLostNotice:
    """Says that the connection is lost and how long it is tried again; not more often than needed."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._said_at = -math.inf
        self.console: Console = err

    def __call__(self, error: MeshError, left_s: float) -> None:
        """Callback of `Task.events`."""
        if time.monotonic() - self._said_at < LOST_EVERY_S:
            return
        self._said_at = time.monotonic()
        if self._as_json:
            print_json({"event": "connection.lost", "data": {"why": str(error), "left_s": round(left_s)}})
            return
        minutes, left_seconds = divmod(round(left_s), 60)
        self.console.print(
            f"connection lost, trying again ({minutes}:{left_seconds:02d} left): {error}", style="yellow", markup=False
        )


async def print_progress(task: Task, console: Console) -> None:
    """Print a line per event until the task ends. Raises MeshError."""
    progress, lost = TaskProgress(), ConnectionLostNotice(as_json=False)
    if not console.is_terminal:
        async for event in task.events(on_lost=lost):
            for line in progress.render_event(event):
                console.print(line)
        return
    with Live(console=console, refresh_per_second=REFRESH_PER_S, transient=True) as live:
        lost.console = live.console  # Anything printed beside it would tear what moves.
        async for event in task.events(on_lost=lost):
            for line in progress.render_event(event):
                live.console.print(line)
            live.update(progress.render_live(console.width - 4))


async def watch_to_end(task: Task, console: Console, *, as_json: bool, complete: bool = False) -> Exit:
    """Follow a task to its end and print its answer. complete: one that is degraded, incomplete or partial is no
    success. Raises MeshError."""
    if as_json:
        async for event in task.events(on_lost=ConnectionLostNotice(as_json=True)):
            print_json({"event": event.name, "id": event.id, "data": event.data})
        document = await task.show()
        print_json({"event": "result", "data": document})
        return exit_of(document, complete=complete)
    await print_progress(task, console)
    document = await task.show()
    answer.print_answer(console, document)
    uncertain_writes.print_uncertain_writes(console, document)
    if complete and document["status"] == answer.GOOD and not answer.is_whole_answer(document):
        err.print(
            f"--require-complete: its answer is degraded, incomplete or partial; `bulkhead why {task.id}` shows why",
            style="yellow",
            markup=False,
        )
    return exit_of(document, complete=complete)


def exit_of(document: dict[str, Any], *, complete: bool = False) -> Exit:
    """0 for a task that succeeded, 5 where it is answered `no`, 4 for one that was refused, 1 for every other end.
    complete: see `watch_to_end`."""
    if document["status"] == answer.GOOD:
        if document.get("answered") == "no":
            return Exit.UNANSWERED
        return Exit.OK if answer.is_whole_answer(document) or not complete else Exit.FAILED
    return Exit.REFUSED if document["status"] == "rejected" else Exit.FAILED


def _waiting_line(approval: str, asked: Mapping[str, Any]) -> str:
    """Call that is waited for, and how to see it."""
    return f"waiting for a person: {_name_call(asked)}, bulkhead approvals show {approval[:APPROVAL_ID_CHARS]}"


def _name_call(asked: Mapping[str, Any]) -> str:
    """Question of a plan that a person decides, or the tool of the call."""
    # Not at the start of every command: it knows the forms of messages.
    from bulkhead.gateway_api.approvals import read_question

    question = read_question(asked["tool"], asked.get("arguments_json", ""))
    return question.text[:MAX_WHY_CHARS] if question is not None else str(asked["tool"])


def _question_line(data: Mapping[str, Any]) -> Text:
    """A question, when it is asked."""
    reasons = "; ".join(data["why"])
    reasons = reasons if len(reasons) <= MAX_WHY_CHARS else reasons[:MAX_WHY_CHARS] + "…"
    until = f", until {format_time(data['expires_unix_ms'])}"
    return Text.assemble(
        (_waiting_line(data["approval_id"], data), "bold yellow"),
        f" ({data['risk']} risk{f': {reasons}' if reasons else ''}){until}",
    )


def _decision_line(question: Mapping[str, Any] | None, data: Mapping[str, Any]) -> Text:
    """Its answer."""
    tool = f" {_name_call(question)}" if question is not None else ""
    reason = f": {data['reason']}" if data["reason"] else ""
    if not data["person"]:
        return Text(f"nobody decided about{tool or ' a call'} in time: it is not made", "bold yellow")
    took = (
        f" after {format_duration(max(0, data['ended_unix_ms'] - question['requested_unix_ms']))}" if question else ""
    )
    style = "green" if data["outcome"] == "granted" else "bold red"
    return Text.assemble((f"{data['person']} ({data['role']}) {data['outcome']}{tool}", style), f"{took}{reason}")
