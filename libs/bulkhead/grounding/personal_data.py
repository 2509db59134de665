"""Places of what looks like personal data in a text: e-mail addresses, accounts, cards and telephone numbers. Pure."""

import re
from typing import Literal

PersonalData = Literal["card", "email", "iban", "phone"]
MASKED = "[masked]"
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b", re.I)
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}+@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_DIGITS = re.compile(r"(?<![\w.,-])\+?\d(?:[ ()./\u00a0\u202f-]{0,2}\d){7,18}(?![\w,.]?\d)")
_DATE_LIKE = re.compile(r"\d{4}-\d{2}-\d{2}|\d{1,2}[./]\d{1,2}[./]\d{4}")


def find_personal_data(text: str) -> list[tuple[int, int, PersonalData]]:
    """Start, end and kind of each, in order. An account's checksum is not looked at: one mistyped is one, too."""
    spans: list[tuple[int, int, PersonalData]] = [(*match.span(), "email") for match in _EMAIL.finditer(text)]
    spans += [(*match.span(), "iban") for match in _IBAN.finditer(text)]
    for match in _DIGITS.finditer(text):
        if _is_telephone(match[0]):
            spans.append((*match.span(), "phone"))
        elif _is_card(match[0]):
            spans.append((*match.span(), "card"))
    return sorted(spans)


def is_iban(raw: str) -> bool:
    """The checksum of ISO 13616 over an account's number."""
    packed = raw.replace(" ", "").upper()
    digits = "".join(str(int(char, 36)) for char in packed[4:] + packed[:4])
    return int(digits) % 97 == 1


def _is_telephone(raw: str) -> bool:
    apart = sum(not char.isdigit() for char in raw)
    return (raw.startswith(("+", "00")) or (raw.startswith("0") and apart > 0)) and not _DATE_LIKE.search(raw)


def _is_card(raw: str) -> bool:
    """Luhn's sum over 13 to 19 digits."""
    digits = [int(char) for char in raw if char.isdigit()]
    if not 13 <= len(digits) <= 19:
        return False
    doubled = (digit * 2 - 9 * (digit > 4) if index % 2 else digit for index, digit in enumerate(reversed(digits)))
    return sum(doubled) % 10 == 0


def mask_personal_data(text: str) -> str:
    """The text with its personal data masked."""
    pieces, position = [], 0
    for start, end, _ in find_personal_data(text):
        if start >= position:
            pieces += [text[position:start], MASKED]
            position = end
    return "".join((*pieces, text[position:]))
