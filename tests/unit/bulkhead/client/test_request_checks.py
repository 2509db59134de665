"""What a caller of bulkhead.client gets wrong is a ValueError that says what, why and what to do; nothing is sent."""

import asyncio
import inspect
import math
import traceback
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from bulkhead.client import Closed, Mesh, MeshError, Refused, Task, Unfit, Unreachable, request_checks
from bulkhead_contracts.task_options import TaskOptions

SENT: list[httpx.Request] = []


def mesh(answer: httpx.Response | None = None) -> Mesh:
    """A client whose gateway writes down what it is asked."""
    SENT.clear()

    def take(request: httpx.Request) -> httpx.Response:
        SENT.append(request)
        return answer if answer is not None else httpx.Response(202, json={"task_id": "t1"})

    return Mesh("http://gateway", "bk_x", transport=httpx.MockTransport(take))


@pytest.mark.parametrize(
    "wanted",
    [
        {"limit_usd": "a"},
        {"limit_usd": math.nan},
        {"limit_usd": math.inf},
        {"limit_usd": -1},
        {"limit_usd": 0},
        {"limit_usd": 1e30},
        {"limit_usd": 1e-9},
        {"limit_usd": True},
        {"limit_usd": [1]},
        {"limit_usd": Decimal("NaN")},
        {"limit_tokens": 1.5},
        {"limit_tokens": 0},
        {"limit_tokens": "9"},
        {"limit_tokens": 10**30},
        {"deadline_s": 0},
        {"deadline_s": math.nan},
        {"deadline_s": 10**9},
        {"deadline_s": "2m"},
        {"tools": "search_documents"},
        {"tools": 5},
        {"tools": (1,)},
        {"plan": "steps"},
        {"plan": {"steps": {1, 2}}},
        {"plan": {"x": math.nan}},
        {"fork": ["t1"]},
        {"feature": 5},
        {"feature": "a b"},
        {"workflow": "x" * 65},
        {"delivery": "now"},
        {"constraints": "pay /amount range 0..100"},
        {"idempotency_key": "schlüssel"},
        {"idempotency_key": "a\nb"},
        {"idempotency_key": 7},
        {"idempotency_key": "x" * 256},
        {"objective": None},
        {"objective": " "},
        {"objective": b"bytes"},
        {"objective": "x" * 20_000},
        {"objective": "half \ud800"},
    ],
)
async def test_a_submission_that_cannot_be_asked_for(wanted: dict) -> None:
    async with mesh() as client:
        with pytest.raises(Unfit) as told:
            await client.submit(**{"objective": "o", **wanted})
    [name] = wanted
    assert isinstance(told.value, ValueError) and isinstance(told.value, MeshError)
    assert name in str(told.value) and told.value.hint and len(str(told.value)) < 400
    assert told.value.hint in "".join(traceback.format_exception(told.value)), "a traceback says what to do, too"
    assert not SENT


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.halt("tools", "x", "why"),
        lambda m: m.resume("tool", "", "why"),
        lambda m: m.halt("tool", "x", ""),
        lambda m: m.reset_breaker("task", "t1", "why"),
        lambda m: m.change_limit("day", {"usd": 5}),
        lambda m: m.change_limit("day", {"tokens": -1}),
        lambda m: m.change_limit("day", {"tokens": 1.5}),
        lambda m: m.change_limit("day", [1]),
        lambda m: m.change_limit("day", {}, expect_revision="x"),
        lambda m: m.tasks(0),
        lambda m: m.tasks("all"),
        lambda m: m.add_document(b"x"),
        lambda m: m.add_document(5),
        lambda m: m.delete_document(""),
        lambda m: m.task("t1").top_up({}, "why"),
        lambda m: m.task("t1").top_up({"tokens": math.nan}, "why"),
        lambda m: m.task("t1").top_up({"tokens": 1}, " "),
        lambda m: m.task("t1").cancel(5),
        lambda m: m.task("t1").result("soon"),
        lambda m: m.task("t1").result(-1),
    ],
)
async def test_other_calls_that_cannot_be_asked_for(call) -> None:
    async with mesh() as client:
        with pytest.raises(Unfit) as told:
            await call(client)
    assert told.value.hint and not SENT


