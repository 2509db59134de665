"""The API called in the process, as the console does: answers that stream, and those that say no."""

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from bulkhead_services.gateway.console.api import Api, Refused


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


API = Api(Starlette(routes=[Route("/streamed", streamed), Route("/refused", refused)]))


async def test_a_streamed_answer_is_taken_whole():
    async with asyncio.timeout(5):
        assert await API.get("bs_t", "/streamed") == {"a": 1}


async def test_a_refusal_keeps_its_words():
    with pytest.raises(Refused) as caught:
        await API.get("bs_t", "/refused", {"x": "y"})
    error = caught.value
    assert (error.status, error.title, error.detail, error.hint) == (403, "No", "Bearer bs_t", "y")
    with pytest.raises(Refused):
        async for _ in API.events("bs_t", "/refused"):
            pass
