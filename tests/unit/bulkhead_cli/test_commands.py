"""The command line against a real gateway: what it prints, what it exits with, what it says when it cannot."""

import json
import re
import socket
import time

import httpx
import pytest
import typer
from typer.testing import CliRunner

from bulkhead.client import Unreachable
from bulkhead_cli.main import PANELS, app
from bulkhead_cli.tasks.answer import author_line
from bulkhead_cli.tasks.follow import ConnectionLostNotice
from bulkhead_contracts.grant import GrantReplied
from bulkhead_contracts.retrieval import DocumentChunksReplied, DocumentSearchReplied
from tests.unit.bulkhead_cli.actors import Running
from tests.unit.services.gateway.harness import AUDITOR, OPERATOR

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
        if words[0] in ("submit", "watch", "tasks", "show", "cancel", "documents"):
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
    for wanted in (
        "accepted, planning",
        "not used: send_mail. A tool that writes has to be named, with --tool or in the tenant's default_writes",
        "plan of 2 steps",
        "s1 Find the rule",
        "▸ s2 Answer",
        "✓ s2 accepted",
        "task succeeded",
        "The refund is 40 EUR [1], which is 80 % [2]. Rules as of May [1].",
        "[1] fares.md, characters 10–90",
        "[2] tool result calculate",
        "$0.0042",
        "1,200 tokens in, 300 out",
        "2 of 2 steps",
    ):
        assert wanted in said, f"{wanted!r} is not in:\n{said}"
    assert "\x1b[" not in said, "no terminal, no colours"
    assert "WARNING" not in said


def test_doubts_stand_before_the_answer(bulkhead):
    said = bulkhead("submit", "doubt", "--watch").stdout
    degraded = said.index("WARNING degraded: the fallback model answered")
    incomplete = said.index("WARNING incomplete: the third document was truncated (context too small)")
    assert max(degraded, incomplete) < said.index("The refund is")


def test_a_script_can_require_a_whole_answer(bulkhead):
    doubtful = bulkhead("submit", "doubt", "--watch", "--require-complete")
    assert doubtful.exit_code == 1 and "The refund is" in doubtful.stdout and "bulkhead why" in doubtful.stderr
    whole = bulkhead("submit", "What is refunded?", "--watch", "--require-complete", "--json")
    assert whole.exit_code == 0 and json.loads(whole.stdout.splitlines()[-1])["data"]["complete"] is True
    alone = bulkhead("submit", "What is refunded?", "--require-complete")
    assert alone.exit_code == 2 and "add --watch" in alone.stderr


def test_a_task_that_answers_nothing_has_an_exit_code_of_its_own(bulkhead):
    for options in ((), ("--require-complete",)):
        said = bulkhead("submit", "What is the parental leave?", "--watch", *options)
        assert said.exit_code == 5 and "succeeded [not answered]" in said.stdout
        assert "WARNING not answered: the documents do not say it" in said.stdout
        assert "– s2 accepted [not answered]" in said.stdout


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
    assert task in bulkhead("tasks", "--answered", "yes,unknown", "--limit", "100").stdout
    assert "no tasks fit" in bulkhead("tasks", "--answered", "partly").stdout
    refused = bulkhead("tasks", "--answered", "perhaps")
    assert refused.exit_code == 2 and "yes, partly, no, unknown" in refused.stderr
    for options in (("--status", "succeeded,failed"), ("--feature", ""), ("--person", "ada")):
        assert task in bulkhead("tasks", *options, "--limit", "100").stdout, options
    for options in (("--status", "queued"), ("--feature", "search"), ("--code", "step_failed"), ("--since", "1h")):
        assert task not in bulkhead("tasks", *options, "--limit", "100").stdout, options
    refused = bulkhead("tasks", "--since", "yesterday")
    assert refused.exit_code == 2 and "90s, 20m, 1h, 7d" in refused.stderr


