"""Looping runs of one agent. In: a random generator. Out: traces that say where the first round begins.

A round is what comes again. Where nothing comes again to the letter (monologues, growing texts, errors in other words),
a round is three acts: what somebody looking on needs to see that it is the same once more.
"""

from random import Random

from tests.health_set.runs import words
from tests.health_set.runs.traces import Trace
from tests.health_set.sets import DAILY

ROUNDS = 14
LOOSE = 3
THOUGHTS = words.TEXTS["thoughts"]


def before(trace: Trace, rng: Random, most: int = 8) -> None:
    """Something honest first: loops seldom begin at the first act."""
    for _ in range(rng.randint(0, most)):
        if rng.random() < 0.25:
            trace.say("agent", words.paragraph(rng))
        else:
            trace.call(
                "agent", rng.choice(("search", "read_file", "bash")), {"q": words.query(rng)}, words.paragraph(rng)
            )


def some_call(rng: Random) -> tuple[str, dict[str, object], object]:
    """An action, its arguments and its result."""
    return rng.choice(
        (
            ("web_search", {"q": words.query(rng)}, rng.choice(("No results found.", [], words.paragraph(rng)))),
            ("read_file", {"path": words.path(rng)}, words.document(rng)),
            (
                "bash",
                {"command": f"grep -rn {rng.choice(words.FIELDS)!r} src"},
                rng.choice(("", words.document(rng, 4))),
            ),
            (
                "get_order",
                {"order_id": f"#W{rng.randrange(10**7)}"},
                {"status": "delivered", "items": [words.sentence(rng)]},
            ),
            ("sql", {"query": f"select * from orders where city = '{rng.choice(words.PLACES)}'"}, []),
            ("list_files", {}, [words.path(rng) for _ in range(4)]),
        )
    )


@DAILY.looping(25, "the same call, the same result")
def same_call(trace: Trace, rng: Random) -> None:
    call = some_call(rng)
    before(trace, rng)
    trace.loop_begins()
    for _ in range(ROUNDS):
        trace.call("agent", *call)


@DAILY.looping(20, "a fresh request id, time or number of the attempt in the arguments")
def fresh_arguments(trace: Trace, rng: Random) -> None:
    (action, arguments, result) = some_call(rng)
    before(trace, rng)
    way, first = rng.choice(("request_id", "timestamp", "attempt", "nonce", "trace")), rng.randint(1, 50)
    trace.loop_begins()
    for number in range(ROUNDS):
        fresh = {
            "request_id": words.uuid(rng),
            "timestamp": words.stamp(trace.now_s),
            "attempt": first + number,
            "nonce": words.digest(rng)[:16],
            "trace": {"traceparent": f"00-{words.digest(rng)[:32]}-01"},
        }[way]
        trace.call("agent", action, arguments | {way: fresh}, result)


@DAILY.looping(20, "fresh ids, times or durations in the result; the rest is the same")
def fresh_results(trace: Trace, rng: Random) -> None:
    (action, arguments, result) = some_call(rng)
    before(trace, rng)
    way = rng.choice(("took_ms", "request_id", "served_at", "text", "header"))
    trace.loop_begins()
    for _ in range(ROUNDS):
        shown: object = {
            "data": result,
            way: {
                "took_ms": rng.randint(3, 900),
                "request_id": words.uuid(rng),
                "served_at": words.stamp(trace.now_s),
            }.get(way),
        }
        if way == "text":
            shown = f"{result}\n(took {rng.uniform(0.1, 9):.2f}s)"
        if way == "header":
            shown = f"[{words.stamp(trace.now_s)}] pid={rng.randint(100, 99999)}\n{result}"
        trace.call("agent", action, arguments, shown)


@DAILY.looping(15, "the order of keys and the white space change")
def other_spelling(trace: Trace, rng: Random) -> None:
    city = rng.choice(words.PLACES)
    before(trace, rng)
    trace.loop_begins()
    items = [("city", city), ("max", 10), ("sort", "price")]
    for _ in range(ROUNDS):
        rng.shuffle(items)
        trace.call("agent", "find_hotels", dict(items), "no hotels match" + " " * rng.randint(0, 3))


