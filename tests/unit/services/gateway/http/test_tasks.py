"""POST, GET and cancel over HTTP: durable append, idempotency, scoping, bounds, problems."""

import asyncio
import json

import httpx
import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.grant import GrantReplied
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanStep
from bulkhead_contracts.result import Completeness, Failure, Omission, Result, Usage
from bulkhead_contracts.task import (
    StepEnded,
    StepStarted,
    TaskAccepted,
    TaskCancelRequested,
    TaskEnded,
    TaskRequested,
    TaskSubmitted,
)
from bulkhead_contracts.tool import UncertainWrite, WritesReplied
from tests.samples import sample
from tests.unit.services.gateway.harness import AGENT, AUDITOR, AUTH, FOREIGN, OPERATOR


async def submit(http, objective="Find the fare", key="k1", **body):
    return await http.post("/v1/tasks", json={"objective": objective, **body}, headers={**AUTH, "Idempotency-Key": key})


def problem(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, f"urn:bulkhead:problem:{code}")
    assert body["title"] and body["detail"] and body["hint"]
    return body


async def test_a_task_is_appended_granted_and_submitted(mesh, http):
    answer = await submit(http, limits={"cost_usd_micros": 1000, "tokens": 50, "deadline_ms": 9000})
    assert answer.status_code == 202
    task = answer.json()["task_id"]
    assert answer.json() == {
        "task_id": task,
        "status_url": f"/v1/tasks/{task}",
        "events_url": f"/v1/tasks/{task}/events",
    }
    [stored] = mesh.sent("gateway")
    request = TaskRequested.model_validate_json(stored.body)
    assert stored.ce_type == "mesh.task.requested.v2"
    assert request.requester.model_dump() == {"tenant": "acme", "person": "ada", "role": "operator", "via": "api_key"}
    await mesh.pump()
    [submitted] = mesh.sent("planner")
    body = TaskSubmitted.model_validate_json(submitted.body)
    assert body.limits.tokens == 50 and body.submitted_unix_ms == stored.time_unix_ms
    assert submitted.headers["bulkhead-grant"] == "signed.task.grant"
    assert submitted.actor == "ada"
    assert submitted.cause == stored.ce_id


async def test_the_route_of_a_task_reaches_the_planner_and_none_leaves_the_digest_as_it_was(mesh, http):
    await submit(http, route="small")
    await submit(http, key="k2")
    assert (await submit(http, key="k3", route="no blank")).status_code == 422
    digests = [TaskRequested.model_validate_json(one.body).payload_sha256 for one in mesh.sent("gateway")]
    await mesh.pump()
    routes = [TaskSubmitted.model_validate_json(one.body).route for one in mesh.sent("planner")]
    assert routes == ["small", ""] and digests[0] != digests[1]
    known = "95892e9f86e308c58a1dd39dd2d8d382e9b034fa85a50aa8202eea965739dfeb"
    assert digests[1] == known, "a repeat of what was submitted before there were routes is still a repeat"


