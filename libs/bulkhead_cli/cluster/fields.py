"""Fields of objects that a cluster describes: text of others, of any shape. Pure.

In: JSON values. Out: values of the wanted type, empty where the shape is another; text on one line, without control
characters and bounded; names that are safe in a command that somebody pastes.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bulkhead.tools.mcp_pins import clean_line

Object = Mapping[str, Any]

MAX_TEXT_CHARS = 300
NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
UNREADABLE = "unreadable-name"
NAME_LABEL, PART_LABEL = "app.kubernetes.io/name", "app.kubernetes.io/part-of"
_QUANTITY = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|)", re.ASCII)
_UNITS = {"": 1.0, "m": 1e-3} | {
    f"{letter}{i}": base**power
    for i, base in (("", 1000.0), ("i", 1024.0))
    for power, letter in enumerate("kMGTPE" if not i else "KMGTPE", 1)
}


def at(value: object, *path: str) -> object:
    """The value at a path; None where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def text(value: object, *path: str) -> str:
    found = at(value, *path)
    return found if isinstance(found, str) else ""


def said(value: object, *path: str, most: int = MAX_TEXT_CHARS) -> str:
    """Text to be shown."""
    return clean_line(text(value, *path), most)


def number(value: object, *path: str) -> int:
    found = at(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def rows(value: object, *path: str) -> list[Object]:
    found = at(value, *path)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def entries(value: object, *path: str) -> dict[str, object]:
    found = at(value, *path)
    return {key: one for key, one in found.items() if isinstance(key, str)} if isinstance(found, Mapping) else {}


def name(value: object, *path: str) -> str:
    """A name as Kubernetes has them, or UNREADABLE."""
    found = text(value, *(path or ("metadata", "name")))
    return found if NAME.fullmatch(found) else UNREADABLE


def workload_of(value: Object) -> str:
    """The workload of a pod or another object, by its label; "" for what is no part of a mesh."""
    if text(value, "metadata", "labels", PART_LABEL) != "bulkhead":
        return ""
    return name(value, "metadata", "labels", NAME_LABEL)


def condition(value: Object, kind: str) -> Object:
    """A condition of an object's status; {} when it has none of this type."""
    return next((one for one in rows(value, "status", "conditions") if one.get("type") == kind), {})


def moment(value: object, *path: str) -> datetime | None:
    """A time as the API server writes it."""
    try:
        found = datetime.fromisoformat(text(value, *path).replace("Z", "+00:00"))
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    except ValueError:
        return None


def age_s(now: datetime, value: object, *path: str) -> float:
    """Seconds since a time; 0 when it is not known."""
    found = moment(value, *path)
    return (now - found).total_seconds() if found else 0.0


def quantity(value: object) -> float | None:
    """An amount of a resource: `250m`, `256Mi`, 2; None for what is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) * _UNITS[match[2]] if match else None


def some(names: Sequence[str], most: int = 4) -> str:
    """Some names, and how many there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
