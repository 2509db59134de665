"""Geometry of the mesh: each service at its place, an edge between two that spoke lately. Pure.

In: the API's answer. Out: numbers and words for the template; lengths in pixels.
"""

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

NODE_WIDTH, NODE_HEIGHT, COLUMN, ROW, MARGIN = 176, 66, 270, 50, 8
PLACES = {
    "gateway": (0, 2),
    "doors": (0, 4),
    "signer": (0, 6),
    "planner": (1, 1),
    "checker": (1, 3),
    "worker": (2, 0),
    "registry": (1, 6),
    "budget": (2, 6),
    "tool_executor": (3, 0),
    "rag": (3, 2),
    "model_gateway": (3, 4),
}
"""Column and half row of each service: work flows to the right, out into the world."""
WIDTH = 2 * MARGIN + NODE_WIDTH + COLUMN * max(column for column, _ in PLACES.values())
HEIGHT = 2 * MARGIN + NODE_HEIGHT + ROW * max(row for _, row in PLACES.values())
"""The same for whatever services there are: a service that goes moves no other."""
FLOWS = (
    ("gateway", "planner"),
    ("doors", "model_gateway"),
    ("signer", "planner"),
    ("planner", "worker"),
    ("planner", "checker"),
    ("worker", "tool_executor"),
    ("worker", "rag"),
    ("worker", "model_gateway"),
    ("checker", "model_gateway"),
    ("budget", "model_gateway"),
)
"""Edges that are drawn, faint, when nothing went along them lately."""
MS_PER_MINUTE = 60_000
TROUBLES = {"no_replica": "no replica", "full": "no room", "dead_letters": "dead letters", "failures": "failures"}
"""Words for what the API names, the worst first."""
SEVERE = frozenset({"no_replica"})


@dataclass(frozen=True, slots=True)
class ServiceNode:
    """A service at its place. status: its colour, as a plan's steps have them; word: the same for who sees none."""

    load: Json
    x: int
    y: int
    status: str
    word: str


@dataclass(frozen=True, slots=True)
class ServiceEdge:
    """A line between two, and the rates both ways in messages a minute. x, y: of its label."""

    path: str
    said: str
    label: str
    x: int
    y: int
    failed: bool


@dataclass(frozen=True, slots=True)
class MeshDrawing:
    """Services and edges; a service without a place is in the table alone."""

    nodes: tuple[ServiceNode, ...]
    edges: tuple[ServiceEdge, ...]
    width: int
    height: int