@pytest.mark.parametrize(
    ("key", "options", "trust"),
    [(OPERATOR, {}, "user"), (OPERATOR, {"written_by": "model"}, "untrusted"), (AGENT, {}, "untrusted")],
)
async def test_words_that_a_model_wrote_have_no_persons_trust(mesh, http, key, options, trust):
    step = {"title": "Pay", "instruction": "Pay Ben 5 EUR.", "acceptance": "Paid."}
    steps = [{"id": "a", **step, "tools": ["calculate"]}, {"id": "b", **step, "instruction": "It can call nothing."}]
    body = {"objective": "Pay Ben 5 EUR.", "plan": {"steps": steps}, **options}
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "k"}
    answer = await http.post("/v1/tasks", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    await mesh.pump()
    [submitted] = mesh.sent("planner")
    labels = TaskSubmitted.model_validate_json(submitted.body).labels
    assert [(label.kind, label.trust) for label in labels] == [("objective", trust)] * 2
    shown = (await http.get(f"/v1/tasks/{answer.json()['task_id']}", headers=headers)).json()
    assert shown.get("written_by", "person") == ("person" if trust == "user" else "model")


async def test_the_same_key_is_the_same_task(mesh, http):
    first, again = await submit(http), await submit(http)
    assert again.status_code == 202 and again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert len(mesh.sent("gateway")) == 1
    problem(await submit(http, objective="Something else"), 422, "idempotency_reused")
    assert (await submit(http, key="k2")).json() != first.json()


async def test_a_handled_request_handed_out_again_repeats_its_ids(mesh, http):
    await submit(http)
    await mesh.pump()
    mesh.handled = 0
    await mesh.pump()
    assert len(mesh.sent("planner")) == 1


async def test_a_key_in_flight_is_409(mesh, http):
    gate = asyncio.Event()
    publish = mesh.bus.publish

    async def slow(*args, **kwargs):
        await gate.wait()
        return await publish(*args, **kwargs)

    mesh.bus.publish = slow
    first = asyncio.create_task(submit(http))
    while not mesh.gateways[0]._intake._in_flight:
        await asyncio.sleep(0)
    problem(await submit(http), 409, "idempotency_in_flight")
    gate.set()
    assert (await first).status_code == 202


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": ""}, {"Idempotency-Key": "x" * 256}])
async def test_a_missing_key_is_400(http, headers):
    answer = await http.post("/v1/tasks", json={"objective": "x"}, headers={**AUTH, **headers})
    problem(answer, 400, "idempotency_key")


async def test_a_large_objective_is_413_with_the_limit(http):
    body = problem(await submit(http, objective="x" * 1024 * 1024), 413, "too_large")
    assert body["limit"] == bounds.MAX_MESSAGE_BYTES - bounds.MAX_HEADER_BYTES
    body = problem(await submit(http, objective="x" * (bounds.MAX_OBJECTIVE_CHARS + 1)), 413, "too_large")
    assert body["limit"] == bounds.MAX_OBJECTIVE_CHARS


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ('{"objective": "x", "limts": {}}', "limts"),
        ('{"objective": "x", "limits": {"tokenz": 1}}', "limits.tokenz"),
        ('{"objective": "x", "limits": {"tokens": -1}}', "limits.tokens"),
        ('{"objective": "x", "limits": {"tokens": NaN}}', "limits.tokens"),
        ('{"objective": "x", "limits": {"tokens": 1e400}}', "limits.tokens"),
        ('{"objective": "x", "limits": {"cost_usd_micros": "1"}}', "limits.cost_usd_micros"),
        ('{"objective": "x", "limits": {"deadline_ms": 1000000000000000000}}', "limits.deadline_ms"),
        ('{"objective": "x", "plan": {"steps": []}}', "plan.steps"),
        ('{"objective": "x", "limits": {"deadline_ms": 0}}', "limits.deadline_ms"),
        (
            '{"objective": "x", "plan": {"steps": [{"id": "a", "title": "t", "instruction": "i", "imputs": []}]}}',
            "plan.steps.0.imputs",
        ),
        ('{"objective": ""}', "objective"),
        ('{"objective": 7}', "objective"),
        ("[]", "body"),
    ],
)
async def test_what_does_not_fit_is_422_and_named(http, mesh, raw, field):
    answer = await http.post("/v1/tasks", content=raw, headers={**AUTH, "Idempotency-Key": "k"})
    body = problem(answer, 422, "invalid_body")
    assert field in [error["field"] for error in body["errors"]]
    assert not mesh.sent("gateway")


@pytest.mark.parametrize("content", [b"{oops", b"", b"\xff\xfe not json", b'{"objective": ' * 20_000])
async def test_a_body_that_is_not_json_is_400(http, content):
    answer = await http.post("/v1/tasks", content=content, headers={**AUTH, "Idempotency-Key": "k"})
    problem(answer, 400, "malformed_json")


async def test_the_broker_away_is_503_and_nothing_is_promised(mesh, http, monkeypatch):
    monkeypatch.setattr("bulkhead.runtime.publish.publisher.PUBLISH_BACKOFF_S", 0.001)
    mesh.bus.down = True
    answer = await submit(http)
    problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"]
    assert (await http.get("/readyz")).status_code == 503
    assert (await http.get("/livez")).status_code == 200


