"""Places of account numbers (IBAN) and payment cards in a text, in the spellings in which people write them.

In: a text. Out: where each begins and ends. None takes the words or the numbers that follow it along. Pure, and linear
in the text: each pattern is bounded.
"""

import re
from collections.abc import Callable, Iterable, Iterator

_COUNTRIES = (
    "NO|BE||DK FI FK FO GL NL SD|MK SI|AT BA EE KZ LT LU MN XK|CH HR LI LV|BG BH CR DE GB GE IE ME RS VA|"
    "AE GI IL IQ OM SO TL|AD CZ ES MD PK RO SA SE SK TN VG|LY PT ST|IS TR|BI DJ FR GR IT MC MR SM|"
    "AL AZ BY CY DO GT HN HU LB NI PL SV|BR EG PS QA UA|JO KW MU YE|LC MT SC||RU"
)
_CHARS_IN_COUNTRY = {name: size for size, names in enumerate(_COUNTRIES.split("|"), 15) for name in names.split()}
"""Characters of an account by its country (ISO 13616)."""
_MIN_CHARS, _MAX_CHARS, _MIN_DIGITS = 15, 34, 8
_IBAN = re.compile(
    r"(?<![^\W_])(?<![^\W_]_)(?<![^\W_]__)[A-Za-z]{2}[0-9]{2}[A-Za-z0-9]{0,34}"
    r"(?:[ .\-][A-Za-z0-9]{1,34}(?![^\W_])){0,30}"
)
"""The beginning of an account, and words that may be its groups. Underscores mark it up, or are part of a name."""
_GROUP = re.compile(r"[A-Za-z0-9]+")
_CARD = re.compile(
    r"(?<!\w)(?=("
    r"\d{13,19}|(?:[3-6]\d|2[2-7])\d\d([ .\-/])(?:\d{4}\2\d{4}\2\d{4}|\d{6}\2\d{4,5})"
    r")(?!\w))"
)
"""A card in one row, or in the groups that are printed on it."""


def compact_account(text: str) -> str:
    """The number without its separators, in capitals."""
    return re.sub(r"[ .\-/]", "", text).upper()


def is_iban(raw: str) -> bool:
    """The checksum of ISO 13616 over an account's number."""
    compact = compact_account(raw)
    return int("".join(str(int(sign, 36)) for sign in compact[4:] + compact[:4])) % 97 == 1


def passes_luhn(raw: str) -> bool:
    """The checksum of payment cards over 13 to 19 digits."""
    digits = [int(sign) for sign in raw if sign.isdecimal()]
    if not 13 <= len(digits) <= 19:
        return False
    doubled = (digit * 2 - 9 * (digit > 4) if index % 2 else digit for index, digit in enumerate(reversed(digits)))
    return sum(doubled) % 10 == 0


def find_ibans(text: str) -> list[tuple[int, int]]:
    """Start and end of each account, in order. One that is mistyped is one, too, where no right one begins."""
    spans = list(_scan_ibans(text, _end_by_checksum))
    return sorted((*spans, *_scan_ibans(blank_spans(text, spans), _end_by_groups)))


def find_cards(text: str) -> list[tuple[int, int]]:
    """Start and end of each card with the right checksum, in order, whatever numbers stand beside it."""
    return [match.span(1) for match in _CARD.finditer(text) if passes_luhn(match[1])]


def blank_spans(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text with these places made unreadable; all others stay where they are."""
    pieces, position = [], 0
    for start, end in sorted(spans):
        if end > position:
            pieces += [text[position:start], "\0" * (end - max(start, position))]
            position = end
    return "".join((*pieces, text[position:]))


def _scan_ibans(text: str, find_end: Callable[[str], int]) -> Iterator[tuple[int, int]]:
    position = 0
    while (match := _IBAN.search(text, position)) is not None:
        end = find_end(match[0])
        if end:
            yield match.start(), match.start() + end
        head = _GROUP.match(match[0])
        position = match.start() + (end or len(head[0] if head else match[0]))


def _end_by_checksum(words: str) -> int:
    """The end of the account that these words begin with: as long as its country's are, and right; else 0."""
    lacking = _CHARS_IN_COUNTRY.get(words[:2].upper(), 0)
    for group in _GROUP.finditer(words):
        lacking -= len(group[0])
        if lacking <= 0:
            return group.end() if lacking == 0 and is_iban(words[: group.end()]) else 0
    return 0


def _end_by_groups(words: str) -> int:
    """The end of what is written like an account: in fours, and no longer than its country's are; else 0."""
    most = _CHARS_IN_COUNTRY.get(words[:2].upper(), _MAX_CHARS)
    end = size = 0
    for position, group in enumerate(_GROUP.finditer(words)):
        # Letters alone stand in the second group, the bank; elsewhere they are the next word.
        is_word = position > 1 and not any(sign.isdigit() for sign in group[0])
        if position and (is_word or size + len(group[0]) > most):
            break
        end, size = group.end(), size + len(group[0])
        if size >= most or (len(group[0]) != 4 and size >= _MIN_CHARS):
            break
    # What is longer than the longest account is a digest or a key.
    return end if _MIN_CHARS <= size <= _MAX_CHARS and sum(sign.isdigit() for sign in words[:end]) >= _MIN_DIGITS else 0