def test_json_is_that_of_the_api(bulkhead, running):
    task = submitted(bulkhead, "What is refunded?")
    submitted(bulkhead, "What is refunded?")
    assert bulkhead("watch", task).exit_code == 0
    api = httpx.Client(base_url=f"http://127.0.0.1:{running.port}", headers={"X-API-Key": OPERATOR})
    for words, path in (
        (("tasks", "--limit", "1"), "/v1/tasks?limit=1"),
        (("tasks", "--limit", "100", "--status", "succeeded"), "/v1/tasks?limit=100&status=succeeded"),
        (("show", task), f"/v1/tasks/{task}"),
        (("documents",), "/v1/documents"),
    ):
        assert json.loads(bulkhead(*words, "--json").stdout) == api.get(path).json(), words


def test_the_objective_from_standard_input_and_limits(bulkhead):
    answer = bulkhead(
        "submit",
        "-",
        "--limit-usd",
        "0.25",
        "--limit-tokens",
        "700",
        "--deadline",
        "1m30s",
        "--json",
        text="From a pipe\n",
    )
    task = json.loads(answer.stdout)["task_id"]
    found = json.loads(bulkhead("show", task, "--json").stdout)
    assert found["objective"] == "From a pipe\n"
    assert found["limits"] == {"cost_usd_micros": 250_000, "tokens": 700, "deadline_ms": 90_000}


def test_a_plan_tools_and_a_key_of_ones_own(bulkhead, running, tmp_path):
    step = {"id": "pay", "title": "Pay", "instruction": "Pay it.", "acceptance": "It is paid.", "role": "desk"}
    plan, tools, key = tmp_path / "plan.json", ["--tool", "calculate"], ["--idempotency-key", "k1"]
    plan.write_text(json.dumps({"steps": [step]}))
    words = ["Pay", "--plan", str(plan), *tools, *key]
    assert submitted(bulkhead, *words) == submitted(bulkhead, *words) != submitted(bulkhead, *words[:-1], "k2")
    for text, code, said in (
        ('{"steps": [{"id": "pay"}]}', 4, "plan.steps.0.title"),
        ("[1]", 2, "no JSON object"),
        ("{", 2, "is no JSON"),
        (None, 2, "--plan names a JSON file"),
    ):
        if text is None:
            plan.unlink()
        else:
            plan.write_text(text)
        answer = bulkhead("submit", "Pay", "--plan", str(plan))
        assert answer.exit_code == code and said in answer.stderr, answer.output


def test_documents_go_in_first(bulkhead, tmp_path):
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "fares.md").write_text("# Fares")
    (folder / "deep" / "rules.txt").write_text("rules")
    (folder / ".hidden").write_text("no")
    answer = bulkhead("submit", "What is refunded?", "--docs", str(folder))
    assert answer.exit_code == 0, answer.output
    assert answer.stderr.count("ingested, 2 chunks") == 2 and "rules.txt" in answer.stderr


@pytest.mark.slow
def test_unreadable_documents_end_submit_unless_it_may_skip_them(bulkhead, tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "fares.md").write_text("# Fares")
    (folder / "empty.md").write_text("")
    (folder / "image.txt").write_bytes(b"\0\1")
    tasks = json.loads(bulkhead("tasks", "--json").stdout)["total"]
    for more in ((), ("--watch",), ("--watch", "--json"), ("--json",)):
        answer = bulkhead("submit", "What is refunded?", "--docs", str(folder), *more)
        assert answer.exit_code == 4 and "2 of 3 documents could not be read: " in answer.stderr, answer.output
        assert "empty.md" in answer.stderr and "--skip-unreadable" in answer.stderr
    assert json.loads(bulkhead("tasks", "--json").stdout)["total"] == tasks, "no task was submitted"
    skipping = ("--docs", str(folder), "--skip-unreadable")
    answer = bulkhead("submit", "What is refunded?", *skipping)
    assert answer.exit_code == 0 and TASK.match(answer.stdout.strip()), answer.output
    assert "document fares.md: ingested, 2 chunks" in answer.stderr
    assert "image.txt: this is not text: it contains zero bytes — send text" in answer.stderr
    assert re.search(r"skipped \S*empty.md: the document is empty — give it some text", answer.stderr)
    assert "request body" not in answer.stderr
    watched = bulkhead("submit", "What is refunded?", *skipping, "--watch").stdout
    assert "the answer may be incomplete: 2 of 3 documents could not be read: " in watched
    told = json.loads(bulkhead("submit", "x", *skipping, "--json").stdout)
    assert {one["code"] for one in told["skipped"]} == {"invalid_document", "binary_document"}
    assert TASK.match(told["task_id"]) and [one["name"] for one in told["documents"]] == ["fares.md"]
    followed = bulkhead("submit", "x", *skipping, "--watch", "--json").stdout.splitlines()
    assert sorted(json.loads(line)["event"] for line in followed[:4]) == [
        "document",
        "document_skipped",
        "document_skipped",
        "submitted",
    ]
    for name, code in (("image.txt", 4), ("empty.md", 4)):
        answer = bulkhead("submit", "What is refunded?", "--docs", str(folder / name))
        assert answer.exit_code == code and f"{name}: " in answer.stderr and not answer.stdout
    (folder / "fares.md").unlink()
    answer = bulkhead("submit", "What is refunded?", *skipping)
    assert answer.exit_code == 4 and "none of 2 documents could be read" in answer.stderr