async def test_foreign_tasks_do_not_exist(mesh, http):
    task = (await submit(http)).json()["task_id"]
    foreign = {"X-API-Key": FOREIGN}
    for answer in (
        await http.get(f"/v1/tasks/{task}", headers=foreign),
        await http.get(f"/v1/tasks/{task}/events", headers=foreign),
        await http.post(f"/v1/tasks/{task}/cancel", headers=foreign),
        await http.get("/v1/tasks/no-such", headers=AUTH),
        await http.get("/v1/tasks/a.b.c", headers=AUTH),
        await http.get("/v1/tasks/*", headers=AUTH),
    ):
        problem(answer, 404, "not_found")
    nothing = {"tasks": [], "next": None, "total": 0, "counts": None, "note": ""}
    assert (await http.get("/v1/tasks", headers=foreign)).json() == nothing


async def test_an_auditor_reads_and_does_not_submit(mesh, http):
    task = (await submit(http)).json()["task_id"]
    auditor = {"X-API-Key": AUDITOR}
    assert (await http.get(f"/v1/tasks/{task}", headers=auditor)).status_code == 200
    answer = await http.post("/v1/tasks", json={"objective": "x"}, headers={**auditor, "Idempotency-Key": "k"})
    problem(answer, 403, "forbidden")
    problem(await http.post(f"/v1/tasks/{task}/cancel", headers=auditor), 403, "forbidden")
    problem(await http.post("/v1/documents?name=x", content=b"x", headers=auditor), 403, "forbidden")


async def test_the_view_follows_the_inbox(mesh, http):
    task = (await submit(http)).json()["task_id"]
    await mesh.pump()
    content = await mesh.blob("model_gateway", "It costs 12 EUR [#0123456789ab].")
    plan = Plan(version=1, steps=(PlanStep(id="s1", title="Look", instruction="look"),))
    result = Result(content=content, summary="12 EUR")
    await mesh.say("planner", TaskAccepted(deadline_unix_ms=5_000_000, left_out=("pay",)), task)
    await mesh.say("planner", PlanAdopted(plan=plan), task)
    await mesh.say("planner", StepStarted(step_id="s1", title="Look", attempt=1, plan_version=1), task)
    before = (await http.get(f"/v1/tasks/{task}", headers=AUTH)).json()
    assert (before["status"], before["steps"][0]["status"], before["answer"]) == ("running", "running", None)
    assert before["tools_left_out"] == ["pay"]
    await mesh.say(
        "planner",
        sample(StepEnded, outcome="accepted", result=result, final=True, usage=Usage(cost_usd_micros=7)),
        task,
    )
    await mesh.say(
        "planner",
        TaskEnded(status="succeeded", result=result, usage=Usage(cost_usd_micros=9), steps_done=1, steps_total=1),
        task,
    )
    found = (await http.get(f"/v1/tasks/{task}", headers=AUTH)).json()
    assert found["status"] == "succeeded"
    assert found["answer"] == "It costs 12 EUR [#0123456789ab]."
    assert found["usage"]["cost_usd_micros"] == 9
    assert found["requester"]["person"] == "ada"
    assert found["duration_ms"] > 0


async def test_a_row_says_that_the_answer_is_no_plain_one(mesh, http):
    plain, doubtful = [(await submit(http, key=key)).json()["task_id"] for key in ("k1", "k2")]
    await mesh.pump()
    missing = Completeness.with_omissions(Omission(reason="failed_part", what="tool crm_write", detail="HTTP 500"))
    for task, result in ((plain, Result()), (doubtful, Result(standing="degraded", completeness=missing))):
        await mesh.say("planner", TaskEnded(status="succeeded", result=result, steps_done=1, steps_total=1), task)
    rows = (await http.get("/v1/tasks", headers=AUTH)).json()["tasks"]
    assert {row["task_id"]: (row["status"], row["standing"], row["complete"]) for row in rows} == {
        plain: ("succeeded", "ok", True),
        doubtful: ("succeeded", "degraded", False),
    }
    one = (await http.get(f"/v1/tasks/{doubtful}", headers=AUTH)).json()
    assert (one["standing"], one["complete"]) == ("degraded", False)
    running = (await submit(http, key="k3")).json()["task_id"]
    assert (await http.get(f"/v1/tasks/{running}", headers=AUTH)).json()["standing"] is None


