"""The seventh set, part three: honest pipelines, operations, routines of the clock, and squads of agents at work.

In: a random generator. Out: traces. Here belong the waits for slow things, batches of equal size, health checks, and
the rounds that a review or a hand-over takes.
"""

from random import Random

from tests.health_set import seventh_words as words
from tests.health_set.sets import SEVENTH
from tests.health_set.seventh_words import Run, code_work, desk_work, run


@SEVENTH.honest(9, "old rows are deleted in batches: one statement over and over, DELETE 5000, until a smaller number")
def deleted_in_batches(rng: Random) -> Run:
    trace, table, size = run(rng), rng.choice(words.TABLES), rng.choice((1000, 5000, 10000))
    query = f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE created_at < '2024-01-01' LIMIT {size})"
    trace.call(
        "dba",
        "run_sql",
        {"query": f"SELECT count(*) FROM {table} WHERE created_at < '2024-01-01'"},
        [[size * 9 + rng.randrange(size * 9)]],
    )
    for _ in range(rng.randint(9, 18)):
        trace.call("dba", "run_sql", {"query": query}, f"DELETE {size}", pause=rng.uniform(4, 25))
    trace.call("dba", "run_sql", {"query": query}, f"DELETE {rng.randrange(1, size)}", pause=5)
    trace.call("dba", "run_sql", {"query": f"VACUUM ANALYZE {table}"}, "VACUUM", pause=60)
    return trace.ends()


@SEVENTH.honest(9, "tables are moved to another database in equal steps: create, copy, compare counts, switch")
def tables_moved(rng: Random) -> Run:
    trace = run(rng)
    for table in words.some(rng, words.TABLES, 8, 13):
        count = rng.randrange(100, 10**7)
        trace.call("migrator", "run_sql", {"db": "new", "query": f"CREATE TABLE {table} (LIKE legacy.{table})"}, "OK")
        trace.call(
            "migrator",
            "copy_table",
            {"table": table, "from": "legacy", "to": "new"},
            {"status": "done"},
            pause=rng.uniform(10, 200),
        )
        for db in ("legacy", "new"):
            trace.call("migrator", "run_sql", {"db": db, "query": f"SELECT count(*) FROM {table}"}, [[count]])
        trace.call("migrator", "set_read_from", {"table": table, "db": "new"}, "OK")
    return trace.ends()


@SEVENTH.honest(8, "a query in a warehouse runs for long: submitted, then asked for every half minute")
def query_in_a_warehouse(rng: Random) -> Run:
    trace, query = run(rng, untimed=0.1), f"01b{words.hexa(rng, 5)}-{words.hexa(rng, 4)}"
    trace.call(
        "analyst",
        "submit_query",
        {"sql": f"CREATE TABLE mart.{rng.choice(words.TABLES)} AS SELECT ..."},
        {"query_id": query},
    )
    for _ in range(rng.randint(5, 14)):
        trace.call(
            "analyst",
            "query_status",
            {"query_id": query},
            {"status": "RUNNING", "rows": None},
            pause=rng.uniform(28, 34),
        )
    trace.call(
        "analyst", "query_status", {"query_id": query}, {"status": "SUCCESS", "rows": rng.randrange(10**6)}, pause=30
    )
    trace.call("analyst", "run_sql", {"query": "SELECT ..."}, [[rng.randrange(999) for _ in range(3)]])
    return trace.ends()


@SEVENTH.honest(8, "the models of a project fail one after another: run, read, mend, run; another model each time")
def models_fail_in_turn(rng: Random) -> Run:
    trace = run(rng)
    for table in words.some(rng, words.TABLES, 4, 7):
        trace.call(
            "dbt-agent",
            "bash",
            {"command": "dbt build --fail-fast"},
            error=f"Database Error in model fct_{table}\n  column {rng.choice(words.PARTS)}_id does not exist",
            pause=45,
        )
        trace.call("dbt-agent", "read_file", {"path": f"models/fct_{table}.sql"}, words.snippet(rng))
        trace.call(
            "dbt-agent",
            "edit_file",
            {
                "path": f"models/fct_{table}.sql",
                "old_string": words.snippet(rng, 1, 1),
                "new_string": words.snippet(rng, 1, 2),
            },
            "The file has been updated.",
        )
    trace.call("dbt-agent", "bash", {"command": "dbt build --fail-fast"}, "Completed successfully", pause=90)
    return trace.ends()


