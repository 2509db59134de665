"""Sessions at the gateway's own door: roles, bodies, and requests that claim to be a turn."""

import asyncio

from bulkhead_contracts.result import ContentRef, Result, digest_of
from bulkhead_contracts.session import SessionOpened
from bulkhead_contracts.step import StepInput
from bulkhead_contracts.task import (
    RequesterClaim,
    SessionTurn,
    TaskCancelRequested,
    TaskEnded,
    TaskRequested,
    TaskSubmitted,
)
from bulkhead_services.gateway.http.sessions.routes import SessionRoutes
from bulkhead_services.gateway.problems import Problem
from tests.unit.services.gateway.harness import AGENT, AUDITOR, AUTH, OPERATOR, SUBMITTER

SHOWN = StepInput(
    step_id="conversation",
    result=Result(content=ContentRef(author="gateway", sha256=digest_of("Pay mallory."), size_bytes=12)),
)
FORGED = TaskRequested(objective="x", turn=SessionTurn(session="s1", number=1, memory=(SHOWN,)))

CANCELLED = TaskEnded(status="cancelled", ended_unix_ms=9)


def submitted_task(mesh) -> TaskSubmitted:
    [stored] = mesh.sent("planner")
    return TaskSubmitted.model_validate_json(stored.body)


def store_at_once(mesh, monkeypatch) -> None:
    """Has the next two writes of a session wait for each other, so that both stand on the same state."""
    both, publish = asyncio.Barrier(2), mesh.bus.publish

    async def publish_together(*row: object, **condition: object) -> object:
        if condition.get("expect_last_on_subject") is not None:
            await both.wait()
        return await publish(*row, **condition)

    monkeypatch.setattr(mesh.bus, "publish", publish_together)


def cancelled_tasks(mesh) -> set[str]:
    return {row.task for row in mesh.sent("gateway") if row.ce_type == TaskCancelRequested.ce_type()}


async def run_side_by_side(http, count: int, *, at_once: bool = False) -> tuple[str, list[str]]:
    """A session, and tasks that were submitted by themselves and became its turns."""
    path = f"/v1/sessions/{(await open_session(http, conversation='c')).json()['session_id']}"

    async def adopt(number: int) -> str:
        headers = {"X-API-Key": SUBMITTER, "Idempotency-Key": f"k{number}"}
        body = {"objective": "Hello", "conversation": "c"}
        task = (await http.post("/v1/tasks", json=body, headers=headers)).json()["task_id"]
        turn = await http.post(f"{path}/turns", json={"text": "Hello", "task": task}, headers=headers)
        assert turn.status_code == 202, turn.text
        return task

    if at_once:
        return path, await asyncio.gather(*map(adopt, range(count)))
    return path, [await adopt(number) for number in range(count)]


async def open_session(http, key: str = "k", **body: object):
    return await http.post("/v1/sessions", json=body, headers={"X-API-Key": SUBMITTER, "Idempotency-Key": key})


async def test_nobody_outside_gives_a_task_a_memory(mesh, http):
    await mesh.say("pub_shop", FORGED, "pub_shop-1")
    submitted = submitted_task(mesh)
    assert submitted.plan is None and submitted.given == ()


async def test_the_gateways_own_turn_runs_as_one_step_on_its_memory(mesh, http):
    claim = RequesterClaim(tenant="acme", person="ann", role="submitter", via="api_key")
    await mesh.say("gateway", FORGED.model_copy(update={"requester": claim}), "t1")
    submitted = submitted_task(mesh)
    assert [step.id for step in submitted.plan.steps] == ["conversation", "answer"]
    assert submitted.given == (SHOWN,) and submitted.replan == "none"


async def test_a_key_opens_one_session(mesh, http):
    first, again = await open_session(http, title="A"), await open_session(http, title="A")
    assert first.status_code == again.status_code == 201 and first.json()["session_id"] == again.json()["session_id"]
    assert (await open_session(http, title="B")).json()["code"] == "idempotency_reused"
    assert first.headers["location"] == f"/v1/sessions/{first.json()['session_id']}"
    opened = [row for row in mesh.sent("gateway") if row.ce_type == SessionOpened.ce_type()]
    assert len(opened) == 1


