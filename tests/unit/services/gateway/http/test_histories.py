"""Why and timeline over HTTP: a recorded task told to those who may read it, its texts to those who may see them."""

import asyncio
import io
import json
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead.journal.story import detail
from bulkhead.runtime.decider.history import TaskHistory
from bulkhead.runtime.decider.history_file import load_history, parse_history
from bulkhead_contracts import bounds, subjects
from bulkhead_services.gateway.http.routes import histories
from bulkhead_services.gateway.read_model import journaled_tasks
from tests.eventually import until
from tests.paths import HISTORIES
from tests.unit.services.gateway.harness import AUDITOR, AUTH, FOREIGN, SUBMITTER

ANSWERED = load_history(HISTORIES / "answered.jsonl.gz")
SECRETS = ("Lindqvist bought", "385.68 USD", "round(min(", "Beacon ticket from the refund", "2025-06-09")


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


def lay_down(mesh, told: TaskHistory, task: str, tenant: str = "acme") -> None:
    """The recorded task's journal as this task's, and its contents."""
    journal = []
    for number, one in enumerate(told.messages, 1):
        subject = subjects.mesh_subject(one.sender, one.receiver, tenant, task)
        journal.append(StoredMessage(subject, one.headers, one.body, number, one.time_unix_ms))
    mesh.bus.journal[tenant, task] = journal


async def submitted(mesh, http, who: str) -> str:
    """A task of that person, whose journal is the recorded one's; the gateway has seen it end."""
    receipt = await http.post(
        "/v1/tasks", json={"objective": "What is it?"}, headers=key(who) | {"Idempotency-Key": who}
    )
    task = receipt.json()["task_id"]
    await mesh.pump()
    lay_down(mesh, ANSWERED, task)
    for sha256, content in ANSWERED.contents.items():
        for author in content.authors if content.data is not None else ():
            stored = await mesh.blob(author, content.data.decode())
            assert stored.sha256 == sha256
    return task


async def draft(mesh, task: str) -> None:
    """The tenant's policy delivers drafts, says the planner."""
    from bulkhead_contracts.task import TaskAccepted

    await mesh.say("planner", TaskAccepted(deadline_unix_ms=9, delivery="draft"), task)


async def test_an_operator_is_told_the_story_with_its_texts_as_text_and_as_json(mesh, http):
    task = await submitted(mesh, http, SUBMITTER)
    told = (await http.get(f"/v1/tasks/{task}/why", headers=AUTH)).json()
    assert (told["task_id"], told["status"], told["content"], told["cut"]) == (task, "succeeded", True, False)
    first = told["story"]["answer"][0]
    assert "385.68" in first["text"] and first["sources"][0]["name"] == "calculate"
    assert "drafted by offline-rules-1" in told["text"] and "rests on sheet-41.md" in told["text"]
    whole = (await http.get(f"/v1/tasks/{task}/why?all=true", headers=AUTH)).json()
    assert len(whole["text"]) > 2 * len(told["text"])


async def test_a_submitter_reads_the_texts_of_own_tasks_and_only_where_drafts_are_delivered(mesh, http):
    mine, other = await submitted(mesh, http, SUBMITTER), await submitted(mesh, http, AUTH["Authorization"][7:])
    asked = f"/v1/tasks/{mine}/why"
    assert not (await http.get(asked, headers=key(SUBMITTER))).json()["content"], "nothing is said of its delivery yet"
    await draft(mesh, mine)
    await draft(mesh, other)
    assert (await http.get(asked, headers=key(SUBMITTER))).json()["content"]
    told = await http.get(f"/v1/tasks/{other}/why", headers=key(SUBMITTER))
    assert told.status_code == 200 and not told.json()["content"]


@pytest.mark.parametrize("what", ["why", "timeline?limit=100", "why?all=true"])
async def test_an_auditor_sees_what_happened_and_no_texts(mesh, http, what):
    task = await submitted(mesh, http, SUBMITTER)
    told = await http.get(f"/v1/tasks/{task}/{what}", headers=key(AUDITOR))
    assert told.status_code == 200 and not told.json()["content"]
    assert "date_difference" in told.text and not [one for one in SECRETS if one in told.text]