def test_a_file_goes_in_once_and_same_names_stay_apart(bulkhead, tmp_path):
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "fares.md").write_text("# Fares")
    (folder / "deep" / "fares.md").write_text("# Other fares")
    answer = bulkhead("submit", "x", "--docs", str(folder), "--docs", str(folder / "fares.md"))
    assert answer.exit_code == 0, answer.output
    assert sorted(re.findall(r"document (\S+):", answer.stderr)) == ["deep/fares.md", "fares.md"]
    (tmp_path / "empty").mkdir()
    answer = bulkhead("submit", "x", "--docs", str(tmp_path / "empty"))
    assert answer.exit_code == 2 and "holds no documents" in answer.stderr


@pytest.mark.slow
def test_documents_are_added_listed_replaced_and_deleted(bulkhead, tmp_path):
    for one in json.loads(bulkhead("documents", "--json").stdout)["documents"]:
        assert bulkhead("documents", "delete", one["name"]).exit_code == 0
    assert "no documents yet" in bulkhead("documents").stdout
    file = tmp_path / "fares.md"
    for text, said in (
        ("# Fares", "ingested, 2 chunks\n"),
        ("# New fares", "in place of the former document of this name"),
    ):
        file.write_text(text)
        answer = bulkhead("documents", "add", str(file))
        assert answer.exit_code == 0 and said in answer.stderr and not answer.stdout, answer.output
    added = json.loads(bulkhead("documents", "add", str(file), "--json").stdout)
    assert [one["name"] for one in added["documents"]] == ["fares.md"] and added["skipped"] == []
    listed = bulkhead("documents", "list")
    assert re.search(r"fares.md +2 +3 +2027", listed.stdout), listed.output
    assert json.loads(bulkhead("documents", "list", "--json").stdout)["documents"][0]["versions"] == 3
    (tmp_path / "empty.md").write_text("")
    answer = bulkhead("documents", "add", str(file), str(tmp_path / "empty.md"))
    assert answer.exit_code == 4 and "document fares.md: ingested" in answer.stderr, "what is in is told all the same"
    assert "error: " in answer.stderr and "empty.md: the document is empty" in answer.stderr
    assert bulkhead("documents", "delete", " ").exit_code == 2
    answer = bulkhead("documents", "delete", "fare.md")
    assert answer.exit_code == 2 and "did you mean fares.md?" in answer.stderr, answer.output
    assert "deleted fares.md (" in bulkhead("documents", "delete", "fares.md").stdout
    answer = bulkhead("documents", "delete", "fares.md")
    assert answer.exit_code == 2 and "`bulkhead documents` lists the names" in answer.stderr


@pytest.mark.parametrize("key", ["bk_\u00e4\u00f6", "bk_a\nX-Evil: 1", "bk a", "\x00"])
def test_an_api_key_that_cannot_be_one_is_said(bulkhead, key):
    answer = bulkhead("tasks", key=key)
    assert answer.exit_code == 2 and "--api-key (or BULKHEAD_API_KEY) holds characters" in answer.stderr, answer.output


