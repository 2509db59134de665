"""The gateway keeps its OpenAPI document: generated requests, good and bad, and one task from submission to its end.

The real ASGI application over the in-process bus of tests/unit/services/gateway; nothing is faked behind HTTP but the
broker.
"""

import json

import httpx
import pytest
import schemathesis
import schemathesis.specs.openapi.checks
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from bulkhead_contracts.plan import Plan, PlanAdopted, PlanStep
from bulkhead_contracts.result import Result, Usage
from bulkhead_contracts.retrieval import DocumentIngested
from bulkhead_contracts.task import StepEnded, StepStarted, TaskAccepted, TaskEnded
from bulkhead_services.gateway.http.openapi import openapi
from tests.paths import ROOT
from tests.unit.services.gateway.harness import FOREIGN, OPERATOR, make_mesh

EXAMPLES = {GenerationMode.POSITIVE: 8, GenerationMode.NEGATIVE: 15}
# The examples are the same in every run: those of requests with mistakes, most of the time, are for CI.
MODES = [
    pytest.param(GenerationMode.POSITIVE, id="positive"),
    pytest.param(GenerationMode.NEGATIVE, id="negative", marks=pytest.mark.slow),
]
ENDLESS = ("/v1/changes",)
"""A stream that never ends by itself: each request of it is waited for until the client gives it up."""
PROBES = ("/livez", "/readyz", "/startupz")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
OPERATIONS = [(path, method) for path, item in openapi()["paths"].items() for method in item]
SENDING = [
    (path, method) for path, method in OPERATIONS if path not in PROBES
]  # Probes take nothing that could be wrong.


def checks():
    known = {check.__name__: check for check in schemathesis.checks.CHECKS.get_all()}
    return [known[name] for name in CHECKS]


def is_a_problem(answer: httpx.Response) -> None:
    """Every error is problem details with a hint (RFC 9457)."""
    if answer.status_code < 400:
        return
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code and body["type"].startswith("urn:bulkhead:problem:")
    for name in ("title", "detail", "hint", "code"):
        assert isinstance(body[name], str) and body[name], (name, body)


def generated(path, method, mode, gateway, headers, examples):
    """Ask with generated requests; returns the statuses that came."""
    operation = schemathesis.openapi.from_asgi("/openapi.json", gateway.app)[path][method]
    answers: list[int] = []

    @settings(
        max_examples=examples,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        answer = case.call(headers=headers)
        answers.append(answer.status_code)
        case.validate_response(answer, checks=checks())
        is_a_problem(_plain(answer))

    ask()
    return answers


def _plain(answer) -> httpx.Response:
    content_type = answer.headers.get("content-type", [""])[0]
    return httpx.Response(answer.status_code, headers={"content-type": content_type}, content=answer.content)


@pytest.fixture
def gateway(tmp_path):
    found = make_mesh(tmp_path).gateway(ingest_wait_s=0.0)
    found._auth.load()
    found.http.started = True
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("path", "method"), SENDING)
@pytest.mark.slow
def test_generated_requests_get_documented_answers(gateway, path, method, mode):
    examples = 1 if path in ENDLESS else EXAMPLES[mode]
    answers = generated(path, method, mode, gateway, {"Authorization": f"Bearer {OPERATOR}"}, examples)
    assert answers and all(status < 500 for status in answers)
    if mode is GenerationMode.NEGATIVE and method == "post":
        assert any(status >= 400 for status in answers)


@pytest.mark.parametrize(("path", "method"), SENDING)
@pytest.mark.slow
def test_nobody_gets_anything_without_credentials(gateway, path, method):
    nobody = {"Authorization": "Bearer bk_unknown"}
    assert set(generated(path, method, GenerationMode.POSITIVE, gateway, nobody, 2)) == {401}


