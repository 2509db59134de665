"""Failures of a tool by name, against a real HTTP server; scans of results. None is taken for success."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bulkhead.telemetry import metrics
from bulkhead.telemetry.redaction import without_sensitive
from bulkhead.tools.api import Arguments, Call, Done, Failed
from bulkhead.tools.catalog import row_of
from bulkhead.tools.results import SecretGuard, find_sensitive_kinds, judge_result

TICKET = {"type": "object", "required": ["number"], "properties": {"number": {"type": "integer"}}}
ANY = {"expression": "1"}
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


class Server:
    """One connection after another, each answered with the bytes of `pieces`, with `pause_s` between them."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/x"
        self.pieces: list[bytes] = []
        self.pause_s, self.served = 0.0, 0
        threading.Thread(target=self._serve, daemon=True).start()

    def answers(self, body: str, *, says_bytes: int = 0, pause_s: float = 0.0, in_pieces: bool = False) -> None:
        raw = body.encode()
        self.pieces = [HEAD.format(says_bytes or len(raw)).encode()]
        self.pieces += [bytes([one]) for one in raw] if in_pieces else [raw]
        self.pause_s = pause_s

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.served += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(65_536)
                for piece in self.pieces:
                    connection.sendall(piece)
                    time.sleep(self.pause_s)
            except OSError:
                pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


async def fetch(arguments: Arguments, call: Call) -> Done | Failed:
    """What a tool does that trusts its server: the body, as it came."""
    answer = await call.world.post_json(call.counter_url, {}, {})
    if not hasattr(answer, "status"):
        return Failed(answer.code, answer.reason, "try again later", transient=True)
    return Done(answer.body.decode(), answer.truncated)


def tool_of(desk, *, effect: str = "read", timeout_ms: int = 5_000, **row: object) -> None:
    """`calculate` of this desk is this tool from now on."""
    declared = {"description": "d", "parameters": {"type": "object"}, "effect": effect, "idempotent": False}
    made = row_of("calculate", {**declared, "timeout_ms": timeout_ms, **row})
    found = desk.doer._registry.tools
    found["calculate"] = replace(found["calculate"], run=fetch, row=made)


@pytest.mark.parametrize(
    ("answer", "row", "code", "told"),
    [
        ({"body": "<html>"}, {"output": TICKET}, "malformed_output", "no JSON"),
        ({"body": '{"number": "9"}'}, {"output": TICKET}, "malformed_output", "number: "),
        ({"body": "{}"}, {"output": TICKET}, "malformed_output", "required"),
        ({"body": '{"error": "sold out"}'}, {"error_if": {"pointer": "/error"}}, "error_body", "sold out"),
        ({"body": '{"error": {"n": [1]}}'}, {"error_if": {"pointer": "/error/n/0"}}, "error_body", "1"),
        (
            {"body": '{"status": "failed", "why": "no money"}'},
            {"error_if": {"pointer": "/status", "equals": "failed", "message": "/why"}},
            "error_body",
            "no money",
        ),
        ({"body": '{"error": "x"}'}, {"output": TICKET, "error_if": {"pointer": "/error"}}, "error_body", "x"),
        ({"body": '{"number": 1}', "says_bytes": 500}, {"output": TICKET}, "partial_answer", "broke off after 13"),
        ({"body": "x" * 90, "pause_s": 0.1, "in_pieces": True}, {"timeout_ms": 400}, "slow_answer", "had not sent"),
        ({"body": "", "pause_s": 3, "says_bytes": 5}, {"timeout_ms": 300}, "slow_answer", "after 0 bytes"),
        (
            {"body": json.dumps({"number": 1, "x": "y" * 500})},
            {"output": TICKET, "max_output_bytes": 99},
            "output_too_large",
            "99",
        ),
    ],
    ids=["html", "type", "missing", "error", "pointer", "equals", "both", "cut-off", "drip", "silent", "too-large"],
)
async def test_each_failure_has_its_name(make_desk, server, answer: dict, row: dict, code: str, told: str) -> None:
    desk = make_desk(counter_url=server.url)
    tool_of(desk, **row)
    server.answers(**answer)
    reply = await desk.call("calculate", ANY, deadline_ms=20_000)
    assert (reply.outcome, reply.standing) == ("failed", "failed"), "none is taken for success"
    assert reply.failure.code == code and told in reply.failure.message and reply.failure.hint
    assert reply.content is None


