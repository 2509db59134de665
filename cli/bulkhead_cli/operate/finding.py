"""One thing that `bulkhead doctor` looked at: what, how it stands, what to do."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """`todo` is empty when nothing is to be done."""

    what: str
    level: Level
    detail: str
    todo: str = ""