def _round_and_round(trace: Trace, rng: Random, period: int) -> None:
    calls = [some_call(rng) for _ in range(period)]
    trace.loop_begins(period)
    for _ in range(8):
        for call in calls:
            trace.call("agent", *call)


@DAILY.looping(20, "A, B, A, B")
def alternation(trace: Trace, rng: Random) -> None:
    before(trace, rng)
    _round_and_round(trace, rng, 2)


@DAILY.looping(24, "a period of three to six calls", first=lambda rng: rng.randint(3, 6))
def periods(trace: Trace, rng: Random, period: int) -> None:
    before(trace, rng)
    _round_and_round(trace, rng, period)


@DAILY.looping(20, "each time another thought in other words, then the same call")
def thought_and_call(trace: Trace, rng: Random) -> None:
    call = some_call(rng)
    before(trace, rng)
    trace.loop_begins(2)
    for thought in rng.sample(THOUGHTS, 12):
        trace.say("agent", thought)
        trace.call("agent", *call)


@DAILY.looping(15, "two or three calls in an order that changes from round to round")
def shuffled_round(trace: Trace, rng: Random) -> None:
    calls = [some_call(rng) for _ in range(rng.randint(2, 3))]
    before(trace, rng)
    trace.loop_begins(len(calls))
    for _ in range(10):
        rng.shuffle(calls)
        for call in calls:
            trace.call("agent", *call)


@DAILY.looping(20, "the same failing call")
def same_error(trace: Trace, rng: Random) -> None:
    (action, arguments, _) = some_call(rng)
    before(trace, rng)
    error = rng.choice(("permission denied", {"code": 404, "message": "not found"}, "invalid argument: limit", True))
    trace.loop_begins()
    for _ in range(ROUNDS):
        trace.call("agent", action, arguments, error=error)


@DAILY.looping(15, "the same failing call; the error is worded differently or carries a fresh id")
def worded_error(trace: Trace, rng: Random) -> None:
    (action, arguments, _) = some_call(rng)
    before(trace, rng)
    trace.loop_begins()
    wordings = (
        "access to this resource is denied",
        "you may not read that",
        "403 Forbidden",
        "missing permission: read",
        "denied by policy",
        "not allowed for your role",
        "the caller lacks the right to do this",
    )
    fresh = rng.random() < 0.5
    for number in range(ROUNDS):
        trace.call(
            "agent",
            action,
            arguments,
            error=(f"403 Forbidden (request {words.uuid(rng)})" if fresh else wordings[number % len(wordings)]),
        )


@DAILY.looping(20, "one tool, arguments that change a little each time, always the same error (a round: three tries)")
def error_storm(trace: Trace, rng: Random) -> None:
    before(trace, rng)
    error = rng.choice(
        (
            "E999 IndentationError: unexpected indent. Your edit was not applied.",
            "old_str did not appear verbatim in the file",
            'syntax error at or near "FROM"',
            {"code": 422, "message": "field 'when' is required"},
        )
    )
    trace.loop_begins(LOOSE)
    for number in range(LOOSE * 10):
        trace.call(
            "agent", "edit", {"path": "src/app.py", "start": 40 + number, "text": words.sentence(rng)}, error=error
        )


@DAILY.looping(20, "the same thought again and again without an act (a round: three texts)")
def monologue(trace: Trace, rng: Random) -> None:
    before(trace, rng)
    way, kept = rng.choice(("letter", "paraphrase", "plan")), words.paragraph(rng)
    parts = kept.split(". ")
    trace.loop_begins(LOOSE)
    for number in range(LOOSE * 10):
        rng.shuffle(parts)
        trace.say(
            "agent",
            {
                "letter": kept,
                "paraphrase": f"{rng.choice(THOUGHTS)} {kept}",
                "plan": f"Plan, version {number + 1}: {'. '.join(parts)}. I will begin right away.",
            }[way],
        )