async def test_every_look_at_texts_is_on_record(mesh, http, caplog):
    task = await submitted(mesh, http, SUBMITTER)
    caplog.set_level(logging.INFO, "bulkhead")
    await http.get(f"/v1/tasks/{task}/why", headers=key(AUDITOR))
    assert "content_read" not in caplog.text
    await http.get(f"/v1/tasks/{task}/timeline", headers=AUTH)
    (record,) = [one for one in caplog.records if one.getMessage() == "content_read"]
    for said in ("ada", "operator", "acme", task, "timeline"):
        assert said in str(record.__dict__), said


async def test_the_timeline_tells_arguments_results_and_what_came_of_calls_page_by_page(mesh, http):
    task = await submitted(mesh, http, SUBMITTER)
    found, after = [], 0
    while True:
        page = (await http.get(f"/v1/tasks/{task}/timeline?limit=40&after={after}", headers=AUTH)).json()
        assert len(page["rows"]) <= 40 and len(page["text"].splitlines()) == len(page["rows"])
        found += page["rows"]
        if page["next"] is None:
            break
        after = page["next"]
    assert [row["number"] for row in found] == list(range(1, len(found) + 1))
    (dates,) = [row for row in found if row["call"] and row["call"]["name"] == "date_difference"]
    assert json.loads(dates["call"]["arguments"])["end"] == "2025-06-09" and "14 days" in dates["call"]["result"]
    assert dates["took_ms"] == 18 and dates["sender"] == "worker"


async def test_the_next_page_reads_and_folds_what_is_new_alone(mesh, http, monkeypatch):
    folded = []
    monkeypatch.setattr(
        histories, "_ordered_entries", lambda found, fold=histories._ordered_entries: folded.append(1) or fold(found)
    )
    task = await submitted(mesh, http, SUBMITTER)
    whole = mesh.bus.journal["acme", task]
    mesh.bus.journal["acme", task] = whole[:-20]
    url = f"/v1/tasks/{task}/timeline?limit=20&after="
    first = (await http.get(url + "0", headers=AUTH)).json()
    mesh.bus.journal_reads.clear()
    second = (await http.get(url + "20", headers=AUTH)).json()
    assert mesh.bus.journal_reads == [len(whole) - 20] and len(folded) == 1
    assert [row["number"] for row in (*first["rows"], *second["rows"])] == list(range(1, 41))
    mesh.bus.journal["acme", task] = whole
    assert (await http.get(f"/v1/tasks/{task}/why", headers=AUTH)).json()["status"] == "succeeded"
    assert len(folded) == 2, "what came meanwhile is told"
    bare = await http.get(url + "20", headers=key(AUDITOR))
    assert not [one for one in SECRETS if one in bare.text], "texts are kept for those who may read them"


@pytest.mark.slow
async def test_a_hundred_who_look_at_once_cost_two_folds_and_each_look_is_on_record(mesh, http, monkeypatch, caplog):
    folded = []
    fold = histories.fold_story
    monkeypatch.setattr(histories, "fold_story", lambda *story: folded.append(1) or fold(*story))
    task = await submitted(mesh, http, SUBMITTER)
    whole = mesh.bus.journal["acme", task]
    mesh.bus.journal["acme", task] = whole[:-20]
    caplog.set_level(logging.INFO, "bulkhead")
    url = f"/v1/tasks/{task}/why"
    found = await asyncio.gather(*(http.get(url, headers=AUTH) for _ in range(100)))
    assert {one.status_code for one in found} == {200} and len(folded) <= 2
    assert sum(one.getMessage() == "content_read" for one in caplog.records) == 100
    bare = await http.get(url, headers=key(AUDITOR))
    assert not bare.json()["content"] and not [one for one in SECRETS if one in bare.text]
    mesh.bus.journal["acme", task] = whole
    folded.clear()
    for _ in range(3):
        assert (await http.get(url, headers=AUTH)).json()["status"] == "succeeded"
    assert len(folded) == 1, "what came meanwhile is told, and once told it is kept"


