"""Queries that are embedded before their steps ask: paid once, told once, and nothing else is known before its time."""

import asyncio

import pytest

from bulkhead.runtime.errors import JobRefused
from bulkhead_contracts.control import Halt
from bulkhead_contracts.retrieval import RetrievalRequested
from tests.unit.services.rag.conftest import NOW
from tests.unit.services.rag.test_embeddings import Endpoint, endpoint, hybrid  # noqa: F401


def request(query: str = "car", **changes) -> RetrievalRequested:
    fields = {"call_id": "ahead-1", "step_id": "s1", "attempt": 0, "deadline_unix_ms": NOW + 1000, "asked_ahead": True}
    return RetrievalRequested(query=query, **fields | changes)


async def ask_ahead(desk, query: str = "car", **job):
    asked = request(query)
    return await desk.rag.act(desk.job(asked, **{"attempt": 0, **job}), desk.hands(), None)


async def test_a_step_uses_what_was_asked_ahead_and_tells_its_cost_once(hybrid, endpoint) -> None:  # noqa: F811
    await hybrid.ingest("a.md", "An automobile may be parked here.")
    ahead, calls = await ask_ahead(hybrid), endpoint.calls
    assert (ahead.outcome, ahead.passages, ahead.asked_ahead, ahead.usage.cost_usd_micros) == ("found", (), True, 7)
    assert hybrid.reserved[-1][0] == "ahead-1", "so the ledger names it"
    first = await hybrid.search("car")
    assert first.passages[0].citation.document == "a.md" and endpoint.calls == calls and not hybrid.reservations
    assert first.saved_ms == 0 and first.usage.cost_usd_micros == 7 and not first.asked_ahead
    second = await hybrid.search("car")
    assert second.saved_ms is None and second.usage.cost_usd_micros == 0


@pytest.mark.parametrize("other", [{"task": "t2"}, {"tenant": "else"}, {"query": "puppy"}, {"step": "s2"}])
async def test_another_step_does_not_take_it_for_its_own(hybrid, endpoint, other) -> None:  # noqa: F811
    await hybrid.ingest("a.md", "An automobile may be parked here.")
    await ask_ahead(hybrid)
    asked = request(
        other.pop("query", "car"), call_id="c1", step_id=other.get("step", "s1"), attempt=1, asked_ahead=False
    )
    reply = await hybrid.rag.act(hybrid.job(asked, **other), hybrid.hands(), None)
    assert reply.outcome == "found" and reply.saved_ms is None


async def test_documents_and_rights_are_those_of_the_moment_of_use(hybrid) -> None:  # noqa: F811
    await hybrid.ingest("a.md", "An automobile may be parked here.")
    await hybrid.ingest("b.md", "A vehicle may not.")
    await ask_ahead(hybrid)
    await hybrid.library.delete_document("acme", "default", "a.md")
    await hybrid.ingest("b.md", "A vehicle is washed on Mondays.", task="again")
    assert (await hybrid.search("car", scopes=())).failure.code == "no_scope"
    assert (await hybrid.search("car", scopes=("other",))).passages == ()
    found = await hybrid.search("car")
    texts = [(await hybrid.blobs.get("acme", row.content)).decode() for row in found.passages]
    assert texts == ["A vehicle is washed on Mondays."]


@pytest.mark.parametrize(
    ("changes", "attempt"), [({"asked_ahead": False}, 0), ({"attempt": 1}, 1), ({"attempt": 1}, 0), ({}, 1)]
)
async def test_under_a_grant_of_no_attempt_nothing_is_searched(hybrid, endpoint, changes, attempt) -> None:  # noqa: F811
    await hybrid.ingest("a.md", "An automobile may be parked here.")
    before = endpoint.calls
    job = hybrid.job(request(**changes), attempt=attempt)
    assert (await hybrid.rag.act(job, hybrid.hands(), None)).failure.code == "wrong_step" and endpoint.calls == before


async def test_it_is_bound_by_what_binds_the_search(hybrid, endpoint) -> None:  # noqa: F811
    assert (await ask_ahead(hybrid, tools=())).failure.code == "not_granted"
    assert (await ask_ahead(hybrid, scopes=())).failure.code == "no_scope"
    assert (await ask_ahead(hybrid, "...")).failure.code == "empty_query"
    hybrid.halt = Halt(scope="task", name="t1", code="ceiling", reason="money is spent", by="budget")
    refused = await ask_ahead(hybrid)
    assert (refused.failure.code, refused.asked_ahead) == ("halted", True)
    hybrid.halt, hybrid.refuse_money = None, True
    with pytest.raises(JobRefused):
        await ask_ahead(hybrid)
    assert endpoint.calls == 0


async def test_without_vectors_nothing_is_done(desk) -> None:
    ahead = await ask_ahead(desk)
    assert (ahead.outcome, ahead.asked_ahead) == ("found", True) and desk.reserved == []
    assert (await desk.search("car")).saved_ms is None


async def test_a_step_that_asks_meanwhile_waits_for_the_one_call(hybrid, endpoint, monkeypatch) -> None:  # noqa: F811
    await hybrid.ingest("a.md", "An automobile may be parked here.")
    began, goes_on, embed_texts, calls = asyncio.Event(), asyncio.Event(), hybrid.library.embed_texts, endpoint.calls

    async def embed_late(texts):
        began.set()
        await goes_on.wait()
        return await embed_texts(texts)

    monkeypatch.setattr(hybrid.library, "embed_texts", embed_late)
    ahead = asyncio.create_task(ask_ahead(hybrid))
    await began.wait()
    step = asyncio.create_task(hybrid.search("car"))
    await asyncio.sleep(0)
    goes_on.set()
    assert (await ahead).usage.cost_usd_micros == (await step).usage.cost_usd_micros == 7
    assert (await step).saved_ms is not None and endpoint.calls == calls + 1


async def test_what_failed_ahead_is_told_and_asked_again(hybrid, endpoint) -> None:  # noqa: F811
    await hybrid.ingest("a.md", "An automobile may be parked here.")
    endpoint.mode = "500"
    ahead = await ask_ahead(hybrid)
    assert (ahead.outcome, ahead.failure.code, ahead.asked_ahead) == ("failed", "embedding_failed", True)
    endpoint.mode = "ok"
    reply = await hybrid.search("car")
    assert (reply.standing, reply.saved_ms) == ("ok", None) and reply.passages
