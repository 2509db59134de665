"""The command line against a real gateway: what it prints, what it exits with, what it says when it cannot."""

import json
import re
import socket

import pytest
from typer.testing import CliRunner

from bulkhead.cli.main import app
from tests.unit.cli.actors import Running
from tests.unit.gateway.harness import AUDITOR, OPERATOR

TASK = re.compile(r"^t[a-z2-7]{25}$")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    found = Running(tmp_path_factory.mktemp("mesh"))
    found.start()
    yield found
    found.stop()


@pytest.fixture
def bulkhead(running, tmp_path):
    def call(*args, key=OPERATOR, url=None, text=None):
        target = ["--url", url or f"http://127.0.0.1:{running.port}", "--api-key", key]
        words = list(args)
        if words[0] in ("submit", "watch", "tasks", "show", "cancel"):
            words += target
        return CliRunner().invoke(app, words, input=text, env={"COLUMNS": "200", "BULKHEAD_DATA": str(tmp_path)})

    return call


def submitted(bulkhead, *args):
    answer = bulkhead("submit", *args, "--json")
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout.splitlines()[-1])["task_id"]


def test_watch_prints_progress_answer_sources_and_cost(bulkhead):
    answer = bulkhead("submit", "What is refunded?", "--watch")
    assert answer.exit_code == 0, answer.output
    said = answer.stdout
    for wanted in ("accepted, planning", "plan of 2 steps", "s1 Find the rule", "▸ s2 Answer", "✓ s2 accepted",
                   "task succeeded", "The refund is 40 EUR [1], which is 80 % [2]. Rules as of May [1].",
                   "[1] fares.md, characters 10–90", "[2] tool result calculate", "$0.0042", "1,200 tokens in, 300 out",
                   "2 of 2 steps"):
        assert wanted in said, f"{wanted!r} is not in:\n{said}"
    assert "\x1b[" not in said, "no terminal, no colours"
    assert "WARNING" not in said


def test_doubts_stand_before_the_answer(bulkhead):
    said = bulkhead("submit", "doubt", "--watch").stdout
    degraded = said.index("WARNING degraded: the fallback model answered")
    incomplete = said.index("WARNING incomplete: the third document was truncated (context too small)")
    assert max(degraded, incomplete) < said.index("The refund is")


def test_a_failed_task_is_1_and_says_what_to_do(bulkhead):
    answer = bulkhead("submit", "fail please", "--watch")
    assert answer.exit_code == 1
    assert "step s1 failed" in answer.stdout and "what to do: add the fare rules with --docs" in answer.stdout
    assert "✗ s1 failed: no document says so" in answer.stdout


def test_json_is_one_document_a_line(bulkhead):
    answer = bulkhead("submit", "What is refunded?", "--watch", "--json")
    events = [json.loads(line) for line in answer.stdout.splitlines()]
    names = [event["event"] for event in events]
    assert names[0] == "submitted" and names[-2:] == ["task.ended", "result"]
    text = ""
    for event in events:
        if event["event"] == "text":
            text = text[: event["data"]["offset"]] + event["data"]["text"]
    assert text == events[-1]["data"]["answer"]


def test_submit_watch_show_tasks(bulkhead):
    task = submitted(bulkhead, "What is refunded?")
    assert TASK.match(task)
    plain = bulkhead("submit", "What is refunded?")
    assert TASK.match(plain.stdout.strip()) and "bulkhead watch" in plain.stderr
    assert bulkhead("watch", task).exit_code == 0
    shown = bulkhead("show", task).stdout
    assert "What is refunded?" in shown and "[1] fares.md" in shown
    assert json.loads(bulkhead("show", task, "--json").stdout)["status"] == "succeeded"
    listed = bulkhead("tasks", "--limit", "100").stdout
    assert task in listed and "succeeded" in listed
    rows = json.loads(bulkhead("tasks", "--limit", "1", "--json").stdout)
    assert len(rows) == 1 and rows[0]["task_id"] == plain.stdout.strip()


def test_the_objective_from_standard_input_and_limits(bulkhead):
    answer = bulkhead("submit", "-", "--limit-usd", "0.25", "--limit-tokens", "700", "--deadline", "1m30s", "--json",
                      text="From a pipe\n")
    task = json.loads(answer.stdout)["task_id"]
    found = json.loads(bulkhead("show", task, "--json").stdout)
    assert found["objective"] == "From a pipe\n"
    assert found["limits"] == {"cost_usd_micros": 250_000, "tokens": 700, "deadline_ms": 90_000}


def test_documents_go_in_first(bulkhead, tmp_path):
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "fares.md").write_text("# Fares")
    (folder / "deep" / "rules.txt").write_text("rules")
    (folder / ".hidden").write_text("no")
    answer = bulkhead("submit", "What is refunded?", "--docs", str(folder))
    assert answer.exit_code == 0, answer.output
    assert answer.stderr.count("ingested, 2 chunks") == 2 and "rules.txt" in answer.stderr
    (folder / "image.txt").write_bytes(b"\0\1")
    answer = bulkhead("submit", "What is refunded?", "--docs", str(folder))
    assert answer.exit_code == 4 and "image.txt: not text — send text" in answer.stderr