@pytest.mark.parametrize("amount", ["0", "-1", "nan", "0.0000001"])
def test_a_limit_of_nothing_is_wrong_usage(bulkhead, amount):
    answer = bulkhead("submit", "x", "--limit-usd", amount)
    assert answer.exit_code == 2, answer.output
    assert "with nothing no task could begin" in " ".join(answer.output.replace("│", " ").split())


def test_standard_input_that_is_no_text(bulkhead):
    answer = bulkhead("submit", "-", text=b"\xff\xfe\x00\x01")
    assert answer.exit_code == 2 and "standard input is not UTF-8 text" in answer.stderr, answer.output


def test_what_the_policy_refuses_at_once_is_4_in_the_words_of_the_command_line(running, bulkhead):
    running.refuse(GrantReplied(granted=False, code="limit_above_policy", reason="too much", hint="ask for less"))
    try:
        answer = bulkhead("submit", "x", "--limit-usd", "100")
        assert answer.exit_code == 4 and "the task was rejected: too much — ask for less" in answer.stderr
        assert TASK.match(answer.stdout.strip())
        answer = bulkhead("submit", "x", "--json")
        assert answer.exit_code == 4
        assert json.loads(answer.stderr) == {
            "error": {"code": "limit_above_policy", "hint": "ask for less", "what": "the task was rejected: too much"}
        }
    finally:
        running.refuse(None)


@pytest.mark.parametrize(
    ("args", "exit_code", "code"),
    [
        (("show", "no-such-task", "--json"), 2, "not_found"),
        (("submit", "  ", "--json"), 2, "usage"),
        (("submit", "x", "--limit-tokens", "-1", "--json"), 2, "usage"),
        (("nonsense", "--json"), 2, "usage"),
        (("timeline", "a.b", "--json"), 2, "usage"),
    ],
)
def test_errors_under_json_are_json(bulkhead, args, exit_code, code):
    answer = bulkhead(*args)
    error = json.loads(answer.stderr)["error"]
    assert answer.exit_code == exit_code and error["code"] == code and error["what"] and "hint" in error
    assert not answer.stdout


def test_watch_on_a_mesh_that_was_never_reached_ends_at_once(bulkhead):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    began = time.monotonic()
    answer = bulkhead("watch", "t1", url=f"http://127.0.0.1:{port}")
    assert answer.exit_code == 3 and "no answer from" in answer.stderr
    assert time.monotonic() - began < 10


def test_submit_leaves_no_connection_behind(bulkhead, caplog):
    assert bulkhead("submit", "hang").exit_code == 0
    assert not [record.getMessage() for record in caplog.records if record.name == "asyncio"]


def test_an_address_that_is_none(bulkhead):
    for url in ("garbage", "http://", "ftp://x", "http://x:99999"):
        answer = bulkhead("tasks", url=url)
        assert answer.exit_code == 2 and "is no address" in answer.stderr


def test_version_and_bare_command():
    answer = CliRunner().invoke(app, ["--version"])
    assert answer.exit_code == 0 and re.match(r"bulkhead \d+\.", answer.stdout)
    answer = CliRunner().invoke(app, [])
    assert answer.exit_code == 0 and "Usage: bulkhead" in answer.stdout


def test_submit_help_names_what_holds_without_options():
    said = " ".join(CliRunner().invoke(app, ["submit", "--help"], env={"COLUMNS": "300"}).stdout.split())
    assert "may cost $0.50, use 500,000 tokens and take 120 s by the clock" in said


def test_the_author_of_the_answer_is_named():
    content = {"sha256": "a" * 64}
    label = {"kind": "model_reply", "sha256": "a" * 64, "source": "openai/offline-rules-1"}
    other = {"kind": "model_reply", "sha256": "b" * 64, "source": "openai/other-1"}
    assert "no LLM" in author_line({"content": content, "provenance": [other, label]})
    assert author_line({"content": {"sha256": "b" * 64}, "provenance": [label, other]}) == "answered by openai/other-1"
    assert author_line({"content": {"sha256": "c" * 64}, "provenance": [label]}) == ""


