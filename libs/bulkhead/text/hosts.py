"""Places of hosts and of spelled e-mail addresses in a text: with or without a scheme, by name or by number, and in the
spellings that keep a program from making a link of them (`shop[.]example`, `lee (at) shop (dot) example`).

In: a text in NFKC. Out: where each begins and ends; and its plain spelling. Pure, and linear in the text: each pattern
is bounded.
"""

import ipaddress
import re
from pathlib import Path

_DELEGATED = Path(__file__).with_name("top_level_domains.txt").read_text()
_BESIDE_DNS = (
    "corp example home internal intranet invalid lan local localhost private test "
    "bit blockchain crypto dao eth i2p nft onion wallet"
)
TOP_LEVEL_DOMAINS = frozenset(f"{_DELEGATED} {_BESIDE_DNS}".split())
"""Last labels of hosts that may be reached. Sentences without a blank between them (`done.Then`) end in none."""
_FILES = (
    "txt md csv tsv pdf png jpg jpeg gif svg doc docx xls xlsx ppt pptx odt ods rtf json jsonl yaml yml toml xml html "
    "htm css js jsx ts tsx py pyi ipynb rs go java kt rb php sh bat sql db log tmp zip gz tar tgz ics eml msg bak old "
    "cfg conf ini env lock exe dll bin iso dmg apk avi wav parquet tex bib diff patch orig swp"
)
FILE_ENDINGS = frozenset(_FILES.split())
"""The name of a file has the form of a host."""

_DOT = r"(?:\\?\.| \. |(?<=[a-z0-9])\u3002(?=[a-z0-9])| ?[\[({] ?(?:\.|dot|punkt|punto|point) ?[\])}] ?)"
_SPELLED_DOT = re.compile(r" ?[\[({] ?(?:\.|dot|punkt|punto|point) ?[\])}] ?| dot ", re.I)
_SPELLED_AT = re.compile(r"[\[({] ?(?:@|at|ät|arroba) ?[\])}]", re.I)
_OTHER_DOT = re.compile(r"\\\.| \. |\u3002")
_LABEL = r"[^\W_][\w-]{0,62}"
_LAST = r"(?:xn--[a-z0-9-]{2,59}|i2p|[^\W\d_]{2,24})(?![^\W_]|[_-]\w)"
_TAIL = r"(?:\.?(?=[:/?#]))?(?::\d{1,5}(?!\d))?(?:[/?#][^\s<>\"`{}|\\^\0]{0,2000})?"
_BEFORE = (
    r"(?<![^\W_])(?=[^\W_])(?:(?<![\w@./:-])|(?<=\.\.)|(?<=//)|(?<=:/)|(?<=[^\W\d]:)"
    r"|(?<=_)(?<!\w_)|(?<=-)(?<!\w-)|(?<=@)(?<![\w./]@))"
)
"""No host begins within a path, a name or a number."""
_NAME = re.compile(rf"{_BEFORE}(?:{_LABEL}{_DOT}){{1,8}}(?P<last>{_LAST})(?P<tail>{_TAIL})", re.I)
_IN_WORDS = re.compile(
    rf"(?<![\w-])(?:{_LABEL} dot ){{1,4}}(?P<last>[a-z]{{3,24}}|ai|co|de|eu|fr|io|ru|uk)(?![\w-])", re.I
)
_NUMBER = re.compile(rf"(?<![\w.-])(?:\d{{1,3}}{_DOT}){{3}}\d{{1,3}}(?![^\W_]|\.\d|-\w)(?P<tail>{_TAIL})", re.I)
_VERSION_WORDS = ("version", "release", "build", "firmware", "section", "chapter", "clause", "§")
_LONG_NUMBER = re.compile(
    r"(?<![\w:.])\[?(?P<number>(?:[0-9a-f]{1,4}:{1,2}){2,7}[0-9a-f]{0,4})(?![\w:])(?:\]" + _TAIL + ")?", re.I
)
_EMAIL = re.compile(
    rf"(?<![\w.+-])[\w.+-]{{1,64}}+(?:@| ?[\[({{] ?(?:@|at|ät|arroba) ?[\])}}] ?)"
    rf"(?:{_LABEL}(?:{_DOT}| dot )){{1,8}}(?P<last>{_LAST})",
    re.I,
)


def find_hosts(text: str, *, is_loose: bool = False) -> list[tuple[int, int]]:
    """Start and end of each host with its port and path, in order. is_loose: also what may be the name of a file, the
    end of a sentence or a version."""
    names = _NAME.finditer(text)
    spans = [match.span() for match in names if is_loose or _is_reached(match["last"], match["tail"])]
    if " dot " in text.lower():
        spans += [match.span() for match in _IN_WORDS.finditer(text) if match["last"].lower() in TOP_LEVEL_DOMAINS]
    for match in _NUMBER.finditer(text):
        octets = [int(octet) for octet in re.findall(r"\d+", match[0][: len(match[0]) - len(match["tail"])])]
        # Without a port or a path, some read as a version, a mask or this machine.
        is_plain = octets[0] in (0, 127, 255) or max(octets) < 16 or _ends_in_version_word(text, match.start())
        if max(octets) <= 255 and (is_loose or match["tail"] or not is_plain):
            spans.append(match.span())
    spans += [match.span() for match in _LONG_NUMBER.finditer(text) if _is_long_number(match["number"])]
    return sorted(spans)


def find_spelled_emails(text: str) -> list[tuple[int, int]]:
    """Start and end of each e-mail address whose sign or dots are spelled, in order."""
    if "@" not in text and _SPELLED_AT.search(text) is None:
        return []
    return [match.span() for match in _EMAIL.finditer(text) if match["last"].lower() in TOP_LEVEL_DOMAINS]


def respell_email(raw: str) -> str:
    """`lee@shop.example` for any spelling of it."""
    return _SPELLED_AT.sub("@", _OTHER_DOT.sub(".", _SPELLED_DOT.sub(".", raw))).replace(" ", "")


def respell_host(raw: str) -> str:
    """The host with plain dots, or with `[.]` in place of all spelled ones: whoever wrote it so wanted no link."""
    return _OTHER_DOT.sub(".", _SPELLED_DOT.sub("[.]", raw))


def _is_reached(last: str, tail: str) -> bool:
    """True for what may be a host: with a path any name, unless that is a file's."""
    ending = last.lower()
    is_known = _ascii_label(ending) in TOP_LEVEL_DOMAINS
    if ending in FILE_ENDINGS:
        return is_known and "/" in tail
    return is_known or bool(tail)


def _ends_in_version_word(text: str, end: int) -> bool:
    return text[max(0, end - 10) : end].rstrip().lower().endswith(_VERSION_WORDS)


def _ascii_label(label: str) -> str:
    try:
        return label.encode("idna").decode()
    except UnicodeError:
        return label


def _is_long_number(number: str) -> bool:
    try:
        return ipaddress.ip_address(number).version == 6
    except ValueError:
        return False
