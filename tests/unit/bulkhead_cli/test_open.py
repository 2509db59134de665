"""`bulkhead open`, and the screen of `up`: links of a real gateway, which sign in once."""

import json
import stat
import webbrowser
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from bulkhead_cli.console import first_screen
from bulkhead_cli.main import app
from bulkhead_cli.screen import SafeConsole
from tests.unit.bulkhead_cli.actors import Running
from tests.unit.services.gateway.harness import OPERATOR


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory):
    mesh = Running(tmp_path_factory.mktemp("mesh"))
    mesh.start()
    yield f"http://127.0.0.1:{mesh.port}"
    mesh.stop()


@pytest.fixture
def data(tmp_path: Path, url: str) -> Path:
    """A data directory as `up` leaves it."""
    mesh_keys = {"keys": [{"sha256": _digest(OPERATOR), "tenant": "acme", "person": "ada", "role": "operator"}]}
    files = {"mesh.json": {"http_url": url}, "credentials.json": {"operator": OPERATOR}, "api_keys.json": mesh_keys}
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
        (tmp_path / name).chmod(0o600)
    return tmp_path


def _digest(key: str) -> str:
    import hashlib

    return hashlib.sha256(key.encode()).hexdigest()


def run(data: Path, *words: str):
    answer = CliRunner().invoke(app, ["open", *words, "--data", str(data)], env={"COLUMNS": "60"})
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def signed_in_at(link: str) -> str:
    """Where a browser is that follows a link, and whose person says yes."""
    page, _, token = link.partition("#")
    with httpx.Client(headers={"Origin": page.partition("/login")[0]}) as client:
        fields = {"api_key": token, "next": httpx.URL(page).params["next"], "confirmed": "yes"}
        answer = client.post(page, data=fields)
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]


def test_a_link_is_printed_whole_and_signs_in(data: Path, url: str) -> None:
    link = run(data, "t3k2", "--print").strip()
    assert link.startswith(f"{url}/login?next=/tasks/t3k2#bl_") and signed_in_at(link) == "/tasks/t3k2"
    printed = json.loads(run(data, "--json"))
    assert signed_in_at(printed["url"]) == "/" and printed["expires_unix_ms"] > 0


def test_a_browser_is_started_with_a_file_and_not_with_the_link(
    data: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    opened: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    for _ in range(2):
        said = run(data, "t3k2")
        assert f"opened {url}/tasks/t3k2 in a browser" in " ".join(said.split()) and "bl_" not in said
    file = data / "open.html"
    assert set(opened) == {file.as_uri()}, "the arguments of a program are everybody's to read"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    link = file.read_text().partition("url=")[2].partition('"')[0]
    assert signed_in_at(link) == "/tasks/t3k2"


def test_without_a_browser_the_link_is_printed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert signed_in_at(run(data).strip()) == "/"


@pytest.mark.parametrize("terminal", [True, False])
async def test_the_first_screen_says_where_what_how_and_how_to_stop(data: Path, url: str, terminal: bool) -> None:
    screen = SafeConsole(force_terminal=terminal, color_system=None, soft_wrap=True, width=80, record=True)
    await first_screen.print_first_screen(url, "http://127.0.0.1:8090", data, screen=screen)
    lines = [line.strip() for line in screen.export_text().splitlines()]
    assert len(lines) <= 12, "one screen"
    text = "\n".join(lines)
    assert f'bulkhead submit "What is refunded, and when?" --docs ./notes --watch --data {data}' in text
    assert "OPENAI_BASE_URL=http://127.0.0.1:8090/openai/v1" in text and f"of {data}/credentials.json" in text
    assert f"bulkhead open --data {data}" in text and "Ctrl-C" in text and OPERATOR not in text
    link = next(line for line in lines if line.startswith("console")).split()[-1]
    assert (signed_in_at(link) == "/") if terminal else (link == f"{url}/" and "bl_" not in text)


async def test_a_mesh_that_gives_no_link_has_a_first_screen_all_the_same(tmp_path: Path) -> None:
    screen = SafeConsole(force_terminal=True, color_system=None, width=80, record=True)
    await first_screen.print_first_screen("http://127.0.0.1:1", "http://127.0.0.1:8090", tmp_path, screen=screen)
    assert "http://127.0.0.1:1/" in screen.export_text()
