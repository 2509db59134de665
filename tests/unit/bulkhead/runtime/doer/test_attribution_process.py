"""Attribution beside the event loop: what it costs others, and what is said when it takes too long."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bulkhead.policy.attribution import SourceText
from bulkhead.runtime.doer import attribution_process
from bulkhead.runtime.doer.attribution_process import Attributor, attribute_call
from bulkhead_contracts.model import ToolCall

IBAN = "DE89370400440532013000"
PAY = ToolCall(id="k", name="pay", arguments_json=json.dumps({"iban": IBAN}))
HOSTILE = "1 " * 60_000
"""Costs seconds: every number of it could begin an account."""


def source(text: str, number: int = 1, kind: str = "tool") -> SourceText:
    return SourceText(text, kind, f"{number:064x}", "note.md")  # type: ignore[arg-type]


@pytest.fixture
async def attributor() -> AsyncIterator[Attributor]:
    found = Attributor()
    yield found
    await found.stop()


def process_of(attributor: Attributor) -> asyncio.subprocess.Process:
    assert attributor._process is not None
    return attributor._process


async def longest_pause_s(work: "asyncio.Task[object]") -> float:
    longest, before = 0.0, time.perf_counter()
    while not work.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    return longest


async def test_a_long_text_gives_what_is_said_in_this_process(attributor):
    texts = [source(f"{'word ' * 5_000} {IBAN} \ud800", 1, "user"), source("a@b.example " * 500, 2)]
    assert await attributor.attribute_calls("demo", [PAY], texts) == [
        attribute_call(("pay", PAY.arguments_json), texts)
    ]


async def test_a_hostile_text_holds_up_no_other_call(attributor):
    await attributor.attribute_calls("demo", [PAY], [source("word " * 5_000)])  # The process is there.
    began = time.perf_counter()
    pause_s = await longest_pause_s(asyncio.ensure_future(attributor.attribute_calls("demo", [PAY], [source(HOSTILE)])))
    assert time.perf_counter() - began > 0.3 and pause_s < 0.15


async def test_tenants_take_turns_however_many_requests_one_brings(attributor, monkeypatch: pytest.MonkeyPatch):
    served: list[str] = []
    free = asyncio.Event()

    async def asked(said, texts, step, whole):
        served.append(texts[0].text[0])
        await free.wait()
        return [None]

    monkeypatch.setattr(attributor, "_ask_process", asked)
    waiting = []
    for tenant in ("a", "a", "a", "a", "b", "b"):
        waiting.append(asyncio.ensure_future(attributor.attribute_calls(tenant, [PAY], [source(tenant * 5_000)])))
        await asyncio.sleep(0)
    free.set()
    await asyncio.gather(*waiting)
    assert served == ["a", "a", "b", "a", "b", "a"]


async def test_what_takes_too_long_has_no_known_origin_and_the_next_call_is_attributed(attributor):
    hasty = Attributor(limit_s=0.2)
    try:
        [said] = await hasty.attribute_calls("demo", [PAY], [source(IBAN, 1, "user"), source(HOSTILE, 2)])
        assert said is not None and (said.values, said.complete, said.least) == ((), False, "model")
        hasty._limit_s = 10.0
        [said] = await hasty.attribute_calls("demo", [PAY], [source(f"{IBAN} {'word ' * 500}", 1, "user")])
        assert said is not None and said.values[0].origins[0].source == "user"
    finally:
        await hasty.stop()


@pytest.mark.slow
async def test_a_process_that_died_costs_one_attribution(attributor):
    texts = [source(f"{IBAN} {'word ' * 500}", 1, "user")]
    await attributor.attribute_calls("demo", [PAY], texts)
    os.kill(process_of(attributor).pid, signal.SIGKILL)
    [lost] = await attributor.attribute_calls("demo", [PAY], texts)
    [said] = await attributor.attribute_calls("demo", [PAY], texts)
    assert lost is not None and not lost.complete and said is not None and said.complete


async def test_the_process_has_no_keys_and_ends_with_its_service(attributor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    await attributor.attribute_calls("demo", [PAY], [source("word " * 5_000)])
    process = process_of(attributor)
    assert b"sk-secret" not in Path(f"/proc/{process.pid}/environ").read_bytes()
    await attributor.stop()
    assert process.returncode == -signal.SIGKILL


async def test_of_more_than_may_be_looked_at_the_most_trusted_come_first(attributor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attribution_process, "MAX_CHARS", 2_000)
    texts = [source("word " * 300), source(f"{IBAN} {'word ' * 50}", 2, "user"), source("word " * 300, 3)]
    [said] = await attributor.attribute_calls("demo", [PAY], texts)
    assert said is not None and (said.complete, said.least) == (False, "model")
    assert {one.source for one in said.values[0].origins} == {"user"}
