"""A limit or a halt of what is not there is told so; what is there, or may come under its name, is left alone."""

import asyncio
import json
from pathlib import Path

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead.client import Mesh
from bulkhead.gateway_api.operators import SpendingQuery
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_cli.halts import halts as halting
from bulkhead_cli.halts.commands import RequestedHaltTarget
from bulkhead_cli.halts.halts import switch_halt
from bulkhead_cli.limits import unknown_names
from bulkhead_cli.limits.spending import set_limit
from bulkhead_cli.output import CommandError, Exit
from bulkhead_cli.target import GatewayTarget
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import Amount, Reserved, ScopeLimit
from bulkhead_contracts.control import Halt
from bulkhead_contracts.task import TaskEnded
from tests.unit.services.gateway.harness import OPERATOR, make_mesh, running


@pytest.mark.parametrize(
    ("kind", "name", "seen", "note"),
    [
        ("agent", "planner", None, ""),
        ("agent", "worker.a_role_of_a_pack", None, ""),
        ("agent", "planner", set(), ""),
        ("agent", "worker.step", {"worker.step"}, ""),
        ("agent", "plannr", None, "no agent called plannr is known; this takes effect when one makes a call"),
        ("agent", "tool_executor", None, "no agent called tool_executor is known"),
        ("agent", "worker.stp", {"worker.step"}, "did you mean worker.step?"),
        ("tool", "http_get", None, ""),
        ("tool", "refund", {"refund"}, ""),
        ("tool", "htp_get", None, "did you mean http_get?"),
        ("tool", "refnd", {"refund"}, "did you mean refund?"),
        ("model", "gpt-4.1-mini", {"gpt-4.1-mini"}, ""),
        ("model", "gpt-4.1-mni", {"gpt-4.1-mini"}, "did you mean gpt-4.1-mini?"),
        ("feature", "new", set(), "no feature called new is known"),
        ("feature", "new", None, ""),
        ("task", "t1", None, ""),
    ],
)
def test_an_unknown_name_gets_a_note_with_the_one_that_was_meant(kind: str, name: str, seen: set | None, note: str):
    text = unknown_names.unknown_name_note(kind, name, seen)
    assert note in text and bool(text) is bool(note), text


@pytest.mark.parametrize(
    ("named", "note"),
    [
        (RequestedHaltTarget("tenant", "acmee"), "this mesh has no tenant acmee (did you mean acme?)"),
        (RequestedHaltTarget("tool", "http_get", "acmee"), "this mesh has no tenant acmee"),
        (RequestedHaltTarget("tenant", "acme"), ""),
        (RequestedHaltTarget("tool", "http_get", "acme"), ""),
    ],
)
def test_a_halt_of_an_unknown_tenant_gets_a_note(tmp_path: Path, named: RequestedHaltTarget, note: str) -> None:
    (tmp_path / "mesh.json").write_text(json.dumps({"tenants": ["acme", "demo"]}))
    text = halting._halt_note(named, THEIRS, "r", tmp_path, set())
    assert note.partition(" (")[0] in text and bool(text) is bool(note), text


async def test_names_are_seen_in_the_journal_of_all_tenants() -> None:
    async with MemoryMesh({}) as mesh:
        publisher = mesh.context("budget").publisher
        for number, (service, resource, tenant) in enumerate(
            (("model_gateway", "gpt-x", "acme"), ("tool_executor", "refund", "demo"))
        ):
            one = Reserved(
                reservation_id=f"r{number}",
                call_id="c",
                service=service,
                resource=resource,
                amount=Amount(),
                reserved_unix_ms=1,
                scopes=tuple(
                    ScopeLimit(scope=scope, cost_usd_micros=1, tokens=1)
                    for scope in (
                        f"task:{tenant}:t1",
                        f"agent:{tenant}:worker.step:2026-11-22",
                        f"feature:{tenant}:search:2026-11-22",
                    )
                ),
            )
            await publisher.send("journal", one, tenant=tenant, task="t1", cause=f"c{number}")
        bus = mesh.context("budget").bus
        async with asyncio.timeout(30):
            while await unknown_names.seen_in(bus, "tool") != {"refund"}:
                await asyncio.sleep(0.01)
        assert [await unknown_names.seen_in(bus, kind) for kind in ("model", "feature", "agent")] == [
            {"gpt-x"},
            {"search"},
            {"worker.step"},
        ]