async def test_a_server_that_never_answers_is_a_timeout(make_desk, server) -> None:
    desk = make_desk(counter_url=server.url)
    tool_of(desk, timeout_ms=300)
    server.pieces, server.pause_s = [b""], 5
    assert (await desk.call("calculate", ANY)).failure.code == "timeout"


@pytest.mark.parametrize("body", ["<html>", '{"error": "no"}'])
async def test_a_write_that_was_answered_so_may_have_been_done(make_desk, server, body: str) -> None:
    desk = make_desk(counter_url=server.url)
    tool_of(desk, effect="write", output=TICKET, error_if={"pointer": "/error"})
    server.answers(body)
    reply = await desk.call("calculate", ANY)
    assert reply.outcome == "uncertain" and server.served == 1


async def test_what_fits_succeeds(make_desk, server) -> None:
    desk = make_desk(counter_url=server.url)
    tool_of(desk, output=TICKET, error_if={"pointer": "/error"})
    server.answers('{"number": 1, "error": null}')
    reply = await desk.call("calculate", ANY)
    assert reply.outcome == "succeeded" and reply.completeness.complete and reply.sensitive == ()


async def test_text_above_its_bound_is_incomplete_and_so_is_a_part(make_desk, server) -> None:
    desk = make_desk(counter_url=server.url)
    tool_of(desk, max_output_bytes=10)
    server.answers("0123456789abc")
    reply = await desk.call("calculate", ANY)
    assert desk.text(reply) == "0123456789" and reply.completeness.omissions[0].reason == "truncated"

    async def half(arguments: Arguments, call: Call) -> Done:
        return Done("pages 1-3", missing="pages 4-9 of ann@example.org")

    found = desk.doer._registry.tools
    found["calculate"] = replace(found["calculate"], run=half)
    (lack,) = (await desk.call("calculate", ANY)).completeness.omissions
    assert (lack.reason, lack.detail) == ("failed_part", "pages 4-9 of [masked]")


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("card 4111 1111 1111 1111", ("card",)),
        ("card 4111 1111 1111 1112", ()),
        ("DE89 3704 0044 0532 0130 00", ("iban",)),
        ("DE88 3704 0044 0532 0130 00", ()),
        ("ann@example.org, +49 30 1234567", ("email", "phone")),
        ("ghp_" + "a1B2" * 9, ("key",)),
        ("AKIAIOSFODNN7EXAMPLE", ("key",)),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", ("key",)),
        ("2025-09-20 to 2025-10-04 = 14 days", ()),
    ],
)
def test_what_a_text_holds_is_named_and_kept_out_of_what_many_read(text: str, kinds: tuple) -> None:
    assert find_sensitive_kinds(text) == kinds
    assert (without_sensitive(text) != text) is bool(kinds) or "DE88" in text


async def test_personal_data_is_the_agents_and_stands_in_no_message(make_desk, server, monkeypatch) -> None:
    counted: list[dict] = []
    monkeypatch.setattr(metrics.tool_sensitive, "add", lambda amount, by: counted.append(by))
    desk = make_desk(counter_url=server.url)
    tool_of(desk)
    server.answers("Ann has 4111111111111111 and ann@example.org")
    reply = await desk.call("calculate", ANY)
    assert "4111111111111111" in desk.text(reply), "the agent reads it"
    said = reply.encode().decode()
    assert "4111" not in said and "example.org" not in said and reply.sensitive == ("card", "email")
    assert reply.content.summary == "Ann has [masked] and [masked]"
    assert counted == [{"bulkhead.kind": "card"}, {"bulkhead.kind": "email"}]


SECRET = 'p@ss/"word+1 é'


@pytest.mark.parametrize("said", ["{}", "a={}&b", '"{}"', "{}{}"])
@pytest.mark.parametrize("way", ["plain", "url", "form", "json", "base64"])
def test_a_secret_is_replaced_however_it_is_written(said: str, way: str) -> None:
    import base64
    from urllib.parse import quote, quote_plus

    written = {
        "plain": SECRET,
        "url": quote(SECRET, safe=""),
        "form": quote_plus(SECRET),
        "json": json.dumps(SECRET)[1:-1],
        "base64": base64.b64encode(SECRET.encode()).decode(),
    }[way]
    found = SecretGuard({"desk": SECRET}).redact_text(said.replace("{}", written))
    assert written not in found and found == said.replace("{}", "[credential desk]")


def test_a_result_that_failed_already_is_not_judged() -> None:
    row = row_of("t", {"description": "d", "parameters": {}, "effect": "read", "idempotent": True, "output": TICKET})
    failed = Failed("sold_out", "none", "ask tomorrow")
    assert judge_result(row, failed) is failed