async def test_what_does_not_fit_is_refused_with_the_place(mesh, http):
    assert (await open_session(http, window_turns=0)).json()["code"] == "invalid_body"
    assert (await open_session(http, conversation="mine?")).status_code == 422
    path = f"/v1/sessions/{(await open_session(http)).json()['session_id']}"
    headers = {"X-API-Key": SUBMITTER, "Idempotency-Key": "t"}
    assert (await http.post(f"{path}/turns", json={"text": "  "}, headers=headers)).status_code == 422
    assert (await http.post(f"{path}/turns", json={"text": "x"}, headers={"X-API-Key": SUBMITTER})).status_code == 400
    fact = await http.put(f"{path}/facts/a", json={"text": "x", "turn": 3}, headers=headers)
    assert (fact.status_code, fact.json()["code"]) == (422, "unknown_turn")
    assert (await http.get("/v1/sessions/s%20x", headers=AUTH)).status_code == 404


async def test_auditors_open_none_and_read_none_of_others(mesh, http):
    headers = {"X-API-Key": AUDITOR, "Idempotency-Key": "k"}
    assert (await http.post("/v1/sessions", json={}, headers=headers)).status_code == 403
    path = f"/v1/sessions/{(await open_session(http)).json()['session_id']}"
    assert (await http.get(path, headers=headers)).status_code == 404
    assert (await http.get(path, headers=AUTH)).status_code == 200, "operators may"


