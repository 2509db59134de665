"""Places of telephone numbers, of names at messengers and of accounts that a word announces, in a text.

In: a text. Out: kind, start and end of each. A number counts by its shape (`+49 30 1234567`, `(030) 12345`,
`555-123-4567`, `1-800-GO-FEDEX`) or by the word before it (`call 85432`, `account 123456`); days, times and identifiers
do not. Pure, and linear in the text: each pattern is bounded.
"""

import re
from collections.abc import Iterator
from typing import Literal

from bulkhead.text.accounts import blank_spans

_GAP = r"[ \u00a0\u202f.\-/()\u2010-\u2015\u2212]{0,3}"
_SIGN = r"[ \u00a0\u202f./\-\u2010-\u2015]"
_PHONE = re.compile(
    r"(?<!\w)(?<!\d[.,:/-])(?<![A-Z]-)(?:"
    rf"(?:\+|(?<!\d)00) ?[1-9](?:{_GAP}\d){{6,19}}"
    rf"|\(?0[1-9]\d{{0,4}}\)?{_SIGN}{{1,3}}\d(?:{_SIGN}{{0,3}}\d){{4,15}}|0[1-9]\d{{7,15}}"
    r"|(?:\+?1[-. ]?)?(?:\([2-9]\d\d\) ?\d{3}[-. ]|[2-9]\d\d(?:[-.]\d{3}[-.]| [2-9]\d\d[- ]))\d{4}"
    r"|\((?!19|20)\d{1,5}\)[ -]?\d{3,5}[-. ]?\d{3,4}"
    r"|(?:\+?1[-. ])?\(?0?[89]\d\d\)?[-. ](?=[A-Z\d-]{6,11}\b)[A-Z\d-]*[A-Z]{3}[A-Z\d-]*"
    r")(?!\w|[.,:-]?\d)"
)
"""With a plus, with the zero of calls within a country, as in North America, with a code in brackets, in letters."""
_ROW = re.compile(rf"(?<!\w)\d(?:{_GAP}\d){{3,18}}(?!\w|[.,:-]?\d)")
_SIGNS = re.compile(r"[\W_]+")
_GROUP_END = re.compile(r"\d(?!\d)")
_ANNOUNCED = re.compile(
    r"\b(?:(?P<contact>call|calling|phone|telephone|tel|telefon|fon|dial|ring|hotline|helpline|mobile|cell|handy|mobil"
    r"|whats ?app|(?:sms|text)(?: \W?\w{1,12}\W?(?= to\b))?|fax|ruf\w{0,20}|appelez|llame|chiama)"
    r"|(?P<account>accounts?|acct|a/c|konto\w{0,10}|kto|cuenta|compte|conto|sort code|routing))\b"
    r"(?:[^\w\n]{0,3}\b(?:us|me|him|her|them|our|the|at|on|is|to|number|num|no|nr|line|now|under|unter|toll.free|free)\b)"
    r"{0,4}[^\w\n]{1,3}$",
    re.I,
)
_MAX_ANNOUNCEMENT_CHARS = 64
_MIN_ACCOUNT_DIGITS = 6
_MIN_PHONE_CHARS = 7
_RESEMBLING = re.compile(
    r"\b(?:(?=\d)(?<!\+)(?<!\d[ .\-/])(?:"
    r"(?:19|20)\d\d[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./ ]\d{1,2}[-./ ](?:19|20)\d\d"
    r"|\d{1,2}[.:h]\d\d ?[-\u2013] ?\d{1,2}[.:h]\d\d)(?![-./]?\d)"
    r"|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b|ISBN[-: \d]{10,20}X?|[A-Z]{2},?\s{1,2}\d{5}-\d{4}\b)"
)
"""Days, spans of hours, UUIDs, books and postal codes."""
_VERSION = re.compile(r"\d{1,4}(?:\.\d{1,4}){1,3}")
_MONEY = re.compile(r" ?(?:%|[€$£¥₹]|(?:eur|usd|gbp|chf|jpy)\b)", re.I)
_HANDLE = re.compile(r"(?<!\w)[@$][a-z]\w{2,31}", re.I)
_APP = re.compile(
    r"\b(?:telegram|whats ?app|signal|discord|we ?chat|skype|viber|threema|instagram|snapchat|tik ?tok|cash ?app|venmo"
    r"|paypal|revolut|zelle|tg|insta)\b",
    re.I,
)
_CHARS_TO_APP = 32
_UPI = re.compile(
    r"(?<![\w.-])[\w.-]{2,64}@(?:ok\w{2,12}|upi|[yi]bl|ax[lis]\w{0,6}|apl|paytm|sbi|icici|hdfc|\w{2,12}bank)"
    r"(?![\w-]|\.\w)",
    re.I,
)
"""The addresses of Indian banks' apps."""
ContactKind = Literal["contact", "account"]


def find_contacts(text: str, *, is_loose: bool = False) -> Iterator[tuple[ContactKind, int, int]]:
    """Each number and name by which somebody is reached or paid. is_loose: also what only its words would make one, in
    another text: any name with a sign before it, any row of digits and its first groups."""
    if "@" in text or "$" in text:
        for match in _HANDLE.finditer(text):
            if is_loose or _APP.search(text, max(0, match.start() - _CHARS_TO_APP), match.end() + _CHARS_TO_APP):
                yield "contact", *match.span()
        for match in _UPI.finditer(text):
            yield "account", *match.span()
    readable = blank_spans(text, (match.span() for match in _RESEMBLING.finditer(text)))
    shaped = [match.span() for match in _PHONE.finditer(readable) if _MONEY.match(readable, match.end()) is None]
    for start, end in shaped:
        yield "contact", start, end
    rows = [match.span() for match in _ROW.finditer(readable if is_loose else blank_spans(readable, shaped))]
    for start, end in rows:
        digits = sum(map(str.isdigit, readable[start:end]))
        announced = _ANNOUNCED.search(readable, max(0, start - _MAX_ANNOUNCEMENT_CHARS), start)
        is_version = _VERSION.fullmatch(readable, start, end) is not None
        if announced is not None and announced["contact"] and not is_version:
            yield "contact", start, end
        if digits >= _MIN_ACCOUNT_DIGITS and (is_loose or (announced is not None and announced["account"])):
            yield "account", start, end
    for start, end in {*shaped, *rows} if is_loose else ():
        for group in _GROUP_END.finditer(readable, min(start + _MIN_PHONE_CHARS, end - 1), end):
            yield "contact", start, group.end()


def contact_form(raw: str) -> str:
    """Digits and letters alone, without the zeros that stand for a plus or are left out after one: `+49 (0)30 12`,
    `00493012` and `493012` are one."""
    if raw[:1] in "@$":
        return raw.casefold()
    compact = _SIGNS.sub("", raw.replace("(0)", "")).upper()
    return compact[2:] if compact.startswith("00") else compact
