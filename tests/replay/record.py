"""`python -m tests.replay.record [NAME ...]`: play the scenes that have no history yet (or these) and keep theirs.

Recorded ones stay as they are: they are what old logic said, and today's must say the same.
"""

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bulkhead.runtime.decider.history import dump, save
from tests.replay.scenes import SCENES, SMALL_CONTEXT, UNDER_LOGIC_2, UNDER_LOGIC_3, UNDER_LOGIC_4, UNDER_LOGIC_5, Scene
from tests.replay.stage import stage

FOLDER = Path(__file__).parent / "histories"
PLAIN_MAX_BYTES = 24 * 1024
"""Up to this a history stays readable text."""


async def record(scenes: Mapping[str, Scene], **settings: Any) -> None:
    """Play these scenes on one stage and keep their histories."""
    if not scenes:
        return
    with tempfile.TemporaryDirectory() as folder:
        async with stage(Path(folder), **settings) as on:
            for name, scene in scenes.items():
                history = await on.history(await scene(on))
                small = len(dump(history)) <= PLAIN_MAX_BYTES
                path = FOLDER / (f"{name}.jsonl" if small else f"{name}.jsonl.gz")
                size = save(history, path)
                sys.stderr.write(f"{path.name}: {len(history.messages)} messages, {size} bytes\n")


async def main(names: list[str]) -> None:
    """Record what is asked for, or what is missing."""
    FOLDER.mkdir(exist_ok=True)
    there = {path.name.partition(".")[0] for path in FOLDER.iterdir()}

    def wanted(scenes: Mapping[str, Scene]) -> dict[str, Scene]:
        return {name: scene for name, scene in scenes.items() if (name in names if names else name not in there)}

    await record(wanted(SCENES))
    await record(wanted(UNDER_LOGIC_2), logic=2)
    await record(wanted(UNDER_LOGIC_3), logic=3)
    await record(wanted(UNDER_LOGIC_4), logic=4)
    await record(wanted(UNDER_LOGIC_5), logic=5)
    await record(wanted(SMALL_CONTEXT), context_tokens=6_000)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