async def test_one_task_from_submission_to_its_end_keeps_the_document(tmp_path):
    mesh = make_mesh(tmp_path)
    gateway = mesh.gateway(ingest_wait_s=0.0)
    await gateway.attach_inbox()
    schema = schemathesis.openapi.from_dict(openapi())
    transport = httpx.ASGITransport(app=gateway.app)
    auth = {"Authorization": f"Bearer {OPERATOR}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=auth) as http:

        async def ask(method, template, expected, path="", **more):
            answer = await http.request(method, path or template, **more)
            assert answer.status_code == expected, answer.text
            schema[template][method].validate_response(answer)
            is_a_problem(answer)
            return answer

        body = {"objective": "Find the fare", "limits": {"cost_usd_micros": 1000, "tokens": 9, "deadline_ms": 9000}}
        first = (await ask("POST", "/v1/tasks", 202, json=body, headers={"Idempotency-Key": "k"})).json()
        again = await ask("POST", "/v1/tasks", 202, json=body, headers={"Idempotency-Key": "k"})
        assert again.json() == first and again.headers["idempotency-replayed"] == "true"
        other = {**body, "objective": "another"}
        await ask("POST", "/v1/tasks", 422, json=other, headers={"Idempotency-Key": "k"})
        await mesh.pump()
        task = first["task_id"]
        await _work(mesh, task)
        one, cancel = "/v1/tasks/{task_id}", "/v1/tasks/{task_id}/cancel"
        await ask("POST", cancel, 202, f"{first['status_url']}/cancel", json={"reason": "changed my mind"})
        result = Result(content=await mesh.blob("model_gateway", "It is EUR 12."), summary="EUR 12")
        await mesh.say(
            "planner",
            TaskEnded(
                status="succeeded",
                result=result,
                usage=Usage(model_calls=1),
                steps_done=1,
                steps_total=1,
                plan_versions=1,
                ended_unix_ms=1_000_900,
            ),
            task,
        )
        shown = (await ask("GET", one, 200, first["status_url"])).json()
        assert (shown["status"], shown["answer"]) == ("succeeded", "It is EUR 12.")
        await ask("GET", "/v1/tasks", 200)
        stream = await ask("GET", "/v1/tasks/{task_id}/events", 200, first["events_url"])
        last = [line[4:] for line in stream.text.splitlines() if line.startswith("id: ")][-1]
        await ask("GET", "/v1/tasks/{task_id}/events", 204, first["events_url"], headers={"Last-Event-ID": last})
        await ask("POST", cancel, 409, f"{first['status_url']}/cancel")
        await ask("GET", one, 404, first["status_url"], headers={"Authorization": f"Bearer {FOREIGN}"})
    await gateway.stop()


async def _work(mesh, task: str) -> None:
    """What the planner says of a task with one step."""
    step = PlanStep(id="s1", title="Find it", instruction="Find it", acceptance="found")
    await mesh.say("planner", TaskAccepted(deadline_unix_ms=1_009_000), task)
    await mesh.say("planner", PlanAdopted(plan=Plan(steps=(step,))), task)
    await mesh.say("planner", StepStarted(step_id="s1", title="Find it", attempt=1, plan_version=1), task)
    await mesh.say("planner", StepEnded(step_id="s1", attempt=1, plan_version=1, outcome="accepted", final=True), task)


async def test_a_document_from_upload_to_its_end_keeps_the_document(tmp_path):
    mesh = make_mesh(tmp_path)
    gateway = mesh.gateway(ingest_wait_s=0.0)
    await gateway.attach_inbox()
    schema = schemathesis.openapi.from_dict(openapi())
    transport = httpx.ASGITransport(app=gateway.app)
    auth = {"Authorization": f"Bearer {OPERATOR}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=auth) as http:
        sent = await http.post("/v1/documents", params={"name": "fares.md"}, content=b"# Fares\n")
        assert sent.status_code == 202
        schema["/v1/documents"]["POST"].validate_response(sent)
        receipt = sent.json()
        for outcome, expected in (("ingested", 201), ("unchanged", 200)):
            told = DocumentIngested(name="fares.md", sha256=receipt["sha256"], outcome=outcome, chunks=1)
            task = receipt["ingest_id"] if outcome == "ingested" else "again"
            await mesh.say("rag", told, task)
            shown = await http.get(f"/v1/documents/{task}")
            assert shown.status_code == expected, shown.text
            schema["/v1/documents/{ingest_id}"]["GET"].validate_response(shown)
    await gateway.stop()


async def test_paths_and_methods_that_are_not_there_are_problems_too(gateway):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=gateway.app), base_url="http://gateway") as http:
        for method, path, expected in (("GET", "/nothing", 404), ("PUT", "/v1/tasks", 405), ("DELETE", "/livez", 405)):
            answer = await http.request(method, path)
            assert answer.status_code == expected
            is_a_problem(answer)


async def test_a_broker_that_is_away_is_a_documented_503(tmp_path):
    mesh = make_mesh(tmp_path)
    gateway = mesh.gateway()
    gateway._auth.load()
    gateway.http.started, mesh.bus.down = True, True
    schema = schemathesis.openapi.from_dict(openapi())
    headers = {"Authorization": f"Bearer {OPERATOR}", "Idempotency-Key": "k"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=gateway.app), base_url="http://gateway") as http:
        for method, path, more in (("POST", "/v1/tasks", {"json": {"objective": "o"}}), ("GET", "/v1/tasks", {})):
            answer = await http.request(method, path, headers=headers, **more)
            assert answer.status_code == 503
            schema[path][method].validate_response(answer)
            is_a_problem(answer)
        for path in PROBES:
            answer = await http.get(path)
            assert answer.status_code == (503 if path == "/readyz" else 200)
            schema[path]["GET"].validate_response(answer)


async def test_the_committed_document_is_the_served_one(gateway):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=gateway.app), base_url="http://gateway") as http:
        served = (await http.get("/openapi.json")).json()
    assert json.loads((ROOT / "contracts/openapi.json").read_text()) == served
