"""Constraints of grants: which values an argument of a tool may have, in a language that can only narrow.

    send_mail /to one-of ["anna@example.com", "bob@example.com"]     equals, one-of: JSON
    pay /amount range 0..100                                          either end may be left out
    pay /reference prefix "INV-"
    pay /reference regex "INV-[0-9]{6}"                               whole values; RE2, so linear in time
    http_get /url host shop.example *.cdn.example                     http and https on the standard port
    write_file /path below /srv/reports                               no `..`
    read_record /id belongs-to-tenant                                 `acme`, `acme/…` or `acme:…` in tenant acme
    pay /iban from-user-or-trusted

In: the text of one, as a grant holds it. Out: whether a call fits all. The tool `*` is every tool, `*` in a
place any key or position. A constraint holds for every value at or below its place; of a place that the call leaves
out it holds, but for `equals`.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import re2

from bulkhead.flow.json_pointer import escape_segment, unescape_segment
from bulkhead.policy.ruling import CallProposal
from bulkhead.policy.sinks import is_trusted_at
from bulkhead.policy.values import covers_pointer
from bulkhead_contracts import bounds
from bulkhead_contracts.tool import ToolSpec

if TYPE_CHECKING:
    from bulkhead.policy.cedar import CedarPolicy  # The signer reads constraints, and has no Cedar.

MAX_CONSTRAINT_CHARS = 1_000
_TEXT = re.compile(r"(\S{1,64}) (/\S{0,199}) ([a-z-]{1,24})(?: (.+))?", re.S)
_HOST = re.compile(r"(\*\.)?[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*", re.ASCII)
_RANGE = re.compile(r"(-?\d{1,18}(?:\.\d{1,9})?)?\.\.(-?\d{1,18}(?:\.\d{1,9})?)?", re.ASCII)
VALUELESS_TESTS = ("belongs-to-tenant", "from-user-or-trusted")


class ConstraintError(ValueError):
    """A text that is no constraint; says what to write."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """tool: a name or `*`. pointer: a JSON pointer. test: the word. value: what it is held against, parsed."""

    tool: str
    pointer: str
    test: str
    value: Any = None
    text: str = ""

    @classmethod
    def parse(cls, text: str) -> "Constraint":
        """Raises ConstraintError."""
        text_match = _TEXT.fullmatch(text.strip()) if len(text) <= MAX_CONSTRAINT_CHARS else None
        if text_match is None:
            raise ConstraintError(f"{text[:80]!r}: write TOOL /ARGUMENT TEST VALUE, as in pay /amount range 0..100")
        tool, place, test, value = text_match.groups()
        return cls(tool, place, test, _parse_value(test, value), " ".join(text.split(" ")))

    def __str__(self) -> str:
        return self.text

    def fits_value(self, leaf: object, tenant: str) -> bool:
        """True when a value passes; of from-user-or-trusted its type alone, for its sources are not known here."""
        match self.test:
            case "equals":
                return _is_same_json(leaf, self.value)
            case "one-of":
                return any(_is_same_json(leaf, option) for option in self.value)
            case "range":
                low, high = self.value
                number = isinstance(leaf, int | float) and not isinstance(leaf, bool)
                return number and (low is None or leaf >= low) and (high is None or leaf <= high)
            case "from-user-or-trusted":
                return True
        if not isinstance(leaf, str):
            return False
        match self.test:
            case "prefix":
                return leaf.startswith(self.value)
            case "regex":
                return "\n" not in leaf and re2.fullmatch(self.value, leaf) is not None
            case "host":
                return _is_host_allowed(leaf, self.value)
            case "below":
                return _is_below(leaf, self.value)
            case _:
                is_own = leaf == tenant or leaf.startswith((f"{tenant}/", f"{tenant}:"))
                return is_own and not {".", ".."}.intersection(re2.split(r"[/\\\\:]", leaf))


def _parse_value(test: str, text: str | None) -> Any:
    if test in VALUELESS_TESTS:
        if text is not None:
            raise ConstraintError(f"{test} takes no value")
        return None
    if text is None:
        raise ConstraintError(f"{test} needs a value")
    match test:
        case "equals" | "one-of" | "prefix" | "regex":
            return _parse_json(test, text)
        case "range":
            range_match = _RANGE.fullmatch(text)
            low, high = (
                None if end is None else _parse_number(end)
                for end in (range_match.groups() if range_match else (None, None))
            )
            if low is None and high is None:
                raise ConstraintError(f"range {text[:40]!r}: write LOW..HIGH, LOW.. or ..HIGH")
            return low, high
        case "host":
            hosts = tuple(text.lower().split(" "))
            if not all(_HOST.fullmatch(host) for host in hosts):
                raise ConstraintError(f"host {text[:80]!r}: write names, as in shop.example *.cdn.example")
            return hosts
        case "below":
            if not _is_plain_path(text) or text != (text.rstrip("/") or "/"):
                raise ConstraintError(f"below {text[:80]!r}: write a folder without `..` and without a `/` at its end")
            return text
    tests = "equals, one-of, range, prefix, regex, host, below, belongs-to-tenant, from-user-or-trusted"
    raise ConstraintError(f"{test!r} is no test; write {tests}")


def _parse_json(test: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConstraintError(f'{test} needs JSON, as in "INV-": {error}') from error
    if test == "one-of" and not isinstance(value, list):
        raise ConstraintError('one-of needs a list, as in ["a", "b"]')
    if test in ("prefix", "regex") and not isinstance(value, str):
        raise ConstraintError(f"{test} needs a text between quotes")
    if any(isinstance(item, list | dict) for item in (value if test == "one-of" else [value])):
        raise ConstraintError(f"{test} compares texts, numbers, true, false and null")
    if test == "regex":
        try:
            re2.compile(value)
        except re2.error as error:
            raise ConstraintError(f"regex: {error}") from error
    return value


def _parse_number(text: str) -> float:
    return float(text) if "." in text else int(text)


def _is_same_json(left: object, right: object) -> bool:
    """Equal as JSON: `true` is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _is_host_allowed(url: str, allowed: tuple[str, ...]) -> bool:
    if not url.isascii() or any(sign in url for sign in "\\@ \t\r\n"):
        return False
    try:
        parts = urlsplit(url)
        port, host = parts.port, (parts.hostname or "").lower()
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or port not in (None, 443 if parts.scheme == "https" else 80):
        return False
    return any(
        host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:]) and host != pattern[1:])
        for pattern in allowed
    )