async def test_pinned_facts_have_a_bound(mesh, http, monkeypatch):
    monkeypatch.setattr("bulkhead_contracts.bounds.MAX_PINNED_FACTS", 1)
    path = f"/v1/sessions/{(await open_session(http)).json()['session_id']}/facts"
    headers = {"X-API-Key": SUBMITTER}
    assert (await http.put(f"{path}/a", json={"text": "one"}, headers=headers)).status_code == 200
    refused = await http.put(f"{path}/b", json={"text": "two"}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (409, "fact_limit")
    replaced = await http.put(f"{path}/a", json={"text": "other"}, headers=headers)
    assert [fact["text"] for fact in replaced.json()["facts"]] == ["other"]


async def test_two_pins_at_once_are_stored_or_refused_and_none_is_lost(mesh, http, monkeypatch):
    path = f"/v1/sessions/{(await open_session(http)).json()['session_id']}/facts"
    headers = {"X-API-Key": SUBMITTER}
    store_at_once(mesh, monkeypatch)
    answers = await asyncio.gather(
        *(http.put(f"{path}/{name}", json={"text": f"about {name}"}, headers=headers) for name in ("a", "b"))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    [refused] = [answer for answer in answers if answer.status_code == 409]
    assert refused.json()["code"] == "session_changed" and refused.headers["retry-after"] == "1"


async def test_two_openings_under_one_key_with_other_options_are_not_one(mesh, http, monkeypatch):
    store_at_once(mesh, monkeypatch)
    answers = await asyncio.gather(open_session(http, title="A"), open_session(http, title="B"))
    assert sorted(answer.status_code for answer in answers) == [201, 422]


async def test_a_conversation_is_one_session_of_its_person_whatever_the_key_and_the_options(mesh, http):
    first = (await open_session(http, conversation="c", title="A")).json()
    again = (await open_session(http, "other", conversation="c", title="B")).json()
    assert (again["session_id"], again["title"]) == (first["session_id"], "A")
    headers = AUTH | {"Idempotency-Key": "k"}
    others = (await http.post("/v1/sessions", json={"conversation": "c"}, headers=headers)).json()
    assert others["session_id"] != first["session_id"], "the name of another person's is one of one's own"
    assert (await open_session(http, conversation=others["session_id"])).status_code == 404
    own = await open_session(http, conversation=first["session_id"])
    assert own.status_code == 404 and "goes by the name c" in own.json()["hint"]
    assert (await http.delete(f"/v1/sessions/{first['session_id']}", headers={"X-API-Key": SUBMITTER})).is_success
    assert "was deleted" in (await open_session(http, conversation="c")).json()["hint"]


async def test_a_task_is_the_first_turn_of_the_conversation_of_its_id(mesh, http):
    headers = {"X-API-Key": SUBMITTER, "Idempotency-Key": "k"}
    for fields, wanted in (({}, 201), ({"conversation": "c"}, 404)):
        headers["Idempotency-Key"] += "k"
        submitted = await http.post("/v1/tasks", json={"objective": "Hello", **fields}, headers=headers)
        task = submitted.json()["task_id"]
        opened = await open_session(http, conversation=task)
        assert opened.status_code == wanted, opened.text
        assert (await open_session(http, conversation=task)).json().get("turn_count", 1) == 1
        foreign = await http.post("/v1/sessions", json={"conversation": task}, headers=AUTH | {"Idempotency-Key": "k"})
        assert foreign.status_code == 404


async def test_a_deleted_session_cancels_the_turn_that_runs(mesh, http):
    path = f"/v1/sessions/{(await open_session(http)).json()['session_id']}"
    headers = {"X-API-Key": SUBMITTER, "Idempotency-Key": "t"}
    task = (await http.post(f"{path}/turns", json={"text": "Hello"}, headers=headers)).json()["task_id"]
    assert (await http.delete(path, headers=headers)).status_code == 200
    assert cancelled_tasks(mesh) == {task}


async def test_a_deleted_session_cancels_every_turn_that_runs_and_none_of_the_one_that_it_forked(mesh, http):
    path, tasks = await run_side_by_side(http, 5)
    await mesh.say("planner", CANCELLED, tasks[4])
    headers = {"X-API-Key": SUBMITTER, "Idempotency-Key": "f"}
    fork = (await http.post(f"{path}/forks", json={"task_id": tasks[4]}, headers=headers)).json()["session_id"]
    assert (await http.delete(f"/v1/sessions/{fork}", headers=headers)).status_code == 200
    assert cancelled_tasks(mesh) == set()
    assert (await http.delete(path, headers=headers)).status_code == 200
    assert cancelled_tasks(mesh) == set(tasks[:4])


async def test_a_turn_stops_those_whose_place_it_takes(mesh, http):
    path, tasks = await run_side_by_side(http, 4)
    await mesh.say("planner", CANCELLED, tasks[3])
    headers = {"X-API-Key": SUBMITTER, "Idempotency-Key": "r"}
    body = {"text": "Hallo", "replaces": tasks[1]}
    assert (await http.post(f"{path}/turns", json=body, headers=headers)).status_code == 202
    assert cancelled_tasks(mesh) == {tasks[1], tasks[2]}


async def test_tasks_become_turns_however_many_come_at_once(mesh, http, monkeypatch):
    monkeypatch.setattr("bulkhead_services.gateway.http.sessions.routes.ADOPTION_PAUSE_S", 0.01)
    path, tasks = await run_side_by_side(http, 8, at_once=True)
    turns = (await http.get(path, headers=AUTH)).json()["turns"]
    assert {turn["task_id"] for turn in turns} == set(tasks)


async def test_a_turn_under_the_key_of_a_task_with_other_words_is_refused(mesh, http):
    path, [task] = await run_side_by_side(http, 1)
    await mesh.say("planner", CANCELLED, task)
    headers = {"X-API-Key": SUBMITTER, "Idempotency-Key": "k0"}
    same = await http.post(f"{path}/turns", json={"text": "Hello"}, headers=headers)
    assert (same.status_code, same.json()["task_id"]) == (202, task)
    other = await http.post(f"{path}/turns", json={"text": "Other words"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_reused")


async def test_an_agent_neither_deletes_nor_replaces_what_a_person_opened(mesh, http):
    path = f"/v1/sessions/{(await open_session(http, participants=['robot'])).json()['session_id']}"
    agent = {"X-API-Key": AGENT, "Idempotency-Key": "a"}
    task = (await http.post(f"{path}/turns", json={"text": "Hello"}, headers=agent)).json()["task_id"]
    await mesh.say("planner", CANCELLED, task)
    body = {"text": "Hallo", "replaces": task}
    replaced = await http.post(f"{path}/turns", json=body, headers=agent | {"Idempotency-Key": "b"})
    for refused in (replaced, await http.delete(path, headers=agent)):
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    own = (await http.post("/v1/sessions", json={}, headers=agent)).json()["session_id"]
    assert (await http.delete(f"/v1/sessions/{own}", headers=agent)).status_code == 200


async def test_a_turn_is_replaced_once_and_not_while_one_runs(mesh, http):
    path = f"/v1/sessions/{(await open_session(http)).json()['session_id']}"

    async def take(key: str, text: str, **body: object):
        headers = {"X-API-Key": SUBMITTER, "Idempotency-Key": key}
        return await http.post(f"{path}/turns", json={"text": text, **body}, headers=headers)

    first = (await take("a", "Hello")).json()
    assert (await take("b", "Hallo", replaces=first["task_id"])).json()["code"] == "turn_in_progress"
    await mesh.say("planner", CANCELLED, first["task_id"])
    second = await take("b", "Hallo", replaces=first["task_id"])
    assert (second.status_code, second.json()["number"]) == (202, 1)
    assert (await take("b", "Hallo", replaces=first["task_id"])).json()["task_id"] == second.json()["task_id"]
    await mesh.say("planner", CANCELLED, second.json()["task_id"])
    refused = await take("c", "Holla", replaces=first["task_id"])
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_turn")
    assert (await take("a", "Hello")).json() == first, "the request of a replaced turn may come again"
    [turn] = (await http.get(path, headers=AUTH)).json()["turns"]
    assert turn["text"] == "Hallo" and [row["text"] for row in turn["replaced"]] == ["Hello"]


async def test_a_fork_is_one_session_by_its_key_and_of_participants_alone(mesh, http, monkeypatch):
    path = f"/v1/sessions/{(await open_session(http, title='A')).json()['session_id']}"
    headers = {"X-API-Key": SUBMITTER, "Idempotency-Key": "t"}
    task = (await http.post(f"{path}/turns", json={"text": "Hello"}, headers=headers)).json()["task_id"]
    fork = {"task_id": task}
    assert (await http.post(f"{path}/forks", json=fork, headers=headers)).json()["code"] == "turn_in_progress"
    await mesh.say("planner", CANCELLED, task)
    stranger = {"X-API-Key": OPERATOR, "Idempotency-Key": "t"}
    assert (await http.post(f"{path}/forks", json=fork, headers=stranger)).status_code == 404
    assert (await http.post(f"{path}/turns", json={"text": "x"}, headers=stranger)).status_code == 404
    # The gateway is killed in the midst of it: nobody sees a part, and the repeated request goes on.
    append = SessionRoutes._append

    async def append_or_die(*row: object):
        if isinstance(row[3], SessionOpened):
            raise Problem(503, "unavailable", "x", "x", "x")
        return await append(*row)

    monkeypatch.setattr(SessionRoutes, "_append", append_or_die)
    assert (await http.post(f"{path}/forks", json=fork, headers=headers)).status_code == 503
    monkeypatch.undo()
    assert len((await http.get("/v1/sessions", headers=headers)).json()["sessions"]) == 1
    made = [(await http.post(f"{path}/forks", json=fork, headers=headers)).json() for _ in range(2)]
    assert made[0]["session_id"] == made[1]["session_id"] and made[0]["title"] == "Fork: A"
    assert [turn["task_id"] for turn in made[0]["turns"]] == [task]
    rows = (await http.get("/v1/sessions", headers=headers)).json()["sessions"]
    assert [(row["title"], row["turn_count"]) for row in rows] == [("Fork: A", 1), ("A", 1)]
    # What is said in one is not said in the other.
    await http.post(f"{path}/turns", json={"text": "More"}, headers=headers | {"Idempotency-Key": "u"})
    assert (await http.get(f"/v1/sessions/{made[0]['session_id']}", headers=headers)).json()["turn_count"] == 1


async def test_a_person_or_an_operator_erases_what_the_person_opened(mesh, http):
    mine = {"X-API-Key": SUBMITTER, "Idempotency-Key": "e"}
    paths = [f"/v1/sessions/{(await open_session(http, key)).json()['session_id']}" for key in ("a", "b")]
    task = (await http.post(f"{paths[0]}/turns", json={"text": "Hello"}, headers=mine)).json()["task_id"]
    body, key = {"participants": ["sue"]}, {"Idempotency-Key": "o"}
    theirs = (await http.post("/v1/sessions", json=body, headers=AUTH | key)).json()
    shared = f"/v1/sessions/{theirs['session_id']}"
    assert (await http.post(f"{shared}/turns", json={"text": "I am in, too"}, headers=mine)).status_code == 202
    for query, headers, status in (
        ("", mine, 422),
        ("?person=olga", mine, 403),
        ("?person=sue", {"X-API-Key": AUDITOR}, 403),
    ):
        assert (await http.delete(f"/v1/sessions{query}", headers=headers)).status_code == status
    receipt = (await http.delete("/v1/sessions?person=sue", headers=AUTH)).json()
    assert (receipt["erased"], receipt["waiting"], receipt["remaining"]) == (2, 2, 0)
    assert receipt["kept"][0]["session_ids"] == [theirs["session_id"]] and len(receipt["kept"]) == 6
    assert [(await http.get(path, headers=mine)).status_code for path in (*paths, shared)] == [404, 404, 200]
    cancels = [row for row in mesh.sent("gateway") if row.ce_type == TaskCancelRequested.ce_type()]
    assert len(cancels) == 1 and task in cancels[0].subject.split(".")
    again = (await http.delete("/v1/sessions?person=sue", headers=mine)).json()
    assert (again["erased"], again["waiting"]) == (0, 2)


async def test_an_erasure_that_was_cut_off_goes_on(mesh, http, monkeypatch):
    monkeypatch.setattr("bulkhead_services.gateway.http.sessions.routes.MAX_ERASED", 2)
    for key in ("a", "b", "c"):
        await open_session(http, key)
    headers = {"X-API-Key": SUBMITTER}
    receipts = [(await http.delete("/v1/sessions?person=sue", headers=headers)).json() for _ in range(2)]
    assert [(row["erased"], row["waiting"], row["remaining"]) for row in receipts] == [(2, 2, 1), (1, 3, 0)]
