"""A tenant's limits, read and changed through the gateway, and what it spent.

In: a target mesh, what is limited and how, or what to sum by. Out: limits as they stand, or sums; text or JSON.
"""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from bulkhead.amounts import clock, cost, counted, money, seconds
from bulkhead.client import Mesh, MeshError, Refused
from bulkhead_cli.limits import unknown_names
from bulkhead_cli.output import out, print_json, print_whole
from bulkhead_cli.target import Target

TRIES = 3
SPENT = ("cost", "tokens in", "tokens out", "model calls", "tool calls", "time of calls", "held")
COUNTED = ("tokens", "model_calls", "tool_calls")
AMOUNTS = ("cost_usd_micros", "tokens")
DAYS_OF_MONTH = 31


async def show_limits(target: Target, *, as_json: bool) -> None:
    """Print the limits. Raises MeshError."""
    async with target.mesh() as mesh:
        _show(await mesh.get("/v1/limits"), as_json=as_json)


async def set_limit(target: Target, of: str, units: dict[str, int], *, as_json: bool) -> None:
    """Set these units of one target; none at all removes it. A target that is not there gets a note. Raises
    MeshError."""
    async with target.mesh() as mesh:
        page, had = await _changed(mesh, of, units)
        note = (
            await unknown_names.of_limit(mesh, of)
            if units
            else ""
            if had
            else f"{of} had no limit; nothing was removed"
        )
    note = note or unreachable(of, units, page)
    _show(page | ({"note": note} if note else {}), as_json=as_json)


def unreachable(of: str, units: Mapping[str, int], page: Mapping[str, Any]) -> str:
    """A note on a limit that is never reached, because a lower one ends the work first; "" for one that can be."""
    policy = page.get("policy") or {}
    day: dict[str, int] = next((row["limit"] for row in page["limits"] if row["target"] == "day" != of), {})
    task = policy.get("task", {}) if of == "task" else {}
    lower = {"the policy for a day": policy.get("day", {}), "the policy for a task": task, "the limit of `day`": day}
    days = DAYS_OF_MONTH if of == "month" else 1
    names = [
        name
        for name, limit in lower.items()
        if any(limit.get(unit) is not None and limit[unit] * days < (units.get(unit) or 0) for unit in AMOUNTS)
    ]
    return f"{of} does not reach this limit, since a lower one comes first: {', '.join(names)}" if names else ""