@pytest.mark.parametrize("name", ["", "../tasks", "a b", None, 5, "x" * 65, "t1/events?x"])
async def test_an_id_that_is_none_goes_into_no_address(name: object) -> None:
    async with mesh() as client:
        with pytest.raises(Unfit, match="is no task's id"):
            client.task(name)


@pytest.mark.parametrize(
    "url", ["", "localhost:8080", "ftp://x", "http://", "http://[", "http://x:99999", 5, "http://a b"]
)
def test_an_address_that_is_none(url: object) -> None:
    with pytest.raises(Unfit, match=r"address of a gateway|is no text"):
        Mesh(url)


@pytest.mark.parametrize("key", ["schlüssel", "a b", "a\n", 5, None])
def test_a_key_that_is_none_is_not_shown(key: object) -> None:
    with pytest.raises(Unfit) as told:
        Mesh("http://x", key)
    assert "API key" in str(told.value) and (not isinstance(key, str) or key not in str(told.value))


async def test_a_closed_client_says_so() -> None:
    client = mesh()
    await client.close()
    for call in (client.submit("o"), client.tasks(), client.task("t1").show(), client.task("t1").result()):
        with pytest.raises(Closed, match="was closed"):
            await call
    publisher = Mesh.on_bus("nats://127.0.0.1:1", "/nowhere")
    with pytest.raises(Closed, match="not open"):
        await publisher.publish("o")
    for wanted in ({"limit_usd": "a"}, {"contract_version": 3}, {"tools": "x"}):
        with pytest.raises(Unfit):
            await publisher.publish("o", **wanted)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>It works!</html>", headers={"content-type": "text/html"}),
        httpx.Response(200, json=["x"]),
        httpx.Response(200, json={"hello": "world"}),
        httpx.Response(301, headers={"location": "https://elsewhere/"}),
    ],
)
async def test_something_else_that_answers_is_told_to_be_no_mesh(answer, monkeypatch) -> None:
    async def at_once(_: float) -> None: ...

    monkeypatch.setattr(asyncio, "sleep", at_once)
    async with mesh(answer) as client:
        for call in (client.submit("o"), client.tasks(), client.documents()):
            with pytest.raises(Unreachable, match="something else than a mesh answers at http://gateway") as told:
                await call
            assert "check the address" in told.value.hint


async def test_a_wait_that_is_over_says_that_the_task_goes_on(monkeypatch) -> None:
    async def silent(self, *_: object):
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr(Task, "events", silent)
    async with mesh() as client:
        with pytest.raises(TimeoutError, match=r"task t1 has not ended within 0\.01 s: it goes on"):
            await client.task("t1").wait_until_ended(0.01)


async def test_a_refusal_shows_its_hint_in_a_traceback() -> None:
    problem = {"title": "No", "detail": "the token has expired", "hint": "get a new one", "code": "unauthorized"}
    async with mesh(httpx.Response(401, json=problem)) as client:
        with pytest.raises(Refused) as told:
            await client.tasks()
    assert "what to do: get a new one" in "".join(traceback.format_exception(told.value))


def test_a_submission_takes_each_option_of_a_task() -> None:
    assert set(TaskOptions.model_fields) <= set(inspect.signature(Mesh.submit).parameters)


async def test_what_fits_goes_as_it_was_meant(tmp_path: Path) -> None:
    async with mesh() as client:
        await client.submit("o", limit_usd=Decimal("0.10"), limit_tokens=5, deadline_s=1, tools=["a"], feature="f.1")
        [sent] = SENT
    assert b'"cost_usd_micros":100000,' in sent.content.replace(b" ", b"") and b'"tools":["a"]' in sent.content.replace(
        b" ", b""
    )
    assert request_checks.check_document(tmp_path / "x", "") == (tmp_path / "x", "") and request_checks.check_units(
        "limit", {"tokens": None}, least=0, empty=True, removes=True
    ) == {"tokens": None}
