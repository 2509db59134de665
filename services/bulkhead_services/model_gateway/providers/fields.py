"""Fields of providers' JSON, none of which is believed: each is checked, bounded, or counted as missing."""

import json
import re
from typing import Any

from bulkhead_contracts import bounds
from bulkhead_contracts.result import Usage

SURROGATE = re.compile(r"[\ud800-\udfff]")


def read_object(text: str | bytes) -> dict[str, Any] | None:
    """A JSON object; None of anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def count(value: object) -> int | None:
    """A number of tokens; None of what is none. A field that is absent or null counts nothing."""
    if value is None:
        return 0
    return value if type(value) is int and 0 <= value <= bounds.MAX_TOKENS else None


def usage_of(prompt: int | None, completion: int | None, cached: int | None) -> Usage | None:
    """Token counts as a provider reports them; None when they are missing or make no sense.

    prompt: all input tokens. cached: those of them that were read from the provider's cache.
    """
    if not prompt or completion is None or cached is None:
        return None
    return Usage(model_calls=1, input_tokens=prompt, output_tokens=completion, cached_input_tokens=min(cached, prompt))


def mapping(value: object) -> dict[str, Any]:
    """An object, or an empty one."""
    return value if isinstance(value, dict) else {}


def rows(value: object) -> list[dict[str, Any]]:
    """The objects of a list, a thousand at most."""
    return [row for row in value[:1_000] if isinstance(row, dict)] if isinstance(value, list) else []


def plain(value: object) -> str:
    """A string, or the text of a list of text parts; "" of anything else."""
    if isinstance(value, str):
        return value
    return "".join(plain(row.get("text")) for row in rows(value))


def clean(text: str) -> str:
    """The text without half characters, which no encoding takes."""
    return text.encode("utf-8", "replace").decode() if SURROGATE.search(text) else text


def short(value: object) -> str:
    """A string of the length of a summary; "" of anything else."""
    return clean(value)[: bounds.MAX_SUMMARY_CHARS] if isinstance(value, str) else ""
