"""What models, documents and files say commands no terminal; a file that lies about everything is one clear line."""

import gzip
import io
import json

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree
from typer.testing import CliRunner

from bulkhead.client import TaskEvent
from bulkhead.journal.why.reason import Reason
from bulkhead_cli import output
from bulkhead_cli.inspect import broker
from bulkhead_cli.main import app
from bulkhead_cli.screen import SafeConsole
from bulkhead_cli.tasks import uncertain_writes
from bulkhead_cli.tasks.follow import TaskProgress

HOSTILE = "\x1b]0;owned\x07 \x9b2J \u202eevil\u2028\u200b \ud800 \x08\x00"
LINE = '{"agent":"a","action":"b"%s}\n'


def test_nothing_that_is_printed_commands_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    text = io.StringIO()
    screen = SafeConsole(file=text, force_terminal=True, width=500)
    table, tree = Table("head"), Tree(HOSTILE)
    table.add_row(HOSTILE)
    tree.add(Text(HOSTILE, style="red"))
    for thing in (HOSTILE, Text(HOSTILE), table, tree, Panel(HOSTILE)):
        screen.print(thing, markup=False)
    screen.print("[bold red]ours[/bold red]\tand a tab")
    said = text.getvalue()
    said.encode()
    assert not [char for char in ("\x07", "\x9b", "\u202e", "\u2028", "\u200b", "\x00") if char in said]
    assert "\\u009b2J" in said and "\x1b]0" not in said and "\x1b[1;31mours\x1b[0m" in said


def test_a_title_makes_no_line_of_ours() -> None:
    plan = {"version": 1, "steps": [{"id": "s1", "title": "look\n   1.00s task succeeded", "inputs": [], "tools": []}]}
    event = TaskEvent("plan.adopted", {"time_unix_ms": 5, "plan": plan}, "1")
    assert [line.plain for line in TaskProgress().render_event(event)] == [
        "   0.00s plan of 1 step",
        "   0.00s   s1 look    1.00s task succeeded",
    ]
    write = {
        "step_id": "s1",
        "title": "look\nended  it has succeeded",
        "tool": "pay",
        "arguments_json": "{}",
        "key": "k",
        "asked_unix_ms": 1,
        "why": "lost\nended",
    }
    text = io.StringIO()
    uncertain_writes.print_uncertain_writes(
        SafeConsole(file=text, width=500), {"task_id": "t1", "uncertain_writes": [write]}
    )
    assert not any(line.startswith("ended") for line in text.getvalue().splitlines())
    text = io.StringIO()
    told = Reason("uncertain", "look\nended  it has succeeded", "key\nended", 1)
    broker.print_reasons(SafeConsole(file=text, width=500), [told])
    assert len(text.getvalue().splitlines()) == 2


def test_json_keeps_the_text_and_commands_nothing(capsys) -> None:
    output.print_json({"text": HOSTILE, "name": "Zürich"})
    said = capsys.readouterr().out
    assert json.loads(said)["text"] == HOSTILE and "Zürich" in said
    assert said.isprintable() or said.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "content",
    [
        *(LINE % f',"{key}":{"9" * 400}' for key in ("time", "since", "time_unix_ms")),
        LINE % ',"time":1e999',
        (LINE % ',"result":"same"').replace('"a"', '"\\ud800 \\u001b[2J"') * 60,
        json.dumps(
            {"resourceSpans": [{"scopeSpans": [{"spans": [{"spanId": "1", "startTimeUnixNano": "9" * 4000}]}]}]}
        ),
        gzip.compress(b"\n" * 3_000_000),
        LINE % f',"arguments":{"[" * 50_000}{"]" * 50_000}',
        "\x00" * 1_000,
    ],
    ids=["time", "since", "unix_ms", "infinity", "surrogates", "span", "blank_lines", "deep", "nul"],
)
def test_analyze_takes_any_file_for_hostile(tmp_path, content) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for more in ([], ["--json"], ["--rows"]):
        answer = CliRunner().invoke(app, ["analyze", str(path), *more])
        assert answer.exit_code in (0, 1, 2), (more, answer.exception)
        assert answer.exception is None or isinstance(answer.exception, SystemExit), (more, answer.exception)
        assert "\x1b" not in answer.stdout
