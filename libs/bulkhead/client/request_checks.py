"""Checks of the caller's arguments against the limits of the mesh, before anything is sent.

In: values of any type. Out: them as they go over the wire, or `Unfit`, which says what does not fit, why, and what to
do.
"""

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import ValidationError

from bulkhead.client.errors import Unfit
from bulkhead.gateway_api.query import Query
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.control import BreakerScope, HaltScope
from bulkhead_contracts.task_options import TaskOptions

Q = TypeVar("Q", bound=Query[Any])
HALTS: tuple[str, ...] = get_args(HaltScope)
BREAKERS: tuple[str, ...] = get_args(BreakerScope)
MOST = {
    "cost_usd_micros": bounds.MAX_COST_USD_MICROS,
    "tokens": bounds.MAX_TOKENS,
    "model_calls": bounds.MAX_CALLS,
    "tool_calls": bounds.MAX_CALLS,
    "wall_ms": bounds.MAX_WALL_MS,
}
MAX_KEY_CHARS = 255
MAX_FILE_NAME_CHARS = 1_024
USD = 1_000_000


def check_marker(value: object) -> str:
    """A citation's marker as addresses have it."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{12}", value.lower()):
        raise Unfit(
            f"{_show_value(value)} is no marker", "a marker is the 12 hexadecimal digits in [#...] of an answer"
        )
    return value.lower()


def check_limits(limit_usd: object, limit_tokens: object, deadline_s: object) -> dict[str, int]:
    """The limits of a task as the wire has them; those that are None are left out."""
    wire_limits = {}
    if limit_usd is not None:
        most = bounds.MAX_COST_USD_MICROS / USD
        wire_limits["cost_usd_micros"] = round(
            _check_number("limit_usd", limit_usd, 1 / USD, most, "dollars, such as 0.50") * USD
        )
    if limit_tokens is not None:
        wire_limits["tokens"] = check_integer("limit_tokens", limit_tokens, 1, bounds.MAX_TOKENS)
    if deadline_s is not None:
        most = bounds.MAX_TASK_DEADLINE_MS / 1000
        wire_limits["deadline_ms"] = round(
            _check_number("deadline_s", deadline_s, 0.001, most, "seconds, such as 120") * 1000
        )
    return wire_limits


def _check_number(name: str, value: object, least: float, most: float, of: str) -> float:
    hint = f"write a number of {of}, from {least:g} to {most:,.0f}"
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise Unfit(f"{name} is {_show_value(value)}, which is no number", hint)
    if not math.isfinite(value):
        raise Unfit(f"{name} is {value}, which no amount can be held to", hint)
    if not least <= value <= most:
        raise Unfit(f"{name} is {_show_value(value)}, which is out of bounds", hint)
    return float(value)


def check_integer(name: str, value: object, least: int, most: int) -> int:
    """A whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Unfit(f"{name} is {_show_value(value)}", f"write a whole number from {least:,} to {most:,}")
    return value


def check_text(name: str, value: object, most: int, *, least: int = 1) -> str:
    """A text that can be sent, of bounded length."""
    if not isinstance(value, str):
        raise Unfit(
            f"{name} is {_show_value(value)}, which is no text", f"write a str of {least} to {most:,} characters"
        )
    if not least <= len(value) <= most or (least and not value.strip()):
        raise Unfit(f"{name} has {len(value.strip()):,} characters", f"write {least} to {most:,}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Unfit(
            f"{name} holds half a character (a lone surrogate) at {error.start}",
            "decode the bytes that it comes from as what they are",
        ) from error
    return value


def check_key(value: object) -> str:
    """An idempotency key, which goes into a header; "" for one that is to be made."""
    checked = check_text("idempotency_key", value, MAX_KEY_CHARS, least=0)
    if not (checked.isascii() and checked.isprintable()) or checked != checked.strip():
        raise Unfit(
            f"idempotency_key is {_show_value(checked)}", "use letters, digits and signs of ASCII, such as a UUID"
        )
    return checked


def check_options(**options: object) -> dict[str, Any]:
    """Options of a task as `TaskOptions` bounds them; those that are empty are left out."""
    chosen = {name: value for name, value in options.items() if value not in ("", (), [], None)}
    try:
        return TaskOptions.model_validate(chosen).model_dump(mode="json", include=set(chosen))
    except ValidationError as error:
        misfit = error.errors(include_url=False)[0]
        place, meaning = misfit["loc"], TaskOptions.model_fields[str(misfit["loc"][0])].description
        problem = f"{'.'.join(map(str, place))} is {_show_value(misfit['input'])}: {misfit['msg']}"
        raise Unfit(problem, f"give another, which means: {meaning}") from error