@SEVENTH.honest(8, "a partner's file is late: the folder is listed every ten minutes, empty for hours, then the file")
def partners_file_is_late(rng: Random) -> Run:
    trace = run(rng, untimed=0)
    file = f"{rng.choice(words.TABLES)}_{trace.day()}.csv.gz"
    for _ in range(rng.randint(6, 20)):
        trace.call("ingest", "sftp_list", {"path": "/outbound/daily"}, [], pause=600)
    trace.call(
        "ingest", "sftp_list", {"path": "/outbound/daily"}, [{"name": file, "size": rng.randrange(10**8)}], pause=600
    )
    trace.call("ingest", "sftp_get", {"path": f"/outbound/daily/{file}"}, {"bytes": rng.randrange(10**8)})
    trace.call("ingest", "load_csv", {"file": file}, {"rows": rng.randrange(10**6)})
    return trace.ends()


@SEVENTH.honest(8, "an interface is read page by page; it says 429 again and again, the pauses double, it goes on late")
def slow_interface_with_429(rng: Random) -> Run:
    trace = run(rng, untimed=0.1)
    hard = rng.randint(2, 5)
    for page in range(1, rng.randint(6, 10)):
        pause = 2.0
        for _ in range(rng.randint(4, 7) if page == hard else rng.choice((0, 0, 1, 2))):
            trace.call(
                "ingest",
                "http_get",
                {"url": f"https://api.vendor.example/v2/orders?page={page}"},
                error={"status": 429, "message": "Too Many Requests", "retry_after": int(pause)},
                pause=pause,
            )
            pause *= 2
        trace.call(
            "ingest",
            "http_get",
            {"url": f"https://api.vendor.example/v2/orders?page={page}"},
            {"status": 200, "items": [words.order(rng) for _ in range(5)]},
            pause=pause,
        )
    return trace.ends()


@SEVENTH.honest(8, "columns are profiled table by table, with the same two statements and figures that resemble")
def columns_profiled(rng: Random) -> Run:
    trace = run(rng)
    for table in words.some(rng, words.TABLES, 8, 13):
        trace.call(
            "profiler",
            "run_sql",
            {"query": f"SELECT count(*), count(distinct id) FROM {table}"},
            [[count := rng.randrange(10, 10**6), count]],
        )
        trace.call(
            "profiler",
            "run_sql",
            {"query": f"SELECT count(*) FROM {table} WHERE tenant_id IS NULL"},
            [[0 if rng.random() < 0.85 else rng.randrange(90)]],
        )
    trace.say("profiler", words.remark(rng))
    return trace.ends()


@SEVENTH.honest(9, "a cluster is restarted node by node: cordon, drain, reboot, wait till it is ready, uncordon")
def restarted_node_by_node(rng: Random) -> Run:
    trace = run(rng, untimed=0.15)
    for number in range(rng.randint(5, 8)):
        node = f"ip-10-0-{rng.randrange(9)}-{10 + number}"
        trace.call("sre", "kubectl", {"args": f"cordon {node}"}, f"node/{node} cordoned")
        trace.call("sre", "kubectl", {"args": f"drain {node} --ignore-daemonsets"}, f"node/{node} drained", pause=40)
        trace.call("sre", "ssh", {"host": node, "command": "sudo reboot"}, "")
        for _ in range(rng.randint(1, 5)):
            trace.call(
                "sre",
                "kubectl",
                {"args": f"get node {node} --no-headers"},
                f"{node} NotReady,SchedulingDisabled",
                pause=30,
            )
        trace.call(
            "sre", "kubectl", {"args": f"get node {node} --no-headers"}, f"{node} Ready,SchedulingDisabled", pause=30
        )
        trace.call("sre", "kubectl", {"args": f"uncordon {node}"}, f"node/{node} uncordoned")
    return trace.ends()


@SEVENTH.honest(8, "a certificate waits for DNS: the same 'pending', ever longer pauses, then it is issued")
def certificate_at_last(rng: Random) -> Run:
    trace, host, pause = run(rng, untimed=0.1), f"{rng.choice(words.SERVERS)}.example.net", 15.0
    desk = rng.random() < 0.5
    trace.call("sre", "create_dns_record", {"name": f"_acme-challenge.{host}", "type": "TXT"}, {"status": "INSYNC"})
    for _ in range(rng.randint(5, 8)):
        if desk:
            trace.call(
                "sre",
                "bash",
                {"command": f"certbot certonly --dns -d {host}"},
                pause=pause,
                error=f"Challenge failed for {host}: DNS problem: NXDOMAIN looking up TXT; try again later",
            )
        else:
            trace.call("sre", "describe_certificate", {"domain": host}, {"status": "PENDING_VALIDATION"}, pause=pause)
        pause = min(pause * 2, 1800)
    trace.call(
        "sre",
        "bash" if desk else "describe_certificate",
        {"command": f"certbot certonly --dns -d {host}"} if desk else {"domain": host},
        "Successfully received certificate." if desk else {"status": "ISSUED"},
        pause=pause,
    )
    return trace.ends()


