"""Numbers of tokens as providers tell them, each of which is checked and bounded. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from bulkhead_contracts import bounds

GAVE_UP = frozenset({408, 504, 524})
"""Statuses of a proxy that waits no longer: what it waited for was begun, and may be billed."""


def token_count(value: object) -> int | None:
    """A number of tokens, also as a float or in digits, and MAX_TOKENS where it is more; None of what is none. A field
    that is absent or null counts nothing."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,20}", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None:
        return 0
    return min(value, bounds.MAX_TOKENS) if type(value) is int and value >= 0 else None


def embedded_tokens(body: Mapping[str, Any]) -> int:
    """Tokens of an answer of vectors by its usage; 0 where it does not tell."""
    usage = body.get("usage")
    counts = (usage.get(name) for name in ("prompt_tokens", "total_tokens")) if isinstance(usage, dict) else ()
    return max((token_count(count) or 0 for count in counts), default=0)
