"""Words for invented runs: sentences that differ as those of people do, names, ids, noise.

In: a random generator. Out: texts and values.
"""

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from random import Random

TEXTS = {
    name: tuple(texts.split() if isinstance(texts, str) else texts)
    for name, texts in tomllib.loads(Path(__file__).with_name("texts.toml").read_text()).items()
}
THINGS = TEXTS["things"]
PLACES = TEXTS["places"]
PEOPLE = TEXTS["people"]
FIELDS = TEXTS["fields"]
REASONS = TEXTS["reasons"]
VERBS = TEXTS["verbs"]
SENTENCES = TEXTS["sentences"]
# Sentences are put together of short pieces: long ones that come back would make honest texts resemble each other.
WHO = TEXTS["who"]
DID = TEXTS["did"]
WHAT = TEXTS["what"]
LIKE = TEXTS["like"]
HOW = TEXTS["how"]
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
