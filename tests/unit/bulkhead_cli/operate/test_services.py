"""Smaller parts of the command line: how a service stands, what the broker's recovery looks like, long lines."""

import io
import json
import math
import os
import re
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from rich.tree import Tree

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.port import StoredMessage
from bulkhead.client import TaskEvent
from bulkhead.journal import timeline
from bulkhead.journal.history import JournalEntry, UnknownTask, each_fact, messages_of_tenant
from bulkhead_cli import screen
from bulkhead_cli.main import app
from bulkhead_cli.operate import backup, doctor_checks
from bulkhead_cli.operate.services import ServiceLag, check_services, judge_service
from bulkhead_cli.output import CommandError
from bulkhead_cli.tasks import answer, follow, listing
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import Amount, Charge, Reserved, Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
from bulkhead_contracts.result import Usage
from bulkhead_contracts.task import Progressed, StepEnded, StepStarted, TaskEnded, TaskRejected, TaskSubmitted
from bulkhead_infra.backup.archive import BackupManifest
from bulkhead_infra.local.doctor_denials import ACCOUNTS, DoctorRefusals
from bulkhead_infra.local.status import StatusScreen
from bulkhead_infra.nats.server import LOG_FILE
from tests.paths import ROOT

RECOVERING = "[7] 2026/11/21 03:57:56.2 [WRN] Filestore [{}] Sourcing state is outdated; attempting to recover using"


@pytest.mark.parametrize(
    ("running", "lag", "level", "said"),
    [
        (2, ServiceLag(3, 1), "ok", "2 of 2 processes, 3 pending, 1 in work"),
        (2, None, "ok", "2 of 2 processes"),
        (1, ServiceLag(0, 0), "warning", "1 of 2 processes"),
        (0, ServiceLag(9, 0), "problem", "0 of 2 processes"),
        (2, ServiceLag(5_000, 8), "warning", "5,000 pending"),
    ],
)
def test_how_a_service_stands(tmp_path, running, lag, level, said):
    found = judge_service("worker", 2, running, lag, tmp_path)
    assert found.level == level and said in found.detail and bool(found.todo) == (level != "ok")


async def test_a_process_is_known_by_its_start_and_a_dead_mesh_is_one_finding(tmp_path):
    me = psutil.Process(os.getpid())
    alive = {"pid": me.pid, "started_unix_s": me.create_time()}
    mesh = {
        "scale": {"planner": 1, "worker": 1},
        "processes": {"worker-0": alive, "planner-0": {**alive, "started_unix_s": 1.0}},
    }
    found = [one async for one in check_services(tmp_path, mesh, asks_broker=False)]
    assert [(one.what, one.level) for one in found] == [("planner", "problem"), ("worker", "ok")]
    [one] = [one async for one in check_services(tmp_path, {**mesh, "processes": {}}, asks_broker=False)]
    assert (one.what, one.level) == ("services", "problem") and "bulkhead up" in one.todo


async def test_a_killed_service_of_a_mesh_that_runs_asks_nobody_to_restart_anything_yet(tmp_path):
    me = psutil.Process(os.getpid())
    alive = {"pid": me.pid, "started_unix_s": me.create_time()}
    mesh = {"pid": me.pid, "scale": {"planner": 1, "worker": 2}, "processes": {"worker-0": alive}}
    planner, worker = [one async for one in check_services(tmp_path, mesh, asks_broker=False)]
    assert (planner.level, worker.level) == ("warning", "warning")
    assert planner.todo.startswith("nothing is lost: `bulkhead up` starts it again within 10 s"), planner.todo
    assert "then restart the mesh" in planner.todo and "planner-0.log" in planner.todo, "when to worry"
    assert worker.todo.startswith("the others do its work")
    [planner, _] = [
        one async for one in check_services(tmp_path, {**mesh, "given_up": ["planner-0"]}, asks_broker=False)
    ]
    assert planner.level == "problem" and "will not be started again" in planner.detail and "mend" in planner.todo
    [planner, _] = [one async for one in check_services(tmp_path, {**mesh, "pid": 2**22 + 1}, asks_broker=False)]
    assert planner.level == "problem" and "has ended, too" in planner.todo


