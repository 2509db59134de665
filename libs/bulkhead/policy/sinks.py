"""Taint: which arguments choose where something goes, and whether what stands in them may.

In: a proposal and a policy. Out: for each value in a sink that policy does not trust there, a TaintFinding. Pure.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bulkhead.flow.json_pointer import unescape_segment
from bulkhead.policy.planned_values import PlannedRules, calculation_digest, fits_bounds, selection_digest
from bulkhead.policy.rows import Binding, RowValue, find_unserved, flow_binding, literal_bindings
from bulkhead.policy.ruling import CallProposal, TaintFinding
from bulkhead.policy.schema import declared_arguments
from bulkhead.policy.values import ArgumentValue, covers_pointer, is_same_value, values_of
from bulkhead_contracts import bounds
from bulkhead_contracts.provenance import Flow, Origin, PlannedCall, PlannedValue, Sink, SinkKind
from bulkhead_contracts.tool import ToolSpec

if TYPE_CHECKING:
    from bulkhead.policy.cedar import CedarPolicy

_BETWEEN = re.compile(r"[\s,;<>\[\]()]*")
"""What may stand between the addresses of a list."""


KnownOrigins = Mapping[tuple[str, str], tuple[Origin, ...]]


@dataclass(frozen=True, slots=True)
class Taint:
    """findings: values that may not be where they stand. sources: those of the values of each top argument."""

    findings: tuple[TaintFinding, ...]
    pointers: frozenset[str]
    """Of all of them, also where `findings` is cut."""
    sources: Mapping[str, frozenset[str]]
    code: bool
    """Whether one of them is run as code."""
    chosen: tuple[str, ...] = ()
    """Of each value in a sink that may stand there and that the asker did not write: where it comes from."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A proposal in the light of a policy. origins: of each value, by pointer and text. place: of the planned call that
    this one is, -1 where it is none."""

    proposal: CallProposal
    policy: "CedarPolicy"
    origins: KnownOrigins
    place: int

    @property
    def planned(self) -> PlannedCall | None:
        return self.proposal.planned[self.place] if self.place >= 0 else None

    def origins_of(self, value: ArgumentValue) -> tuple[Origin, ...]:
        return self.origins.get((value.pointer, value.text), ())

    def flows(self) -> list[Flow]:
        """Flows by which an argument may be a field of an earlier result."""
        return [flow for flow in self.proposal.flows if flow.tool == self.proposal.tool.name and not flow.operand]


_GRAVITY: tuple[SinkKind, ...] = ("code", "account", "recipient", "amount", "url", "path", "other", "text")
_FOLLOWED = frozenset(("url", "email", "contact", "account"))
"""Kinds of values that are looked for in an argument of a write that is declared as no sink: people follow them."""
_OWN = frozenset(("user", "operator"))
_NO_RECORD = "by the plan it stands beside other values of its record, and in one row"
_NO_ACCOUNTS = frozenset(("number", "date", "time"))
LITERAL = frozenset(("path", "code", "other"))
"""Kinds of sinks into which a text flows as it was written, and in no other form."""


def sinks_of(tool: ToolSpec, flows: Iterable[Flow] = ()) -> tuple[Sink, ...]:
    """The declared sinks; of a write that declares none, of a read with egress, and of a call whose result flows on by
    the plan, every argument besides: what chooses the call would choose the value that flows."""
    every = tool.egress if tool.effect == "read" else not tool.sinks
    feeds = any(flow.from_tool == tool.name for flow in flows)
    if not every and not feeds:
        return tool.sinks
    # What is a text to the tool chooses its result all the same.
    own_sinks = tuple(sink.model_copy(update={"kind": "other"}) if sink.kind == "text" else sink for sink in tool.sinks)
    return (*own_sinks, Sink(argument="/*", kind="other"))


def find_taint(proposal: CallProposal, policy: "CedarPolicy") -> Taint:
    """The taint of a call: values that stand in its sinks and may not."""
    call = _view_call(proposal, policy)
    sinks, declared = sinks_of(proposal.tool, proposal.flows), declared_arguments(proposal.tool)
    guarded = proposal.tool.effect == "write" or proposal.tool.egress
    findings: dict[tuple[str, str], TaintFinding] = {}
    # A plan need not foresee what is read, and where it says what a read that chooses is asked for, that holds.
    is_read_planned = any(planned.tool == proposal.tool.name and planned.values for planned in proposal.planned)
    is_bound = bool(proposal.planned) if guarded else bool(sinks) and is_read_planned
    if is_bound and (unforeseen := _find_unforeseen(call)) is not None:
        findings[unforeseen.pointer, unforeseen.text] = unforeseen
    sources: dict[str, set[str]] = {}
    code = False
    chosen: list[str] = []
    row_values: list[RowValue] = []
    for leaf, parts in _group_by_leaf(values_of(proposal.arguments)):
        top = _pointer_segment(leaf.pointer, 1)
        if leaf.role == "leaf":
            top_sources = sources.setdefault(top, set())
            for value in (leaf, *parts):
                top_sources |= {_origin_name(origin) for origin in call.origins_of(value)} or {proposal.least_trusted}
        kind = sink_kind(leaf.pointer, sinks)
        if kind is None and not guarded:
            continue
        if kind is None and top in declared:
            bad = [
                candidate
                for candidate in (leaf, *parts)
                if _is_followed(candidate) and _find_bindings(candidate, "text", call) == ()
            ]
        elif _is_declared_value(leaf, declared, proposal.tool):
            continue
        else:
            kind = kind or "other"  # Undeclared, so nobody has said that it chooses nothing.
            bad = _suspect_values(leaf, parts, kind, call)
            origins = call.origins_of(leaf)
            if kind != "text" and not bad:
                # As a list of addresses a leaf has no record of its own.
                row_values.append(RowValue(leaf, _find_bindings(leaf, kind, call) or None))
                if not any(origin.source in _OWN for origin in origins):
                    chosen.append(_describe_chosen(leaf, kind, proposal.tool.name, origins))
        for value in bad:
            code = code or kind == "code"
            finding = _build_finding(value, kind or "text", call)
            findings.setdefault((finding.pointer, finding.text), finding)
    patterns = {flow.argument for flow in call.flows()}
    patterns |= {planned.argument for planned in call.planned.values} if call.planned is not None else set()
    for value in find_unserved(row_values, patterns):
        finding = _build_finding(value, sink_kind(value.pointer, sinks) or "other", call, _NO_RECORD)
        findings.setdefault((finding.pointer, finding.text), finding)
    # The gravest first: what is cut is the least, and no rule looks at what was cut.
    grave = sorted(findings.values(), key=lambda one: _GRAVITY.index(sink_kind(one.pointer, sinks) or "other"))
    pointers = frozenset(finding.pointer for finding in grave)
    return Taint(
        tuple(grave[: bounds.MAX_FINDINGS]),
        pointers,
        {name: frozenset(origins) for name, origins in sources.items()},
        code,
        tuple(chosen[: bounds.MAX_FINDINGS]),
    )


def is_trusted_at(place: str, proposal: CallProposal, policy: "CedarPolicy") -> bool:
    """True when every value at or below a place comes from the asker or from what policy trusts."""
    call = _view_call(proposal, policy)
    return not any(
        _suspect_values(leaf, parts, "other", call)
        for leaf, parts in _group_by_leaf(values_of(proposal.arguments))
        if covers_pointer(place, leaf.pointer)
    )


def _view_call(proposal: CallProposal, policy: "CedarPolicy") -> _Call:
    return _Call(proposal, policy, _origins_by_value(proposal), planned_place(proposal))


def _origins_by_value(proposal: CallProposal) -> KnownOrigins:
    return {(value_origin.pointer, value_origin.text): value_origin.origins for value_origin in proposal.values or ()}


def planned_place(proposal: CallProposal) -> int:
    """Position of the planned call that this one is, -1 for none: of several the one that says most, and of these one
    that is not yet made as often as it says."""
    if not proposal.planned:
        return -1
    origins = _origins_by_value(proposal)
    defaults = {
        name: schema["default"]
        for name, schema in declared_arguments(proposal.tool).items()
        if isinstance(schema, dict) and "default" in schema
    }
    # An argument that is left out has its default, which the asker may have named.
    leaves = [value for value in values_of({**defaults, **proposal.arguments}) if value.role == "leaf"]
    places = (
        place
        for place, call in enumerate(proposal.planned)
        if call.tool == proposal.tool.name
        and all(any(_fits_plan(planned, leaf, proposal, origins) for leaf in leaves) for planned in call.values)
    )

    def preference(place: int) -> tuple[bool, int]:
        call = proposal.planned[place]
        return proposal.planned_before.count(place) < call.times, len(call.values)

    return max(places, key=preference, default=-1)


def _fits_plan(planned: PlannedValue, leaf: ArgumentValue, proposal: CallProposal, known: KnownOrigins) -> bool:
    """True for what the plan gives an argument, in its words or by its bounds and its calculation."""
    if not covers_pointer(planned.argument, leaf.pointer):
        return False
    if (planned.text or planned.is_literal) and not is_same_value(leaf, planned.text):
        return False
    if (planned.at_least or planned.at_most) and not fits_bounds(planned, leaf.kind, leaf.form):
        return False
    if not planned.calculate:
        return True
    digest = calculation_digest(planned, PlannedRules(proposal.tool.name, proposal.flows))
    return any(origin.planned == digest for origin in known.get((leaf.pointer, leaf.text), ()))


def _find_unforeseen(call: _Call) -> TaintFinding | None:
    """Finding where the plan foresees no such call, or no further one."""
    proposal, tool = call.proposal, call.proposal.tool.name
    planned = [planned_call for planned_call in proposal.planned if planned_call.tool == tool]
    times = sum(planned_call.times for planned_call in planned)
    if not planned:
        reason = f"the plan foresees no call of {tool} in this step"
    elif call.planned is None:
        rows = (", ".join(map(_describe_planned, planned_call.values)) for planned_call in planned)
        listed = "; ".join(rows)
        reason = f"the plan foresees {tool} with {listed}, and not with these arguments"
    elif proposal.tool.effect == "read" and not proposal.tool.egress:
        return None
    elif len(proposal.planned_before) >= times:
        reason = f"the plan foresees {times} calls of {tool} in this step, and this would be one more"
    elif proposal.planned_before.count(call.place) >= call.planned.times:
        reason = f"the plan foresees this call of {tool} {call.planned.times} times, and this would be once more"
    else:
        return None
    return TaintFinding("", tool, (), reason[: bounds.MAX_REASON_CHARS])


def _describe_planned(planned: PlannedValue) -> str:
    text = json.dumps(planned.text, ensure_ascii=False) if planned.text or planned.is_literal else ""
    bounded = f"{planned.at_least}..{planned.at_most}" if planned.at_least or planned.at_most else ""
    calculated = f"= {planned.calculate}" if planned.calculate else ""
    return " ".join(filter(None, (planned.argument, text, bounded, calculated)))


def _group_by_leaf(values: Iterable[ArgumentValue]) -> Iterator[tuple[ArgumentValue, list[ArgumentValue]]]:
    """Each leaf (or key) with the values within it."""
    leaf, parts = None, list[ArgumentValue]()
    for value in values:
        if value.role == "part":
            parts.append(value)
            continue
        if leaf is not None:
            yield leaf, parts
        leaf, parts = value, []
    if leaf is not None:
        yield leaf, parts


def _is_followed(value: ArgumentValue) -> bool:
    """A whole argument of digits may be any number, as of an order."""
    return value.kind in _FOLLOWED and not (value.role == "leaf" and value.kind == "account" and value.form.isdigit())


def sink_kind(pointer: str, sinks: tuple[Sink, ...]) -> SinkKind | None:
    return next((sink.kind for sink in sinks if covers_pointer(sink.argument, pointer)), None)


def _is_declared_value(leaf: ArgumentValue, declared: Mapping[str, Any], tool: ToolSpec) -> bool:
    """True for a value that the tool itself declares: a name of its schema, the default, the only value. So is
    nothing at all, but where a write says of no argument what it chooses: there it may erase.
    """
    if leaf.role == "leaf" and leaf.text.strip() in ("", "null") and (tool.effect == "read" or tool.sinks):
        return True
    schema: Any = {"properties": declared}
    for segment in leaf.pointer.split("/")[1:]:
        inner = schema if isinstance(schema, dict) else {}
        name = unescape_segment(segment)
        properties = inner.get("properties")
        schema = (
            properties.get(name) if isinstance(properties, dict) else inner.get("items") if name.isdigit() else None
        )
    if not isinstance(schema, dict):
        return False
    if leaf.role == "key":
        return True
    fixed = [schema[keyword] for keyword in ("default", "const") if keyword in schema]
    return any(_json_text(fixed_value) == leaf.text for fixed_value in fixed)


def _json_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _suspect_values(
    leaf: ArgumentValue, parts: list[ArgumentValue], kind: SinkKind, call: _Call
) -> list[ArgumentValue]:
    """The values of one leaf that policy does not let into the sink."""

    def is_allowed(value: ArgumentValue) -> bool:
        return _find_bindings(value, kind, call) != ()

    if leaf.role == "key":
        return [] if is_allowed(leaf) else [leaf]
    bad = [part for part in parts if not is_allowed(part)]
    if kind == "text":
        return bad if leaf.kind == "text" or leaf.kind == "number" or is_allowed(leaf) else [leaf]
    if is_allowed(leaf):
        return bad
    remainder = leaf.text
    for part in sorted(parts, key=lambda one: -len(one.text)):
        remainder = remainder.replace(part.text, "", 1)
    # A list of addresses is as good as each of them.
    return bad if parts and _BETWEEN.fullmatch(remainder) else [leaf, *bad]


def _find_bindings(value: ArgumentValue, kind: SinkKind, call: _Call) -> tuple[Binding, ...] | None:
    """The records in which plan and policy let a value stand here: None where it needs none, () where it may not."""
    proposal, origins = call.proposal, call.origins_of(value)
    context = {"tool": proposal.tool.name, "argument": value.pointer, "kind": kind, "field": ""}
    tenant = proposal.task.tenant
    planned = call.planned if _is_bound_by_plan(proposal.tool, kind) else None
    if planned is not None and any(
        not figure.is_literal and value.role == "leaf" and _fits_plan(figure, value, proposal, call.origins)
        for figure in planned.values
    ):
        return None
    if not origins:
        source = proposal.least_trusted if proposal.values is not None else "model"
        return None if call.policy.trusts_source(tenant, source, "", context) else ()
    bindings: list[Binding] = []
    arguments = [literal.argument for literal in planned.values] if planned is not None else []
    for origin in origins:
        # The asker wrote it, and for another argument or call.
        if planned is not None and origin.source == "user" and not _covers_any(arguments, value.pointer):
            continue
        # The number of an invoice is no amount, also where the asker said it; none so short, and no day, is an account.
        if (kind == "amount" and origin.match == "normalised") or (kind == "account" and value.kind in _NO_ACCOUNTS):
            continue
        # A path or a command is another one with a dot or a bar more.
        if kind in LITERAL and value.kind == "text" and origin.match == "normalised":
            continue
        # What the plan alone lets flow is no word of its source.
        if origin.planned:
            continue
        if not call.policy.trusts_source(tenant, *_origin_source(origin), {**context, "field": origin.field}):
            continue
        is_planned = planned is not None and origin.source == "user" and value.role == "leaf"
        rows = literal_bindings(planned, value) if planned is not None and is_planned else None
        if rows is None:
            return None
        bindings += rows
    if value.role == "leaf" or kind == "text":
        flows = call.flows()
        flowing = [
            (flow, origin) for flow in flows for origin in origins if _plan_allows(flow, origin, value, proposal)
        ]
        if flowing and kind == "text":  # A text may tell of many records.
            return None
        bindings += (flow_binding(flow, origin, flows) for flow, origin in flowing)
    return tuple(dict.fromkeys(bindings))


def _is_bound_by_plan(tool: ToolSpec, kind: SinkKind) -> bool:
    """Texts are free: a plan does not write them."""
    return kind != "text" and (tool.effect == "write" or tool.egress)


def _covers_any(patterns: Iterable[str], pointer: str) -> bool:
    return any(covers_pointer(pattern, pointer) for pattern in patterns)


def _plan_allows(flow: Flow, origin: Origin, value: ArgumentValue, proposal: CallProposal) -> bool:
    """True when the plan lets this whole field of this earlier call be this argument: where it selects records, the one
    that it selects."""
    if origin.planned != (selection_digest(flow) if flow.where else ""):
        return False
    return (
        origin.match == "field"
        and origin.source == "tool"
        and flow.from_tool == origin.name
        and proposal.calls.get(origin.call_id, origin.call_id) == flow.step_id
        and len(flow.field.split("/")) == len(origin.field.split("/"))
        and covers_pointer(flow.field, origin.field)
        and covers_pointer(flow.argument, value.pointer)
    )


def _origin_source(origin: Origin) -> tuple[str, str]:
    return origin.source, origin.name if origin.source in ("retrieved", "tool") else ""


def _origin_name(origin: Origin) -> str:
    return ":".join(filter(None, _origin_source(origin)))


def _build_finding(value: ArgumentValue, kind: SinkKind, call: _Call, reason: str = "") -> TaintFinding:
    proposal = call.proposal
    where = tuple(dict.fromkeys(_origin_name(origin) for origin in call.origins_of(value)))
    if reason:
        origin_text = reason
    elif "user" in where:
        origin_text = "the asker wrote it in another form, or for another argument or call"
    elif where:
        origin_text = f"it stands in {', '.join(where)} and not in the asker's words"
    elif proposal.values is None:
        origin_text = "no service vouches for where it comes from"
    else:
        origin_text = f"it stands nowhere in what the agent was shown, and counts as {proposal.least_trusted}"
    rows = (row for row in proposal.values or () if (row.pointer, row.text) == (value.pointer, value.text))
    if expected := next((row.expected for row in rows), ""):
        origin_text += f"; by the plan it is {_quote_shortened(expected)}"
    reason = f"{value.pointer} ({kind}) of {proposal.tool.name} would be {_quote_shortened(value.text)}: {origin_text}"
    return TaintFinding(value.pointer, value.text, where, reason[: bounds.MAX_REASON_CHARS])


def _describe_chosen(value: ArgumentValue, kind: SinkKind, tool: str, origins: tuple[Origin, ...]) -> str:
    names = dict.fromkeys(f"{_origin_name(origin)} {origin.field}".strip() for origin in origins)
    where = ", ".join(names) or "the model"
    text = f"{value.pointer} ({kind}) of {tool} is {_quote_shortened(value.text)}, which {where} chose, as the plan or "
    return f"{text}a rule lets it"[: bounds.MAX_REASON_CHARS]


def _quote_shortened(text: str) -> str:
    return json.dumps(text if len(text) <= 80 else f"{text[:79]}…", ensure_ascii=False)


def _pointer_segment(pointer: str, at: int) -> str:
    segments = pointer.split("/")
    return unescape_segment(segments[at]) if len(segments) > at else ""
