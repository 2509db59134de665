"""Excerpts for watchers: the beginning of a text, on one line, without keys and personal data. Pure."""

from bulkhead.telemetry.redaction import without_sensitive
from bulkhead_contracts import bounds

SEARCHED_CHARS = 4 * bounds.MAX_EXCERPT_CHARS
"""So much is masked, and then cut: what the cut leaves of a key or an address would not look like one."""


def make_excerpt(text: str) -> str:
    """The beginning of the text, at most MAX_EXCERPT_CHARS characters."""
    line = " ".join(without_sensitive(text[:SEARCHED_CHARS]).split())
    return line if len(line) <= bounds.MAX_EXCERPT_CHARS else line[: bounds.MAX_EXCERPT_CHARS - 1] + "…"
