"""Geometry of what the console draws: a plan as a layered graph, a circle of waits as a ring. Pure.

In: steps with their inputs. Out: numbers and names for SVG templates; lengths in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NODE_WIDTH, NODE_HEIGHT, GAP_X, GAP_Y, MARGIN = 190, 46, 56, 18, 6
RING_GAP_X, RING_GAP_Y = 84, 40


@dataclass(frozen=True, slots=True)
class DrawnStep:
    """One step of a plan. inputs: ids of steps on whose results it builds; others are ignored."""

    id: str
    title: str
    inputs: tuple[str, ...] = ()
    status: str = "waiting"
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class PlanNode:
    """A step with its place."""

    step: DrawnStep
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class LayeredGraph:
    """edges: as SVG paths, from the side of a step to that of the one that needs it."""

    nodes: tuple[PlanNode, ...]
    edges: tuple[str, ...]
    width: int
    height: int


def draw_layers(steps: Sequence[DrawnStep]) -> LayeredGraph:
    """Each step in the column behind its last input; within a column beside its inputs. An input that closes a circle
    moves no step: its edge leads back."""
    columns: dict[str, int] = {}
    inputs = _without_circles(steps)
    for _ in steps:  # Inputs come before the steps that need them, in whatever order they stand.
        for step in steps:
            columns[step.id] = max((columns.get(name, 0) + 1 for name in inputs[step.id]), default=0)
    rows: dict[str, int] = {}
    for column in sorted(set(columns.values())):
        column_steps = [step for step in steps if columns[step.id] == column]
        for row, step in enumerate(sorted(column_steps, key=lambda one: _middle_row(one, rows))):
            rows[step.id] = row
    nodes = {
        step.id: PlanNode(
            step, MARGIN + columns[step.id] * (NODE_WIDTH + GAP_X), MARGIN + rows[step.id] * (NODE_HEIGHT + GAP_Y)
        )
        for step in steps
    }
    edges = tuple(_edge_path(nodes[name], nodes[step.id]) for step in steps for name in step.inputs if name in nodes)
    width = max((node.x for node in nodes.values()), default=0) + NODE_WIDTH + MARGIN
    height = max((node.y for node in nodes.values()), default=0) + NODE_HEIGHT + MARGIN
    return LayeredGraph(tuple(nodes.values()), edges, width, height)


def _without_circles(steps: Sequence[DrawnStep]) -> dict[str, list[str]]:
    """The known inputs of each step without those that lead back to it, by a search in depth."""
    step_inputs = {step.id: tuple(dict.fromkeys(step.inputs)) for step in steps}
    acyclic: dict[str, list[str]] = {}
    for first in step_inputs:
        path = {first: iter(step_inputs[first])} if first not in acyclic else {}
        acyclic.setdefault(first, [])
        while path:
            step = next(reversed(path))
            name = next(path[step], None)
            if name is None:
                del path[step]
            elif name in step_inputs and name not in path:
                acyclic[step].append(name)
                if name not in acyclic:
                    acyclic[name], path[name] = [], iter(step_inputs[name])
    return acyclic


def _middle_row(step: DrawnStep, rows: Mapping[str, int]) -> float:
    above = [rows[name] for name in step.inputs if name in rows]
    return sum(above) / len(above) if above else len(rows)


def _edge_path(start: PlanNode, end: PlanNode) -> str:
    x, y, to_x, to_y = start.x + NODE_WIDTH, start.y + NODE_HEIGHT // 2, end.x, end.y + NODE_HEIGHT // 2
    bend = max(GAP_X // 2, (to_x - x) // 2)
    return f"M{x} {y}C{x + bend} {y} {to_x - bend} {to_y} {to_x} {to_y}"


@dataclass(frozen=True, slots=True)
class RingArrow:
    """From a party to the one that it waits for, with a word beside it."""

    path: str
    x: int
    y: int
    said: str


@dataclass(frozen=True, slots=True)
class WaitRing:
    """A circle of parties."""

    nodes: tuple[PlanNode, ...]
    arrows: tuple[RingArrow, ...]
    width: int
    height: int


def draw_ring(parties: Sequence[DrawnStep], labels: Sequence[str]) -> WaitRing:
    """The parties around two rows, each with an arrow to the next, and the last with one to the first. labels: one for
    each arrow."""
    upper = (len(parties) + 1) // 2
    across, down = NODE_WIDTH + RING_GAP_X, NODE_HEIGHT + RING_GAP_Y
    places = [(at, 0) for at in range(upper)] + [(upper - 1 - at, 1) for at in range(len(parties) - upper)]
    nodes = tuple(
        PlanNode(step, MARGIN + column * across, MARGIN + row * down)
        for step, (column, row) in zip(parties, places, strict=True)
    )
    pairs = zip(nodes, (*nodes[1:], nodes[0]), labels, strict=True)
    width, height = MARGIN * 2 + upper * across - RING_GAP_X, MARGIN * 2 + down + NODE_HEIGHT
    return WaitRing(nodes, tuple(_draw_arrow(start, end, label) for start, end, label in pairs), width, height)


def _draw_arrow(start: PlanNode, end: PlanNode, label: str) -> RingArrow:
    """Along a row from side to side; between the rows down on the right and up on the left, where two parties meet."""
    if start.y == end.y:
        right = end.x > start.x
        x, to_x = (start.x + NODE_WIDTH, end.x) if right else (start.x, end.x + NODE_WIDTH)
        y, tip = start.y + NODE_HEIGHT // 2, -6 if right else 6
        head = f"M{to_x + tip} {y - 4}L{to_x} {y}L{to_x + tip} {y + 4}"
        return RingArrow(f"M{x} {y}L{to_x} {y}{head}", (x + to_x) // 2, y - 8, label)
    below = end.y > start.y
    y, to_y = (start.y + NODE_HEIGHT, end.y) if below else (start.y, end.y + NODE_HEIGHT)
    aside = NODE_WIDTH * 2 // 3 if below else NODE_WIDTH // 3
    x, to_x, tip = start.x + aside, end.x + aside, -6 if below else 6
    head = f"M{to_x - 4} {to_y + tip}L{to_x} {to_y}L{to_x + 4} {to_y + tip}"
    return RingArrow(f"M{x} {y}L{to_x} {to_y}{head}", (x + to_x) // 2, (y + to_y) // 2 + 4, label)
