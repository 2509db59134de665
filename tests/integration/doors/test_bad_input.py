"""Bad input and bad clients at the model door: an error in the API's own form, and nothing that grows."""

import asyncio
import json
import tracemalloc

import httpx
import pytest

from bulkhead_contracts import bounds
from bulkhead_services.doors.http import answers
from bulkhead_services.doors.port import ParsedModelCall
from tests.integration.doors.desk import KEY, TASK, Reply, ScriptedCall, ScriptedDesk, served, text

AUTH = {"Authorization": f"Bearer {KEY}"}
CHAT, RESPONSES, MESSAGES = "/openai/v1/chat/completions", "/openai/v1/responses", "/anthropic/v1/messages"
USER = {"role": "user", "content": "hi"}
ASK = {"model": "m", "messages": [USER]}


def http(door):
    """A client that adds nothing."""
    return httpx.AsyncClient(base_url=door.url, headers=AUTH, timeout=30)


async def raw_request(writer, path, body):
    """A request on a connection of one's own."""
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(raw)}\r\n\r\n"
    writer.write(head.encode() + raw)
    await writer.drain()


async def until(met):
    """Wait for a condition."""
    async with asyncio.timeout(30):
        while not met():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
@pytest.mark.parametrize(
    "body, code, said",
    [
        (b"", "malformed_json", "not JSON"),
        (b"[]", "malformed_json", "not a JSON object"),
        (b'{"model": "m", "messages": [', "malformed_json", "not JSON"),
        (b'{"model": "\xff"}', "malformed_json", "not UTF-8"),
        (b'{"model": "\\ud800"}', "invalid_request", "model holds half a character"),
        (b'{"model": {"\\udfff": 1}}', "invalid_request", "model holds half a character"),
        (b'{"model": "m", "a": [1, {"b": NaN}]}', "invalid_request", "a[1].b is NaN"),
        (b'{"model": "m", "temperature": -Infinity}', "invalid_request", "temperature is -Infinity"),
        (b'{"model": "m", "temperature": 1e999}', "invalid_request", "temperature is a number beyond"),
        (b'{"model": "m", "seed": 1' + b"0" * 5_000 + b"}", "invalid_request", "seed is an integer of more"),
        (b'{"model": "m", "metadata": {"a": 1, "a": 2}}', "invalid_request", "metadata holds the key 'a' twice"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "too_deep", "deeper than 32"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep", "deeper than 32"),
        (b'{"a": ' + b'{"b":' * 50_000, "too_deep", "deeper than 32"),
        (b'{"messages": 1}', "invalid_request", "model is missing"),
        (b'{"model": 5}', "invalid_request", "model must be a string, and is an integer"),
    ],
)
async def test_a_body_that_is_no_request(path, body, code, said):
    async with served() as door, http(door) as client:
        answer = await client.post(path, content=body)
        error = answer.json()["error"]
        assert answer.status_code == 400 and error["code"] == code and said in error["message"]
        assert answer.headers["x-should-retry"] == "false" and not door.desk.asked


@pytest.mark.parametrize(
    "more, field",
    [
        ({"messages": []}, "messages"),
        ({"messages": [USER] * 4_001}, "messages"),
        ({"messages": [USER, 7]}, "messages[1]"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "messages[0].tool_calls[0].function"),
        ({"n": 2}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream": True, "stream_options": {"every": 1}}, "stream_options.every"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"logprobs": True}, "logprobs"),
        ({"functions": [{}]}, "functions"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"temperature": 3}, "temperature"),
        ({"model": "m" * 65}, "model"),
        ({"tools": [{"type": "function"}] * 10_000}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "array"}}}]},
            "tools[0].function.parameters.type",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "a", "parameters": {"properties": {"x": 1}}}}]},
            "tools[0].function.parameters.properties.x",
        ),
        ({"tool_choice": {"type": "function", "function": {"name": "a"}}}, "tool_choice.function.name"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ],
)
async def test_a_field_that_does_not_fit_is_named(more, field):
    async with served() as door, http(door) as client:
        answer = await client.post(CHAT, json=ASK | more)
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["param"] == field and error["message"].startswith(field) and not door.desk.asked


@pytest.mark.parametrize(
    "more, field",
    [
        ({"previous_response_id": 7}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "custom_tool_call", "name": "f", "input": "x"}]}, "input[0].call_id"),
        ({"text": {"speed": 1}}, "text.speed"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"reasoning": {"summary": "long"}}, "reasoning.summary"),
        ({"input": None}, "input"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
    ],
)
async def test_a_response_cannot_have_everything(more, field):
    async with served() as door, http(door) as client:
        answer = await client.post(RESPONSES, json={"model": "m", "input": "hi"} | more)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, field) and error["message"].startswith(field)
        assert not door.desk.asked


