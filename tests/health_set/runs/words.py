"""Words for invented runs: sentences that differ as those of people do, names, ids, noise.

In: a random generator. Out: texts and values.
"""

from datetime import UTC, datetime
from random import Random

THINGS = (
    "invoice",
    "boarding pass",
    "warehouse label",
    "tax form",
    "insurance claim",
    "release note",
    "patient letter",
    "supplier contract",
    "menu",
    "shift plan",
    "blueprint",
    "survey",
    "mortgage offer",
    "museum guide",
    "court file",
    "spare part",
    "lecture",
    "recipe",
    "tenancy agreement",
    "weather report",
    "cargo manifest",
    "job advert",
)
PLACES = (
    "Rotterdam",
    "Lund",
    "Valparaiso",
    "Osaka",
    "Tromso",
    "Leeds",
    "Accra",
    "Graz",
    "Winnipeg",
    "Porto",
    "Nairobi",
    "Bergen",
    "Tallinn",
    "Cusco",
    "Da Nang",
    "Adelaide",
    "Ghent",
    "Turin",
    "Halifax",
    "Split",
    "Zadar",
    "Oulu",
)
PEOPLE = (
    "Amara Osei",
    "Bo Lindqvist",
    "Chiara Neri",
    "Dmitri Volkov",
    "Elena Ruiz",
    "Farid Haddad",
    "Grace Okafor",
    "Hana Sato",
    "Ivo Horvat",
    "Jelena Kos",
    "Kwame Mensah",
    "Lucia Ferrari",
    "Mats Berg",
    "Nadia Rahman",
    "Omar Diallo",
    "Petra Novak",
    "Quentin Roux",
    "Rosa Jimenez",
    "Sven Dahl",
    "Tariq Aziz",
    "Uma Patel",
    "Vera Lang",
)
FIELDS = (
    "delivery date",
    "discount",
    "cabin class",
    "warranty",
    "postal code",
    "due amount",
    "dosage",
    "headcount",
    "torque",
    "allergen list",
    "exchange rate",
    "notice period",
    "file size",
    "ceiling height",
    "humidity",
    "tariff",
)
REASONS = (
    "the second source was printed before the reform",
    "our own measurement disagrees with the vendor's sheet",
    "nobody signed the last revision",
    "the older figure had been rounded twice",
    "customs holds the original",
    "the branch office uses another calendar",
    "two columns were swapped during the import",
    "the translator left a footnote out",
    "the meter was replaced in spring",
    "a strike moved the whole timetable",
    "the landlord pays for it, not the tenant",
    "this part is only sold in pairs",
    "frost had cracked the sensor",
)
VERBS = (
    "checked",
    "rewrote",
    "measured",
    "compared",
    "dropped",
    "renamed",
    "archived",
    "doubled",
    "merged",
    "traced",
    "sketched",
    "priced",
    "mapped",
    "sorted",
    "drained",
    "outlined",
    "ranked",
    "scanned",
)
SENTENCES = (
    "{person} says the {field} of the {thing} in {place} has to be {n}, because {reason}.",
    "I {verb} the {thing} for {place}; what remains open is the {field}.",
    "Since {reason}, we cannot rely on the {field} any more.",
    "Between {place} and {place2} the {field} differs by {n} percent, which nobody expected.",
    "Could the {thing} be the cause? {person} {verb} it last and found {n} oddities.",
    "My proposal: take the {field} from {place}, keep the rest of the {thing}, and tell {person}.",
    "Only {n} of the {n2} entries mention a {field}; the others point at the {thing}.",
    "{person} objects that {reason}, and I think that is right.",
    "Look at page {n}: the {thing} was {verb} there long before {place} joined.",
    "If we wait until {person} is back, the {thing} costs {n2} euros more.",
    "A cheaper way exists: {place2} already {verb} its {thing}, and {reason}.",
    "What I do not understand is why {place} needs a {field} at all.",
    "Then the order is clear: first the {thing}, then the {field}, and {place} at the end.",
    "Nothing in the archive of {place} contradicts that; {person} {verb} {n2} folders.",
)
# Sentences are put together of short pieces: long ones that come back would make honest texts resemble each other.
WHO = """
harbour master landlord surveyor nurse accountant beekeeper auditor ferryman predecessor intern councillor reader
orchestra locksmith glazier student pilot inventor vendor headmaster cyclist archivist caretaker cook newspaper
meteorologist widow customs village drone compiler scheduler index backup replica tailor mayor plumber witness guest
""".split()  # noqa: SIM905
DID = """
overlooked repainted inherited mistrusted opened mislabelled sold borrowed sealed doubted photographed replaced burned
rebuilt insured learned abandoned translated weighed audited bought praised buried restored auctioned misquoted tuned
flooded shortened rented guarded remembered shipped recalculated ignored outgrew patched throttled deduplicated
""".split()  # noqa: SIM905
WHAT = """
staircase crate will piano sewer minutes turbine vineyard lighthouse recipe bridge table vault negatives exchange
library receipt pedal barge gatehouse form certificate chain grant ballot lens millrace draft well shard cellar canvas
engine orchard tunnel ledger greenhouse chimney violin passport telescope quarry saddle mosaic anchor furnace
""".split()  # noqa: SIM905
LIKE = """
eastern unsigned orphaned spare borrowed rusty second retired polite narrow expired crooked municipal early silent
frozen painted distant hasty hollow secret wooden northern cheap forgotten modest striped ancient careful private
damp folded generous lukewarm nervous oblique patient quaint rotten steep tidy vague woollen yellow zealous
""".split()  # noqa: SIM905
HOW = """
yesterday twice slowly abroad overnight reluctantly again together indoors upstairs secretly alone anyway elsewhere
annually barefoot cheerfully downstream eagerly formally grudgingly halfway instead jointly kindly loudly meanwhile
""".split()  # noqa: SIM905
JOINTS = ("; meanwhile", ", which is odd, as", ", so", ", although", ". Besides,", ", unless", " while")


