"""An agent whose answers break the protocol: each ends the call by a name, and none is a bug of ours."""

import contextlib
import json
from collections.abc import Iterable

import pytest
from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from bulkhead.runtime.errors import HandBack
from bulkhead.tools.api import Done, Failed
from tests import a2a_agent
from tests.unit.services.tool_executor.a2a.conftest import Far, House

SSE = "text/event-stream"
DEEP = '{"jsonrpc":"2.0","id":"1","result":' + '{"a":' * 5_000 + "1" + "}" * 5_000 + "}"


def rpc(result: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": "1", "result": result})


def told(*results: object) -> str:
    return "".join(f"data: {rpc(one)}\n\n" for one in results)


def status(state: str, **more: object) -> dict[str, object]:
    return {"statusUpdate": {"taskId": "t", "contextId": "c", "status": {"state": f"TASK_STATE_{state}", **more}}}


@pytest.mark.parametrize(
    ("code", "media", "body", "failure"),
    [
        (200, "application/json", "no json", "malformed_output"),
        (200, "application/json", "[]", "malformed_output"),
        (200, "application/json", '{"jsonrpc":"2.0"}', "malformed_output"),
        (200, "application/json", rpc([]), "malformed_output"),
        (200, "application/json", rpc({"task": 7}), "malformed_output"),
        (200, "application/json", DEEP, "malformed_output"),
        (200, SSE, "", "malformed_output"),
        (200, SSE, "data: {\n\n", "malformed_output"),
        (200, SSE, told({"artifactUpdate": {"artifact": {"parts": [{"raw": "%%"}]}}}), "malformed_output"),
        (200, SSE, told({"message": {"parts": []}}), "empty_answer"),
        (200, SSE, told(status("COMPLETED")), "empty_answer"),
        (200, SSE, told(status("FAILED", message={"parts": [{"url": "http://x"}]})), "remote_failed"),
        (200, "application/json", '{"jsonrpc":"2.0","id":"1","error":{"code":-32602}}', "remote_refused"),
        (200, "application/json", '{"jsonrpc":"2.0","id":"1","error":{"code":-32603,"message":"x"}}', "remote_error"),
        (200, "application/json", '{"jsonrpc":"2.0","id":"1","error":"x"}', "malformed_output"),
        (200, SSE, told({"task": {"id": "t" * 257, "status": {"state": "TASK_STATE_WORKING"}}}), "malformed_output"),
        (200, SSE, told({"task": {"id": "t\n", "status": {"state": "TASK_STATE_WORKING"}}}), "malformed_output"),
        (302, "text/plain", "", "remote_error"),
        (401, "text/plain", "", "remote_refused"),
        (500, "text/plain", "", "connection_lost"),
    ],
)
@pytest.mark.slow
async def test_what_breaks_the_protocol_has_a_name(
    house: House, code: int, media: str, body: str, failure: str
) -> None:
    far = Far()
    await answering(far, code, media, body)
    try:
        await house.pin(far)
        said = await house.call(await house.desk(), "hello")
        assert not isinstance(said, Done) and said.code == failure, said
        assert isinstance(said, Failed) and (said.effect == "none") == (failure == "remote_refused")
    finally:
        await far.close()


async def answering(far: Far, code: int, media: str, body: str) -> list[str]:
    """A server that answers each message so. Returns the messages, as they come."""
    card, posted = json.dumps(MessageToDict(a2a_agent.card(far.url))), list[str]()

    async def answer(request: Request) -> Response:
        if request.method == "GET":
            return Response(card, media_type="application/json")
        posted.append((await request.body()).decode())

        def pieces() -> Iterable[bytes]:
            yield body.encode()

        return StreamingResponse(pieces(), code, {"location": "http://127.0.0.1:1/"}, media)

    await far.open(Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])]))
    return posted


def error(code: int) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": "1", "error": {"code": code, "message": "no"}})


@pytest.mark.parametrize(
    ("code", "media", "body", "begun"),
    [
        (200, "application/json", error(-32602), False),  # InvalidParams
        (200, "application/json", error(-32601), False),  # MethodNotFound
        (200, "application/json", error(-32009), False),  # VersionNotSupported
        (401, "text/plain", "", False),
        (404, "text/plain", "", False),
        (200, "application/json", error(-32006), True),  # InvalidAgentResponse
        (200, "application/json", error(-32004), True),  # UnsupportedOperation
        (
            200,
            SSE,
            told({"statusUpdate": {"status": {"state": "TASK_STATE_WORKING"}}}) + f"data: {error(-32602)}\n\n",
            True,
        ),
        (303, "text/plain", "", True),
        (408, "text/plain", "", True),
        (409, "text/plain", "", True),
        (425, "text/plain", "", True),
        (429, "text/plain", "", True),
    ],
)
async def test_a_write_that_may_have_been_done_is_uncertain_charged_and_never_sent_again(
    house: House, code: int, media: str, body: str, begun: bool
) -> None:
    far = Far()
    posted = await answering(far, code, media, body)
    try:
        await house.pin(far, effect="write", price_usd_micros=50_000)
        desk = await house.desk()
        reply = await desk.call("agent_echo", {"text": "pay 40 EUR"})
        assert reply.outcome == ("uncertain" if begun else "failed"), reply.failure
        assert reply.usage.cost_usd_micros == (50_000 if begun else 0)
        assert len(posted) == 1
        # The replica that has sent it may still be listening: until it must have given up, the message goes back.
        with pytest.raises(HandBack) if begun else contextlib.nullcontext():
            await desk.call("agent_echo", {"text": "pay 40 EUR"})
        assert len(posted) == (1 if begun else 2)
    finally:
        await far.close()
