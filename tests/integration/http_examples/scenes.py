"""What the examples tell: one question with a write that a person grants, and what people on call do beside it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from securesystemslib.signer import CryptoSigner

from bulkhead.blobs import reference
from bulkhead.evaluation.statement import sign_statement
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.control import Breaker
from bulkhead_contracts.evaluation import EvaluationStatement
from bulkhead_contracts.task import TaskRequested
from tests.eventually import until
from tests.integration.console.test_dead_letters import buried
from tests.integration.http_examples.recorder import ExampleRecorder, Json
from tests.integration.memory_mesh.test_approvals import asks
from tests.replay.stage import APPROVER, OPERATOR, STATEMENT_KEY, Stage, call, plan, stage, use
from tests.unit.services.gateway.harness import AUTH, FOREIGN, SUBMITTER, Mesh, make_mesh
from tests.unit.services.gateway.http.test_halts import OPENED, RESET, stored
from tests.unit.services.model_gateway.scripted_provider import Exchange, says

FARES = "# Fares\n\nThe fare to Graz is EUR 12.\n"
OBJECTIVE = "What is the fare to Graz? Count the question."
KEY = "7d1c9c2e-5a0b-4c6e-9a55-2f1f0c3d8e11"
SUBMISSION: Json = {
    "objective": OBJECTIVE,
    "limits": {"cost_usd_micros": 500_000, "tokens": 200_000, "deadline_ms": 120_000},
    "tools": ["search_documents", "counter_increment"],
    "feature": "support",
}
RULES = """@id("small_counts")
permit (principal, action == Action::"counter_increment", resource)
when { context.tainted.isEmpty() };
"""
PUSH = {"url": "https://hooks.example/bulkhead", "token": "a-secret-of-yours"}


async def record_all(recorder: ExampleRecorder, folder: Path) -> None:
    """Each operation once, over a whole mesh or over a gateway with one part of it."""
    (folder / "mesh").mkdir()
    async with stage(folder / "mesh", rule=asks) as on, _people(on) as (ann, bob, olga):
        await _record_documents(recorder, ann)
        task = await _record_task(recorder, on, ann, bob)
        await _record_history(recorder, ann, olga, task)
        await _record_ratings(recorder, ann, olga, task)
        await _record_plans(recorder, on, ann, bob)
        await _record_sessions(recorder, on, ann)
        await _record_ceiling(recorder, on, ann, olga)
        await _record_writes(recorder, on, ann, bob)
        await _record_prompts(recorder, olga)
        await _record_evaluations(recorder, olga)
        await _record_workflows(recorder, on, ann, bob, olga)
        await _record_operations(recorder, on, ann, olga)
    (folder / "rules").mkdir()
    (folder / "rules" / "demo.cedar").write_text(RULES)
    (folder / "policy").mkdir()
    executor = {"policy_dir": folder / "rules", "tenants_file": folder / "policy" / "tenants.yaml"}
    async with stage(folder / "policy", rule=None, executor=executor) as on, _people(on) as (ann, _, olga):
        await _record_policies(recorder, ann, olga)
    (folder / "gateway").mkdir()
    async with _gateway(folder / "gateway") as (mesh, olga, sue):
        await _record_pushes(recorder, mesh, olga, sue)
        await _record_breakers(recorder, mesh, olga)
        await _record_common_problems(recorder, mesh, olga, sue)


@asynccontextmanager
async def _people(on: Stage) -> AsyncIterator[tuple[httpx.AsyncClient, ...]]:
    keys = "bk_ann_of_demo", APPROVER, OPERATOR
    clients = tuple(httpx.AsyncClient(base_url=on.url, headers={"X-API-Key": key}, timeout=30) for key in keys)
    yield clients
    for client in clients:
        await client.aclose()


@asynccontextmanager
async def _gateway(folder: Path) -> AsyncIterator[tuple[Mesh, httpx.AsyncClient, httpx.AsyncClient]]:
    quota = {"person_tasks_per_minute": 3, "person_burst_tasks": 3}
    row = {"tools": [], "push": {"hosts": ["*"]}, "quota": quota}
    (folder / "tenants.yaml").write_text(json.dumps({"tenants": {"acme": row}}))
    mesh = make_mesh(folder)
    gateway = mesh.gateway(tenants_file=folder / "tenants.yaml")
    await gateway.attach_inbox()
    await mesh.say("pub_shop", TaskRequested(objective=OBJECTIVE), "pub_shop-t1")
    transport = httpx.ASGITransport(app=gateway.app)
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=AUTH) as olga,
        httpx.AsyncClient(transport=transport, base_url="http://gateway", headers={"X-API-Key": SUBMITTER}) as sue,
    ):
        yield mesh, olga, sue
    await gateway.stop()


async def _record_documents(recorder: ExampleRecorder, ann: httpx.AsyncClient) -> None:
    receipt = await recorder.record(ann, "addDocument", 201, body=FARES, name="fares.md")
    await recorder.record(ann, "showDocument", 201, ingest_id=receipt["ingest_id"])
    await recorder.record(ann, "listDocuments", limit=20)
    await recorder.record(ann, "listChunks", name="fares.md", limit=20)
    await recorder.record(ann, "searchDocuments", query="fare to Graz", k=8)
    await recorder.record_problem(ann, "searchDocuments", 422, "empty_query", query="?")
    await recorder.record_problem(ann, "addDocument", 422, "invalid_document", body="", name="empty.md")
    await ann.post("/v1/documents", params={"name": "old-fares.md"}, content=b"The fare was EUR 9.")
    await recorder.record(ann, "deleteDocument", name="old-fares.md", reason="replaced by fares.md")


async def _record_task(recorder: ExampleRecorder, on: Stage, ann: httpx.AsyncClient, bob: httpx.AsyncClient) -> str:
    marker = reference("rag", FARES.strip().encode()).marker
    search = use(call("search_documents", query="fare to Graz"))
    count = use(call("counter_increment", name="questions"))
    step = {"id": "a", "title": "Find the fare", "tools": SUBMISSION["tools"]}
    on.model.will(plan(step), a=[search, count, says(f"The fare is EUR 12 [#{marker}].")])
    receipt = await recorder.record(ann, "submitTask", 202, body=SUBMISSION, **{"Idempotency-Key": KEY})
    other = SUBMISSION | {"objective": "Another question."}
    await recorder.record_problem(ann, "submitTask", 422, "idempotency_reused", body=other, **{"Idempotency-Key": KEY})
    task: str = receipt["task_id"]
    approval = await _waiting_approval(bob, task)
    names = {"approval_id": approval["approval_id"]}
    await recorder.record(bob, "listApprovals", state="waiting", task=task)
    await recorder.record(bob, "showApproval", **names)
    word = {"decision": "granted", "reason": "seen on the invoice"}
    digest = {"arguments_sha256": approval["request"]["arguments_sha256"]}
    wrong = word | {"arguments_sha256": "0" * 64}
    await recorder.record_problem(bob, "decide", 409, "other_arguments", body=wrong, **names)
    await recorder.record(bob, "decide", body=word | digest, **names)
    await recorder.record(ann, "watchTask", task_id=task)
    await recorder.record_problem(
        bob, "decide", 409, "not_waiting", body=word | digest | {"decision": "denied"}, **names
    )
    return task


async def _waiting_approval(bob: httpx.AsyncClient, task: str) -> Json:
    rows: list[Json] = []

    async def list_waiting() -> bool:
        rows[:] = (await bob.get("/v1/approvals", params={"task": task})).json()["approvals"]
        return bool(rows)

    await until(list_waiting)
    return rows[0]


async def _record_history(
    recorder: ExampleRecorder, ann: httpx.AsyncClient, olga: httpx.AsyncClient, task: str
) -> None:
    await recorder.record(ann, "showTask", task_id=task)
    await recorder.record(ann, "listTasks", status="succeeded,failed", feature="support", limit=20)
    cited = await recorder.record(ann, "listCitations", task_id=task)
    await recorder.record(ann, "showCitation", task_id=task, marker=cited["citations"][0]["marker"])
    account = await recorder.record(ann, "explainTask", task_id=task)
    await recorder.record(ann, "showCall", task_id=task, call_id=account["story"]["steps"][0]["calls"][1]["call_id"])
    rows = (await recorder.record(ann, "showTimeline", task_id=task, limit=20))["rows"]
    await recorder.record(ann, "showMessage", task_id=task, message_id=rows[0]["id"])
    await recorder.record(olga, "exportTask", task_id=task)
    await recorder.record_problem(
        ann, "watchTask", 400, "bad_event_id", task_id=task, **{"Last-Event-ID": "not of this stream"}
    )
    await recorder.record_problem(ann, "cancelTask", 409, "already_ended", body={"reason": "late"}, task_id=task)


async def _record_ratings(
    recorder: ExampleRecorder, ann: httpx.AsyncClient, olga: httpx.AsyncClient, task: str
) -> None:
    word = {"score": "bad", "comment": "the fare has risen since May"}
    await recorder.record(ann, "rateTask", body=word, task_id=task)
    verdict = {"score": "good", "kind": "judge", "judge": "grounded@5c21f0a9d3e7"}
    await recorder.record_problem(ann, "rateTask", 403, "rating_kind", body=verdict, task_id=task)
    for number in range(bounds.MAX_RATING_CHANGES):
        await olga.put(f"/v1/tasks/{task}/rating", json={"score": "good", "comment": f"look {number}"})
    await recorder.record_problem(olga, "rateTask", 409, "rating_limit", body=word, task_id=task)
    await recorder.record(ann, "showLabelQueue", feature="support", since="7d")
    await ann.put(f"/v1/tasks/{task}/rating", json={"score": "good", "kind": "label"})
    await until(lambda: _has_label(olga))
    await recorder.record(olga, "exportLabels", since="31d")
    await recorder.record(ann, "showQuality", by="feature", since="7d", slices=2)


async def _record_plans(recorder: ExampleRecorder, on: Stage, ann: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
    """A drafted plan that waits for a person, and one that does not fit."""
    on.model.will(plan({"id": "a"}), a=[says("The fare to Graz is EUR 12.")])
    body = {"objective": "What is the fare to Graz?", "approve_plan": True}
    receipt = (await ann.post("/v1/tasks", json=body, headers={"Idempotency-Key": "reviewed"})).json()
    task: str = receipt["task_id"]

    async def waits() -> bool:
        return bool((await ann.get(f"/v1/tasks/{task}/plan")).json()["state"] == "in_review")

    await until(waits)
    shown = await recorder.record(bob, "showPlan", task_id=task)
    word = {"decision": "approve", "sha256": shown["sha256"], "reason": "it is what was asked for"}
    wrong = word | {"sha256": "0" * 64}
    await recorder.record_problem(bob, "decidePlan", 409, "not_in_review", body=wrong, task_id=task)
    await recorder.record(bob, "decidePlan", 202, body=word, task_id=task)
    await until(lambda: _has_ended(ann, f"/v1/tasks/{task}"))
    wait = {"id": "w", "title": "", "instruction": "", "kind": "noop", "wait": {}}
    unfit = SUBMISSION | {"plan": {"steps": [wait]}}
    await recorder.record_problem(ann, "submitTask", 422, "plan_rejected", body=unfit, **{"Idempotency-Key": "unfit"})


async def _record_sessions(recorder: ExampleRecorder, on: Stage, ann: httpx.AsyncClient) -> None:
    may_answer = asyncio.Event()

    async def answer_later(exchange: Exchange) -> None:
        await may_answer.wait()
        await says("The fare to Graz is EUR 12.")(exchange)

    on.model.will(answer=[answer_later])
    body: Json = {"title": "Trip to Graz", "tools": ["search_documents"], "check": False}
    opened = await recorder.record(ann, "openSession", 201, body=body, **{"Idempotency-Key": f"{KEY[:-1]}7"})
    session, headers = opened["session_id"], {"Idempotency-Key": f"{KEY[:-1]}8"}
    fact = {"session_id": session, "fact_id": "travellers"}
    await recorder.record(ann, "pinFact", body={"text": "Two adults travel."}, **fact)
    unknown = {"text": "They have a dog.", "turn": 7}
    await recorder.record_problem(ann, "pinFact", 422, "unknown_turn", body=unknown, **fact)
    question = {"text": "What is the fare to Graz?"}
    turn = await recorder.record(ann, "takeTurn", 202, body=question, session_id=session, **headers)
    next_turn = {"session_id": session, "Idempotency-Key": f"{KEY[:-1]}9"}
    await recorder.record_problem(ann, "takeTurn", 409, "turn_in_progress", body={"text": "And back?"}, **next_turn)
    may_answer.set()
    await until(lambda: _has_ended(ann, turn["status_url"]))
    await recorder.record(ann, "getSession", session_id=session)
    fork: Json = {"body": {"task_id": turn["task_id"]}, "session_id": session, "Idempotency-Key": f"{KEY[:-1]}6"}
    await recorder.record(ann, "forkSession", 201, **fork)
    await recorder.record(ann, "listSessions")
    await recorder.record(ann, "unpinFact", **fact)
    await recorder.record(ann, "deleteSession", session_id=session)
    await recorder.record(ann, "eraseSessions", person="ann")
    await recorder.record_problem(ann, "eraseSessions", 403, "forbidden", person="olga")


async def _has_ended(ann: httpx.AsyncClient, url: str) -> bool:
    return bool((await ann.get(url)).json()["status"] == "succeeded")


async def _has_label(olga: httpx.AsyncClient) -> bool:
    return bool((await olga.get("/v1/labels/export")).json()["rows"])


async def _record_ceiling(
    recorder: ExampleRecorder, on: Stage, ann: httpx.AsyncClient, olga: httpx.AsyncClient
) -> None:
    """A task that is held at its ceiling, is given more, and is cancelled."""
    change = {"target": "feature/support", "limit": {"model_calls": 0}, "reason": "a new feature begins small"}
    limits = await recorder.record(olga, "changeLimit", body=change)
    late = change | {"expect_revision": limits["revision"] + 1}
    await recorder.record_problem(olga, "changeLimit", 409, "changed_meanwhile", body=late)
    on.model.will(plan({"id": "a", "tools": ["counter_increment"]}), a=[use(call("counter_increment", name="x"))])
    task = (await ann.post("/v1/tasks", json=SUBMISSION, headers={"Idempotency-Key": "ceiling"})).json()["task_id"]

    async def is_paused() -> bool:
        return bool((await ann.get(f"/v1/tasks/{task}")).json()["status"] == "paused")

    await until(is_paused)
    await recorder.record_problem(ann, "rateTask", 409, "nothing_to_rate", body={"score": "bad"}, task_id=task)
    await olga.put("/v1/limits", json=change | {"limit": {"cost_usd_micros": 5_000_000}})
    added = {"add": {"model_calls": 20}, "reason": "it is worth it"}
    await recorder.record(olga, "topUpTask", body=added, task_id=task)
    await recorder.record_problem(olga, "topUpTask", 422, "adds_nothing", body=added | {"add": {}}, task_id=task)
    await recorder.record(ann, "cancelTask", 202, body={"reason": "no longer needed"}, task_id=task)
    await ann.get(f"/v1/tasks/{task}/events")
    await recorder.record_problem(olga, "topUpTask", 409, "already_ended", body=added, task_id=task)
    await recorder.record(olga, "showLimits", history="true")


async def _record_writes(recorder: ExampleRecorder, on: Stage, ann: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
    """A write without a key whose answer is lost."""
    on.counter.misbehave("drop_after")
    on.model.will(
        plan({"id": "a", "tools": ["counter_increment_unkeyed"]}),
        a=[use(call("counter_increment_unkeyed", name="questions"))],
    )
    body = {"objective": "Count the question."}
    task = (await ann.post("/v1/tasks", json=body, headers={"Idempotency-Key": "write"})).json()["task_id"]
    approval = await _waiting_approval(bob, task)
    word = {"decision": "granted", "arguments_sha256": approval["request"]["arguments_sha256"]}
    await bob.post(f"/v1/approvals/{approval['approval_id']}", json=word)
    await ann.get(f"/v1/tasks/{task}/events")
    [write] = (await recorder.record(bob, "listWrites", state="uncertain"))["writes"]
    word = {"happened": False, "reason": "the counter stands where it stood"}
    await recorder.record(bob, "resolveWrite", body=word, write_id=write["write_id"])
    other = {"happened": True, "reason": "it was done"}
    await recorder.record_problem(bob, "resolveWrite", 409, "already_resolved", body=other, write_id=write["write_id"])


async def _record_prompts(recorder: ExampleRecorder, olga: httpx.AsyncClient) -> None:
    tone = {"name": "tone", "kind": "choice", "choices": ["plain", "formal"], "default": "plain"}
    content = {"text": "Answer in a {{tone}} tone.", "variables": [tone]}
    body = {"content": content, "note": "Say it as we do", "owner": "support", "based_on": "worker.step@1"}
    await recorder.record(olga, "publishPrompt", 201, body=body, prompt="worker.step")
    await recorder.record_problem(olga, "publishPrompt", 409, "same_text", body=body, prompt="worker.step")
    change = {"prompt": "worker.step", "number": 1, "values": {"tone": "formal"}}
    move = {"after": 0, "changes": [change], "percent": 10, "reason": "try it on a tenth"}
    await recorder.record(olga, "moveLabel", 201, body=move, label="production")
    await recorder.record_problem(olga, "moveLabel", 409, "release_moved", body=move, label="production")
    await recorder.record(olga, "listPrompts")
    await recorder.record(olga, "showPrompt", prompt="worker.step")
    await recorder.record(olga, "showPromptVersion", prompt="worker.step", version="r1", release="production.1.canary")
    await recorder.record(olga, "listReleases")
    await recorder.record(olga, "showReleases", label="production")
    await olga.post("/v1/releases/production", json={"after": 1, "end_canary": "drop", "reason": "it was an example"})


async def _record_workflows(
    recorder: ExampleRecorder, on: Stage, ann: httpx.AsyncClient, bob: httpx.AsyncClient, olga: httpx.AsyncClient
) -> None:
    step = {"id": "sum", "instruction": "Sum up the fares of {{operator}}.", "acceptance": "There is one sum."}
    content = {"objective": "Sum up the fares of {{operator}}", "parameters": [{"name": "operator"}], "steps": [step]}
    body = {"content": content, "note": "From a task that went well"}
    row = await recorder.record(olga, "draftWorkflow", 201, body=body, workflow="fares")
    await recorder.record_problem(olga, "draftWorkflow", 409, "same_content", body=body, workflow="fares")
    names = {"workflow": "fares", "number": 1}
    moves = [(olga, "submit"), (bob, "approve"), (olga, "publish")]
    for person, action in moves:
        act = {"action": action, "sha256": row["sha256"], "reason": "as the review says"}
        if action == "approve":
            await recorder.record_problem(olga, "moveWorkflow", 403, "four_eyes", body=act, **names)
            await recorder.record(person, "moveWorkflow", 201, body=act, **names)
        else:
            await person.post("/v1/workflows/fares/versions/1", json=act)
    await recorder.record(ann, "listWorkflows")
    await recorder.record(ann, "showWorkflow", workflow="fares", version=1)
    on.model.will(sum=[says("EUR 12 in all.")])
    key = {"Idempotency-Key": "3f0e7a51-52a4-4d0c-9f6e-8a3c6f1f0c21"}
    await recorder.record_problem(ann, "runWorkflow", 422, "bad_parameters", body={}, workflow="fares", **key)
    run = {"parameters": {"operator": "Nordia"}}
    receipt = await recorder.record(ann, "runWorkflow", 202, body=run, workflow="fares", **key)
    await ann.get(f"/v1/tasks/{receipt['task_id']}/events")
    event = {"name": "order.paid", "id": "payment-7", "key": "42", "body": {"order": 42, "amount": "12.00"}}
    await recorder.record(ann, "publishEvent", 202, body=event)
    other = event | {"key": "43"}
    await recorder.record_problem(ann, "publishEvent", 422, "idempotency_reused", body=other)


async def _record_evaluations(recorder: ExampleRecorder, olga: httpx.AsyncClient) -> None:
    changes = [{"prompt": "worker.step", "number": 1, "values": {"tone": "formal"}}]
    move = {"after": 0, "changes": changes, "reason": "it reads well"}
    await recorder.record_problem(olga, "moveLabel", 409, "gate_statement_missing", body=move, label="staging")
    body = {"label": "staging", "changes": changes, "case_set": "answers", "reason": "before it ships"}
    evaluation = (await recorder.record(olga, "requestEvaluation", 201, body=body))["evaluation"]
    subject = [
        {"name": f"prompts/{name}", "digest": {"sha256": digest}} for name, digest in evaluation["prompts"].items()
    ]
    failed = {"case": "late", "passed": 0, "objective": "When is a fare refunded?", "reasons": ["cites: fares.md"]}
    predicate = {"evaluation": evaluation["number"], "case_set": "answers", "release": evaluation["release"]}
    predicate |= {"cases": 2, "runs": 2, "expected_runs": 2, "passed": 0.5, "low": 0.1, "high": 0.9}
    predicate |= {"failed": [failed], "failed_count": 1, "models": ["openai/offline-rules-1"]}
    predicate |= {"made_unix_ms": evaluation["requested_unix_ms"], "tenant": evaluation["tenant"]}
    statement = EvaluationStatement.model_validate({"subject": subject, "predicate": predicate})
    report = {"envelope": sign_statement(statement, CryptoSigner(STATEMENT_KEY))}
    await recorder.record(olga, "reportEvaluation", 201, body=report, number=evaluation["number"])
    await recorder.record(olga, "listEvaluations")
    await recorder.record(olga, "showEvaluation", number=evaluation["number"])
    await recorder.record_problem(olga, "moveLabel", 409, "gate_failed", body=move, label="staging")


async def _record_operations(
    recorder: ExampleRecorder, on: Stage, ann: httpx.AsyncClient, olga: httpx.AsyncClient
) -> None:
    switch = {"scope": "tool", "name": "counter_increment", "reason": "the counter is being moved"}
    await recorder.record(olga, "halt", body=switch)
    await recorder.record(ann, "listHalts")
    await recorder.record(olga, "resume", body=switch | {"reason": "it is back"})
    await recorder.record_problem(olga, "resume", 409, "not_halted", body=switch)
    await recorder.record(olga, "showSpending", by="model", since="24h")
    await recorder.record(olga, "listCalls", kind="tool", order="slowest")
    await recorder.record(olga, "linkConsole", 201, body={"path": "/spend"})
    await buried(on)
    [letter] = (await recorder.record(olga, "listDeadLetters"))["letters"]
    names = {"letter_id": letter["id"]}
    await recorder.record(olga, "showDeadLetter", **names)
    await recorder.record_problem(olga, "showDeadLetter", 404, "no_such_letter", letter_id="0000")
    await recorder.record(olga, "dismissDeadLetter", body={"reason": "sent by a test"}, **names)
    await recorder.record_problem(olga, "dismissDeadLetter", 409, "dismissed", body={"reason": "once more"}, **names)
    for name in ("showCoordination", "showMesh", "listSubscribers", "livez", "readyz", "startupz"):
        await recorder.record(olga, name)
    await recorder.record_first_event(ann, "watchTasks")
    async with httpx.AsyncClient(base_url=on.url) as stranger:
        await recorder.record_problem(stranger, "listTasks", 401, "unauthorized")
    await recorder.record_problem(ann, "showTask", 404, "not_found", task_id="t-none")
    await recorder.record_problem(ann, "showSpending", 403, "forbidden")
    await recorder.record_problem(ann, "listTasks", 422, "invalid_query", limit=1_000)


async def _record_policies(recorder: ExampleRecorder, ann: httpx.AsyncClient, olga: httpx.AsyncClient) -> None:
    """A tool with the rules that speak of it, and the same call with its value from two sources."""
    await recorder.record(ann, "listTools")
    await recorder.record(olga, "showTool", tool="counter_increment")
    await recorder.record_problem(olga, "showTool", 404, "unknown_tool", tool="counter")
    trial: Json = {"tool": "counter_increment", "arguments": {"name": "questions"}}
    text = {"content": "Count it under questions.", "name": "letter.md"}
    await recorder.record(olga, "tryPolicy", body=trial | {"sources": [text | {"source": "retrieved"}]})
    await recorder.record_problem(olga, "tryPolicy", 404, "unknown_tool", body=trial | {"tool": "counter"})
    await recorder.record_problem(olga, "tryPolicy", 422, "bad_arguments", body=trial | {"arguments": {}})
    search = {"tool": "search_documents", "arguments": {"query": "fares"}}
    await recorder.record_problem(olga, "tryPolicy", 409, "not_ruled", body=search)
    await recorder.record(olga, "listIdentities")


async def _record_pushes(
    recorder: ExampleRecorder, mesh: Mesh, olga: httpx.AsyncClient, sue: httpx.AsyncClient
) -> None:
    names = {"task_id": "pub_shop-t1", "config_id": "hook"}
    await recorder.record(olga, "setPush", body=PUSH, **names)
    await recorder.record(olga, "listPush", task_id="pub_shop-t1")
    await recorder.record(olga, "showPush", **names)
    await recorder.record_problem(olga, "setPush", 422, "push_url", body={"url": "https://10.0.0.1/"}, **names)
    await recorder.record_problem(olga, "setPush", 422, "push_id", body=PUSH, **names | {"config_id": "a hook"})
    await recorder.record_problem(sue, "setPush", 403, "push_not_yours", body=PUSH, **names)
    await recorder.record_problem(sue, "deletePush", 403, "push_not_yours", **names)
    for number in range(bounds.MAX_PUSH_CONFIGS - 1):
        await olga.put(f"/v1/tasks/pub_shop-t1/push/{number}", json=PUSH)
    await recorder.record_problem(olga, "setPush", 409, "push_limit", body=PUSH, **names | {"config_id": "one-more"})
    async with httpx.AsyncClient(transport=olga._transport, base_url="http://gateway") as eve:
        eve.headers["X-API-Key"] = FOREIGN
        await recorder.record_problem(eve, "setPush", 403, "push_off", body=PUSH, **names)
    await recorder.record(olga, "deletePush", **names)


async def _record_breakers(recorder: ExampleRecorder, mesh: Mesh, olga: httpx.AsyncClient) -> None:
    key, reset = subjects.breaker_key("tool", "acme", "http_get"), RESET | {"reason": "it answers again"}
    opened = Breaker.model_validate(OPENED)
    stored(mesh, key, opened.model_copy(update={"actors": ("ada", "eve")}))
    await recorder.record_problem(olga, "resetBreaker", 403, "tripped_it", body=reset)
    stored(mesh, key, opened)
    await recorder.record(olga, "listBreakers")
    await recorder.record(olga, "resetBreaker", body=reset)
    stored(mesh, key, opened.model_copy(update={"phase": "closed"}))
    await recorder.record_problem(olga, "resetBreaker", 409, "not_open", body=reset)


async def _record_common_problems(
    recorder: ExampleRecorder, mesh: Mesh, olga: httpx.AsyncClient, sue: httpx.AsyncClient
) -> None:
    keyed: dict[str, Any] = {"Idempotency-Key": "k"}
    task = {"objective": OBJECTIVE}
    await recorder.record_problem(sue, "submitTask", 400, "idempotency_key", body=task)
    await recorder.record_problem(olga, "submitTask", 400, "malformed_json", body="{", **keyed)
    await recorder.record_problem(olga, "submitTask", 422, "invalid_body", body=task | {"limit_usd": 1}, **keyed)
    await recorder.record_problem(olga, "submitTask", 413, "too_large", body="x" * 2_000_000, **keyed)
    await recorder.record_problem(sue, "submitTask", 422, "tools_not_granted", body=task | {"tools": ["rm"]}, **keyed)
    await recorder.record_problem(olga, "submitTask", 429, "too_many_tasks", body=task, **keyed)
    mesh.bus.down = True
    await recorder.record_problem(sue, "listTasks", 503, "unavailable")
