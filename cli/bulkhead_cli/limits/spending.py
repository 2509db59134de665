"""A tenant's limits, read and changed through the gateway, and what it spent.

In: a target mesh, what is limited and how, or what to sum by. Out: limits as they stand, or sums; text or JSON.
"""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from bulkhead.client import Mesh, MeshError, Refused
from bulkhead.client.request_checks import check_query
from bulkhead.gateway_api.operators import LimitsQuery, SpendingQuery
from bulkhead.text.amounts import format_cost, format_count, format_duration, format_time, format_usd
from bulkhead_cli.limits import unknown_names
from bulkhead_cli.output import print_json
from bulkhead_cli.query_command import show_reply
from bulkhead_cli.screen import out, print_whole
from bulkhead_cli.target import GatewayTarget

TRIES = 3
SPENT = ("cost", "tokens in", "tokens out", "model calls", "tool calls", "time of calls", "held")
COUNTED = ("tokens", "model_calls", "tool_calls")
AMOUNTS = ("cost_usd_micros", "tokens")
USAGE_CLASSES = {
    "reasoning_tokens": "reasoning",
    "cache_write_tokens": "written to caches",
    "cache_write_1h_tokens": "of them for an hour",
    "input_audio_tokens": "audio in",
    "cached_audio_tokens": "of them cached",
    "input_image_tokens": "image in",
    "output_audio_tokens": "audio out",
    "output_image_tokens": "image out",
}
DAYS_OF_MONTH = 31


async def show_limits(target: GatewayTarget, *, as_json: bool) -> None:
    """Print the limits. Raises MeshError."""
    async with target.mesh_client() as mesh:
        _print_limits(await mesh.read_json(LimitsQuery()), as_json=as_json)


async def set_limit(target: GatewayTarget, of: str, units: dict[str, int], reason: str = "", *, as_json: bool) -> None:
    """Set these units of one target; none at all removes it. A target that is not there gets a note. Raises
    MeshError."""
    async with target.mesh_client() as mesh:
        page, had = await _change_limit(mesh, of, units, reason)
        note = (
            await unknown_names.limit_target_note(mesh, of)
            if units
            else ""
            if had
            else f"{of} had no limit; nothing was removed"
        )
    note = note or unreachable_limit_note(of, units, page)
    _print_limits(page | ({"note": note} if note else {}), as_json=as_json)


def unreachable_limit_note(of: str, units: Mapping[str, int], page: Mapping[str, Any]) -> str:
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


async def _change_limit(mesh: Mesh, of: str, units: dict[str, int], reason: str) -> tuple[dict[str, Any], bool]:
    """The page as it is then, and whether the target had a limit before."""
    for attempt in range(TRIES):
        page = await mesh.read_json(LimitsQuery())
        old: dict[str, int] = next((row["limit"] for row in page["limits"] if row["target"] == of), {})
        try:
            new_limit = old | units if units else {}
            return await mesh.change_limit(of, new_limit, expect_revision=page["revision"], reason=reason), bool(old)
        except Refused as error:
            # Somebody else changed something in between: it must not be undone by what was read before.
            if error.code != "changed_meanwhile" or attempt == TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _print_limits(page: dict[str, Any], *, as_json: bool) -> None:
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
        table.add_row(escape(target), *_ceiling_cells(limit))
    print_whole(table)
    _show_alerts(page)


def _show_policy(policy: dict[str, Any] | None) -> None:
    """Print the limits of the tenant's policy, which only an operator of the mesh can change."""
    for name, scope in (("day", "all its tasks of a day (UTC)"), ("task", "one task")):
        limit = (policy or {}).get(name) or {}
        cost, counts = limit.get("cost_usd_micros"), [unit for unit in COUNTED if limit.get(unit) is not None]
        allowances = [f"{limit[unit]:,} {unit.replace('_', ' ')}" for unit in counts]
        allowances = allowances if cost is None else [format_usd(cost), *allowances]
        if allowances:
            out.print(
                f"the tenant's policy (tenants.yaml) allows {scope}: {', '.join(allowances)}", style="dim", markup=False
            )


def _show_alerts(page: dict[str, Any]) -> None:
    if page.get("note"):
        out.print(f"note: {page['note']}", style="yellow", markup=False)
    for alert in page.get("alerts", ()):
        out.print(f"{format_time(alert['alerted_unix_ms'])}  {alert['what']}", style="yellow", markup=False)


def _ceiling_cells(limit: dict[str, Any]) -> list[str]:
    cells = [format_usd(limit["cost_usd_micros"]) if limit["cost_usd_micros"] is not None else "·"]
    cells += [f"{limit[unit]:,}" if limit[unit] is not None else "·" for unit in COUNTED]
    return [*cells, f"{limit['wall_ms'] // 1000:,} s" if limit["wall_ms"] is not None else "·"]


