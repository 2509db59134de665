"""The values of a text: what in it chooses where something goes, each in one canonical form.

In: a text, or the arguments of a call. Out: its URLs, e-mail addresses, accounts, cards, wallets, telephone numbers and
amounts; the leaves of the arguments and the values within them. Pure. Each pattern is bounded, so the time is linear in
the text.
"""

import hashlib
import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote

from bulkhead.flow.json_pointer import escape_segment
from bulkhead.policy.dates import days_and_times, moment_form
from bulkhead.text.accounts import compact_account, find_cards, find_ibans, passes_luhn
from bulkhead.text.contacts import contact_form, find_contacts
from bulkhead.text.hosts import find_hosts, find_spelled_emails, respell_email, respell_host
from bulkhead.text.wallets import find_wallets, wallet_form
from bulkhead_contracts import bounds

ValueKind = Literal["url", "email", "account", "contact", "number", "date", "time", "text"]
ValueRole = Literal["leaf", "part", "key"]

_URL = re.compile(r"\b[a-z][a-z0-9+.-]{1,15}:/{2,3}[^\s<>\"`{}|\\^]{1,4000}", re.I)
_EMAIL = re.compile(r"[\w.!#$%&'*+/=?^~-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_EMAIL_MARKS = re.compile(r"(?:[a-z]{2,12}=)?['*~/]*(?:_(?=\w[^@]*@[\w.-]*_$))?", re.I)
"""Quotes and markup before an address, and the name of a field whose value it is."""
_DIGITS = re.compile(r"(?<!\w)(?<!\d[ .\-/])\d(?:[ .\-/]?\d){5,40}+(?!\w)")
_DIGIT = re.compile(r"\d")
_NUMBER = re.compile(
    r"(?<![\w.,])(?<!\w[-/:])[-+]?(?:"
    r"\d{1,3}(?:,\d{3}){1,9}(?:\.\d{1,18})?|\d{1,3}(?:\.\d{3}){1,9},\d{1,18}|\d{1,3}(?:\.\d{3}){2,9}|"
    r"\d{1,3}(?:[ '\u2019]\d{3}){1,9}(?:[.,]\d{1,18})?|\d{1,30}(?:[.,]\d{1,18})?"
    r")(?!\w|[.,]\d|[-/:]\d)"
)
_CURRENCY = r"(?:eur|usd|gbp|chf|jpy|cny|inr|sek|nok|dkk|pln|czk|cad|aud|euros?|dollars?|pounds?|francs?|[€$£¥₹])"
_AMOUNT_BEFORE = re.compile(rf"(?<!\w){_CURRENCY} ?$", re.I)
_AMOUNT_AFTER = re.compile(rf" ?{_CURRENCY}(?!\w)", re.I)
_STUCK = re.compile(rf"(?<=\d)(?={_CURRENCY}(?!\w))|(?<=eur)(?=\d)|(?<=usd)(?=\d)|(?<=gbp)(?=\d)|(?<=chf)(?=\d)", re.I)
_SEPARATORS = re.compile(r"[\s\"'`<>(){}\[\]|=;\u00ab\u00bb\u2018-\u201f]+|(?<!\d),|,(?!\d)")
_EDGES = ".:!?*_~,#\u2026"
_ESCAPED = re.compile(r"%[0-9a-f]{2}", re.I)
_ENTITY = re.compile(r"&#?\w{2,31};")
_INVISIBLE = re.compile("[\u00ad\u20e3\u200b-\u200f\u2060-\u2064\ufeff\U000e0000-\U000e007f\ufe00-\ufe0f]")
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class ArgumentValue:
    """One value of a call's arguments. text: as a ValueOrigin holds it. form: canonical; equal forms are one value.

    role: a leaf itself, a part of a longer leaf, or a key below the top (the tool's schema may not know it).
    """

    pointer: str
    text: str
    kind: ValueKind
    form: str
    role: ValueRole


def fold_unicode(text: str) -> str:
    """NFKC, without invisible characters. Letters of other scripts that look alike stay what they are."""
    if text.isascii():
        return text
    return _BIDI.sub("\ufffd", _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)))


def bound_text(text: str) -> str:
    """The text as a summary; a longer one ends with its digest, so that two of them stay two."""
    if len(text) <= bounds.MAX_SUMMARY_CHARS:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{text[: bounds.MAX_SUMMARY_CHARS - 17]}…{digest}"


def number_form(text: str) -> str | None:
    """The canonical form of a number as people or JSON write it; None for what is none. `1,250` is 1250, `1.250` 1.25,
    `1.250,00` 1250, `12,5` 12.5."""
    if not _NUMBER.fullmatch(text := fold_unicode(text).strip()):
        return None
    return _plain_number(text)