def draw_mesh(mesh: Json) -> MeshDrawing:
    """The mesh as it is told."""
    loads = {load["service"]: load for load in mesh["services"]}
    nodes = {name: _draw_node(load) for name, load in loads.items() if name in PLACES}
    rates: dict[tuple[str, str], dict[tuple[str, str], int]] = {
        (sender, to): {} for sender, to in FLOWS if sender in nodes and to in nodes
    }
    for edge in mesh["edges"]:
        sender, receiver = edge["sender"], edge["receiver"]
        if sender in nodes and receiver in nodes and sender != receiver:
            first, second = sorted((sender, receiver), key=lambda name: PLACES[name])
            rates.setdefault((first, second), {})[sender, receiver] = per_minute(edge["messages"], mesh["window_ms"])
    edges = tuple(
        _draw_edge(nodes[first], nodes[second], pair_rates) for (first, second), pair_rates in sorted(rates.items())
    )
    return MeshDrawing(tuple(nodes.values()), edges, WIDTH, HEIGHT)


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A service in the table. word: its trouble, `ok`, or `unknown` where nobody knows whether it is there. sends: its
    rates by receiver."""

    load: Json
    word: str
    colour: str
    replicas: str
    sends: tuple[tuple[str, int], ...]


def table_rows(mesh: Json) -> tuple[ServiceRow, ...]:
    """Services as the table has them."""
    sends: dict[str, list[tuple[str, int]]] = {}
    for edge in mesh["edges"]:
        rate = per_minute(edge["messages"], mesh["window_ms"])
        sends.setdefault(edge["sender"], []).append((edge["receiver"], rate))
    return tuple(
        ServiceRow(
            load,
            worst_trouble(load) or ("unknown" if load["listens"] is None else "ok"),
            "failed" if SEVERE & set(load["troubles"]) else "degraded",
            replica_text(load),
            tuple(sends.get(load["service"], ())),
        )
        for load in mesh["services"]
    )


def per_minute(messages: int, window_ms: int) -> int:
    """A rate; what happened at all is at least one."""
    return max(min(messages, 1), round(messages * MS_PER_MINUTE / window_ms)) if window_ms else 0


def worst_trouble(load: Json) -> str:
    """The worst trouble of a service in words; "" without any."""
    if load["pending"] is None and load["listens"] is False:
        return "no answer"
    return next((label for name, label in TROUBLES.items() if name in load["troubles"]), "")


def services_needing_person(mesh: Json) -> list[Json]:
    """Services that a person should look at: work waits that nobody takes, or messages that nobody could handle."""
    return [load for load in mesh["services"] if {"no_replica", "dead_letters"} & set(load["troubles"])]


def replica_text(load: Json) -> str:
    """Number of replicas in words, as far as it is known."""
    count, listens = load["replicas"], load["listens"]
    if count is not None:
        return f"{count} replica{'' if count == 1 else 's'}"
    if load["pending"] is None and listens is not None:
        return "answers" if listens else "does not answer"
    return "1 or more replicas" if listens else "replicas unknown"


def _draw_node(load: Json) -> ServiceNode:
    column, row = PLACES[load["service"]]
    trouble_text = worst_trouble(load)
    status = (
        "failed"
        if SEVERE & set(load["troubles"])
        else "stopped"
        if trouble_text
        else "running"
        if load["received"]
        else ""
    )
    return ServiceNode(load, MARGIN + column * COLUMN, MARGIN + row * ROW, status, trouble_text)


def _draw_edge(start: ServiceNode, end: ServiceNode, rates: dict[tuple[str, str], int]) -> ServiceEdge:
    start_name, end_name = start.load["service"], end.load["service"]
    forward_rate, backward_rate = rates.get((start_name, end_name), 0), rates.get((end_name, start_name), 0)
    description = " and ".join(f"{sender} to {to}: {rate} a minute" for (sender, to), rate in sorted(rates.items()))
    failed = "no_replica" in [*start.load["troubles"], *end.load["troubles"]]
    if start.x == end.x:
        x, y, to_y = start.x + NODE_WIDTH // 2, start.y + NODE_HEIGHT, end.y
        label = "  ".join([f"↓ {forward_rate}"] * bool(forward_rate) + [f"↑ {backward_rate}"] * bool(backward_rate))
        return ServiceEdge(f"M{x} {y}L{x} {to_y}", description, label, x, (y + to_y) // 2, failed)
    x, y, to_x, to_y = start.x + NODE_WIDTH, start.y + NODE_HEIGHT // 2, end.x, end.y + NODE_HEIGHT // 2
    bend = (COLUMN - NODE_WIDTH) // 2
    # An edge that passes other services runs level to the last gap, and has its label in the gap before them.
    level_x = to_x - (COLUMN - NODE_WIDTH)
    passes = level_x > x
    middle = x + bend, y if passes else y + (to_y - y) // 2
    label = "  ".join([f"→ {forward_rate}"] * bool(forward_rate) + [f"← {backward_rate}"] * bool(backward_rate))
    turn_x = to_x - bend
    lane = f"M{x} {y}H{level_x}" if passes else f"M{x} {y}"
    curve = f"{lane}C{turn_x} {y} {turn_x} {to_y} {to_x} {to_y}"
    return ServiceEdge(curve, description, label, *middle, failed)
