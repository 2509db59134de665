"""Words of the sixth set: people, firms, machines and sentences that differ, and the sessions they are put into.

In: a random generator. Out: texts and values. Ids, addresses and figures are made up.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random
from typing import TypeVar

from tests.health_set.traces import Trace

T = TypeVar("T")

FIRST_NAMES = (
    "Amina",
    "Björn",
    "Chiara",
    "Dmitri",
    "Elif",
    "Farid",
    "Grace",
    "Hiroshi",
    "Ines",
    "Jonas",
    "Kavya",
    "Liam",
    "Mei",
    "Noor",
    "Olga",
    "Pablo",
    "Quentin",
    "Rosa",
    "Sven",
    "Tariq",
    "Uma",
    "Victor",
    "Wanda",
    "Yusuf",
)
LAST_NAMES = (
    "Abara",
    "Brandt",
    "Castillo",
    "Dubois",
    "Eriksen",
    "Fischer",
    "Gupta",
    "Haddad",
    "Ito",
    "Jansen",
    "Kovacs",
    "Lindqvist",
    "Moreau",
    "Nakamura",
    "Okafor",
    "Petrov",
    "Quiroga",
    "Rossi",
    "Schmidt",
    "Tanaka",
    "Vargas",
)
FIRMS = (
    "Alder & Finch",
    "Brightwater",
    "Cobalt Freight",
    "Dovetail",
    "Evermoor",
    "Fallowfield",
    "Graniteworks",
    "Harbourline",
    "Ironwood",
    "Juniper Labs",
    "Kestrel Air",
    "Lumenary",
    "Marlowe Foods",
    "Northgate",
    "Orchard Bank",
)
CITIES = (
    "Aarhus",
    "Bilbao",
    "Cork",
    "Dresden",
    "Enschede",
    "Faro",
    "Ghent",
    "Haifa",
    "Izmir",
    "Jaipur",
    "Kyoto",
    "Leeds",
    "Malmö",
    "Nantes",
    "Osaka",
    "Porto",
    "Quito",
    "Riga",
    "Salzburg",
    "Turin",
    "Utrecht",
    "Vilnius",
    "Zagreb",
)
GOODS = (
    "pump housings",
    "cable trays",
    "valve seats",
    "label rolls",
    "bearing sets",
    "glass vials",
    "gaskets",
    "drill bits",
    "air filters",
    "relay boards",
    "hinges",
    "pallet wraps",
    "steel rods",
    "circuit breakers",
    "ink cartridges",
)
SERVICES = (
    "checkout",
    "ledger",
    "search-api",
    "notifier",
    "auth",
    "catalog",
    "pricing",
    "shipping",
    "profile",
    "media",
    "inventory",
    "gateway",
    "reports",
    "billing",
    "sessions",
    "recommender",
    "webhooks",
    "exports",
)
MODULES = (
    "parser",
    "router",
    "scheduler",
    "cache",
    "tokenizer",
    "session",
    "ledger",
    "importer",
    "renderer",
    "mailer",
    "queue",
    "codec",
    "planner",
    "metrics",
    "archive",
    "index",
    "policy",
    "diff",
    "pool",
    "limits",
)
SUBJECTS = (
    "the importer",
    "the nightly export",
    "a customer in the north",
    "the older handset",
    "the second warehouse",
    "the payment page",
    "the retention policy",
    "our supplier",
    "the mobile build",
    "the audit trail",
    "the loyalty programme",
    "the staging cluster",
    "the translation memory",
    "the pilot group",
    "the new tariff",
    "the returns desk",
    "the regional team",
    "the fallback route",
    "the batch printer",
    "the archive node",
)
VERBS = (
    "drops",
    "doubles",
    "delays",
    "rejects",
    "rounds",
    "splits",
    "hides",
    "mislabels",
    "overwrites",
    "skips",
    "replays",
    "reorders",
    "truncates",
    "refunds",
    "merges",
    "postpones",
    "confirms",
    "exposes",
    "shortens",
)
OBJECTS = (
    "invoices over a thousand",
    "the last page of a form",
    "umlauts in a name",
    "orders from a gift card",
    "the time zone of a meeting",
    "attachments of more than ten megabytes",
    "returns without a receipt",
    "the second line of an address",
    "discounts of resellers",
    "records that were closed twice",
    "the cover letter",
    "a shipment on a Sunday",
    "the reply to a survey",
    "measurements below zero",
    "the index of a year",
    "stock that is on its way",
    "the unit of a price",
    "an order that was split",
    "the name of a branch",
)
WHENS = (
    "since Tuesday",
    "after the update",
    "when two people edit",
    "at the end of a quarter",
    "behind the old proxy",
    "in about one case of nine",
    "as soon as the disk is nearly full",
    "on devices set to Arabic",
    "before noon",
    "whenever the cache is cold",
    "if the price has changed",
    "during the switch to summer time",
    "for new tenants",
)


class Session(Trace):
    """A trace; `stamp` is the time as a result would show it."""

    def stamp(self) -> str:
        return datetime.fromtimestamp(self.now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def session(rng: Random, untimed: float = 0.15) -> Session:
    """A new run. untimed: in which part of the runs nobody recorded times."""
    return Session(rng, timed=rng.random() >= untimed, task=f"run-{rng.randrange(10_000, 99_999)}")


def several(rng: Random, what: Sequence[T], low: int, high: int) -> list[T]:
    """Some of them, each once."""
    return rng.sample(what, min(len(what), rng.randint(low, high)))


def person(rng: Random) -> str:
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"


def mail(rng: Random) -> str:
    return f"{rng.choice(FIRST_NAMES)}.{rng.choice(LAST_NAMES)}{rng.randrange(99)}@example.org".lower()


def digest(rng: Random, size: int = 8) -> str:
    return f"{rng.getrandbits(4 * size):0{size}x}"


def uuid(rng: Random) -> str:
    text = digest(rng, 32)
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def sentence(rng: Random) -> str:
    """One of some hundred thousand."""
    said = f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)} {rng.choice(WHENS)}"
    return said[0].upper() + said[1:] + "."


def text(rng: Random, low: int, high: int) -> str:
    return " ".join(sentence(rng) for _ in range(rng.randint(low, high)))


def prelude(trace: Session, agent: str, low: int = 2, high: int = 6) -> None:
    """Honest work before what the run is about: every row says something new."""
    rng = trace.rng
    for _ in range(rng.randint(low, high)):
        match rng.randrange(4):
            case 0:
                trace.call(agent, "search_docs", {"query": sentence(rng)}, [sentence(rng) for _ in range(2)])
            case 1:
                trace.call(
                    agent, "read_file", {"path": f"src/{rng.choice(MODULES)}/{rng.choice(MODULES)}.py"}, text(rng, 2, 5)
                )
            case 2:
                trace.call(
                    agent,
                    "fetch_record",
                    {"id": rng.randrange(1000, 9999)},
                    {"owner": person(rng), "note": sentence(rng)},
                )
            case _:
                trace.say(agent, f"{sentence(rng)} I will look at {rng.choice(MODULES)} next.")