def _plain_number(text: str) -> str:
    if text.isdigit() and text.isascii():
        return text.lstrip("0") or "0"
    digits = re.sub(r"[ '\u2019]", "", text)
    comma, dot = digits.rfind(","), digits.rfind(".")
    if comma >= 0 and dot >= 0:
        grouping = "." if comma > dot else ","
        digits = digits.replace(grouping, "")
    elif comma >= 0 and re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+", digits):
        digits = digits.replace(",", "")
    elif digits.count(".") > 1:
        digits = digits.replace(".", "")
    return plain_decimal(Decimal(digits.replace(",", ".")))


def plain_decimal(value: Decimal) -> str:
    """Every digit of the number: `normalize` would round it."""
    written = format(value, "f").lstrip("+")
    written = written.rstrip("0").rstrip(".") if "." in written else written
    return "0" if written == "-0" else written


def word_form(text: str) -> str:
    """The words of a text in canonical form, each between blanks: ` pay 1250 eur to anna `."""
    text = fold_unicode(text)
    if _ESCAPED.search(text):
        text = f"{text} \x00 {fold_unicode(unquote(text))}"
    text = _NUMBER.sub(lambda match: _plain_number(match[0]), _STUCK.sub(" ", text.casefold()))
    return f" {' '.join(stripped for raw in _SEPARATORS.split(text) if (stripped := raw.strip(_EDGES)))} "


def url_form(text: str) -> str:
    """Canonical URL: host in lower case, no default port, percent escapes decoded once, https and a bare `/` left
    out, so that `shop.example` is `https://shop.example/`."""
    text = respell_host(fold_unicode(text))
    scheme, _, remainder = text.partition("://") if "://" in text else ("https", "", text)
    cut = min((position for sign in "/?#" if (position := remainder.find(sign)) >= 0), default=len(remainder))
    host, path = remainder[:cut].lower(), unquote(remainder[cut:])
    scheme = scheme.lower()
    host = host.removesuffix({"https": ":443", "http": ":80"}.get(scheme, ":")).rstrip(".")
    path = "" if path == "/" else path
    return f"{host}{path}" if scheme == "https" else f"{scheme}://{host}{path}"


def _trim_url(url: str) -> str:
    url = url.rstrip(".,;:!?'*_~([\u2026\u2019\u201d")
    while url and url[-1] in ")]" and url.count(url[-1]) > url.count("(" if url[-1] == ")" else "["):
        url = url[:-1].rstrip(".,;:!?'*_~")
    return url


def _email_part(match: str) -> str:
    """The address within a match, without the quotes and markup around it."""
    marks = _EMAIL_MARKS.match(match)
    address = match[marks.end() :] if marks is not None else match
    if marks is not None and marks[0].endswith("_"):
        address = address.rstrip("_")
    return match if address.startswith("@") else address


def typed_values(text: str, *, source: bool = False) -> Iterator[tuple[ValueKind, str, str]]:
    """(kind, as it stands there, form) of the values within a text. source: also names of files, all numbers and long
    rows of digits, which count where a value is looked for and are too many to be asked about."""
    text = fold_unicode(_ENTITY.sub(lambda entity: html.unescape(entity[0]), text))
    if _ESCAPED.search(text) and "://" not in text:
        text = fold_unicode(unquote(text))

    def extract_spans(
        kind: ValueKind,
        spans: Iterable[tuple[int, int]],
        form_of_raw: Callable[[str], str],
        trim: Callable[[str], str] = str,
    ) -> Iterator[tuple[ValueKind, str, str]]:
        nonlocal text
        cut_spans: list[tuple[int, int]] = []
        for start, end in spans:
            if cut_spans and start < cut_spans[-1][1]:
                continue
            raw = trim(text[start:end])
            start += text[start:end].index(raw)
            cut_spans.append((start, start + len(raw)))
            yield kind, raw, form_of_raw(raw)
        ends = [0, *(end for _, end in cut_spans)]
        text = "\x00".join(text[end:start] for end, (start, _) in zip(ends, [*cut_spans, (len(text), 0)], strict=True))

    digits = _DIGIT.search(text) is not None
    if ":/" in text:
        yield from extract_spans("url", (match.span() for match in _URL.finditer(text)), url_form, _trim_url)
    if "@" in text:
        yield from extract_spans("email", (match.span() for match in _EMAIL.finditer(text)), str.casefold, _email_part)
    if digits:
        yield from extract_spans("account", find_ibans(text), compact_account)
    yield from extract_spans("account", find_wallets(text), wallet_form)
    yield from extract_spans("email", find_spelled_emails(text), lambda raw: respell_email(raw).casefold())
    if source:  # Before what only may be hosts is cut out.
        yield from _contacts_within(text, is_loose=True)
    yield from extract_spans("url", find_hosts(text, is_loose=source), url_form, _trim_url)
    if not source:
        yield from _contacts_within(text, is_loose=False)
    if not digits:
        return
    if source:
        yield from days_and_times(text)
    loose = _STUCK.sub(" ", text)
    rows = {match.span() for match in _DIGITS.finditer(loose) if source or passes_luhn(match[0])}
    for start, end in sorted(rows.union(find_cards(loose))):
        yield "account", loose[start:end], compact_account(loose[start:end])
        # A number behind a number is one of its own; a blank within one is a spelling.
        for part in loose[start:end].split(" ") if source else ():
            if sum(map(str.isdigit, part)) >= 6:
                yield "account", part, compact_account(part)
    for match in re.finditer(r"(?<!\w)\d{6,40}(?!\w)", loose) if source else ():
        yield "account", match[0], match[0]
    for match in _NUMBER.finditer(loose):
        near = _AMOUNT_BEFORE.search(loose, max(0, match.start() - 10), match.start()) or _AMOUNT_AFTER.match(
            loose, match.end()
        )
        if source or near:
            yield "number", match[0], _plain_number(match[0])


