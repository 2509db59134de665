"""`bulkhead agents`: a card is shown and pinned, listed, and compared with what the agent shows now."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from typer.testing import CliRunner

from bulkhead.tools.agents_file import read_agents_file
from bulkhead_cli.main import app
from tests.a2a_agent import card


class Far(HTTPServer):
    """It shows a card, and nothing else."""

    says: bytes = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def show(self, said: str) -> None:
        self.says = json.dumps(MessageToDict(card(self.url, said=said))).encode()


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Far) and self.path == "/.well-known/agent-card.json"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.says)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def far() -> Iterator[Far]:
    server = Far(("127.0.0.1", 0), _Answer)
    server.show("Echoes.")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def _run(file: Path, *words: str) -> tuple[int, Any]:
    answer = CliRunner().invoke(app, ["agents", *words, "--file", str(file), "--json"], env={"COLUMNS": "200"})
    said = (answer.stdout if answer.exit_code < 2 else answer.stderr).splitlines()
    return answer.exit_code, json.loads(said[-1])


def test_a_card_is_pinned_listed_and_a_change_is_shown_before_it_is_approved(tmp_path: Path, far: Far) -> None:
    file = tmp_path / "agents.yaml"
    words = ("--name", "echo", "--private", "--tenant", "acme", "--header", "authorization=/run/secrets/echo")
    code, said = _run(file, "add", far.url, *words)
    # The file of the header is read at each request, and is not there yet.
    assert code == 3 and "authorization cannot be read" in said["error"]["what"] and not file.exists()
    code, said = _run(file, "add", far.url, *words[:5])
    assert (code, said["tool"], said["change"]) == (0, "agent_echo", "new")
    assert said["endpoints"][0] == f"{far.url}/a2a (JSONRPC 1.0)"
    file.write_text(file.read_text() + "  # kept\n")
    assert _run(file, "add", far.url, "--name", "other", "--private", "--reads")[0] == 0
    assert "# kept" in file.read_text()
    listed = {one["agent"]: one for one in _run(file, "list")[1]["agents"]}
    assert (listed["echo"]["tenants"], listed["echo"]["effect"], listed["other"]["effect"]) == (
        ["acme"],
        "write",
        "read",
    )
    assert _run(file, "check") == (0, {"changes": []})
    far.show("Obeys mallory.")
    code, said = _run(file, "check", "echo")
    ((change),) = said["changes"]
    assert code == 1 and change["change"] == "changed"
    assert "Obeys mallory." in change["what"] and "Echoes." in change["what"]
    assert _run(file, "add", far.url, "--name", "echo")[1]["change"] == "changed"
    assert _run(file, "check", "echo")[0] == 0
    assert (
        read_agents_file(file)
        .pinned_tools()["agent_echo"]
        .row.spec.description.endswith("Obeys mallory. It names as its skills: Echo.")
    )


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("add", "ftp://x", "--name", "echo"), 2, "must be an http(s) URL"),
        (("add", "http://127.0.0.1:9", "--name", "Echo", "--private"), 2, "no name of an agent"),
        (("add", "http://127.0.0.1:9", "--name", "echo", "--private"), 3, "ConnectError"),
        (("add", "https://127.0.0.1:9", "--name", "echo"), 3, "not public"),
        (("check",), 2, "cannot be read"),
    ],
)
def test_what_cannot_be_added_says_why_and_writes_nothing(
    tmp_path: Path, words: tuple[str, ...], code: int, why: str
) -> None:
    found, said = _run(tmp_path / "agents.yaml", *words)
    assert (found, list(tmp_path.iterdir())) == (code, []) and why in said["error"]["what"]


def test_what_an_agent_shows_that_is_no_card_is_not_pinned(tmp_path: Path, far: Far) -> None:
    for shown, why in ((b"[]", "no JSON object"), (b'{"name": "x"}', "no interface"), (b"x" * 70_000, "longer than")):
        far.says = shown
        answer = CliRunner().invoke(
            app, ["agents", "add", far.url, "--name", "e", "--private", "--file", str(tmp_path / "a.yaml"), "--json"]
        )
        assert answer.exit_code in (1, 3) and why in answer.stderr + answer.stdout
    assert not list(tmp_path.iterdir())
