"""Words and the clock of the twins: invented words in English, German and Spanish sentences; parallel agents.

In: a random generator. Out: texts, values, traces.
"""

from datetime import UTC, datetime, timedelta, timezone
from random import Random

from tests.health_set.runs.traces import Trace
from tests.health_set.runs.words import TEXTS, digest, stamp, token, uuid

__all__ = ["Parallel", "digest", "hexa", "name", "noun", "said", "stamp", "tell", "token", "uuid"]

ONSETS = TEXTS["onsets"]
VOWELS = TEXTS["vowels"]
CODAS = TEXTS["codas"]
ENGLISH = TEXTS["english"]
GERMAN = TEXTS["german"]
SPANISH = TEXTS["spanish"]
TONGUES = {"en": ENGLISH, "de": GERMAN, "es": SPANISH}


def noun(rng: Random) -> str:
    """A word that nobody has seen."""
    parts = (rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.choice((1, 2, 2, 3))))
    return "".join(parts) + rng.choice(CODAS)


def name(rng: Random) -> str:
    """The same, of a person or a place."""
    return noun(rng).capitalize()


def said(rng: Random, tongue: str = "en") -> str:
    """One sentence of its own."""
    parts = (noun(rng), name(rng), rng.randint(2, 980), noun(rng), name(rng))
    return rng.choice(TONGUES[tongue]).format(*parts)


def tell(rng: Random, least: int = 2, most: int = 4, tongue: str = "en") -> str:
    """Some sentences."""
    return " ".join(said(rng, tongue) for _ in range(rng.randint(least, most)))


def hexa(rng: Random, length: int = 8) -> str:
    """Hexadecimal digits."""
    return f"{rng.getrandbits(4 * length):0{length}x}"


class Parallel(Trace):
    """A trace by a fourth clock: quick and slow models, pauses with a long tail, times with an offset or in seconds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.offset = self.rng.choice((None, None, 0, 2, -5))
        self.pace = self.rng.choice((0.4, 1.5, 6.0))

    def _add(self, row: dict[str, object], pause: float | None, tokens: int, more: dict[str, object]) -> None:
        self.now_s += self.rng.lognormvariate(0, 0.8) * self.pace if pause is None else pause
        row |= {"task": self.task, "tokens": tokens} | more
        if self.timed and self.offset is not None:
            zone = timezone(timedelta(hours=self.offset)) if self.offset else UTC
            row["time"] = datetime.fromtimestamp(self.now_s, zone).isoformat(timespec="microseconds")
        elif self.timed:
            row["time"] = round(self.now_s, 6)
        self.rows.append(row)