@pytest.mark.parametrize(
    "name, value",
    [
        ("X-Bulkhead-Run", "r" * 201),
        ("Idempotency-Key", "k" * 256),
        ("X-Bulkhead-Agent", "Big Agent"),
        ("X-Bulkhead-Feature", "a b"),
        ("X-Bulkhead-Limit-Usd", "-1"),
        ("X-Bulkhead-Limit-Usd", "1e999999999"),
        ("X-Bulkhead-Limit-Usd", "NaN"),
        ("X-Bulkhead-Limit-Tokens", "none"),
        ("X-Bulkhead-Deadline-S", "1e9"),
    ],
)
async def test_a_header_that_does_not_fit_is_named(name, value):
    async with served() as door, http(door) as client:
        answer = await client.post(CHAT, json=ASK, headers={name: value})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name) and not door.desk.asked


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "X-Bulkhead-Run", "X-Bulkhead-Limit-Usd"])
async def test_a_header_that_is_there_twice_is_refused(name):
    async with served() as door, httpx.AsyncClient(base_url=door.url, timeout=30) as client:
        twice = [(name, "1"), (name.lower(), "5")]
        more = [] if name == "Authorization" else list(AUTH.items())
        for answer in (
            await client.post(CHAT, json=ASK, headers=more + twice),
            await client.get("/openai/v1/models", headers=more + twice),
        ):
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, name) and not door.desk.asked


async def test_paths_methods_and_encodings():
    async with served() as door, http(door) as client:
        for path, kind in (("/openai/v1/images", "invalid_request_error"), ("/anthropic/v1/x", "not_found_error")):
            answer = await client.post(path, json=ASK)
            assert answer.status_code == 404 and answer.json()["error"]["type"] == kind
        assert (await client.get(CHAT)).status_code == 405
        answer = await client.post(CHAT, json=ASK, headers={"Content-Encoding": "gzip"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")
        assert (await client.post(CHAT, json=ASK, headers={"X-Bulkhead-Task": "another"})).status_code == 404
        assert (await client.get("/openai/v1/models/none")).json()["error"]["code"] == "unknown_route"
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.post(CHAT, json=ASK, headers={"traceparent": "00-xx"})).status_code == 200


@pytest.mark.parametrize("head", ["GET /openai/v1/models", "GET /livez", "DELETE /v1/runs/x", f"POST {CHAT}"])
@pytest.mark.parametrize("key", [KEY, "bk_of_nobody"])
async def test_nothing_follows_a_request_with_two_lengths(head, key):
    async with served() as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(door.url.rpartition(":")[2]))
        hidden = b"0\r\n\r\nGET /startupz HTTP/1.1\r\nHost: x\r\n\r\n"
        both = f"Content-Length: {len(hidden)}\r\nTransfer-Encoding: chunked"
        writer.write(f"{head} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n{both}\r\n\r\n".encode() + hidden)
        async with asyncio.timeout(30):
            answered = await reader.read()
        assert answered.count(b"HTTP/1.1 ") == 1 and b"connection: close" in answered.lower()
        writer.close()


async def test_a_body_above_its_bound():
    async with served() as door, http(door) as client:
        answer = await client.post(MESSAGES, content=b" " * (bounds.MAX_ASKED_BYTES + 1))
        assert (answer.status_code, answer.json()["error"]["type"]) == (413, "request_too_large")
        image = "data:image/png;base64," + "A" * (bounds.MAX_BLOB_BYTES - 1_000)
        part = {"type": "image_url", "image_url": {"url": image}}
        large = {"model": "m", "messages": [{"role": "user", "content": [part]}] * 2}
        assert (await client.post(CHAT, json=large)).status_code == 200
        part["image_url"]["url"] = image + "A" * 2_000
        answer = await client.post(CHAT, json=large)
        left_out = ["image: its message is larger than 4194304 bytes"]
        assert answer.status_code == 200 and answer.json()["bulkhead"] == {"left_out": left_out}
        assert answer.headers["X-Bulkhead-Left-Out"] == left_out[0]
        large["messages"] = [{"role": "user", "content": "x" * bounds.MAX_BLOB_BYTES}]
        answer = await client.post(CHAT, json=large)
        assert (answer.status_code, answer.json()["error"]["param"]) == (413, "messages[0]")


