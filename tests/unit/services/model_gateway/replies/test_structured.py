"""Replies as real models write them: kinds that are known from public reports, each in words of our own.

Fences, prose, thinking of each family, calls as text, half JSON, Python's and JavaScript's spelling, refusals, other
languages. What is expected of each: the plan's step ids, the verdict, the answer's text; or nothing.
"""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead_services.model_gateway.replies import structured
from bulkhead_services.model_gateway.replies.thinking import LiveThinkingFilter, strip_thinking

STEP = '{"id": "a", "title": "", "instruction": "find it", "tools": [], "inputs": [], "acceptance": "found"}'
PLAN = f'{{"steps": [{STEP}]}}'
TWO = f'{{"steps": [{STEP}, {STEP.replace(chr(34) + "a" + chr(34), chr(34) + "b" + chr(34))}]}}'
ACCEPT = '{"verdict": "accept", "score": 0.9, "reasons": ["It is so."]}'
REJECT = '{"verdict": "reject", "score": 0.1, "reasons": ["The sum is wrong."]}'

PLANS: dict[str, tuple[str, str, list[str] | None]] = {
    "as asked": (PLAN, "stop", ["a"]),
    "fence with a language": (f"```json\n{PLAN}\n```", "stop", ["a"]),
    "fence without one": (f"```\n{PLAN}\n```", "stop", ["a"]),
    "fence that is not closed": (f"```json\n{PLAN}", "stop", ["a"]),
    "prose before and after": (f"Sure! Here is the plan:\n\n{PLAN}\n\nLet me know if it helps.", "stop", ["a"]),
    "brackets in the prose": (f"I use {{objective}} and [docs]. {PLAN} See [1] and {{x}}.", "stop", ["a"]),
    "German prose": (f"Gerne, hier ist der Plan – „kurz“ gehalten: {PLAN}", "stop", ["a"]),
    "Chinese prose and fence": (f"好的，计划如下：\n```json\n{PLAN}\n```\n希望有帮助。", "stop", ["a"]),
    "byte order mark": ("\ufeff" + PLAN, "stop", ["a"]),
    "thinking before": (f'<think>\nMaybe {{"steps": []}}?\n</think>\n{PLAN}', "stop", ["a"]),
    "thinking whose beginning the prompt had": (f"Okay, so two steps...\n</think>\n\n{PLAN}", "stop", ["a"]),
    "harmony channels": (
        f"<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>{PLAN}<|return|>",
        "stop",
        ["a"],
    ),
    "only thinking": ("<think>I should write two steps and", "length", None),
    "a call as text": (f'<tool_call>{{"name": "plan", "arguments": {PLAN}}}</tool_call>', "stop", ["a"]),
    "a call with arguments as text": (json.dumps({"name": "plan", "arguments": PLAN}), "stop", ["a"]),
    "Mistral's call": (f'[TOOL_CALLS][{{"name": "plan", "arguments": {PLAN}}}]', "stop", ["a"]),
    "another call as text": ('{"name": "search_documents", "arguments": {"query": "leave"}}', "stop", None),
    "wrapped": (f'{{"plan": {PLAN}}}', "stop", ["a"]),
    "wrapped in a response": (f'{{"status": "ok", "response": {{"plan": {PLAN}}}}}', "stop", ["a"]),
    "a bare list": (f"[{STEP}]", "stop", ["a"]),
    "a bare step": (STEP, "stop", ["a"]),
    "a list under plan": (f'{{"plan": [{STEP}]}}', "stop", ["a"]),
    "steps by their ids": (
        '{"steps": {"a": {"instruction": "find it"}, "b": {"instruction": "say"}}}',
        "stop",
        ["a", "b"],
    ),
    "trailing commas": ('{"steps": [{"id": "a", "instruction": "x", "inputs": [],},],}', "stop", ["a"]),
    "a comma is missing": (PLAN.replace('"", "instr', '"" "instr'), "stop", ["a"]),
    "Python's dictionary": (
        "{'steps': [{'id': 'a', 'instruction': 'Anna\\'s \"fare\"', 'x': None, 'y': True}]}",
        "stop",
        ["a"],
    ),
    "JavaScript's keys and comments": ('{steps: [ // the only one\n{id: "a", instruction: "x"}]}', "stop", ["a"]),
    "typographic quotes": ("{“steps”: [{“id”: “a”, “instruction”: “x”}]}", "stop", ["a"]),
    "raw line breaks in a text": ('{"steps": [{"id": "a", "instruction": "one\ntwo"}]}', "stop", ["a"]),
    "an escape that JSON does not know": ('{"steps": [{"id": "a", "instruction": "50\\% of \\$5"}]}', "stop", ["a"]),
    "the last brackets forgotten": (PLAN[:-2], "stop", ["a"]),
    "a bracket forgotten inside": (PLAN[:-2] + "}", "stop", ["a"]),
    "cut after a step": (PLAN[:-2], "length", None),
    "cut in a step": (TWO[:150], "length", None),
    "cut in a step, and stopped": (TWO[:150], "stop", None),
    "cut after the steps": (PLAN[:-1], "length", ["a"]),
    "cut in what comes after the steps": (PLAN[:-1] + ', "reasoning": "beca', "length", ["a"]),
    "the same plan twice": (f"{PLAN}\n\nAgain:\n{PLAN}", "stop", ["a"]),
    "two plans that differ": (f"{PLAN}\nor\n{TWO}", "stop", None),
    "an echo of the schema": ('{"type": "object", "properties": {"steps": {"type": "array"}}}', "stop", None),
    "a refusal": ("I'm sorry, but I can't help with that.", "stop", None),
    "a refusal as JSON": ('{"error": "I cannot plan this."}', "stop", None),
    "YAML": ("steps:\n  - id: a\n    instruction: find it", "stop", None),
    "nothing": ("", "stop", None),
}
VERDICTS: dict[str, tuple[str, str, str | None]] = {
    "as asked": (ACCEPT, "stop", "accept"),
    "in a fence": (f"```json\n{REJECT}\n```", "stop", "reject"),
    "after its thinking": (f"<think>{ACCEPT}? No.</think>{REJECT}", "stop", "reject"),
    "after its reasons": (f"The sum does not stand in a part.\n\n{REJECT}", "stop", "reject"),
    "in other letters": (ACCEPT.replace('"accept"', '"Accepted"'), "stop", "accept"),
    "with one reason as text": ('{"verdict": "reject", "score": 0, "reasons": "no source"}', "stop", "reject"),
    "cut in its reasons": (REJECT[:60], "length", "reject"),
    "cut in its verdict": ('{"verdict": "acce', "length", None),
    "an acceptance quoted from the answer": (f"The answer contains {ACCEPT}, which gets no credit.", "stop", None),
    "a quotation, then its own": (f"It says {ACCEPT} itself.\n{REJECT}", "stop", "reject"),
    "both, each on a line": (f"{ACCEPT}\n{REJECT}", "stop", None),
    "something else": ('{"verdict": "maybe"}', "stop", None),
}
TEXTS: dict[str, tuple[str, str]] = {
    "plain": ("Five days [#3fa9c1d2e4b5].", "Five days [#3fa9c1d2e4b5]."),
    "think": ("<think>\nhm, </b>\n</think>\n\nFive days.", "Five days."),
    "thinking": ("<thinking>hm</thinking>Five days.", "Five days."),
    "reasoning, then answer": ("<reasoning>hm</reasoning>\n<answer>Five days.</answer>", "Five days."),
    "capitals and attributes": ('<THINK effort="high">hm</THINK>\nFive days.', "Five days."),
    "never closed": ("Five days.\n<think>but maybe", "Five days."),
    "all of it": ("<think>but maybe", ""),
    "closed only": ("but maybe\n</think>\nFive days.", "Five days."),
    "Magistral": ("[THINK]hm[/THINK]Five days.", "Five days."),
    "Kimi": ("◁think▷hm◁/think▷Five days.", "Five days."),
    "Command": ("<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Five days.<|END_RESPONSE|>", "Five days."),
    "Seed": ("<seed:think>hm</seed:think>Five days.", "Five days."),
    "OpenThinker": (
        "<|begin_of_thought|>hm<|end_of_thought|>\n<|begin_of_solution|>Five days.<|end_of_solution|>",
        "Five days.",
    ),
    "a block inside": ("Five<think>or six?</think> days.", "Five days."),
    "a block in a block": ("<think>a<think>b</think>c</think>Five days.", "Five days."),
    "end of turn": ("Five days.<|im_end|>", "Five days."),
    "a tag that is spoken of": ("Models write <think> first.", "Models write <think> first."),
    "a tag in code": ("Write `<think>x</think>`.", "Write `<think>x</think>`."),
    "a tag in a fence": ("```\n<think>x</think>\n```", "```\n<think>x</think>\n```"),
    "comparisons": ("a < b, c > d, x[0] and <b>bold</b>", "a < b, c > d, x[0] and <b>bold</b>"),
}


