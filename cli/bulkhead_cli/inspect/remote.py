"""`bulkhead why` and `timeline` of a mesh elsewhere: what its gateway tells who has an API key.

In: a gateway and a task. Out: text or JSON on standard output.
"""

from typing import Any

from bulkhead_cli.output import Exit, out, print_json
from bulkhead_cli.target import GatewayTarget


async def show_why(target: GatewayTarget, task: str, *, whole: bool, as_json: bool) -> Exit:
    """The story. JSON is as that of `why` on the machine of the mesh."""
    async with target.mesh_client() as mesh:
        answer = await mesh.task(task).why(whole=whole)
    if as_json:
        print_json(answer["story"])
    else:
        out.print(answer["text"], markup=False)
    return Exit.OK


async def show_timeline(target: GatewayTarget, task: str, *, as_json: bool) -> Exit:
    """Every page."""
    rows: list[dict[str, Any]] = []
    async with target.mesh_client() as mesh:
        async for page in mesh.task(task).timeline():
            if as_json:
                rows += page["rows"]
            elif page["text"]:
                out.print(page["text"], markup=False)
    if as_json:
        print_json(rows)
    return Exit.OK
