"""A turn as its task runs: what its steps look at and what they write, as pieces of HTML.

In: events of the API's stream, from its beginning. Out: names and pieces of HTML for the page. A page that comes back
gets all of them again, after `begin`, which empties what it shows.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from markupsafe import Markup

from bulkhead.text.live_calls import CALL_EVENTS
from bulkhead_contracts.plan import PlanStep
from bulkhead_services.gateway.console.api import OPENED, Json
from bulkhead_services.gateway.console.pages import render_template
from bulkhead_services.gateway.console.watching import LAST, LiveTexts, element_of

STANDING = frozenset({"plan.proposed", "approval.requested", "approval.ended", "step.started"}) | {
    f"task.{change}" for change in ("queued", "released", "accepted", "paused", "resumed")
}
"""Events after which a turn stands otherwise: it waits, for something else, or goes on."""


@dataclass(slots=True)
class TurnDoings:
    """Rows of what is done in a turn, as its events tell it: one for each step, call and question to a person."""

    task_id: str
    titles: dict[str, str] = field(default_factory=dict)
    unshown: set[str] = field(default_factory=set)
    """Steps without work of their own."""
    rows: dict[str, Markup] = field(default_factory=dict)

    def render_event(self, name: str, data: Json) -> str:
        """The row that an event adds or replaces; "" where it changes none."""
        if name == "plan.adopted":
            self.titles |= {step["id"]: step["title"] for step in data["plan"]["steps"]}
            steps = map(PlanStep.model_validate, data["plan"]["steps"])
            self.unshown |= {step.id for step in steps if step.action == "noop" and not step.adopted}
        if name in CALL_EVENTS:
            key = data["call_id"]
        elif name in ("step.started", "step.ended") and data["step_id"] not in self.unshown:
            key = f"step {data['step_id']}"
        elif name in ("approval.requested", "approval.ended"):
            key = data["approval_id"]
        elif name == "plan.proposed":
            key = name
        else:
            return ""
        values = {"name": name, "data": data, "title": self.titles.get(data.get("step_id", ""), "")}
        element = element_of(f"{self.task_id} {key}")
        is_known = key in self.rows
        row = render_template("chat/doing.html", element=element, known=False, **values)
        self.rows[key] = Markup(row)  # noqa: S704  The template has escaped it.
        return render_template("chat/doing.html", element=element, known=True, **values) if is_known else row


async def follow_turn(task_id: str, events: AsyncIterator[tuple[str, Json]]) -> AsyncIterator[tuple[str, str]]:
    """The page's events: `begin`, `doing` and `text` with HTML; `standing`, `ended`: read how it stands, or the turn,
    anew. Raises ApiRefused."""
    doings, texts, ended = TurnDoings(task_id), LiveTexts(task_id), False
    async for name, data in events:
        if name == OPENED:
            yield "live", "*"
            yield "begin", render_template("chat/begin.html", task_id=task_id)
        elif name == "text":
            yield name, texts.render_text(data)
        else:
            if html := texts.note_event(name, data):
                yield "text", html
            if html := doings.render_event(name, data):
                yield "doing", html
            ended = ended or name in LAST
            if name in STANDING and not ended:
                yield "standing", "*"
    if ended:
        yield "ended", "*"
        yield "done", "*"
