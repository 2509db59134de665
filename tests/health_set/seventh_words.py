"""Words of the seventh set: what tickets, tools, files and people are called where squads of agents are at work.

In: a random generator. Out: texts and values, and the sessions that runs are written into. All of it is made up.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random
from typing import TypeVar

from tests.health_set.traces import Trace

T = TypeVar("T")

GIVEN = (
    "Aisha",
    "Ben",
    "Carla",
    "Devon",
    "Ewa",
    "Frank",
    "Gita",
    "Henk",
    "Imani",
    "Jamal",
    "Kirsten",
    "Luis",
    "Marta",
    "Nikhil",
    "Oona",
    "Priya",
    "Rahul",
    "Sofia",
    "Tomas",
    "Ulla",
    "Vikram",
    "Will",
    "Xenia",
    "Yara",
    "Zoe",
)
FAMILY = (
    "Adeyemi",
    "Bauer",
    "Chen",
    "Delgado",
    "Evans",
    "Ferreira",
    "Gruber",
    "Hughes",
    "Ivanova",
    "Johansson",
    "Kim",
    "Larsen",
    "Mehta",
    "Novak",
    "O'Brien",
    "Park",
    "Rahman",
    "Silva",
    "Turner",
    "Weiss",
)
COMPANIES = (
    "Acorn Dental",
    "Bluepeak",
    "Cedar & Sons",
    "Datavine",
    "Eastgate Logistics",
    "Fernhill",
    "Glasswing",
    "Hollis Medical",
    "Inkwell Print",
    "Jetty Foods",
    "Kiteworks",
    "Larkspur Hotels",
    "Mosaic Tiles",
    "Nordlicht",
    "Opaline",
    "Pinecrest Schools",
    "Quayside",
    "Redwood Homes",
    "Saltmarsh",
    "Tidewater",
)
WARES = (
    "rain jacket",
    "desk lamp",
    "coffee grinder",
    "running shoes",
    "phone case",
    "office chair",
    "backpack",
    "headphones",
    "yoga mat",
    "water filter",
    "bike light",
    "rice cooker",
    "monitor stand",
    "wool blanket",
)
PARTS = (
    "auth",
    "billing",
    "cart",
    "dashboard",
    "email",
    "files",
    "graph",
    "history",
    "invites",
    "jobs",
    "keys",
    "login",
    "metrics",
    "notify",
    "orders",
    "profile",
    "quota",
    "reports",
    "search",
    "teams",
    "upload",
    "users",
)
TABLES = (
    "accounts",
    "addresses",
    "bookings",
    "carts",
    "devices",
    "events",
    "invoices",
    "line_items",
    "memberships",
    "orders",
    "payments",
    "products",
    "refunds",
    "sessions",
    "shipments",
    "subscriptions",
    "tickets",
    "visits",
)
SERVERS = (
    "api",
    "auth",
    "billing",
    "cdn-edge",
    "feature-flags",
    "gateway",
    "indexer",
    "mailer",
    "media",
    "payments",
    "scheduler",
    "search",
    "web",
    "worker",
)
TOPICS = (
    "heat pumps",
    "battery recycling",
    "carbon border tax",
    "sleep apnoea",
    "remote work",
    "battery storage",
    "vertical farming",
    "rare earths",
    "open banking",
    "last-mile delivery",
    "biosimilars",
    "edge computing",
    "data residency",
    "water pricing",
    "hydrogen trucks",
    "insurance fraud",
    "school meals",
    "soil carbon",
)
WHO = (
    "the regulator",
    "a survey of 2024",
    "the vendor",
    "an analyst",
    "the annual report",
    "a trade body",
    "a court",
    "a pilot in Denmark",
    "one of the authors",
    "the second appendix",
    "an industry group",
    "the ministry",
    "a meta-analysis",
    "the press release",
    "a former director",
    "the city council",
    "an audit of last year",
)
SAYS = (
    "puts the cost at",
    "expects a share of",
    "reports a fall of",
    "warns of a gap near",
    "counts about",
    "measured a rise of",
    "revised its figure to",
    "disputes the estimate of",
    "plans for",
    "cut its target by",
    "found a median of",
    "quotes a range around",
)
UNITS = (
    "percent by 2030",
    "million euros a year",
    "units a month",
    "percent of households",
    "days on average",
    "plants in the region",
    "tonnes in the first half",
    "dollars per unit",
    "cases a quarter",
    "sites in Europe",
)
ASIDES = (
    "although the sample is small",
    "mostly because of new rules",
    "which older sources contradict",
    "without counting rentals",
    "before subsidies",
    "as prices of copper rose",
    "after the merger",
    "and the trend holds in the south",
    "according to its footnotes",
    "if imports are left out",
    "while demand in cities stayed flat",
    "since the tariff was dropped",
)
TROUBLES = (
    "the parcel shows delivered but is not here",
    "I was charged twice",
    "the code from the mail does not work",
    "the zip broke on the second day",
    "I need the invoice with our VAT number",
    "my address has changed",
    "the size is wrong",
    "the app logs me out",
    "the discount was not taken off",
    "a part is missing",
    "the colour is not the one in the picture",
    "it makes a rattling noise",
    "I cannot cancel the trial",
    "the courier left it with a neighbour I do not know",
    "the gift card is empty",
    "the lid does not close",
)
COLOUR = (
    "and I leave for a trip on Friday",
    "for the third time this year",
    "and nobody answers the phone",
    "which is a present for my sister",
    "and the shop sent me here",
    "since the update",
    "as I wrote on Monday",
    "and I have the photos",
    "so please tell me what to do",
    "although I paid for express",
    "if that helps",
    "and my neighbour had the same",
    "on both of my phones",
    "and I would rather keep it",
)
DOES = (
    "handles",
    "caches",
    "retries",
    "validates",
    "serialises",
    "guards",
    "merges",
    "sorts",
    "trims",
    "logs",
    "rejects",
    "normalises",
    "defers",
    "batches",
    "signs",
    "escapes",
    "flushes",
    "counts",
)
WHATS = (
    "an empty list",
    "the tenant header",
    "expired tokens",
    "unicode names",
    "a missing cursor",
    "late webhooks",
    "the second page",
    "duplicate keys",
    "negative amounts",
    "a stale lock",
    "partial uploads",
    "time zones",
    "rounded totals",
    "nested groups",
    "the retry budget",
    "soft-deleted rows",
    "feature flags",
    "the audit row",
)
HOWS = (
    "before the transaction opens",
    "in the middleware",
    "only for admins",
    "once per request",
    "on shutdown",
    "when the flag is on",
    "after the commit",
    "outside the loop",
    "behind an interface",
    "in the worker",
    "without a network call",
    "by tenant",
    "from the fixture",
    "under load",
    "in one place",
    "twice",
)


class Run(Trace):
    """A trace; `stamp` is the time as a result would show it."""

    def stamp(self) -> str:
        return datetime.fromtimestamp(self.now_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"

    def day(self) -> str:
        return datetime.fromtimestamp(self.now_s, UTC).strftime("%Y-%m-%d")


def run(rng: Random, untimed: float = 0.25) -> Run:
    """A new run. untimed: in which part of the runs nobody recorded times, as in exported transcripts."""
    return Run(rng, timed=rng.random() >= untimed, task=f"task-{hexa(rng, 6)}")


def hexa(rng: Random, size: int) -> str:
    return f"{rng.getrandbits(4 * size):0{size}x}"


def uid(rng: Random) -> str:
    text = hexa(rng, 32)
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-b{text[17:20]}-{text[20:]}"


def some(rng: Random, what: Sequence[T], low: int, high: int) -> list[T]:
    """Some of them, each once, in any order."""
    return rng.sample(what, min(len(what), rng.randint(low, high)))


def person(rng: Random) -> str:
    return f"{rng.choice(GIVEN)} {rng.choice(FAMILY)}"


def mail(rng: Random) -> str:
    firm = rng.choice(COMPANIES).split()[0].lower()
    return f"{rng.choice(GIVEN)}.{rng.choice(FAMILY).replace(chr(39), '')}@{firm}.example".lower()


def ticket(rng: Random) -> str:
    return f"{rng.choice(('SUP', 'CS', 'HELP', 'ZD'))}-{rng.randrange(10_000, 99_999)}"


def order(rng: Random) -> str:
    return f"#{rng.randrange(100_000, 999_999)}"


def money(rng: Random, low: int = 5, high: int = 900) -> str:
    return f"{rng.randint(low, high)}.{rng.randrange(100):02d}"


def finding(rng: Random) -> str:
    """A sentence as in a report."""
    said = f"{rng.choice(WHO)} {rng.choice(SAYS)} {rng.randint(2, 980)} {rng.choice(UNITS)}, {rng.choice(ASIDES)}"
    return said[0].upper() + said[1:] + "."


def passage(rng: Random, low: int = 2, high: int = 4) -> str:
    return " ".join(finding(rng) for _ in range(rng.randint(low, high)))


def complaint(rng: Random) -> str:
    """What a customer writes."""
    said = f"{rng.choice(TROUBLES)} {rng.choice(COLOUR)}"
    return said[0].upper() + said[1:] + "."


def remark(rng: Random) -> str:
    """What a developer says about code."""
    one, other = rng.choice(PARTS), rng.choice(WHATS)
    said = f"{one} {rng.choice(DOES)} {other} {rng.choice(HOWS)}"
    return said[0].upper() + said[1:] + "."


def snippet(rng: Random, low: int = 3, high: int = 7) -> str:
    """Some lines of a file."""
    shapes = (
        "    {a} = {b}({c})",
        "def {a}_{b}({c}):",
        "    if {a}.{b}:",
        "    return {a}_{c}",
        "    # {r}",
        "    for {a} in {b}_{c}:",
        "        {a}.{b}({n})",
        "    assert {a} != {n}",
    )
    return "\n".join(
        rng.choice(shapes).format(
            a=rng.choice(PARTS), b=rng.choice(DOES), c=rng.choice(TABLES), n=rng.randrange(999), r=remark(rng)
        )
        for _ in range(rng.randint(low, high))
    )


def path(rng: Random, ending: str = "") -> str:
    return (
        f"{rng.choice(('src', 'app', 'packages/core', 'services/api', 'web', 'internal'))}/"
        f"{rng.choice(PARTS)}/{rng.choice(DOES)}_{rng.choice(TABLES)}{ending or rng.choice(('.py', '.ts', '.go'))}"
    )


def code_work(trace: Run, agent: str, low: int = 2, high: int = 5) -> None:
    """Looking round in a code base, as before most tasks."""
    rng = trace.rng
    for _ in range(rng.randint(low, high)):
        match rng.randrange(4):
            case 0:
                trace.call(
                    agent,
                    "grep",
                    {"pattern": rng.choice(WHATS), "path": "."},
                    "\n".join(f"{path(rng)}:{rng.randrange(9, 400)}" for _ in range(rng.randint(1, 5))),
                )
            case 1:
                trace.call(agent, "read_file", {"path": path(rng)}, snippet(rng))
            case 2:
                trace.call(
                    agent,
                    "edit_file",
                    {"path": path(rng), "old_string": snippet(rng, 1, 2), "new_string": snippet(rng, 1, 3)},
                    "The file has been updated.",
                )
            case _:
                trace.say(agent, f"{remark(rng)} I'll look at that first.")


def desk_work(trace: Run, agent: str, low: int = 2, high: int = 5) -> None:
    """Looking things up, as before most office tasks."""
    rng = trace.rng
    for _ in range(rng.randint(low, high)):
        match rng.randrange(3):
            case 0:
                trace.call(
                    agent,
                    "search_kb",
                    {"query": rng.choice(TROUBLES)},
                    [{"title": rng.choice(TROUBLES), "id": f"KB{rng.randrange(9999)}"} for _ in range(2)],
                )
            case 1:
                trace.call(
                    agent,
                    "get_contact",
                    {"email": mail(rng)},
                    {"name": person(rng), "company": rng.choice(COMPANIES), "since": rng.randint(2012, 2025)},
                )
            case _:
                trace.call(
                    agent,
                    "get_order",
                    {"order": order(rng)},
                    {"status": rng.choice(("shipped", "delivered", "open")), "total": money(rng)},
                )
