"""Looping runs of several agents. In: a random generator. Out: traces that say where the first round begins.

A round of a ring is once around it. Where agents only talk and never say the same to the letter, a round is ten
messages: somebody looking on would have interfered after forty without any work.
"""

from random import Random

from tests.health_set.runs import words
from tests.health_set.runs.loops_alone import some_call
from tests.health_set.runs.traces import Trace
from tests.health_set.sets import DAILY

ROUNDS = 14
TALK = 10
PASSES = words.TEXTS["passes"]
VAGUE = words.TEXTS["vague"]


def before(trace: Trace, rng: Random) -> None:
    """A little work first."""
    for _ in range(rng.randint(0, 6)):
        trace.call("a0", "search", {"q": words.query(rng)}, words.paragraph(rng))


@DAILY.looping(24, "a ring of two to seven agents hands one task around in the same words")
def ring_of_texts(trace: Trace, rng: Random) -> None:
    size, task = rng.randint(2, 7), words.sentence(rng)
    before(trace, rng)
    trace.loop_begins(size)
    for number in range(size * 8):
        trace.say(f"a{number % size}", f"Please take care of this: {task}", f"a{(number + 1) % size}")


@DAILY.looping(24, "a ring of two to seven agents, each looks something up and hands on")
def ring_with_calls(trace: Trace, rng: Random) -> None:
    size = rng.randint(2, 7)
    before(trace, rng)
    calls, same = [some_call(rng) for _ in range(size)], rng.random() < 0.5
    texts = [words.sentence(rng) for _ in range(size)]
    trace.loop_begins(2 * size)
    for number in range(size * 8):
        trace.call(f"a{number % size}", *calls[0 if same else number % size])
        trace.say(f"a{number % size}", texts[number % size], f"a{(number + 1) % size}")


@DAILY.looping(
    20, "a ring whose hand-overs are calls (`transfer_to_...`), without arguments, with a reason or a fresh id"
)
def transfers(trace: Trace, rng: Random) -> None:
    names = ["triage", "sales", "support", "billing"][: rng.randint(2, 4)]
    before(trace, rng)
    way, reason = rng.choice(("nothing", "reason", "fresh")), words.sentence(rng)
    trace.loop_begins(len(names))
    for number in range(len(names) * 9):
        other = names[(number + 1) % len(names)]
        arguments = {"nothing": {}, "reason": {"reason": reason}, "fresh": {"handoff_id": words.uuid(rng)}}[way]
        trace.call(names[number % len(names)], f"transfer_to_{other}", arguments, {"assistant": other})


@DAILY.looping(20, "a ring passes the task on in ever other words (a round: ten messages)")
def worded_ring(trace: Trace, rng: Random) -> None:
    size = rng.randint(2, 7)
    before(trace, rng)
    trace.loop_begins(TALK)
    for number in range(TALK * 7):
        trace.say(f"a{number % size}", rng.choice(PASSES), f"a{(number + 1) % size}")


@DAILY.looping(20, "a triangle talks of alignment, in both directions, and does nothing (a round: ten messages)")
def triangle(trace: Trace, rng: Random) -> None:
    before(trace, rng)
    trace.loop_begins(TALK)
    for number in range(TALK * 7):
        one = rng.randrange(3) if number % 2 else number % 3
        trace.say(f"a{one}", rng.choice(VAGUE), f"a{(one + rng.choice((1, 2))) % 3}")


@DAILY.looping(20, "a checker sends the same draft back for the same reason, in other words each time")
def reject_ping_pong(trace: Trace, rng: Random) -> None:
    draft = words.paragraph(rng, 4, 6)
    before(trace, rng)
    remarks = (
        "A citation is missing.",
        "There is still no citation.",
        "Please cite your source.",
        "Source?",
        "I cannot accept this without a citation.",
        "Rejected: uncited claim.",
        "Cite it, please.",
        "No source given.",
    )
    worded = rng.random() < 0.5
    trace.loop_begins(3)
    for number in range(10):
        trace.call("a0", "submit", {"draft": draft}, "submitted")
        trace.say("a0", "I have improved the draft.", "a1")
        trace.say("a1", remarks[number % len(remarks)] if worded else remarks[0], "a0")


@DAILY.looping(15, "one question and one answer between two agents, to the letter, with a look-up in between")
def question_again(trace: Trace, rng: Random) -> None:
    question, answer = words.sentence(rng), words.sentence(rng)
    before(trace, rng)
    call = some_call(rng)
    trace.loop_begins(3)
    for _ in range(9):
        trace.say("a0", question, "a1")
        trace.call("a1", *call)
        trace.say("a1", answer, "a0")


@DAILY.looping(20, "one agent loops while another of the same task works on (rounds count the acts of both)")
def beside_honest_work(trace: Trace, rng: Random) -> None:
    period = rng.randint(1, 3)
    before(trace, rng)
    calls = [some_call(rng) for _ in range(period)]
    trace.loop_begins(2 * period)
    for _ in range(9):
        for call in calls:
            trace.call("looper", *call)
            trace.call("worker", "read_file", {"path": words.path(rng)}, words.document(rng, 4))


@DAILY.looping(15, "the same search by one agent after the other, each told by the last one to do it")
def passed_search(trace: Trace, rng: Random) -> None:
    size, call = rng.randint(3, 5), some_call(rng)
    before(trace, rng)
    trace.loop_begins(2 * size)
    for number in range(size * 8):
        trace.call(f"a{number % size}", *call)
        trace.say(f"a{number % size}", f"Nothing. Can you search? ({words.uuid(rng)[:8]})", f"a{(number + 1) % size}")