@DAILY.looping(15, "each text repeats the last one and adds a few words to it (a round: three texts)")
def growing_text(trace: Trace, rng: Random) -> None:
    text = words.paragraph(rng)
    before(trace, rng)
    extra = rng.choice((" I will now continue.", " As I said, this matters.", " To summarise: see above.", " ..."))
    trace.loop_begins(LOOSE)
    for _ in range(LOOSE * 10):
        text += extra
        trace.say("agent", text)


@DAILY.looping(15, "a job that has ended is asked for its state on and on", timed=0.7)
def ended_job(trace: Trace, rng: Random) -> None:
    job = words.uuid(rng)
    trace.call("agent", "start_job", {"kind": "render"}, {"job_id": job})
    trace.call("agent", "job_status", {"job_id": job}, {"status": "running", "progress": 40})
    state = rng.choice(({"status": "failed", "error": "out of memory"}, {"status": "completed", "rows": 120}))
    trace.loop_begins()
    for _ in range(ROUNDS):
        trace.call("agent", "job_status", {"job_id": job}, state)


@DAILY.looping(15, "a model that thinks for 35 to 90 seconds before each of the same calls", timed=1)
def slow_thinker(trace: Trace, rng: Random) -> None:
    call = some_call(rng)
    before(trace, rng)
    trace.loop_begins()
    for _ in range(ROUNDS):
        trace.call("agent", *call, pause=rng.uniform(35, 90))


@DAILY.looping(15, "an edit there and back; the test fails the one way, then the other")
def flip_flop(trace: Trace, rng: Random) -> None:
    one, other = words.sentence(rng), words.sentence(rng)
    before(trace, rng)
    trace.loop_begins(4)
    for _ in range(8):
        for old, new, failing in ((one, other, "test_a"), (other, one, "test_b")):
            trace.call("agent", "edit", {"path": "src/app.py", "old": old, "new": new}, "edited")
            trace.call(
                "agent", "bash", {"command": "pytest -q"}, f"FAILED {failing}\n1 failed in {rng.uniform(1, 9):.2f}s"
            )


@DAILY.looping(20, "a loop that begins after 150 to 250 honest acts")
def late_loop(trace: Trace, rng: Random) -> None:
    period = rng.randint(1, 4)
    for _ in range(rng.randint(150, 250)):
        trace.call("agent", rng.choice(("search", "read_file", "bash")), {"q": words.query(rng)}, words.sentence(rng))
    _round_and_round(trace, rng, period)


@DAILY.honest(25, "searches for the same thing in other words, each with results that resemble each other")
def paraphrased_search(trace: Trace, rng: Random) -> None:
    thing, place = rng.choice(words.THINGS), rng.choice(words.PLACES)
    kept = [words.sentence(rng) for _ in range(5)]
    forms = (
        "{0} rules in {1} for visitors",
        "rules for {0} in {1} for visitors",
        "{1}: {0} rules for visitors",
        "visitors {0} rules in {1}",
        "what are the {0} rules in {1} for visitors",
        "{0} rules for visitors in {1} 2026",
        "the {0} rules in {1} for visitors please",
        "{0} rules in {1} for all visitors",
    )
    for form in forms:
        shown = [*rng.sample(kept, 4), words.sentence(rng)]
        trace.call("agent", "web_search", {"q": form.format(thing, place)}, "\n".join(shown))


@DAILY.honest(20, "letters to many people, the same but for a name and a sum, answers with ids of their own")
def form_letters(trace: Trace, rng: Random) -> None:
    body = words.paragraph(rng, 5, 8)
    for person in rng.sample(words.PEOPLE, 12):
        text = f"Dear {person}, {body} You get {rng.randint(10, 900)} EUR."
        trace.call("agent", "send_letter", {"text": text}, {"letter": text, "number": rng.randrange(10**6)})
