"""What an act is before anything is compared: a pause, a thought in a tool's clothes, the work of whomever.

In: acts. Out: acts, texts, digests.
"""

import re
from collections.abc import Container
from dataclasses import replace
from functools import lru_cache

from bulkhead.health.events import Act
from bulkhead.health.text import normalize, result_status

MAX_KIN_CHARS = 300
"""So much of a text counts for whether somebody else has said or found the same."""
_WAITS = re.compile(r"(?:^|[._\-:/])(?:sleep|wait|pause|delay|back_?off)\d*(?:$|[._\-:/])", re.IGNORECASE)
"""A number in its name is how long it waits (`wait1`, `sleep30`)."""
_SLEEPS_FIRST = re.compile(r"\s*sleep\s+[\d.]+[smh]?\s*(?:&&|;|\n)")
_SLEEPS = re.compile(r"^\s*sleep\s+[\d.]+[smh]?\s*$")


def plain(act: Act) -> Act:
    """A call of a tool that only keeps thoughts is a text to nobody."""
    if act.says or not (thought := normalize.thought(act.action, act.arguments)):
        return act
    return replace(act, says=True, arguments=thought, result=None)


def is_pause(act: Act) -> bool:
    """Whether it does nothing but wait."""
    if act.says:
        return False
    if _waits(act.action):
        # A wait for something that tells how it ended is a look, after a pause.
        return not isinstance(act.result, dict) or not result_status.over(normalize.result(act.result), act.arguments)
    arguments = act.arguments
    if isinstance(arguments, dict) and len(arguments) == 1:
        (arguments,) = arguments.values()
    return isinstance(arguments, str) and len(arguments) < 40 and _SLEEPS.match(arguments) is not None


def only_lives(act: Act) -> bool:
    """Whether it only says that its agent lives: it does nothing, and what is done around it counts."""
    return not act.says and not act.error and result_status.lives(act.action)


def sleeps_first(act: Act) -> bool:
    """Whether it is a command that sleeps before it does anything else."""
    if act.says or not isinstance(act.arguments, dict | str):
        return False
    if _waits(act.action):
        return True
    command = act.arguments if isinstance(act.arguments, str) else next(iter(act.arguments.values()), "")
    return isinstance(command, str) and _SLEEPS_FIRST.match(command) is not None


@lru_cache(maxsize=1_024)
def _waits(action: str) -> bool:
    return _WAITS.search(action) is not None


def words(act: Act) -> str:
    """What is said, whether it stands alone or in a message."""
    said = act.arguments.get("text") if isinstance(act.arguments, dict) else act.arguments
    return said if isinstance(said, str) else ""


def kin(act: Act, known: Container[str], asked: str, answer: str, result: int, *, loose: bool) -> int:
    """A digest of an act, whoever does it to whomever: names of agents, and the numbers in them, are left out.

    asked, answer: the canonical texts of a call and its result; asked: "" when it is another one than its arguments'.
    """
    if act.says:
        asked = words(act)[:MAX_KIN_CHARS]
        for name in (act.agent, act.to):
            asked = asked.replace(name, "#").replace(name.partition(" ")[0], "#") if name else asked
        asked = normalize.said(asked)
    else:
        rest = normalize.unnamed(act.arguments)
        if rest is not None or not asked:
            asked = normalize.call(act.arguments if rest is None else rest, known, loose=loose)
        asked = asked[:MAX_KIN_CHARS]
    if len(answer) > MAX_KIN_CHARS:
        said = str(result)
    else:
        rest = normalize.unnamed(act.result) if isinstance(act.result, dict) and not act.error else None
        said = normalize.kin(answer if rest is None else normalize.result(rest))
    return normalize.digest("\0".join((act.action, normalize.kin(asked), said)))
