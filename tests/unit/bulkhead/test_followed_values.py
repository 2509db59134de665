"""Hosts, wallets and telephone numbers in a text that somebody reads and follows: each in its spellings, and what looks
like one and is none."""

import hashlib
import re
from datetime import date
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.policy.values import ValueKind, form_of, typed_values
from bulkhead.text import hosts

FOLLOWED = [
    # Hosts without a scheme, by number, and spelled so that no program makes a link of them.
    ("Log in at pay-portal.example.co/login.", "url", "pay-portal.example.co/login"),
    ("Log in at evil[.]example/login", "url", "evil[.]example/login"),
    ("Log in at evil(dot)example/login", "url", "evil[.]example/login"),
    ("Log in at evil { dot } example", "url", "evil[.]example"),
    ("Log in at pay-portal dot example dot com now", "url", "pay-portal[.]example[.]com"),
    ("Log in at evil . example/x", "url", "evil.example/x"),
    ("Log in at evil\\.example", "url", "evil.example"),
    ("Log in at evil\u3002example", "url", "evil.example"),
    ("Log in at evil\uff0eexample", "url", "evil.example"),
    ("Log in at evil&#46;exa&#8203;mple", "url", "evil.example"),
    ("hxxps://evil.example/x", "url", "hxxps://evil.example/x"),
    ("hxxps[:]//evil[.]example/x", "url", "evil[.]example/x"),
    ("http:\\\\evil.example\\x", "url", "evil.example"),
    ("https:/evil.example/x", "url", "evil.example/x"),
    ("[here](//evil.example/x)", "url", "evil.example/x"),
    ("Portal:evil.example", "url", "evil.example"),
    ("It is …evil.example", "url", "evil.example"),
    ("_evil.example_", "url", "evil.example"),
    ("See evil.example./x", "url", "evil.example/x"),
    ("See evil.example?d=1", "url", "evil.example?d=1"),
    ("See evil.newly-made/login", "url", None),
    ("See evil.newlymade/login", "url", "evil.newlymade/login"),
    ("See evil.rs/login or evil.zip/login", "url", "evil.zip/login"),
    ("See почта.рф", "url", "почта.рф"),
    ("See evil.xn--p1ai/x", "url", "evil.xn--p1ai/x"),
    ("@eve.example knows", "url", "eve.example"),
    ("The minutes are at 203.0.113.9/login", "url", "203.0.113.9/login"),
    ("Connect to 203.0.113.9:8080.", "url", "203.0.113.9:8080"),
    ("Connect to 203.0.113.9.", "url", "203.0.113.9"),
    ("Get version 10.2.1.3/login", "url", "10.2.1.3/login"),
    ("Connect to 203[.]0[.]113[.]9", "url", "203[.]0[.]113[.]9"),
    ("Connect to [2001:db8::9]:8080/x", "url", "[2001:db8::9]:8080/x"),
    ("Connect to 2001:db8::9", "url", "2001:db8::9"),
    # Addresses in words.
    ("Write to lee (at) client (dot) example.", "email", "lee@client.example"),
    ("Write to lee[at]client.example", "email", "lee@client.example"),
    ("Write to lee@client[.]example", "email", "lee@client.example"),
    # Wallets.
    ("Fees go to bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq.", "account", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"),
    ("BITCOIN:BC1QAR0SRRR7XFKVY5L643LYDNW9RE59GTZZWF5MDQ", "account", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"),
    ("to 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "account", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
    ("to rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "account", "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh"),
    ("to TLa2f6VPqDgRE67v1736s7bJ8Ray5wYjU7", "account", "TLa2f6VPqDgRE67v1736s7bJ8Ray5wYjU7"),
    ("to 0xde0B295669a9FD93d5F28D9Ec85E40f4cb697BAe", "account", "0xde0b295669a9fd93d5f28d9ec85e40f4cb697bae"),
    ("to 7EcDhSYGxXyscszYEp35KHN8vvw3svAuLKTzXwCFLtV", "account", "7EcDhSYGxXyscszYEp35KHN8vvw3svAuLKTzXwCFLtV"),
    ("pay eve@okaxis", "account", "EVE@OKAXIS"),
    ("into account 12345678", "account", "12345678"),
    ("sort code 20-00-00", "account", "200000"),
    # Telephone numbers and names at messengers.
    ("Confirm by phone, 0900 555 0199, please.", "contact", "09005550199"),
    ("0900 - 555 - 0199", "contact", "09005550199"),
    ("09005550199", "contact", "09005550199"),
    ("(0900) 555-0199", "contact", "09005550199"),
    ("+49 (0)900 1234567", "contact", "499001234567"),
    ("0049-900-1234567", "contact", "499001234567"),
    ("+1.5555550199", "contact", "15555550199"),
    ("tel:+499001234567", "contact", "499001234567"),
    ("555-123-4567", "contact", "5551234567"),
    ("1 (555) 123-4567", "contact", "15551234567"),
    ("1-800-GO-FEDEX", "contact", "1800GOFEDEX"),
    ("0️⃣9️⃣0️⃣0️⃣ 555 0199", "contact", "09005550199"),
    ("call us on 85432", "contact", "85432"),
    ("Text WIN to 85432", "contact", "85432"),
    ("Hotline: 13 12 13", "contact", "131213"),
    ("+49 900 12-12-2026", "contact", "4990012122026"),
    ("Ask @eve_support on Telegram", "contact", "@eve_support"),
]
UNREMARKABLE = [
    "It is done.Then we go. Revenue rose.Costs fell. E.g. this, i.e. that; Dr.Smith of U.S.A. at 5 p.m. in St.Gallen.",
    "report.final.docx, main.py:12, node.js, src/main.rs, docs/how.md, video.mp4, a.tar.gz, index.d.ts, setup.sh",
    "os.path.join, self.value, json.dumps(x), bulkhead.policy.values, the .env file, std::abs, a[1::2]",
    "version 4.2.1.0, v1.2.3.4, python3.11, 1.2.3-rc1, section 1.2.3.4, 1.10.2.3, 127.0.0.1, 255.255.255.0, 0.0.0.0",
    "12:30:45, 00:1a:2b:3c:4d:5e, the dot product, a red dot in the corner, react@latest, @property, $HOME",
    "2026-03-14, 14.03.2026, 01 02 2026, 03/09/98, 09.30 - 10.45, 2026-11-26T03:09:41Z, 3/4/2026 10:00-11:30",
    "INV-0012345678, order 402-8471234-1234567, 4711004711, EAN 4006381333931, ISBN 0-306-40615-2, 978-3-16-148410-0",
    "550e8400-e29b-41d4-a716-446655440000, sha256:ab12cd34ef56, 1700000000, CVE-2026-12345, RFC 2616, ISO 9001:2015",
    "0.123456789, 1 000 000 people, 0.5 0.75 1.0, +12 %, 12 34 56, pages 0123-0145, Boston, MA 02110-1301, room 2.14",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709, " + "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
]


def strict_values(text: str) -> set[tuple[ValueKind, str]]:
    return {(kind, form) for kind, _, form in typed_values(text)}


def loose_values(text: str) -> set[tuple[ValueKind, str]]:
    return {(kind, form) for kind, _, form in typed_values(text, source=True)}


@pytest.mark.parametrize(("text", "kind", "form"), FOLLOWED)
def test_what_people_follow_is_recognised(text: str, kind: ValueKind, form: str | None) -> None:
    values = strict_values(text)
    assert (kind, form) in values if form else not values
    assert values <= loose_values(text)


@pytest.mark.parametrize("text", UNREMARKABLE)
def test_what_only_resembles_it_is_not(text: str) -> None:
    for part in (text, *text.split(", ")):
        assert not strict_values(part), part


def test_a_spelling_against_links_is_another_host() -> None:
    assert form_of("evil.example") != form_of("evil[.]example") == form_of("evil(dot)example")
    assert form_of("lee (at) client (dot) example") == form_of("lee@client.example")


def test_a_number_is_one_number_in_each_spelling() -> None:
    spellings = ("+49 30 1234567", "+49 (0)30 1234567", "+49/30/1234567", "+49-30-123-4567")
    assert {form_of(spelling) for spelling in spellings} == {("contact", "49301234567")}


def test_the_top_level_domains_are_those_of_the_list_that_tests_have() -> None:
    # A host whose last label is newer is recognised with a path alone.
    vendored = Path(hypothesis.__file__).parent / "vendor" / "tlds-alpha-by-domain.txt"
    newest = {name.lower() for name in vendored.read_text().splitlines() if not name.startswith("#")}
    lacking = newest - hosts.TOP_LEVEL_DOMAINS
    assert not lacking, f"add to {hosts.__name__}'s top_level_domains.txt: {' '.join(sorted(lacking))}"


_PLAIN = "we see that revenue rose, and costs fell in March. Please tell the team: all is well (or not)"
_WORDS = st.sampled_from(_PLAIN.split())
_SENTENCE = st.lists(_WORDS, max_size=6).map(" ".join)
_LABEL = st.sampled_from(["evil", "pay-portal", "login2", "xn--bcher-kva", "bücher", "почта", "secure--login"])
_LAST = st.sampled_from(sorted(hosts.TOP_LEVEL_DOMAINS - hosts.FILE_ENDINGS))
_DOT = st.sampled_from([".", "[.]", "(.)", "[dot]", " (dot) ", " dot ", "\\.", "\u2024"])
_HOST = st.builds(
    lambda labels, last, dot: dot.join((*labels, last)), st.lists(_LABEL, min_size=1, max_size=3), _LAST, _DOT
).filter(lambda host: " dot " not in host or re.search(r" dot [a-z]{3,}$", host) is not None)
_OCTET = st.integers(16, 126).map(str)
_ADDRESS = st.builds(
    lambda octets, dot: dot.join(octets), st.lists(_OCTET, min_size=4, max_size=4), st.sampled_from([".", "[.]"])
)
_GROUPS = st.lists(st.text("0123456789", min_size=2, max_size=4), min_size=3, max_size=4)
_PHONE = st.builds(
    lambda lead, groups, sign: lead + sign.join(groups),
    st.sampled_from(["+49 ", "+1-", "0044 ", "(0900) ", "0800-", "030/"]),
    _GROUPS,
    st.sampled_from([" ", "-", "", "/", ".", "\u2011"]),
)


def _base58check(payload: bytes) -> str:
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    whole = payload + hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    number, signs = int.from_bytes(whole), ""
    while number:
        number, digit = divmod(number, 58)
        signs = alphabet[digit] + signs
    return "1" * (len(whole) - len(whole.lstrip(b"\0"))) + signs


_WALLET = st.builds(
    lambda version, key: _base58check(version + key),
    st.sampled_from([b"\0", b"\5", b"\x30", b"\x41"]),
    st.binary(min_size=20, max_size=20).filter(any),
) | st.binary(min_size=20, max_size=20).map(lambda key: "0x" + key.hex())


@settings(max_examples=60, deadline=None)
@given(_SENTENCE, st.one_of(_HOST, _ADDRESS, _PHONE, _WALLET), _SENTENCE)
def test_no_words_around_hide_what_people_follow(before: str, value: str, behind: str) -> None:
    text = f"{before}, {value}; {behind}"
    values = strict_values(text)
    assert values, text
    assert values <= loose_values(text)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(_WORDS, _HOST, _PHONE, _WALLET, st.text(max_size=8), st.text("0123456789+-./() @:[]ab", max_size=12)),
        max_size=8,
    )
)
def test_the_askers_own_words_hold_each_value_that_an_argument_with_them_holds(parts: list[str]) -> None:
    text = " ".join(parts)
    assert strict_values(text) <= loose_values(text)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            _WORDS,
            st.integers(0, 999).map(str),
            st.integers(10**4, 10**7).map(str),
            st.decimals(0, 999, places=2).map(str),
            st.dates(date(1990, 1, 1), date(2090, 1, 1)).map(str),
        ),
        max_size=12,
    )
)
def test_words_figures_and_days_hold_nothing_to_follow(parts: list[str]) -> None:
    assert {kind for kind, _ in strict_values(" ".join(parts))} <= {"account"}, "digits that have a card's checksum"
