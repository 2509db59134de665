"""The fifth set, part two: honest runs of machines: code, releases, incidents, batches, retries, planners and workers.

In: a random generator. Out: traces. Nothing is made to look like a loop; whatever comes back does so in real work, too.
"""

from random import Random

from tests.health_set import fifth_words as words
from tests.health_set.fifth_words import Session, session
from tests.health_set.sets import FIFTH


def _pytest(trace: Session, passed: int, failed: list[str]) -> str:
    lines = [f"FAILED {one} - AssertionError" for one in failed]
    took = f"{trace.rng.uniform(0.4, 30):.2f}s"
    end = f"{len(failed)} failed, {passed} passed in {took}" if failed else f"{passed} passed in {took}"
    return "\n".join([*lines, f"=== {end} ==="])


@FIFTH.honest(14, "a bug mended: search, read, edit, the tests; some edits mend nothing; green, committed")
def bug_mended(rng: Random) -> Session:
    trace, paths = session(rng), words.files(rng, 2, 4)
    failed = [
        f"tests/test_{words.pick(rng, words.MODULES)}.py::test_{words.pick(rng, words.VERBS).replace(' ', '_')}"
        for _ in range(rng.randint(1, 4))
    ]
    passed = rng.randint(20, 400)
    trace.call("coder", "bash", {"command": "pytest -q"}, _pytest(trace, passed, failed))
    while failed:
        path = rng.choice(paths)
        trace.call(
            "coder",
            "grep",
            {"pattern": words.pick(rng, words.MODULES), "path": "src"},
            "\n".join(f"{one}:{rng.randint(1, 300)}: {words.pick(rng, words.THINGS)}" for one in paths),
        )
        trace.call("coder", "read_file", {"path": path, "offset": rng.randint(0, 200)}, words.report(rng, 3, 6))
        trace.call("coder", "edit", {"path": path, "old": words.fact(rng), "new": words.fact(rng)}, "1 replacement")
        if rng.random() < 0.6:
            failed.pop()
            passed += 1
        trace.call("coder", "bash", {"command": "pytest -q"}, _pytest(trace, passed, failed))
    trace.call(
        "coder",
        "bash",
        {"command": f"git commit -am '{words.fact(rng)}'"},
        f"[main {words.digest(rng)[:7]}] {len(paths)} files changed",
    )
    return trace.ends()


@FIFTH.honest(14, "a feature by a squad: planner, coder, tester, reviewer; green checks after each piece")
def feature_squad(rng: Random) -> Session:
    trace, passed = session(rng), rng.randint(50, 300)
    for piece in words.several(rng, words.MODULES, 3, 6):
        trace.say("planner", f"Next is {piece}: {words.fact(rng)}", "coder")
        for path in words.files(rng, 1, 3):
            trace.call("coder", "write_file", {"path": path, "content": words.report(rng, 4, 8)}, "ok")
        trace.say("coder", f"{piece} is done.", "tester")
        trace.call("tester", "run", {"command": "make lint"}, "All checks passed!")
        passed += rng.randint(1, 6)
        if rng.random() < 0.3:
            trace.call("tester", "run", {"command": "make test"}, _pytest(trace, passed - 1, [f"test_{piece}"]))
            trace.say("tester", f"test_{piece} fails: {words.fact(rng)}", "coder")
            trace.call("coder", "edit", {"path": f"src/{piece}/core.py", "new": words.fact(rng)}, "ok")
        trace.call("tester", "run", {"command": "make test"}, _pytest(trace, passed, []))
        trace.say("tester", "All green.", "reviewer")
        trace.call("reviewer", "diff", {"branch": "feature"}, words.report(rng, 3, 6))
        trace.say("reviewer", rng.choice(("Looks good.", "LGTM.", "Approved.")), "planner")
    trace.call("planner", "merge", {"branch": "feature"}, {"merged": True})
    return trace.ends()


