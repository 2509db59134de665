"""`bulkhead replay FILE`: no mesh, no data directory; what it prints and what it ends with."""

import json
from dataclasses import replace as change

import pytest
from typer.testing import CliRunner

from bulkhead.bus.port import StoredMessage
from bulkhead.runtime.decider.history import TaskHistory
from bulkhead.runtime.decider.history_file import load_history, save_history
from bulkhead_cli.main import app
from bulkhead_cli.replay.replay import ReplayTotals
from bulkhead_contracts import envelope, subjects
from bulkhead_contracts.task import TaskRejected
from tests.paths import HISTORIES

PLAIN = HISTORIES / "given_plan.jsonl"


def replay(*words):
    return CliRunner().invoke(app, ["replay", *map(str, words)], env={"COLUMNS": "300", "BULKHEAD_DATA": "/nowhere"})


def test_a_file_replays_without_a_mesh():
    answer = replay(PLAIN)
    assert answer.exit_code == 0, answer.output
    assert "no divergence" in answer.stdout and "compared byte for byte" in answer.stdout
    [path] = HISTORIES.glob("fork.jsonl*")
    packed = json.loads(replay(path, "--json").stdout)
    assert packed["ended"] and packed["divergences"] == [] and packed["compared"] > 5


def test_a_divergence_is_shown_and_ends_with_1(tmp_path):
    path = tmp_path / "changed.jsonl"
    whole = load_history(PLAIN)
    lied = (
        change(one, body=one.body.replace(b'"status":"succeeded"', b'"status":"cancelled"')) for one in whole.messages
    )
    save_history(change(whole, messages=tuple(lied)), path)
    answer = replay(path)
    assert answer.exit_code == 1, answer.output
    assert "1 divergence; the first: planner" in answer.stdout
    assert '"status":"succeeded"' in answer.stdout and '"status":"cancelled"' in answer.stdout
    shown = replay(path, "--json")
    assert shown.exit_code == 1 and json.loads(shown.stdout)["divergences"][0]["what"] == "body"


def test_it_says_what_was_not_judged_and_finds_it_changed_by_the_files_digest(tmp_path):
    [recorded] = HISTORIES.glob("single_step.jsonl*")
    whole, path = load_history(recorded), tmp_path / "t.jsonl"
    deciders = ("planner", "worker", "checker")
    others = [at for at, one in enumerate(whole.messages) if not {*one.subject.split(".")[1:3]} & {*deciders}]
    save_history(whole, path)
    plain = path.read_text()
    answer = replay(path)
    assert answer.exit_code == 0 and "the lines are those of the export" in answer.stderr, answer.output
    said = f"not judged: {len(others)} of the {len(whole.messages)}"
    assert said in answer.stdout
    told = json.loads(replay(path, "--json").stdout)
    assert (told["not_judged"], told["messages"], told["digested"]) == (len(others), len(whole.messages), True)
    request, *_ = [line for line in plain.splitlines() if "mesh.task.requested.v2" in line]
    path.write_text(plain.replace(request, request.replace("deadline_ms", "deadline_us")))
    assert path.read_text() != plain
    answer = replay(path)
    assert answer.exit_code == 1 and "was changed after it was exported" in answer.stderr, answer.output
    # Nothing binds a file to the mesh that wrote it: who leaves the digest out is told that there is none.
    head, rest = plain.split("\n", 1)
    left = {key: value for key, value in json.loads(head).items() if key != "digest"}
    path.write_text(json.dumps(left) + "\n" + rest.replace(request, request.replace("deadline_ms", "deadline_us")))
    answer = replay(path)
    assert answer.exit_code == 0 and "has no digest" in answer.stderr and said in answer.stdout, answer.output


def test_what_is_in_the_works_is_no_divergence(tmp_path):
    """Exported too early: what the last messages will cause is not there yet."""
    whole = load_history(PLAIN)
    cut = TaskHistory(whole.tenant, whole.task, whole.messages[:5], whole.contents, settled=False)
    save_history(cut, tmp_path / "early.jsonl")
    answer = replay(tmp_path / "early.jsonl")
    assert answer.exit_code == 0 and "not in the journal yet" in answer.stdout, answer.output


def test_what_is_in_the_works_at_the_end_is_no_divergence_unless_it_was_long_ago(tmp_path):
    """Of an ended task: what follows from the last messages may be stored after the end was."""
    whole = load_history(PLAIN)
    lacks = tuple(
        one for one in whole.messages if ".planner.gateway." not in one.subject or "task.ended" in one.ce_type
    )
    assert len(lacks) < len(whole.messages)
    for settled, code, said in ((False, 0, "not in the journal yet"), (True, 1, "not in the record")):
        save_history(TaskHistory(whole.tenant, whole.task, lacks, whole.contents, settled), tmp_path / "ended.jsonl")
        answer = replay(tmp_path / "ended.jsonl")
        assert answer.exit_code == code and said in answer.stdout, answer.output