def test_a_disk_that_is_smaller_than_what_was_given_is_told():
    gib = 1024**3
    assert (
        doctor_checks.check_store_room(0, 5 * gib, gib) is None
        and doctor_checks.check_store_room(10, 4 * gib, 6 * gib) is None
    )
    found = doctor_checks.check_store_room(100, 4 * gib, 36 * gib)
    assert found and found.level == "warning" and "96 GiB more" in found.detail and "--store-gib 36" in found.todo


def test_the_brokers_recovery_is_said_once_and_other_warnings_stay():
    text = io.StringIO()
    screen = StatusScreen(Console(file=text, width=200), quiet=("nats-server",))
    for stream in ("INBOX_PLANNER", "INBOX_WORKER", "JOURNAL"):
        screen.print_line("nats-server", RECOVERING.format(stream))
    screen.print_line("nats-server", "[7] 2026/11/21 03:57:56.2 [WRN] JetStream is running out of space")
    said = text.getvalue()
    assert said.count("reads its store again") == 1 and "Filestore" not in said and "out of space" in said
    screen.print_line(
        "nats-server",
        "[7] 2026/11/21 10:12:05.1 [WRN] Filestore [INBOX_WORKER] indexCacheBuf corrupt record "
        "state in 1.blk: dlen 75 slen 35903",
    )
    assert "corrupt records in the files of its stream INBOX_WORKER" in text.getvalue() and "backup" in text.getvalue()


REFUSED = (
    '[7] 2026/11/21 16:48:53.6 [ERR] 127.0.0.1:342 - cid:5 - "v2.16.0:python3:{}" - "{}/nkey:UC" - '
    'Subscription Violation - Subject "{}", SID 1'
)


def test_what_doctor_tries_is_said_once_in_a_low_voice_and_other_refusals_stay():
    text = io.StringIO()
    screen = StatusScreen(
        Console(file=text, width=400, force_terminal=True, color_system="standard"), quiet=("nats-server",)
    )
    for _ in range(2):  # Two doctors at a time, of whose lines some come together.
        for account in sorted(ACCOUNTS):
            screen.print_line("nats-server", REFUSED.format("doctor", account, "mesh.>"))
    shown = text.getvalue()
    assert shown.count("bulkhead doctor") == 2 == shown.count("\n") and "Violation" not in shown, shown
    assert "log" not in shown and "\x1b[2m" in shown, "nothing to be alarmed at"
    for client, subject in (("worker", "mesh.>"), ("doctor", "$KV.CONTROL.>")):
        screen.print_line("nats-server", REFUSED.format(client, "SVC_WORKER", subject))
    forged = REFUSED.format(r"doctor\" - \"SVC_BUDGET/nkey:UC\" - x:doctor", "SVC_WORKER", "mesh.>")
    screen.print_line("nats-server", forged)
    assert text.getvalue().count("Violation") == 3, "nobody else is kept quiet, and nothing else"


def test_who_calls_himself_doctor_and_has_not_every_key_is_told_apart():
    refusals = DoctorRefusals()
    for account in ACCOUNTS:
        assert refusals.record_line(REFUSED.format("doctor", account, "mesh.>"), 100.0)
        assert refusals.record_line(REFUSED.format("doctor", "SVC_WORKER", "mesh.>"), 101.0), "as often as he likes"
    assert refusals.pop_full_round() and not refusals.pop_full_round()
    assert refusals.pop_other_accounts(109.9) == [], "doctor may be at it still"
    assert refusals.pop_other_accounts(110.0) == ["SVC_WORKER"] and refusals.pop_other_accounts(999.0) == []


