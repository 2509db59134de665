"""`@tool`: what a typed function declares, what is refused, and how it is called."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from bulkhead.tools import Call, Done, Failed, tool
from bulkhead.tools.catalog import row_of, tool_rows
from bulkhead.tools.decorator import declaration_of, run_of
from bulkhead.tools.export import find_declarations, render_tools_file
from bulkhead.tools.packs import PackError
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.registry import load_registry
from bulkhead_services.tool_executor.settings import Settings

CALL = Call(key="k", world=None)  # type: ignore[arg-type]


class Line(BaseModel):
    account: str
    cents: Annotated[int, Field(ge=1)]


class Ticket(BaseModel):
    number: int
    open: bool = True


@tool(effect="write", sinks={"to": "recipient", "lines/*/account": "account"}, idempotent=True, most_calls=3)
async def pay(
    to: str, lines: list[Line], call: Call, urgency: Literal["low", "high"] = "low", json: bool = False
) -> Ticket | Failed:
    """Pay several accounts.

    Each is paid once.

    Args:
        to: Who is told
            of it.
        lines (list): What is paid.
    """
    return Ticket(number=len(lines)) if call.key == "k" else Failed("no", urgency, str(json))


def test_hints_and_docstring_become_the_row() -> None:
    found = declaration_of(pay)
    assert found is not None and found.call_parameter == "call"
    row = row_of("pay", found.row | {"function": ""})
    assert row.spec.description == "Pay several accounts. Each is paid once."
    assert [one.argument for one in row.spec.sinks] == ["/to", "/lines/*/account"] and row.spec.most_calls == 3
    assert json.loads(row.spec.parameters_json) == {
        "type": "object",
        "additionalProperties": False,
        "required": ["to", "lines"],
        "properties": {
            "to": {"type": "string", "description": "Who is told of it."},
            "lines": {
                "type": "array",
                "description": "What is paid.",
                "items": {
                    "type": "object",
                    "required": ["account", "cents"],
                    "properties": {"account": {"type": "string"}, "cents": {"type": "integer", "minimum": 1}},
                },
            },
            "urgency": {"type": "string", "enum": ["low", "high"], "default": "low"},
            "json": {"type": "boolean", "default": False},
        },
    }
    assert json.loads(row.spec.output_json)["properties"]["number"] == {"type": "integer"}


async def test_a_call_gives_typed_values_and_returns_json() -> None:
    done = await run_of(pay)({"to": "a", "lines": [{"account": "x", "cents": 2}]}, CALL)
    assert done == Done('{"number":1,"open":true}')
    assert (await pay("a", [], CALL)).number == 0  # Still a function.


async def test_what_a_validator_refuses_is_a_failure_that_names_the_argument() -> None:
    failed = await run_of(pay)({"to": "a", "lines": [{"account": "x", "cents": 0}]}, CALL)
    assert isinstance(failed, Failed) and failed.code == "bad_arguments" and "lines.0.cents" in failed.message


def _untold(x: str) -> str:
    return x


def _untyped(x) -> str:
    """Text."""
    return x


def _silent(x: str):
    """Text."""


def _nothing(x: str) -> None:
    """Text."""


def _any(*x: str) -> str:
    """Text."""
    return ""


class Tree(BaseModel):
    inner: "list[Tree]"


def _tree(x: Tree) -> str:
    """Text."""
    return ""


def _opaque(x: ToolRunner) -> str:
    """Text."""
    return ""


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (_untold, "no docstring"),
        (_untyped, "parameter x has no type"),
        (_silent, "does not say what it returns"),
        (_nothing, "returns nothing"),
        (_any, "name each of them"),
        (_tree, "Tree holds itself"),
        (_opaque, "has no JSON Schema"),
        (Tree, "stands above a `def`"),
    ],
)
def test_what_cannot_be_a_tool_is_told(function: Callable[..., Any], told: str) -> None:
    with pytest.raises(TypeError, match=told):
        tool()(function)


CODE = '''
from bulkhead.tools import Call, tool

@tool(effect="{effect}", requires=["desk_url"])
{kind} say(word: str, call: Call, times: int = 2) -> str:
    """Say a word."""
    return f"{{call.settings['desk_url']}}: {{word * times}}"
'''


def _pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "words.py").write_text(CODE.format(kind=kind, effect="read"))
    return folder


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_an_exported_tool_runs_in_the_executor(tmp_path: Path, monkeypatch, kind: str) -> None:
    name = f"exported_{len(kind)}"
    (_pack(tmp_path, monkeypatch, name, kind) / "tools.yaml").write_text(
        render_tools_file(name, find_declarations(name))
    )
    for folder in (tmp_path, *tmp_path.parents[:-2]):  # Its process has another user, where the tests are root's.
        folder.chmod(folder.stat().st_mode | 0o055)
    settings = Settings(packs=(name,), tool_settings={"desk_url": "desk"})
    found = load_registry(settings.configured_names(), tool_rows((name,))).tools["say"]
    assert found.runs_in_own_process is (kind == "def")
    bench = ToolRunner(settings)
    done = await bench.run(found, {"word": "ho"}, "acme.k", 20, None)
    await bench.close()
    assert done == Done("desk: hoho")


def test_a_file_that_says_something_else_than_the_code_fails_at_start(tmp_path: Path, monkeypatch) -> None:
    file = _pack(tmp_path, monkeypatch, "drifted", "def") / "tools.yaml"
    file.write_text(render_tools_file("drifted", find_declarations("drifted")).replace("effect: read", "effect: write"))
    with pytest.raises(ValueError, match="say different things; run `bulkhead tools export drifted`"):
        load_registry((), tool_rows(("drifted",)))


def test_a_row_names_no_function_of_another_package(tmp_path: Path, monkeypatch) -> None:
    file = _pack(tmp_path, monkeypatch, "foreign", "def") / "tools.yaml"
    told = render_tools_file("foreign", find_declarations("foreign"))
    file.write_text(told.replace("foreign.words:say", "os:system"))
    with pytest.raises(PackError, match="a module of the pack"):
        tool_rows(("foreign",))


@pytest.mark.parametrize("rule", ["/error", {"pointer": "error"}, {"where": "/error"}, {"pointer": "/e", "message": 5}])
def test_an_error_rule_that_is_none_is_told(rule: Any) -> None:
    declared = {"description": "d", "parameters": {}, "effect": "read", "idempotent": True, "error_if": rule}
    with pytest.raises(ValueError, match="error_if must be a rule"):
        row_of("t", declared)