async def test_tasks_are_listed_by_whether_they_are_answered(mesh, http):
    tasks = [(await submit(http, key=key)).json()["task_id"] for key in ("k1", "k2", "k3", "k4")]
    await mesh.pump()
    yes, no, unknown, failed = tasks
    denied = Result(answered="no", answered_reason="pay was not done: denied")
    for task, result in ((yes, Result(answered="yes")), (no, denied), (unknown, Result())):
        await mesh.say("planner", TaskEnded(status="succeeded", result=result), task)
    failure = Failure(code="step_failed", message="step s1 failed")
    await mesh.say("planner", TaskEnded(status="failed", failure=failure), failed)

    async def listed(answered):
        rows = (await http.get(f"/v1/tasks?answered={answered}", headers=AUTH)).json()["tasks"]
        return {row["task_id"] for row in rows}

    assert (await listed("yes"), await listed("no"), await listed("partly")) == ({yes}, {no, failed}, set())
    assert await listed("yes,no") == {yes, no, failed}
    running = (await submit(http, key="k5")).json()["task_id"]
    assert (await http.get(f"/v1/tasks/{running}", headers=AUTH)).json()["answered"] is None
    assert await listed("unknown") == {unknown}, "what goes on is none of them"
    shown = [(await http.get(f"/v1/tasks/{task}", headers=AUTH)).json() for task in tasks]
    assert [(task["answered"], task["answered_reason"]) for task in shown] == [
        ("yes", ""),
        ("no", "pay was not done: denied"),
        ("unknown", ""),
        ("no", "step s1 failed"),
    ]
    refused = await http.get("/v1/tasks?answered=perhaps", headers=AUTH)
    assert refused.status_code == 422 and "partly" in refused.text


async def test_the_roles_of_a_brought_plan_are_asked_for_with_the_grant(mesh, http):
    steps = [{"id": "a", "title": "", "instruction": "x", "acceptance": "y", "role": role} for role in ("step",)]
    steps += [{"id": "b", "title": "", "instruction": "x", "acceptance": "y", "role": "wizard"}]
    assert (await submit(http, plan={"steps": steps})).status_code == 202
    await mesh.pump()
    assert mesh.bus.asked[-1].worker_roles == ("step", "wizard") and not mesh.bus.asked[-1].drafted
    assert (await submit(http, key="k2")).status_code == 202
    await mesh.pump()
    assert mesh.bus.asked[-1].drafted, "of a plan that the mesh makes, all that it may choose"


@pytest.mark.parametrize("field", ["cost_usd_micros", "tokens"])
async def test_a_limit_of_nothing_is_refused(http, field):
    answer = await submit(http, limits={field: 0})
    body = problem(answer, 422, "invalid_body")
    assert body["errors"][0]["field"] == f"limits.{field}"


async def test_a_refused_grant_shows_why(mesh, http):
    mesh.bus.refusal = GrantReplied(granted=False, code="limit", reason="over the tenant's limit", hint="ask for less")
    task = (await submit(http)).json()["task_id"]
    await mesh.pump()
    found = (await http.get(f"/v1/tasks/{task}", headers=AUTH)).json()
    assert found["status"] == "rejected"
    assert found["failure"] == {"code": "limit", "message": "over the tenant's limit", "hint": "ask for less"}
    assert not mesh.sent("planner")
    told = problem(await http.post(f"/v1/tasks/{task}/cancel", headers=AUTH), 409, "already_ended")
    assert told["detail"] == "the task has ended: rejected"


async def test_a_signer_that_is_away_is_waited_for(mesh, http):
    mesh.bus.signer_down = True
    task = (await submit(http)).json()["task_id"]
    await mesh.pump()
    assert not mesh.sent("planner")
    assert (await http.get(f"/v1/tasks/{task}", headers=AUTH)).json()["status"] == "requested"
    mesh.bus.signer_down = False
    await mesh.pump()
    assert len(mesh.sent("planner")) == 1


async def test_a_publisher_is_who_the_policy_says_not_who_it_claims(mesh, http):
    forged = {"tenant": "acme", "person": "root", "role": "operator", "via": "jwt"}
    request = TaskRequested.model_validate({"objective": "From outside", "requester": forged})
    await mesh.say("pub_shop", request, "pub_shop-outside")
    [submitted] = mesh.sent("planner")
    assert submitted.actor == "shop"
    assert mesh.bus.asked[0].requester.person == "shop" and mesh.bus.asked[0].requester.via == "publisher"
    found = (await http.get("/v1/tasks/pub_shop-outside", headers=AUTH)).json()
    assert (found["requester"]["person"], found["status"]) == ("shop", "requested")


