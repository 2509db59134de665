"""`@tool`: a typed Python function with a docstring, declared as a tool where it stands.

Enters: a function. Leaves: the same function, which can still be called as itself, with its row of tools.yaml; and, for
the executor, `run(arguments, call)`. Types, limits and texts of the parameters come from the hints and the docstring.
"""

import inspect
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError, create_model

from bulkhead.tools.api import Arguments, Call, Done, Failed, Run

if TYPE_CHECKING:
    from bulkhead_contracts.provenance import Isolation, SinkKind
    from bulkhead_contracts.tool import Effect

F = TypeVar("F", bound=Callable[..., Any])
ATTRIBUTE = "__bulkhead_tool__"
NOT_MADE = "not_made"
"""Code of what a check says of a call that was certainly not made."""
_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_SECTION = re.compile(r"(?m)^(Args|Arguments|Parameters|Returns?|Yields|Raises|Examples?|Notes?):?\s*$|^:\w+")
_ARGUMENTS = re.compile(r"(?ms)^(?:Args|Arguments|Parameters):\s*\n(.*?)(?=^\S|\Z)")
_ARGUMENT = re.compile(r"(?ms)^(\s+)(\w+)(?:\s*\([^)\n]*\))?:\s*(.*?)(?=^\1\w+(?:\s*\([^)\n]*\))?:|\Z)")
_PARAM = re.compile(r"(?m)^:param (?:\w+ )?(\w+):\s*(.*(?:\n[ \t]+.*)*)")
_VERBATIM_KEYS = frozenset({"default", "const", "enum", "examples", "required"})
_KEYED_BY_NAME = frozenset({"properties", "patternProperties"})


@dataclass(frozen=True, slots=True)
class Declaration:
    """A decorated function. row: as tools.yaml has it. parameter_of_field: by field of `arguments_model`.

    call_parameter: takes the Call; "" without one. output: of what it returns; None for text. check: whether
    a call was made, where it can tell.
    """

    name: str
    function: Callable[..., Any]
    row: Mapping[str, Any]
    arguments_model: type[BaseModel]
    parameter_of_field: Mapping[str, str]
    call_parameter: str
    output: TypeAdapter[Any] | None
    check: Callable[..., Any] | None = None


def tool(
    *,
    effect: "Effect" = "read",
    idempotent: bool | None = None,
    sinks: "Mapping[str, SinkKind] | None" = None,
    egress: bool = False,
    isolation: "Isolation" = "none",
    network: bool = False,
    credentials: tuple[str, ...] | list[str] = (),
    requires: tuple[str, ...] | list[str] = (),
    timeout_ms: int | None = None,
    max_output_bytes: int | None = None,
    most_calls: int = 0,
    four_eyes: bool = False,
    error_if: Mapping[str, Any] | None = None,
    check: Callable[..., Any] | None = None,
    name: str = "",
) -> Callable[[F], F]:
    """Declare a function as a tool. The options are the fields of tools.yaml (docs/reference/tools.md).

    idempotent: left out, a read is and a write is not. name: left out, the function's. check: asked after a write whose
    outcome was lost, with those of its arguments that it takes and the same `call.key`: True, or what the write
    returned, where it was made; False where it was not and will not be, though the far side may be slow; None where
    it cannot tell. Raises TypeError where the function cannot be one: a parameter without a type, no docstring, no
    type of what it returns.
    """
    options: dict[str, Any] = {
        "effect": effect,
        "idempotent": effect == "read" if idempotent is None else idempotent,
        "isolation": isolation if isolation != "none" else None,
        "sinks": dict(sinks or {}),
        "egress": egress,
        "network": network,
        "credentials": list(credentials),
        "requires": list(requires),
        "timeout_ms": timeout_ms,
        "max_output_bytes": max_output_bytes,
        "most_calls": most_calls,
        "four_eyes": four_eyes,
        "error_if": dict(error_if) if error_if else None,
        "check": check is not None,
    }

    def declare_function(function: F) -> F:
        declared = _build_declaration(function, name or function.__name__, options)
        if check is not None:
            declared = replace(declared, check=_validated_check(check, declared))
        setattr(function, ATTRIBUTE, declared)
        return function

    return declare_function


def declaration_of(function: object) -> Declaration | None:
    """The declaration of a decorated function; None for anything else."""
    declaration = getattr(function, ATTRIBUTE, None)
    return declaration if isinstance(declaration, Declaration) else None


