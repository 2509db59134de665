"""kill -9 of the executor between a write and its record, with a tool that can tell whether it was made."""

import importlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bulkhead.tools.export import find_declarations, render_tools_file
from bulkhead_infra.local.supervisor import START_ORDER
from tests.e2e.fixtures.world import World, write_tenants
from tests.eventually import until

pytestmark = pytest.mark.asyncio(loop_scope="session")
PACK = "counting_desk"
CODE = '''
"""Counts at the desk, which knows no idempotency keys."""
import json
import urllib.request

from bulkhead.tools import Call, tool


def asked(url: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=5) as answer:
        return json.loads(answer.read())


def counted(name: str, call: Call) -> bool | None:
    """Whether the desk has counted under this name."""
    if name in asked(call.settings["desk_url"] + "/counts")["counts"]:
        return True
    return None if name == "unsure" else False


@tool(effect="write", network=True, requires=["desk_url"], check=counted)
def count_once(name: str, call: Call) -> str:
    """Count under a name."""
    return f"{name} = {asked(call.settings['desk_url'] + '/increment', {'name': name, 'amount': 1})['value']}"
'''


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A mesh whose executor dies where a test says."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / PACK).mkdir()
    (folder / PACK / "__init__.py").write_text(CODE)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    (folder / PACK / "tools.yaml").write_text(render_tools_file(PACK, find_declarations(PACK)))
    for one in (folder, *folder.parents[:-2]):  # The tool's process has another user, where the tests are root's.
        one.chmod(one.stat().st_mode | 0o055)
    (folder / "rules").mkdir()
    (folder / "rules" / "default.cedar").write_text('@id("all") permit (principal, action, resource);')
    shared = {"PYTHONPATH": str(folder), "BULKHEAD_PACKS": f'["{PACK}"]'}
    extra = {name: dict(shared) for name in START_ORDER}
    extra["tool_executor"]["BULKHEAD_POLICY_DIR"] = str(folder / "rules")
    extra["tool_executor"]["BULKHEAD_CRASH_AT"] = f"@{folder / 'crash'}"
    world = World(folder / "world", extra_env=extra)
    for name in ("signer", "tool_executor"):
        world.env[name]["BULKHEAD_TOOL_SETTINGS"] = f'{{"desk_url": "{world.counter.url}"}}'
    write_tenants(folder / "world" / "tenants.yaml", demo={"tools": ["count_once"], "default_writes": ["count_once"]})
    async with world:
        yield world
    sys.path.remove(str(folder))


def plan(name: str) -> dict[str, Any]:
    step = {"id": "s1", "title": "Count", "instruction": f"Use count_once with name={name}.", "tools": ["count_once"]}
    return {"steps": [step | {"inputs": [], "acceptance": "It is counted."}]}


async def killed_at(world: World, point: str, name: str) -> dict[str, Any]:
    """The task's end, where the executor dies once at this point of its write."""
    unit = world.mesh.unit_of("tool_executor")
    file = Path(world.env["tool_executor"]["BULKHEAD_CRASH_AT"][1:])
    restarts = unit.restarts
    file.write_text(f"tool_executor:{point}:1")
    task = await world.submit("demo", "Count it.", plan=plan(name), check=False, deadline_s=120)

    async def died() -> bool:
        return unit.restarts > restarts

    try:
        await until(died, "the executor died", timeout_s=60)
    finally:
        file.unlink(missing_ok=True)
    await unit.wait_until_ready(60)
    document: dict[str, Any] = await world.finish(task, 120)
    return document


async def test_a_write_that_was_made_is_found_and_made_no_more(desk: World) -> None:
    document = await killed_at(desk, "after_act", "found")
    assert document["status"] == "succeeded" and not document["uncertain_writes"], document
    assert desk.counter.count("found") == 1


async def test_a_write_of_which_the_check_cannot_tell_is_uncertain(desk: World) -> None:
    document = await killed_at(desk, "after_claim", "unsure")
    assert (document["status"], document["failure"]["code"]) == ("failed", "uncertain_effect"), document
    assert desk.counter.count("unsure") == 0
