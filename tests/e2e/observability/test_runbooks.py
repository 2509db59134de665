"""Alerts on a mesh in trouble, by a real Prometheus under the shipped rules: each fires, the commands of its runbook
show the trouble and mend it where a command can, and it is over. Alerts that take long are tried by promtool alone."""

import asyncio
import json
from pathlib import Path

import pytest

from bulkhead.health.thresholds import DEFAULT
from bulkhead_contracts import catalog
from tests.e2e.fixtures.outsider import headers, raw
from tests.e2e.observability.watched import PLANTED, Watched
from tests.eventually import until
from tests.unit.infra.observability.test_rules import told

pytestmark = pytest.mark.nightly
here = pytest.mark.asyncio(loop_scope="module")


@here
async def test_nothing_fires_on_a_mesh_at_rest_and_prometheus_reads_every_service(watched: Watched) -> None:
    async def all_up() -> bool:
        return {one["metric"]["service"] for one in await watched.ask("up == 1")} == set(catalog.SERVICES)

    await until(all_up, "every service is read", 30, 0.2)
    await watched.world.finish(await watched.submit("t1", "Say hello."))

    async def counted() -> bool:
        return bool(await watched.ask('bulkhead_tasks_seconds_count{bulkhead_status="succeeded"} > 0'))

    await until(counted, "the task is counted", 30, 0.2)
    names = {one["metric"]["__name__"] for one in await watched.ask('{__name__=~"bulkhead_.+"}')}
    assert {name for name in names if not name.startswith("bulkhead_tasks_seconds")} <= told()
    assert await watched.alerts() == []


@here
async def test_dead_letters(watched: Watched) -> None:
    task = "bus-letters"
    await raw(watched.world, task, headers(task), b'{"objective": "' + PLANTED.encode())
    await watched.fires("BulkheadDeadLetters", bulkhead_service="gateway")
    _, said = await watched.run("bulkhead dead-letters --json")
    [letter] = json.loads(said)["letters"]
    assert "malformed_body" in await watched.follow("BulkheadDeadLetters", ID=letter["id"][:12])
    await watched.resolves("BulkheadDeadLetters")


@here
async def test_service_down_and_inbox_lag(watched: Watched) -> None:
    await watched.world.mesh.kill_replica("rag", hold=True)
    task = await watched.submit("t1", "Use search_documents query=harbour.", "search_documents")
    await watched.fires("BulkheadServiceDown", service="rag")
    assert "rag" in await watched.follow("BulkheadServiceDown", SERVICE="rag")
    await watched.fires("BulkheadInboxLag", bulkhead_inbox="rag")
    assert "1 pending" in await watched.follow("BulkheadInboxLag")
    await watched.world.mesh.restart_replica("rag")
    await watched.world.finish(task)
    await asyncio.gather(watched.resolves("BulkheadServiceDown"), watched.resolves("BulkheadInboxLag"))


@here
async def test_breaker_open(watched: Watched) -> None:
    watched.world.counter.misbehave("error_before", 1_000)
    for number in range(DEFAULT.breakers.min_calls):
        task = await watched.submit("t7", f"Use counter_increment name=failing{number}.", "counter_increment")
        await watched.world.finish(task)
    await watched.fires("BulkheadBreakerOpen", bulkhead_scope="tool")
    watched.world.counter.clear_faults()
    assert "calls failed" in await watched.follow("BulkheadBreakerOpen", BREAKER="tool:counter_increment")
    await watched.resolves("BulkheadBreakerOpen")


@here
async def test_provider_failing(watched: Watched) -> None:
    await watched.world.arm("500", times=1_000)
    task = await watched.submit("t1", "Say hello.")
    found = await watched.fires("BulkheadProviderFailing")
    await watched.world.disarm()
    said = await watched.follow("BulkheadProviderFailing")
    assert found["labels"]["bulkhead_model"] in said
    await watched.run(f"bulkhead breakers reset model:{found['labels']['bulkhead_model']}")
    await watched.world.finish(task)
    await watched.resolves("BulkheadProviderFailing")


@here
async def test_ledger_unreachable(watched: Watched) -> None:
    await watched.world.mesh.units["redis"].kill_process(hold=True)
    await watched.fires("BulkheadLedgerUnreachable")
    said = await watched.follow("BulkheadLedgerUnreachable")
    assert "redis it does not answer" in said and "watch_interrupted" in said
    watched.world.mesh.units["redis"].release_hold()
    await watched.resolves("BulkheadLedgerUnreachable")
    await watched.world.mesh.wait_until_ready(60)


@here
async def test_an_incident_file_has_what_happened_and_nothing_that_was_planted(
    watched: Watched, tmp_path: Path
) -> None:
    """The last one: all the troubles of this mesh are in it."""
    world = watched.world
    code, said = await watched.run(f"bulkhead incident export --since 1h -o {tmp_path}/incident.json --json")
    assert code == 0, said
    text = (tmp_path / "incident.json").read_text()
    found = json.loads(text)
    assert {name: row["error"] for name, row in found["manifest"]["parts"].items() if row["error"]} == {}
    assert {one["process"] for one in found["health"]} >= {f"{name}-0" for name in catalog.SERVICES}
    assert any("bulkhead_tasks_seconds_count" in row for one in found["metrics"] for row in one["lines"])
    [letter] = found["dead_letters"]
    assert (letter["code"], letter["standing"]) == ("malformed_body", "dismissed")
    codes = {call["failure_code"] for task in found["tasks"] for step in task["steps"] for call in step["calls"]}
    assert "http_status" in codes, codes
    secrets = [PLANTED, *world.mesh.credentials.values(), world.mesh.nkey_seed("operator"), "demo-approver"]
    assert [one for one in secrets if one in text] == []
    assert (tmp_path / "incident.json").stat().st_mode & 0o077 == 0
    key = world.mesh.credentials["operator"]
    elsewhere = f"--url {world.mesh.url} --api-key {key} -o {tmp_path}/remote.json"
    code, said = await watched.run(f"bulkhead incident export {elsewhere}")
    assert code == 0 and PLANTED not in (tmp_path / "remote.json").read_text() and key not in said
