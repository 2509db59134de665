"""Loops that look like honest runs, most of them with an honest twin in `honest_twins`.

In: a random generator. Out: traces. Counters, nonces, signatures and receipts change; nothing else does.
"""

from random import Random

from tests.health_set.runs import coined_words as words
from tests.health_set.runs.traces import Trace
from tests.health_set.sets import TWINS

TALK = 10


def _before(trace: Trace, rng: Random, agent: str, most: int = 5) -> None:
    for _ in range(rng.randint(0, most)):
        trace.call(agent, "lookup", {"key": words.noun(rng)}, words.tell(rng))


@TWINS.looping(10, "a valve that is jammed: opened in vain, the flow is zero, opened in vain")
def jammed_valve(trace: Trace, rng: Random) -> None:
    _before(trace, rng, "plant")
    trace.loop_begins(2)
    for _ in range(14):
        trace.call("plant", "open_valve", {"valve": 3}, error="valve 3 does not move")
        trace.call("plant", "flow", {"pipe": 3}, "0.0 l/min")


@TWINS.looping(
    12, "a migration tried by number, every three seconds; the lock is held by a process that changes", timed=1
)
def attempt_by_number(trace: Trace, rng: Random) -> None:
    _before(trace, rng, "dba")
    trace.loop_begins()
    for number in range(1, 24):
        trace.call(
            "dba",
            "migrate",
            {"to": 88, "attempt": number},
            pause=3 + rng.uniform(-0.2, 0.2),
            error=f"lock timeout on table accounts, held by pid {rng.randint(1000, 30_000)} (attempt {number})",
        )


@TWINS.looping(12, "one page fetched over and over with a fresh tag and time, after a thought in other words")
def same_page_new_tag(trace: Trace, rng: Random) -> None:
    url, body = f"https://{words.noun(rng)}.example/", words.tell(rng, 3, 5)
    trace.loop_begins(2)
    for _ in range(13):
        trace.say("surfer", words.said(rng))
        trace.call(
            "surfer",
            "fetch",
            {"url": url},
            {"etag": f'W/"{words.hexa(rng, 16)}"', "date": words.stamp(trace.now_s), "body": body},
        )