def check_mapping(name: str, value: object) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, Mapping):
        raise Unfit(
            f"{name} is {_show_value(value)}, which is no mapping", f"write {name}={{...}}, as the docs show it"
        )
    try:
        json.dumps(dict(value), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unfit(
            f"{name} cannot be written as JSON: {str(error)[:200]}",
            "use dicts with text keys, lists, texts, numbers, True, False and None in it",
        ) from error
    return dict(value)


def check_units(name: str, value: object, *, least: int, empty: bool, removes: bool) -> dict[str, Any]:
    """Ceilings by unit. removes: None takes one away."""
    ceilings = check_mapping(name, value)
    if unknown := sorted(str(key) for key in set(ceilings) - set(MOST)):
        raise Unfit(f"{name} names {unknown[0][:40]!r}, which is no unit", f"there are {', '.join(MOST)}")
    if not ceilings and not empty:
        raise Unfit(f"{name} names nothing", f"name one of {', '.join(MOST)}, with more than 0")
    return {
        unit: None if removes and amount is None else check_integer(f"{name}[{unit!r}]", amount, least, MOST[unit])
        for unit, amount in ceilings.items()
    }


def check_choice(name: str, value: object, there: tuple[str, ...]) -> str:
    """One of the words that there are."""
    if not isinstance(value, str) or value not in there:
        raise Unfit(f"{name} is {_show_value(value)}", f"it is one of {', '.join(there)}")
    return value


def check_query(query: type[Q], given: Mapping[str, object]) -> Q:
    """A declared read with these parameters."""
    try:
        return query.model_validate(given)
    except ValidationError as error:
        name = str(error.errors(include_url=False)[0]["loc"][0])
        raise Unfit(f"{name} is {_show_value(given.get(name))}", query.remedy_of(name).hint) from error


def check_task_id(value: object, what: str = "task") -> str:
    """The id of a task, or of something else that is named so, which goes into addresses."""
    try:
        return subjects.check_token(value if isinstance(value, str) else "")
    except subjects.SubjectError:
        raise Unfit(
            f"{_show_value(value)} is no {what}'s id", f"use the `id` of a {what} of yours; `{what}s` lists them"
        ) from None


def check_call_id(value: object) -> str:
    """The id of a call as addresses have it."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value):
        raise Unfit(
            f"{_show_value(value)} is no id of a call", "story and timeline of its task have the ids of its calls"
        )
    return value


def check_url(value: object) -> str:
    """Address of a gateway."""
    hint = "write it as http://127.0.0.1:8080"
    if not isinstance(value, str):
        raise Unfit(f"url is {_show_value(value)}, which is no text", hint)
    try:
        parts = urlsplit(value)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and value.isprintable()
    except ValueError:
        fits = False
    if not fits or " " in value:
        raise Unfit(f"url is {_show_value(value)}, which is no address of a gateway", hint)
    return value.rstrip("/")


def check_api_key(value: object) -> str:
    """An API key or a JWT, which goes into a header."""
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()) or " " in value:
        # Not shown: most of it may be right.
        raise Unfit(
            "the API key holds characters that no key has"
            if isinstance(value, str)
            else f"the API key is a {type(value).__name__} and no text",
            "copy it again, without what is around it",
        )
    return value


def check_seconds(name: str, value: object) -> float:
    """A time to wait."""
    return _check_number(name, value, 0.001, 7 * 24 * 3600, "seconds, such as 30")


def check_document(content: object, name: object) -> tuple[bytes | Path, str]:
    """The content of a document, as bytes or the path of a file, and its name."""
    if isinstance(content, bytes | bytearray | memoryview):
        file_name = check_text("name", name, MAX_FILE_NAME_CHARS, least=0)
        if not file_name:
            raise Unfit("a document that is given as bytes has no name", 'write add_document(data, "fares.md")')
        return bytes(content), file_name
    if not isinstance(content, str | Path):
        raise Unfit(f"content is {_show_value(content)}", "give a path, or bytes with a name")
    return Path(content), check_text("name", name, MAX_FILE_NAME_CHARS, least=0)


def _show_value(value: object) -> str:
    return repr(value)[:80] if isinstance(value, str | int | float | Decimal | None) else f"a {type(value).__name__}"