@pytest.mark.parametrize("kind", PLANS)
def test_a_plan_is_found_where_it_stands_and_never_made_up(kind):
    text, finish, expected = PLANS[kind]
    reading = structured.read_reply(text, "plan", finish)  # type: ignore[arg-type]
    if expected is None:
        assert reading.text == strip_thinking(text)
        return
    found: Any = json.loads(reading.text)
    assert [step["id"] for step in found["steps"]] == expected
    assert (reading.text == text) == (not reading.changes) == (kind == "as asked")
    assert bool(reading.omissions) == kind.startswith("cut")


@pytest.mark.parametrize("kind", VERDICTS)
def test_a_verdict_is_the_judges_own(kind):
    text, finish, expected = VERDICTS[kind]
    reading = structured.read_reply(text, "verdict", finish)  # type: ignore[arg-type]
    if expected is None:
        assert reading.text == text and not reading.changes
        return
    found: Any = json.loads(reading.text)
    assert found["verdict"] == expected and isinstance(found.get("reasons", []), list)
    assert bool(reading.omissions) == kind.startswith("cut")


@pytest.mark.parametrize("kind", TEXTS)
def test_thinking_is_no_part_of_an_answer(kind):
    text, expected = TEXTS[kind]
    assert structured.read_reply(text, "text", "stop").text == expected
    assert strip_thinking(expected) == expected


