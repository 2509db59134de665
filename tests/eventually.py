"""Waiting for a fact: asked again and again, with a deadline that fails the test."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

TIMEOUT_S = 30.0


async def until(
    found: Callable[[], Any], what: str = "it holds", timeout_s: float = TIMEOUT_S, every_s: float = 0.01
) -> Any:
    """The first truthy value of `found`, which may be awaitable. Fails with `what` after the timeout."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not (value := await value if inspect.isawaitable(value := found()) else value):
        assert loop.time() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(every_s)
    return value
