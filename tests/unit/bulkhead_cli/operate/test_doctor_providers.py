"""Findings of `bulkhead doctor` on providers, before real local servers: no model is called."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from bulkhead_cli.operate import doctor_providers
from bulkhead_cli.operate.finding import DoctorFinding

MODEL = "offline-rules-1"


class Server:
    """Answers everything with one status, body and headers; keeps what was asked."""

    def __init__(self) -> None:
        self.status, self.headers, self.asked = 200, dict[str, str](), list[tuple[str, str]]()
        self.body: Any = {"data": [{"id": MODEL}]}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers["authorization"]))
                body = json.dumps(outer.body).encode()
                self.send_response(outer.status)
                for name, value in {**outer.headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.http.shutdown()
    found.http.server_close()


async def look(url: str, **more: str) -> list[DoctorFinding]:
    environ = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-a-key-of-mine", "BULKHEAD_MODEL": MODEL, **more}
    found = [one async for one in doctor_providers.check_providers(environ)]
    assert "sk-a-key" not in str(found) and all(bool(one.todo) == (one.level != "ok") for one in found)
    return found


async def test_a_provider_that_answers_is_well_and_no_model_is_called(server):
    (found,) = await look(server.url)
    assert found.level == "ok" and server.url in found.detail
    assert server.asked == [("/v1/models", "Bearer sk-a-key-of-mine")]


@pytest.mark.parametrize(
    ("status", "headers", "body", "level", "said"),
    [
        (401, {}, {}, "problem", "refused the key"),
        (308, {"location": "https://elsewhere.example/v2"}, {}, "problem", "moved to https://elsewhere.example/v2"),
        (503, {}, {}, "warning", "HTTP 503"),
        (404, {}, {}, "ok", "no list of models"),
        (200, {}, {"data": [{"id": "another"}]}, "warning", f"does not list {MODEL}"),
        (200, {}, {"data": [{"id": "another"}], "has_more": True}, "ok", "its key is taken"),
        (200, {}, [1], "ok", "its key is taken"),
    ],
)
async def test_what_an_answer_tells(server, status, headers, body, level, said):
    server.status, server.headers, server.body = status, headers, body
    (found,) = await look(server.url)
    assert found.level == level and said in found.detail


async def test_each_key_at_each_address_is_tried(server):
    row = {"base_urls": [server.url, "http://127.0.0.1:1/v1"], "api_keys": ["sk-a-key-1", "sk-a-key-2"]}
    routes = {"default": {"model": MODEL, "provider": "mine"}, "judge": {"model": MODEL, "provider": "mine"}}
    more = {"BULKHEAD_PROVIDERS": json.dumps({"mine": row}), "BULKHEAD_ROUTES": json.dumps(routes)}
    up, down = await look("http://127.0.0.1:2/v1", **more)
    assert (up.level, down.level) == ("ok", "problem") and "cannot be reached" in down.detail
    assert server.asked == [("/v1/models", "Bearer sk-a-key-1")]


async def test_settings_that_a_start_would_refuse_are_told_and_nothing_is_asked(server):
    (found,) = await look(server.url, BULKHEAD_MODEL="nobody-knows-1")
    assert found.level == "problem" and "no price is known" in found.detail and not server.asked


async def test_a_missing_key_is_told():
    (found,) = [one async for one in doctor_providers.check_providers({"OPENAI_BASE_URL": "https://api.openai.com/v1"})]
    assert found.level == "problem" and "has no key: set OPENAI_API_KEY" in found.detail


async def test_without_a_provider_the_offline_model_is_told():
    (found,) = [one async for one in doctor_providers.check_providers({})]
    assert found.level == "ok" and "offline model" in found.detail
