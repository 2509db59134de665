"""The third set, part two: operations, batches and browsers. Waiting, polling, retrying, sweeping, and all in vain.

In: a random generator. Out: traces.
"""

from random import Random

from tests.health_set import third_words as words
from tests.health_set.sets import THIRD
from tests.health_set.third_words import Ticking as Trace


def _timed(rng: Random) -> bool:
    return rng.random() < 0.6


@THIRD.honest(
    16, "a load job asked for its state: `running`, with pauses that double up to five minutes and stay there"
)
def load_job_with_cap(rng: Random) -> Trace:
    trace, job, pause = Trace(rng), words.token(rng, 9), rng.uniform(3, 10)
    trace.call("etl", "start_load", {"table": rng.choice(words.THINGS)}, {"job": job})
    for _ in range(rng.randint(8, 24)):
        trace.call("etl", "job_state", {"job": job}, {"job": job, "state": "running"}, pause=pause)
        pause = min(300.0, pause * 2) * rng.uniform(0.9, 1.1)
    trace.call("etl", "job_state", {"job": job}, {"job": job, "state": "succeeded"}, pause=pause)
    return trace.ends()


@THIRD.honest(16, "rows counted while they load, every fifteen seconds; the count is the only thing that changes")
def rows_loaded(rng: Random) -> Trace:
    trace, rows, even = Trace(rng), 0, rng.choice((5, 10, 15))
    for _ in range(rng.randint(10, 40)):
        rows += rng.randint(100, 90_000)
        trace.call("etl", "count_rows", {"table": "staging.trips"}, {"rows": rows}, pause=even + rng.uniform(0, 1))
    trace.call("etl", "swap_tables", {"new": "staging.trips", "old": "trips"}, "swapped")
    return trace.ends()


@THIRD.honest(16, "a replica catches up: its lag falls, rises, falls, until it is zero")
def replica_lag(rng: Random) -> Trace:
    trace, lag = Trace(rng, timed=_timed(rng)), rng.randint(300, 4000)
    while lag > 0:
        trace.call("dba", "sql", {"query": "select replay_lag from pg_stat_replication"}, f"{lag} s", pause=10)
        lag -= rng.randint(-40, 400)
    trace.call("dba", "sql", {"query": "select replay_lag from pg_stat_replication"}, "0 s", pause=10)
    trace.call("dba", "promote", {"node": "pg-2"}, "promoted")
    return trace.ends()


@THIRD.honest(16, "an incident bot reads four gauges in turns every half minute; some stay, some move; then it acts")
def four_gauges(rng: Random) -> Trace:
    trace, service = Trace(rng), rng.choice(words.SERVICES)
    errors, slow = rng.randint(20, 90), rng.randint(800, 4000)
    for number in range(rng.randint(6, 14)):
        trace.call("bot", "metric", {"service": service, "name": "errors_per_s"}, errors, pause=30)
        trace.call("bot", "metric", {"service": service, "name": "p99_ms"}, slow, pause=1)
        trace.call("bot", "metric", {"service": service, "name": "replicas"}, 6, pause=1)
        trace.call("bot", "alerts", {"service": service}, ["HighErrorRate"], pause=1)
        if number == 3:
            trace.call("bot", "scale", {"service": service, "replicas": 9}, "scaling")
        errors, slow = max(0, errors - rng.randint(-3, 9)), slow + rng.randint(-300, 120)
    trace.say("bot", words.talk(rng), "oncall")
    return trace.ends()


@THIRD.honest(
    16, "a runbook on host after host: drain, upgrade, check, undrain; the answers are the same on all of them"
)
def hosts_by_runbook(rng: Random) -> Trace:
    trace, first = Trace(rng, timed=_timed(rng)), rng.randint(10, 70)
    for number in range(rng.randint(8, 20)):
        host = {"host": f"edge-{first + number:03d}.{rng.choice(('fra', 'lhr'))}"}
        for action, answer in (
            ("drain", "drained"),
            ("upgrade", "agent 4.19 installed"),
            ("check", "healthy"),
            ("undrain", "in rotation"),
        ):
            trace.call("fleet", action, host, answer)
    return trace.ends()


