"""Ratings over HTTP: whose word counts, what others see of it, what is labelled next, and quality."""

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.rating import TaskRated
from bulkhead_contracts.result import Label, Result, Usage
from bulkhead_contracts.task import StepEnded, TaskAccepted, TaskEnded
from bulkhead_services.gateway.read_model.ratings import quality
from bulkhead_services.gateway.read_model.ratings.quality import measure_quality
from tests.unit.services.gateway.harness import AGENT, AUDITOR, AUTH, SUBMITTER, Mesh, _row

JUDGE, TOM = "bk_evaluator_key_of_acme", "bk_another_submitter_of_acme"


def as_(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def keys(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a judge and another submitter; and it is soon after what the broker has stored."""
    routes = mesh.gateways[0].http.ratings
    monkeypatch.setattr(routes, "_context", replace(routes._context, clock=lambda: 1_060_000))
    path = mesh.folder / "keys.json"
    document = json.loads(path.read_text())
    document["keys"] += [_row(JUDGE, "acme", "judge-bot", "evaluator"), _row(TOM, "acme", "王芳", "submitter")]
    path.write_text(json.dumps(document), encoding="utf-8")


async def answered_task(
    http: httpx.AsyncClient, mesh: Mesh, key: str, *, end: dict[str, Any] | None = None, release: str = ""
) -> str:
    headers = {**AUTH, "Idempotency-Key": key}
    body = {"objective": f"What is the excess? {key}", "feature": "claims"}
    task = str((await http.post("/v1/tasks", json=body, headers=headers)).json()["task_id"])
    await mesh.pump()
    await mesh.say("planner", TaskAccepted(deadline_unix_ms=5_000_000), task)
    content = await mesh.blob("worker", f"250 euros, says {key}")
    label = Label(sha256=content.sha256, kind="model_reply", source="openai/m1", observed_by="model_gateway")
    result = Result(content=content, summary="250", provenance=(label,), answered="yes")
    await mesh.say(
        "planner", StepEnded(step_id="s1", attempt=1, plan_version=1, outcome="accepted", result=result), task
    )
    usage = Usage(cost_usd_micros=2_000)
    await mesh.say(
        "planner",
        TaskEnded(**({"status": "succeeded", "result": result, "usage": usage, "release": release} | (end or {}))),
        task,
    )
    return task


async def rate(http: httpx.AsyncClient, task: str, key: str, **body: Any) -> httpx.Response:
    return await http.put(f"/v1/tasks/{task}/rating", json=body, headers=as_(key))


async def test_a_persons_rating_replaces_the_one_before_and_names_go_to_operators_and_auditors(mesh, http):
    task = await answered_task(http, mesh, "a")
    first = await rate(http, task, SUBMITTER, score="good")
    assert (first.status_code, first.json()["good"]) == (200, 1)
    stored = len(mesh.sent("gateway"))
    assert (await rate(http, task, SUBMITTER, score="good")).json()["good"] == 1
    assert len(mesh.sent("gateway")) == stored, "the same again stores nothing"
    mine = (await rate(http, task, SUBMITTER, score="bad", comment="write to\nsue@example.org")).json()
    assert (mine["good"], mine["bad"], mine["named"]) == (0, 1, [])
    [own] = mine["own"]
    assert "sue@example.org" not in own["comment"] and "\n" not in own["comment"]
    for key, names in ((AUDITOR, ["sue"]), (AGENT, [])):
        seen = (await http.get(f"/v1/tasks/{task}", headers=as_(key))).json()["ratings"]
        assert ([row["person"] for row in seen["named"]], seen["bad"], seen["own"]) == (names, 1, [])
    await mesh.pump()
    raters = [stored for stored in mesh.sent("gateway") if stored.ce_type == TaskRated.ce_type()]
    assert all("sue" not in value for stored in raters for value in stored.headers.values())


async def test_a_label_is_shown_to_nobody_else_and_counts_for_no_filter(mesh, http, keys):
    task = await answered_task(http, mesh, "a")
    assert (await rate(http, task, SUBMITTER, score="bad", kind="label")).status_code == 200
    seen = (await http.get(f"/v1/tasks/{task}", headers=AUTH)).json()["ratings"]
    assert (seen["labels"], seen["bad"], seen["named"], seen["own"]) == (1, 0, [], [])
    await mesh.pump()
    for rated, found in (("none", [task]), ("bad", []), ("good", [])):
        page = (await http.get("/v1/tasks", params={"rated": rated}, headers=AUTH)).json()
        assert [row["task_id"] for row in page["tasks"]] == found


async def test_a_task_that_a_person_rates_bad_is_found_as_such_though_others_rate_it_good(mesh, http, keys):
    tasks = [await answered_task(http, mesh, key) for key in "abc"]
    for task, key, score in ((0, SUBMITTER, "good"), (0, TOM, "bad"), (1, TOM, "good")):
        assert (await rate(http, tasks[task], key, score=score)).status_code == 200
        await mesh.pump()
    for rated, places in (("bad", {0}), ("good", {1}), ("none", {2}), ("bad,none", {0, 2})):
        page = (await http.get("/v1/tasks", params={"rated": rated}, headers=AUTH)).json()
        assert {row["task_id"] for row in page["tasks"]} == {tasks[place] for place in places}, rated


async def test_a_judge_rates_under_its_own_role_alone_and_an_agent_not_at_all(mesh, http, keys):
    task = await answered_task(http, mesh, "a")
    judged = {"score": "bad", "kind": "judge", "judge": "grounded@1f2e", "certified": True, "comment": "no source"}
    assert (await rate(http, task, JUDGE, **judged)).json()["judged_bad"] == 1
    for key, body, status in (
        (SUBMITTER, judged, 403),
        (JUDGE, {"score": "good"}, 403),
        (AGENT, {"score": "good"}, 403),
        (SUBMITTER, {"score": "good", "certified": True}, 422),
        (JUDGE, {"score": "good", "kind": "judge"}, 422),
        (SUBMITTER, {"score": "great"}, 422),
    ):
        assert (await rate(http, task, key, **body)).status_code == status, (key, body)
    again = (await rate(http, task, JUDGE, **(judged | {"judge": "grounded@2", "score": "good"}))).json()
    assert (again["judged_good"], again["judged_bad"]) == (1, 0), "another definition of the judge replaces its word"
    both = (await rate(http, task, JUDGE, **(judged | {"judge": "panel@1"}))).json()
    assert (both["judged_good"], both["judged_bad"], len(both["own"])) == (1, 1, 2), "another judge has its own"


async def test_only_what_has_ended_is_rated_and_no_one_rates_without_end(mesh, http):
    body, headers = {"objective": "x"}, {**AUTH, "Idempotency-Key": "k"}
    running = (await http.post("/v1/tasks", json=body, headers=headers)).json()["task_id"]
    await mesh.pump()
    refused = await rate(http, running, SUBMITTER, score="good")
    assert (refused.status_code, refused.json()["code"]) == (409, "nothing_to_rate")
    failed = await answered_task(http, mesh, "f", end={"status": "failed", "result": None})
    assert (await rate(http, failed, SUBMITTER, score="bad")).status_code == 200
    assert (await rate(http, failed, SUBMITTER, score="bad", kind="label")).status_code == 409, "it has no answer"
    for change in range(1, bounds.MAX_RATING_CHANGES):
        assert (await rate(http, failed, SUBMITTER, score="bad", comment=str(change))).status_code == 200
    assert (await rate(http, failed, SUBMITTER, score="good")).json()["code"] == "rating_limit"
    assert (await rate(http, failed, AUDITOR, score="good")).status_code == 200, "others still have their word"
    assert (await rate(http, "t-foreign", SUBMITTER, score="good")).status_code == 404


async def test_the_queue_goes_on_as_people_label_and_tells_agreement_once_all_doubled_ones_are_done(mesh, http, keys):
    tasks = {await answered_task(http, mesh, key) for key in "abcdef"}
    query = {"double_every": "1", "since": "2m"}

    async def queue_of(key: str) -> dict[str, Any]:
        answer = await http.get("/v1/labels", params=query, headers=as_(key))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    first = await queue_of(SUBMITTER)
    assert set(first["tasks"]) == tasks and (first["sampled"], first["doubled"], first["own"]) == (6, 6, 0)
    for number, task in enumerate(first["tasks"]):
        assert (await rate(http, task, SUBMITTER, kind="label", score="good" if number else "bad")).status_code == 200
        await mesh.pump()
    done = await queue_of(SUBMITTER)
    assert (done["tasks"], done["own"], done["labelled"]) == ([], 6, 0)
    operator_key = AUTH["Authorization"].removeprefix("Bearer ")
    for number, task in enumerate(first["tasks"]):
        assert (await queue_of(operator_key))["agreement"] == [], "not before the last"
        assert (await rate(http, task, operator_key, kind="label", score="bad" if number < 2 else "good")).is_success
        await mesh.pump()
    assert (await queue_of(SUBMITTER))["agreement"] == []
    [pair] = (await queue_of(operator_key))["agreement"]
    assert (pair["people"], pair["tasks"], pair["agreed"], pair["kappa"]) == (["ada", "sue"], 6, 5, 0.5714)


async def test_labels_are_exported_with_what_was_labelled_to_operators_and_evaluators(mesh, http, keys):
    task = await answered_task(http, mesh, "a", release="production.3.canary")
    await answered_task(http, mesh, "b")
    assert (await rate(http, task, SUBMITTER, kind="label", score="bad")).is_success
    await mesh.pump()
    for key in (AUTH["Authorization"].removeprefix("Bearer "), JUDGE):
        [row] = (await http.get("/v1/labels/export", headers=as_(key))).json()["rows"]
        assert row == {
            "id": task,
            "question": "What is the excess? a",
            "documents": [],
            "answer": "250 euros, says a",
            "labels": {"sue": "bad"},
            "model": "openai/m1",
            "release": "production.3.canary",
        }
    assert (await http.get("/v1/labels/export", headers=as_(SUBMITTER))).status_code == 403


async def test_an_export_goes_on_after_its_last_task_and_keeps_names_of_all_scripts(mesh, http, keys, monkeypatch):
    monkeypatch.setattr("bulkhead_services.gateway.http.routes.ratings.MAX_EXPORT_ROWS", 1)
    tasks = sorted([await answered_task(http, mesh, key) for key in "abc"])
    for task in tasks[1:]:
        assert (await rate(http, task, TOM, kind="label", score="bad")).is_success
    await mesh.pump()

    async def export(after: str) -> dict[str, Any]:
        return dict((await http.get("/v1/labels/export", params={"after": after}, headers=as_(JUDGE))).json())

    first = await export("")
    assert [row["id"] for row in first["rows"]] == [first["next"]] == [tasks[1]]
    assert first["rows"][0]["labels"] == {"王芳": "bad"}
    assert (await rate(http, tasks[0], TOM, kind="label", score="bad")).is_success
    await mesh.pump()
    second = await export(first["next"])
    assert [row["id"] for row in second["rows"]] == [tasks[2]] and second["next"] is None


async def test_quality_is_measured_once_for_all_who_ask_and_once_at_a_time(mesh, http, monkeypatch):
    measuring, most, measured = 0, 0, 0

    def measure(*wanted: Any) -> Any:
        nonlocal measuring, most, measured
        measuring, measured = measuring + 1, measured + 1
        most = max(most, measuring)
        try:
            time.sleep(0.02)  # Two that measured at once would be seen.
            return measure_quality(*wanted)
        finally:
            measuring -= 1

    monkeypatch.setattr(quality, "measure_quality", measure)
    queries = [{"by": by} for by in ("feature", "model", "prompt") for _ in range(5)]
    answers = await asyncio.gather(*(http.get("/v1/quality", params=query, headers=AUTH) for query in queries))
    assert all(answer.status_code == 200 for answer in answers)
    assert (measured, most) == (3, 1)


async def test_quality_is_told_by_name_and_over_time(mesh, http, keys):
    good, bad = await answered_task(http, mesh, "a"), await answered_task(http, mesh, "b", end={"status": "failed"})
    assert (await rate(http, good, SUBMITTER, score="good")).is_success
    await rate(http, bad, JUDGE, score="bad", kind="judge", judge="grounded@1", certified=True)
    await rate(http, good, JUDGE, score="good", kind="judge", judge="grounded@1")
    await mesh.pump()
    page = (await http.get("/v1/quality", params={"by": "model", "since": "2m", "slices": "4"}, headers=AUTH)).json()
    total = page["total"]
    assert (total["ended"], total["good"], total["answers"], total["per_good_usd_micros"]) == (2, 1, 1, 4_000)
    assert (total["rated"]["value"], total["judged"]["value"]) == (1.0, 0.0)
    assert (total["ratings"]["judged_good"], total["ratings"]["advice"]) == (0, 1), "advice counts in no share"
    assert [row["name"] for row in page["rows"]] == ["m1"] and len(page["slices"]) == 4
    assert sum(part["ended"] for part in page["slices"]) == 2 and page["unread"] == 0
