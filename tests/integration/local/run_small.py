"""A small mesh in a process of its own, for the test that kills the supervisor."""

import asyncio
import sys
from pathlib import Path

from tests.integration.local.test_supervisor import small


async def main() -> None:
    async with small(Path(sys.argv[1]), "has_child"):
        print("up", flush=True)
        await asyncio.Event().wait()


asyncio.run(main())
