"""Values of the loop detectors: steps, windows of steps, and the loops that are found in them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bulkhead.health.findings import Level
from bulkhead.health.text import result_status

MAX_STEP_CHARS = 800
"""Length to which the text and the answer of a step are kept."""


@dataclass(slots=True)
class LoopStep:
    """One act of a view.

    same: digest of agent, call and result; call, result: of each. index: position in the lineage. text: the request or
    message; answer: its result; length: of the whole result. state: see ResultState. waited: a deliberate pause
    precedes it. reads: it only looks; watches: by its name it looks at something that moves. shown: number of different
    figures that the call has shown. blind: it moves on, and its answer does not show the effect. work: a text that the
    recording calls work. begins: as in `Act`. early: how often it was asked for again before its pause was over.
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
    state: result_status.ResultState = ""
    waited: bool = False
    reads: bool = False
    watches: bool = False
    shown: int = 0
    blind: bool = False
    work: bool = False
    begins: bool = False
    early: int = 0


Window = Sequence[LoopStep]


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop. period: acts per round; rounds: how many were seen; part: its acts, oldest first."""

    family: str
    level: Level
    period: int
    rounds: int
    part: Window
    what: str

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents that take part, in the order of their first acts."""
        return tuple(dict.fromkeys(step.agent for step in self.part))