def _clause(rng: Random) -> str:
    who, what = f"{rng.choice(LIKE)} {rng.choice(WHO)}", f"{rng.choice(LIKE)} {rng.choice(WHAT)}"
    said = f"{rng.choice(('the', 'a', 'our'))} {who} {rng.choice(DID)} {rng.choice(('the', 'its', 'some'))} {what}"
    return f"{said} {rng.choice(HOW)}" if rng.random() < 0.6 else said


def sentence(rng: Random) -> str:
    """One sentence of its own."""
    if rng.random() < 0.85:
        said = _clause(rng) + (f"{rng.choice(JOINTS)} {_clause(rng)}" if rng.random() < 0.5 else "")
        return said[0].upper() + said[1:] + "."
    place, place2 = rng.sample(PLACES, 2)
    return rng.choice(SENTENCES).format(
        person=rng.choice(PEOPLE),
        field=rng.choice(FIELDS),
        thing=rng.choice(THINGS),
        place=place,
        place2=place2,
        reason=rng.choice(REASONS),
        verb=rng.choice(VERBS),
        n=rng.randint(2, 95),
        n2=rng.randint(100, 9000),
    )


def paragraph(rng: Random, least: int = 2, most: int = 5) -> str:
    """Some sentences."""
    return " ".join(sentence(rng) for _ in range(rng.randint(least, most)))


def document(rng: Random, lines: int = 12) -> str:
    """A page of numbered lines, as tools show files."""
    return "\n".join(f"{number + 1}: {sentence(rng)}" for number in range(lines))


def uuid(rng: Random) -> str:
    """A version 4 UUID."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def token(rng: Random, length: int = 24) -> str:
    """An opaque cursor."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
    return "".join(rng.choice(letters) for _ in range(length))


def digest(rng: Random) -> str:
    """A SHA-256 in hex."""
    return f"{rng.getrandbits(256):064x}"


def stamp(seconds: float) -> str:
    """An ISO time."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def query(rng: Random) -> str:
    """What one types into a search."""
    return f"{rng.choice(FIELDS)} {rng.choice(THINGS)} {rng.choice(PLACES)}"


def path(rng: Random) -> str:
    """A file of a code base."""
    folder = rng.choice(("src", "app", "lib", "pkg/core", "services/orders", "web/views"))
    name = rng.choice(("parser", "ledger", "router", "session", "cache", "billing", "schema", "queue", "auth"))
    return f"{folder}/{name}{rng.choice(('', '_v2', '_test', '_io'))}.{rng.choice(('py', 'ts', 'go'))}"