async def top_up(target: GatewayTarget, task: str, units: dict[str, int], reason: str, *, as_json: bool) -> None:
    """Raise a task's limits, with a note when a lower limit still holds. Raises MeshError."""
    async with target.mesh_client() as mesh:
        answer = await mesh.task(task).top_up(units, reason)
        try:
            note = unreachable_limit_note(f"task/{task}", answer["added"], await mesh.read_json(LimitsQuery()))
        except MeshError:
            note = ""  # It was topped up all the same, and its answer was told.
    if as_json:
        print_json(answer | ({"note": note} if note else {}))
        return
    added = ", ".join(amount for amount in _render_added_units(answer["added"]) if amount)
    out.print(f"task {task} may spend {added} beyond its limits, all top-ups together", markup=False)
    out.print(
        "it was halted at a limit and continues; if that was not the task's own limit (a feature's, a user's, the "
        f"day's ...), it waits until that one is raised: bulkhead why {task}"
        if answer["resumed"]
        else "it was not halted at a limit",
        style="green" if answer["resumed"] else "dim",
        markup=False,
    )
    if note:
        out.print(f"note: {note}", style="yellow", markup=False)


def _render_added_units(added: dict[str, Any]) -> list[str]:
    cost, wall = added["cost_usd_micros"], added["wall_ms"]
    counts = [f"{added[unit]:,} {unit.replace('_', ' ')}" if added[unit] else "" for unit in COUNTED]
    return [format_usd(cost) if cost else "", *counts, f"{wall // 1000:,} s of calls" if wall else ""]


async def show_spending(target: GatewayTarget, by: str, since: str, top: int, *, as_json: bool) -> None:
    """Print the cost of the tenant's calls. Raises MeshError."""
    query = check_query(SpendingQuery, {"by": by, "since": since, "limit": top})
    await show_reply(target, query, _print_spending, as_json=as_json)


def _print_spending(page: dict[str, Any]) -> None:
    since = format_time(page["since_unix_ms"])
    if page["rows"]:
        table, failed = Table(box=None, pad_edge=False), page["total"]["spent"]["failed_calls"]
        for name in (page["by"], *SPENT, *(("failed attempts",) if failed else ())):
            table.add_column(name, no_wrap=True)
        rows = [(escape(row["name"]) or "(no name)", row) for row in page["rows"]]
        if page["rest_rows"]:
            rows.append((f"({page['rest_rows']:,} others)", page["rest"]))
        for name, row in rows:
            table.add_row(name, *_spending_cells(row, failed=failed))
        table.add_row("all", *_spending_cells(page["total"], failed=failed), style="bold")
        print_whole(table)
        out.print(f"calls that were admitted since {since}")
    else:
        out.print(f"no call was admitted since {since}")
    spent, reserved, late = page["total"]["spent"], page["total"]["held"], page["late"]
    if reserved["calls"]:
        out.print(
            f"held: at most {format_usd(reserved['cost_usd_micros'])} for "
            f"{format_count(reserved['calls'], 'call')} that "
            "have not been settled"
        )
    if spent["cached_input_tokens"]:
        share = spent["cached_input_tokens"] / spent["input_tokens"]
        out.print(f"{format_count(spent['cached_input_tokens'], 'token')} in ({share:.0%}) came from providers' caches")
    if classes := [f"{spent[name]:,} {words}" for name, words in USAGE_CLASSES.items() if spent.get(name)]:
        out.print(f"tokens with a price of their own: {', '.join(classes)}")
    if spent["estimated"]:
        out.print(
            f"estimated: {format_usd(spent['estimated_usd_micros'])} and "
            f"{format_count(spent['estimated_tokens'], 'token')} of "
            f"{format_count(spent['estimated'], 'call')} whose provider told no usage (a cut stream, "
            "an error body); the "
            "provider's bill tells what they cost"
        )
    if spent["failed_calls"]:
        out.print(
            "failed attempts (a retry, a fallback or an error followed): "
            f"{format_count(spent['failed_calls'], 'call')} for "
            f"{format_usd(spent['failed_usd_micros'])} and {format_duration(spent['failed_ms'])}, "
            "with the pauses after them"
        )
    if late["calls"]:
        out.print(
            f"in addition, {format_cost(late['cost_usd_micros'], late['estimated_usd_micros'])} and "
            f"{format_count(late['tokens'], 'token')} of {format_count(late['calls'], 'call')} were "
            "settled since then and "
            "admitted before"
        )
    if page["kept_unix_ms"]:
        out.print(
            f"complete since {format_time(page['kept_unix_ms'])}: tasks that ended before may have been purged, and "
            f"their spending is not stored by {page['by']}"
        )


def _spending_cells(row: dict[str, Any], *, failed: int) -> list[str]:
    """failed: whether there is a column of failed attempts."""
    spent, reserved = row["spent"], row["held"]
    counts = [f"{spent[unit]:,}" for unit in ("input_tokens", "output_tokens", "model_calls", "tool_calls")]
    cells = [
        format_cost(spent["cost_usd_micros"], spent["estimated_usd_micros"]),
        *counts,
        format_duration(spent["wall_ms"]),
        format_usd(reserved["cost_usd_micros"]) if reserved["calls"] else "·",
    ]
    if failed:
        vain = (
            f"{spent['failed_calls']:,}: {format_usd(spent['failed_usd_micros'])}, "
            f"{format_duration(spent['failed_ms'])}"
        )
        cells.append(vain if spent["failed_calls"] else "·")
    return cells
