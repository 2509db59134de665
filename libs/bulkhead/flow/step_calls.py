"""The arguments of a call that a plan makes and no model: its literals, and fields of earlier results. Pure.

In: a `StepCall`, and the texts of the results that it refers to. Out: the arguments, or why there are none. A reference
is an object in place of a value: `{"$from": "STEP", "field": "/pointer"}`, or `{"$item": "/pointer"}` within a `map`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bulkhead.flow import bounded
from bulkhead.flow.json_pointer import escape_segment, unescape_segment
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import PlanStep, StepCall
from bulkhead_contracts.result import Failure

FROM, FIELD, ITEM = "$from", "field", "$item"
MAX_REFERENCES = 64
_MARKER = re.compile(r"\[#[0-9a-f]{12}\]")
FENCED = re.compile(r"^```[a-zA-Z]*\n(.*?)\n```$", re.S)
"""A text that is one fenced block."""
NO_ITEM = object()
"""In place of an item, where the step is no `map`: None is an item, too."""


class UnresolvedReference(Exception):
    """A reference that stands for no value; `code` is for programs."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Reference:
    """A place in the arguments whose value comes from elsewhere. argument: where, as a JSON pointer. step_id: of whose
    result; "" for a map's item. field: of its JSON; "" for all of it."""

    argument: str
    step_id: str
    field: str


def list_references(call: StepCall) -> tuple[Reference, ...]:
    """All references in the arguments of a call. Raises ValueError: they are no JSON object, or a reference is
    malformed."""
    return tuple(_iterate_references(_load_template(call), ""))


def readable_references(call: StepCall | None) -> tuple[Reference, ...]:
    """References as `list_references` finds them; none of a malformed call: whoever resolves it says what is wrong."""
    try:
        return list_references(call) if call is not None else ()
    except ValueError:
        return ()


def describe_step(step: PlanStep) -> str:
    """Words for people on what a step does."""
    if step.question is not None:
        return " ".join(f"Asks a person: {step.question.text} {step.instruction}".split())
    if step.call is None:
        return step.instruction
    arguments = "" if step.call.arguments_json == "{}" else f" with {step.call.arguments_json}"
    return f"Calls {step.call.tool}{arguments}. {step.instruction}".rstrip()


def resolve_arguments(call: StepCall, inputs: Mapping[str, str], item: object = NO_ITEM) -> dict[str, object] | Failure:
    """The arguments, or why a reference in them stands for nothing. inputs: texts of results, by step. item: of the
    map's list."""
    hint = "mend the step's arguments: a reference names one of the step's inputs and a field of its JSON"
    try:
        arguments = _resolve(_load_template(call), inputs, item)
        _check_size(arguments, "they")
    except UnresolvedReference as error:
        return Failure.from_text(error.code, f"arguments of {call.tool}: {error}", hint)
    except ValueError as error:
        return Failure.from_text("malformed_arguments", f"arguments of {call.tool}: {error}", hint)
    assert isinstance(arguments, dict)
    return arguments


def follows_call(call: StepCall, arguments: object) -> bool:
    """True for arguments that have every literal of the call at its place, and nothing besides but what references
    stand for."""
    try:
        return _is_like(_load_template(call), arguments)
    except ValueError:
        return False


def find_field(value: object, pointer: str) -> object:
    """The value at a JSON pointer (RFC 6901), "" for the whole. Raises UnresolvedReference."""
    for raw_segment in pointer.split("/")[1:]:
        segment = unescape_segment(raw_segment)
        if isinstance(value, dict) and segment in value:
            value = value[segment]
        elif isinstance(value, list) and segment.isascii() and segment.isdigit() and int(segment) < len(value):
            value = value[int(segment)]
        else:
            raise UnresolvedReference("no_such_field", f"there is nothing at {pointer}, for it lacks {segment[:64]!r}")
    return value


def read_result(text: str, field: str) -> object:
    """A field of a result's JSON. Without a field it is the result: as JSON where that is an object or a list, else
    the text itself. Raises UnresolvedReference."""
    try:
        value = load_result_json(text)
    except ValueError:
        if field:
            raise UnresolvedReference("no_such_field", f"the result is no JSON, so that it has no {field}") from None
        return text
    return find_field(value, field) if field or isinstance(value, (dict, list)) else text


