"""Characters that nobody sees: of zero width, or that turn the letters around them. Pure.

In: a text of a person. Out: the same without them. A joiner (U+200C, U+200D) stays between two characters beyond ASCII,
where scripts and emoji need it; a sign that is drawn (Arabic and Kaithi number marks) is not one of them.
"""

import re
import unicodedata

_DRAWN = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
_JOINER = re.compile("(?<=[^\x00-\x7f])[\u200c\u200d](?=[^\x00-\x7f])")


def drop_invisible(text: str) -> str:
    """The text without characters that nobody sees."""
    if text.isascii():
        return text
    joiners = {match.start() for match in _JOINER.finditer(text)}
    return "".join(char for place, char in enumerate(text) if place in joiners or not _is_invisible(char))


def _is_invisible(char: str) -> bool:
    return unicodedata.category(char) == "Cf" and char not in _DRAWN
