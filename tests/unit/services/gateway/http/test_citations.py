"""What stands behind the markers of an answer: documents, tools, steps; superseded, erased, expired; nobody else's."""

import hashlib
import logging
from dataclasses import replace

import pytest

from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.result import Citation, Failure, Label, Result
from bulkhead_contracts.retrieval import PassageReplied
from bulkhead_contracts.task import StepEnded, TaskAccepted, TaskEnded
from bulkhead_contracts.tool import CitedCall, CitedCallReplied
from tests.unit.services.gateway.harness import AUDITOR, AUTH, FOREIGN

FARE = "A cancelled ticket is refunded at 80 percent."
SUM = "400 * 0.8 = 320"
STEP = "The share is 80 percent."
OLD, NEW = "a" * 64, "b" * 64


def marker(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.fixture
async def task(mesh, http) -> str:
    """A task whose answer cites a passage, a tool's result, an earlier step and something unknown."""
    key = {"Idempotency-Key": "k"}
    receipt = await http.post("/v1/tasks", json={"objective": "What is refunded?"}, headers=AUTH | key)
    name = receipt.json()["task_id"]
    passage = await mesh.blob("rag", FARE)
    computed = await mesh.blob("tool_executor", SUM)
    share = await mesh.blob("model_gateway", STEP)
    text = f"It is 320 [#{passage.marker}] [#{computed.marker}] [#{share.marker}] [#{'0' * 12}] [#{passage.marker}]."
    # Longer than a summary, which would carry it.
    text += " Every share is of the fare that was paid." * 3
    said = await mesh.blob("model_gateway", text)
    labels = (
        Label(sha256=passage.sha256, kind="passage", source="fares.md", observed_by="rag"),
        Label(sha256=computed.sha256, kind="tool_result", source="calculate", observed_by="tool_executor"),
    )
    cited = Citation(
        marker=passage.marker, document="fares.md", document_sha256=OLD, chunk_id="c1", start=120, end=120 + len(FARE)
    )
    first = Result(content=share, provenance=labels[:1], citations=(cited,))
    result = Result(content=said, provenance=labels, citations=(cited,))
    await mesh.say("planner", TaskAccepted(deadline_unix_ms=9), name)
    for step, made in (("find", first), ("answer", result)):
        ended = StepEnded(step_id=step, attempt=1, plan_version=1, outcome="accepted", result=made)
        await mesh.say("planner", ended, name, index=step)
    await mesh.say("planner", TaskEnded(status="succeeded", result=result, ended_unix_ms=9), name)
    return name


async def get(http, task: str, name: str = "", headers=AUTH):
    return await http.get(f"/v1/tasks/{task}/citations{'/' if name else ''}{name}", headers=headers)


async def test_the_citations_of_an_answer_are_listed_in_its_order(http, task):
    page = (await get(http, task)).json()
    kinds = [(row["kind"], row["source"], row["step_id"]) for row in page["citations"]]
    assert kinds == [
        ("document", "fares.md", "find"),
        ("tool_result", "calculate", "answer"),
        ("step_result", "find", "find"),
        ("unknown", "", ""),
    ]
    first = page["citations"][0]
    assert (first["document_sha256"], first["start"], first["end"]) == (OLD, 120, 120 + len(FARE)) and page["more"] == 0


async def test_a_passage_is_shown_from_the_version_that_was_cited(mesh, http, task):
    mesh.bus.passage = PassageReplied(state="current", text=FARE, current_sha256=OLD)
    found = (await get(http, task, marker(FARE))).json()
    assert (found["state"], found["text"], found["superseded_by"], found["note"]) == ("current", FARE, None, "")
    [(tenant, asked)] = mesh.bus.passages
    assert tenant == "acme" and (asked.document, asked.sha256, asked.start) == ("fares.md", OLD, 120)


async def test_a_replaced_document_is_said(mesh, http, task):
    mesh.bus.passage = PassageReplied(state="superseded", text=FARE, current_sha256=NEW)
    found = (await get(http, task, marker(FARE))).json()
    assert (found["state"], found["text"], found["superseded_by"]) == ("superseded", FARE, NEW)
    assert "superseded by version bbbbbbbbbbbb of fares.md" in found["note"]


async def test_the_words_that_were_cited_count_where_the_store_divides_otherwise(mesh, http, task):
    mesh.bus.passage = PassageReplied(state="current", text="something else", current_sha256=OLD)
    assert (await get(http, task, marker(FARE))).json()["text"] == FARE


async def test_what_was_erased_is_not_shown_though_its_content_is_there_still(http, task):
    found = (await get(http, task, marker(FARE))).json()
    assert (found["state"], found["text"]) == ("erased", None) and "erased" in found["note"]


async def test_a_tools_result_names_its_call(mesh, http, task):
    call = CitedCall(step_id="sum", attempt=1, tool="calculate", arguments_json='{"expression": "x"}', asked_unix_ms=5)
    mesh.bus.call = CitedCallReplied(call=call)
    found = (await get(http, task, marker(SUM))).json()
    assert (found["state"], found["text"], found["step_id"]) == ("kept", SUM, "sum")
    assert found["call"]["arguments_json"] == '{"expression": "x"}'


async def test_a_steps_result_and_the_objective_are_cited_too(http, task):
    step = (await get(http, task, marker(STEP))).json()
    assert (step["kind"], step["text"], step["source"]) == ("step_result", STEP, "find")
    objective = (await get(http, task, marker("What is refunded?"))).json()
    assert (objective["kind"], objective["text"]) == ("objective", "What is refunded?")


async def test_expired_content_is_said(mesh, http, task):
    mesh.bus.stored = [row for row in mesh.bus.stored if row[0] != subjects.BLOBS_STREAM]
    found = (await get(http, task, marker(SUM))).json()
    assert (found["state"], found["text"]) == ("expired", None) and "expired" in found["note"]
    page = (await get(http, task)).json()
    assert [row["marker"] for row in page["citations"]] == [marker(FARE)], "the result still tells its citations"


async def test_a_long_text_is_cut_and_said(mesh, http, task, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_CITED_CHARS", 5)
    found = (await get(http, task, marker(SUM))).json()
    assert (found["text"], found["cut"]) == (SUM[:5], True)


@pytest.mark.parametrize("name", ["0" * 12, "zz", "..%2f..", "A" * 300, "[%23abc]"])
async def test_a_marker_that_the_task_does_not_have_is_not_found(http, task, name):
    answer = await get(http, task, name)
    assert answer.status_code == 404 and answer.json()["hint"]


async def test_another_tenants_citations_do_not_exist(http, task):
    foreign = {"Authorization": f"Bearer {FOREIGN}"}
    for name in ("", marker(SUM), marker(FARE)):
        assert (await get(http, task, name, foreign)).status_code == 404
        assert (await get(http, task, name, {})).status_code == 401
    assert (await get(http, task, headers={"Authorization": f"Bearer {AUDITOR}"})).status_code == 200


@pytest.mark.parametrize("marked", [FARE, SUM, STEP, "What is refunded?"], ids=["passage", "tool", "step", "objective"])
async def test_an_auditor_gets_no_text_and_no_arguments(mesh, http, task, caplog, marked):
    caplog.set_level(logging.INFO, "bulkhead")
    mesh.bus.passage = PassageReplied(state="superseded", text=FARE, current_sha256=NEW)
    call = CitedCall(step_id="sum", attempt=1, tool="calculate", arguments_json='{"expression": "x"}', asked_unix_ms=5)
    mesh.bus.call = CitedCallReplied(call=call)
    answer = await get(http, task, marker(marked), {"Authorization": f"Bearer {AUDITOR}"})
    found = answer.json()
    assert answer.status_code == 200 and found["text"] is None and "left out for an auditor" in found["note"]
    assert marked not in answer.text and "expression" not in answer.text
    if marked == FARE:
        assert (found["state"], found["source"], found["start"]) == ("superseded", "fares.md", 120)
    assert "content_read" not in caplog.text


async def test_every_look_at_a_cited_text_is_on_record(mesh, http, task, caplog):
    caplog.set_level(logging.INFO, "bulkhead")
    await get(http, task)
    assert (await get(http, task, marker(FARE))).json()["state"] == "erased"
    assert "content_read" not in caplog.text, "names and places alone"
    mesh.bus.passage = PassageReplied(state="current", text=FARE, current_sha256=OLD)
    await get(http, task, marker(FARE))
    (record,) = [one for one in caplog.records if one.getMessage() == "content_read"]
    for said in ("ada", "operator", "acme", task, f"citation {marker(FARE)}"):
        assert said in str(record.__dict__), said


@pytest.mark.parametrize("marked", [FARE, SUM])
async def test_a_store_that_does_not_answer_is_no_expired_content(mesh, http, task, marked):
    busy = Failure.from_text("busy", "the store is locked", "ask again")
    mesh.bus.passage, mesh.bus.call = PassageReplied(failure=busy), CitedCallReplied(failure=busy)
    answer = await get(http, task, marker(marked))
    assert answer.status_code == 503 and "locked" in answer.json()["detail"]


async def test_only_so_many_messages_are_looked_through(http, task, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_CITED_MESSAGES", 1)
    assert (await get(http, task, marker("What is refunded?"))).status_code == 200
    assert (await get(http, task, marker(SUM))).status_code == 404


async def test_what_was_not_accepted_is_not_shown(mesh, http):
    receipt = await http.post("/v1/tasks", json={"objective": "What?"}, headers=AUTH | {"Idempotency-Key": "r"})
    name = receipt.json()["task_id"]
    refused = Result(content=await mesh.blob("model_gateway", STEP))
    await mesh.say("planner", TaskAccepted(deadline_unix_ms=9), name)
    ended = StepEnded(step_id="find", attempt=1, plan_version=1, outcome="rejected", result=refused)
    await mesh.say("planner", ended, name)
    assert (await get(http, name, marker(STEP))).status_code == 404


async def test_a_models_arguments_are_kept_back_with_its_drafts(mesh, http, task):
    call = CitedCall(step_id="sum", attempt=1, tool="calculate", arguments_json='{"expression": "x"}', asked_unix_ms=5)
    mesh.bus.call = CitedCallReplied(call=call)
    feed = await mesh.gateways[0].feeds.fresh_feed("acme", task)
    feed.view = replace(feed.view, delivery="held")
    found = (await get(http, task, marker(SUM))).json()
    assert (found["call"]["tool"], found["call"]["arguments_json"], found["text"]) == ("calculate", "", SUM)
