"""Packs and the registry: tools and roles of others, and declarations that agree with functions."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bulkhead.prompts.files import PromptError, Prompts
from bulkhead.tools.catalog import MAX_TOOLS_FILE_BYTES, tool_rows, tool_specs
from bulkhead.tools.packs import Done, PackError, folder
from bulkhead_contracts import bounds
from bulkhead_contracts.result import Failure
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_services.signer.settings import Settings as SignerSettings
from bulkhead_services.tool_executor import registry
from bulkhead_services.tool_executor.core import ToolExecutor
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.registry import load_registry
from bulkhead_services.tool_executor.settings import Settings
from tests.unit.services.tool_executor.conftest import open_gate

ROW = """
{name}:
  description: Says where the desk stands.
  effect: read
  idempotent: true
  requires: [desk_url]
  parameters: {{type: object, additionalProperties: false, properties: {{}}}}
"""
FUNCTION = """
from bulkhead.tools.packs import Arguments, Call, Done, Failed

async def run(arguments: Arguments, call: Call) -> Done | Failed:
    return Done(repr(dict(call.settings)))
"""
PROMPT = "---\nid: {id}\nversion: {version}\ndescription: d\nowner: acme\n---\nYou are a desk.\n"
Make = Callable[..., str]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Make:
    """Writes a pack of this test's own: files by their names. What Python has imported is remembered by name."""
    monkeypatch.syspath_prepend(tmp_path)

    def made(suffix: str = "", **files: str) -> str:
        name = f"pack_{request.node.originalname}{suffix}"
        for path, text in ({"__init__.py": "raise AssertionError('imported')"} | files).items():
            whole = tmp_path / name / path
            whole.parent.mkdir(parents=True, exist_ok=True)
            whole.write_text(text)
        return name

    return made


def _tool(name: str, **more: str) -> dict[str, Any]:
    return {"__init__.py": "", "tools.yaml": ROW.format(name=name), f"{name}.py": FUNCTION, **more}


async def test_a_tool_of_a_pack_runs_and_gets_the_settings_that_it_requires(make: Make) -> None:
    pack = make(**_tool("where_is"))
    settings = Settings(packs=(pack,), tool_settings={"desk_url": "http://desk", "password": "of another tool"})
    found = load_registry(settings.configured_names(), tool_rows(settings.packs))
    assert set(load_registry(settings.configured_names()).tools) < set(found.tools)
    bench = ToolRunner(settings)
    done = await bench.run(found.tools["where_is"], {}, "key", 5, None)
    await bench.close()
    assert done == Done("{'desk_url': 'http://desk'}")


def test_without_its_setting_it_is_not_offered_and_says_which(make: Make) -> None:
    pack = make(**_tool("unset_tool"))
    found = load_registry((), tool_rows((pack,)))
    assert found.find_tool("unset_tool") is None and "unset_tool" not in {one.name for one in tool_specs((), (pack,))}
    assert found.why_unavailable("unset_tool").hint == "an operator must set desk_url in BULKHEAD_TOOL_SETTINGS"


def test_the_signer_reads_a_pack_and_runs_nothing_of_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = make(**{"tools.yaml": ROW.format(name="granted_tool")})
    monkeypatch.setenv("BULKHEAD_PACKS", f'["{pack}"]')
    monkeypatch.setenv("BULKHEAD_TOOL_SETTINGS", '{"desk_url": "http://:secret@desk"}')
    settings = SignerSettings()
    assert settings.tool_settings == ("desk_url",) and "secret" not in repr(settings)
    assert "granted_tool" in {one.name for one in tool_specs(settings.configured(), settings.packs)}
    assert pack not in sys.modules


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"tools.yaml": ROW.format(name="calculate")}, "calculate is a tool of the mesh already"),
        ({"tools.yaml": "a_tool: {effect: read}"}, "is missing"),
        ({"tools.yaml": "- a list"}, "see the head of"),
        ({"tools.yaml": ROW.format(name="remote") + "  served_by: rag\n"}, "drop served_by"),
        ({"tools.yaml": ROW.format(name="mute").replace("Says where the desk stands.", "5")}, "description must be"),
        ({"tools.yaml": ROW.format(name="spelt").replace("[desk_url]", "desk_url")}, "requires must be a list"),
        ({"tools.yaml": ROW.format(name="long") + "  timeout_ms: 300001\n"}, "timeout_ms is 300001, and must be"),
        ({"tools.yaml": ROW.format(name="none") + "  timeout_ms: 0\n"}, "is started by one tool"),
        ({"tools.yaml": ROW.format(name="said") + "  timeout_ms: 10s\n"}, "timeout_ms is 10s, and must be"),
        ({"tools.yaml": ROW.format(name="loose").partition("{type")[0] + "[object]"}, "parameters must be"),
        ({"tools.yaml": "#" * (MAX_TOOLS_FILE_BYTES + 1)}, "at most"),
        ({}, "neither tools.yaml nor prompts/"),
    ],
    ids=[
        "taken",
        "short",
        "no-mapping",
        "elsewhere",
        "no-text",
        "no-list",
        "long",
        "no-time",
        "words",
        "no-schema",
        "too-long",
        "empty",
    ],
)
def test_what_is_no_pack_is_told(make: Make, files: dict[str, str], told: str) -> None:
    pack = make(str(abs(hash(told))), **files)
    with pytest.raises(PackError, match=told):
        tool_rows((pack,))