@THIRD.honest(16, "one report for each town in nearly the same words: figures asked for, rendered, queued")
def nightly_reports(rng: Random) -> Trace:
    trace, night = Trace(rng, timed=_timed(rng)), f"2026-11-{rng.randint(1, 28):02d}"
    for town in rng.sample(words.TOWNS, rng.randint(10, 24)):
        sold = rng.randint(0, 4000)
        trace.call("reporter", "sales", {"town": town, "day": night}, {"tickets": sold, "refunds": rng.randint(0, 9)})
        text = f"Report for {town}, {night}. Tickets sold: {sold}. All gates were open. No incident was reported."
        trace.call("reporter", "render", {"template": "nightly", "text": text}, "ok")
        trace.call("reporter", "enqueue_mail", {"to": f"{town.lower()}@stations.example"}, "queued")
    return trace.ends()


@THIRD.honest(14, "a new address is waited for: the old one is answered, with growing pauses, then the new one")
def waiting_for_dns(rng: Random) -> Trace:
    trace, pause = Trace(rng), rng.uniform(5, 20)
    look = {"command": f"dig +short {rng.choice(words.SERVICES)}.example.net"}
    trace.call("ops", "set_record", {"ip": "203.0.113.9"}, "accepted")
    for _ in range(rng.randint(4, 9)):
        trace.call("ops", "bash", look, "198.51.100.4\n", pause=pause)
        pause *= rng.uniform(1.5, 2.2)
    trace.call("ops", "bash", look, "203.0.113.9\n", pause=pause)
    return trace.ends()


@THIRD.honest(16, "a batch against a shaky service: an item fails none to four times, with an id each, and is done")
def shaky_batch(rng: Random) -> Trace:
    trace = Trace(rng)
    for number in range(rng.randint(8, 16)):
        body, pause = {"sensor": f"s-{rng.randint(100, 999)}", "reading": round(rng.uniform(1, 90), 2)}, 1.0
        for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 4))):
            trace.call(
                "uplink",
                "post",
                body | {"key": words.uuid(rng)},
                pause=pause,
                error=f"503 Service Unavailable (request {words.token(rng, 16)})",
            )
            pause = pause * 2 + rng.uniform(0, 1)
        trace.call("uplink", "post", body | {"key": words.uuid(rng)}, {"stored": number + 1}, pause=pause)
    return trace.ends()


@THIRD.honest(16, "alert by alert: read, the runbook of its kind looked up again, acknowledged with the same word")
def alert_triage(rng: Random) -> Trace:
    trace, kinds = Trace(rng, timed=_timed(rng)), {kind: words.talk(rng, 3, 5) for kind in ("disk", "cert", "cpu")}
    for _ in range(rng.randint(10, 22)):
        alert, kind = rng.randint(10_000, 99_999), rng.choice(sorted(kinds))
        trace.call(
            "triage",
            "get_alert",
            {"id": alert},
            {"kind": kind, "host": f"h{rng.randint(1, 400)}", "text": words.line(rng)},
        )
        trace.call("triage", "get_runbook", {"kind": kind}, kinds[kind])
        trace.call("triage", "ack", {"id": alert}, "acknowledged")
    return trace.ends()


@THIRD.honest(14, "a plan of infrastructure: locked twice, then fewer and fewer changes, applied at the end")
def infrastructure_plan(rng: Random) -> Trace:
    trace, pause = Trace(rng, timed=_timed(rng)), 5.0
    for _ in range(rng.randint(1, 3)):
        trace.call("infra", "bash", {"command": "terraform plan"}, error="Error acquiring the state lock", pause=pause)
        pause *= 3
    for changes in range(rng.randint(3, 7), 0, -1):
        trace.call(
            "infra", "bash", {"command": "terraform plan"}, f"{words.phrase(rng)}\nPlan: {changes} to add, 0 to change."
        )
        trace.call("infra", "edit", {"path": f"{rng.choice(words.THINGS)}.tf", "text": words.code(rng)}, "ok")
    trace.call("infra", "bash", {"command": "terraform apply"}, "Apply complete!")
    return trace.ends()