def run_of(function: object) -> Run:
    """The function as the executor runs it. Raises TypeError for one that is not decorated."""
    declared = declaration_of(function)
    if declared is None:
        raise TypeError(f"{getattr(function, '__qualname__', function)!r} has no @tool above it")
    return _bound_run(declared, declared.function, _render_outcome)


def check_of(function: object) -> Run | None:
    """The check of a function as the executor runs it; None without one. Done: it was made; Failed NOT_MADE: certainly
    not; any other: it cannot tell."""
    declared = declaration_of(function)
    if declared is None or declared.check is None:
        return None
    return _bound_run(declared, declared.check, _check_outcome)


def _bound_run(
    declared: Declaration, function: Callable[..., Any], outcome_of: Callable[[Declaration, Any], Any]
) -> Run:
    """A function that takes some of a tool's parameters and its call, as the executor runs it."""
    accepted_names = inspect.signature(function).parameters

    def keywords_of(arguments: Arguments, call: Call) -> dict[str, Any] | Failed:
        keywords = _bind_arguments(declared, arguments, call)
        if isinstance(keywords, Failed) or function is declared.function:
            return keywords
        return {name: value for name, value in ({"call": call} | keywords).items() if name in accepted_names}

    if inspect.iscoroutinefunction(function):

        async def run_async(arguments: Arguments, call: Call) -> Done | Failed:
            keywords = keywords_of(arguments, call)
            return keywords if isinstance(keywords, Failed) else outcome_of(declared, await function(**keywords))

        return run_async

    def run_plain(arguments: Arguments, call: Call) -> Done | Failed:
        keywords = keywords_of(arguments, call)
        return keywords if isinstance(keywords, Failed) else outcome_of(declared, function(**keywords))

    return run_plain


def was_made(name: str) -> Done:
    """The outcome of a call that a check found, where it found nothing of what it answered."""
    return Done(f"{name} was made; what it answered was lost, and its check found it")


def _check_outcome(declared: Declaration, value: Any) -> Any:
    """The outcome of what a check says."""
    if value is True:
        return was_made(declared.name)
    if value is False:
        message = f"{declared.name} was not made: its check found nothing of it"
        return Failed(NOT_MADE, message, "call it again, if it is still wanted")
    if value is None:
        return Failed("unknown", f"the check of {declared.name} cannot tell", "a person must look", effect="unknown")
    return _render_outcome(declared, value)


def _validated_check(check: Callable[..., Any], declared: Declaration) -> Callable[..., Any]:
    """The check of a tool. Raises TypeError where it cannot be called with what the tool is called with."""
    where = f"the check of {declared.name}"
    if inspect.iscoroutinefunction(check) != inspect.iscoroutinefunction(declared.function):
        raise TypeError(f"{where}: write it as the tool is written, both `def` or both `async def`")
    known_names = {*declared.parameter_of_field.values(), declared.call_parameter, "call"}
    for name, parameter in inspect.signature(check).parameters.items():
        if parameter.kind not in _KINDS or name not in known_names:
            raise TypeError(f"{where} takes {name}, which is neither a parameter of the tool nor `call`")
    if get_type_hints(declared.function).get("return") in (bool, type(None)):
        raise TypeError(f"{where}: what it says could be taken for what the tool returns; let that return a text")
    return check


def _bind_arguments(declared: Declaration, arguments: Arguments, call: Call) -> dict[str, Any] | Failed:
    """Keyword arguments of the function; those that the caller left out stay with the function's own defaults."""
    try:
        validated = declared.arguments_model.model_validate(dict(arguments))
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, misfit['loc'])) or 'arguments'}: {misfit['msg']}" for misfit in error.errors()[:5]
        ]
        return Failed("bad_arguments", "; ".join(wrong)[:2000], "send arguments that fit the tool's parameters")
    keywords = {declared.parameter_of_field[name]: getattr(validated, name) for name in validated.model_fields_set}
    return keywords | ({declared.call_parameter: call} if declared.call_parameter else {})


def _render_outcome(declared: Declaration, value: Any) -> Any:
    """The outcome. What is neither a text nor of the declared type goes on as it is: the executor names it."""
    if isinstance(value, Done | Failed):
        return value
    if declared.output is not None:
        return Done(declared.output.dump_json(value, warnings="none").decode())
    return Done(value) if isinstance(value, str) else value


