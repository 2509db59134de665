"""A scripted model behind OpenAI's chat format over real HTTP, streamed.

In: calls of a mesh. What a call is for is told by its form alone: a JSON schema with steps wants a plan, another one a
verdict, tools that were not called yet want a search, everything else an answer. Out: what the character says.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from bulkhead.http_server.tcp_ports import free_port
from tests.answer_set import characters
from tests.answer_set.characters import Character, Passage
from tests.answer_set.questions import Question

MODEL = "scripted-1"
PIECE_CHARS = 40
_PASSAGE = re.compile(r"\[\[part kind=passage id=([0-9a-f]{12})([^\]]*)\]\]\n(.*?)\n\[\[/part \1\]\]", re.S)
_SOURCE = re.compile(r'source="([^"]*)"')


class ScriptedProvider:
    """`async with ScriptedProvider(questions) as provider`. answers: question id -> the answer that it gives.

    retrieved: question id -> documents of which it was shown a passage.
    """

    def __init__(self, questions: tuple[Question, ...]) -> None:
        self.answers: Mapping[str, str] = {}
        self.retrieved: dict[str, set[str]] = {}
        # The longest first, in case one question stands within another.
        self._questions = sorted(questions, key=lambda one: -len(one.question))
        self._calls: Counter[tuple[str, str]] = Counter()

    async def __aenter__(self) -> Self:
        app = Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])])
        port = free_port()
        self._server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="off"))
        self._serving = asyncio.create_task(self._server.serve())
        while not self._server.started:
            await asyncio.sleep(0.01)
        self.settings: Mapping[str, str] = {
            "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
            "OPENAI_API_KEY": "scripted",
            "BULKHEAD_MODEL": MODEL,
            "BULKHEAD_FREE_MODELS": f'["{MODEL}"]',
            "BULKHEAD_CONTEXT_TOKENS": "128000",
        }
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._serving

    def become(self, character: Character, answers: Mapping[str, str]) -> None:
        """Be this character, for tasks that begin from now on."""
        self._character, self.answers = character, answers
        self.retrieved = {name: set() for name in answers}
        self._calls.clear()

    async def _chat(self, request: Request) -> JSONResponse | StreamingResponse:
        body = await request.json()
        said, search = self._say(body)
        if said is None:
            error = {"message": "no question of the set stands in this request", "type": "invalid_request_error"}
            return JSONResponse({"error": error}, 400)
        return StreamingResponse(_stream(body, said, search), media_type="text/event-stream")

    def _say(self, body: dict[str, Any]) -> tuple[str | None, str]:
        """Text, and the query of a search in its place."""
        texts = [str(message.get("content") or "") for message in body["messages"] if message["role"] != "system"]
        text = "\n".join(texts)
        question = next((one for one in self._questions if one.question in text), None)
        if question is None:
            return None, ""
        passages = tuple(
            Passage(name, source[1] if (source := _SOURCE.search(attributes)) else "", content)
            for name, attributes, content in _PASSAGE.findall(text)
        )
        character, form = self._character, body.get("response_format") or {}
        schema = form.get("json_schema", {}).get("schema", {})
        if form:
            kind = "plan" if "steps" in schema.get("properties", {}) else "verdict"
            number = self._calls[question.id, kind]
            self._calls[question.id, kind] += 1
            if kind == "plan":
                return character.form(question, characters.plan(question), number), ""
            wanted = characters.verdict(question, self.answers[question.id], text, schema, passages, character.wrong)
            return character.form(question, wanted, number), ""
        if body.get("tools") and not any(message["role"] == "tool" for message in body["messages"]):
            return "", question.search or question.question
        self.retrieved[question.id] |= {one.source for one in passages}
        return character.answer(question, self.answers[question.id], passages), ""


async def _stream(body: dict[str, Any], text: str, search: str) -> AsyncIterator[str]:
    if search:
        function = {"name": "search_documents", "arguments": json.dumps({"query": search}, ensure_ascii=False)}
        call = {"index": 0, "id": "call_search", "type": "function", "function": function}
        yield _chunk(body, [_choice({"role": "assistant", "content": None, "tool_calls": [call]})])
    for at in range(0, len(text), PIECE_CHARS):
        yield _chunk(body, [_choice({"role": "assistant", "content": text[at : at + PIECE_CHARS]})])
    yield _chunk(body, [_choice({}, "tool_calls" if search else "stop")])
    sent, given = len(json.dumps(body["messages"])) // 4, 1 + len(text + search) // 4
    usage = {"prompt_tokens": sent, "completion_tokens": given, "total_tokens": sent + given}
    yield _chunk(body, [], usage=usage)
    yield "data: [DONE]\n\n"


def _choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish}


def _chunk(body: dict[str, Any], choices: list[dict[str, Any]], **more: Any) -> str:
    head = {"id": "scripted", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    return f"data: {json.dumps(head | {'choices': choices} | more, ensure_ascii=False)}\n\n"
