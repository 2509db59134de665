"""Places of what looks like personal data in a text: e-mail addresses, accounts, cards and telephone numbers. Pure."""

import re
from typing import Literal

from bulkhead.text.accounts import blank_spans, find_cards, find_ibans, passes_luhn

PersonalData = Literal["card", "email", "iban", "phone"]
MASKED = "[masked]"
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}+@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_DIGITS = re.compile(r"(?<![\w.,-])\+?\d(?:[ ()./\u00a0\u202f-]{0,2}\d){7,40}(?![\w,.]?\d)")
_DATE_LIKE = re.compile(r"(?<!\d)(?:\d{4}-\d{2}-\d{2}|\d{1,2}[./]\d{1,2}[./]\d{4})(?!\d)")


def find_personal_data(text: str) -> list[tuple[int, int, PersonalData]]:
    """Start, end and kind of each, in order. An account's checksum is not looked at: one mistyped is one, too."""
    ibans = find_ibans(text)
    cards = find_cards(text)
    spans: list[tuple[int, int, PersonalData]] = [(*match.span(), "email") for match in _EMAIL.finditer(text)]
    spans += [(*span, "iban") for span in ibans]
    spans += [(*span, "card") for span in cards]
    days = (match.span() for match in _DATE_LIKE.finditer(text))
    for match in _DIGITS.finditer(blank_spans(text, (*ibans, *cards, *days))):
        if _is_telephone(match[0]):
            spans.append((*match.span(), "phone"))
        elif passes_luhn(match[0]):
            spans.append((*match.span(), "card"))
    return sorted(spans)


def _is_telephone(raw: str) -> bool:
    apart = sum(not char.isdigit() for char in raw)
    return raw.startswith(("+", "00")) or (raw.startswith("0") and apart > 0)


def mask_personal_data(text: str) -> str:
    """The text with its personal data masked."""
    pieces, position = [], 0
    for start, end, _ in find_personal_data(text):
        if start >= position:
            pieces += [text[position:start], MASKED]
            position = end
    return "".join((*pieces, text[position:]))
