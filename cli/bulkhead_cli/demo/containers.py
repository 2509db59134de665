"""The demo on the mesh of docker-compose.yml. In: a case. Out: the answer and an exit code.

No container, network or volume stays.
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path

from bulkhead_cli.demo.conversation import comparison_report, print_introduction, print_verdict, run_conversation
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import err, out
from bulkhead_infra.demo.corpus import Demo
from bulkhead_infra.docker import images
from bulkhead_infra.docker.images import DockerImageError
from bulkhead_infra.docker.stack import Stack, StackError


def run_containers_demo(demo: Demo, *, as_json: bool = False) -> Exit:
    """Build what is out of date, start, converse, remove. OK when the answer is the right one. Raises
    CommandError.
    """
    screen = err if as_json else out
    began = time.monotonic()
    print_introduction(
        demo,
        screen,
        model=os.environ.get("BULKHEAD_MODEL", "your provider's") if os.environ.get("OPENAI_BASE_URL") else "",
    )
    try:
        err.print("  building the images (the first time a minute or two; then what has changed)", style="dim")
        images.ensure_images()
        screen.print(f"  images stand after {time.monotonic() - began:.1f} s", style="dim")
        with Stack("bulkhead-demo") as stack, tempfile.TemporaryDirectory(prefix="bulkhead-demo-") as folder:
            stack.up()
            screen.print(
                f"  {len(stack.running_containers)} containers are up after {time.monotonic() - began:.1f} s",
                style="dim",
            )
            key = stack.credentials["submitter"]
            ended, document = asyncio.run(run_conversation(demo, stack.url, key, Path(folder), screen))
            right = print_verdict(demo, document, screen) and ended is Exit.OK
    except (DockerImageError, StackError) as error:
        raise CommandError(Exit.FAILED, f"the mesh could not start: {error}") from error
    if as_json:
        print_json(comparison_report(demo, document))
    screen.print(f"every container is removed; {time.monotonic() - began:.1f} s in all", style="dim")
    return Exit.OK if right else Exit.FAILED