def test_a_lost_connection_is_said_with_the_time_that_is_left(capsys):
    lost = ConnectionLostNotice(as_json=False)
    lost(Unreachable("no answer from x"), 118.4)
    lost(Unreachable("no answer from x"), 117.0)
    assert capsys.readouterr().err == "connection lost, trying again (1:58 left): no answer from x\n"
    ConnectionLostNotice(as_json=True)(Unreachable("no answer"), 118.4)
    assert json.loads(capsys.readouterr().out) == {
        "event": "connection.lost",
        "data": {"why": "no answer", "left_s": 118},
    }


def test_cancel(bulkhead):
    task = submitted(bulkhead, "hang around")
    answer = bulkhead("cancel", task, "--reason", "too slow")
    assert answer.exit_code == 0
    watched = bulkhead("watch", task)
    assert watched.exit_code == 1 and "cancelled: too slow" in watched.stdout
    again = bulkhead("cancel", task)
    assert again.exit_code == 4 and "cancelled" in again.stderr


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("submit", "x", "--limit-usd", "nan"), 2, "amount of dollars"),
        (("submit", "x", "--limit-usd", "-1"), 2, "amount of dollars"),
        (("submit", "x", "--limit-tokens", "-1"), 2, "limit-tokens"),
        (("submit", "x", "--deadline", "soon"), 2, "no duration"),
        (("submit", "x", "--deadline", "8d"), 2, "--deadline: a deadline lies"),
        (("topup", "t1", "--usd", "-1", "--reason", "x"), 2, "--usd -1 is out of bounds"),
        (("submit", "x", "--deadline", "0s"), 2, "deadline"),
        (("submit", "  "), 2, "objective is empty"),
        (("submit", "x" * 20_000), 2, "the limit is 16384"),
        (("submit", "x", "--docs", "/no/such/file"), 2, "no document"),
        (("submit", "x", "--limit-tokens", "0"), 2, "limit-tokens"),
        (("submit", "x\udcff"), 2, "argument 2 is not UTF-8 text"),
        (("cancel", "t1", "--reason", "\udcff"), 2, "is not UTF-8 text"),
        (("show", "no-such-task"), 2, "no task 'no-such-task' in your tenant"),
        (("watch", "no-such-task"), 2, "no task"),
        (("tasks", "--limit", "0"), 2, "limit"),
        (("nonsense",), 2, "nonsense"),
    ],
)
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


def test_a_new_tenant_gets_a_key_of_its_own_by_submitting_and_a_typo_gets_none(running, tmp_path):
    (tmp_path / "mesh.json").write_text(
        json.dumps({"http_url": f"http://127.0.0.1:{running.port}", "tenants": ["acme", "fresh"]})
    )
    shared = running.folder / "keys.json"
    (tmp_path / "api_keys.json").symlink_to(shared)
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps({"operator": OPERATOR}))
    credentials.chmod(0o600)
    before = shared.read_text()
    call = lambda *args: CliRunner().invoke(app, [*args, "--data", str(tmp_path)])
    for command in (["tasks"], ["submit", "x"], ["show", "t1"]):
        answer = call(*command, "--tenant", "nope")
        assert answer.exit_code == 2 and "no tenant nope; there are acme, fresh" in answer.stderr
    assert "did you mean fresh?" in call("tasks", "--tenant", "frsh").stderr
    answer = call("tasks", "--tenant", "fresh")
    assert answer.exit_code == 2 and "tenant fresh has no API key" in answer.stderr, "to read makes no credentials"
    assert (tmp_path / "api_keys.json").read_text() == before
    assert list(json.loads(credentials.read_text())) == ["operator"]
    answer = call("submit", "hang", "--tenant", "fresh")
    made = json.loads(credentials.read_text())["fresh/operator"]
    assert made.startswith("bk_") and made not in (tmp_path / "api_keys.json").read_text()
    assert answer.exit_code == 4, "the gateway reads its own file, which the link's replacement left alone"
    shared.write_text((tmp_path / "api_keys.json").read_text())
    answer = call("tasks", "--tenant", "fresh")
    assert answer.exit_code == 0 and "no tasks yet" in answer.stdout


