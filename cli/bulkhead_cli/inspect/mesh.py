"""`bulkhead mesh`: replicas, lag, failures and dead letters of each service, and the messages between services.

In: a target mesh, of which an operator's or auditor's key is needed. Out: tables or JSON.
"""

from typing import Any

from rich.table import Table

from bulkhead_cli.output import out, print_json, print_whole
from bulkhead_cli.target import GatewayTarget

MS_PER_MINUTE = 60_000
WORDS = {"no_replica": "no replica", "full": "no room", "dead_letters": "dead letters", "failures": "failures"}
"""Troubles, the worst first."""


async def show_mesh(target: GatewayTarget, *, as_json: bool) -> None:
    """Print the load of the whole mesh. Raises CommandError, MeshError."""
    async with target.mesh_client() as mesh:
        load = await mesh.get("/v1/mesh")
    if as_json:
        print_json(load)
        return
    table = Table(box=None, pad_edge=False)
    for name in ("service", "state", "replicas", "waiting", "in work", "received/min", "failed/min", "dead letters"):
        table.add_column(name, no_wrap=True)
    window_ms = load["window_ms"]
    for row in load["services"]:
        words = [trouble for name, trouble in WORDS.items() if name in row["troubles"]]
        style = {"no_replica": "red"}.get(next(iter(row["troubles"]), ""), "yellow") if words else None
        failed = row["failed"] + row["rejected"]
        rates = [f"{_per_minute(count, window_ms):,}" for count in (row["received"], failed)]
        waits = [_render_count(row[part]) for part in ("pending", "in_work")]
        table.add_row(
            *(
                row["service"],
                ", ".join(words) or ("unknown" if row["listens"] is None else "ok"),
                _render_replicas(row),
                *waits,
                *rates,
                f"{row['dead_letters']:,}",
            ),
            style=style,
        )
    print_whole(table)
    out.print()
    if not load["edges"]:
        out.print("no message was stored in the last minute")
    for row in load["edges"]:
        rate = _per_minute(row["messages"], window_ms)
        out.print(f"{row['sender']} -> {row['receiver']}: {rate:,} messages a minute", markup=False)


def _per_minute(messages: int, window_ms: int) -> int:
    """A minute's worth; what happened at all is at least one."""
    return max(min(messages, 1), round(messages * MS_PER_MINUTE / window_ms)) if window_ms else 0


def _render_count(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def _render_replicas(one: dict[str, Any]) -> str:
    return "1 or more" if one["replicas"] is None and one["listens"] else _render_count(one["replicas"])
