"""Words and the clock of the twins: invented words in English, German and Spanish sentences; parallel agents.

In: a random generator. Out: texts, values, traces.
"""

from datetime import UTC, datetime, timedelta, timezone
from random import Random

from tests.health_set.runs.traces import Trace
from tests.health_set.runs.words import digest, stamp, token, uuid

__all__ = ["Parallel", "digest", "hexa", "name", "noun", "said", "stamp", "tell", "token", "uuid"]

ONSETS = "b br c ch d dr f fl g gl h j k kl l m n p pl qu r s sch st t tr v w z".split()  # noqa: SIM905
VOWELS = "a e i o u ai ei ou oa ie".split()  # noqa: SIM905
CODAS = "l m n r s t x nd rk lt mp ng ss".split()  # noqa: SIM905
ENGLISH = (
    "The {0} of {1} holds {2} {3}s, as {4} noticed.",
    "Once {4} moved the {0}, only {2} of the {3}s were left.",
    "Is the {0} near {1} the same as the {3}?",
    "I would weigh the {0} first: {2} grams of {3}, says {4}.",
    "{4} wrote down that no {0} in {1} ever met a {3}.",
    "Behind the {0} there are {2} more {3}s, mostly in {1}.",
    "What {4} calls a {0} is a {3} with {2} teeth.",
    "Between {1} and here the {0} loses its {3}.",
    "Nobody but {4} may open the {0}; the {3} is for {1}.",
    "If the {0} rings {2} times, the {3} has come.",
)
GERMAN = (
    "Der {0} aus {1} hat {2} {3}, sagt {4}.",
    "Ohne {4} bleibt vom {0} nur ein {3} in {1}.",
    "Warum steht der {0} {2} Meter neben dem {3}?",
    "Ich habe mit {4} den {0} in {1} gezählt: {2}.",
    "Erst der {0}, dann {2} Mal der {3}; so will es {4}.",
    "In {1} nennt man den {3} einen {0}.",
    "Der {3} passt nicht zum {0}, meint {4} aus {1}.",
    "Nach {2} Tagen war der {0} ein {3}.",
)
SPANISH = (
    "El {0} de {1} tiene {2} {3}, dice {4}.",
    "Sin {4} no hay {0} en {1}.",
    "¿Por qué pesa el {0} {2} kilos?",
    "Primero el {3}, luego {2} veces el {0}.",
    "En {1} el {0} se llama {3}, según {4}.",
    "{4} dejó {2} {3} junto al {0}.",
)
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
