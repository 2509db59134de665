"""The tools that a step is shown: as many as fit into a bound, those first that its words ask for. Pure.

In: the names that a step may use, the specs of the task's tools, the words of the step. Out: the names to show, and
those that are left out. The order of what is shown stays.
"""

import re
from collections.abc import Collection, Sequence

from bulkhead_contracts import bounds
from bulkhead_contracts.tool import ToolSpec

_WORD = re.compile(r"[^\W_]{3,}")


def choose_tools(
    names: Collection[str], tools: Sequence[ToolSpec], words: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names that are shown, and those left out. A tool that is named outright goes before one whose name, then
    one whose description, has words in common with the step.
    """
    offered = [tool for tool in tools if tool.name in names]
    if sum(map(_size_bytes, offered)) <= bounds.MAX_SHOWN_TOOLS_BYTES:
        return tuple(names), ()
    step_words, room = _words_of(words), bounds.MAX_SHOWN_TOOLS_BYTES
    fit: set[str] = set()
    for tool in sorted(offered, key=lambda tool: (-_relevance_of(tool, words, step_words), offered.index(tool))):
        if (size := _size_bytes(tool)) <= room:
            fit.add(tool.name)
            room -= size
    left_out = {tool.name for tool in offered} - fit
    return tuple(name for name in names if name not in left_out), tuple(name for name in names if name in left_out)


def _size_bytes(tool: ToolSpec) -> int:
    return len(tool.name) + len(tool.description.encode()) + len(tool.parameters_json.encode())


def _relevance_of(tool: ToolSpec, words: str, asked: frozenset[str]) -> int:
    named, described = len(asked & _words_of(tool.name)), len(asked & _words_of(tool.description))
    return (1_000_000 if tool.name in words else 0) + 1_000 * named + described


def _words_of(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.replace("_", " ").lower()))
