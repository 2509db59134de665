"""Prompts cut to a context by shares: what is long is cut inside and told, and what comes again begins alike."""

import json
from itertools import pairwise

import pytest

from bulkhead.quotas.token_estimates import TokenCounter
from bulkhead_contracts.model import ModelCallRequested, Part, ToolAnswer, ToolCall, Turn
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.model_gateway.context.excerpts import make_excerpt, words_of
from bulkhead_services.model_gateway.context.fitting import KIND_SHARES_PERCENT, TURNS_PERCENT, divide_room, fit_request
from bulkhead_services.model_gateway.context.render import RenderSource
from bulkhead_services.model_gateway.providers import anthropic
from bulkhead_services.model_gateway.providers.port import Chat, encode_payload

COUNTER = TokenCounter()
SYSTEM = "You carry out one step of a plan."
SEARCH = ToolSpec(name="search_documents", description="Searches.", parameters_json='{"type": "object"}')
FILLER = "All visitors sign the book at the gate. "
ANSWER = "After five years thirty days of paid leave are due."


def request(*parts: Part, **more) -> ModelCallRequested:
    given = {"call_id": "c1", "prompt_id": "worker.step", "parts": parts, "deadline_unix_ms": 1}
    return ModelCallRequested(**{**given, **more})


def fitted(asked: ModelCallRequested, budget: int):
    return fit_request(RenderSource(SYSTEM, asked, {}), budget, COUNTER)


def turn(number: int, text: str) -> Turn:
    call = ToolCall(id=f"k{number}", name="search_documents", arguments_json=json.dumps({"query": f"q{number}"}))
    part = Part(kind="tool_result", text=text)
    return Turn(tool_calls=(call,), answers=(ToolAnswer(tool_call_id=call.id, parts=(part,)),))


def user(found) -> str:
    return found.payload["messages"][1]["content"]


# Shares


def test_the_shares_are_whole():
    assert sum(KIND_SHARES_PERCENT.values()) == 100 and 0 < TURNS_PERCENT < 100


def test_what_needs_less_leaves_the_rest_to_the_others():
    assert divide_room(100, {"a": 10, "b": 500, "c": 500}, {"a": 40, "b": 20, "c": 40}) == {"a": 10, "b": 30, "c": 60}
    assert divide_room(100, {"a": 5, "b": 5}, {"a": 1, "b": 1}) == {"a": 5, "b": 5}


@pytest.mark.parametrize("budget", [2_600, 4_000, 6_000])
def test_every_kind_keeps_something_and_what_is_sent_fits(budget):
    kinds = ("objective", "step", "notes", "input", "input", "passage", "passage", "answer")
    asked = request(*(Part(kind=kind, text=FILLER * 380, title=f"t{at}") for at, kind in enumerate(kinds)))
    found = fitted(asked, budget)
    assert found.input_tokens_estimate <= budget == pytest.approx(found.input_tokens_estimate, rel=0.35)
    assert all(f"[[part kind={kind}" in user(found) for kind in kinds)
    assert {row.reason for row in found.omissions} >= {"truncated"}


def test_what_fits_is_not_touched():
    asked = request(Part(kind="step", text=FILLER * 50))
    found = fitted(asked, 100_000)
    assert not found.omissions and FILLER * 50 in user(found)


@pytest.mark.parametrize("kind", ["input", "passage", "tool_result", "objective"])
def test_one_huge_part_is_cut_inside_and_told(kind):
    text = FILLER * 150 + ANSWER + " " + FILLER * 150
    parts = Part(kind="step", text="How many days of paid leave are due after five years?"), Part(kind=kind, text=text)
    found = fitted(request(*parts), 1_000)
    (omission,) = found.omissions
    assert omission.reason == "truncated" and f"of {len(text):,} characters" in omission.what
    assert "characters left out ...]" in user(found) and "excerpt=yes" in user(found)
    assert kind == "objective" or ANSWER in user(found), "the sentence that the question asks for is kept"


def test_an_objective_of_one_endless_word_is_cut_too():
    found = fitted(request(Part(kind="objective", text="z" * 16_000)), 1_500)
    assert found is not None and found.omissions[0].reason == "truncated"


def test_head_and_tail_are_kept_where_nothing_matches():
    text = "The first sentence. " + FILLER * 100 + "The last sentence."
    made = make_excerpt(text, 600, len, frozenset())
    assert made.text.startswith("The first") and made.text.endswith("last sentence.") and len(made.text) <= 600
    assert made.kept_chars < len(text) and f"{len(text) - made.kept_chars} characters" in made.text


def test_an_excerpt_is_in_whole_sentences():
    text = "".join(f"Sentence number {n} says this. " for n in range(100))
    made = make_excerpt(text, 400, len, words_of("number 57"))
    lines = [line for line in made.text.splitlines() if not line.startswith("[...")]
    assert all(piece.startswith("Sentence number") for line in lines for piece in line.strip().split(". "))


# Stable prefixes


def step(turns: int, latest: int = 0, size: int = 20) -> ModelCallRequested:
    opening = Part(kind="objective", text="Find the rule."), Part(kind="step", text="Search.", step_id="s1")
    news = tuple(Part(kind="context", text=f"news {n}") for n in range(latest))
    made = tuple(turn(n, f"result {n}. " + FILLER * size) for n in range(turns))
    return request(*opening, turns=made, latest=news, tools=(SEARCH,))


def stable(found) -> bytes:
    return encode_payload({"messages": found.payload["messages"][: found.stable_messages]})[:-2]


def test_every_turn_begins_with_all_of_the_turn_before_byte_for_byte():
    prompts = [fitted(step(n, latest=n % 3), 100_000) for n in range(12)]
    for before, after in pairwise(prompts):
        known = stable(before)
        if not before.payload["messages"][2:]:
            known = known.split(b"\\n[[part kind=context")[0].removesuffix(b'"}')
        assert encode_payload(after.payload).startswith(known)
        assert after.payload["tools"] == before.payload["tools"]


def test_where_turns_must_be_cut_most_of_them_still_begin_with_the_turn_before():
    prompts = [fitted(step(n, size=15), 2_600) for n in range(12)]
    assert all(found.input_tokens_estimate <= 2_600 for found in prompts)
    same = [encode_payload(b.payload).startswith(stable(a)) for a, b in pairwise(prompts)]
    assert prompts[-1].omissions and same.count(True) >= 8, same


def test_the_opening_is_the_same_in_every_turn_also_where_it_is_cut():
    def asked(turns: int) -> ModelCallRequested:
        base = step(turns, size=15)
        return base.model_copy(update={"parts": (*base.parts, Part(kind="input", text=FILLER * 300))})

    openings = {user(fitted(asked(n), 3_000)) for n in range(8)}
    assert len(openings) == 1 and "characters left out" in openings.pop()


def test_anthropics_mark_stands_where_the_next_turn_still_has_the_same_words():
    def marked(found) -> str:
        chat = Chat("claude-haiku-4-5-20251001", found.payload, 100, stable_messages=found.stable_messages)
        body = json.loads(anthropic.build_request(chat).body)
        blocks = [block for message in body["messages"] for block in message["content"]]
        at = next(at for at, block in enumerate(blocks) if "cache_control" in block)
        return json.dumps([{k: v for k, v in one.items() if k != "cache_control"} for one in blocks[: at + 1]])

    for number in range(1, 6):
        now, later = (marked(fitted(step(n, latest=2), 100_000)) for n in (number, number + 1))
        assert later.startswith(now[:-1]), "what was written to the cache is read in the next turn"