def test_the_brokers_words_that_mean_nothing_stay_in_its_log():
    text = io.StringIO()
    screen = StatusScreen(Console(file=text, width=400), quiet=("nats-server",))
    head = "[9] 2026/11/22 03:04:47.5 [WRN] JetStream "
    again = "source stream \"{}\" for stream 'MESH > {}' was recreated, resetting source state"
    screen.print_line(
        "nats-server",
        f"{head}error response for stream INBOX_CHECKER create source consumer TIMERS_CHECKER: "
        "stream not found (10059)",
    )
    screen.print_line("nats-server", head + again.format("TIMERS_PLANNER", "INBOX_PLANNER"))
    assert text.getvalue() == ""
    screen.print_line("nats-server", head + again.format("INBOX_WORKER", "JOURNAL"))
    assert "INBOX_WORKER" in text.getvalue(), "an inbox that is made anew is news"


def test_a_log_that_a_message_names_is_the_brokers():
    text = io.StringIO()
    screen = StatusScreen(Console(file=text, width=400), quiet=("nats-server",))
    screen.print_line("nats-server", RECOVERING.format("JOURNAL"))
    screen.print_line(
        "nats-server", "[7] 2026/11/21 10:12:05.1 [WRN] Filestore [INBOX_WORKER] indexCacheBuf corrupt record"
    )
    screen.print_line("nats-server", REFUSED.format("doctor", "SVC_WORKER", "mesh.>"))
    screen._report_other_accounts(math.inf)
    assert re.findall(r"\S*logs/[\w.-]*\w", text.getvalue()) == [str(LOG_FILE)] * 3, text.getvalue()


def test_a_backup_goes_to_a_folder_that_is_there_or_to_a_file_that_is_named_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match="not there") as refused:
        backup._backup_file(Path("backups"))
    assert "mkdir backups" in refused.value.hint and "backups.bulkhead" in refused.value.hint
    assert backup._backup_file(Path("mesh.bulkhead")) == Path("mesh.bulkhead"), "a file"
    Path("backups").mkdir()
    made = backup._backup_file(Path("backups"))
    assert made.parent == Path("backups") and made.name.startswith("mesh-") and made.suffix == ".bulkhead"
    with pytest.raises(CommandError, match="no folder"):
        backup._backup_file(Path("nowhere/mesh.bulkhead"))


def test_without_a_terminal_nothing_is_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    tree = Tree("top")
    tree.add("x" * 500)
    screen.print_whole(tree)
    assert "x" * 500 in capsys.readouterr().out


def test_wrong_usage_under_json_ends_the_process_with_2(capsys):
    with pytest.raises(SystemExit) as ended:
        app(["tasks", "--limit", "0", "--json"])
    assert ended.value.code == 2 and capsys.readouterr().err.startswith('{"error": {"code": "usage"')


def test_make_help_shows_no_escaped_dollar():
    # `help` prints these lines as they stand, without make's own unescaping.
    lines = (ROOT / "Makefile").read_text().splitlines()
    told = [line for line in lines if "## " in line and line[0].islower()]
    assert len(told) > 5 and not [line for line in told if "$$" in line.partition("## ")[2]]


def test_a_message_that_tells_several_facts_is_a_line_for_each():
    started = StepStarted(step_id="b", title="B", attempt=1, plan_version=1)
    ended = StepEnded(step_id="a", attempt=1, plan_version=1, outcome="accepted")
    both = Progressed(ended=(ended,), started=(started,))
    found = [
        JournalEntry(number, 1_000, "planner", "gateway", "demo", body.ce_type(), f"id{number}", "", body)
        for number, body in enumerate((both, ended), 1)
    ]
    assert [(one.sequence, one.body) for one in each_fact(found)] == [(1, ended), (1, started), (2, ended)]
    rows = timeline.as_json(found)
    assert [(row["type"], row["step_id"]) for row in rows] == [
        (StepEnded.ce_type(), "a"),
        (StepStarted.ce_type(), "b"),
        (StepEnded.ce_type(), "a"),
    ]


