"""Work on a conversation grows with its size, not with the square: one request must not hold up a replica's loop."""

import base64
from typing import Any

import pytest

from bulkhead.health.sources import outside_acts
from bulkhead.model_apis.allowed import ANTHROPIC, CHAT
from bulkhead.model_apis.anthropic_view import view_anthropic
from bulkhead.model_apis.bounding import bound_payload
from bulkhead.model_apis.media import PdfSize, estimate_body, media_tokens_to_reserve, sha256_of, without_media
from bulkhead.model_apis.responses_view import view_responses
from bulkhead.quotas.token_estimates import TokenCounter
from tests.growth import MOST_GROWTH, growth_of

PDF = b"%PDF-1.4\n" + b"x" * 90


def added_items(count: int) -> list[dict[str, Any]]:
    tools = [{"type": "function", "name": f"t{number}"} for number in range(count)]
    return [
        {"type": "additional_tools", "role": "developer", "tools": tools[at : at + 120]} for at in range(0, count, 120)
    ]


def added_and_removed(count: int) -> list[dict[str, Any]]:
    added = [
        {"type": "tool_addition", "tool": {"definition": {"name": f"t{n}", "input_schema": {}}}} for n in range(count)
    ]
    removed = [{"type": "tool_removal", "tool": {"name": f"t{n}"}} for n in range(1, count)]
    return [{"role": "system", "content": added}, {"role": "system", "content": removed}]


def edits(count: int) -> dict[str, Any]:
    rows = [{"type": "clear_thinking_", "a": number} for number in range(count)]
    return {"messages": [], "context_management": {"edits": rows}}


def functions(count: int) -> dict[str, Any]:
    return {"messages": [], "tools": [{"type": "function", "function": {"name": f"t{n}"}} for n in range(count)]}


def repeated_questions(count: int) -> list[dict[str, Any]]:
    call = "name: " * 600 + "tool: look, arguments: here"
    questions = [{"role": "user", "content": "again"}] * count
    return [{"role": "assistant", "content": call}, *questions, {"role": "assistant", "content": call}, questions[0]]


@pytest.mark.parametrize(
    ("build", "work"),
    [
        (added_items, lambda rows: view_responses(rows, {})),
        (added_and_removed, lambda rows: view_anthropic(rows, {})),
        (edits, lambda payload: bound_payload(ANTHROPIC, payload, {})),
        (functions, lambda payload: bound_payload(CHAT, payload, {})),
    ],
    ids=["added-tools", "removed-tools", "edits", "tools"],
)
def test_work_grows_with_what_is_sent(build: Any, work: Any) -> None:
    assert growth_of(build, work) < MOST_GROWTH


def test_an_answer_is_judged_once_for_all_questions_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = []
    judge = outside_acts._written_tool
    monkeypatch.setattr(outside_acts, "_written_tool", lambda *texts: judged.append(texts) or judge(*texts))
    assert len(outside_acts.acts_of(repeated_questions(500))) == 1 and len(judged) <= 3


class CountingCounter(TokenCounter):
    """Counter of how much text it was given."""

    counted_bytes = 0

    def weight_of(self, data: bytes) -> float:
        self.counted_bytes += len(data)
        return super().weight_of(data)


def test_a_document_that_is_shown_often_is_counted_once() -> None:
    part = {"type": "file", "file": {"file_data": base64.b64encode(PDF).decode()}}
    payload = {"messages": [{"role": "user", "content": [part] * 50}]}
    pdfs = {sha256_of(PDF): PdfSize(1, "word " * 20_000)}
    bound_payload(CHAT, payload, pdfs)
    body = str(payload).replace("'", '"').encode()
    counter = CountingCounter("gpt-4.1")
    text_tokens = TokenCounter("gpt-4.1").estimate(b"word " * 20_000)
    assert estimate_body(counter, body, pdfs) > 50 * text_tokens
    assert media_tokens_to_reserve(without_media(body)[1], pdfs, counter.estimate, "gpt-4.1") > 50 * text_tokens
    assert counter.counted_bytes < 3 * 100_000