@THIRD.honest(16, "a pipeline watched without a clock: `sleep 60` in the command, in progress, step by step, done")
def pipeline_watch(rng: Random) -> Trace:
    trace, run = Trace(rng, timed=rng.random() < 0.3), rng.randint(10**9, 10**10)
    steps = [rng.choice(words.THINGS) for _ in range(rng.randint(4, 9))]
    trace.call("dev", "bash", {"command": "git push"}, "branch set up")
    for done in range(len(steps)):
        for _ in range(rng.choice((1, 1, 2, 3))):
            shown = "\n".join(f"{'ok' if at < done else '..'} {step}" for at, step in enumerate(steps[: done + 1]))
            trace.call("dev", "bash", {"command": f"sleep 60 && gh run view {run}"}, f"in_progress\n{shown}", pause=62)
    trace.call("dev", "bash", {"command": f"gh run view {run}"}, "completed success", pause=62)
    return trace.ends()


@THIRD.honest(16, "page after page of a shop by the same click on `Next`, each page its own goods")
def next_next(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    for _ in range(rng.randint(8, 22)):
        trace.call(
            "browser",
            "extract",
            {"goal": "names and prices"},
            [
                {"name": f"{rng.choice(words.KINDS)} {rng.choice(words.THINGS)}", "price": rng.randint(2, 99)}
                for _ in range(4)
            ],
        )
        trace.call("browser", "click", {"index": 57}, "Clicked button with index 57: Next")
    trace.call("browser", "done", {"text": words.talk(rng)}, "done")
    return trace.ends()


@THIRD.honest(14, "an endless feed: scrolled, always with the same words, and read, with other news each time")
def endless_feed(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    for _ in range(rng.randint(6, 16)):
        trace.call("browser", "scroll_down", {}, "Scrolled down the page by one page")
        trace.call("browser", "extract", {"goal": "posts"}, words.talk(rng))
    return trace.ends()


@THIRD.honest(14, "seats tried until one is free: taken, taken, taken, yours; for each of some passengers")
def seats(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    for person in rng.sample(words.CREW, rng.randint(2, 5)):
        for seat in rng.sample([f"{row}{place}" for row in range(9, 30) for place in "ABCDEF"], rng.randint(1, 4)):
            trace.call("agent", "seat", {"passenger": person, "seat": seat}, error="seat taken")
        trace.call("agent", "seat", {"passenger": person, "seat": f"{rng.randint(30, 40)}C"}, "confirmed")
    return trace.ends()


@THIRD.honest(14, "a locale file, string by string: glossary asked (mostly nothing), translated, written")
def locale_file(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    for number in range(rng.randint(15, 40)):
        text = f"{rng.choice(words.KINDS)} {rng.choice(words.THINGS)}"
        trace.call("l10n", "glossary", {"term": text.split()[-1]}, "not in glossary" if rng.random() < 0.8 else "keep")
        trace.call("l10n", "set_string", {"key": f"ui.{number}", "text": f"das {text[::-1]}"}, "ok")
    return trace.ends()


@THIRD.honest(14, "identities verified record by record; nearly all match, with scores near one")
def identities(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    for _ in range(rng.randint(15, 40)):
        born = f"19{rng.randint(40, 99)}-0{rng.randint(1, 9)}-1{rng.randint(0, 9)}"
        trace.call(
            "kyc",
            "verify",
            {"name": f"{rng.choice(words.CREW)} {rng.choice(words.TOWNS)}", "born": born},
            {"match": rng.random() < 0.95, "score": rng.choice((0.97, 0.98, 0.99))},
        )
    return trace.ends()


@THIRD.honest(14, "two watches a day for a week: the same three looks, nothing to report, handed over in one sentence")
def night_watch(rng: Random) -> Trace:
    trace = Trace(rng)
    for number in range(rng.randint(8, 14)):
        one, two = ("day", "night") if number % 2 == 0 else ("night", "day")
        for name in ("boiler", "gate", "pump"):
            trace.call(one, "inspect", {"what": name}, "normal", pause=rng.uniform(1200, 9000))
        trace.say(one, "Nothing to report. Your watch.", two, pause=rng.uniform(3000, 9000))
    return trace.ends()


# In vain.


@THIRD.looping(12, "a browser scrolls down at the foot of the page: same state, same answer, another note to itself")
def foot_of_the_page(rng: Random) -> Trace:
    trace, noted = Trace(rng, timed=_timed(rng)), rng.random() < 0.5
    for _ in range(rng.randint(1, 5)):
        trace.call("browser", "click", {"index": rng.randint(1, 90)}, words.talk(rng))
    trace.loop_begins(2 if noted else 1)
    for _ in range(16):
        if noted:
            trace.say("browser", f"Eval: success. Memory: scrolled down. Next goal: {words.phrase(rng)}")
        trace.call("browser", "scroll_down", {}, "Scrolled down the page by one page")
    return trace.ends()


@THIRD.looping(12, "a link that opens a new tab each time, while the agent looks at the old one")
def new_tabs(rng: Random) -> Trace:
    trace, shown, tab = Trace(rng, timed=_timed(rng)), words.talk(rng), 1
    trace.loop_begins(2)
    for _ in range(14):
        tab += 1
        trace.call("browser", "click", {"index": 60}, f"Clicked. New tab opened ({tab} tabs)")
        trace.call("browser", "state", {}, {"url": "https://forms.example/list", "text": shown})
    return trace.ends()


@THIRD.looping(12, "the page number counts up for ever; the answer is empty, or always the last page (a round: three)")
def counting_pages(rng: Random) -> Trace:
    trace, url = Trace(rng, timed=_timed(rng)), f"https://{rng.choice(words.SERVICES)}.example/items"
    real = rng.randint(0, 6)
    last = [] if rng.random() < 0.5 else [{"id": rng.randint(1, 9999), "name": words.phrase(rng)} for _ in range(2)]
    for page in range(real):
        trace.call("crawler", "get", {"url": f"{url}?page={page + 1}"}, [{"id": page, "name": words.phrase(rng)}])
    trace.loop_begins(3)
    for page in range(real, real + 36):
        trace.call("crawler", "get", {"url": f"{url}?page={page + 1}"}, last)
    return trace.ends()


@THIRD.looping(12, "a captcha: the page, the attempt, the refusal, the page; each picture has another digest")
def captcha(rng: Random) -> Trace:
    trace, url = Trace(rng, timed=_timed(rng)), f"https://{rng.choice(words.SERVICES)}.example"
    trace.loop_begins(3)
    for _ in range(12):
        trace.call(
            "browser", "goto", {"url": url}, {"title": "Are you a robot?", "image": f"sha256:{words.digest(rng)}"}
        )
        trace.call("browser", "solve_captcha", {}, {"solved": False})
        trace.call("browser", "wait", {"seconds": 2}, "waited")
    return trace.ends()


@THIRD.looping(12, "a log-in that leads back to the log-in, with a fresh token in the form")
def back_to_login(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    trace.call("browser", "goto", {"url": "https://shop.example"}, words.talk(rng))
    trace.loop_begins(3)
    for _ in range(11):
        trace.call(
            "browser",
            "goto",
            {"url": "https://shop.example/account"},
            {"redirected": "/login", "csrf": words.token(rng, 32)},
        )
        trace.call("browser", "fill", {"user": "demo", "password": "***"}, "filled")
        trace.call("browser", "submit", {}, "Your session is invalid, please log in.")
    return trace.ends()


@THIRD.looping(14, "a request repeated with a fresh key and a jittered, never growing pause; it fails with a fresh id")
def jitter_without_end(rng: Random) -> Trace:
    trace, body = Trace(rng), {"sensor": f"s-{rng.randint(100, 999)}", "reading": round(rng.uniform(1, 90), 2)}
    for _ in range(rng.randint(0, 5)):
        trace.call("uplink", "post", {"sensor": f"s-{rng.randint(1, 99)}", "key": words.uuid(rng)}, {"stored": True})
    trace.loop_begins()
    for _ in range(20):
        trace.call(
            "uplink",
            "post",
            body | {"key": words.uuid(rng)},
            pause=rng.uniform(0.5, 4),
            error=f"503 Service Unavailable (request {words.token(rng, 16)})",
        )
    return trace.ends()


@THIRD.looping(12, "a job that is lost: asked for every ten seconds, not found every time")
def lost_job(rng: Random) -> Trace:
    trace, job = Trace(rng), words.uuid(rng)
    trace.call("etl", "start_load", {"table": rng.choice(words.THINGS)}, {"job": job})
    trace.loop_begins()
    for _ in range(20):
        trace.call("etl", "job_state", {"job": job}, error=f"404 no such job {job}", pause=10 + rng.uniform(-1, 1))
    return trace.ends()


@THIRD.looping(12, "a lock that nobody holds: apply fails, unlocking fails, apply fails")
def lock_of_nobody(rng: Random) -> Trace:
    trace, lock = Trace(rng, timed=_timed(rng)), words.uuid(rng)
    trace.loop_begins(2)
    for _ in range(12):
        trace.call("infra", "bash", {"command": "terraform apply"}, error=f"Error acquiring the state lock\nID: {lock}")
        trace.call(
            "infra",
            "bash",
            {"command": f"terraform force-unlock -force {lock}"},
            error="Failed to unlock state: LocalState not locked",
        )
    return trace.ends()


@THIRD.looping(12, "a pod restarted again and again: it crashes, the count of restarts is all that changes")
def crash_loop(rng: Random) -> Trace:
    trace, pod, restarts = Trace(rng, timed=_timed(rng)), f"{rng.choice(words.SERVICES)}-0", rng.randint(3, 60)
    log = f"panic: {words.phrase(rng)}"
    trace.call("bot", "get_alert", {"id": rng.randint(1, 9999)}, words.line(rng))
    trace.loop_begins(3)
    for _ in range(11):
        trace.call("bot", "get_pod", {"pod": pod}, {"status": "CrashLoopBackOff", "restarts": restarts})
        trace.call("bot", "logs", {"pod": pod, "tail": 1}, log)
        trace.call("bot", "restart", {"pod": pod}, "pod restarted")
        restarts += rng.randint(1, 3)
    return trace.ends()


@THIRD.looping(12, "the same three questions to an index in turns, the same pieces found, with other scores")
def same_pieces(rng: Random) -> Trace:
    trace, pieces = Trace(rng, timed=_timed(rng)), [(f"doc-{rng.randint(1, 900)}", words.line(rng)) for _ in range(3)]
    asked = [words.phrase(rng) for _ in range(3)]
    for _ in range(rng.randint(0, 4)):
        trace.call("rag", "retrieve", {"query": words.phrase(rng)}, [{"id": "doc-0", "text": words.line(rng)}])
    trace.loop_begins(3)
    for number in range(30):
        trace.call(
            "rag",
            "retrieve",
            {"query": asked[number % 3]},
            [{"id": name, "text": text, "score": round(rng.uniform(0.4, 0.9), 4)} for name, text in pieces],
        )
    return trace.ends()


@THIRD.looping(12, "three times for a train, all taken, tried in turns for ever, between talk to the traveller")
def three_full_trains(rng: Random) -> Trace:
    trace, town = Trace(rng, timed=_timed(rng)), rng.choice(words.TOWNS)
    trace.loop_begins(6)
    for _ in range(9):
        for hour in (8, 11, 17):
            trace.call("agent", "reserve", {"to": town, "at": f"{hour}:05"}, error="fully booked")
            trace.say(
                "agent",
                f"{rng.choice(('Sadly', 'Alas', 'I see that', 'Hm,'))} the {hour}:05 is full. One moment.",
                "guest",
            )
    return trace.ends()