def test_cancel(bulkhead):
    task = submitted(bulkhead, "hang around")
    answer = bulkhead("cancel", task, "--reason", "too slow")
    assert answer.exit_code == 0
    watched = bulkhead("watch", task)
    assert watched.exit_code == 1 and "cancelled: too slow" in watched.stdout
    again = bulkhead("cancel", task)
    assert again.exit_code == 4 and "cancelled" in again.stderr


@pytest.mark.parametrize(("args", "code", "said"), [
    (("submit", "x", "--limit-usd", "nan"), 2, "amount of dollars"),
    (("submit", "x", "--limit-usd", "-1"), 2, "amount of dollars"),
    (("submit", "x", "--limit-tokens", "-1"), 2, "limit-tokens"),
    (("submit", "x", "--deadline", "soon"), 2, "no duration"),
    (("submit", "x", "--deadline", "0s"), 2, "deadline"),
    (("submit", "  "), 2, "objective is empty"),
    (("submit", "x" * 20_000), 2, "the limit is 16384"),
    (("submit", "x", "--docs", "/no/such/file"), 2, "no document"),
    (("show", "no-such-task"), 4, "no task 'no-such-task' in your tenant"),
    (("watch", "no-such-task"), 4, "no task"),
    (("tasks", "--limit", "0"), 2, "limit"),
    (("nonsense",), 2, "nonsense"),
])
def test_what_goes_wrong_is_said_in_words(bulkhead, args, code, said):
    answer = bulkhead(*args)
    assert answer.exit_code == code, answer.output
    assert said in answer.output and "Traceback" not in answer.output


def test_unreachable_is_3_and_refused_is_4(bulkhead):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    answer = bulkhead("tasks", url=f"http://127.0.0.1:{port}")
    assert answer.exit_code == 3 and "no answer from" in answer.stderr and "bulkhead up" in answer.stderr
    assert answer.stderr.count("\n") == 1
    answer = bulkhead("submit", "x", key="bk_wrong")
    assert answer.exit_code == 4 and "not known" in answer.stderr
    answer = bulkhead("submit", "x", key=AUDITOR)
    assert answer.exit_code == 4 and "may not submit" in answer.stderr


def test_a_mesh_is_found_by_its_directory(running, tmp_path):
    call = lambda *args: CliRunner().invoke(app, [*args, "--data", str(tmp_path)])
    answer = call("tasks")
    assert answer.exit_code == 3 and "bulkhead up" in answer.stderr
    (tmp_path / "mesh.json").write_text(json.dumps({"http_url": f"http://127.0.0.1:{running.port}"}))
    answer = call("tasks")
    assert answer.exit_code == 2 and "no API key" in answer.stderr
    (tmp_path / "api_keys.json").write_text((running.folder / "keys.json").read_text())
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps({"auditor": AUDITOR, "operator": OPERATOR}))
    credentials.chmod(0o644)
    answer = call("tasks")
    assert answer.exit_code == 2 and "chmod 600" in answer.stderr
    credentials.chmod(0o600)
    assert call("submit", "hang").exit_code == 0, "the operator's key is used, not the auditor's"
    assert call("tasks", "--tenant", "acme").exit_code == 0
    assert call("tasks", "--tenant", "a.b").exit_code == 2


def test_a_new_tenant_gets_a_key_of_its_own(running, tmp_path):
    (tmp_path / "mesh.json").write_text(json.dumps({"http_url": f"http://127.0.0.1:{running.port}"}))
    shared = running.folder / "keys.json"
    (tmp_path / "api_keys.json").symlink_to(shared)
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps({"operator": OPERATOR}))
    credentials.chmod(0o600)
    answer = CliRunner().invoke(app, ["tasks", "--tenant", "fresh", "--data", str(tmp_path)])
    made = json.loads(credentials.read_text())["fresh/operator"]
    assert made.startswith("bk_") and made not in (tmp_path / "api_keys.json").read_text()
    assert answer.exit_code == 4, "the gateway reads its own file, which the link's replacement left alone"
    shared.write_text((tmp_path / "api_keys.json").read_text())
    answer = CliRunner().invoke(app, ["tasks", "--tenant", "fresh", "--data", str(tmp_path)])
    assert answer.exit_code == 0 and "no tasks yet" in answer.stdout


def test_help_names_the_exit_codes():
    for command in ([], ["submit"], ["watch"], ["replay"], ["doctor"], ["dead-letters", "list"], ["up"]):
        answer = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "300"})
        assert answer.exit_code == 0 and "Exit codes: 0 ok" in answer.output


def test_commands_that_need_the_broker_say_what_is_missing(tmp_path):
    for command in (["timeline", "t1"], ["replay", "t1"], ["dead-letters"], ["dead-letters", "show", "abcd"]):
        answer = CliRunner().invoke(app, [*command, "--data", str(tmp_path)])
        assert answer.exit_code == 3 and "--data" in answer.stderr, answer.output