def _is_plain_path(path: str) -> bool:
    return not any(sign in path for sign in "\\\0%") and ".." not in path.split("/")


def _is_below(path: str, folder: str) -> bool:
    return _is_plain_path(path) and (path == folder or path.startswith(f"{folder.rstrip('/')}/"))


def unreadable_reason(
    texts: Iterable[str], tools: Iterable[str], declared: Mapping[str, ToolSpec] | None = None
) -> str:
    """The reason why one of these texts is no constraint, is on a tool that is none of these, or on an argument that
    its tool, as declared, has not got; "" for none."""
    known_tools = {"*", *tools}
    for index, text in enumerate(texts):
        try:
            constraint = Constraint.parse(text)
        except ConstraintError as error:
            return f"constraints[{index}]: {error}"
        if constraint.tool not in known_tools:
            return f"constraints[{index}]: {text[:80]!r} is on {constraint.tool}, which is none of the tools"
        if has := _other_arguments(constraint, (declared or {}).get(constraint.tool)):
            # It would hold for nothing: whoever wrote it believes that something is narrowed.
            return f"constraints[{index}]: {text[:80]!r}: {constraint.tool} has no such argument; it has {has}"
    return ""


def _other_arguments(constraint: Constraint, tool: ToolSpec | None) -> str:
    """The arguments of a tool that has not got the one that is named; "" where it has, or may take any."""
    try:
        schema: Any = json.loads(tool.parameters_json) if tool is not None else None
    except (ValueError, RecursionError):
        return ""
    schema = schema if isinstance(schema, dict) else {}
    names = schema.get("properties")
    first = unescape_segment(constraint.pointer.split("/")[1])
    if not isinstance(names, dict) or not names or schema.get("additionalProperties") or first in ("*", "", *names):
        return ""
    return ", ".join(f"/{name}" for name in list(names)[:20])


def argument_leaves(arguments: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Pointer and value of each leaf of the arguments."""
    pending: list[tuple[str, object]] = [("", arguments)]
    collected: list[tuple[str, object]] = []
    while pending:
        pointer, inner = pending.pop()
        if isinstance(inner, Mapping):
            pending.extend((f"{pointer}/{escape_segment(key)}", child) for key, child in inner.items())
        elif isinstance(inner, list | tuple):
            pending.extend((f"{pointer}/{position}", child) for position, child in enumerate(inner))
        else:
            collected.append((pointer, inner))
    return collected


def holds_for_call(constraint: Constraint, tool: str, tenant: str, values: Sequence[tuple[str, object]]) -> bool:
    """True when the leaves of a call's arguments fit."""
    if constraint.tool not in ("*", tool):
        return True
    matching = [leaf for pointer, leaf in values if covers_pointer(constraint.pointer, pointer)]
    if not matching and constraint.test == "equals":
        return False
    return all(constraint.fits_value(leaf, tenant) for leaf in matching)


def find_violated(
    constraints: Iterable[Constraint], proposal: CallProposal, policy: "CedarPolicy"
) -> Constraint | None:
    """The first constraint that the call does not fit."""
    values = argument_leaves(proposal.arguments) if constraints else []
    for constraint in constraints:
        if not holds_for_call(constraint, proposal.tool.name, proposal.task.tenant, values):
            return constraint
        sourced = constraint.test == "from-user-or-trusted" and constraint.tool in ("*", proposal.tool.name)
        if sourced and not is_trusted_at(constraint.pointer, proposal, policy):
            return constraint
    return None


MAX_CONSTRAINTS = bounds.MAX_FINDINGS
"""Of one grant."""