async def _changed(mesh: Mesh, of: str, units: dict[str, int]) -> tuple[dict[str, Any], bool]:
    """The page as it is then, and whether the target had a limit before."""
    for attempt in range(TRIES):
        page = await mesh.get("/v1/limits")
        old: dict[str, int] = next((row["limit"] for row in page["limits"] if row["target"] == of), {})
        try:
            wanted = old | units if units else {}
            return await mesh.change_limit(of, wanted, expect_revision=page["revision"]), bool(old)
        except Refused as error:
            # Somebody else changed something in between: it must not be undone by what was read before.
            if error.code != "changed_meanwhile" or attempt == TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _show(page: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(page)
        return
    rows = [(row["target"], row["limit"]) for row in page["limits"]]
    rows += [(f"task/{row['task']} topped up", row["add"]) for row in page.get("top_ups", ())]
    _show_policy(page.get("policy"))
    if not rows:
        out.print("no limits beside the tenant's policy and each task's own")
        _show_alerts(page)
        return
    table = Table(box=None, pad_edge=False)
    for name in ("target", "cost", "tokens", "model calls", "tool calls", "time of calls"):
        table.add_column(name, no_wrap=True)
    for target, limit in rows:
        table.add_row(escape(target), *_ceilings(limit))
    print_whole(table)
    _show_alerts(page)


def _show_policy(policy: dict[str, Any] | None) -> None:
    """Print the limits of the tenant's policy, which only an operator of the mesh can change."""
    for name, what in (("day", "all its tasks of a day (UTC)"), ("task", "one task")):
        limit = (policy or {}).get(name) or {}
        cost, counts = limit.get("cost_usd_micros"), [unit for unit in COUNTED if limit.get(unit) is not None]
        said = [f"{limit[unit]:,} {unit.replace('_', ' ')}" for unit in counts]
        said = said if cost is None else [money(cost), *said]
        if said:
            out.print(f"the tenant's policy (tenants.yaml) allows {what}: {', '.join(said)}", style="dim", markup=False)


def _show_alerts(page: dict[str, Any]) -> None:
    if page.get("note"):
        out.print(f"note: {page['note']}", style="yellow", markup=False)
    for one in page.get("alerts", ()):
        out.print(f"{clock(one['alerted_unix_ms'])}  {one['what']}", style="yellow", markup=False)


def _ceilings(limit: dict[str, Any]) -> list[str]:
    cells = [money(limit["cost_usd_micros"]) if limit["cost_usd_micros"] is not None else "·"]
    cells += [f"{limit[unit]:,}" if limit[unit] is not None else "·" for unit in COUNTED]
    return [*cells, f"{limit['wall_ms'] // 1000:,} s" if limit["wall_ms"] is not None else "·"]


async def top_up(target: Target, task: str, units: dict[str, int], reason: str, *, as_json: bool) -> None:
    """Raise a task's limits, with a note when a lower limit still holds. Raises MeshError."""
    async with target.mesh() as mesh:
        found = await mesh.task(task).top_up(units, reason)
        try:
            note = unreachable(f"task/{task}", found["added"], await mesh.get("/v1/limits"))
        except MeshError:
            note = ""  # It was topped up all the same, and its answer was told.
    if as_json:
        print_json(found | ({"note": note} if note else {}))
        return
    added = ", ".join(one for one in _words(found["added"]) if one)
    out.print(f"task {task} may spend {added} beyond its limits, all top-ups together", markup=False)
    out.print(
        "it was halted at a limit and continues; if that was not the task's own limit (a feature's, a user's, the "
        f"day's ...), it waits until that one is raised: bulkhead why {task}"
        if found["resumed"]
        else "it was not halted at a limit",
        style="green" if found["resumed"] else "dim",
        markup=False,
    )
    if note:
        out.print(f"note: {note}", style="yellow", markup=False)


def _words(added: dict[str, Any]) -> list[str]:
    cost, wall = added["cost_usd_micros"], added["wall_ms"]
    counts = [f"{added[unit]:,} {unit.replace('_', ' ')}" if added[unit] else "" for unit in COUNTED]
    return [money(cost) if cost else "", *counts, f"{wall // 1000:,} s of calls" if wall else ""]


async def show_spending(target: Target, by: str, since: str, top: int, *, as_json: bool) -> None:
    """Print the cost of the tenant's calls. Raises MeshError."""
    async with target.mesh() as mesh:
        page = await mesh.get("/v1/spend", {"by": by, "since": since, "limit": str(top)})
    if as_json:
        print_json(page)
        return
    _show_spending(page)


def _show_spending(page: dict[str, Any]) -> None:
    since = clock(page["since_unix_ms"])
    if page["rows"]:
        table, failed = Table(box=None, pad_edge=False), page["total"]["spent"]["failed_calls"]
        for name in (page["by"], *SPENT, *(("failed attempts",) if failed else ())):
            table.add_column(name, no_wrap=True)
        rows = [(escape(row["name"]) or "(no name)", row) for row in page["rows"]]
        if page["rest_rows"]:
            rows.append((f"({page['rest_rows']:,} others)", page["rest"]))
        for name, row in rows:
            table.add_row(name, *_cells(row, failed=failed))
        table.add_row("all", *_cells(page["total"], failed=failed), style="bold")
        print_whole(table)
        out.print(f"calls that were admitted since {since}")
    else:
        out.print(f"no call was admitted since {since}")
    spent, held, late = page["total"]["spent"], page["total"]["held"], page["late"]
    if held["calls"]:
        out.print(
            f"held: at most {money(held['cost_usd_micros'])} for {counted(held['calls'], 'call')} that "
            "have not been settled"
        )
    if spent["cached_input_tokens"]:
        share = spent["cached_input_tokens"] / spent["input_tokens"]
        out.print(f"{counted(spent['cached_input_tokens'], 'token')} in ({share:.0%}) came from providers' caches")
    if spent["estimated"]:
        out.print(
            f"estimated: {money(spent['estimated_usd_micros'])} and {counted(spent['estimated_tokens'], 'token')} of "
            f"{counted(spent['estimated'], 'call')} whose provider told no usage (a cut stream, an error body); the "
            "provider's bill tells what they cost"
        )
    if spent["failed_calls"]:
        out.print(
            f"failed attempts (a retry, a fallback or an error followed): {counted(spent['failed_calls'], 'call')} for "
            f"{money(spent['failed_usd_micros'])} and {seconds(spent['failed_ms'])}, with the pauses after them"
        )
    if late["calls"]:
        out.print(
            f"in addition, {cost(late['cost_usd_micros'], late['estimated_usd_micros'])} and "
            f"{counted(late['tokens'], 'token')} of {counted(late['calls'], 'call')} were settled since then and "
            "admitted before"
        )
    if page["kept_unix_ms"]:
        out.print(
            f"complete since {clock(page['kept_unix_ms'])}: tasks that ended before may have been purged, and "
            f"their spending is not stored by {page['by']}"
        )


def _cells(row: dict[str, Any], *, failed: int) -> list[str]:
    """failed: whether there is a column of failed attempts."""
    spent, held = row["spent"], row["held"]
    counts = [f"{spent[unit]:,}" for unit in ("input_tokens", "output_tokens", "model_calls", "tool_calls")]
    cells = [
        cost(spent["cost_usd_micros"], spent["estimated_usd_micros"]),
        *counts,
        seconds(spent["wall_ms"]),
        money(held["cost_usd_micros"]) if held["calls"] else "·",
    ]
    if failed:
        vain = f"{spent['failed_calls']:,}: {money(spent['failed_usd_micros'])}, {seconds(spent['failed_ms'])}"
        cells.append(vain if spent["failed_calls"] else "·")
    return cells
