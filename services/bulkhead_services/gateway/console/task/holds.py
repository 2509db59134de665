"""The reason why a task does not go on, in one line, and the act that ends it.

In: a visit, the task's document. Out: a Hold; the API is asked which halt or breaker it is.
"""

import re
from dataclasses import dataclass

from bulkhead_services.gateway.console.api import Json
from bulkhead_services.gateway.console.visits import Visit

COMMANDS = re.compile(r"[.;]? (It goes on after `|An operator gives it more: ).*", re.DOTALL)
"""Advice for a terminal, for which the page has a button."""


@dataclass(frozen=True, slots=True)
class Hold:
    """kind: queue, approval, plan, skip, halt, budget or breaker. reason: with what holds it. scope, name: of the halt
    or breaker, "" where none stands any more. link: to the page of the act. plan: as the API has the one that waits, or
    whose step may be skipped."""

    kind: str
    reason: str
    step_id: str = ""
    scope: str = ""
    name: str = ""
    link: str = ""
    until_unix_ms: int = 0
    plan: Json | None = None


async def find_hold(visit: Visit, task: Json) -> Hold | None:
    """The hold of a task; None for one that goes on or has ended."""
    queue, pause = task["queue"], task["pause"]
    if queue:
        places = f"{queue['running']} of {queue['limit']} places of the {queue['full']} are taken"
        return Hold("queue", f"{places}, {queue['ahead']} tasks wait before it")
    if not pause:
        return None
    reason, step_id = COMMANDS.sub("", pause["reason"]), pause["step_id"]
    match pause["code"]:
        case "halted_by_operator":
            halts = (await visit.get_or("/v1/halts", {"halts": []}))["halts"]
            scope, name = _named_in(halts, reason, task["task_id"])
            return Hold("halt", reason, step_id, scope, name)
        case "breaker_open":
            breakers = (await visit.get_or("/v1/breakers", {"breakers": []}))["breakers"]
            scope, name = _named_in([row for row in breakers if row["phase"] != "closed"], reason, task["task_id"])
            return Hold("breaker", reason, step_id, scope, name)
        case "budget_exceeded":
            return Hold("budget", reason, step_id)
        case "plan_review":
            plan = await visit.get(f"/v1/tasks/{task['task_id']}/plan")
            reason = "the plan waits for a person"
            return Hold("plan", reason, until_unix_ms=pause["until_unix_ms"], plan=plan if plan["plan"] else None)
        case "step_failed":
            plan = await visit.get(f"/v1/tasks/{task['task_id']}/plan")
            return Hold("skip", reason, step_id, until_unix_ms=pause["until_unix_ms"], plan=plan)
        case _ if pause["until_unix_ms"] or pause["code"] == "approval_wanted":
            query = {"state": "waiting", "task": task["task_id"]}
            rows = (await visit.get_or("/v1/approvals", {"approvals": []}, query))["approvals"]
            link = f"/approvals/{rows[0]['approval_id']}" if len(rows) == 1 else f"/approvals?task={task['task_id']}"
            return Hold("approval", reason, step_id, link=link, until_unix_ms=pause["until_unix_ms"])
    return Hold("other", reason, step_id)


def _named_in(switches: list[Json], reason: str, task_id: str) -> tuple[str, str]:
    """Scope and name of the halt or breaker that a reason names: the first, for people's words stand behind it."""
    named: list[tuple[int, str, str]] = []
    for switch in switches:
        scope, name = switch["scope"], switch["called"] or switch["name"]
        if scope == "task" and name == task_id and reason.startswith("the task "):
            return scope, name
        if scope != "task" and (place := reason.find(f"{scope} {name} is ")) >= 0:
            named.append((place, scope, name))
    return min(named)[1:] if named else ("", "")
