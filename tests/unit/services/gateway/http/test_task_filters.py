"""What a list of tasks is asked for: filters, orders, counts, and costs that the ledger alone knows."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from bulkhead.gateway_api.tasks import TaskSummary, to_unix_ms
from bulkhead_contracts.budget import CallsReplied, SpendReplied, SpendRequested, SpendRow, Spent
from bulkhead_contracts.result import Failure, Label, Result, Usage
from bulkhead_contracts.task import StepEnded, TaskAccepted, TaskEnded, TaskPaused
from bulkhead_services.gateway.http import task_document
from bulkhead_services.gateway.read_model.task_index import TaskIndexPage
from bulkhead_services.gateway.read_model.task_rows import TaskRow
from tests.unit.services.gateway.harness import AUTH, Mesh

MANY, QUERY_MAX_S = 10_000, 0.1
NOW_MS = 1_764_115_200_000
"""2025-11-26 00:00 UTC"""


async def submitted(http: httpx.AsyncClient, mesh: Mesh, key: str, **options: Any) -> str:
    headers = {**AUTH, "Idempotency-Key": key}
    body = {"objective": f"Find fare {key}", **options}
    task = (await http.post("/v1/tasks", json=body, headers=headers)).json()["task_id"]
    await mesh.pump()
    await mesh.say("planner", TaskAccepted(deadline_unix_ms=5_000_000), task)
    return str(task)


async def ended(http: httpx.AsyncClient, mesh: Mesh, key: str, cost: int, **end: Any) -> str:
    """A task with one step, whose result rests on a model and a tool of these names."""
    task = await submitted(http, mesh, key, feature=end.pop("feature", ""))
    sources = {"model_reply": f"openai/{end.pop('model', 'm1')}", "tool_result": end.pop("tool", "t1")}
    labels = tuple(
        Label(sha256="a" * 64, kind=kind, source=source, observed_by="x")  # type: ignore[arg-type]
        for kind, source in sources.items()
    )
    step = StepEnded(step_id="s1", attempt=1, plan_version=1, outcome="accepted", result=Result(provenance=labels))
    await mesh.say("planner", step, task)
    fields: dict[str, Any] = {"status": "succeeded", "usage": Usage(cost_usd_micros=cost, model_calls=2)} | end
    await mesh.say("planner", TaskEnded(**fields), task)
    return task


async def page_of(http: httpx.AsyncClient, **query: str) -> dict[str, Any]:
    answer = await http.get("/v1/tasks", params=query, headers=AUTH)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


async def ids_of(http: httpx.AsyncClient, **query: str) -> list[str]:
    return [row["task_id"] for row in (await page_of(http, **query))["tasks"]]


async def test_filters_orders_and_counts(mesh, http):
    failure = Failure.from_text("uncertain_effect", "who knows")
    cheap = await ended(http, mesh, "cheap", 10, feature="refunds", result=Result(answered="yes", summary="42 EUR"))
    dear = await ended(http, mesh, "dear", 900, model="m2", tool="t2", result=Result(answered="no"))
    bad = await ended(http, mesh, "bad", 90, status="failed", failure=failure)
    waits = await submitted(http, mesh, "waits")
    await mesh.say("planner", TaskPaused(code="approval_wanted", reason="look", step_id="s1"), waits)
    await submitted(http, mesh, "runs")

    assert await ids_of(http, model="m2") == await ids_of(http, tool="t2") == [dear]
    assert await ids_of(http, code="uncertain_effect,other") == [bad]
    assert await ids_of(http, pause="approval_wanted") == [waits]
    assert await ids_of(http, min_cost_usd_micros="90") == [bad, dear]
    assert await ids_of(http, kind="adopted") == [] and len(await ids_of(http, kind="planned")) == 5
    assert await ids_of(http, sort="cost", limit="3") == [dear, bad, cheap]
    first = await page_of(http, sort="cost", limit="2")
    assert [row["task_id"] for row in first["tasks"]] == [dear, bad]
    assert (await ids_of(http, sort="cost", limit="2", cursor=first["next"]))[0] == cheap
    row = (await page_of(http, text="cheap"))["tasks"][0]
    assert (row["models"], row["tools"], row["model_calls"], row["result_summary"]) == (["m1"], ["t1"], 2, "42 EUR")

    page = await page_of(http, counts="true", status="failed", limit="1")
    assert [found["task_id"] for found in page["tasks"]] == [bad]
    counts = page["counts"]
    assert counts["read"] == counts["fitting"] == page["total"] == 5
    assert counts["status"] == {"succeeded": 2, "failed": 1, "paused": 1, "running": 1}
    assert counts["pause"] == {"approval_wanted": 1} and counts["answered"] == {"yes": 1, "no": 1}
    assert set(counts["names"]["models"]) == {"m1", "m2"} and counts["names"]["codes"] == ["uncertain_effect"]
    assert (await page_of(http, counts="true", feature="refunds"))["counts"]["fitting"] == 1


async def test_a_tool_is_looked_for_among_calls_that_failed_or_were_refused(mesh, http):
    done = await ended(http, mesh, "done", 10, tool="counter")
    failure = Failure.from_text("uncertain_effect", "who knows")
    task = await submitted(http, mesh, "lost")
    await mesh.say("planner", TaskEnded(status="failed", failure=failure), task)
    mesh.bus.calls = CallsReplied(tasks=(task,))
    assert await ids_of(http, tool="counter") == [task, done]
    assert await ids_of(http, tool="counter", status="failed", since="1h") == []  # They are of 1970.
    assert [(ask.name, ask.tasks_only, ask.since_s) for ask in mesh.bus.asked_calls] == [
        ("counter", True, 31 * 24 * 3600),
        ("counter", True, 3600),
    ]


async def test_a_list_by_tool_says_what_budget_cannot_tell(mesh, http):
    done = await ended(http, mesh, "done", 10, tool="counter")
    mesh.bus.calls = CallsReplied(failure=Failure.from_text("too_much", "more than 100,000 messages", "a shorter time"))
    for _ in range(2):
        page = await page_of(http, tool="counter")
        assert [row["task_id"] for row in page["tasks"]] == [done]
        assert "more than 100,000 messages" in page["note"] and "a shorter time" in page["note"]
    assert len(mesh.bus.asked_calls) == 1, "a failure is kept"
    mesh.bus.calls = CallsReplied(tasks=("elsewhere",), more=7)
    assert "7 older tasks" in (await page_of(http, tool="other"))["note"]
    assert (await page_of(http))["note"] == ""


async def test_those_who_ask_for_a_tool_at_once_or_a_moment_later_are_one_request(mesh, http):
    await ended(http, mesh, "done", 10)
    now_unix_s = mesh.gateways[0].http.task_list._context.clock() / 1_000
    earlier, later = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_unix_s - age)) for age in (3_590, 3_570))
    await asyncio.gather(*(page_of(http, tool="counter", since=earlier) for _ in range(20)))
    await page_of(http, tool="counter", since=later)
    assert [ask.since_s for ask in mesh.bus.asked_calls] == [3_600]


async def test_a_period_begins_and_ends(mesh, http):
    task = await submitted(http, mesh, "k")
    assert await ids_of(http, since="1970-01-01", until="1970-01-02") == [task]
    assert await ids_of(http, since="1h") == await ids_of(http, until="1970-01-01T00:00") == []
    for name, text in (("since", "yesterday"), ("until", "2026-13-01"), ("since", "99d"), ("min_duration_ms", "-1")):
        answer = await http.get("/v1/tasks", params={name: text}, headers=AUTH)
        assert answer.status_code == 422 and name in answer.text and "send a" in answer.json()["hint"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1h", NOW_MS - 3_600_000),
        ("2025-11-26", NOW_MS),
        ("2025-11-26T01:00", NOW_MS + 3_600_000),
        ("2025-11-26T01:00+01:00", NOW_MS),
        ("2025-11-26T00:00Z", NOW_MS),
    ],
)
def test_a_moment_is_a_distance_or_a_time_of_utc(text: str, expected: int) -> None:
    assert to_unix_ms(text, NOW_MS) == expected


async def test_a_running_task_has_cost_what_the_ledger_says(mesh, http, monkeypatch):
    task = await submitted(http, mesh, "runs")
    assert (await page_of(http))["tasks"][0]["held_usd_micros"] is None  # Budget here knows no accounts.
    asked: list[SpendRequested] = []

    async def answer_spend(body: SpendRequested) -> SpendReplied:
        asked.append(body)
        spent, held = Spent(cost_usd_micros=700, model_calls=3), Spent(cost_usd_micros=50)
        return SpendReplied(by="task", rows=tuple(SpendRow(name=name, spent=spent, held=held) for name in body.tasks))

    gateway = mesh.gateway()
    monkeypatch.setattr(gateway.http.task_list._context.publisher, "request", _request_of(answer_spend))
    await gateway.attach_inbox()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=gateway.app), base_url="http://ledger") as begun:
        for query in ({}, {"sort": "cost"}, {"min_cost_usd_micros": "750"}):
            row = (await page_of(begun, **query))["tasks"][0]
            assert (row["task_id"], row["cost_usd_micros"], row["held_usd_micros"]) == (task, 700, 50)
            assert row["model_calls"] == 3
        assert await ids_of(begun, min_cost_usd_micros="751") == []
        assert [body.tasks for body in asked] == [(task,)], "asked once for a while"
        assert asked[0].of_task and task_document.SPENDING_PATIENCE_S <= 1


async def test_a_query_of_ten_thousand_tasks_takes_less_than_a_tenth_of_a_second(mesh, http, monkeypatch):
    rows = mesh.gateways[0].http.task_list.rows
    now_s = asyncio.get_running_loop().time()
    listed = [(MANY - number, f"t{number}") for number in range(MANY)]
    known = rows._tenants["acme"] = {}
    for sequence, task in listed:
        summary = TaskSummary(
            task_id=task,
            status="failed" if sequence % 7 == 0 else "succeeded",
            objective=f"Find the fare {sequence}",
            created_unix_ms=sequence,
            updated_unix_ms=sequence,
            duration_ms=sequence % 997,
            person=f"person{sequence % 17}",
            cost_usd_micros=sequence % 4_999,
            models=("m1",),
        )
        known[task] = TaskRow(sequence, summary, summary.objective.casefold(), has_ended=True, read_at_s=now_s)

    async def list_page(*_: object) -> TaskIndexPage:
        return TaskIndexPage(listed, more=False, total=MANY)

    monkeypatch.setattr(mesh.gateways[0].http.task_list._listing, "list_page", list_page)
    for query in (
        {"counts": "true", "limit": "100"},
        {"counts": "true", "sort": "cost", "status": "failed", "model": "m1", "limit": "100"},
        {"text": "fare nothing", "person": "person3", "min_cost_usd_micros": "5"},
    ):
        took_s = []
        for _ in range(5):
            began_s = time.process_time()
            page = await page_of(http, **query)
            took_s.append(time.process_time() - began_s)
        assert min(took_s) < QUERY_MAX_S, (query, took_s)
        assert page["counts"] is None or page["counts"]["read"] == page["total"] == MANY


def _request_of(answer):
    async def request(to: str, body: SpendRequested, **_: object) -> SpendReplied:
        assert to == "budget"
        reply: SpendReplied = await answer(body)
        return reply

    return request
