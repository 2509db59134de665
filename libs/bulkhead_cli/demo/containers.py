"""The demo on the mesh of docker-compose.yml. In: a case. Out: an exit code; no container, network or volume stays."""

import asyncio
import os
import tempfile
import time
from pathlib import Path

from bulkhead_cli.demo.conversation import converse, introduce, verdict
from bulkhead_cli.output import Exit, err, out
from bulkhead_infra.demo.corpus import Demo
from bulkhead_infra.docker import images
from bulkhead_infra.docker.images import ImageError
from bulkhead_infra.docker.stack import Stack, StackError


def run(demo: Demo) -> int:
    """Build what is out of date, start, converse, remove. 0 when the answer is the right one."""
    began = time.monotonic()
    introduce(
        demo, model=os.environ.get("BULKHEAD_MODEL", "your provider's") if os.environ.get("OPENAI_BASE_URL") else ""
    )
    try:
        err.print("  building the images (the first time a minute or two; then what has changed)", style="dim")
        images.ensure()
        out.print(f"  images stand after {time.monotonic() - began:.1f} s", style="dim")
        with Stack("bulkhead-demo") as stack, tempfile.TemporaryDirectory(prefix="bulkhead-demo-") as folder:
            stack.up()
            out.print(f"  {len(stack.running)} containers are up after {time.monotonic() - began:.1f} s", style="dim")
            key = stack.credentials["submitter"]
            ended, document = asyncio.run(converse(demo, stack.url, key, Path(folder)))
            right = verdict(demo, document) and ended is Exit.OK
    except (ImageError, StackError) as error:
        err.print(f"the mesh could not start: {error}", style="bold red", markup=False)
        return 1
    out.print(f"every container is removed; {time.monotonic() - began:.1f} s in all", style="dim")
    return 0 if right else 1
