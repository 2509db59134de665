"""Loops that a framework flattens into text are seen like others; people who repeat themselves are left alone."""

from collections.abc import Iterable, Iterator

import pytest

from bulkhead.health.sources.outside_acts import WRITTEN_CODE, acts_of
from tests.unit.bulkhead.health.sources.test_journal_outside import Agent, judged, levels

Turn = tuple[str, str]
"""An answer of the model, and what is said to it."""
ROUNDS = 6


def converse(turns: Iterable[Turn], question: str = "What is new?") -> Agent:
    agent = Agent(question)
    for answer, reply in turns:
        agent.ask(answer)
        agent.messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": reply}]
    agent.ask("hm")
    return agent


def smolagents(arguments: str = "{'what': 'kiln'}", result: str = "nothing new") -> Iterator[Turn]:
    for number in range(ROUNDS):
        function = f"{{'name': 'lookup', 'arguments': {arguments}}}"
        call = f"[{{'id': 'call_{number}', 'type': 'function', 'function': {function}}}]"
        yield f"Calling tools:\n{call}", f"Observation:\n{result}"


FLATTENED: dict[str, tuple[str, list[Turn]]] = {
    "smolagents": ("lookup", list(smolagents())),
    "react": ("search", [("Thought: look.\nAction: search\nAction Input: kiln", "Observation: no results")] * ROUNDS),
    "code": (WRITTEN_CODE, [("I look.\n```bash\nls\n```", "<returncode>0</returncode>\nnotes.txt")] * ROUNDS),
    "tags": (WRITTEN_CODE, [("<read_file><path>a</path></read_file>", "[read_file for 'a'] Result:\nx")] * ROUNDS),
    "after another": (
        "lookup",
        [("I ask.\n{'name': 'find', 'arguments': {}}", "Observation:\nnothing new"), *smolagents()],
    ),
}


@pytest.mark.parametrize(("tool", "turns"), FLATTENED.values(), ids=FLATTENED)
def test_a_flattened_loop_is_warned_of_then_stopped(tool: str, turns: list[Turn]) -> None:
    warned, stopped = judged(converse(turns).said)
    assert (warned.level, stopped.level) == ("warn", "stop") and stopped.detector == "loop.repeat"
    assert f"called {tool} with the same arguments and got the same result 4 times" in stopped.what


def test_a_flattened_call_that_fails_again_and_again_is_an_error() -> None:
    turns = smolagents(result="Error: no such kiln")
    stopped = judged(converse(turns).said)[-1]
    assert (stopped.level, stopped.detector) == ("stop", "loop.error")


CODE = "```python\nprint(1)\n```"
CALL = '{"name": "order", "arguments": {"size": 2}}'
HONEST: dict[str, list[Turn]] = {
    "the first question": [(CODE, "What is new?")] * ROUNDS,
    "the first question, about a call": [(CALL, "What is new?")] * ROUNDS,
    "a later question": [("Hello!", "Write it."), *[(CODE, "Write it.")] * ROUNDS],
    "a complaint": [(CODE, "Still broken.")] * ROUNDS,
    "prose": [("I cannot help with that.", "Please!")] * ROUNDS,
    "other arguments": [
        (f"Action: get\nAction Input: id={number}", "Observation: not found so far, thirty more to see")
        for number in range(3)
    ],
    "other results": [("Action: look\nAction Input: here", f"Observation: row {number}") for number in range(ROUNDS)],
}


@pytest.mark.parametrize("turns", HONEST.values(), ids=HONEST)
def test_who_repeats_a_question_or_works_on_is_left_alone(turns: list[Turn]) -> None:
    assert levels(converse(turns).said) == []


def test_ids_that_a_call_is_about_tell_calls_apart() -> None:
    rows = [f"{{'name': 'get', 'arguments': {{'id': '{number}'}}}}" for number in (1, 2)]
    acts = [
        acts_of([{"role": "assistant", "content": row}, {"role": "user", "content": "Observation: none"}])
        for row in rows
    ]
    assert acts[0][0].arguments_json != acts[1][0].arguments_json
