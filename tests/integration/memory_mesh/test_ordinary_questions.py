"""Ordinary questions of a newcomer about own documents, asked of the whole mesh in memory with the offline model.

Each answer must hold the fact that was asked for; where the documents do not hold it, it must say so plainly.
"""

import asyncio
import re
import tomllib
from pathlib import Path

import pytest

from bulkhead_contracts import subjects
from bulkhead_contracts.retrieval import DocumentIngested, DocumentIngestRequested
from tests.integration.memory_mesh.test_whole import answer_of, ended, grant, mesh_in, submit

NOT_HELD = ("The documents hold no answer",)

FOLDER = Path(__file__).with_name("ordinary_questions")
QUESTIONS = {
    name: ((FOLDER / f"{name}.md").read_text(), tuple((question, tuple(wanted)) for question, wanted in asked.items()))
    for name, asked in tomllib.loads((FOLDER / "questions.toml").read_text()).items()
}
"""Documents by their name: the text, and questions with patterns that must all stand in the answer."""


@pytest.mark.parametrize("name", QUESTIONS)
async def test_an_ordinary_question_gets_the_fact_that_it_asks_for(tmp_path, name):
    document, asked = QUESTIONS[name]
    async with mesh_in(tmp_path) as mesh:
        await _ingest(mesh, {name: document})
        tasks = {f"t{number}": question for number, (question, _) in enumerate(asked)}
        await asyncio.gather(*(submit(mesh, question, task) for task, question in tasks.items()))
        answers = [await _answer(mesh, task) for task in tasks]
    wrong = []
    for (question, wanted), answer in zip(asked, answers, strict=True):
        said_nothing = NOT_HELD[0] in answer and wanted != NOT_HELD
        if said_nothing or not all(re.search(pattern, answer) for pattern in wanted):
            wrong.append(f"{question}\n{answer}")
    assert not wrong, "\n\n".join(wrong)


async def test_of_many_questions_at_once_none_is_lost(tmp_path):
    """More than a plan of the offline model has steps, over all documents together."""
    everything = [one for _, asked in QUESTIONS.values() for one in asked]
    async with mesh_in(tmp_path) as mesh:
        await _ingest(mesh, {name: document for name, (document, _) in QUESTIONS.items()})
        await submit(mesh, "\n".join(f"{number}. {question}" for number, (question, _) in enumerate(everything, 1)))
        answer = await _answer(mesh, "t1")
    lost = [question for question, wanted in everything if not all(re.search(one, answer) for one in wanted)]
    assert not lost, (lost, answer)


async def _ingest(mesh, documents):
    context = mesh.context("gateway")
    for name, document in documents.items():
        body = DocumentIngestRequested(
            name=f"{name}.md", media_type="text/markdown", content=await context.blobs.put("demo", document)
        )
        await context.publisher.send("rag", body, tenant="demo", task=name, cause=name, grant=grant(mesh, name))
        done = await mesh.wait_for_fact(subjects.task_filter("gateway", "demo", name), DocumentIngested)
        assert done.outcome == "ingested", done


async def _answer(mesh, task):
    end = await ended(mesh, task)
    return await answer_of(mesh, end) if end.status == "succeeded" else f"{end.status}: {end.failure}"
