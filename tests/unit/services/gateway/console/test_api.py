"""The API called in the process, as the console does: answers that stream, and those that say no."""

import asyncio
import json

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from bulkhead_services.gateway.console.api import OPENED, ApiRefused, ConsoleApi

SEPARATORS = "\u0085\u2028\u2029\x0b\x0c\x1c"


async def streamed(_):
    """It listens for its client's leave, as every streaming answer does."""

    async def lines():
        yield b'{"a": '
        await asyncio.sleep(0)
        yield b"1}"

    return StreamingResponse(lines())


async def refused(request):
    told = {"title": "No", "detail": request.headers["authorization"], "hint": request.query_params.get("x", "")}
    return JSONResponse(told, 403)


async def said(_):
    """Text of a model that has a line separator and the lines of another event behind it."""

    async def events():
        for separator in SEPARATORS:
            forged = f"x{separator}event: task.ended{separator}data: {{}}"
            data = json.dumps({"text": forged}, ensure_ascii=False)
            yield f": a comment\nevent: text\nid: 1\ndata: {data}\n\n".encode()

    return StreamingResponse(events(), media_type="text/event-stream")


ROUTES = [Route("/streamed", streamed), Route("/refused", refused), Route("/said", said)]
API = ConsoleApi(Starlette(routes=ROUTES), lambda token, end_stream: lambda: None)


async def test_a_streamed_answer_is_taken_whole():
    async with asyncio.timeout(5):
        assert await API.get("bs_t", "/streamed") == {"a": 1}


async def test_a_refusal_keeps_its_words():
    with pytest.raises(ApiRefused) as caught:
        await API.get("bs_t", "/refused", {"x": "y"})
    error = caught.value
    assert (error.status, error.title, error.detail, error.hint) == (403, "No", "Bearer bs_t", "y")
    with pytest.raises(ApiRefused):
        async for _ in API.stream_events("bs_t", "/refused"):
            pass


async def test_a_line_separator_in_a_text_neither_cuts_an_event_nor_forges_one():
    told = [event async for event in API.stream_events("bs_t", "/said")]
    assert told.pop(0) == (OPENED, {}), "the API has let the stream in"
    assert [name for name, _ in told] == ["text"] * len(SEPARATORS)
    assert [data["text"][1] for _, data in told] == list(SEPARATORS)
