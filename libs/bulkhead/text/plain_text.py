"""Foreign text as text: what models, documents and people wrote, without what would command a reader's screen.

In: any text. Out: the same, with its controls written out, on one line, or cut.
"""

import re

CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\U000e0000-\U000e007f]"
)
"""Characters that command a terminal, turn text around, break lines, show nothing or cannot be written. A line end
and a tab can; so can joiners, which letters and signs need."""


def escape_controls(text: str) -> str:
    """The text with its controls written out: what models, documents and files say must command no terminal."""
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """The text on one line, of as many characters: a title with a line end in it must not look like a line of ours."""
    return text.replace("\n", " ")


def cut_line(text: str, chars: int) -> str:
    """At most so many characters of it on one line, with an ellipsis where more follow."""
    line = " ".join(text.split())
    return line if len(line) <= chars else line[: max(0, chars - 1)] + "…"