def test_a_reply_that_settles_is_a_line_for_each_settlement_once_and_nobody_elses_is():
    settled = Settled(reservation_id="r", call_id="c", usage=Usage(cost_usd_micros=7))
    reply = ModelCallReplied(call_id="c", outcome="answered", prompt_id="p", settled=(settled,))
    put_off = CallDeferred(call_id="c", after_ms=1, settled=(settled,))
    own_id = settled.derive_ce_id("model_gateway")
    found = [
        JournalEntry(number, number, sender, to, "demo", body.ce_type(), name, "", body)
        for number, sender, to, name, body in (
            (1, "model_gateway", "worker", "put off", put_off),
            (2, "model_gateway", "worker", "answered", reply),
            (3, "model_gateway", "budget", own_id, settled),
            (4, "doors", "worker", "a lie", put_off),
        )
    ]
    assert [(one.sequence, one.id) for one in each_fact(found)] == [
        (1, "put off"),
        (1, own_id),
        (2, "answered"),
        (4, "a lie"),
    ]
    console = Console(file=io.StringIO(), width=200)
    console.print(timeline.build_tree("t1", found))
    assert "4 messages, 0 tokens, $0.000007" in console.file.getvalue()


def test_a_cost_that_is_partly_estimated_is_told_as_such():
    whole = Usage(input_tokens=900, output_tokens=300, cost_usd_micros=8_300)
    usage = whole + Usage(input_tokens=100, cost_usd_micros=4_000).as_estimate()
    shape = {"duration_ms": 5, "steps_done": 1, "steps_total": 2, "task_id": "t"}
    said = answer.render_footer({"usage": usage.model_dump()} | shape)
    assert said.startswith("about $0.0123 ($0.004 estimated) · 1,000 tokens in, 300 out (100 estimated) ·")
    charged = Charge(tokens=50, cost_usd_micros=9, estimated_tokens=20, estimated_usd_micros=4).model_dump()
    said = answer.render_footer({"usage": usage.model_dump(), "charged": charged} | shape)
    assert said.startswith("about $0.000009 ($0.000004 estimated) · 50 tokens (20 estimated) ·")
    row = {"task_id": "t1", "status": "failed", "objective": "o", "created_unix_ms": 1}
    console = Console(file=io.StringIO(), width=200)
    console.print(listing.tasks_table([row | usage.model_dump(include={"cost_usd_micros", "estimated_usd_micros"})]))
    assert "about $0.0123 ($0.004 estimated)" in console.file.getvalue()


def test_a_timeline_tells_estimates_and_attempts():
    usage = Usage(input_tokens=900, cost_usd_micros=12_300, estimated_tokens=300, estimated_usd_micros=4_000)
    reply = ModelCallReplied(call_id="c", outcome="answered", prompt_id="p", usage=usage, provider_attempts=3)
    settled = Settled(reservation_id="r", call_id="c", usage=usage)
    request = ModelCallRequested(call_id="c", step_id="s", attempt=1, prompt_id="p", deadline_unix_ms=1)
    asked, replied, paid = (
        JournalEntry(n, n, sender, to, "t", body.ce_type(), str(n), "", body)
        for n, sender, to, body in ((1, "worker", "m", request), (2, "m", "worker", reply), (3, "m", "budget", settled))
    )
    asked.reply = replied
    console = Console(file=io.StringIO(), width=200)
    console.print(timeline.build_tree("t1", [asked, replied, paid]))
    said = console.file.getvalue()
    assert said.count("900 tokens (300 estimated), about $0.0123 ($0.004 estimated)") == 4 and "3 attempts" in said


def test_a_cost_that_may_be_more_is_the_least():
    document = {
        "usage": Usage(cost_usd_micros=4200).model_dump(),
        "duration_ms": 5,
        "steps_done": 1,
        "steps_total": 2,
        "task_id": "t",
    }
    assert answer.render_footer(document).startswith("$0.0042 ·")
    assert answer.render_footer(document | {"spent_more": True}).startswith("at least $0.0042 ·")
    for status, said in (("running", "at least $0.0042"), ("paused", "at least $0.0042"), ("failed", "$0.0042")):
        assert answer.render_footer(document | {"status": status}).startswith(f"{said} ·"), (
            "of steps that have ended alone"
        )
        row = {"task_id": "t1", "status": status, "objective": "o", "created_unix_ms": 1, "cost_usd_micros": 4200}
        console = Console(file=io.StringIO(), width=200)
        console.print(listing.tasks_table([row]))
        assert f"  {said} " in console.file.getvalue()


