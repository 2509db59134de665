"""Words and the clock of the fifth set: what offices write, in plain English; tools that take their time.

In: a random generator. Out: texts, values, traces.
"""

from datetime import UTC, datetime
from random import Random

from tests.health_set.traces import Trace
from tests.health_set.words import digest, token, uuid

__all__ = ["Session", "clock", "digest", "fact", "files", "pick", "report", "session", "several", "token", "uuid"]


def _listed(words: str) -> list[str]:
    return words.split("|")


PEOPLE = _listed(
    "Amara Osei|Bruno Keller|Chen Wei|Dana Novak|Elif Kaya|Farid Haddad|Greta Holm|Hugo Marchetti|Ines Duarte|"
    "Jonas Vik|Keiko Mori|Lars Bauer|Mina Patel|Noor Aziz|Oskar Lind|Paula Reyes|Quentin Roy|Rosa Bianchi|"
    "Samir Khan|Tove Berg"
)
COMPANIES = _listed(
    "Alder Freight|Birch Dental|Corvid Press|Dunlin Foods|Ember Tools|Fathom Marine|Gable Homes|Hearth Energy|"
    "Isthmus Air|Juniper Labs|Kestrel Bank|Lumen Optics|Mallow Care|Nimbus Rail|Orchard Hotels|Pike Motors|"
    "Quarry Stone|Rook Games|Sable Textiles|Tern Logistics"
)
THINGS = _listed(
    "invoice|refund|shipment|subscription|warranty|heat pump|battery pack|loan|password|tariff|licence|contract|"
    "delivery note|thermostat|boiler|charger|webhook|import job|dashboard|mailing list|mobile app|price list|"
    "customs form|insurance claim|visa letter|seat map|playlist|sensor|gateway|backup"
)
TOPICS = _listed(
    "grid storage in northern ports|early rail freight pricing|protein folding on small clusters|urban heat islands|"
    "lease accounting under the new standard|bicycle commuting after the pandemic|coral bleaching|rare earth recycling|"
    "open banking in small states|remote patient monitoring|wheat rust|desalination costs|satellite insurance|"
    "night trains in Europe|kelp farming|second-hand batteries"
)
MODULES = _listed(
    "ledger|parser|scheduler|session|router|cache|exporter|importer|pricing|search|mailer|auth|uploads|reports|queue|"
    "locale|webhooks|billing|inventory|profile"
)
VERBS = _listed("rose|fell|doubled|stalled|recovered|shifted|halved|levelled off|slipped|accelerated")
COLUMNS = _listed("region|channel|plan|owner|status|source|carrier|currency|segment|device")
PLACES = _listed("Antwerp|Bergen|Cadiz|Durban|Eindhoven|Fukuoka|Gdansk|Halifax|Izmir|Jakarta|Kaunas|Lagos|Murcia|Oulu")
SHAPES = (
    "{p} of {c} says the {t} {v} by {n} percent after {y}.",
    "In {l}, {n} of {m} sites changed their {t} in {y}.",
    "The {t} at {c} costs {m} euro a year, {n} more than in {y}.",
    "A study from {l} ({y}) counts {m} cases of {q}.",
    "{c} moved its {t} to {l} and saved {n} percent.",
    "Regulators in {l} delayed the rules on {q} until {y}.",
    "According to {p}, demand {v} once the {t} had been replaced.",
    "Only {n} of {m} respondents knew about {q}.",
    "Since {y} the {t} has been handled in {l}; {p} signs it off.",
    "{q}: {v} in {l}, unchanged elsewhere.",
    "The customer, {p}, cannot find the {t} that {c} sent on the {d}th.",
    "{c} owes {m} euro for a {t} since {y}.",
    "Margins {v} by {n} points, which {c} puts down to {q}.",
    "There were {m} open items about the {t}, {n} of them old.",
)


def pick(rng: Random, words: list[str]) -> str:
    """One of them."""
    return rng.choice(words)


def several(rng: Random, words: list[str], least: int, most: int) -> list[str]:
    """Some of them, none twice."""
    return rng.sample(words, rng.randint(least, most))


def fact(rng: Random) -> str:
    """One sentence that says something of its own."""
    return rng.choice(SHAPES).format(
        p=pick(rng, PEOPLE),
        c=pick(rng, COMPANIES),
        t=pick(rng, THINGS),
        v=pick(rng, VERBS),
        l=pick(rng, PLACES),
        q=pick(rng, TOPICS),
        n=rng.randint(2, 49),
        m=rng.randint(50, 9800),
        y=rng.randint(2009, 2026),
        d=rng.randint(4, 20),
    )


def report(rng: Random, least: int = 2, most: int = 5) -> str:
    """Some of those."""
    return " ".join(fact(rng) for _ in range(rng.randint(least, most)))


def files(rng: Random, least: int, most: int) -> list[str]:
    """Paths of source files."""
    return [
        f"src/{one}/{rng.choice(('core', 'api', 'models', 'views', 'store'))}.py"
        for one in several(rng, MODULES, least, most)
    ]


def clock(trace: Trace) -> str:
    """What a log line or a header would say the time is."""
    return datetime.fromtimestamp(trace.now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Session(Trace):
    """A trace by a fifth clock: a model that thinks for seconds, now and then for long; milliseconds or ISO times."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.in_ms = self.rng.random() < 0.5

    def _add(self, row: dict[str, object], pause: float | None, tokens: int, more: dict[str, object]) -> None:
        slow = self.rng.uniform(20, 60) if self.rng.random() < 0.05 else self.rng.gammavariate(2.5, 1.8)
        self.now_s += slow if pause is None else pause
        row |= {"task": self.task, "tokens": tokens} | more
        if self.timed and self.in_ms:
            row["time_unix_ms"] = int(self.now_s * 1000)
        elif self.timed:
            row["time"] = datetime.fromtimestamp(self.now_s, UTC).isoformat(timespec="milliseconds")
        self.rows.append(row)


def session(rng: Random) -> Session:
    """A run to be filled; a third of them has no times."""
    return Session(rng, timed=rng.random() < 2 / 3)