@SEVENTH.honest(9, "health checks by the clock: the same five services every five minutes, well all night")
def health_checks_all_night(rng: Random) -> Run:
    trace, servers = run(rng, untimed=0), words.some(rng, words.SERVERS, 3, 5)
    for _ in range(rng.randint(8, 14)):
        trace.wait(300)
        for one in servers:
            trace.call(
                "watch",
                "http_get",
                {"url": f"https://{one}.internal/healthz"},
                {"status": 200, "body": "ok", "ms": rng.randint(3, 60)},
                pause=1,
            )
    return trace.ends()


# github.com/paperclipai/paperclip/issues/3507 (a bot's daily touchpoint, the same words each day)
@SEVENTH.honest(8, "once an hour somebody looks at the queue and writes the same small note: nothing to do")
def same_note_each_hour(rng: Random) -> Run:
    trace, text = run(rng, untimed=0), rng.choice(("No action needed.", "Checked, all quiet.", "Nothing to report."))
    for _ in range(rng.randint(8, 14)):
        jobs = rng.choice((0, 0, 0, 1, 2))
        trace.call("on-call", "queue_depth", {"queue": "failed-jobs"}, jobs, pause=3600)
        for _ in range(jobs):
            trace.call("on-call", "retry_job", {"id": words.uid(rng)}, "ok")
        trace.call("on-call", "append_log", {"file": "oncall.md", "text": text}, "ok")
    return trace.ends()


@SEVENTH.honest(8, "an incident is looked into: logs, metrics, pods of several services, a mitigation, a watch")
def incident_looked_into(rng: Random) -> Run:
    trace = run(rng)
    bad, rate = rng.choice(words.SERVERS), rng.uniform(5, 20)
    for server in words.some(rng, words.SERVERS, 4, 6):
        trace.call(
            "sre",
            "kubectl",
            {"args": f"get pods -l app={server}"},
            "\n".join(f"{server}-{words.hexa(rng, 5)} 1/1 Running {rng.randrange(3)}" for _ in range(3)),
        )
        trace.call(
            "sre",
            "query_logs",
            {"service": server, "level": "error", "last": "15m"},
            [words.remark(rng) for _ in range(rng.randrange(3))],
        )
    trace.call("sre", "kubectl", {"args": f"rollout undo deploy/{bad}"}, f"deployment.apps/{bad} rolled back")
    while rate > 0.5:
        trace.call("sre", "query_metric", {"expr": f"rate(errors{{app='{bad}'}}[1m])"}, f"{rate:.2f}", pause=60)
        rate *= rng.uniform(0.3, 0.9)
    trace.say("sre", f"Mitigated. {words.remark(rng)}", "incident-channel")
    return trace.ends()


@SEVENTH.honest(8, "infrastructure is planned workspace by workspace; most answer that nothing has changed")
def plans_without_changes(rng: Random) -> Run:
    trace = run(rng)
    for server in words.some(rng, words.SERVERS, 6, 10):
        for env in ("staging", "production"):
            trace.call(
                "infra",
                "bash",
                {"command": f"terraform -chdir=live/{env}/{server} plan -detailed-exitcode"},
                "No changes. Your infrastructure matches the configuration."
                if rng.random() < 0.85
                else f"Plan: {rng.randrange(1, 4)} to add, 0 to change, 0 to destroy.",
                pause=rng.uniform(8, 40),
            )
    return trace.ends()


@SEVENTH.honest(8, "a coder and a reviewer, five to eight rounds: new remarks, fixes, tests, approved at last")
def review_of_many_rounds(rng: Random) -> Run:
    trace, number = run(rng), rng.randrange(100, 9000)
    code_work(trace, "coder", 2, 4)
    for _ in range(rng.randint(5, 8)):
        trace.say("coder", f"PR {number} is ready for another look.", "reviewer")
        trace.call("reviewer", "get_diff", {"pr": number}, words.snippet(rng, 6, 12))
        points = [words.remark(rng) for _ in range(rng.randint(1, 3))]
        trace.say("reviewer", "Changes requested. " + " ".join(points), "coder")
        for _ in points:
            trace.call(
                "coder",
                "edit_file",
                {
                    "path": words.path(rng, ".py"),
                    "old_string": words.snippet(rng, 1, 2),
                    "new_string": words.snippet(rng, 1, 3),
                },
                "The file has been updated.",
            )
        trace.call("coder", "bash", {"command": "make test lint"}, "All checks passed.")
    trace.call("reviewer", "get_diff", {"pr": number}, words.snippet(rng, 6, 12))
    trace.say("reviewer", "Approved.", "coder")
    return trace.ends()


