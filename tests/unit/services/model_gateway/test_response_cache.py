"""Answers that are given again: to the very same request of the same tenant and scope, for nothing, and to no other."""

import json

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.model import ModelCallReplied, Part, ToolAnswer, ToolCall, Turn
from bulkhead_contracts.result import Usage
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.model_gateway.response_cache import CacheEntry
from tests.samples import sample
from tests.unit.services.model_gateway.gateway_desk import PRICED, TASK, TENANT, Desk, deltas, desk
from tests.unit.services.model_gateway.scripted_provider import ScriptedProvider, calls, fails, says

READ = ToolSpec(name="calculate", description="Computes.", parameters_json='{"type": "object"}')
WRITE = READ.model_copy(update={"effect": "write"})
CALL = {"id": "k0", "name": "calculate", "arguments": '{"a": 1}'}
ONCE = Usage(cached_calls=1)


@pytest.fixture
async def provider():
    async with ScriptedProvider() as found:
        yield found


async def entries(d: Desk) -> list[StoredMessage]:
    return await d.mesh.messages(subjects.CACHE_STREAM)


def cache_of(d: Desk):
    return d.mesh.running[("model_gateway", "0")].service.component._cache


async def again(d: Desk, call_id: str = "c2", **more) -> ModelCallReplied:
    return await d.answered(d.request(call_id=call_id, **more))


def token(
    d: Desk, *, task: str = TASK, tools: tuple[str, ...] = ("calculate",), scopes: tuple[str, ...] = ("default",)
):
    top = sample(TaskGrant, tenant=TENANT, task=TASK, tools=("calculate", "other"), document_scopes=scopes, actor=task)
    step = sample(StepGrant, tenant=TENANT, task=TASK, step_id="s", tools=tools)
    signed = d.mesh.context("signer").signer.sign_grant(top)
    return d.mesh.context("planner").signer.sign_grant(step, parent=signed)


async def test_a_second_identical_request_costs_nothing_and_says_so(provider):
    provider.will(says("hello world"))
    async with desk(provider, cache_ttl_s=60) as d:
        first, live = await d.answered(), await d.live()
        second = await again(d)
        assert (first.cached, second.cached) == (False, True)
        assert second.usage == ONCE and second.provider_attempts == 0
        told = (second.content, second.finish, second.model, second.fingerprint, second.standing, second.provenance)
        assert told == (first.content, first.finish, first.model, first.fingerprint, "ok", first.provenance)
        assert len(provider.asked) == len(d.purse.asked) == 1 and len(await d.settled(1)) == 1
        (delta,) = await deltas(live, "hello world")
        assert delta.call_id == "c2", "what is given again is live text too, in one piece"


async def test_nothing_is_given_again_where_the_route_does_not_say_so(provider):
    provider.will(says("one"), says("two"))
    async with desk(provider) as d:
        await d.answered()
        assert not (await again(d)).cached and len(provider.asked) == 2 and not await entries(d)


@pytest.mark.parametrize(
    "other",
    [
        {"parts": (Part(kind="step", text="Say goodbye."),)},
        {"max_output_tokens": 17},
        {"attempt": 2},
        {"tools": (READ,)},
        {"prompt_id": "planner.draft"},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_another_request_is_asked_anew(provider, other):
    provider.will(says("one"), says("two"))
    async with desk(provider, cache_ttl_s=60) as d:
        await d.answered()
        assert not (await again(d, **other)).cached and len(provider.asked) == 2


async def test_another_person_with_the_same_scope_is_answered_and_another_scope_is_not(provider):
    provider.will(says("one"), says("two"), says("three"))
    async with desk(provider, cache_ttl_s=60) as d:
        await d.ask(d.request(), grant=token(d))
        same = await d.ask(d.request(call_id="c2"), grant=token(d, task="somebody else"))
        narrower = await d.ask(d.request(call_id="c3"), grant=token(d, tools=()))
        elsewhere = await d.ask(d.request(call_id="c4"), grant=token(d, scopes=("secret",)))
        assert [one.cached for one in (same, narrower, elsewhere)] == [True, False, False]


async def test_an_old_answer_is_not_given_again(provider):
    provider.will(says("one"), says("two"))
    async with desk(provider, cache_ttl_s=60) as d:
        await d.answered()
        cache_of(d)._clock = lambda: d.now_ms() + 59_000
        assert (await again(d)).cached
        cache_of(d)._clock = lambda: d.now_ms() + 61_000
        assert not (await again(d, "c3")).cached and len(provider.asked) == 2


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        (lambda: (fails(400, "no"),), {}),
        (lambda: (says("cut", finish="length"),), {}),
        (lambda: (says(""),), {}),
        (lambda: (calls(CALL),), {"tools": (WRITE,)}),
        (lambda: (calls({**CALL, "name": "unheard_of"}),), {"tools": (READ,)}),
        (lambda: (says("{ half"),), {"response": "plan", "stream": False}),
    ],
    ids=["failed", "truncated", "empty", "writes", "unknown tool", "malformed"],
)
async def test_what_is_not_kept(provider, answers, asked):
    provider.will(*answers())
    async with desk(provider, cache_ttl_s=60, provider_attempts=1) as d:
        await d.ask(d.request(**asked))
        assert not await entries(d)