@FIFTH.honest(14, "an incident: an alert, logs, a guess, a restart, the metric watched until it is well, a report")
def incident(rng: Random) -> Session:
    trace, service, rate = session(rng), words.pick(rng, words.MODULES), rng.uniform(8, 40)
    trace.call("oncall", "alert", {}, {"service": service, "error_rate": round(rate, 1)})
    for _ in range(rng.randint(2, 5)):
        trace.call(
            "oncall",
            "logs",
            {"service": words.pick(rng, words.MODULES), "last": "10m"},
            "\n".join(f"{words.clock(trace)} {words.fact(rng)}" for _ in range(3)),
        )
        trace.call("oncall", "query", {"metric": "error_rate", "service": service}, {"value": round(rate, 1)})
        rate += rng.uniform(-1, 3)
    trace.say("oncall", f"I suspect {words.fact(rng)} Restarting {service}.", "lead")
    trace.call("oncall", "restart", {"service": service}, {"pid": rng.randint(300, 30_000)})
    while rate > 0.1:
        trace.call(
            "oncall",
            "query",
            {"metric": "error_rate", "service": service},
            {"value": round(rate, 1)},
            pause=30 + rng.uniform(-1, 1),
        )
        rate *= rng.choice((0.9, 0.6, 0.3, 1.0))
    trace.call("oncall", "query", {"metric": "error_rate", "service": service}, {"value": 0.0}, pause=30)
    trace.call("oncall", "status_page", {"text": words.report(rng, 1, 2)}, "published")
    return trace.ends()


@FIFTH.honest(14, "a watch over services: each is asked in turn, round after round, with a sleep between rounds")
def service_watch(rng: Random) -> Session:
    trace, services = session(rng), words.several(rng, words.MODULES, 2, 4)
    for _ in range(rng.randint(6, 14)):
        for one in services:
            trace.call(
                "watch",
                "http_get",
                {"url": f"http://{one}.internal/healthz"},
                {"status": 200, "body": {"status": "ok"}, "elapsed_ms": rng.randint(2, 90)},
                pause=0.4,
            )
        trace.call("watch", "sleep", {"seconds": 60}, "slept", pause=60)
    trace.call(
        "watch",
        "http_get",
        {"url": f"http://{services[0]}.internal/healthz"},
        {"status": 503, "body": {"status": "degraded"}, "elapsed_ms": rng.randint(900, 5000)},
    )
    trace.say("watch", f"{services[0]} is degraded.", "oncall")
    return trace.ends()