# github.com/QwenLM/qwen-code/issues/9450
@SEVENTH.honest(9, "a lead asks for the list of tasks while others work: the same call, the same list for a while")
def lead_reads_the_board(rng: Random) -> Run:
    trace, team = run(rng), words.some(rng, words.PARTS, 3, 4)
    state = dict.fromkeys(team, "in_progress")
    for one in team:
        trace.call("lead", "task_create", {"owner": one, "title": words.remark(rng)}, {"id": rng.randrange(999)})
    while "in_progress" in state.values():
        open_now = [one for one, now in state.items() if now == "in_progress"]
        for one in words.some(rng, open_now, 1, 2):
            code_work(trace, one, 1, 3)
        if rng.random() < 0.4:
            one = rng.choice(open_now)
            state[one] = "completed"
            trace.call(one, "task_update", {"owner": one, "status": "completed"}, "ok")
        trace.call(
            "lead",
            "task_list",
            {"status": "", "owner": ""},
            [{"owner": one, "status": now} for one, now in state.items()],
            pause=rng.uniform(15, 60),
        )
    trace.say("lead", words.remark(rng))
    return trace.ends()


@SEVENTH.honest(8, "a planner hands out parts of a job; every worker takes, works and reports in much the same words")
def handed_out_and_reported(rng: Random) -> Run:
    trace = run(rng)
    for number, part in enumerate(words.some(rng, words.PARTS, 5, 9)):
        worker = f"worker-{number % 3 + 1}"
        trace.say("planner", f"{worker}, please take part {number + 1}: {words.remark(rng)}", worker)
        trace.say(worker, f"On it, part {number + 1}.", "planner")
        code_work(trace, worker, 2, 4)
        trace.say(
            worker, f"Part {number + 1} is done: {part} {rng.choice(words.DOES)} {rng.choice(words.WHATS)}.", "planner"
        )
        trace.call("planner", "run_checks", {"part": part}, "pass")
    return trace.ends()


@SEVENTH.honest(8, "mail is routed to departments: transfer and receipt in the same words, what is in it differs")
def mail_routed(rng: Random) -> Run:
    trace = run(rng)
    for _ in range(rng.randint(9, 15)):
        ticket, team = words.ticket(rng), rng.choice(("billing", "returns", "tech", "sales"))
        trace.call("router", "read_mail", {"id": ticket}, {"from": words.mail(rng), "body": words.complaint(rng)})
        trace.call("router", f"transfer_to_{team}", {"ticket": ticket}, f"Successfully transferred to {team}")
        trace.say(team, "Got it, thanks.", "router")
        if rng.random() < 0.5:
            trace.call(team, "reply", {"ticket": ticket, "body": f"Hello, {words.finding(rng)}"}, {"ok": True})
    return trace.ends()


@SEVENTH.honest(8, "a writer and an editor go through a long text section by section; the editor mostly says 'fine'")
def sections_signed_off(rng: Random) -> Run:
    trace = run(rng)
    for number in range(rng.randint(6, 9)):
        trace.call(
            "writer",
            "write_section",
            {"doc": "guide.md", "section": number + 1, "text": words.passage(rng, 4, 7)},
            "Saved.",
        )
        trace.say("writer", f"Section {number + 1} is ready.", "editor")
        trace.call("editor", "read_section", {"doc": "guide.md", "section": number + 1}, words.passage(rng, 4, 7))
        if rng.random() < 0.35:
            trace.say("editor", f"Please change one thing: {words.finding(rng)}", "writer")
            trace.call(
                "writer",
                "write_section",
                {"doc": "guide.md", "section": number + 1, "text": words.passage(rng, 4, 7)},
                "Saved.",
            )
        trace.say("editor", "Fine, go on.", "writer")
    return trace.ends()


@SEVENTH.honest(8, "a meeting is arranged among four: proposals that are declined for reasons, and in the end a slot")
def meeting_arranged(rng: Random) -> Run:
    trace, people = run(rng, untimed=0.15), rng.sample(words.GIVEN, 3)
    desk_work(trace, "assistant", 1, 3)
    for number in range(rng.randint(3, 6)):
        slot = f"2026-12-{number + 1:02d} {rng.randint(9, 16)}:00"
        for one in people:
            trace.call("assistant", "free_busy", {"who": one, "slot": slot}, rng.choice(("free", "free", "tentative")))
        trace.say("assistant", f"Would {slot} suit you?", people[0])
        trace.say(people[0], f"Not then: {words.complaint(rng)}", "assistant", pause=rng.uniform(600, 9000))
    trace.say(people[0], "That one is good.", "assistant", pause=1200)
    trace.call("assistant", "create_event", {"people": people}, {"id": words.hexa(rng, 12)})
    return trace.ends()


