"""Honest runs: waiting, polling, retrying, people who take their time. In: a random generator. Out: traces."""

from random import Random

from tests.health_set.runs import words
from tests.health_set.runs.traces import Trace
from tests.health_set.sets import DAILY


@DAILY.honest(35, "a job polled with growing pauses; the answer is the same until it is ready", timed=1)
def polling_with_backoff(trace: Trace, rng: Random) -> None:
    job, pause = words.uuid(rng), rng.uniform(0.5, 3)
    trace.call("runner", "start_job", {"kind": "render"}, {"job_id": job, "status": "queued"})
    state = rng.choice(("queued", "running", "in progress", "PENDING", "provisioning"))
    for _ in range(rng.randint(4, 12)):
        trace.call("runner", "job_status", {"job_id": job}, {"job_id": job, "status": state}, pause=pause)
        pause = min(pause * rng.choice((1.5, 2)), 120)
    trace.call("runner", "job_status", {"job_id": job}, {"job_id": job, "status": "succeeded"}, pause=pause)
    trace.call("runner", "fetch_result", {"job_id": job}, words.paragraph(rng))


@DAILY.honest(30, "sleep, look, sleep, look: a build or a deployment that takes its time")
def sleeping_between(trace: Trace, rng: Random) -> None:
    name = rng.choice(("sleep", "wait", "bash"))
    shown = rng.choice(("NAME    READY\nweb-0   0/1", "status: building", "Still waiting for the DNS change", "403"))
    for _ in range(rng.randint(4, 12)):
        arguments = {"command": "sleep 30"} if name == "bash" else {"seconds": 30}
        trace.call("deployer", name, arguments, "", pause=31)
        trace.call("deployer", "bash", {"command": "kubectl get pods"}, shown, pause=2)
    trace.call("deployer", "bash", {"command": "kubectl get pods"}, "NAME    READY\nweb-0   1/1", pause=2)


@DAILY.honest(25, "a transcript without times: the job says that it is pending, some sleeps in one command", timed=0)
def polling_without_clock(trace: Trace, rng: Random) -> None:
    way = rng.random()
    for _ in range(rng.randint(4, 9)):
        if way < 0.5:
            trace.call(
                "runner", "bash", {"command": "sleep 60 && gh run view 8812 --json status"}, '{"status":"in_progress"}'
            )
        else:
            trace.call("runner", "get_build", {"id": 8812}, {"status": rng.choice(("pending",)), "log": ""})
    trace.call("runner", "get_build", {"id": 8812}, {"status": "success"})


@DAILY.honest(35, "a transient error two or three times, then success, then work goes on")
def transient_errors(trace: Trace, rng: Random) -> None:
    for _ in range(rng.randint(2, 6)):
        what = {"q": words.query(rng)}
        for number in range(rng.choice((0, 0, 1, 2, 3))):
            trace.call(
                "fetcher",
                "api",
                what,
                error=rng.choice(
                    (
                        "503 Service Unavailable",
                        "connection reset by peer",
                        "timeout after 30 s",
                        "429 Too Many Requests",
                    )
                ),
                pause=2**number,
            )
        trace.call("fetcher", "api", what, words.paragraph(rng))


@DAILY.honest(25, "the same look every hour or every day; mostly nothing is new", timed=1)
def cron(trace: Trace, rng: Random) -> None:
    every = rng.choice((300, 3600, 86400))
    action, idle = rng.choice((("check_inbox", "0 new messages"), ("price_of", {"EUR": 129}), ("uptime", "all up")))
    for _ in range(rng.randint(10, 40)):
        busy = rng.random() < 0.1
        trace.call("watcher", action, {"account": "sales"}, words.sentence(rng) if busy else idle, pause=every)
        if busy:
            trace.call("watcher", "notify", {"text": words.sentence(rng)}, "sent")


@DAILY.honest(25, "a queue read with long polls: mostly nothing for 20 seconds, then work", timed=1)
def queue_consumer(trace: Trace, rng: Random) -> None:
    for _ in range(rng.randint(4, 9)):
        for _ in range(rng.randint(0, 5)):
            trace.call("consumer", "receive", {"queue": "orders", "wait_seconds": 20}, {"messages": []}, pause=20.2)
        order = rng.randrange(10**6)
        trace.call(
            "consumer",
            "receive",
            {"queue": "orders", "wait_seconds": 20},
            {"messages": [{"order": order}]},
            pause=rng.uniform(1, 18),
        )
        trace.call("consumer", "ship", {"order": order}, {"status": "ok"})


@DAILY.honest(30, "a person approves act after act with the same word, after minutes or days", timed=0.7)
def approvals(trace: Trace, rng: Random) -> None:
    word = rng.choice(("ok", "Approved.", "yes", "go ahead"))
    for _ in range(rng.randint(5, 20)):
        person, amount = rng.choice(words.PEOPLE), rng.randint(10, 900)
        trace.say("agent", f"May I refund {amount} EUR to {person}?", "reviewer")
        trace.say("reviewer", word, "agent", pause=rng.choice((20, 400, 9000, 200_000)))
        trace.call("agent", "refund", {"to": person, "amount": amount}, {"status": "ok"})


@DAILY.honest(25, "a person asks, the agent answers from its head or from a tool, for many turns")
def customer_service(trace: Trace, rng: Random) -> None:
    for _ in range(rng.randint(6, 16)):
        trace.say("customer", words.sentence(rng), "agent", pause=rng.uniform(10, 90))
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            trace.call(
                "agent",
                rng.choice(("get_order", "get_user", "search_flights")),
                {"id": f"#W{rng.randrange(10**6)}"},
                {"items": words.sentence(rng), "total": rng.randint(9, 999)},
            )
        trace.say("agent", words.paragraph(rng, 1, 3) + " Is there anything else I can help you with?", "customer")


@DAILY.honest(25, "every record stands two or three times: redelivered at once, or later and out of order", timed=1)
def redelivered(trace: Trace, rng: Random) -> None:
    for number in range(rng.randint(8, 20)):
        if rng.random() < 0.3:
            trace.say("worker", words.sentence(rng), rng.choice(("planner", "")), id=f"m{number}")
        else:
            trace.call(
                "worker",
                rng.choice(("search", "read", "write")),
                {"q": words.query(rng)},
                words.paragraph(rng),
                id=f"m{number}",
            )
    told: list[dict[str, object]] = []
    for row in trace.rows:
        told += [row] * rng.choice((1, 2, 2, 3, 5))
    late = [rng.choice(trace.rows) for _ in range(6)]
    for row in late:
        told.insert(rng.randint(len(told) // 2, len(told)), row)
    trace.rows = told
