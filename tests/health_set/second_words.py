"""Words of the second set: another vocabulary, other sentences, another clock.

In: a random generator. Out: texts, values, traces.
"""

from random import Random

from tests.health_set.traces import Trace
from tests.health_set.words import digest, stamp, token, uuid

__all__ = [
    "PEOPLE",
    "PLACES",
    "THINGS",
    "Paced",
    "digest",
    "paragraph",
    "path",
    "query",
    "sentence",
    "stamp",
    "token",
    "uuid",
]

PEOPLE = (
    "Ayla Demir",
    "Benoit Caron",
    "Cem Yildiz",
    "Daria Popova",
    "Eoin Walsh",
    "Freya Nilsen",
    "Goran Babic",
    "Ines Costa",
    "Jun Park",
    "Kofi Boateng",
    "Leila Amari",
    "Milan Kovac",
    "Nora Haug",
    "Oscar Vidal",
    "Priya Nair",
    "Rui Tanaka",
    "Selma Aksoy",
    "Tomas Blaha",
    "Wanda Kral",
    "Yusuf Bello",
)
PLACES = (
    "ward 3",
    "the Kepler field",
    "dock 9",
    "bay K",
    "the northern array",
    "theatre 2",
    "site Umbra",
    "lab 41",
    "the reactor hall",
    "gate C",
    "the herbarium",
    "station Vega",
    "row 17",
    "the cleanroom",
)
THINGS = (
    "spectrum",
    "biopsy",
    "affidavit",
    "enzyme",
    "transit curve",
    "catheter",
    "subpoena",
    "isotope",
    "seismogram",
    "placebo",
    "deed",
    "antibody",
    "meteorite",
    "ruling",
    "culture",
    "bolometer",
    "suture",
    "precedent",
    "pulsar",
)
NOUNS = """
patient judge photon kernel membrane witness orbit tissue clause detector plaintiff neuron exhibit reagent crater
counsel
vessel appeal plasma surgeon telescope statute protein defendant flare clinic juror sample comet graft hearing pixel
molecule bailiff nebula scalpel oath bacterium asteroid ledger spleen contract ion verdict retina magnet motion gene
""".split()  # noqa: SIM905
QUALITIES = """
faint chronic void saline elliptic hostile benign pending bright acute moot stellar viral sworn dense lateral civil cold
sterile binding red-shifted porous hearsay ionised mild tacit distal lunar toxic joint opaque febrile implied thermal
""".split()  # noqa: SIM905
ACTS = """
exceeds rejects absorbs overturns precedes irritates obscures confirms dissolves outlives contradicts magnifies inhibits
revokes eclipses punctures cites scatters tolerates waives orbits infects settles refracts stabilises forfeits triggers
""".split()  # noqa: SIM905
LINKS = ("because", "whereas", "until", "and therefore", "even though", "which means that", "as soon as", "in case")
OPENINGS = (
    "On reflection,",
    "In {place},",
    "According to {person},",
    "At {n} kelvin,",
    "By section {n},",
    "Day {n}:",
    "To my surprise,",
    "Strictly speaking,",
    "Compared with last week,",
    "",
)


def _part(rng: Random) -> str:
    subject, item = (f"{rng.choice(QUALITIES)} {rng.choice(NOUNS)}" for _ in range(2))
    which = rng.choice(("each", "the", "no", "every second"))
    return f"{which} {subject} {rng.choice(ACTS)} {rng.choice(('a', 'the'))} {item}"


def sentence(rng: Random) -> str:
    """One sentence of its own."""
    opening = rng.choice(OPENINGS).format(place=rng.choice(PLACES), person=rng.choice(PEOPLE), n=rng.randint(2, 900))
    said = f"{opening} {_part(rng)}".strip()
    if rng.random() < 0.5:
        said += f" {rng.choice(LINKS)} {_part(rng)}"
    return said[0].upper() + said[1:] + rng.choice((".", ".", ".", "?"))


def paragraph(rng: Random, least: int = 2, most: int = 5) -> str:
    """Some sentences."""
    return " ".join(sentence(rng) for _ in range(rng.randint(least, most)))


def query(rng: Random) -> str:
    """What one types into a search."""
    return f"{rng.choice(QUALITIES)} {rng.choice(THINGS)} {rng.choice(NOUNS)} {rng.choice(ACTS)}"


def path(rng: Random) -> str:
    """A file."""
    folder, name = rng.choice(("obs", "trial", "case", "sim")), f"{rng.choice(NOUNS)}_{rng.choice(NOUNS)}"
    return f"{folder}/{name}.{rng.choice(('rs', 'md', 'jl'))}"


class Paced(Trace):
    """A trace by another clock: mostly quick acts, a long tail, and now and then a quarter of an hour."""

    def _add(self, row: dict[str, object], pause: float | None, tokens: int, more: dict[str, object]) -> None:
        if pause is None:
            pause = self.rng.lognormvariate(0.7, 0.9) if self.rng.random() < 0.99 else self.rng.uniform(300, 900)
        super()._add(row, pause, tokens, more)
