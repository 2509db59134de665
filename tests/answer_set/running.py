"""Each question as a real task over a real mesh: broker, Redis, nine services, a provider over HTTP.

In: the name of a model, questions. Out: a row per task, with what came of it.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from bulkhead.client import Mesh
from bulkhead_infra.local.supervisor import LocalMesh
from bulkhead_infra.small_model import process as small_model
from tests.answer_set import documents
from tests.answer_set.characters import CHARACTERS
from tests.answer_set.provider import ScriptedProvider
from tests.answer_set.questions import Question, judge

SCRIPTED = "scripted:"
MODELS = ("rules", "smollm2", *(SCRIPTED + name for name in CHARACTERS))
AT_ONCE = 4
DEADLINE_S, SMALL_DEADLINE_S = 60.0, 240.0
MARGIN_S = 30.0
LIMIT_TOKENS = 400_000
TOOLS = ["search_documents", "calculate", "date_difference", "date_add"]
_MARK = re.compile(r"\[unverified\b")
"""What marks a sentence in the text of an answer."""


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one task. flaw: of the scripted wrong answer, "" for others. outcome: see `outcome_of`.

    retrieved: whether the model was shown a passage of every document that a right answer rests on; None where nobody
    looked. cited: whether the answer cites each of them.
    """

    id: str
    library: str
    kind: str
    difficulty: int
    model: str
    flaw: str
    outcome: str
    verdict: str
    reasons: tuple[str, ...]
    status: str
    standing: str
    complete: bool | None
    why: str
    answer: str
    said: str
    retrieved: bool | None
    cited: bool
    model_calls: int
    duration_ms: int
    task_id: str

    @property
    def json(self) -> dict[str, Any]:
        return asdict(self)


def outcome_of(status: str, verdict: str, marked: bool, said: str) -> str:
    """`right_plain`, `right_marked`, `wrong_marked`, ... of a task with an answer; `thrown_away`, `refused` or `failed`
    of one without, as the model had said what is right, what is wrong, or nobody knows what."""
    if status == "succeeded":
        return f"{verdict}_{'marked' if marked else 'plain'}"
    return {"right": "thrown_away", "wrong": "refused"}.get(said, "failed")


async def run(models: Sequence[str], questions: tuple[Question, ...], folder: Path) -> list[Row]:
    """All of it once per model; with a wrong character, once for each wrong answer. Scripted ones share a mesh."""
    rows, scripted = [], [model for model in models if model.startswith(SCRIPTED)]
    for model in set(models) - set(scripted):
        own = folder / model
        own.mkdir()
        environ = small_model.run_small_model(own / "small-model.log") if model == "smollm2" else _nothing()
        async with environ as settings, _mesh(own, settings, questions) as clients:
            rows += await _all(model, clients, questions)
    if scripted:
        async with ScriptedProvider(questions) as provider, _mesh(folder, provider.settings, questions) as clients:
            for model in scripted:
                rows += await _rounds(model, clients, questions, provider)
    return rows


async def _rounds(
    model: str, clients: Mapping[str, Mesh], questions: tuple[Question, ...], provider: ScriptedProvider
) -> list[Row]:
    character = CHARACTERS[model.removeprefix(SCRIPTED)]
    if not character.wrong:
        provider.become(character, {question.id: question.reference for question in questions})
        return await _all(model, clients, questions, provider)
    rows = []
    for number in range(max(len(question.wrong_answers) for question in questions)):
        # A task is known by its question, so each round asks every question once.
        asked = tuple(question for question in questions if number < len(question.wrong_answers))
        provider.become(character, {question.id: question.wrong_answers[number].text for question in asked})
        rows += await _all(model, clients, asked, provider, number)
    return rows


@asynccontextmanager
async def _nothing() -> AsyncIterator[Mapping[str, str]]:
    yield {}


@asynccontextmanager
async def _mesh(
    folder: Path, settings: Mapping[str, str], questions: Iterable[Question]
) -> AsyncIterator[dict[str, Mesh]]:
    """A client per library, whose tenant has all documents of it."""
    libraries = sorted({question.library for question in questions})
    tenants = folder / "tenants.yaml"
    row = {
        "tools": TOOLS,
        "document_scopes": ["default"],
        "task": {"cost_usd_micros": 5_000_000, "tokens": 5_000_000, "deadline_ms": 600_000},
        "day": {"cost_usd_micros": 500_000_000, "tokens": 500_000_000},
    }
    tenants.write_text(yaml.safe_dump({"tenants": dict.fromkeys(("demo", *libraries), row)}))
    environ = {**os.environ, **settings}
    async with LocalMesh(folder / "mesh", tenants=tenants, offline_model=not settings, environ=environ) as mesh:
        clients = {name: Mesh(mesh.url, mesh.add_api_key(name, "asker", "submitter")) for name in libraries}
        try:
            for name, client in clients.items():
                for document, content in documents.of_library(name).items():
                    receipt = await client.add_document(content, document)
                    if receipt["outcome"] not in ("ingested", "unchanged"):
                        raise RuntimeError(f"{document} was not taken in: {receipt}")
            yield clients
        finally:
            for client in clients.values():
                await client.close()


async def _all(
    model: str,
    clients: Mapping[str, Mesh],
    questions: tuple[Question, ...],
    provider: ScriptedProvider | None = None,
    wrong: int | None = None,
) -> list[Row]:
    slots = asyncio.Semaphore(1 if model == "smollm2" else AT_ONCE)
    deadline_s = SMALL_DEADLINE_S if model == "smollm2" else DEADLINE_S

    async def one(question: Question) -> Row:
        async with slots:
            task = await clients[question.library].submit(
                question.question, deadline_s=deadline_s, limit_tokens=LIMIT_TOKENS
            )
            try:
                document = await task.wait_until_ended(deadline_s + MARGIN_S)
            except TimeoutError:
                document = await task.show()
        return row_of(model, question, document, provider, wrong)

    return list(await asyncio.gather(*(one(question) for question in questions)))


def row_of(
    model: str,
    question: Question,
    document: Mapping[str, Any],
    provider: ScriptedProvider | None = None,
    wrong: int | None = None,
) -> Row:
    """The row of an ended task."""
    result, failure, answer = document.get("result") or {}, document.get("failure") or {}, document.get("answer") or ""
    said = provider.answers[question.id] if provider else ""
    marked = (
        document.get("standing") not in (None, "ok") or document.get("complete") is False or bool(_MARK.search(answer))
    )
    judgement = judge(question, answer)
    verdict = judgement.verdict if document["status"] == "succeeded" else ""
    if wrong is not None and verdict == "mixed":
        verdict = "wrong"  # It was told to add what is wrong.
    cited = {one["document"] for one in result.get("citations", ())}
    wanted = set(question.must_cite)
    return Row(
        id=question.id,
        library=question.library,
        kind=question.kind,
        difficulty=question.difficulty,
        model=model,
        flaw=question.wrong_answers[wrong].flaw if wrong is not None else "",
        outcome=outcome_of(document["status"], verdict, marked, judge(question, said).verdict if said else ""),
        verdict=verdict,
        reasons=judgement.reasons if verdict else (),
        status=document["status"],
        standing=document.get("standing") or "",
        complete=document.get("complete"),
        why=failure.get("message") or result.get("standing_reason") or "",
        answer=answer,
        said=said,
        retrieved=wanted <= provider.retrieved[question.id] if provider else None,
        cited=wanted <= cited,
        model_calls=document["usage"]["model_calls"],
        duration_ms=document["duration_ms"],
        task_id=document["task_id"],
    )
