"""The schedule of a run, pure. In: a seed, a time, how far blows lie apart. Out: who is killed or stopped, and when."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bulkhead_infra.local.supervisor import BROKER, MODEL, REDIS, START_ORDER

Deed = Literal["kill", "freeze"]
EVERYTHING, EMPTIED = "everything", "redis, emptied"
MCP_SERVER, WORKER, BUS_WORKER = "mcp server", "outside worker", "outside worker on the bus"
OUTSIDE = (MCP_SERVER, WORKER, BUS_WORKER)
DECK: tuple[tuple[str, Deed], ...] = (
    *((name, deed) for name in (*START_ORDER, BROKER, REDIS, *OUTSIDE, EVERYTHING) for deed in ("kill", "freeze")),
    (EMPTIED, "kill"),
    # A killed provider would take its log along, by which the ledger is judged.
    (MODEL, "freeze"),
)
"""Every blow that there is. A schedule deals all of them before one comes again."""
FROZEN_S = (0.3, 6.0)


@dataclass(frozen=True, slots=True)
class Blow:
    """A blow, in seconds from the beginning. for_s: of a freeze."""

    at_s: float
    victim: str
    deed: Deed
    for_s: float = 0.0

    @property
    def end_s(self) -> float:
        """The time at which the victim may go on, or be started again."""
        return self.at_s + self.for_s

    def __str__(self) -> str:
        stopped = f" for {self.for_s:.1f} s" if self.deed == "freeze" else ""
        return f"{self.at_s:6.1f} s  {self.deed} {self.victim}{stopped}"


def draw_schedule(seed: int, seconds: float, gap_s: float) -> tuple[Blow, ...]:
    """The blows of a seed, in order. gap_s: between two of them, on average."""
    draw = random.Random(f"chaos {seed}")
    deck = _deal_cards(draw)
    blows, at_s = [], draw.uniform(0.5, 1.5) * gap_s
    while at_s < seconds:
        victim, deed = next(deck)
        for_s = round(draw.uniform(*FROZEN_S), 1) if deed == "freeze" else 0.0
        blows.append(Blow(round(at_s, 1), victim, deed, for_s))
        at_s += draw.uniform(0.3, 1.7) * gap_s
    return tuple(blows)


def _deal_cards(draw: random.Random) -> Iterator[tuple[str, Deed]]:
    while True:
        cards = list(DECK)
        draw.shuffle(cards)
        yield from cards
