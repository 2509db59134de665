"""Taint: which arguments choose where something goes, and whether what stands in them may.

In: a proposal and a policy. Out: for each value in a sink that policy does not trust there, a Finding. Pure.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bulkhead.policy.ruling import Finding, Proposal
from bulkhead.policy.schema import declared_arguments
from bulkhead.policy.values import Value, values_of
from bulkhead_contracts import bounds
from bulkhead_contracts.provenance import Flow, Origin, Sink, SinkKind
from bulkhead_contracts.tool import ToolSpec

if TYPE_CHECKING:
    from bulkhead.policy.cedar import Policy

_BETWEEN = re.compile(r"[\s,;<>\[\]()]*")
"""What may stand between the addresses of a list."""


@dataclass(frozen=True, slots=True)
class Taint:
    """findings: values that may not be where they stand. sources: those of the values of each top argument."""

    findings: tuple[Finding, ...]
    pointers: frozenset[str]
    """Of all of them, also where `findings` is cut."""
    sources: Mapping[str, frozenset[str]]
    code: bool
    """Whether one of them is run as code."""


_GRAVITY: tuple[SinkKind, ...] = ("code", "account", "recipient", "amount", "url", "path", "other", "text")
_LINKS = frozenset(("url", "email"))
"""Kinds of values that are looked for in an argument of a write that is declared as no sink: people follow them."""
LITERAL = frozenset(("path", "code", "other"))
"""Kinds of sinks into which a text flows as it was written, and in no other form."""


def covers(pattern: str, pointer: str) -> bool:
    """Whether a place lies at or below a pattern, in which `*` is any one key or position."""
    wanted, at = pattern.split("/"), pointer.split("/")
    return len(wanted) <= len(at) and all(want in ("*", have) for want, have in zip(wanted, at, strict=False))


def sinks_of(tool: ToolSpec, flows: Iterable[Flow] = ()) -> tuple[Sink, ...]:
    """The declared sinks; of a write that declares none, of a read with egress, and of a call whose result flows on by
    the plan, every argument besides: what chooses the call would choose the value that flows."""
    every = tool.egress if tool.effect == "read" else not tool.sinks
    feeds = any(flow.from_tool == tool.name for flow in flows)
    if not every and not feeds:
        return tool.sinks
    # What is a text to the tool chooses its result all the same.
    own = tuple(sink.model_copy(update={"kind": "other"}) if sink.kind == "text" else sink for sink in tool.sinks)
    return (*own, Sink(argument="/*", kind="other"))


def taint(proposal: Proposal, policy: "Policy") -> Taint:
    """What stands in the sinks of the call and may not."""
    known = {(one.pointer, one.text): one.origins for one in proposal.values or ()}
    sinks, declared = sinks_of(proposal.tool, proposal.flows), declared_arguments(proposal.tool)
    guarded = proposal.tool.effect == "write" or proposal.tool.egress
    findings: dict[tuple[str, str], Finding] = {}
    sources: dict[str, set[str]] = {}
    code = False
    for leaf, parts in _grouped(values_of(proposal.arguments)):
        top = _segment(leaf.pointer, 1)
        if leaf.role == "leaf":
            at = sources.setdefault(top, set())
            for value in (leaf, *parts):
                at |= {_named(origin) for origin in known.get((value.pointer, value.text), ())} or {proposal.least}
        kind = _kind(leaf.pointer, sinks)
        if kind is None and not guarded:
            continue
        if kind is None and top in declared:
            bad = [
                one for one in (leaf, *parts) if one.kind in _LINKS and not _may(one, "text", proposal, policy, known)
            ]
        elif _harmless(leaf, declared, proposal.tool):
            continue
        else:
            kind = kind or "other"  # Undeclared, so nobody has said that it chooses nothing.
            bad = _suspect(leaf, parts, kind, proposal, policy, known)
        for value in bad:
            code = code or kind == "code"
            found = _finding(value, kind or "text", proposal, known.get((value.pointer, value.text), ()))
            findings.setdefault((found.pointer, found.text), found)
    # The gravest first: what is cut is the least, and no rule looks at what was cut.
    grave = sorted(findings.values(), key=lambda one: _GRAVITY.index(_kind(one.pointer, sinks) or "other"))
    pointers = frozenset(one.pointer for one in grave)
    return Taint(
        tuple(grave[: bounds.MAX_FINDINGS]), pointers, {name: frozenset(found) for name, found in sources.items()}, code
    )


def trusted_at(place: str, proposal: Proposal, policy: "Policy") -> bool:
    """Whether every value at or below a place comes from the asker or from what policy trusts."""
    known = {(one.pointer, one.text): one.origins for one in proposal.values or ()}
    return not any(
        _suspect(leaf, parts, "other", proposal, policy, known)
        for leaf, parts in _grouped(values_of(proposal.arguments))
        if covers(place, leaf.pointer)
    )


Known = Mapping[tuple[str, str], tuple[Origin, ...]]


def _grouped(values: Iterable[Value]) -> Iterator[tuple[Value, list[Value]]]:
    """Each leaf (or key) with the values within it."""
    leaf, parts = None, list[Value]()
    for value in values:
        if value.role == "part":
            parts.append(value)
            continue
        if leaf is not None:
            yield leaf, parts
        leaf, parts = value, []
    if leaf is not None:
        yield leaf, parts


def _kind(pointer: str, sinks: tuple[Sink, ...]) -> SinkKind | None:
    return next((sink.kind for sink in sinks if covers(sink.argument, pointer)), None)


def _harmless(leaf: Value, declared: Mapping[str, Any], tool: ToolSpec) -> bool:
    """What the tool itself declares: a name of its schema, the default, the only value. Nothing at all, but where a
    write says of no argument what it chooses: there it may erase."""
    if leaf.role == "leaf" and leaf.text.strip() in ("", "null") and (tool.effect == "read" or tool.sinks):
        return True
    schema: Any = {"properties": declared}
    for at in leaf.pointer.split("/")[1:]:
        inner = schema if isinstance(schema, dict) else {}
        name = at.replace("~1", "/").replace("~0", "~")
        properties = inner.get("properties")
        schema = (
            properties.get(name) if isinstance(properties, dict) else inner.get("items") if name.isdigit() else None
        )
    if not isinstance(schema, dict):
        return False
    if leaf.role == "key":
        return True
    fixed = [schema[word] for word in ("default", "const") if word in schema]
    return any(_text(one) == leaf.text for one in fixed)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _suspect(
    leaf: Value, parts: list[Value], kind: SinkKind, proposal: Proposal, policy: "Policy", known: Known
) -> list[Value]:
    """The values of one leaf that policy does not let into the sink."""

    def may(value: Value) -> bool:
        return _may(value, kind, proposal, policy, known)

    if leaf.role == "key":
        return [] if may(leaf) else [leaf]
    bad = [part for part in parts if not may(part)]
    if kind == "text":
        return bad if leaf.kind == "text" or leaf.kind == "number" or may(leaf) else [leaf]
    if may(leaf):
        return bad
    rest = leaf.text
    for part in sorted(parts, key=lambda one: -len(one.text)):
        rest = rest.replace(part.text, "", 1)
    # A list of addresses is as good as each of them.
    return bad if parts and _BETWEEN.fullmatch(rest) else [leaf, *bad]


def _may(value: Value, kind: SinkKind, proposal: Proposal, policy: "Policy", known: Known) -> bool:
    context = {"tool": proposal.tool.name, "argument": value.pointer, "kind": kind, "field": ""}
    tenant = proposal.task.tenant
    origins = known.get((value.pointer, value.text), ())
    if not origins:
        vouched = proposal.values is not None
        return policy.trusts(tenant, proposal.least if vouched else "model", "", context)
    for origin in origins:
        # The number of an invoice is no amount, also where the asker said it; and none so short is an account.
        if (kind == "amount" and origin.match == "normalised") or (kind == "account" and value.kind == "number"):
            continue
        # A path or a command is another one with a dot or a bar more.
        if kind in LITERAL and value.kind == "text" and origin.match == "normalised":
            continue
        if policy.trusts(tenant, *_source(origin), {**context, "field": origin.field}):
            return True
    return value.role == "leaf" and any(
        _flows(flow, origin, value, proposal) for flow in proposal.flows for origin in origins
    )


def _flows(flow: Flow, origin: Origin, value: Value, proposal: Proposal) -> bool:
    """Whether the plan lets this whole field of this earlier call be this argument."""
    return (
        origin.match == "field"
        and origin.source == "tool"
        and flow.tool == proposal.tool.name
        and flow.from_tool == origin.name
        and proposal.calls.get(origin.call_id, origin.call_id) == flow.step_id
        and len(flow.field.split("/")) == len(origin.field.split("/"))
        and covers(flow.field, origin.field)
        and covers(flow.argument, value.pointer)
    )


def _source(origin: Origin) -> tuple[str, str]:
    return origin.source, origin.name if origin.source in ("retrieved", "tool") else ""


def _named(origin: Origin) -> str:
    return ":".join(filter(None, _source(origin)))


def _finding(value: Value, kind: SinkKind, proposal: Proposal, origins: tuple[Origin, ...]) -> Finding:
    where = tuple(dict.fromkeys(_named(one) for one in origins))
    shown = value.text if len(value.text) <= 80 else f"{value.text[:79]}…"
    if where:
        stands = f"it stands in {', '.join(where)} and not in the asker's words"
    elif proposal.values is None:
        stands = "no service vouches for where it comes from"
    else:
        stands = f"it stands nowhere in what the agent was shown, and counts as {proposal.least}"
    why = f"{value.pointer} ({kind}) of {proposal.tool.name} would be {json.dumps(shown, ensure_ascii=False)}: {stands}"
    return Finding(value.pointer, value.text, where, why[: bounds.MAX_REASON_CHARS])


def _segment(pointer: str, at: int) -> str:
    segments = pointer.split("/")
    return segments[at].replace("~1", "/").replace("~0", "~") if len(segments) > at else ""
