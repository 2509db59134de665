"""Words and the clock of the third set: railways, kitchens, orchards and networks; seconds, milliseconds or ISO times.

In: a random generator. Out: texts, values, traces.
"""

from random import Random

from tests.health_set.traces import Trace
from tests.health_set.words import digest, stamp, token, uuid

__all__ = [
    "CREW",
    "SERVICES",
    "TOWNS",
    "Ticking",
    "code",
    "digest",
    "line",
    "listing",
    "module",
    "phrase",
    "stamp",
    "talk",
    "token",
    "uuid",
]

TOWNS = (
    "Brno",
    "Cork",
    "Dakar",
    "Essen",
    "Faro",
    "Gdansk",
    "Hobart",
    "Izmir",
    "Jena",
    "Kyoto",
    "Lima",
    "Malmo",
    "Nantes",
    "Oban",
    "Perth",
    "Quito",
    "Riga",
    "Salta",
    "Tunis",
    "Umea",
    "Vigo",
    "Wels",
    "Xalapa",
    "York",
    "Zagreb",
    "Aarhus",
)
CREW = (
    "Abel",
    "Birgit",
    "Cosmo",
    "Deniz",
    "Elif",
    "Fabio",
    "Gita",
    "Henk",
    "Isolde",
    "Jarek",
    "Kaia",
    "Lorenz",
    "Mirela",
    "Nuno",
    "Odile",
    "Pavel",
    "Rosalind",
    "Silas",
    "Thea",
    "Ugo",
    "Viola",
    "Wout",
    "Xenia",
    "Yannick",
    "Zita",
)
SERVICES = (
    "checkout",
    "ledger-sync",
    "mailroom",
    "geocoder",
    "thumbnailer",
    "pricing",
    "sessions",
    "webhooks",
    "catalogue",
    "invoicing",
    "search-index",
    "quota",
    "ingest",
    "notifier",
    "reports",
    "exporter",
)
THINGS = """
wagon brine orchard uplink switchboard ladle pallet trellis antenna siding yeast packet furrow router gasket
timetable cistern mulch beacon ferment crane hedge socket ballast skillet graft conduit platform marinade
turnstile rootstock modem dumpling junction seedling relay griddle points harvest cable stockpot signal compost
repeater tram nursery jar trench
""".split()  # noqa: SIM905
KINDS = """
wet spare upper brittle idle sour double local shaded leaky spring-loaded smoked blocked outer mossy twin salted
legacy northbound grafted loose tidal buffered crusty narrow-gauge wild patched peeled dim overgrown stale
parallel braised half
""".split()  # noqa: SIM905
DOES = """
drains blocks feeds outgrows bypasses spoils replaces delays prunes floods carries couples roasts starves strips shields
overheats joins drops seasons waters reroutes jams sweetens uproots steadies grounds dilutes balances shadows props
""".split()  # noqa: SIM905
WHERE = (
    "past the depot",
    "at noon",
    "under load",
    "in the cellar",
    "on the branch line",
    "after the frost",
    "by hand",
    "near gate 4",
    "without notice",
    "before boarding",
    "on Tuesdays",
    "at the far end",
    "in plain view",
    "for now",
)
TURNS = (
    "That suggests",
    "I noticed",
    "It turns out",
    "We measured",
    "One more thing:",
    "Unexpectedly,",
    "From the log:",
    "My guess:",
    "So far",
    "Apparently",
    "In short,",
    "Oddly",
    "To be checked:",
    "Good news:",
    "Beware:",
)
JOINTS = (" while ", " but ", ", since ", "; then ", " and ", ", or else ", " once ")


def phrase(rng: Random) -> str:
    """A clause without a full stop."""
    return (
        f"the {rng.choice(KINDS)} {rng.choice(THINGS)} {rng.choice(DOES)} "
        f"{rng.choice(('a', 'the', 'every', 'our'))} {rng.choice(KINDS)} {rng.choice(THINGS)}"
    )


def line(rng: Random) -> str:
    """One sentence of its own."""
    said = f"{rng.choice(TURNS)} {phrase(rng)}" if rng.random() < 0.5 else phrase(rng)
    if rng.random() < 0.5:
        said += rng.choice(JOINTS) + phrase(rng)
    if rng.random() < 0.4:
        said += " " + rng.choice(WHERE)
    return said[0].upper() + said[1:] + "."


def talk(rng: Random, least: int = 2, most: int = 4) -> str:
    """Some sentences."""
    return " ".join(line(rng) for _ in range(rng.randint(least, most)))


def module(rng: Random) -> str:
    """A file of a code base."""
    folder = rng.choice(("src/rail", "pkg/kitchen", "internal/net", "lib/garden", "core", "cmd/serve"))
    return f"{folder}/{rng.choice(THINGS)}_{rng.choice(THINGS)}.{rng.choice(('py', 'ts', 'rs', 'go', 'java'))}"


def code(rng: Random, lines: int = 4) -> str:
    """Some lines of a program."""
    forms = (
        "def {0}_{1}(self, {2}): return {2}.{0}({3})",
        "let {0} = {1}.{2}({3});",
        "if {0} > {3}: {1}.{2}()",
        "{0}.{1} += {2} * {3}",
        "for {0} in {1}.{2}[:{3}]: yield {0}",
        "assert {0}({1}) == {3}, '{2}'",
    )
    return "\n".join(
        rng.choice(forms).format(*(rng.choice(THINGS) for _ in range(3)), rng.randint(2, 999)) for _ in range(lines)
    )


def listing(rng: Random, lines: int = 8) -> str:
    """A window into a file, as editors for agents show it."""
    first = rng.randint(1, 900)
    return "\n".join(f"{first + number:6d}\t{text}" for number, text in enumerate(code(rng, lines).split("\n")))


class Ticking(Trace):
    """A trace by a third clock: whole seconds mostly, acts in bursts; written as seconds, milliseconds or ISO times."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.now_s = float(int(self.now_s))
        self.form = self.rng.choice(("time", "time_unix_ms", "iso"))
        self.burst = self.rng.uniform(2.0, 14.0)

    def _add(self, row: dict[str, object], pause: float | None, tokens: int, more: dict[str, object]) -> None:
        self.now_s += float(int(self.rng.gammavariate(1.6, self.burst / 1.6) + 1)) if pause is None else pause
        row |= {"task": self.task, "tokens": tokens} | more
        if self.timed and self.form == "time":
            row["time"] = round(self.now_s, 3)
        elif self.timed and self.form == "iso":
            row["time"] = stamp(self.now_s)
        elif self.timed:
            row["time_unix_ms"] = int(self.now_s * 1000)
        self.rows.append(row)