def load_result_json(text: str) -> object:
    """The JSON of a result: bare or in one fenced block, without the markers of citations that the model gateway leaves
    in a model's words. Raises ValueError."""
    plain = _MARKER.sub("", text).strip()
    fenced = FENCED.match(plain)
    return bounded.load_json(fenced[1] if fenced else plain)


def _load_template(call: StepCall) -> dict[str, object]:
    try:
        template = bounded.load_json(call.arguments_json, once=True)
    except ValueError:
        # Nothing in the parser's words: another version of it has others, and a replay would differ.
        raise ValueError("they are no JSON, or hold a key twice") from None
    if not isinstance(template, dict) or FROM in template or ITEM in template:
        raise ValueError("they are not one JSON object")
    if sum(1 for _ in _iterate_references(template, "")) > MAX_REFERENCES:
        raise ValueError(f"they hold more than {MAX_REFERENCES} references")
    return template


def _check_size(value: object, name: str) -> None:
    """Raises UnresolvedReference for what does not fit into arguments, or cannot be sent."""
    try:
        size_bytes = len(json.dumps(value, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        raise UnresolvedReference("bad_arguments", f"{name} hold half a character (a lone surrogate)") from None
    if size_bytes > bounds.MAX_ARGUMENTS_BYTES:
        reason = f"{name} take {size_bytes} bytes; {bounds.MAX_ARGUMENTS_BYTES} are allowed: refer to a smaller field"
        raise UnresolvedReference("arguments_too_long", reason)


def _reference_of(value: object, argument: str) -> Reference | None:
    """The reference that stands here; None for a literal. Raises ValueError for a malformed one."""
    if not isinstance(value, dict) or not (FROM in value or ITEM in value):
        return None
    step_id, field = value.get(FROM, ""), value.get(FIELD, "") if FROM in value else value[ITEM]
    is_known = value.keys() <= ({FROM, FIELD} if FROM in value else {ITEM})
    is_named = isinstance(step_id, str) and bool(step_id) == (FROM in value)
    if not is_known or not is_named or not isinstance(field, str) or field[:1] not in ("", "/"):
        raise ValueError(f'{argument or "/"} is no reference: write {{"$from": "STEP", "field": "/pointer"}}')
    if len(argument) > bounds.MAX_POINTER_CHARS or len(field) > bounds.MAX_POINTER_CHARS:
        most = bounds.MAX_POINTER_CHARS
        raise ValueError(f"a reference stands at a place, or names a field, of over {most} characters")
    return Reference(argument, step_id, field)


def _iterate_references(value: object, argument: str) -> Iterator[Reference]:
    if (reference := _reference_of(value, argument)) is not None:
        yield reference
    elif isinstance(value, (dict, list)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from _iterate_references(inner, f"{argument}/{escape_segment(key)}")


def _resolve(value: object, inputs: Mapping[str, str], item: object) -> object:
    if (reference := _reference_of(value, "")) is not None:
        if not reference.step_id and item is NO_ITEM:
            raise UnresolvedReference("no_item", "$item stands outside of a map")
        if reference.step_id and reference.step_id not in inputs:
            raise UnresolvedReference("unknown_input", f"{reference.step_id} is no input of the step")
        if reference.step_id:
            referred = read_result(inputs[reference.step_id], reference.field)
        else:
            referred = find_field(item, reference.field)
        # Before the next one: many references to one long result would fill the memory.
        _check_size(referred, f"{reference.step_id or ITEM}{reference.field}")
        return referred
    if isinstance(value, dict):
        return {key: _resolve(inner, inputs, item) for key, inner in value.items()}
    return [_resolve(inner, inputs, item) for inner in value] if isinstance(value, list) else value


def _is_like(template: object, value: object) -> bool:
    if _reference_of(template, "") is not None:
        return True
    if isinstance(template, dict) and isinstance(value, dict):
        return template.keys() == value.keys() and all(_is_like(template[key], value[key]) for key in template)
    if isinstance(template, list) and isinstance(value, list):
        return len(template) == len(value) and all(map(_is_like, template, value))
    # Of its own type: True is no 1.
    return type(template) is type(value) and template == value
