"""A tenant's limits, read and changed through the gateway.

In: a target mesh, what is limited and how. Out: the limits as they stand, text or JSON.
"""

from typing import Any

from rich.markup import escape
from rich.table import Table

from bulkhead.cli.output import money, out, print_json, print_whole
from bulkhead.cli.target import Target
from bulkhead.client import Mesh, Refused

TRIES = 3
COUNTED = ("tokens", "model_calls", "tool_calls")


async def show_limits(target: Target, *, as_json: bool) -> None:
    """What stands. Raises MeshError."""
    async with target.mesh() as mesh:
        _show(await mesh.get("/v1/limits"), as_json=as_json)


async def set_limit(target: Target, of: str, units: dict[str, int], *, as_json: bool) -> None:
    """Set these units of one target; none at all removes it. Raises MeshError."""
    async with target.mesh() as mesh:
        _show(await _changed(mesh, of, units), as_json=as_json)


async def _changed(mesh: Mesh, of: str, units: dict[str, int]) -> dict[str, Any]:
    for attempt in range(TRIES):
        page = await mesh.get("/v1/limits")
        old = next((row["limit"] for row in page["limits"] if row["target"] == of), {})
        try:
            return await mesh.change_limit(of, old | units if units else {}, expect_revision=page["revision"])
        except Refused as error:
            # Somebody else changed something in between: it must not be undone by what was read before.
            if error.code != "changed_meanwhile" or attempt == TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _show(page: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(page)
        return
    if not page["limits"]:
        out.print("no limits beside the tenant's policy and each task's own")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("target", "cost", "tokens", "model calls", "tool calls", "time of calls"):
        table.add_column(name, no_wrap=True)
    for row in page["limits"]:
        limit = row["limit"]
        cells = [money(limit["cost_usd_micros"]) if limit["cost_usd_micros"] is not None else "·"]
        cells += [f"{limit[unit]:,}" if limit[unit] is not None else "·" for unit in COUNTED]
        cells.append(f"{limit['wall_ms'] // 1000:,} s" if limit["wall_ms"] is not None else "·")
        table.add_row(escape(row["target"]), *cells)
    print_whole(table)
