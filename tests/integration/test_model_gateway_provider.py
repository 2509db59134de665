"""The model gateway against the offline model as a process of its own: every role, and what it makes up.

The runtime shell is real, the bus is in memory; the offline model is told to misbehave by its admin API.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from bulkhead.grounding.sentences import MARKER
from bulkhead.http_server.tcp_ports import free_port
from bulkhead_contracts import bounds
from bulkhead_contracts.model import Part, ToolAnswer, Turn
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.planner import draft_reading, plans
from tests.unit.services.model_gateway.gateway_desk import desk

START_S = 20.0
SEARCH = ToolSpec(
    name="search_documents",
    description="Finds passages in the documents.",
    parameters_json=json.dumps(
        {
            "type": "object",
            "properties": {"query": {"type": "string"}, "k": {"type": "integer"}},
            "required": ["query"],
            "additionalProperties": False,
        }
    ),
    served_by="rag",
)
CALCULATE = ToolSpec(
    name="calculate",
    description="Computes an arithmetic expression.",
    parameters_json=json.dumps(
        {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
    ),
)


class OfflineModel:
    """The running process and its admin API."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/v1"
        self._admin = httpx.Client(base_url=url, trust_env=False)

    def will(self, fault: str, **more: Any) -> None:
        self._admin.post("/admin/faults", json={"fault": fault, **more}).raise_for_status()

    def asked(self) -> list[dict[str, Any]]:
        return self._admin.get("/admin/requests").json()["requests"]

    def clear(self) -> None:
        self._admin.delete("/admin/faults").raise_for_status()
        self._admin.delete("/admin/requests").raise_for_status()

    def alive(self) -> bool:
        try:
            return self._admin.get("/livez").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def process() -> Iterator[OfflineModel]:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "bulkhead_infra.offline_model",
        "--port",
        str(port),
        "--admin",
        "--token-delay-ms",
        "1",
    ]
    running = subprocess.Popen(command)
    model = OfflineModel(f"http://127.0.0.1:{port}")

    async def wait() -> None:
        async with asyncio.timeout(START_S):
            while not model.alive():
                assert running.poll() is None, "the offline model ended at its start"
                await asyncio.sleep(0.05)

    try:
        asyncio.run(wait())
        yield model
    finally:
        running.terminate()
        running.wait(10)


@pytest.fixture
async def offline(process: OfflineModel) -> AsyncIterator[OfflineModel]:
    process.clear()
    yield process
    process.clear()


def before(offline: OfflineModel, **settings: Any) -> Any:
    """A gateway whose provider is the offline model."""
    return desk(offline, stall_timeout_s=0.5, **settings)  # type: ignore[arg-type]


# Roles


async def test_a_plan_passes_the_plan_checker(offline):
    async with before(offline) as d:
        text = (
            "Anna Berg's ticket cost EUR 400. Find the refund percentage for cancelled tickets. "
            "Compute the amount that is refunded. State the final answer."
        )
        parts = (
            Part(kind="objective", content=await d.store(text, "gateway")),
            Part(kind="tools", text="search_documents: finds (read)\ncalculate: computes (read)"),
        )
        for prompt, notes in (("planner.draft", ()), ("planner.revise", (Part(kind="notes", text="- a cycle"),))):
            request = d.request(
                call_id=prompt.replace(".", "-"),
                prompt_id=prompt,
                response="plan",
                stream=False,
                parts=(*parts, *notes),
                max_output_tokens=4_000,
            )
            reply = await d.ask(request, "planner", grant=d.grant(None))
            steps, notes = draft_reading.parse(await d.text(reply.content))
            assert not [
                one for one in (*notes, *plans.check_plan(steps, (SEARCH, CALCULATE))) if one.severity == "error"
            ]
            assert len(steps) > 1 and reply.model == "offline-rules-1" and "offline" in reply.fingerprint
            assert reply.usage.cost_usd_micros > 0 and reply.usage.output_tokens > 0


async def test_a_step_searches_and_answers_with_citations(offline):
    async with before(offline) as d:
        step = Part(kind="step", text="Find the refund percentage for cancelled tickets.")
        first = await d.answered(d.request(parts=(step,), tools=(SEARCH,)))
        assert first.finish == "tool_calls" and {one.name for one in first.tool_calls} == {"search_documents"}
        passage = await d.store("The refund percentage for cancelled tickets is 80 percent of the fare.")
        part = Part(kind="passage", content=passage, source="fares.md", title="Fares")
        answers = tuple(ToolAnswer(tool_call_id=one.id, parts=(part,)) for one in first.tool_calls)
        turn = Turn(content=first.content, tool_calls=first.tool_calls, answers=answers)
        reply = await d.answered(d.request(call_id="c2", parts=(step,), tools=(SEARCH,), turns=(turn,)))
        text = await d.text(reply.content)
        assert "80 percent" in text and MARKER.findall(text) == [passage.marker]