def test_what_is_kept_of_tasks_is_bounded_in_bytes_number_and_time(monkeypatch):
    monkeypatch.setattr(bounds, "MAX_STORY_BYTES", 1_000)
    now = 0
    kept = journaled_tasks.JournaledTaskCache(lambda: now)

    def told(size):
        one = SimpleNamespace(body="x" * size, left_out_bytes=0)
        return journaled_tasks.JournaledTask((one,), False, [], now)

    for number in range(20):
        kept.keep_task("acme", f"t{number}", told(10))
    there = [number for number in range(20) if kept.get("acme", f"t{number}") is not None]
    assert there == list(range(20 - journaled_tasks.MAX_TASKS, 20))
    kept.keep_task("acme", "large", told(5_000))
    assert kept.get("acme", "large") is not None and kept.get("acme", "t19") is None
    kept.keep_task("acme", "small", told(10))
    story = told(10)
    story.stories[True, True] = journaled_tasks.RenderedStory(b"x" * 1_000, now, True)
    kept.keep_task("acme", "told", story)
    assert kept.get("acme", "told") is not None and kept.get("acme", "small") is None, "stories count"
    now = journaled_tasks.KEPT_MS
    assert kept.get("acme", "told") is None


@pytest.mark.parametrize("what", ["why", "timeline"])
async def test_another_tenants_task_does_not_exist(mesh, http, what):
    task = await submitted(mesh, http, SUBMITTER)
    assert (await http.get(f"/v1/tasks/{task}/{what}", headers=key(FOREIGN))).status_code == 404
    assert (await http.get(f"/v1/tasks/{task}/{what}")).status_code == 401
    assert (await http.get(f"/v1/tasks/no-such/{what}", headers=AUTH)).status_code == 404


@pytest.mark.parametrize(
    "what", ["why?all=1", "timeline?after=-1", "timeline?limit=0", "timeline?limit=101", "timeline?after=x"]
)
async def test_odd_parameters_are_named(mesh, http, what):
    task = await submitted(mesh, http, SUBMITTER)
    answer = await http.get(f"/v1/tasks/{task}/{what}", headers=AUTH)
    assert answer.status_code == 422 and answer.json()["hint"]


