"""An agent that only talks: it answers who asks and asks on, and comes to nothing. Enters: a request. Leaves: calls.

The step says who it is and whom it talks with: `You are ada. Talk with bob.`; with `Begin.` it asks first.
Asked by nobody it asks a step that is not there, which is answered at once, and looks again in its next turn.
"""

import re
from collections.abc import Mapping
from typing import Any

from bulkhead_infra.offline_model.parts import read_prompt
from bulkhead_infra.offline_model.roles.calling import Call, call

ASK, ANSWER, NOBODY = "ask_steps", "answer_step", "nobody"
ASKS = re.compile(r"^Step (\S+) asks this step and waits\.")
NAME = re.compile(r"\bYou are (\w+)\.")
PARTNER = re.compile(r"\bTalk with (\w+)\.")
BEGINS = re.compile(r"\bBegin\.")


def talk(request: Mapping[str, Any]) -> tuple[Call, ...]:
    """What it says in this turn; each turn about another point."""
    prompt = read_prompt(request.get("messages") or ())
    step = prompt.text("step")
    name, partner = NAME.search(step), PARTNER.search(step)
    if name is None or partner is None:
        return (call(ASK, steps=[NOBODY]),)
    point = 1 + sum(message["role"] == "assistant" for message in request["messages"])
    asking = [found[1] for part in prompt.of("context") if (found := ASKS.match(part.text))]
    said = [call(ANSWER, step=one, answer=f"{name[1]} thinks of point {point} what you think.") for one in asking]
    if not asking and not (BEGINS.search(step) and not prompt.tool_uses):
        return (call(ASK, steps=[NOBODY]),)
    return (*said, call(ASK, steps=[partner[1]], question=f"{name[1]} wonders what you think of point {point}."))