async def test_a_result_of_a_tool_is_cited_by_its_digest(offline):
    async with before(offline) as d:
        step = Part(kind="step", text="Calculate 400 * 0.8.")
        first = await d.answered(d.request(parts=(step,), tools=(CALCULATE,)))
        result = await d.store("400 * 0.8 = 320", "tool_executor")
        answer = ToolAnswer(
            tool_call_id=first.tool_calls[0].id, parts=(Part(kind="tool_result", content=result, source="calculate"),)
        )
        turn = Turn(tool_calls=first.tool_calls, answers=(answer,))
        reply = await d.answered(d.request(call_id="c2", parts=(step,), tools=(CALCULATE,), turns=(turn,)))
        assert result.marker in await d.text(reply.content)


async def test_the_judge_answers_with_a_verdict(offline):
    async with before(offline) as d:
        said = "The refund percentage is 80 percent of the fare."
        passage = await d.store(said)
        answer = await d.mesh.context("model_gateway").blobs.put("demo", f"{said[:-1]} [#{passage.marker}].")
        request = d.request(
            prompt_id="checker.judge",
            response="verdict",
            tier="judge",
            stream=False,
            parts=(
                Part(kind="step", text="Find the refund percentage."),
                Part(kind="acceptance", text="States the refund percentage."),
                Part(kind="answer", content=answer),
                Part(kind="passage", content=passage, source="fares.md"),
            ),
        )
        reply = await d.ask(request, "checker")
        verdict = json.loads(await d.text(reply.content))
        assert verdict["verdict"] == "accept" and 0 <= verdict["score"] <= 1 and verdict["reasons"]


# Faults that only the offline model shows; those of every provider are in tests/unit/services/model_gateway


async def test_a_plan_call_that_hangs_is_noticed_by_its_silence(offline):
    """Not after its whole minute: it leaves time for another attempt, which answers."""
    offline.will("stall", delay_ms=60_000)
    async with before(offline) as d:
        parts = (Part(kind="objective", text="Find the greeting."), Part(kind="tools", text="none"))
        request = d.request(
            parts=parts,
            response="plan",
            stream=False,
            prompt_id="planner.draft",
            deadline_unix_ms=d.now_ms() + bounds.DEFAULT_MODEL_CALL_TIMEOUT_MS,
        )
        began = time.monotonic()
        reply = await d.ask(request, "planner", grant=d.grant(None))
        took_s = time.monotonic() - began
        assert reply.outcome == "answered" and reply.provider_attempts == 2
        assert 0.5 <= took_s < 5.0, f"{took_s:.1f} s"
        first, second = await d.settled(2)
        assert (
            first.usage == first.usage.as_estimate()
            and not second.usage.estimated_tokens
            and reply.usage == first.usage + second.usage
        )


@pytest.mark.parametrize("fault", ["malformed_arguments", "wrong_arguments", "invented_tool", "runaway"])
async def test_hallucinated_calls_are_handed_on_as_they_are(offline, fault):
    offline.will(fault)
    async with before(offline) as d:
        parts = (Part(kind="step", text="Find the greeting."),)
        reply = await d.answered(d.request(parts=parts, tools=(SEARCH,)))
        (call, *_) = reply.tool_calls
        assert reply.finish == "tool_calls"
        assert (call.name == "summon_oracle") == (fault == "invented_tool")
        if fault == "malformed_arguments":
            with pytest.raises(ValueError):
                json.loads(call.arguments_json)


async def test_a_huge_plan_is_cut_to_what_may_be_asked_for(offline):
    offline.will("bad_plan_huge")
    async with before(offline) as d:
        parts = (Part(kind="objective", text="Find the greeting."), Part(kind="tools", text="none"))
        request = d.request(parts=parts, response="plan", stream=False, prompt_id="planner.draft")
        reply = await d.ask(request, "planner", grant=d.grant(None))
        assert reply.outcome == "answered" and reply.content.size_bytes <= bounds.MAX_MODEL_ANSWER_BYTES
        assert not reply.completeness.complete and reply.finish == "length"