def test_what_caches_saved_stands_beside_the_cost():
    usage = Usage(input_tokens=1_000, cached_input_tokens=800, model_calls=1, cached_calls=2)
    document = {"usage": usage.model_dump(), "duration_ms": 5, "steps_done": 1, "steps_total": 1, "task_id": "t"}
    said = answer.render_footer(document)
    assert "(800 from the provider's cache)" in said and "0 retrievals, 2 from the response cache" in said
    assert "cache" not in answer.render_footer(document | {"usage": Usage(input_tokens=5).model_dump()})


def test_of_two_tenants_tasks_of_one_id_one_must_be_named():
    journal = [
        StoredMessage(subjects.mesh_subject("gateway", "planner", tenant, "t1"), {}, b"", number, 0)
        for number, tenant in enumerate(("acme", "demo", "acme"), 1)
    ]
    assert [one.sequence for one in messages_of_tenant(journal, "t1", "acme")] == [1, 3]
    with pytest.raises(UnknownTask, match="2 tenants have a task t1: acme, demo"):
        messages_of_tenant(journal, "t1", "")
    for found, tenant in (([], ""), (journal, "other")):
        with pytest.raises(UnknownTask, match="holds nothing of task t1"):
            messages_of_tenant(found, "t1", tenant)


def head_of(*bodies) -> str:
    entries = [
        JournalEntry(number, 1_000 * number, "planner", "gateway", "demo", body.ce_type(), f"id{number}", "", body)
        for number, body in enumerate(bodies, 1)
    ]
    console = Console(file=io.StringIO(), width=200)
    console.print(timeline.build_tree("t1", entries))
    return console.file.getvalue()


def test_a_timeline_tells_who_answered_for_a_model_and_what_was_waited_for():
    asked = ModelCallRequested(call_id="c", prompt_id="worker.step", deadline_unix_ms=1)
    told = {
        "chosen_as": "fallback",
        "model": "m2",
        "waited_ms": 8_000,
        "waited_for": "openai after rate_limited (2 times)",
    }
    reply = ModelCallReplied(call_id="c", outcome="answered", prompt_id="worker.step", duration_ms=9_000, **told)
    answer = JournalEntry(2, 10_000, "model_gateway", "worker", "demo", reply.ce_type(), "id2", "id1", reply)
    entry = JournalEntry(1, 1_000, "worker", "model_gateway", "demo", asked.ce_type(), "id1", "", asked, reply=answer)
    console = Console(file=io.StringIO(), width=300)
    console.print(timeline.build_tree("t1", [entry, answer]))
    line = " by m2 (fallback), 8.0 s of it waiting for openai after rate_limited (2 times)"
    assert f"answered 9.0 s{line}" in console.file.getvalue()


def test_a_rejected_task_and_a_step_that_was_cut_off_do_not_run_on():
    started = StepStarted(step_id="a", title="A", attempt=1, plan_version=1)
    assert "t1 rejected" in head_of(TaskRejected(code="c", message="m"))
    shown = head_of(started, TaskEnded(status="cancelled"))
    assert "t1 cancelled" in shown and "a A stopped" in shown and "running" not in shown
    assert "a A running" in head_of(started)
    settled = Settled(reservation_id="r", call_id="c", usage=Usage(cost_usd_micros=1321))
    shown = head_of(started, settled, TaskEnded(status="cancelled"))
    assert "t1 cancelled  2.0 s, 3 messages, 0 tokens, $0.001321" in shown


