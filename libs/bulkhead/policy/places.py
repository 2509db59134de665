"""Places that calls write into and read from: what was written is as confidential as what its writer was shown. Pure.

In: the arguments of a call. Out: the places that they name, in one spelling each. A place is a path, a key or a name in
an argument that chooses what is written; a folder is a place of all that is written below it.
"""

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from bulkhead.policy.attribution import UNKNOWN_SOURCE
from bulkhead.policy.sinks import sink_kind, sinks_of
from bulkhead.policy.values import fold_unicode, values_of
from bulkhead_contracts import bounds
from bulkhead_contracts.tool import ToolSpec

MAX_PLACES = 32
"""Of one call."""
MAX_FOLDERS = 8
MAX_CARRIED_CHARS = 512
_KINDS = ("path", "url", "other")


def named_places(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """The places that a call may read from: what stands in any of its arguments."""
    texts = (value.text for value in values_of(arguments) if value.role == "leaf")
    return _distinct(_place_of(text) for text in texts)


def written_places(tool: ToolSpec, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """The places that a call writes into, and the folders above them."""
    if tool.effect != "write":
        return ()
    sinks = sinks_of(tool)
    leaves = (value for value in values_of(arguments) if value.role == "leaf")
    texts = [value.text for value in leaves if sink_kind(value.pointer, sinks) in _KINDS]
    return _distinct(place for text in texts for place in _with_folders(_place_of(text)))


def carried_sources(shown: Iterable[str]) -> tuple[str, ...]:
    """The documents and tools among sources, and `unknown`: what a label of a place says."""
    named = sorted(name for name in set(shown) if name == UNKNOWN_SOURCE or name.startswith(("retrieved:", "tool:")))
    fits = len(named) <= bounds.MAX_CARRIED_SOURCES and sum(map(len, named)) <= MAX_CARRIED_CHARS
    return tuple(named) if fits else (UNKNOWN_SOURCE,)


def _place_of(text: str) -> str:
    """`./Staff//r3.txt`, `/staff/r3.txt` and `staff/r3.txt` are one place."""
    path = posixpath.normpath(unquote(fold_unicode(text)).strip().replace("\\", "/").casefold())
    return path.lstrip("/")


def _with_folders(place: str) -> Iterator[str]:
    for _ in range(MAX_FOLDERS):
        yield place
        place = posixpath.dirname(place)


def _distinct(places: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(place for place in places if place not in ("", ".", "..")))[:MAX_PLACES]
