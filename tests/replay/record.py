"""`python -m tests.replay.record [NAME ...]`: play the scenes that have no history yet (or these) and keep theirs.

Recorded ones stay as they are: today's logic must say what they say. Before a first release a change of the logic
records them anew.
"""

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bulkhead.runtime.decider.history import TaskHistory
from bulkhead.runtime.decider.history_file import dump_history, save_history
from tests.replay.scenes import OFFLINE, SCENES, SMALL_CONTEXT, Scene, upgraded
from tests.replay.stage import offline_model, stage

FOLDER = Path(__file__).parent / "histories"
UPGRADE = Path(__file__).parent / "upgrade"
"""Of tasks that ran while a mesh was rolled from one version of the logic to the next."""
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
                keep(history, FOLDER, name)


async def record_upgrade() -> None:
    """Play an upgrade and keep the histories of its two tasks."""
    UPGRADE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with stage(Path(folder)) as on:
            for name, task in zip(("before", "after"), await upgraded(on), strict=True):
                keep(await on.history(task), UPGRADE, name)


def keep(history: TaskHistory, folder: Path, name: str) -> None:
    """Save it as text where it is small."""
    small = len(dump_history(history)) <= PLAIN_MAX_BYTES
    path = folder / (f"{name}.jsonl" if small else f"{name}.jsonl.gz")
    size = save_history(history, path)
    sys.stderr.write(f"{path.name}: {len(history.messages)} messages, {size} bytes\n")


async def main(names: list[str]) -> None:
    """Record what is asked for, or what is missing."""
    FOLDER.mkdir(exist_ok=True)
    there = {path.name.partition(".")[0] for path in FOLDER.iterdir()}

    def wanted(scenes: Mapping[str, Scene]) -> dict[str, Scene]:
        return {name: scene for name, scene in scenes.items() if (name in names if names else name not in there)}

    await record(wanted(SCENES))
    await record(wanted(SMALL_CONTEXT), context_tokens=7_000)
    async with offline_model() as url:
        await record(wanted(OFFLINE), openai_base_url=url)
    if "upgraded" in names or not UPGRADE.exists():
        await record_upgrade()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