def test_a_step_that_was_cut_shows_what_its_calls_cost():
    call = ModelCallRequested(call_id="c", step_id="a", attempt=1, prompt_id="worker.step", deadline_unix_ms=1)
    held = Reserved(
        reservation_id="r",
        call_id="c",
        step_id="a",
        service="model_gateway",
        resource="m",
        amount=Amount(tokens=900),
        scopes=(),
        reserved_unix_ms=1,
    )
    paid = Settled(reservation_id="r", call_id="c", usage=Usage(input_tokens=671, cost_usd_micros=105))
    started = StepStarted(step_id="a", title="A", attempt=1, plan_version=1)
    end = TaskEnded(status="cancelled")
    assert "a A stopped  3.0 s, 671 tokens, $0.000105" in head_of(started, call, paid, held, end)
    more = Reserved(**{**held.model_dump(), "reservation_id": "r2"})
    assert ", at least 671 tokens, $0.000105" in head_of(started, call, held, paid, more, end)
    data = {"time_unix_ms": 0, "step_id": "a", "outcome": "failed", "reasons": (), "usage": Usage().model_dump()}
    [line] = follow.TaskProgress().render_event(TaskEvent("step.ended", data, "1"))
    assert "0 tokens" not in line.plain and "`bulkhead timeline` shows the cost of its calls" in line.plain
    data["usage"] = Usage(input_tokens=5, cost_usd_micros=7).model_dump()
    [line] = follow.TaskProgress().render_event(TaskEvent("step.ended", data, "1"))
    assert "at least 5 tokens, $0.000007" in line.plain


@pytest.mark.parametrize(
    "said, why",
    [
        ('{"ready": false, "why": "documents cannot be written; mount it writable"}', "documents cannot be written"),
        ('{"ready": true, "why": "the clock is off"}', ""),
        ('{"ready": false, "why": ""}', ""),
        ("http://127.0.0.1:8081/readyz does not answer", ""),
        ("", ""),
        ("[]", ""),
    ],
)
async def test_what_runs_and_cannot_work_is_a_finding_with_its_own_words(tmp_path, said, why):
    """Of a container, as `bulkhead_cli.containers` writes it down; of a process the same words come by HTTP."""
    found = [one async for one in check_services(tmp_path, {"said": {"mesh_rag_1": said}}, asks_broker=True)]
    assert [(one.what, one.level) for one in found] == ([("mesh_rag_1", "problem")] if why else [])
    assert not why or (why in found[0].detail and found[0].todo == "mount it writable")
    assert not [one async for one in check_services(tmp_path, {"said": {"x": said}}, asks_broker=False)]


async def test_a_service_that_works_but_not_whole_is_a_warning_and_one_that_is_not_ready_a_problem(tmp_path):
    said = {
        "budget-0": {"ready": True, "why": "", "degraded": "the watcher finds nothing now; report it"},
        "budget-1": {"ready": False, "why": "no Redis; start it", "degraded": "the watcher finds nothing now"},
        "worker-0": {"ready": True, "why": "", "degraded": ""},
        "rag-0": {"ready": True},
    }
    mesh = {"said": {name: json.dumps(one) for name, one in said.items()} | {"signer-0": "no JSON"}}
    found = [one async for one in check_services(tmp_path, mesh, asks_broker=True)]
    assert [(one.what, one.level, one.todo) for one in found] == [
        ("budget-1", "problem", "start it"),
        ("budget-0", "warning", "report it"),
    ]


@pytest.mark.parametrize(
    ("walls", "level", "detail"),
    [
        ({"files": "held", "disk": "it is watched"}, "ok", "levels none, process; in force: landlock"),
        (
            {"files": "it read a file", "network": "held"},
            "warning",
            "levels none, process; in force: landlock; does not hold: files (it read a file)",
        ),
    ],
)
async def test_the_isolation_of_tools_is_told_with_the_walls_that_do_not_hold(tmp_path, walls, level, detail):
    told = {"levels": ["none", "process"], "mechanisms": {"landlock": "in force", "user": "not root"}, "walls": walls}
    said = {"tool_executor-0": json.dumps({"ready": True, "isolation": told}), "rag-0": json.dumps({"ready": True})}
    (found,) = [one async for one in check_services(tmp_path, {"said": said}, asks_broker=True)]
    assert (found.what, found.level, found.detail) == ("isolation of tools", level, detail)