async def test_unknown_and_foreign_publishers_are_rejected(mesh, http):
    await mesh.say("pub_nobody", TaskRequested(objective="x"), "pub_nobody-1")
    await mesh.say("pub_shop", TaskRequested(objective="x"), "pub_shop-foreign", tenant="other")
    assert not mesh.sent("planner")
    found = (await http.get("/v1/tasks/pub_nobody-1", headers=AUTH)).json()
    assert (found["status"], found["failure"]["code"]) == ("rejected", "unknown_publisher")
    found = (await http.get("/v1/tasks/pub_shop-foreign", headers={"X-API-Key": FOREIGN})).json()
    assert (found["status"], found["failure"]["code"]) == ("rejected", "foreign_tenant")


async def test_a_second_request_for_the_same_task_is_ignored(mesh, http):
    task = (await submit(http)).json()["task_id"]
    await mesh.pump()
    await mesh.say("pub_shop", TaskRequested(objective="Another objective"), task)
    assert len(mesh.sent("planner")) == 1
    assert (await http.get(f"/v1/tasks/{task}", headers=AUTH)).json()["objective"] == "Find the fare"


async def test_a_message_that_nobody_could_read_is_a_rejected_task(mesh, http):
    await mesh.say(
        "gateway",
        MessageRejected(sequence=99, code="malformed_body", reason="objective: missing", dead_letter_id="d1"),
        "t-garbage",
    )
    found = (await http.get("/v1/tasks/t-garbage", headers=AUTH)).json()
    assert (found["status"], found["failure"]["code"]) == ("rejected", "malformed_body")


def cancels(mesh) -> list:
    return [s for s in mesh.sent("planner") if s.ce_type == TaskCancelRequested.ce_type()]


async def test_cancel_reaches_the_planner_once(mesh, http):
    task = (await submit(http)).json()["task_id"]
    await mesh.pump()
    for _ in range(2):
        answer = await http.post(f"/v1/tasks/{task}/cancel", headers=AUTH, json={"reason": "too slow"})
        assert answer.status_code == 202
    await mesh.pump()
    assert not cancels(mesh), "the planner does not have the task yet: there a cancel would wait for it"
    await mesh.say("planner", TaskAccepted(deadline_unix_ms=5_000_000), task)
    found = cancels(mesh)
    assert len(found) == 1 and json.loads(found[0].body) == {"reason": "too slow"}
    assert found[0].actor == "ada"
    answer = await http.post(f"/v1/tasks/{task}/cancel", headers=AUTH, json={"raeson": "typo"})
    problem(answer, 422, "invalid_body")


async def test_a_publisher_cancels_its_own_tenants_task(mesh, http):
    task = (await submit(http)).json()["task_id"]
    await mesh.pump()
    await mesh.say("planner", TaskAccepted(deadline_unix_ms=5_000_000), task)
    await mesh.say("pub_shop", TaskCancelRequested(reason="stop"), task)
    await mesh.say("pub_nobody", TaskCancelRequested(reason="stop"), task)
    await mesh.say("pub_shop", TaskCancelRequested(reason="stop"), "t-never-asked-for")
    assert [c.actor for c in cancels(mesh)] == ["shop"]
    assert all(c.task == task for c in cancels(mesh))