@TWINS.looping(12, "a baton carried round by three to six agents, with a nonce and the number of the round")
def baton(trace: Trace, rng: Random) -> None:
    crew = [words.name(rng) for _ in range(rng.randint(3, 6))]
    size = len(crew)
    _before(trace, rng, crew[0])
    trace.loop_begins(2 * size)
    for number in range(8 * size):
        one, other = crew[number % size], crew[(number + 1) % size]
        trace.call(
            one,
            "take_baton",
            {"nonce": words.hexa(rng), "round": number // size + 1},
            {"holder": one, "since": words.stamp(trace.now_s)},
        )
        trace.say(one, f"Your turn (round {number // size + 1}).", other)


@TWINS.looping(12, "a coordinator asks four workers how they stand; all wait for instructions; it asks again")
def star_without_work(trace: Trace, _: Random) -> None:
    trace.loop_begins(8)
    for _ in range(9):
        for number in range(4):
            trace.say("coordinator", "How do you stand?", f"w{number}")
            trace.say(f"w{number}", "I am waiting for instructions.", "coordinator")


@TWINS.looping(10, "a patch applied, tested, undone, applied")
def applied_and_undone(trace: Trace, rng: Random) -> None:
    text = words.tell(rng)
    _before(trace, rng, "gopher")
    trace.loop_begins(3)
    for _ in range(11):
        trace.call("gopher", "patch", {"file": "fold.go", "text": text}, "patched")
        trace.call("gopher", "sh", {"cmd": "go test ./..."}, error=f"FAIL fold {rng.uniform(0.1, 4):.3f}s")
        trace.call("gopher", "sh", {"cmd": "git checkout fold.go"}, "Updated 1 path from the index")


@TWINS.looping(10, "a menu that wraps around: the same key, the same three to five screens in turns")
def menu_wraps(trace: Trace, rng: Random) -> None:
    lines = [words.noun(rng) for _ in range(rng.randint(3, 5))]
    screens = [
        "\n".join(("> " if number == at else "  ") + line for number, line in enumerate(lines))
        for at in range(len(lines))
    ]
    trace.loop_begins(len(lines))
    for number in range(9 * len(lines)):
        trace.call("hands", "key", {"press": "down"}, screens[number % len(lines)])


@TWINS.looping(10, "a walk in a circle: north, east, south, west, the same four rooms")
def in_a_circle(trace: Trace, rng: Random) -> None:
    rooms = [words.tell(rng) for _ in range(4)]
    _before(trace, rng, "player")
    trace.loop_begins(4)
    for _ in range(10):
        for way, room in zip(("north", "east", "south", "west"), rooms, strict=True):
            trace.call("player", "do", {"command": f"go {way}"}, f"{room} You carry 3 things.")


@TWINS.looping(12, "two checks that contradict each other: the date is wrong this way and that, under a fresh number")
def contradicting_checks(trace: Trace, rng: Random) -> None:
    form = {"name": words.name(rng), "sum": rng.randint(10, 900)}
    trace.loop_begins(2)
    for number in range(13):
        case = 70_000 + 3 * number
        trace.call("filer", "submit", form | {"date": "21.11.2026"}, error=f"case {case}: date must be YYYY-MM-DD")
        trace.call("filer", "submit", form | {"date": "2026-11-21"}, error=f"case {case + 1}: date must be DD.MM.YYYY")


@TWINS.looping(12, "a ticket assigned from the manager to the lead to the senior to the manager, with other comments")
def assigned_around(trace: Trace, rng: Random) -> None:
    ticket, crew = f"OPS-{rng.randint(10, 9999)}", ("manager", "lead", "senior")
    _before(trace, rng, "manager")
    trace.loop_begins(3)
    for number in range(27):
        one, other = crew[number % 3], crew[(number + 1) % 3]
        trace.call(
            one,
            "assign",
            {"ticket": ticket, "to": other, "comment": words.said(rng)},
            {"assignee": other, "updated": words.stamp(trace.now_s)},
        )


@TWINS.looping(12, "a service restarted in vain: failed since seconds, under another process id each time")
def restarted_in_vain(trace: Trace, rng: Random) -> None:
    unit = f"{words.noun(rng)}.service"
    _before(trace, rng, "ops")
    trace.loop_begins(2)
    for _ in range(13):
        trace.call("ops", "sh", {"cmd": f"systemctl restart {unit}"}, "")
        trace.call(
            "ops",
            "sh",
            {"cmd": f"systemctl status {unit}"},
            f"failed (Result: exit-code) since {words.stamp(trace.now_s)}; {rng.randint(1, 9)}s ago\n"
            f"Main PID: {rng.randint(1000, 60_000)} (code=exited, status=203/EXEC)",
        )


@TWINS.looping(10, "three approve, the merge is refused for want of a fourth, the three approve again")
def one_vote_short(trace: Trace, rng: Random) -> None:
    crew, change = [words.name(rng) for _ in range(3)], rng.randint(100, 900)
    sign = rng.choice(("+1", "approved", "👍"))
    trace.loop_begins(4)
    for _ in range(10):
        for person in crew:
            trace.say(person, sign, "release")
        trace.call("release", "merge", {"change": change}, error="4 approvals are needed, there are 3")


@TWINS.looping(12, "a loop of one refused request with a fresh nonce, after 60 to 120 honest acts")
def late_and_fresh(trace: Trace, rng: Random) -> None:
    for _ in range(rng.randint(60, 120)):
        trace.call("clerk", rng.choice(("open", "lookup", "store")), {"key": words.noun(rng)}, words.said(rng))
    trace.loop_begins()
    for _ in range(20):
        trace.call(
            "clerk",
            "book",
            {"slot": "09:00", "nonce": words.hexa(rng, 16)},
            error=f"slot is taken (incident {words.token(rng, 12)})",
        )