KNOWN_AT_THE_END = ("closed only", "a block in a block", "a tag that is spoken of")


@pytest.mark.parametrize("size", [1, 3, 1_000])
@pytest.mark.parametrize("kind", [kind for kind in TEXTS if kind not in KNOWN_AT_THE_END])
def test_thinking_is_not_shown_while_it_comes(kind, size):
    text, expected = TEXTS[kind]
    shown = LiveThinkingFilter()
    live = "".join(shown.feed(text[at : at + size]) for at in range(0, len(text), size))
    for secret in ("hm", "maybe", "or six"):
        assert secret not in live
    assert expected.rstrip("`") in live


HOSTILE = [
    "{",
    "[",
    '{"',
    '{"a":',
    "{'",
    "{//",
    "[1,",
    '{"\\q',
    "<think>",
    "</think>",
    "x<think>",
    "<think ",
    "``",
    "\\",
    " ",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_takes_little_time(piece):
    text = piece * (structured.MAX_CHARS // len(piece))
    began = time.process_time()
    for form in ("plan", "verdict", "text"):
        structured.read_reply(text, form, "stop")
    assert time.process_time() - began < 5


@given(st.text(alphabet="{}[]\",:'\\ab1<>/think`\n ", max_size=200), st.sampled_from(["stop", "length"]))
def test_nothing_is_raised_and_what_is_a_plan_can_be_read(text, finish):
    for form in ("plan", "verdict", "text"):
        reading = structured.read_reply(text, form, finish)
        assert len(reading.text) <= len(text) * 2 + 40
        assert form != "text" or structured.read_reply(reading.text, "text", finish).text in reading.text
