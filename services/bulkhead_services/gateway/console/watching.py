"""A task as it runs: events of its stream tell an open page when to look again, and the text as it is written.

In: events of the API's stream, from its beginning. Out: names and pieces of HTML for the page. A page that comes back
gets all texts again, after `begin`, which empties what it shows: nothing is there twice, whatever was lost. Where many
events come together, as they do at the beginning, the page looks again once, after the last of them.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from bulkhead.runtime.background import cancel_tasks
from bulkhead_services.gateway.console.api import OPENED, Json
from bulkhead_services.gateway.console.pages import render_template

GAPS_S = {"head": 0.2, "story": 1.0}
"""Between two looks at how the task stands, and at its story, which is read from the journal."""
HELD_EVENTS = 64
LAST = ("task.ended", "task.rejected")


@dataclass(slots=True)
class LiveTexts:
    """The texts that steps have written up to now, with the steps' titles. task_id: where a page has several."""

    task_id: str = ""
    titles: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def note_event(self, name: str, data: Json) -> str:
        """Take an event's titles. Returns what it changes in the page: a step that has ended writes no more."""
        if name == "plan.adopted":
            self.titles |= {step["id"]: step["title"] for step in data["plan"]["steps"]}
        if name == "step.ended" and self.texts.pop(data["step_id"], None) is not None:
            return f'<section id="writes-{element_of(self.task_id + data["step_id"])}" hx-swap-oob="delete"></section>'
        return ""

    def render_text(self, data: Json) -> str:
        """The piece of the page that a text adds or replaces."""
        step, piece = data["step_id"], data["text"]
        before = self.texts.get(step)
        full_text = (before or "")[: data["offset"]] + piece
        self.texts[step] = full_text
        grows = before is not None and not data["replace"] and data["offset"] == len(before)
        labels = {
            "element": element_of(self.task_id + step),
            "title": self.titles.get(step) or step,
            "fresh": before is None,
        }
        return render_template("tasks/text.html", **labels, grows=grows, text=piece if grows else full_text)


def element_of(step_id: str) -> str:
    """A name for the page's element of a step."""
    return hashlib.blake2b(step_id.encode(), digest_size=6).hexdigest()


async def follow_task(events: AsyncIterator[tuple[str, Json]]) -> AsyncIterator[tuple[str, str]]:
    """The page's events. Raises ApiRefused. `head`, `story`, `ended`: read anew what the API tells of the task."""
    loop, live_texts = asyncio.get_running_loop(), LiveTexts()
    queue: asyncio.Queue[tuple[str, Json] | None] = asyncio.Queue(HELD_EVENTS)

    async def read_events() -> None:
        async for event in events:
            await queue.put(event)

    reading = asyncio.create_task(read_events())
    reading.add_done_callback(lambda _: None if queue.full() else queue.put_nowait(None))
    owed, ended = set[str](), False
    due = dict.fromkeys(GAPS_S, loop.time() + GAPS_S["head"])
    try:
        while True:
            if queue.empty():
                for name in [name for name in GAPS_S if name in owed and (ended or loop.time() >= due[name])]:
                    yield name, "*"
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
            if name == "text":
                yield name, live_texts.render_text(data)
                continue
            if html := live_texts.note_event(name, data):
                yield "text", html
            owed |= GAPS_S.keys()
            ended = ended or name in LAST
        reading.result()
        if ended:
            yield "ended", "*"
            yield "done", "*"
    finally:
        await cancel_tasks(reading)