async def test_pages_are_newest_first_and_meet_without_overlap(mesh, http):
    made = [(await submit(http, key=f"k{n}")).json()["task_id"] for n in range(5)]
    await mesh.say("pub_shop", TaskRequested(objective="From outside"), "pub_shop-outside")
    seen, cursor = [], ""
    while True:
        page = (await http.get(f"/v1/tasks?limit=2&cursor={cursor}", headers=AUTH)).json()
        seen += [row["task_id"] for row in page["tasks"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == ["pub_shop-outside", *reversed(made)]
    for query in ("limit=0", "limit=101", "limit=x", "cursor=!!", "cursor=AAAA"):
        problem(await http.get(f"/v1/tasks?{query}", headers=AUTH), 422, "invalid_query")


async def test_another_replica_sees_the_same(mesh, http):
    task = (await submit(http)).json()["task_id"]
    await mesh.pump()
    second = mesh.gateway()
    await second.attach_inbox()
    transport = httpx.ASGITransport(app=second.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway2") as other:
        assert (await other.get(f"/v1/tasks/{task}", headers=AUTH)).json()["status"] == "requested"
        assert (await submit(other)).json()["task_id"] == task
        problem(await submit(other, objective="Something else"), 422, "idempotency_reused")
    await second.stop()


async def test_paths_and_methods_that_are_not_there_are_problems(http):
    problem(await http.get("/v2/tasks"), 404, "no_such_path")
    problem(await http.delete("/v1/tasks", headers=AUTH), 405, "method_not_allowed")


async def test_probes_and_the_document_need_no_key(http):
    for path in ("/livez", "/readyz", "/startupz"):
        assert (await http.get(path)).json() == {"status": "ok"}
    assert (await http.get("/openapi.json")).json()["openapi"] == "3.1.0"


async def test_a_read_that_lags_is_not_taken_for_a_second_request(mesh, http):
    task = (await submit(http)).json()["task_id"]
    read = mesh.bus.read

    async def lagging(*_, **__):
        return []

    mesh.bus.read = lagging
    await mesh.pump()
    assert not mesh.sent("planner")
    mesh.bus.read = read
    await mesh.pump()
    assert [stored.task for stored in mesh.sent("planner")] == [task]


@pytest.mark.parametrize("lags, status", [(3, 200), (10**6, 503)])
async def test_a_task_that_was_accepted_is_never_said_not_to_be_there(mesh, http, lags, status):
    """In a cluster any copy of the inbox answers, also one that has not got the request yet."""
    task = (await submit(http)).json()["task_id"]
    read, answers = mesh.bus.read, iter(range(lags))

    async def lagging(*asked, **how):
        return [] if next(answers, None) is not None else await read(*asked, **how)

    mesh.bus.read = lagging
    assert (await http.get(f"/v1/tasks/{task}", headers=AUTH)).status_code == status
    problem(await http.get("/v1/tasks/tnone", headers=AUTH), 404, "not_found")


async def test_writes_that_may_have_been_done_are_told_of_a_task_that_did_not_succeed(mesh, http):
    doubtful = sample(
        UncertainWrite,
        step_id="pay",
        tool="refund",
        key="acme.t.c",
        asked_unix_ms=1,
        outcome="uncertain",
        why="its outcome was lost",
        message="m",
    )
    mesh.bus.writes = WritesReplied(writes=(doubtful,), more=2)
    runs, well, badly = [(await submit(http, key=key)).json()["task_id"] for key in ("k1", "k2", "k3")]
    await mesh.pump()
    await mesh.say("planner", TaskEnded(status="succeeded"), well)
    await mesh.say("planner", TaskEnded(status="failed"), badly)
    shown = {task: (await http.get(f"/v1/tasks/{task}", headers=AUTH)).json() for task in (runs, well, badly, badly)}
    assert [shown[task]["uncertain_writes"] for task in (runs, well)] == [[], []]
    assert shown[badly]["uncertain_writes"] == [doubtful.model_dump()] and shown[badly]["more_uncertain_writes"] == 2
    assert mesh.bus.looked == [badly], "budget is asked of what may hold some, and not at every look"


async def test_a_task_is_shown_also_when_nobody_can_tell_its_writes(mesh, http):
    task = (await submit(http)).json()["task_id"]
    await mesh.pump()
    await mesh.say("planner", TaskEnded(status="failed"), task)
    mesh.bus.writes = WritesReplied(failure=Failure(code="unavailable", message="the journal lags"))
    first = (await http.get(f"/v1/tasks/{task}", headers=AUTH)).json()
    mesh.bus.signer_down = True
    second = (await http.get(f"/v1/tasks/{task}", headers=AUTH)).json()
    mesh.bus.signer_down, mesh.bus.writes = False, WritesReplied()
    third = (await http.get(f"/v1/tasks/{task}", headers=AUTH)).json()
    assert [one["uncertain_writes"] for one in (first, second, third)] == [None, None, []]