@pytest.mark.parametrize(
    ("standing", "complete", "said"),
    [
        ("ok", True, "succeeded"),
        ("degraded", True, "succeeded [degraded]"),
        ("ok", False, "succeeded [incomplete]"),
        ("degraded", False, "succeeded [degraded] [incomplete]"),
        (None, None, "succeeded"),
    ],
)
def test_a_status_never_stands_plain_above_an_answer_that_is_not(standing, complete, said):
    row = {
        "task_id": "t1",
        "status": "succeeded",
        "objective": "o",
        "created_unix_ms": 1,
        "cost_usd_micros": 0,
        "standing": standing,
        "complete": complete,
    }
    console = Console(file=io.StringIO(), width=200)
    console.print(listing.tasks_table([row]))
    assert [one.strip() for one in console.file.getvalue().splitlines()[1].split("  ") if one][1] == said
    told = {
        "status": "succeeded",
        "time_unix_ms": 1,
        "result": {"standing": standing or "ok", "completeness": {"complete": complete is not False}},
    }
    [line] = follow.TaskProgress().render_event(TaskEvent("task.ended", told, ""))
    assert line.plain.endswith(f"task {said}")


@pytest.mark.parametrize(
    ("nats", "start"),
    [
        ("", "start it: bulkhead up --data d --shards worker=2"),
        ("nats://x:4222", "start the services with --shards worker=2"),
    ],
)
def test_a_restored_mesh_is_told_what_it_lacks(capsys, nats: str, start: str) -> None:
    where = backup.MeshLocation(Path("d"), nats)
    notes = backup._left_to_do(where, {"worker": 2}, with_keys=False)
    assert [one.split(":")[0] for one in notes[:2]] == [
        "keys were not restored",
        "the tenants file is not in the backup",
    ]
    assert "--tenants FILE" in notes[1] and notes[-1].startswith(start)
    assert len(backup._left_to_do(where, {}, with_keys=True)) == 2 and "--tenants" in backup.NEVER_IN_A_BACKUP


@pytest.mark.parametrize(
    ("keys", "documents", "lacks"),
    [
        (True, True, []),
        (False, True, ["no keys are in it"]),
        (False, False, ["no keys are in it", "no documents are in it"]),
    ],
)
def test_a_backup_tells_people_and_programs_what_is_not_in_it(keys: bool, documents: bool, lacks: list[str]) -> None:
    manifest = BackupManifest(
        format=2,
        store_format=1,
        version="1",
        created_unix_ms=1,
        shards={},
        streams=(),
        positions=(),
        documents=(),
        has_documents=documents,
        has_keys=keys,
        parts={},
    )
    assert [one.split(":")[0] for one in backup._left_out(manifest)] == ["not in it", *lacks]


def test_how_far_something_is_stands_on_a_line_that_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    text = io.StringIO()
    screen.SafeConsole(file=text, force_terminal=True, color_system=None).print_over("3 tasks replayed")
    assert text.getvalue() == "3 tasks replayed\r"


async def test_doctor_counts_tasks_that_began_under_a_logic_which_this_version_does_not_hold():
    broker = MemoryBroker.for_mesh()
    operator = MemoryBus(broker, "operator")

    async def store(sender: str, receiver: str, task: str, kind: str, logic: str) -> None:
        head = {"ce-type": kind, "ce-id": f"{sender}-{task}", "ce-logicversion": logic}
        subject = subjects.mesh_subject(sender, receiver, "demo", task)
        await MemoryBus(broker, sender).publish(subject, b"{}", head, head["ce-id"])

    await store("gateway", "planner", "new", TaskSubmitted.ce_type(), "1")
    assert await doctor_checks.check_logics(operator, {1: None}) is None
    await store("gateway", "planner", "old", TaskSubmitted.ce_type(), "7")
    await store("planner", "gateway", "old", TaskEnded.ce_type(), "7")
    ended = await doctor_checks.check_logics(operator, {1: None})
    assert ended is not None and ended.level == "warning" and "1 task began under logic 7" in ended.detail
    await store("gateway", "planner", "stuck", TaskSubmitted.ce_type(), "7")
    stuck = await doctor_checks.check_logics(operator, {1: None})
    assert stuck is not None and stuck.level == "problem" and stuck.todo
    assert "2 tasks" in stuck.detail and "1 that have not ended" in stuck.detail
    assert await doctor_checks.check_logics(operator, {1: None, 7: None}) is None