async def test_a_task_of_very_many_messages_is_cut_and_says_so(mesh, http, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_STORY_MESSAGES", 64)
    task = await submitted(mesh, http, SUBMITTER)
    told = (await http.get(f"/v1/tasks/{task}/why", headers=AUTH)).json()
    assert told["cut"] and "more messages than are read here" in told["text"]


async def test_a_journal_that_cannot_be_read_is_no_empty_story(mesh, http):
    task = await submitted(mesh, http, SUBMITTER)
    mesh.bus.journal.clear()
    assert (await http.get(f"/v1/tasks/{task}/why", headers=AUTH)).status_code == 503
    mesh.bus.signer_down = True
    answer = await http.get(f"/v1/tasks/{task}/why", headers=AUTH)
    assert answer.status_code == 503 and "budget" in answer.json()["detail"]


async def test_only_so_many_of_a_tenant_wait(mesh, http, monkeypatch):
    task = await submitted(mesh, http, SUBMITTER)
    monkeypatch.setattr(histories, "MAX_WAITING", 0)
    answer = await http.get(f"/v1/tasks/{task}/why", headers=AUTH)
    assert answer.status_code == 429 and answer.headers["retry-after"]


async def calls(http, task: str) -> dict[str, dict]:
    page = (await http.get(f"/v1/tasks/{task}/timeline?limit=100", headers=AUTH)).json()
    return {row["call"]["call_id"]: row["call"] for row in page["rows"] if row["call"]}


@pytest.mark.parametrize("what", ["", "/why", "/timeline", "/calls/{call}", "/citations"])
async def test_no_cache_on_the_way_keeps_what_is_told_of_a_task(mesh, http, what):
    task = await submitted(mesh, http, SUBMITTER)
    url = f"/v1/tasks/{task}{what.format(call=next(iter(await calls(http, task))))}"
    told = await http.get(url, headers=AUTH)
    assert (told.status_code, told.headers["cache-control"]) == (200, "no-store"), told.text


async def test_one_call_is_shown_with_what_it_was_given_its_answer_versions_attempts_and_cost(mesh, http):
    task = await submitted(mesh, http, SUBMITTER)
    rows = await calls(http, task)
    judged = next(name for name, row in rows.items() if row["name"] == "worker.step" and row["step_id"] == "s4")
    told = (await http.get(f"/v1/tasks/{task}/calls/{judged}", headers=AUTH)).json()
    call = told["call"]
    assert (call["prompt_id"], call["model"], call["provider"]) == ("worker.step@1", "offline-rules-1", "openai")
    assert call["instruction"].startswith("You carry out one step of a plan.") and not call["instruction_note"]
    assert len(call["prompt_digest"]) == 64 and call["price_digest"] and call["fingerprint"]
    kinds = {piece["kind"]: piece for piece in call["given"]}
    assert kinds["objective"]["text"].startswith("Tomasz Lindqvist bought") and "input" in kinds
    (attempt,) = call["attempts"]
    assert attempt["usage"]["cost_usd_micros"] == 239 and attempt["failed"] == ""
    assert (
        "calculate" in call["answer"]
        and "--- given: objective" in told["text"]
        and "attempt 1: answered" in told["text"]
    )
    dates = next(name for name, row in rows.items() if row["name"] == "date_difference")
    told = (await http.get(f"/v1/tasks/{task}/calls/{dates}", headers=AUTH)).json()["call"]
    assert json.loads(told["arguments"])["start"] == "2025-05-26" and told["answer"].endswith("= 14 days")


async def test_a_call_is_shown_without_texts_to_who_may_not_read_them_and_to_no_other_tenant(mesh, http):
    task = await submitted(mesh, http, SUBMITTER)
    for name in await calls(http, task):
        url = f"/v1/tasks/{task}/calls/{name}"
        told = await http.get(url, headers=key(AUDITOR))
        assert told.status_code == 200 and not told.json()["content"]
        assert not [one for one in SECRETS if one in told.text], told.text
        assert (await http.get(url, headers=key(FOREIGN))).status_code == 404
    for odd in ("no-such-call", "a.b", "%20", "x" * 300):
        assert (await http.get(f"/v1/tasks/{task}/calls/{odd}", headers=AUTH)).status_code == 404


async def test_texts_of_a_call_are_bounded_and_what_is_gone_is_said(mesh, http, monkeypatch):
    task = await submitted(mesh, http, SUBMITTER)
    rows = await calls(http, task)
    name = next(name for name, row in rows.items() if row["name"] == "worker.step" and row["step_id"] == "s4")
    there = mesh.bus.stored
    mesh.bus.stored = [row for row in there if row[0] != subjects.BLOBS_STREAM]
    call = (await http.get(f"/v1/tasks/{task}/calls/{name}", headers=AUTH)).json()["call"]
    assert any("expired" in one["note"] for one in call["given"])
    mesh.bus.stored = there
    monkeypatch.setattr(detail, "MAX_ALL_CHARS", 100)
    call = (await http.get(f"/v1/tasks/{task}/calls/{name}", headers=AUTH)).json()["call"]
    assert sum(len(one["text"]) for one in call["given"]) <= 100 and any("cut" in one["note"] for one in call["given"])


async def test_an_export_over_http_is_the_history_that_replays(mesh, http):
    task = await submitted(mesh, http, SUBMITTER)
    answer = await http.get(f"/v1/tasks/{task}/export", headers=AUTH)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/x-ndjson"
    found = parse_history(io.BytesIO(answer.content))
    assert (found.task, found.tenant, found.ended, found.settled) == (task, "acme", True, ANSWERED.settled)
    assert [one.body for one in found.messages] == [one.body for one in ANSWERED.messages]
    assert {name: one.data for name, one in found.contents.items()} == {
        name: one.data for name, one in ANSWERED.contents.items()
    }
    token = next(one.headers["bulkhead-grant"] for one in found.messages if "bulkhead-grant" in one.headers)
    assert token.endswith("."), "claims, and no signature"


async def test_an_export_keeps_its_place_until_it_is_sent_and_a_slow_client_is_cut_off(mesh, http, monkeypatch):
    monkeypatch.setattr(histories, "EXPORTS_AT_ONCE", 2)
    gateway, task = mesh.gateway(), await submitted(mesh, http, SUBMITTER)
    places, sent, goes_on = gateway.http.histories._exports, [], asyncio.Event()
    headers = [(name.lower().encode(), value.encode()) for name, value in AUTH.items()]
    path = f"/v1/tasks/{task}/export"
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)
        await goes_on.wait()

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(gateway.app(dict(scope), receive, send)) for _ in range(2)]
        await until(lambda: sent, "the first one is being sent")
        await until(lambda: places.count_waiting("acme"), "the other one waits")
        assert places.used == 1 and not any(one.done() for one in asked)
        goes_on.set()
    assert places.used == 0 and len([one for one in sent if one["type"] == "http.response.start"]) == 2
    goes_on.clear()
    monkeypatch.setattr(histories, "PATIENCE_S", 0.01)
    monkeypatch.setattr(histories, "MIN_BYTES_PER_S", 2**40)
    await asyncio.wait_for(gateway.app(dict(scope), receive, send), 20)
    assert places.used == 0 and sent[-1]["type"] == "http.response.start", "not complete, and the server closes it"