@SEVENTH.honest(8, "a worker asks a queue for the next job every half minute: null, null, a job, null")
def worker_of_a_queue(rng: Random) -> Run:
    trace = run(rng, untimed=0.1)
    for _ in range(rng.randint(12, 22)):
        ticket = words.ticket(rng) if rng.random() < 0.35 else None
        trace.call(
            "worker", "queue.claim", {"queue": "returns", "worker": "w-3"}, {"job": ticket}, pause=rng.uniform(28, 33)
        )
        if ticket:
            trace.call("worker", "get_ticket", {"id": ticket}, {"body": words.complaint(rng)})
            trace.call("worker", "create_label", {"ticket": ticket}, {"label": words.hexa(rng, 10)})
            trace.call("worker", "queue.ack", {"queue": "returns", "job": ticket}, {"ok": True})
    return trace.ends()


@SEVENTH.honest(8, "others push, too: push refused, pull with rebase, tests, refused once more, pushed in the end")
def push_refused(rng: Random) -> Run:
    trace = run(rng)
    code_work(trace, "coder", 2, 4)
    for _ in range(rng.randint(2, 4)):
        trace.call(
            "coder",
            "bash",
            {"command": "git push origin main"},
            error=" ! [rejected]        main -> main (fetch first)\nerror: failed to push some refs",
        )
        trace.call(
            "coder",
            "bash",
            {"command": "git pull --rebase origin main"},
            f"From github.com:acme/app\n   {words.hexa(rng, 7)}..{words.hexa(rng, 7)}  main -> origin/main\n"
            "Successfully rebased and updated refs/heads/main.",
        )
        trace.call("coder", "bash", {"command": "make test"}, "All tests passed", pause=rng.uniform(30, 200))
    trace.call(
        "coder",
        "bash",
        {"command": "git push origin main"},
        f"   {words.hexa(rng, 7)}..{words.hexa(rng, 7)}  main -> main",
    )
    return trace.ends()


@SEVENTH.honest(8, "a service is rolled out region by region, each with the same smoke tests and the same good answers")
def region_by_region(rng: Random) -> Run:
    trace, server, tag = run(rng), rng.choice(words.SERVERS), f"v{rng.randint(1, 9)}.{rng.randrange(40)}.0"
    for region in rng.sample(
        (
            "us-east-1",
            "us-west-2",
            "eu-west-1",
            "eu-central-1",
            "ap-south-1",
            "ap-northeast-1",
            "sa-east-1",
            "ca-central-1",
        ),
        rng.randint(5, 8),
    ):
        trace.call("deployer", "deploy", {"service": server, "region": region, "tag": tag}, {"status": "accepted"})
        for _ in range(rng.randint(1, 4)):
            trace.call(
                "deployer",
                "deployment_status",
                {"service": server, "region": region},
                {"status": "progressing"},
                pause=30,
            )
        trace.call(
            "deployer", "deployment_status", {"service": server, "region": region}, {"status": "stable"}, pause=30
        )
        for there in ("/healthz", "/version"):
            trace.call(
                "deployer",
                "http_get",
                {"url": f"https://{server}.{region}.example{there}"},
                {"status": 200, "body": tag if there == "/version" else "ok"},
            )
    return trace.ends()


@SEVENTH.honest(8, "a report of the day, every day: query, chart, post, in the same sentences with other figures")
def report_of_the_day(rng: Random) -> Run:
    trace = run(rng, untimed=0)
    for _ in range(rng.randint(6, 10)):
        trace.wait(86_400)
        sold, gone = rng.randrange(400, 900), rng.randrange(5, 60)
        trace.call(
            "reporter",
            "run_sql",
            {"query": "SELECT count(*), sum(refunded) FROM orders WHERE day = today"},
            [[sold, gone]],
        )
        trace.call(
            "reporter", "render_chart", {"template": "daily", "values": [sold, gone]}, {"file": "/tmp/daily.png"}
        )
        trace.call(
            "reporter",
            "post_message",
            {
                "channel": "#sales",
                "text": (
                    f"Good morning! Yesterday we had {sold} orders and {gone} refunds. See the chart for details."
                ),
            },
            {"ok": True, "ts": f"{trace.now_s:.4f}"},
        )
    return trace.ends()
