"""A task as it runs: events of its stream become a growing plan, a commentary, and the text as it is written.

In: events of the API's stream, from its beginning. Out: names and pieces of HTML for the page. A page that comes back
gets all of it again, after `begin`, which empties what it shows: nothing is there twice, whatever was lost. Where many
events come together, as they do at the beginning, the page looks again once, after the last of them.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from bulkhead.runtime.background import cancel_tasks
from bulkhead_services.gateway.console.api import OPENED, Json
from bulkhead_services.gateway.console.drawing import DrawnStep, draw_layers
from bulkhead_services.gateway.console.pages import render_template

GAPS_S = {"graph": 0.2, "now": 0.2, "story": 1.5, "waits": 3.0}
"""Between two looks at how the task stands, at its story, which is read from the journal, and at its waits."""
HELD_EVENTS = 64
LAST = ("task.ended", "task.rejected")
SAID = {
    "task.queued": "waits for a place to run",
    "task.released": "has a place to run",
    "task.accepted": "is taken up; a plan is made",
    "task.resumed": "goes on",
}


def element_of(step_id: str) -> str:
    """A name for a page's element that stands for a step."""
    return hashlib.blake2b(step_id.encode(), digest_size=6).hexdigest()


@dataclass(slots=True)
class LiveProgress:
    """The steps and texts that were told up to now."""

    steps: dict[str, DrawnStep] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def page_pieces(self, name: str, data: Json) -> list[tuple[str, str]]:
        """The pieces that an event adds to the page."""
        if name == "text":
            return [("text", self._render_text(data))]
        self._apply_event(name, data)
        html = render_template("tasks/said.html", name=name, what=_event_text(name, data, self.steps), data=data)
        return [("said", html)]

    def render_graph(self) -> str:
        """The plan as it stands."""
        return render_template("tasks/graph.html", graph=draw_layers(tuple(self.steps.values())), element_of=element_of)

    def _apply_event(self, name: str, data: Json) -> None:
        if name == "plan.adopted":
            rows = [
                DrawnStep(planned["id"], planned["title"], tuple(planned["inputs"]))
                for planned in data["plan"]["steps"]
            ]
            known_steps = {row.id: self.steps.get(row.id, row) for row in rows}
            self.steps = {row.id: replace(known_steps[row.id], title=row.title, inputs=row.inputs) for row in rows}
        elif name in ("step.started", "step.ended"):
            step = self.steps.get(data["step_id"], DrawnStep(data["step_id"], ""))
            title = step.title or data.get("title", "")
            state = "running" if name == "step.started" else data["outcome"]
            tries = step.attempts + (name == "step.started")
            self.steps[step.id] = replace(step, title=title, status=state, attempts=tries)
        elif name in LAST:
            running = [step for step in self.steps.values() if step.status == "running"]
            self.steps |= {step.id: replace(step, status="stopped") for step in running}

    def _render_text(self, data: Json) -> str:
        step, piece = data["step_id"], data["text"]
        before = self.texts.get(step)
        full_text = (before or "")[: data["offset"]] + piece
        self.texts[step] = full_text
        grows = before is not None and not data["replace"] and data["offset"] == len(before)
        title = self.steps[step].title if step in self.steps else ""
        labels = {"element": element_of(step), "title": title or step, "fresh": before is None}
        return render_template("tasks/text.html", **labels, grows=grows, text=piece if grows else full_text)


def _event_text(name: str, data: Json, steps: dict[str, DrawnStep]) -> str:
    """An event in words."""
    if name in SAID:
        return SAID[name]
    step = steps.get(str(data.get("step_id", "")))
    title = (step.title or step.id) if step else ""
    reasons = "; ".join(str(reason) for reason in data.get("reasons") or ())
    match name:
        case "plan.adopted":
            return f"plan {data['plan']['version']}: " + ", ".join(
                planned.title or planned.id for planned in steps.values()
            )
        case "plan.rejected":
            notes = "; ".join(str(note.get("message", "")) for note in data.get("notes") or ())
            return "a draft of the plan was refused" + (f": {notes}" if notes else "")
        case "step.started":
            return f"{title}: begins" + (f", attempt {data['attempt']}" if data["attempt"] > 1 else "")
        case "step.ended":
            return f"{title}: {data['outcome']}" + (f", {reasons}" if reasons else "")
        case "task.paused":
            return f"waits: {data.get('reason', '')}"
        case "approval.requested":
            return f"{title}: waits for a person to decide about {data.get('tool', 'a call')}"
        case "approval.ended":
            return f"a person's decision: {data.get('outcome', '')}"
        case "budget.alerted":
            return str(data.get("what", "a limit is near"))
        case _:
            return _end_text(data)


def _end_text(data: Json) -> str:
    failure: Any = data.get("failure") or data
    reason = f": {failure['message']}" if failure.get("message") else ""
    return f"{data.get('status', 'rejected')}{reason}"


async def follow_task(events: AsyncIterator[tuple[str, Json]]) -> AsyncIterator[tuple[str, str]]:
    """The page's events. Raises ApiRefused. `now`, `story`, `ended`: read anew what the API tells of the task."""
    loop, progress = asyncio.get_running_loop(), LiveProgress()
    queue: asyncio.Queue[tuple[str, Json] | None] = asyncio.Queue(HELD_EVENTS)

    async def read_events() -> None:
        async for event in events:
            await queue.put(event)

    reading = asyncio.create_task(read_events())
    reading.add_done_callback(lambda _: None if queue.full() else queue.put_nowait(None))
    owed, ended = set[str](), False
    due = dict.fromkeys(GAPS_S, loop.time() + GAPS_S["now"]) | {"graph": 0.0}
    try:
        while True:
            if queue.empty():
                for name in [name for name in GAPS_S if name in owed and (ended or loop.time() >= due[name])]:
                    yield name, progress.render_graph() if name == "graph" else "*"
                    owed.remove(name)
                    due[name] = loop.time() + GAPS_S[name]
            if reading.done() and queue.empty():
                break
            wait_s = max(0.0, min(due[name] for name in owed) - loop.time()) if owed and queue.empty() else None
            try:
                event = await asyncio.wait_for(queue.get(), wait_s)
            except TimeoutError:
                continue
            if event is None:
                continue
            name, data = event
            if name == OPENED:
                yield "live", "*"
                yield "begin", render_template("tasks/begin.html")
                continue
            owed |= GAPS_S.keys() if name != "text" else set()
            ended = ended or name in LAST
            for piece in progress.page_pieces(name, data):
                yield piece
        reading.result()
        if ended:
            yield "ended", "*"
            yield "done", "*"
    finally:
        await cancel_tasks(reading)