@pytest.mark.slow
def test_help_groups_every_command_by_what_people_do():
    commands = typer.main.get_command(app).commands
    panels = {command.rich_help_panel for command in commands.values()}
    assert panels == {*PANELS}, "a command without a panel stands apart from all others"
    said = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).stdout
    assert [line.strip("╭─╮ ") for line in said.splitlines() if line.startswith("╭")] == ["Options", *PANELS]


def test_each_command_has_a_help_of_one_line():
    long = {
        name: help_
        for name, command in typer.main.get_command(app).commands.items()
        if len(help_ := command.help.split("\n\n")[0]) > 90 or not help_
    }
    assert long == {}


def test_help_shows_its_brackets():
    """In help texts a bracket is markup, and is swallowed where it is none that people are to see."""
    commands, swallowed = [typer.main.get_command(app)], set()
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        texts = [command.help, *(getattr(option, "help", "") for option in command.params)]
        tags = [tag for text in texts for tag in re.findall(r"(?<!\\)\[([a-z#/@][^\]]*)\]", text or "")]
        swallowed |= {(command.name, tag) for tag in tags if tag.strip("/") not in ("bold", "dim")}
    assert not swallowed
    said = CliRunner().invoke(app, ["cite", "--help"], env={"COLUMNS": "100"}).stdout
    assert "[#...]" in said


def test_help_names_the_exit_codes():
    for command in ([], ["submit"], ["watch"], ["replay"], ["doctor"], ["dead-letters", "list"], ["up"]):
        answer = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "300"})
        assert answer.exit_code == 0 and "Exit codes: 0 ok" in answer.output


def test_commands_that_need_the_broker_say_what_is_missing(tmp_path):
    for command in (["timeline", "t1"], ["replay", "t1"], ["dead-letters"], ["dead-letters", "show", "abcd"]):
        answer = CliRunner().invoke(app, [*command, "--data", str(tmp_path)])
        assert answer.exit_code == 3 and "--data" in answer.stderr, answer.output


def test_a_document_is_shown_by_chunk_and_searched(bulkhead, running):
    chunk = {"chunk_id": "c1", "start": 0, "end": 30, "title": "Fares", "text": "Refunds\nerror: none of ours"}
    stored = {"name": "fares.pdf", "sha256": "0" * 64, "media_type": "application/pdf", "chunks": 2, "versions": 1}
    lost = {"page": 2, "code": "unreadable", "reason": "KeyError"}
    part = {"document": stored | {"ingested_unix_ms": 1, "pages": 3, "sparse_pages": 1}, "chars": 60, "next": 31}
    running.bus.chunks = DocumentChunksReplied.model_validate(part | {"chunks": [chunk], "lost_pages": [lost]})
    shown = bulkhead("documents", "show", "fares.pdf")
    assert shown.exit_code == 0 and "2 passages, 60 characters" in shown.stdout, shown.output
    assert "1 of 3 pages are lost" in shown.stdout and "page 2: unreadable: KeyError" in shown.stdout
    assert "0 to 30 (Fares)\n    Refunds\n    error: none of ours\n" in shown.stdout and "--start 31" in shown.stdout
    assert json.loads(bulkhead("documents", "show", "fares.pdf", "--json").stdout)["chunks"] == [chunk]
    running.bus.chunks = DocumentChunksReplied()
    absent = bulkhead("documents", "show", "fares.pdf")
    assert absent.exit_code == 2 and "there is no document 'fares.pdf'" in absent.stderr

    ranked = chunk | {"document": "fares.pdf", "document_sha256": "0" * 64, "score": 0.5}
    reply = {"chunks": [ranked], "pruned": 1, "note": "by words"}
    running.bus.searched = DocumentSearchReplied.model_validate(reply)
    found = bulkhead("documents", "search", "what is refunded?")
    assert "1. fares.pdf, 0 to 30, score 0.500 (Fares)\n    Refunds" in found.stdout, found.output
    assert "1 other" in found.stdout and "by words" in found.stdout
    assert json.loads(bulkhead("documents", "search", "refunds", "--json").stdout)["chunks"] == [ranked]
    assert bulkhead("documents", "search", " ").exit_code == 2