@pytest.mark.parametrize(
    ("name", "told"), [("not_there_at_all", "install it"), ("a/b", "no name"), ("x.y.z", "no package")]
)
def test_a_pack_that_is_not_there_is_told(name: str, told: str) -> None:
    with pytest.raises(PackError, match=told):
        folder(name)


def test_a_pack_within_a_package_is_found_without_running_that_package(make: Make, tmp_path: Path) -> None:
    # The signer and the model gateway hold keys and read packs: what encloses one is not theirs to run, either.
    trap = "raise AssertionError('imported')"
    outer = make(**{"inner/__init__.py": trap, "inner/desk/tools.yaml": ROW.format(name="x")})
    assert folder(f"{outer}.inner.desk") == tmp_path / outer / "inner" / "desk"
    assert not [name for name in sys.modules if name.startswith(outer)]


def test_two_packs_may_not_have_the_same_tool(make: Make) -> None:
    packs = make("a", **_tool("same")), make("b", **_tool("same"))
    with pytest.raises(PackError, match=f"same is a tool of {packs[0]} already"):
        tool_rows(packs)


def test_a_tool_without_its_module_or_without_what_that_imports_fails_at_start(make: Make) -> None:
    absent = make("absent", **{"__init__.py": "", "tools.yaml": ROW.format(name="ghost")})
    with pytest.raises(ValueError, match="has no `async def run"):
        load_registry((), tool_rows((absent,)))
    needs = make("needs", **_tool("needy", **{"needy.py": "import no_such_library"}))
    with pytest.raises(ValueError, match=r"no_such_library.*install what the pack needs"):
        load_registry((), tool_rows((needs,)))


def test_a_role_of_a_pack_is_a_prompt_beside_ours(make: Make) -> None:
    pack = make(**{"prompts/worker.desk@2.md": PROMPT.format(id="worker.desk", version=2)})
    found = Prompts(packs=(pack,)).find_prompt("worker.desk")
    assert found is not None and (found.version, found.text) == (2, "You are a desk.\n")
    assert Prompts().find_prompt("worker.desk") is None and pack not in sys.modules


def test_a_pack_may_not_replace_a_prompt_of_ours(make: Make) -> None:
    pack = make(**{"prompts/worker.step@9.md": PROMPT.format(id="worker.step", version=9)})
    with pytest.raises(PromptError, match=r"has worker.step already"):
        Prompts(packs=(pack,))


BUILT_IN = ("ask_steps", "answer_step", "acquire_lease", "release_lease")


def test_every_row_is_served_by_someone() -> None:
    found = registry.load_registry({"http_allow_hosts", "counter_url", "run_python", "run_wasm"})
    assert set(found.tools) | set(found.elsewhere) == {row.spec.name for row in tool_rows()}
    assert found.elsewhere == {"search_documents": "rag", **dict.fromkeys(BUILT_IN, "worker")}
    for row in tool_rows():
        assert len(row.spec.parameters_json) <= bounds.MAX_SCHEMA_BYTES
        assert json.loads(row.spec.parameters_json)["additionalProperties"] is False


def test_what_is_not_configured_is_not_offered() -> None:
    offered = {spec.name for spec in tool_specs()}
    assert offered == {"search_documents", "calculate", "date_difference", "date_add", "ask_person", *BUILT_IN}
    assert "counter_increment" in {spec.name for spec in tool_specs({"counter_url"})}
    assert set(registry.load_registry().tools) == offered - {"search_documents", *BUILT_IN}


def test_effects_are_declared() -> None:
    by_name = {row.spec.name: row.spec for row in tool_rows()}
    assert (by_name["counter_increment"].effect, by_name["counter_increment"].idempotent) == ("write", True)
    assert by_name["counter_increment_unkeyed"].idempotent is False
    assert by_name["calculate"].effect == "read"


def test_a_row_without_a_function_fails_at_start() -> None:
    row = tool_rows()[1]
    ghost = replace(row, spec=row.spec.model_copy(update={"name": "no_such_tool"}))
    with pytest.raises(ValueError, match="no_such_tool"):
        registry.load_registry(declared=(ghost,))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "one JSON object"),
        ('{"expression": NaN}', "NaN"),
        ("[" * 16_000, "not JSON"),
        ('{"expression": "1 \\ud800"}', "half a character"),
        ('{"\\udc00": 1}', "half a character"),
        ("{}", "required"),
        ('{"expression": 3}', "expression: 3 is not of type"),
        ('{"expression": "1", "verbose": true}', "verbose"),
    ],
)
def test_unfit_arguments_are_told_in_words(arguments: str, words: str) -> None:
    tool = registry.load_registry().find_tool("calculate")
    assert tool is not None
    refused = tool.read_arguments(arguments)
    assert isinstance(refused, Failure)
    assert refused.code == "bad_arguments" and words in refused.message and "expression" in refused.hint


@pytest.mark.parametrize(
    ("tool", "changes"),
    [("calculate", False), ("counter_increment", True), ("counter_increment_unkeyed", True), ("nosuch", False)],
)
def test_who_gives_up_a_call_knows_whether_it_may_have_written(tool, changes):
    doer = ToolExecutor(registry.load_registry({"counter_url"}), ToolRunner(Settings()), open_gate())
    request = ToolCallRequested(
        call_id="c1", step_id="s1", attempt=1, tool=tool, arguments_json="{}", deadline_unix_ms=1
    )
    assert doer.may_change_world(request) is changes
