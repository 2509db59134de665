"""Steps, the windows of them that the loop detectors look at, and findings. In: nothing. Out: values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from bulkhead.health.text import result_status

Level = Literal["warn", "stop"]
MAX_STEP_CHARS = 800
"""Length to which the text and the answer of a step are kept."""


@dataclass(slots=True)
class Step:
    """One act of a view.

    same: digest of agent, call and result; call, result: of each. index: position in the lineage. text: what it asks
    or says; answer: its result; length: of the whole result. state: as `looks.State`. waited: a deliberate pause lies
    before it. reads, watches: it only looks; it looks at what moves, by its name. shown: how many different figures the
    call has shown. blind: it moves on from where it stands, and its answer does not show what came of it. work: a text
    that the recording calls work.
    """

    id: str
    agent: str
    action: str
    same: int
    call: int
    result: int
    index: int
    time_unix_ms: int = 0
    error: bool = False
    says: bool = False
    to: str = ""
    text: str = field(default="", repr=False)
    answer: str = field(default="", repr=False)
    length: int = 0
    state: result_status.State = ""
    waited: bool = False
    reads: bool = False
    watches: bool = False
    shown: int = 0
    blind: bool = False
    work: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A loop. period: acts per round; rounds: how many were seen; evidence: ids of acts, oldest first."""

    family: str
    level: Level
    period: int
    rounds: int
    evidence: tuple[str, ...]
    agents: tuple[str, ...]
    what: str


Window = Sequence[Step]


def finding(family: str, level: Level, period: int, rounds: int, part: Window, what: str) -> Finding:
    """A finding in a part of a window."""
    agents = tuple(dict.fromkeys(step.agent for step in part))
    return Finding(family, level, period, rounds, tuple(step.id for step in part), agents, what)
