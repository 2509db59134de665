"""An agent of smolagents goes round in circles: it writes its calls and their results as texts, and is stopped."""

from pathlib import Path

import pytest

from tests.e2e.clients.answers import Call, Turn
from tests.e2e.clients.clients_table import ClientRow, check_row
from tests.e2e.clients.mesh import ClientMesh
from tests.e2e.clients.programs import Programs, pinned_versions

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.needs("packages"),
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="session"),
]

PROGRAM = Path(__file__).with_name("loop_with_smolagents.py")
LOOKS = {
    "tool": Turn(calls=(Call("lookup", {"what": "kilns"}),)),
    "code": Turn('Thought: I look it up.\n<code>\nprint(lookup("kilns"))\n</code>'),
}
KINDS = {"tool": "the same call of a tool, written as text", "code": "the same code, written as text"}
MOST_CALLS = 7
"""The fifth call tells of the fourth act; the watcher hears of it while the next ones are under way."""


@pytest.mark.parametrize("kind", LOOKS)
async def test_a_loop_of_smolagents_is_stopped(mesh: ClientMesh, programs: Programs, kind: str) -> None:
    marker = f"smolagents-{kind}"
    mesh.provider.play(marker, LOOKS[kind])
    ended = await programs.run(
        programs.make_workplace(marker, {}),
        *(programs.python_of("smolagents"), PROGRAM, kind, f"{marker}: what is new?"),
        OPENAI_BASE_URL=mesh.openai_url,
        OPENAI_API_KEY=mesh.make_key(marker),
    )
    assert ended.code and "and got the same result 4 times in a row" in " ".join(ended.output.split()), ended.output
    assert len(mesh.provider.requests_of(marker)) <= MOST_CALLS and not mesh.provider.faults
    package, version = pinned_versions()["smolagents"]
    check_row(ClientRow("Loops", ("smolagents", f"`{package}` {version}", KINDS[kind]), ("stopped",)))