@FIFTH.honest(14, "a long batch job: submitted, looked at with pauses, a phase that stands still, fetched")
def long_batch(rng: Random) -> Session:
    trace = session(rng)
    for _ in range(rng.randint(1, 3)):
        job, done, total = f"job-{words.token(rng, 8)}", 0, rng.randint(2_000, 80_000)
        trace.call("runner", "submit", {"script": f"{words.pick(rng, words.MODULES)}.sbatch"}, {"job": job})
        for _ in range(rng.randint(1, 4)):
            trace.call("runner", "job_status", {"job": job}, {"state": "queued"}, pause=rng.choice((15, 30, 60)))
        while done < total:
            trace.call(
                "runner",
                "job_status",
                {"job": job},
                {"state": "running", "done": done, "total": total},
                pause=rng.choice((30, 60)) + rng.uniform(0, 1),
            )
            done += 0 if rng.random() < 0.25 else rng.randint(total // 12, total // 3)
        trace.call("runner", "job_status", {"job": job}, {"state": "finished", "done": total, "total": total}, pause=30)
        trace.call("runner", "fetch", {"job": job, "file": "out.parquet"}, {"bytes": rng.randint(10**5, 10**8)})
    return trace.ends()


@FIFTH.honest(14, "uploads to a shaky service: 503 or a timeout, tried again after 1, 2, 4, 8 seconds, through")
def shaky_uploads(rng: Random) -> Session:
    trace = session(rng)
    for _ in range(rng.randint(5, 12)):
        record = rng.randint(1000, 9999)
        failures = rng.choice((0, 0, 1, 1, 2, 3))
        for attempt in range(failures):
            error = rng.choice(("503 Service Unavailable", "read timeout after 10 s", "502 Bad Gateway"))
            pause = 2 ** (attempt - 1) + rng.uniform(0, 0.4) if attempt else None
            trace.call("sync", "put_record", {"id": record}, error=error, pause=pause)
        pause = 2 ** (failures - 1) + rng.uniform(0, 0.4) if failures else None
        trace.call("sync", "put_record", {"id": record}, {"status": 201, "etag": words.token(rng, 8)}, pause=pause)
    return trace.ends()


@FIFTH.honest(14, "a planner, workers and a checker: pieces handed out, peers asked, results checked, one done again")
def planned_work(rng: Random) -> Session:
    trace, workers = session(rng), words.several(rng, words.PEOPLE, 2, 4)
    trace.call("planner", "write_plan", {"steps": [words.fact(rng) for _ in range(6)]}, "saved")
    for number in range(rng.randint(5, 10)):
        worker, peer = rng.sample(workers, 2)
        trace.say("planner", f"Step {number + 1}: {words.fact(rng)}", worker)
        trace.call(worker, "search", {"q": words.pick(rng, words.TOPICS)}, words.report(rng))
        if rng.random() < 0.4:
            trace.say(worker, f"What do you have on {words.pick(rng, words.THINGS)}?", peer)
            trace.say(peer, words.fact(rng), worker)
        trace.call(worker, "submit_result", {"step": number + 1, "text": words.report(rng, 2, 4)}, "received")
        if rng.random() < 0.25:
            trace.say("checker", f"Step {number + 1} lacks a source: {words.fact(rng)}", worker)
            trace.call(worker, "submit_result", {"step": number + 1, "text": words.report(rng, 2, 4)}, "received")
        trace.say("checker", f"Step {number + 1} is accepted.", "planner")
        trace.call("planner", "tick", {"step": number + 1}, {"open": 10 - number})
    trace.say("planner", "That is all, thank you.", workers[0])
    return trace.ends()


@FIFTH.honest(14, "a train of releases: build, staging, smoke test, production, service after service")
def release_train(rng: Random) -> Session:
    trace = session(rng)
    for service in words.several(rng, words.MODULES, 4, 9):
        version = f"{rng.randint(1, 9)}.{rng.randint(0, 40)}.{rng.randint(0, 9)}"
        trace.call("release", "build", {"service": service, "version": version}, {"image": words.digest(rng)})
        for stage in ("staging", "production"):
            trace.call("release", "deploy", {"service": service, "to": stage}, "rolled out")
            trace.call("smoke", "run_suite", {"suite": "smoke", "env": stage}, "12/12 passed")
        if rng.random() < 0.3:
            trace.call("release", "rollback", {"service": service}, "rolled back")
            trace.say("release", f"{service} {version} rolled back: {words.fact(rng)}", "owner")
    return trace.ends()


@FIFTH.honest(14, "a migration through a code base: read, rewrite, type check; the count of errors falls, or stays")
def type_migration(rng: Random) -> Session:
    trace, left = session(rng), rng.randint(30, 200)
    for path in words.files(rng, 6, 14):
        trace.call("migrator", "read_file", {"path": path}, words.report(rng, 3, 6))
        trace.call("migrator", "write_file", {"path": path, "content": words.report(rng, 4, 7)}, "ok")
        left = max(0, left - rng.choice((0, 0, 3, 9, 17)))
        trace.call("migrator", "bash", {"command": "mypy src"}, f"Found {left} errors in {left // 4 + 1} files")
    trace.call("migrator", "bash", {"command": "git push"}, f"{words.digest(rng)[:7]}..{words.digest(rng)[:7]} main")
    return trace.ends()


@FIFTH.honest(14, "a model trained many times: settings, a run looked at, a score; good settings come back")
def sweeps(rng: Random) -> Session:
    trace, best = session(rng), rng.uniform(0.6, 0.7)
    for _ in range(rng.randint(5, 10)):
        rate, depth = rng.choice((0.1, 0.03, 0.01)), rng.choice((4, 6, 8))
        run = f"run-{rng.randint(1000, 9999)}"
        trace.call("trainer", "start", {"lr": rate, "depth": depth, "seed": rng.randint(0, 99)}, {"run": run})
        epoch = 0
        while epoch < 30:
            trace.call(
                "trainer",
                "progress",
                {"run": run},
                {"epoch": epoch, "loss": round(rng.uniform(0.2, 0.9), 4)},
                pause=rng.uniform(40, 60),
            )
            epoch += rng.randint(5, 15)
        score = round(min(0.99, best + rng.uniform(-0.05, 0.05)), 4)
        trace.call("trainer", "evaluate", {"run": run}, {"auc": score})
        best = max(best, score)
    trace.call("trainer", "register", {"auc": best}, "registered")
    return trace.ends()