def test_a_file_from_which_all_that_was_decided_is_taken_away(tmp_path):
    [path] = HISTORIES.glob("single_step.jsonl*")
    whole = load_history(path)
    deciders = ("planner", "worker", "checker")
    kept = tuple(one for one in whole.messages if not {*one.subject.split(".")[1:3]} & {*deciders})
    assert 0 < len(kept) < len(whole.messages)
    save_history(TaskHistory(whole.tenant, whole.task, kept, whole.contents), tmp_path / "thin.jsonl")
    answer = replay(tmp_path / "thin.jsonl")
    assert answer.exit_code == 1 and "nothing was checked" in answer.stderr and "export" in answer.stderr
    away = TaskRejected(code="no_such_tenant", message="no", hint="yes")
    head = envelope.Envelope(id="i", type=away.ce_type(), source="gateway", time_unix_ms=1).to_headers()
    rejected = StoredMessage(subjects.mesh_subject("gateway", "gateway", "demo", "t"), head, away.encode(), 1, 1)
    save_history(TaskHistory("demo", "t", (rejected,)), tmp_path / "rejected.jsonl")
    assert replay(tmp_path / "rejected.jsonl").exit_code == 0, "no decider ever heard of it"


@pytest.mark.parametrize("token", ["", "x", "[]", "e30.e30.", "e30.bnVsbA.", "a.b.c", "e30.W10."])
def test_what_is_no_grant_is_a_divergence_and_no_crash(tmp_path, token):
    whole = load_history(PLAIN)
    odd = [
        StoredMessage(one.subject, {**one.headers, "bulkhead-grant": token}, one.body, one.sequence, one.time_unix_ms)
        if ".planner.worker." in one.subject
        else one
        for one in whole.messages
    ]
    save_history(TaskHistory(whole.tenant, whole.task, tuple(odd), whole.contents), tmp_path / "odd.jsonl")
    answer = replay(tmp_path / "odd.jsonl")
    assert answer.exit_code == 1 and "step grant" in answer.stdout, answer.output


def test_a_content_that_a_decision_read_and_that_is_gone(tmp_path):
    [path] = HISTORIES.glob("single_step.jsonl*")
    whole = load_history(path)
    contents = {digest: type(one)(one.authors, None) for digest, one in whole.contents.items()}
    save_history(TaskHistory(whole.tenant, whole.task, whole.messages, contents), tmp_path / "gone.jsonl")
    answer = replay(tmp_path / "gone.jsonl")
    assert answer.exit_code == 1 and "what planner read at" in answer.stderr and "is gone" in answer.stderr
    assert "bulkhead export" in answer.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "name one task or file, or --all"),
        (("t1", "--all"), 2, "name one task or file, or --all"),
        (("./nowhere.jsonl",), 2, "cannot be read"),
        (("t1", "--edit", "x"), 2, "belong to --from-step"),
        (("t1", "--dry-run"), 2, "belong to --from-step"),
        (("x.jsonl", "--from-step", "a"), 2, "needs a task of a running mesh"),
        (("t1", "--from-step", ""), 2, "--from-step names no step"),
        (("--all", "--tenant", "demo"), 2, "--tenant belongs to a task's id"),
        (("x.jsonl", "--tenant", "demo"), 2, "--tenant belongs to a task's id"),
        (("--all", "--url", "http://127.0.0.1:9"), 2, "belong to a task's id"),
        (("x.jsonl", "--url", "http://127.0.0.1:9"), 2, "belong to a task's id"),
        (("t1", "--url", "http://127.0.0.1:9", "--api-key", "bk_x", "--tenant", "demo"), 2, "a gateway knows"),
        (("t1", "--from-step", "a", "--edit", "/nowhere.json"), 2, "cannot be read"),
        (("t1",), 3, "no mesh runs"),
        (("t1", "--from-step", "a"), 3, "no mesh runs"),
        (("--all",), 3, "no mesh runs"),
    ],
)
def test_wrong_usage(words, code, said):
    answer = replay(*words)
    assert answer.exit_code == code and said in answer.stderr, answer.output


def test_a_file_that_is_no_history(tmp_path):
    (tmp_path / "notes.txt").write_text("hello\n")
    answer = replay(tmp_path / "notes.txt")
    assert answer.exit_code == 2 and "no history" in answer.stderr and "bulkhead export" in answer.stderr


@pytest.mark.parametrize(
    ("totals", "passed"),
    [
        (ReplayTotals(), True),
        (ReplayTotals(tasks=2, unknown=["a"], expired=1), True),
        (ReplayTotals(unknown=["a"]), False),
        (ReplayTotals(divergent=["a"]), False),
    ],
)
def test_all_pass_when_nothing_differs_and_what_is_unknown_has_merely_expired(totals, passed):
    assert totals.has_passed is passed
