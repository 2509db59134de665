"""A model that does not do as it is told, over real HTTP: every task ends, marked for what it is."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import subjects
from bulkhead_contracts.model import ModelCallReplied
from tests.integration.memory_mesh.test_whole import ended, mesh_beside, submit
from tests.unit.services.model_gateway.scripted_provider import Exchange, ScriptedProvider, fails, says

PLAN = '{"steps": [{"id": "a", "instruction": "Say that it is so."}]}'
ACCEPT = '{"verdict": "accept", "score": 1, "reasons": ["It is so."]}'
SAID = "It is so."
THOUGHT = "<think>\nThe user wants a plan. secret\n</think>\n"
SORRY = "I'm sorry, but I can't help with that."


class Character:
    """Answers by what is asked for: a plan, a verdict, text; counts what was asked."""

    def __init__(self, **answers: str) -> None:
        self.answers: Mapping[str, str] = answers
        self.asked: list[str] = []

    async def __call__(self, x: Exchange) -> None:
        form: dict[str, Any] = x.body.get("response_format", {})
        kind = form.get("json_schema", {}).get("name", "text")
        self.asked.append(kind)
        answer = self.answers[kind]
        await (says(answer) if answer else fails(400, "response_format is not supported"))(x)


@asynccontextmanager
async def mesh_of(character: Character, folder: Any) -> AsyncIterator[MemoryMesh]:
    async with ScriptedProvider() as provider, mesh_beside(provider.url, folder) as mesh:
        provider.will(character)
        yield mesh


@pytest.mark.parametrize(
    ("plan", "said", "judge"),
    [
        (f"```json\n{PLAN}\n```", SAID, f"```json\n{ACCEPT}\n```"),
        (f"{THOUGHT}Sure, here it is:\n{PLAN}\nAnything else?", THOUGHT + SAID, THOUGHT + ACCEPT),
        (PLAN.replace('"', "'"), f"{SAID}<|im_end|>", "Here you go:\n\n" + ACCEPT[:-1]),
        ('{"plan": ' + PLAN[:-1] + "}", f"<answer>{SAID}</answer>", '{"verdict": "Accepted", "reasons": "ok"}'),
    ],
    ids=["fences", "thinking and prose", "other spelling", "wrappers"],
)
async def test_what_is_right_but_for_its_form_is_a_plain_success(tmp_path, plan, said, judge):
    character = Character(plan=plan, text=said, verdict=judge)
    async with mesh_of(character, tmp_path) as mesh:
        await submit(mesh, "Say that it is so.")
        end = await ended(mesh)
        assert (end.status, end.result.standing) == ("succeeded", "ok"), (end.failure, end.result)
        assert await mesh.context("gateway").blobs.get_text("demo", end.result.content) == SAID
        assert character.asked == ["plan", "text", "verdict"]
        reply = await mesh.wait_for_fact(
            subjects.mesh_subject("model_gateway", "planner", "demo", "t1"), ModelCallReplied
        )
        assert reply.changes and await mesh.context("planner").blobs.get_text("demo", reply.raw) == plan


@pytest.mark.parametrize(
    "plan",
    [SORRY, PLAN[:30], THOUGHT[:20], '{"name": "search_documents", "arguments": {"query": "x"}}', ""],
    ids=["refusal", "half JSON", "only thinking", "a call as text", "an error"],
)
async def test_without_a_plan_the_objective_runs_and_the_answer_says_so(tmp_path, plan):
    character = Character(plan=plan, text=SAID, verdict=ACCEPT)
    async with mesh_of(character, tmp_path) as mesh:
        await submit(mesh, "Say that it is so.")
        end = await ended(mesh)
        assert (end.status, end.result.standing) == ("succeeded", "degraded"), (end.failure, end.result)
        assert "the objective was run as one step" in end.result.standing_reason
        assert character.asked.count("plan") == 2


async def test_a_model_that_refuses_everything_ends_the_task_with_a_reason(tmp_path):
    character = Character(plan=SORRY, text=THOUGHT, verdict=SORRY)
    async with mesh_of(character, tmp_path) as mesh:
        await submit(mesh, "Say that it is so.")
        end = await ended(mesh)
        assert (end.status, end.failure.code) == ("failed", "step_failed")
        assert "thought and gave no answer" in end.failure.message
        assert len(character.asked) == 5
