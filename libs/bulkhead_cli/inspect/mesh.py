"""`bulkhead mesh`: replicas, lag, failures and dead letters of each service, and the messages between services.

In: a target mesh, of which an operator's or auditor's key is needed. Out: tables or JSON.
"""

from typing import Any

from rich.table import Table

from bulkhead_cli.output import out, print_json, print_whole
from bulkhead_cli.target import Target

MS_PER_MINUTE = 60_000
WORDS = {"no_replica": "no replica", "full": "no room", "dead_letters": "dead letters", "failures": "failures"}
"""Troubles, the worst first."""


async def show_mesh(target: Target, *, as_json: bool) -> None:
    """Print the load of the whole mesh. Raises Stop, MeshError."""
    async with target.mesh() as mesh:
        found = await mesh.get("/v1/mesh")
    if as_json:
        print_json(found)
        return
    table = Table(box=None, pad_edge=False)
    for name in ("service", "state", "replicas", "waiting", "in work", "received/min", "failed/min", "dead letters"):
        table.add_column(name, no_wrap=True)
    window_ms = found["window_ms"]
    for one in found["services"]:
        words = [word for name, word in WORDS.items() if name in one["troubles"]]
        style = {"no_replica": "red"}.get(next(iter(one["troubles"]), ""), "yellow") if words else None
        failed = one["failed"] + one["rejected"]
        rates = [f"{_rate(count, window_ms):,}" for count in (one["received"], failed)]
        waits = [_known(one[part]) for part in ("pending", "in_work")]
        table.add_row(
            *(
                one["service"],
                ", ".join(words) or ("unknown" if one["listens"] is None else "ok"),
                _replicas(one),
                *waits,
                *rates,
                f"{one['dead_letters']:,}",
            ),
            style=style,
        )
    print_whole(table)
    out.print()
    if not found["edges"]:
        out.print("no message was stored in the last minute")
    for one in found["edges"]:
        rate = _rate(one["messages"], window_ms)
        out.print(f"{one['sender']} -> {one['receiver']}: {rate:,} messages a minute", markup=False)


def _rate(messages: int, window_ms: int) -> int:
    """A minute's worth; what happened at all is at least one."""
    return max(min(messages, 1), round(messages * MS_PER_MINUTE / window_ms)) if window_ms else 0


def _known(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def _replicas(one: dict[str, Any]) -> str:
    return "1 or more" if one["replicas"] is None and one["listens"] else _known(one["replicas"])
