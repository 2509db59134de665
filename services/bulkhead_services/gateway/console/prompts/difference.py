"""Two versions of a prompt side by side, pure: lines that are in one of them or in both, and what variables changed.

In: two contents. Out: lines with marks, sentences.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from bulkhead.text.amounts import format_count
from bulkhead_services.gateway.console.api import Json

MAX_LINES = 1_000
"""Lines of each text that are compared: of many equal lines the comparison takes a power of their number in time."""
CONTEXT = 3
"""Lines that are shown around a change."""
Mark = Literal["same", "added", "removed", "skipped"]


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line. skipped: a run of lines that are the same in both, in words."""

    mark: Mark
    text: str


@dataclass(frozen=True, slots=True)
class PromptDifference:
    """lines: of the texts; settings: sentences on variables, model, parameters and schema; is_cut: the texts have more
    lines than were compared."""

    lines: tuple[DiffLine, ...]
    settings: tuple[str, ...]
    is_cut: bool

    @property
    def is_empty(self) -> bool:
        """True where nothing differs."""
        return not self.settings and all(line.mark in ("same", "skipped") for line in self.lines)


def compare_contents(old: Json, new: Json) -> PromptDifference:
    """The differences of two contents."""
    old_lines, new_lines = old["text"].splitlines(), new["text"].splitlines()
    return PromptDifference(
        tuple(_diff_lines(old_lines[:MAX_LINES], new_lines[:MAX_LINES])),
        (*_compare_variables(old["variables"], new["variables"]), *_compare_settings(old, new)),
        max(len(old_lines), len(new_lines)) > MAX_LINES,
    )


def _diff_lines(old: Sequence[str], new: Sequence[str]) -> Iterator[DiffLine]:
    codes = SequenceMatcher(None, old, new).get_opcodes()
    for number, (code, old_from, old_to, new_from, new_to) in enumerate(codes):
        if code == "equal":
            before = CONTEXT if number else 0
            after = CONTEXT if number < len(codes) - 1 else 0
            yield from _same_lines(old[old_from:old_to], before, after)
            continue
        yield from (DiffLine("removed", line) for line in old[old_from:old_to])
        yield from (DiffLine("added", line) for line in new[new_from:new_to])


def _same_lines(lines: Sequence[str], before: int, after: int) -> Iterator[DiffLine]:
    """A run of lines that are the same, its middle in words. before: lines that follow a change, after: that precede
    one."""
    skipped = len(lines) - before - after
    if skipped < 2:
        yield from (DiffLine("same", line) for line in lines)
        return
    yield from (DiffLine("same", line) for line in lines[:before])
    yield DiffLine("skipped", f"{format_count(skipped, 'line')} the same in both")
    yield from (DiffLine("same", line) for line in lines[len(lines) - after :])


def _compare_variables(old: Sequence[Json], new: Sequence[Json]) -> Iterator[str]:
    old_by_name = {variable["name"]: variable for variable in old}
    new_by_name = {variable["name"]: variable for variable in new}
    for name in sorted({*old_by_name, *new_by_name}):
        before, after = old_by_name.get(name), new_by_name.get(name)
        if before is None and after is not None:
            yield f"the variable {name} is new: {_describe_variable(after)}"
        elif after is None:
            yield f"the variable {name} is gone"
        elif before is not None and before != after:
            yield f"the variable {name} was {_describe_variable(before)}; it is {_describe_variable(after)}"


def _compare_settings(old: Json, new: Json) -> Iterator[str]:
    pairs = [("model", old.get("model", ""), new.get("model", ""))]
    before, after = old.get("parameters", {}), new.get("parameters", {})
    pairs += [(name, before.get(name), after.get(name)) for name in sorted({*before, *after})]
    for name, was, value in pairs:
        if was != value:
            yield f"the {name.replace('_', ' ')} was {was or 'the usual one'}; it is {value or 'the usual one'}"
    if old.get("output_schema") != new.get("output_schema"):
        yield "the output schema is another one"


def _describe_variable(variable: Json) -> str:
    kind = f"one of {', '.join(variable['choices'])}" if variable["kind"] == "choice" else f"a {variable['kind']}"
    meaning = f" ({variable['description']})" if variable["description"] else ""
    return f"{kind}, {variable['default']!r} by default{meaning}"
