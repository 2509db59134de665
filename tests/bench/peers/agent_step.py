"""The full agent step that every peer does: two model calls with a tool call between them, then a judge.

The peers' programs import it in the bench's own venv, so it needs little. In: orders, a JSON
object per line on standard input. Out: an answer per order on standard output; the program ends with its input.
"""

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from pydantic import BaseModel

MODEL = "instant"
INSTRUCTION = "Say that it is done."
ACCEPTANCE = "Says that it is done."
JUDGE = "Judge whether the result meets the acceptance."

Chain = Callable[[int], Awaitable[list[float]]]
"""Runs a durable chain of so many steps; when each began, in seconds."""


class Verdict(BaseModel):
    """What the judge answers."""

    verdict: Literal["accept", "reject"]
    score: float
    reasons: list[str]


def calculate(expression: str) -> str:
    """Add whole numbers."""
    return f"{expression} = {sum(int(term) for term in expression.split('+'))}"


def judge_prompt(result: str) -> str:
    """What the judge is asked."""
    return f"Acceptance: {ACCEPTANCE}\nResult: {result}"


def write_line(**row: object) -> None:
    """One JSON line in one write."""
    os.write(1, (json.dumps(row) + "\n").encode())


async def serve_orders(chain: Chain) -> None:
    """Answer until standard input ends: so many chains of so many steps, together or one after the other."""
    write_line(ready=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        began, lengths = time.monotonic(), [order["steps"]] * order["chains"]
        if order["together"]:
            starts = await asyncio.gather(*map(chain, lengths))
        else:
            starts = [await chain(length) for length in lengths]
        gaps_ms = [(later - earlier) * 1000 for row in starts for earlier, later in itertools.pairwise(row)]
        write_line(done={"gaps_ms": gaps_ms, "began": began, "ended": time.monotonic()})
    os._exit(0)
