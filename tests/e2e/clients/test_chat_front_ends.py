"""Chat front ends as the page on them tells: a conversation that shows an image, and goes on about it."""

import pytest

from tests.e2e.clients.answers import Turn
from tests.e2e.clients.clients_table import ClientRow, check_row
from tests.e2e.clients.mesh import ClientMesh
from tests.e2e.clients.page import CHATS_PAGE, Setup, read_setups
from tests.e2e.clients.programs import Programs, pinned_versions
from tests.e2e.clients.test_pictures import has_picture, png

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.needs("packages"),
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="session"),
]

ANSWERS = ("A red picture.", "It is 64 wide.")


@pytest.mark.parametrize("setup", read_setups(CHATS_PAGE), ids=lambda setup: f"{setup.program}-{setup.api}")
async def test_a_chat_shows_an_image_and_goes_on(mesh: ClientMesh, programs: Programs, setup: Setup) -> None:
    marker = f"{setup.program}-{setup.api}"
    work, key = programs.make_workplace(marker, {}), mesh.make_key(marker)
    (work / "picture.png").write_bytes(png(64, 48))
    mesh.provider.play(marker, *map(Turn, ANSWERS))
    ended = await programs.run(work, "bash", "-ec", setup.fill_in(mesh.local.doors_url, key, marker))
    assert ended.code == 0 and all(answer in ended.output for answer in ANSWERS), ended.output
    assert not mesh.provider.faults
    seen = mesh.provider.requests_of(marker)
    assert [request.api for request in seen] == [setup.api] * 2 and all(map(has_picture, seen))
    package, version = pinned_versions()[setup.program]
    row = (setup.program, f"`{package}` {version}", setup.api)
    check_row(ClientRow("Chat front ends", row, ("images, streamed, goes on",)))