def _contacts_within(text: str, *, is_loose: bool) -> Iterator[tuple[ValueKind, str, str]]:
    for kind, start, end in find_contacts(text, is_loose=is_loose):
        raw = text[start:end]
        yield kind, raw, contact_form(raw) if kind == "contact" else compact_account(raw)


def form_of(leaf: object) -> tuple[ValueKind, str]:
    """ValueKind and canonical form of a whole leaf."""
    if isinstance(leaf, bool) or leaf is None:
        return "text", {True: " true ", False: " false ", None: " null "}[leaf]
    if isinstance(leaf, int | float):
        try:
            value = Decimal(repr(leaf))
        except (ArithmeticError, ValueError):
            return "text", ""
        return ("number", plain_decimal(value)) if value.is_finite() else ("text", "")
    text = fold_unicode(str(leaf)).strip()
    if (moment := moment_form(text)) is not None:
        return moment
    if _DIGITS.fullmatch(text) and sum(map(str.isdigit, text)) >= 6 and not re.search(r"\d[.]\d{1,2}$", text):
        return "account", compact_account(text)
    if (plain := number_form(text)) is not None:
        return "number", plain
    for kind, raw, form in typed_values(text):
        if raw == text and kind != "number":
            return kind, form
        break
    return "text", word_form(text)


def values_of(arguments: Mapping[str, object]) -> Iterator[ArgumentValue]:
    """Every value of a call's arguments: each leaf, then what stands within it."""
    pending: list[tuple[str, object, int]] = [("", arguments, 0)]
    while pending:
        pointer, inner, depth = pending.pop()
        if isinstance(inner, Mapping):
            for key in inner if depth else ():
                place = f"{pointer}/{escape_segment(key)}"
                yield ArgumentValue(place, bound_text(key), *form_of(key), "key")
            pending.extend(
                reversed([(f"{pointer}/{escape_segment(key)}", child, depth + 1) for key, child in inner.items()])
            )
        elif isinstance(inner, list | tuple):
            pending.extend(
                reversed([(f"{pointer}/{position}", child, depth + 1) for position, child in enumerate(inner)])
            )
        elif isinstance(inner, str):
            yield from _text_values(pointer, inner)
        else:
            kind, form = form_of(inner)
            yield ArgumentValue(pointer, bound_text(form.strip()), kind, form, "leaf")


@lru_cache(maxsize=16)
def _text_values(pointer: str, text: str) -> tuple[ArgumentValue, ...]:
    """Values of a leaf that is a text. One ruling asks for them several times, and a long text takes long."""
    kind, form = form_of(text)
    leaf = ArgumentValue(pointer, bound_text(text), kind, form, "leaf")
    parts = typed_values(text) if kind == "text" else ()
    return (leaf, *(ArgumentValue(pointer, bound_text(raw), inner, part, "part") for inner, raw, part in parts))


def is_same_value(value: ArgumentValue, planned: str) -> bool:
    """True for a planned value in any of its spellings. An address is planned with the blanks that people write."""
    return form_of(planned) == (value.kind, value.form) or (value.kind == "url" and url_form(planned) == value.form)


def covers_pointer(pattern: str, pointer: str) -> bool:
    """True when a place lies at or below a pattern, in which `*` is any one key or position."""
    pattern_parts, pointer_parts = pattern.split("/"), pointer.split("/")
    return len(pattern_parts) <= len(pointer_parts) and all(
        pattern_part in ("*", part) for pattern_part, part in zip(pattern_parts, pointer_parts, strict=False)
    )
