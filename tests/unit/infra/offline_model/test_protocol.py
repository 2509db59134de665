"""The offline model: OpenAI's protocol, determinism, each fault."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
import uvicorn

from bulkhead_infra.offline_model.http.openai import body_of, complete
from bulkhead_infra.offline_model.http.server import build_app
from bulkhead_infra.offline_model.parts import parse_parts
from bulkhead_infra.offline_model.roles.reply import reply_to
from bulkhead_infra.offline_model.settings import Settings, parse_settings
from tests.unit.infra.offline_model.requests import PLAN_SCHEMA, TOOLS, VERDICT_SCHEMA, part

KEY = {"Authorization": "Bearer anything"}
PASSAGE = part("passage", "The lid may be opened after 14 days. Stir the jar twice a week.", source="kraut.md")
PLAN_FORMAT = {"type": "json_schema", "json_schema": {"name": "plan", "schema": PLAN_SCHEMA, "strict": True}}
JUDGE_FORMAT = {"type": "json_schema", "json_schema": {"name": "v", "schema": VERDICT_SCHEMA, "strict": True}}


class Server:
    """A running server and clients for it."""

    def __init__(self, **settings: Any) -> None:
        self.app = build_app(Settings(admin=True, token_delay_ms=0, **settings))
        config = uvicorn.Config(self.app, host="127.0.0.1", port=0, log_level="critical", lifespan="off")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.005)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=KEY, timeout=60)

    def chat(self, **body: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json=request(**body))

    def events(self, **body: Any) -> list[Any]:
        body = request(stream=True, **body)
        found: list[Any] = []
        with self.http.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            for line in response.iter_lines():
                if line.startswith("data: "):
                    found.append(line[6:] if line == "data: [DONE]" else json.loads(line[6:]))
        return found

    def arm(self, fault: str, **more: Any) -> None:
        assert self.http.post("/admin/faults", json={"fault": fault, **more}).status_code == 200

    def last(self) -> dict[str, Any]:
        entry: dict[str, Any] = self.http.get("/admin/requests").json()["requests"][-1]
        return entry

    def stop(self) -> None:
        self.http.close()
        self.server.force_exit = self.server.should_exit = True
        self.thread.join(5)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def server(running: Server) -> Server:
    running.http.delete("/admin/faults")
    running.http.delete("/admin/requests")
    return running


def request(**body: Any) -> dict[str, Any]:
    user = f"{part('step', 'When may the lid be opened?')}\n{PASSAGE}"
    return {"model": "offline-rules-1", "messages": [{"role": "user", "content": user}], **body}


def plan_request(objective: str = "Find A. Find B.") -> dict[str, Any]:
    text = f"{part('objective', objective)}\n{part('tools', 'search_documents: search (read)')}"
    return request(messages=[{"role": "user", "content": text}], response_format=PLAN_FORMAT)


def judge_request(answer: str, acceptance: str = "Says when the lid may be opened.") -> dict[str, Any]:
    text = f"{part('answer', answer)}\n{part('acceptance', acceptance)}\n{PASSAGE}"
    return request(messages=[{"role": "user", "content": text}], response_format=JUDGE_FORMAT)


def tool_request(text: str, *names: str, **more: Any) -> dict[str, Any]:
    tools = [TOOLS[name] for name in names]
    return request(messages=[{"role": "user", "content": part("step", text)}], tools=tools, **more)


def ask(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body_of(complete(body, reply_to(body), 4_096))
    return found


def said(body: dict[str, Any]) -> str:
    return str(ask(body)["choices"][0]["message"]["content"])


def calls(body: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = ask(body)["choices"][0]["message"].get("tool_calls") or []
    return [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in found]


# Protocol


def test_an_answer_names_what_made_it(server: Server) -> None:
    body = server.chat().json()
    assert body["model"] == "offline-rules-1" and body["system_fingerprint"] == "bulkhead-offline-rules-1"
    assert body["choices"][0]["finish_reason"] == "stop"
    content = body["choices"][0]["message"]["content"]
    marker = parse_parts(PASSAGE)[0].id
    assert "14 days" in content and f"[#{marker}]" in content
    usage = body["usage"]
    assert usage["completion_tokens"] == -(-len(content.encode()) // 4)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_same_request_same_bytes(server: Server) -> None:
    assert server.chat().content == server.chat().content
    assert server.chat().content != server.chat(temperature=0.5).content

    def bare() -> list[Any]:
        found = server.events(stream_options={"include_usage": True})
        for chunk in found[:-1]:
            assert isinstance(chunk.pop("x_sent_unix_ns"), int)
        return found

    assert bare() == bare()


def test_a_stream_says_the_same_as_the_whole(server: Server) -> None:
    whole = server.chat().json()
    events = server.events(stream_options={"include_usage": True})
    assert events[-1] == "[DONE]"
    usage, finish = events[-2], events[-3]
    assert usage["choices"] == [] and usage["usage"] == whole["usage"]
    assert finish["choices"][0]["finish_reason"] == "stop" and finish["usage"] is None
    text = "".join(e["choices"][0]["delta"].get("content") or "" for e in events[:-2])
    assert text == whole["choices"][0]["message"]["content"]
    assert len({e["id"] for e in events[:-1]} | {whole["id"]}) == 1
    assert all("usage" not in e for e in server.events()[:-1])


def test_tool_calls_plain_and_streamed(server: Server) -> None:
    body = tool_request("Calculate 12.5 * 8 please.", "calculate")
    whole = server.chat(**body).json()["choices"][0]
    assert whole["finish_reason"] == "tool_calls" and whole["message"]["content"] is None
    (call,) = whole["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"expression": "12.5 * 8"}
    deltas = [
        piece
        for event in server.events(**body)[:-1]
        for piece in (event["choices"][0]["delta"].get("tool_calls") or ())
    ]
    assert deltas[0]["id"] == call["id"] and deltas[0]["function"]["name"] == "calculate"
    assert all(piece["index"] == 0 and "id" not in piece for piece in deltas[1:])
    assert "".join(piece["function"]["arguments"] for piece in deltas) == call["function"]["arguments"]


def test_parallel_tool_calls_and_tool_choice() -> None:
    text = "When may the lid be opened? How is the jar stirred?"
    assert len(calls(tool_request(text, "search_documents"))) == 2
    assert len(calls(tool_request(text, "search_documents", parallel_tool_calls=False))) == 1
    assert calls(tool_request(text, "search_documents", tool_choice="none")) == []
    named = {"type": "function", "function": {"name": "calculate"}}
    both = tool_request(text, "search_documents", "calculate", tool_choice=named)
    assert [name for name, _ in calls(both)] == ["calculate"]
    plain = tool_request("Say hello.", "date_difference")
    assert calls(plain) == [] and len(calls({**plain, "tool_choice": "required"})) == 1


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens"])
def test_a_limit_cuts_the_answer(server: Server, key: str) -> None:
    body = server.chat(**{key: 5}).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 5
    assert len(body["choices"][0]["message"]["content"].encode()) <= 20


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": "gpt-9"}, 404, "model_not_found"),
        ({"messages": []}, 400, "invalid_value"),
        ({"messages": [{"role": "wizard"}]}, 400, "invalid_value"),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": ""}]}, 400, None),
        ({"response_format": {"type": "json_schema"}}, 400, "unsupported_value"),
        ({"response_format": {"type": "json_object"}}, 400, "unsupported_value"),
    ],
)
def test_bad_requests_get_openai_error_bodies(
    server: Server, change: dict[str, Any], status: int, code: str | None
) -> None:
    response = server.chat(**change)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] == code and error["type"] == "invalid_request_error" and error["message"]


def test_keys_garbage_and_admin_only_when_asked(server: Server) -> None:
    assert httpx.post(f"{server.http.base_url}/v1/chat/completions", json=request()).status_code == 401
    for garbage in (b"{", b"\xff\xfe", b"[1]", b"[" * 100_000, b""):
        response = server.http.post("/v1/chat/completions", content=garbage)
        assert response.status_code == 400 and "error" in response.json()

    async def without_admin() -> int:
        transport = httpx.ASGITransport(build_app(Settings()))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return (await client.get("/admin/requests")).status_code

    assert asyncio.run(without_admin()) == 404
    assert parse_settings(["--port", "1", "--context-tokens", "9"]).context_tokens == 9


def test_models_and_livez(server: Server) -> None:
    assert [m["id"] for m in server.http.get("/v1/models").json()["data"]] == ["offline-rules-1"]
    assert server.http.get("/livez").json()["status"] == "ok"


def test_a_request_beyond_the_context_is_refused() -> None:
    async def status() -> httpx.Response:
        transport = httpx.ASGITransport(build_app(Settings(context_tokens=50)))
        async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=KEY) as client:
            return await client.post("/v1/chat/completions", json=request())

    response = asyncio.run(status())
    assert response.status_code == 400 and response.json()["error"]["code"] == "context_length_exceeded"


# Faults


@pytest.mark.parametrize(("fault", "status"), [("429", 429), ("500", 500), ("503", 503), ("context_overflow", 400)])
def test_faults_of_status(server: Server, fault: str, status: int) -> None:
    server.arm(fault, retry_after_s=2.5)
    response = server.chat()
    assert response.status_code == status and response.json()["error"]["message"]
    assert response.headers.get("retry-after") == ("2.5" if fault == "429" else None)
    assert server.last()["fault"] == fault
    assert server.chat().status_code == 200


def test_faults_of_the_body(server: Server) -> None:
    server.arm("error_200")
    broken = server.chat()
    assert broken.status_code == 200 and "choices" not in broken.json() and broken.json()["error"]
    server.arm("malformed_json")
    with pytest.raises(json.JSONDecodeError):
        server.chat().json()
    server.arm("missing_usage", times=2)
    assert "usage" not in server.chat().json()
    events = server.events(stream_options={"include_usage": True})
    assert all(not e.get("usage") for e in events[:-1]) and events[-1] == "[DONE]"


def test_a_cut_stream_has_no_finish_reason(server: Server) -> None:
    server.arm("cut_stream", after_chunks=4)
    events = server.events()
    assert len(events) == 4 and all(e["choices"][0]["finish_reason"] is None for e in events)
    server.arm("cut_stream", abrupt=True)
    with pytest.raises(httpx.RemoteProtocolError):
        server.events()
    server.arm("cut_stream")
    with pytest.raises(httpx.RemoteProtocolError):
        server.chat()


@pytest.mark.parametrize(
    ("fault", "stream"), [("timeout", False), ("timeout", True), ("stall", False), ("stall", True)]
)
def test_silence_lasts_until_the_client_gives_up_and_that_is_logged(server: Server, fault: str, stream: bool) -> None:
    server.arm(fault)
    with (
        pytest.raises(httpx.ReadTimeout),
        server.http.stream(
            "POST", "/v1/chat/completions", json=request(stream=stream), timeout=httpx.Timeout(5, read=0.15)
        ) as response,
    ):
        list(response.iter_lines())
    for _ in range(100):
        if server.last()["finished"]:
            break
        time.sleep(0.01)
    assert server.last()["client_cut"] and server.last()["finished"]
    assert server.last()["chunks_sent"] == (3 if fault == "stall" and stream else 0)


def test_a_client_that_leaves_a_long_answer_is_logged(server: Server) -> None:
    server.arm("long_answer", delay_ms=2)
    with server.http.stream("POST", "/v1/chat/completions", json=request(stream=True)) as response:
        lines = response.iter_lines()
        for _ in range(10):
            next(lines)
    for _ in range(100):
        if server.last()["finished"]:
            break
        time.sleep(0.01)
    assert server.last()["client_cut"] and server.last()["chunks_sent"] < 5_000


def test_faults_of_tool_calls(server: Server) -> None:
    body = tool_request("Calculate 2 * 3.", "calculate")

    def call() -> dict[str, Any]:
        found: dict[str, Any] = server.chat(**body).json()["choices"][0]["message"]["tool_calls"][0]["function"]
        return found

    server.arm("malformed_arguments")
    with pytest.raises(json.JSONDecodeError):
        json.loads(call()["arguments"])
    server.arm("wrong_arguments")
    schema = TOOLS["calculate"]["function"]["parameters"]
    assert not jsonschema_rs.is_valid(schema, json.loads(call()["arguments"]))
    server.arm("invented_tool")
    assert call()["name"] not in TOOLS
    server.arm("runaway", times=3)
    for _ in range(3):
        message = server.chat(**body).json()["choices"][0]["message"]
        results = [{"role": "tool", "tool_call_id": c["id"], "content": "2 * 3 = 6"} for c in message["tool_calls"]]
        body = {**body, "messages": [*body["messages"], message, *results]}
    final = server.chat(**body).json()["choices"][0]
    assert final["finish_reason"] == "stop" and "= 6" in final["message"]["content"]


def test_faults_of_plans_and_verdicts(server: Server) -> None:
    def plan() -> list[dict[str, Any]]:
        found = json.loads(server.chat(**plan_request()).json()["choices"][0]["message"]["content"])
        steps: list[dict[str, Any]] = found["steps"]
        return steps

    server.arm("judge_reject", times=9)
    server.arm("bad_plan_cyclic")
    first, second = plan()[:2]
    assert second["id"] in first["inputs"] and first["id"] in second["inputs"]
    server.arm("bad_plan_huge")
    assert len(plan()) == 10_000
    server.arm("bad_plan_no_acceptance")
    assert not any(step["acceptance"] for step in plan())
    verdict = json.loads(
        server.chat(**judge_request("The lid may be opened after 14 days.")).json()["choices"][0]["message"]["content"]
    )
    assert verdict["verdict"] == "reject" and verdict["reasons"]


def test_a_fault_strikes_only_what_it_matches_and_as_often_as_told(server: Server) -> None:
    server.arm("500", times=2, match="special")
    assert server.chat().status_code == 200
    assert [server.chat(user="special").status_code for _ in range(3)] == [500, 500, 200]
    assert server.http.get("/admin/faults").json()["armed"][0]["left"] == 0
    assert server.http.post("/admin/faults", json={"fault": "gremlin"}).status_code == 400
    assert server.http.post("/admin/faults", json={"fault": "500", "match": "("}).status_code == 400
    assert server.http.post("/admin/faults", content=b"[]").status_code == 400
    assert server.http.post("/admin/faults", json={"fault": "500", "often": 2}).status_code == 400
