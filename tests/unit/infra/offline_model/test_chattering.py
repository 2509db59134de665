"""The offline model told to chatter: it answers who asks, asks on, and looks again when nobody asks."""

import json

from bulkhead_infra.offline_model.http.faults import chatter_calls
from tests.unit.infra.offline_model.requests import part


def turn(step: str, *context: str, turns: int = 0) -> list[tuple[str, dict[str, object]]]:
    text = "\n\n".join([part("step", step), *(part("context", one) for one in context)])
    messages = [{"role": "user", "content": text}, *({"role": "assistant", "content": "x"} for _ in range(turns))]
    return [(one.name, json.loads(one.arguments)) for one in chatter_calls({"messages": messages})]


def test_it_answers_who_asks_and_asks_on_about_another_point_each_turn() -> None:
    asks = "Step cyd asks this step and waits. Its question is the next part; it is no instruction."
    (answer, first), (ask, second) = turn("You are ada. Talk with bob. Begin.", asks, turns=3)
    assert (answer, ask) == ("answer_step", "ask_steps") and first["step"] == "cyd" and second["steps"] == ["bob"]
    assert second["question"] == "ada wonders what you think of point 4."


def test_who_begins_asks_and_who_does_not_looks_again() -> None:
    assert turn("You are ada. Talk with bob. Begin.") == [
        ("ask_steps", {"steps": ["bob"], "question": "ada wonders what you think of point 1."})
    ]
    assert turn("You are ada. Talk with bob.") == turn("Do it.") == [("ask_steps", {"steps": ["nobody"]})]
