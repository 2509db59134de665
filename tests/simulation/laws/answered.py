"""A task is answered `yes` only where something was delivered and none of its writes was lost. The scripted judge says
yes to everything, so that facts alone speak against it.

In: a Record. Out: complaints.
"""

from collections.abc import Iterator

from tests.simulation.laws.reading import body, said, wishes
from tests.simulation.laws.record import Record

WRITES = "counter_increment"
"""How the names of all tools begin that write."""
Attempt = tuple[str, str, int]
"""Task, step, attempt."""


def complain(record: Record) -> Iterator[str]:
    """See the module."""
    ends = {task: body(rows[0]) for task, rows in said(record, "INBOX_GATEWAY", "mesh.task.ended").items()}
    accepted = _accepted(record)
    lost = _lost_writes(record)
    for wish, task in wishes(record):
        end = ends.get(task, {})
        if (end.get("result") or {}).get("answered") != "yes":
            continue
        if task in record.views and not record.views[task]["answer"]:
            yield f"{wish.name} is answered `yes`, and nothing was delivered"
        for step in accepted & lost.keys():
            if step[0] == task:
                yield f"{wish.name} is answered `yes`, and {', '.join(sorted(lost[step]))} was not done in {step[1]}"


def _accepted(record: Record) -> set[Attempt]:
    """Attempts whose result stands, of tasks with one plan: of several, they cannot be told apart here."""
    plans = said(record, "INBOX_GATEWAY", "mesh.plan.adopted")
    return {
        (task, row["step_id"], row["attempt"])
        for task, rows in said(record, "INBOX_GATEWAY", "mesh.task.step_ended").items()
        for row in map(body, rows)
        if row["outcome"] == "accepted" and len(plans.get(task, ())) == 1
    }


def _lost_writes(record: Record) -> dict[Attempt, set[str]]:
    """Writes that were asked for, and of which no reply says that they were done."""
    asked = {
        (task, call["step_id"], call["attempt"], call["call_id"]): call["tool"]
        for task, rows in said(record, "INBOX_TOOL_EXECUTOR", "mesh.tool.call_requested").items()
        for call in map(body, rows)
        if call["tool"].startswith(WRITES)
    }
    replies: dict[tuple[str, str], set[str]] = {}
    for task, rows in said(record, "INBOX_WORKER", "mesh.tool.call_replied").items():
        for reply in map(body, rows):
            replies.setdefault((task, reply["call_id"]), set()).add(reply["outcome"])
    lost: dict[Attempt, set[str]] = {}
    for (task, step, attempt, call_id), tool in asked.items():
        outcomes = replies.get((task, call_id), set())
        if outcomes and "succeeded" not in outcomes:
            lost.setdefault((task, step, attempt), set()).add(tool)
    return lost
