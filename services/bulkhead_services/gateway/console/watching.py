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

from bulkhead.runtime.background import cancel
from bulkhead_services.gateway.console.api import OPENED, Json
from bulkhead_services.gateway.console.drawing import Step, layered
from bulkhead_services.gateway.console.pages import render

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
class Watched:
    """The steps and texts that were told up to now."""

    steps: dict[str, Step] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def pieces(self, name: str, data: Json) -> list[tuple[str, str]]:
        """The pieces that an event adds to the page."""
        if name == "text":
            return [("text", self._text(data))]
        self._fold(name, data)
        said = render("tasks/said.html", name=name, what=_said(name, data, self.steps), data=data)
        return [("said", said)]

    def graph(self) -> str:
        """The plan as it stands."""
        return render("tasks/graph.html", graph=layered(tuple(self.steps.values())), element_of=element_of)

    def _fold(self, name: str, data: Json) -> None:
        if name == "plan.adopted":
            rows = [Step(one["id"], one["title"], tuple(one["inputs"])) for one in data["plan"]["steps"]]
            known = {row.id: self.steps.get(row.id, row) for row in rows}
            self.steps = {row.id: replace(known[row.id], title=row.title, inputs=row.inputs) for row in rows}
        elif name in ("step.started", "step.ended"):
            step = self.steps.get(data["step_id"], Step(data["step_id"], ""))
            title = step.title or data.get("title", "")
            state = "running" if name == "step.started" else data["outcome"]
            tries = step.attempts + (name == "step.started")
            self.steps[step.id] = replace(step, title=title, status=state, attempts=tries)
        elif name in LAST:
            running = [step for step in self.steps.values() if step.status == "running"]
            self.steps |= {step.id: replace(step, status="stopped") for step in running}

    def _text(self, data: Json) -> str:
        step, piece = data["step_id"], data["text"]
        before = self.texts.get(step)
        whole = (before or "")[: data["offset"]] + piece
        self.texts[step] = whole
        grows = before is not None and not data["replace"] and data["offset"] == len(before)
        title = self.steps[step].title if step in self.steps else ""
        shown = {"element": element_of(step), "title": title or step, "fresh": before is None}
        return render("tasks/text.html", **shown, grows=grows, text=piece if grows else whole)


def _said(name: str, data: Json, steps: dict[str, Step]) -> str:
    """An event in words."""
    if name in SAID:
        return SAID[name]
    step = steps.get(str(data.get("step_id", "")))
    title = (step.title or step.id) if step else ""
    reasons = "; ".join(str(one) for one in data.get("reasons") or ())
    match name:
        case "plan.adopted":
            return f"plan {data['plan']['version']}: " + ", ".join(one.title or one.id for one in steps.values())
        case "plan.rejected":
            notes = "; ".join(str(one.get("message", "")) for one in data.get("notes") or ())
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
            return _ended(data)


def _ended(data: Json) -> str:
    failure: Any = data.get("failure") or data
    why = f": {failure['message']}" if failure.get("message") else ""
    return f"{data.get('status', 'rejected')}{why}"


async def followed(events: AsyncIterator[tuple[str, Json]]) -> AsyncIterator[tuple[str, str]]:
    """The page's events. Raises Refused. `now`, `story`, `ended`: read anew what the API tells of the task."""
    loop, watched = asyncio.get_running_loop(), Watched()
    held: asyncio.Queue[tuple[str, Json] | None] = asyncio.Queue(HELD_EVENTS)

    async def read() -> None:
        async for event in events:
            await held.put(event)

    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: None if held.full() else held.put_nowait(None))
    owed, ended = set[str](), False
    due = dict.fromkeys(GAPS_S, loop.time() + GAPS_S["now"]) | {"graph": 0.0}
    try:
        while True:
            if held.empty():
                for name in [name for name in GAPS_S if name in owed and (ended or loop.time() >= due[name])]:
                    yield name, watched.graph() if name == "graph" else "*"
                    owed.remove(name)
                    due[name] = loop.time() + GAPS_S[name]
            if reading.done() and held.empty():
                break
            wait_s = max(0.0, min(due[name] for name in owed) - loop.time()) if owed and held.empty() else None
            try:
                event = await asyncio.wait_for(held.get(), wait_s)
            except TimeoutError:
                continue
            if event is None:
                continue
            name, data = event
            if name == OPENED:
                yield "live", "*"
                yield "begin", render("tasks/begin.html")
                continue
            owed |= GAPS_S.keys() if name != "text" else set()
            ended = ended or name in LAST
            for piece in watched.pieces(name, data):
                yield piece
        reading.result()
        if ended:
            yield "ended", "*"
            yield "done", "*"
    finally:
        await cancel(reading)