async def test_a_run_is_ended():
    async with served() as door, http(door) as client:
        answer = await client.delete(f"/v1/runs/{TASK}")
        assert answer.json() == {"task": TASK, "ended": True} and door.desk.ended == [TASK]
        for other in ("doors-of-another", "t-1"):
            answer = await client.delete(f"/v1/runs/{other}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_run")
        assert (await client.delete(f"/v1/runs/{TASK}", headers={"Authorization": "Bearer no"})).status_code == 401


async def test_calls_under_way_are_bounded_per_person():
    slow = Reply(("a",) * 100, finish="stop", gap_s=0.05)
    async with served(slow, max_calls_per_person=1) as door, http(door) as client:
        async with client.stream("POST", CHAT, json=ASK | {"stream": True}) as first:
            await anext(first.aiter_raw())
            answer = await client.post(MESSAGES, json=ASK | {"max_tokens": 5})
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_calls")
            assert answer.headers["x-should-retry"] == "true" and answer.headers["retry-after"] == "1"
        # The first one went away: its place is free again.
        await until(lambda: not door.http.call_pool().demand)
        assert door.desk.calls[0].closed and door.desk.calls[0].taken < 100


async def test_a_client_that_went_away_holds_no_place():
    async with served(Reply(("late",), finish="stop", gap_s=60)) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(door.url.rpartition(":")[2]))
        await raw_request(writer, MESSAGES, ASK | {"max_tokens": 5})
        await until(lambda: door.desk.calls and door.desk.calls[0].awaited)
        writer.transport.abort()
        await until(lambda: not door.http.call_pool().demand)
        assert door.http.bodies.held == 0 and reader is not None


@pytest.mark.parametrize("stream", [True, False])
async def test_nothing_of_a_body_stays_in_memory_while_its_answer_is_waited_for(monkeypatch, stream):
    async def forgetful(desk, caller, asked):
        desk.calls.append(ScriptedCall(Reply(("x",), gap_s=3), ParsedModelCall("m", (), {}, None, stream), "c1"))
        return desk.calls[-1]

    monkeypatch.setattr(ScriptedDesk, "begin_model_call", forgetful)
    async with served() as door:
        port, size = int(door.url.rpartition(":")[2]), 3_000_000
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        tracemalloc.start()
        await raw_request(writer, CHAT, ASK | {"messages": [{**USER, "content": "x" * size}], "stream": stream})
        await until(lambda: door.desk.calls)
        await asyncio.sleep(0.2)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        writer.close()
        assert held < size / 2


async def test_a_silent_call_beats(monkeypatch):
    monkeypatch.setattr(answers, "HEARTBEAT_S", 0.05)
    async with served(Reply(("late",), finish="stop", gap_s=0.3)) as door, http(door) as client:
        for path, more in ((CHAT, {}), (MESSAGES, {"max_tokens": 5})):
            answer = await client.post(path, json=ASK | {"stream": True} | more)
            assert answer.text.count(": alive\n\n") >= 2 and "late" in answer.text


async def test_a_stream_that_is_never_read_holds_little():
    piece = "x" * 65_536
    endless = Reply((piece,) * 10_000, finish="stop")
    async with served(endless, write_timeout_s=1.0) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(door.url.rpartition(":")[2]))
        reader._transport.pause_reading()
        await raw_request(writer, CHAT, ASK | {"stream": True})
        await until(lambda: door.desk.calls and door.desk.calls[0].closed)
        # The sockets of the kernel hold a few megabytes at both ends.
        assert door.desk.calls[0].taken < 400 and not door.http.call_pool().demand
        writer.transport.abort()


async def test_an_answer_that_is_not_all_it_could_be_says_so():
    cut = Reply(("half",), finish="stop", degraded="the provider's answer was cut")
    async with served(cut) as door, http(door) as client:
        whole = (await client.post(CHAT, json=ASK)).json()
        streamed = (await client.post(CHAT, json=ASK | {"stream": True})).text
        assert whole["bulkhead"] == {"degraded": "the provider's answer was cut"}
        assert "the provider's answer was cut" in streamed


async def test_an_error_of_the_doors_themselves_is_an_error_of_the_api(monkeypatch):
    async with served(text("x")) as door, http(door) as client:
        monkeypatch.setattr(door.desk, "list_models", lambda: 1 / 0)
        answer = await client.get("/openai/v1/models")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