async def test_calls_of_tools_that_only_read_are_given_again(provider):
    provider.will(calls(CALL))
    async with desk(provider, cache_ttl_s=60) as d:
        first, second = await d.answered(d.request(tools=(READ,))), await again(d, tools=(READ,))
        assert second.cached and second.tool_calls == first.tool_calls and second.finish == "tool_calls"


async def test_an_answer_of_the_fallback_is_not_kept(provider):
    provider.will(fails(503, "down"), says("from the fallback"))
    async with desk(provider, cache_ttl_s=60, provider_attempts=1, fallback_model=PRICED) as d:
        reply = await d.answered()
        assert reply.standing == "degraded" and not await entries(d)


async def test_what_was_left_out_of_the_prompt_is_told_again(provider):
    provider.will(says("ok"))
    async with desk(provider, cache_ttl_s=60, context_tokens=4_000) as d:
        long = Part(kind="input", content=await d.store("All visitors sign the book. " * 600))
        first, second = await d.answered(d.request(parts=(long,))), await again(d, parts=(long,))
        assert second.cached and second.completeness == first.completeness and not second.completeness.complete


async def test_a_halted_task_gets_no_answer_from_the_cache_either(provider):
    provider.will(says("ok"))
    async with desk(provider, cache_ttl_s=60) as d:
        await d.answered()
        await d.halt()
        reply = await d.ask(d.request(call_id="c2"))
        assert reply.outcome == "refused" and reply.failure.code == "halted" and not reply.cached


async def test_a_tenant_has_so_many_places_and_no_more(provider, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_CACHED_ANSWERS", 4)
    provider.will(*(says(f"answer {n}") for n in range(12)))
    async with desk(provider, cache_ttl_s=60) as d:
        for n in range(12):
            await d.answered(d.request(call_id=f"c{n}", parts=(Part(kind="step", text=f"Say {n}."),)))
        newest = await d.answered(d.request(call_id="again", parts=(Part(kind="step", text="Say 11."),)))
        assert newest.cached, "what is new takes the place of what is old"
        found = await entries(d)
        assert 2 <= len(found) <= 4
        assert all(one.subject.startswith(f"cache.model_gateway.{TENANT}.") for one in found)
        assert all(len(one.body) <= bounds.MAX_CACHED_ANSWER_BYTES for one in found)


# Lies


async def planted(d: Desk, **lie) -> None:
    """Put a changed entry where the true one lies."""
    (stored,) = await entries(d)
    body = json.dumps({**json.loads(stored.body), **lie}).encode()
    await d.mesh.context("model_gateway").bus.publish(stored.subject, body, {}, f"lie-{sorted(lie)}")


@pytest.mark.parametrize(
    "lie",
    [
        {"tenant": "other"},
        {"mac": "0" * 64},
        {"finish": "tool_calls"},
        {"stored_unix_ms": 0},
        {"content": {"author": "worker", "sha256": "0" * 64, "size_bytes": 3}},
        {"key": "0" * 64},
        {"calls": "what"},
    ],
    ids=lambda lie: next(iter(lie)),
)
async def test_a_lie_in_the_cache_is_not_believed(provider, lie):
    provider.will(says("true"), says("asked anew"))
    async with desk(provider, cache_ttl_s=60) as d:
        await d.answered()
        await planted(d, **lie)
        reply = await again(d)
        assert not reply.cached and await d.text(reply.content) == "asked anew"


async def test_an_entry_of_another_tenant_is_not_believed_though_it_is_well_signed(provider):
    """As if its own stream had been copied under another tenant's subject."""
    provider.will(says("ours"), says("asked anew"))
    async with desk(provider, cache_ttl_s=60) as d:
        await d.answered()
        (stored,) = await entries(d)
        entry = CacheEntry.model_validate_json(stored.body)
        cache = cache_of(d)
        place = stored.subject.replace(f".{TENANT}.", ".other.")
        await d.mesh.context("model_gateway").bus.publish(place, stored.body, {}, "copied")
        assert await cache.find_answer("other", entry.key, 60) is None
        assert (await cache.find_answer(TENANT, entry.key, 60)).text == "ours"


async def test_content_that_is_gone_or_changed_is_asked_anew(provider):
    provider.will(says("It is true. " * 20), says("asked anew"))
    async with desk(provider, cache_ttl_s=60) as d:
        first = await d.answered()
        cache_of(d)._blobs._cache.clear()
        blob = subjects.blob_subject("model_gateway", TENANT, first.content.sha256)
        stream = d.mesh.broker._streams[subjects.BLOBS_STREAM]
        stream.delete(stream.newest(blob).sequence)
        assert not (await again(d)).cached


def turn(number: int) -> Turn:
    call = ToolCall(id=f"k{number}", name="calculate", arguments_json="{}")
    return Turn(tool_calls=(call,), answers=(ToolAnswer(tool_call_id=call.id),))


async def test_each_turn_of_a_step_has_its_own_answer(provider):
    provider.will(says("one"), says("two"))
    async with desk(provider, cache_ttl_s=60) as d:
        for call_id, turns, known in (("a", 0, False), ("b", 1, False), ("c", 0, True), ("d", 1, True)):
            asked = {"tools": (READ,), "turns": tuple(turn(n) for n in range(turns))}
            reply = await again(d, call_id, **asked)
            assert (reply.cached, await d.text(reply.content)) == (known, ("one", "two")[turns])
