"""An agent that only talks: it answers, asks again, and never ends. Enters: a request. Leaves: calls.

The step names the agent and its partner: `You are ada. Talk with bob.`; with `Begin.` the agent asks first. While
nobody asks, it asks a step that does not exist, gets its answer at once, and looks again in its next turn.
"""

import re
from collections.abc import Mapping
from typing import Any

from bulkhead_infra.offline_model.parts import read_prompt
from bulkhead_infra.offline_model.roles.calling import Call, make_call

ASK, ANSWER, NOBODY = "ask_steps", "answer_step", "nobody"
ASKS = re.compile(r"^Step (\S+) asks this step and waits\.")
NAME = re.compile(r"\bYou are (\w+)\.")
PARTNER = re.compile(r"\bTalk with (\w+)\.")
BEGINS = re.compile(r"\bBegin\.")


def talk(request: Mapping[str, Any]) -> tuple[Call, ...]:
    """The calls of this turn; each turn has another point."""
    prompt = read_prompt(request.get("messages") or ())
    step = prompt.text("step")
    name, partner = NAME.search(step), PARTNER.search(step)
    if name is None or partner is None:
        return (make_call(ASK, steps=[NOBODY]),)
    point = 1 + sum(message["role"] == "assistant" for message in request["messages"])
    asking = [match[1] for part in prompt.of("context") if (match := ASKS.match(part.text))]
    answers = [
        make_call(ANSWER, step=step_id, answer=f"{name[1]} thinks of point {point} what you think.")
        for step_id in asking
    ]
    if not asking and not (BEGINS.search(step) and not prompt.tool_uses):
        return (make_call(ASK, steps=[NOBODY]),)
    return (
        *answers,
        make_call(ASK, steps=[partner[1]], question=f"{name[1]} wonders what you think of point {point}."),
    )