async def test_limits_of_tasks_that_ended_or_never_were_are_set_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mesh = make_mesh(tmp_path)
    async with running(mesh) as gateway, Mesh(f"http://127.0.0.1:{gateway.port}", OPERATOR) as client:
        runs, over = [(await client.submit(objective)).id for objective in ("This.", "That.")]
        await mesh.say("planner", TaskEnded(status="cancelled"), over)
        found, where = {}, GatewayTarget(f"http://127.0.0.1:{gateway.port}", OPERATOR)
        for of in (f"task/{runs}", f"task/{over}", "task/nobodys", "agent/nobody", "agent/planner", "day"):
            await set_limit(where, of, {"tokens": 5}, as_json=True)
            page = json.loads(capsys.readouterr().out)
            assert of in {row["target"] for row in page["limits"]}, "a note is no error"
            found[of] = page.get("note", "")
        await set_limit(where, f"task/{over}", {}, as_json=False)
        assert "note" not in capsys.readouterr().out, "what is taken away needs none"
        await set_limit(where, f"task/{over}", {}, as_json=False)
        assert "had no limit; nothing was removed" in capsys.readouterr().out
        await set_limit(where, "agent/nobody", {"tokens": 6}, as_json=False)
        assert "note: no agent called nobody is known" in capsys.readouterr().out
    assert [of for of, note in found.items() if not note] == [f"task/{runs}", "agent/planner", "day"]
    assert "has ended (cancelled)" in found[f"task/{over}"]
    assert "there is no task 'nobodys'" in found["task/nobodys"]


async def test_a_halt_of_an_unknown_tool_stands_and_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with running(make_mesh(tmp_path)) as gateway:
        where = GatewayTarget(f"http://127.0.0.1:{gateway.port}", OPERATOR)
        for as_json in (True, False):
            for active in (True, False):
                await switch_halt(
                    tmp_path, where, RequestedHaltTarget("tool", "nosuchtool"), "look", active=active, as_json=as_json
                )
        first, lifted, *said = capsys.readouterr().out.splitlines()
        for reason in ("look", "another reason"):
            await switch_halt(
                tmp_path, where, RequestedHaltTarget("tool", "http_get"), reason, active=True, as_json=False
            )
        once = capsys.readouterr().out
    assert "it has been halted since" in once and "the new reason is not stored" in once and once.count("note:") == 1
    halted, gone = json.loads(first), json.loads(lifted)
    assert halted["resume"] == "bulkhead resume --tool nosuchtool"
    assert halted["active"] and "no tool" in halted["note"] and not gone["active"] and "note" not in gone
    assert [line.partition(":")[0] for line in said] == ["halted", "to resume", "note", "resumed"]


THEIRS = Halt(
    active=True, scope="tool", tenant="acme", name="http_get", code="c", reason="r", by="b", pauses=True, at_unix_ms=1
)


async def test_who_mistypes_what_is_to_go_on_hears_what_is_halted(tmp_path: Path) -> None:
    mesh = make_mesh(tmp_path)
    entry = THEIRS.model_dump_json().encode()
    mesh.bus.stored.append((subjects.CONTROL_STREAM, StoredMessage("$KV.CONTROL.tool.acme.http_get", {}, entry, 1, 1)))
    async with running(mesh) as gateway:
        where = GatewayTarget(f"http://127.0.0.1:{gateway.port}", OPERATOR)
        with pytest.raises(CommandError, match=r"tool htp_get is not halted; did you mean http_get\?") as refused:
            await switch_halt(tmp_path, where, RequestedHaltTarget("tool", "htp_get"), "on", active=False, as_json=True)
        assert (refused.value.code, refused.value.name) == (Exit.REFUSED, "not_halted")
        with pytest.raises(CommandError, match=r"model gpt is not halted$"):
            await switch_halt(tmp_path, where, RequestedHaltTarget("model", "gpt"), "on", active=False, as_json=True)


def test_a_halt_of_one_tenant_is_not_taken_away_for_everybody_and_says_whose_it_is() -> None:
    said = halting._not_halted_error(
        RequestedHaltTarget("tool", "http_get"), [THEIRS], "tool http_get is not halted", "look"
    )
    assert str(said) == "tool http_get is not halted; it is halted for tenant acme: --tenant acme"


class Spent:
    """A mesh of which only spending is asked."""

    def __init__(self, *names: str) -> None:
        self.names = names

    async def read_json(self, query: SpendingQuery) -> dict[str, list[dict[str, str]]]:
        assert query.by == "feature"
        return {"rows": [{"name": one} for one in self.names]}


@pytest.mark.parametrize(("name", "told"), [("serach", "did you mean search?"), ("search", ""), ("billing", "")])
async def test_a_limit_of_nearly_a_name_that_has_spent_is_told(name: str, told: str) -> None:
    note = await unknown_names.limit_target_note(Spent("search", "chat"), f"feature/{name}")
    assert told in note and bool(note) is bool(told), "a new name is as good as any"


@pytest.mark.parametrize(
    ("named", "command"),
    [
        (RequestedHaltTarget("tool", "http_get", "acme"), "bulkhead resume --tool http_get --tenant acme"),
        (RequestedHaltTarget("tool", "http_get"), "bulkhead resume --tool http_get"),
        (RequestedHaltTarget("tenant", "acme"), "bulkhead resume --tenant acme"),
        (RequestedHaltTarget("task", "t1", "acme"), "bulkhead resume --task t1"),
        (RequestedHaltTarget("feature", "a b"), "bulkhead resume --feature 'a b'"),
    ],
)
def test_the_command_that_is_told_takes_this_very_halt_away(named: RequestedHaltTarget, command: str) -> None:
    assert halting._resume_command(named) == command