async def test_an_export_is_for_who_may_read_texts_and_bounded(mesh, http, monkeypatch):
    task = await submitted(mesh, http, SUBMITTER)
    url = f"/v1/tasks/{task}/export"
    assert (await http.get(url, headers=key(AUDITOR))).status_code == 403
    assert (await http.get(url, headers=key(FOREIGN))).status_code == 404
    monkeypatch.setattr(bounds, "MAX_EXPORT_BYTES", 1_000)
    assert (await http.get(url, headers=AUTH)).status_code == 413
    monkeypatch.setattr(bounds, "MAX_STORY_BYTES", 1_000)
    answer = await http.get(url, headers=AUTH)
    assert answer.status_code == 413 and "bulkhead export" in answer.json()["hint"]


async def test_a_raw_message_is_opened_by_its_id_on_record_and_gives_nobody_any_authority(mesh, http, caplog):
    task = await submitted(mesh, http, SUBMITTER)
    rows = (await http.get(f"/v1/tasks/{task}/timeline?limit=100", headers=AUTH)).json()["rows"]
    asked = next(row for row in rows if row["call"] and row["call"]["name"] == "date_difference")
    caplog.set_level(logging.INFO, "bulkhead")
    path = f"/v1/tasks/{task}/messages/{asked['id']}"
    told = (await http.get(path, headers=AUTH)).json()
    (raw,) = told["messages"]
    assert (raw["sender"], raw["receiver"], raw["headers"]["ce-id"]) == ("worker", "tool_executor", asked["id"])
    assert "2025-06-09" in json.loads(raw["body"])["arguments_json"] and raw["cause"] == asked["cause"]
    assert raw["headers"]["bulkhead-grant"].endswith("."), "its claims, without a signature"
    (record,) = [one for one in caplog.records if one.getMessage() == "content_read"]
    assert asked["id"] in str(record.__dict__)
    bare = await http.get(path, headers=key(AUDITOR))
    (left,) = bare.json()["messages"]
    assert not bare.json()["content"] and left["body"] == "" and left["left_out_bytes"] == len(raw["body"].encode())
    assert set(left["headers"]) <= {"ce-id", "ce-type", "ce-time", "ce-causeid", "ce-specversion"}
    assert "2025-06-09" not in bare.text and len([one for one in caplog.records if "content" in one.getMessage()]) == 1
    for wrong in (f"/v1/tasks/{task}/messages/no-such", f"/v1/tasks/{task}/messages/a.b"):
        assert (await http.get(wrong, headers=AUTH)).status_code == 404
    assert (await http.get(path, headers=key(FOREIGN))).status_code == 404


async def test_vouchers_are_in_no_raw_message_and_an_id_that_was_taken_twice_shows_both(mesh, http):
    task = await submitted(mesh, http, SUBMITTER)
    journal = mesh.bus.journal["acme", task]
    opening = next(one for one in journal if one.ce_type.startswith("mesh.task.requested"))
    body = json.dumps(json.loads(opening.body) | {"voucher": "secret-voucher"}).encode()
    place = journal.index(opening)
    journal[place] = replace(opening, body=body)
    journal.append(replace(opening, body=b"\xff\xfe", sequence=len(journal) + 1))
    told = (await http.get(f"/v1/tasks/{task}/messages/{opening.ce_id}", headers=AUTH)).json()
    assert [one["left_out_bytes"] for one in told["messages"]] == [0, 2] and told["more"] == 0
    assert json.loads(told["messages"][0]["body"])["objective"] and "secret-voucher" not in json.dumps(told)
