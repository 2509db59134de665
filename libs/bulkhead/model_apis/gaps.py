"""Parts of a conversation that are left out, each named in its place and to whoever asked. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_TOLD = 8


@dataclass(frozen=True, slots=True)
class Gap:
    """A part that is left out. what: its name; why: the reason, in words that a model and a person read."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"

    @property
    def text(self) -> str:
        """The words that stand in its place."""
        return f"[{self.what} left out: {self.why}]"


def count_gaps(gaps: Iterable[Gap]) -> list[tuple[Gap, int]]:
    """Each gap once, with how often it is there."""
    counts: dict[Gap, int] = {}
    for gap in gaps:
        counts[gap] = counts.get(gap, 0) + 1
    return list(counts.items())


def describe_gaps(rows: Sequence[str]) -> str:
    """Several of them in one line."""
    extra = [f"{len(rows) - MAX_TOLD} more"] if len(rows) > MAX_TOLD else []
    return "; ".join([*rows[:MAX_TOLD], *extra])