def _build_declaration(function: Callable[..., Any], name: str, given: Mapping[str, Any]) -> Declaration:
    where = f"{function.__module__}.{function.__qualname__}"
    if (
        not inspect.isfunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    ):
        raise TypeError(f"{where}: @tool stands above a `def` or `async def` that returns, and not above this")
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(f"{where}: {error}; define or import the type above the function") from error
    summary = _function_description(function)
    if not summary:
        raise TypeError(f"{where} has no docstring; models choose a tool by its first sentences")
    if "return" not in hints:
        raise TypeError(f"{where} does not say what it returns; write `-> str`, or a model for JSON")
    fields, call = _read_parameters(function, hints, where)
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
    try:
        definitions: dict[str, Any] = {field: value for field, (_, value) in fields.items()}
        arguments = create_model(name, __config__=config, **definitions)
        parameters = _inline_references(arguments.model_json_schema())
        output = _output_adapter(hints["return"])
        schema = _inline_references(output.json_schema(mode="serialization")) if output is not None else None
    except (PydanticUserError, ValueError) as error:
        raise TypeError(f"{where}: a type in it has no JSON Schema: {str(error).splitlines()[0]}") from error
    parameters.setdefault("properties", {})
    row: dict[str, Any] = {"description": summary, "function": f"{function.__module__}:{function.__qualname__}"}
    row |= {field: value for field, value in given.items() if value or field == "idempotent"}
    row |= {"parameters": parameters} | ({"output": schema} if schema is not None else {})
    return Declaration(
        name, function, row, arguments, {field: name for field, (name, _) in fields.items()}, call, output
    )


def _read_parameters(
    function: Callable[..., Any], hints: Mapping[str, Any], where: str
) -> tuple[dict[str, tuple[str, Any]], str]:
    """Fields of the model of arguments (name of the parameter, its definition), and the parameter of the Call."""
    fields: dict[str, tuple[str, Any]] = {}
    call, texts = "", _argument_texts(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in _KINDS:
            raise TypeError(f"{where}: {parameter} takes any arguments; name each of them")
        if name not in hints:
            raise TypeError(f"{where}: parameter {name} has no type; write for example `{name}: str`")
        if hints[name] is Call:
            call = name
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        extra: dict[str, Any] = {"description": texts[name]} if name in texts else {}
        # By an alias: a parameter may be called as something that a model has itself, as `copy` or `json`.
        fields[f"field_{len(fields)}"] = name, (hints[name], Field(default, alias=name, **extra))
    return fields, call


def _output_adapter(returns: Any) -> TypeAdapter[Any] | None:
    parts = get_args(returns) if get_origin(returns) in (Union, types.UnionType) else (returns,)
    result_types = [part for part in parts if part not in (Done, Failed)]
    if not result_types or result_types == [str]:
        return None
    if any(part in (None, type(None), Any) for part in result_types):
        raise ValueError("it returns nothing, or anything; a model reads what a tool returns: say what it is")
    returned_type: Any = Union[tuple(result_types)]  # noqa: UP007 - of parts that are known when it runs
    return TypeAdapter(returned_type)


# Texts and schemas, as models read them


def _function_description(function: Callable[..., Any]) -> str:
    """The docstring before its sections, on one line; "" without one."""
    text = inspect.getdoc(function) or ""
    section = _SECTION.search(text)
    return " ".join(text[: section.start() if section else None].split())


def _argument_texts(function: Callable[..., Any]) -> dict[str, str]:
    """Texts of the docstring on each parameter: a section `Args:`, or lines `:param name:`."""
    text = inspect.getdoc(function) or ""
    texts: dict[str, str] = dict(_PARAM.findall(text))
    if (section := _ARGUMENTS.search(text)) is not None:
        texts |= {name: words for _, name, words in _ARGUMENT.findall(section[1])}
    return {name: " ".join(words.split()) for name, words in texts.items()}


def _inline_references(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without `$ref` (some providers follow none) and without titles. Raises ValueError where it holds
    itself."""
    inlined: dict[str, Any] = _inline_node(schema, schema.get("$defs", {}), ())
    return inlined


def _inline_node(node: Any, definitions: dict[str, Any], within: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_inline_node(item, definitions, within) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name in within:
            raise ValueError(f"{name} holds itself; a tool's arguments and results have a depth that is known")
        referred = {**definitions[name], **{key: value for key, value in node.items() if key != "$ref"}}
        return _inline_node(referred, definitions, (*within, name))
    inlined = {}
    for key, value in node.items():
        if key in ("title", "$defs", "discriminator"):
            continue
        if key in _KEYED_BY_NAME:
            inlined[key] = {name: _inline_node(inner, definitions, within) for name, inner in value.items()}
        else:
            inlined[key] = value if key in _VERBATIM_KEYS else _inline_node(value, definitions, within)
    return inlined
