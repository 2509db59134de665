"""Writes of a task that may or may not have been done, and what a person has said of each.

In: a task's document. Out: resolutions by write; a refusal to run the task again while one of its writes is unresolved.
"""

from bulkhead_services.gateway.console.api import ApiRefused, Json
from bulkhead_services.gateway.console.visits import Visit

NAMED = 3
"""Unresolved writes that a refusal names."""


async def read_resolutions(visit: Visit, task: Json) -> dict[str, Json]:
    """Resolutions of the task's uncertain writes by people, by the write's id."""
    if not any(write["write_id"] for write in task["uncertain_writes"] or ()):
        return {}
    page = await visit.get_or("/v1/writes", {"writes": []}, {"task": task["task_id"], "state": "all"})
    return {write["write_id"]: write["resolution"] for write in page["writes"] if write["resolution"]}


async def require_resolved_writes(visit: Visit, task: Json) -> None:
    """Raises ApiRefused while nobody has said of a write of the task whether it was done: to run it again may do it
    twice."""
    title = "A write is unresolved"
    hint = "open the task and say whether it was done, then retry; its Fork shows which writes would be made again"
    if task["uncertain_writes"] is None:
        detail = "its uncertain writes cannot be listed now"
        raise ApiRefused(503, {"title": title, "detail": detail, "hint": "try again in a moment"})
    resolutions = await read_resolutions(visit, task)
    unresolved = [write for write in task["uncertain_writes"] if write["write_id"] not in resolutions]
    if unresolved or task["more_uncertain_writes"]:
        names = [f"{write['tool']} in {write['title'] or write['step_id']}" for write in unresolved[:NAMED]]
        unnamed_count = len(unresolved) - len(names) + task["more_uncertain_writes"]
        named = ", ".join([*names, *([f"{unnamed_count} more"] if unnamed_count else [])])
        raise ApiRefused(409, {"title": title, "detail": f"nobody knows whether this was done: {named}", "hint": hint})
