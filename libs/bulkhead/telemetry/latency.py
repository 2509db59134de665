"""Everything that is done for latency alone, in one place: the code is right without any of it (ADR 0025,
0027).

Coalesced publishes (runtime/publish/coalesce), publish windows (bus/jetstream/publish_window), joint
frames and direct socket writes (bus/jetstream/client), a lazy garbage collector (runtime/process/main)
take their sizes from `LATENCY`; `run_overlapped` is the early release of a task's next message. Out: the
same messages in the same order, sooner.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Latency:
    """The sizes, each with its reason.

    coalesce_s: so long a publish that nobody waits for waits for company. publish_window: so many publishes to one
    stream are under way at a time; enough that a stream never waits for its next message and that three servers share
    their rounds, few enough that the first is answered while the others are being stored. frames_a_write: so many
    frames of one turn of the loop leave together; with two hundred at once the broker would be idle until the last is
    made. max_unsent_bytes: beyond it the socket is slower than the service, and nats-py's flusher takes over.
    ack_hold_s: so long an ack waits for a message to leave with, which saves the service a write and the broker a
    read; a busy service says something sooner. A kill loses it, and what was handled is handled again, as ever.
    gc_thresholds: messages and folds hold no cycles; the default ones cost a tenth of a step's CPU.
    """

    coalesce_s: float = 0.005
    publish_window: int = 48
    frames_a_write: int = 16
    max_unsent_bytes: int = 1_048_576
    ack_hold_s: float = 0.2
    gc_thresholds: tuple[int, int, int] = (20_000, 20, 50)


LATENCY = Latency()


async def run_overlapped(
    actions: Sequence[Callable[[], Coroutine[Any, Any, None]]], release: Callable[[], None]
) -> None:
    """Run all of them side by side; returns when all have ended. release: called when all are on their way.

    The first is on its way before anything is made for the others. When it fails, the others are cancelled.
    """
    first, *later_actions = actions
    tasks: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()

    def go_on() -> None:
        tasks.extend(asyncio.ensure_future(action()) for action in later_actions)
        loop.call_soon(release)

    start_others = loop.call_soon(go_on)
    try:
        await first()
    except BaseException:
        start_others.cancel()
        for task in tasks:
            task.cancel()
        raise
    if later_actions and not tasks:
        start_others.cancel()
        go_on()
    if tasks:
        await asyncio.gather(*tasks)
