"""The second set, part three: honest runs that come close to a loop, and loops that come close to honest runs.

In: a random generator. Out: traces.
"""

from random import Random

from tests.health_set import second_words as words
from tests.health_set.second_words import Paced as Trace
from tests.health_set.sets import SECOND


@SECOND.honest(30, "a look into each day of a sparse calendar: many days are empty, some are not")
def sparse_days(rng: Random) -> Trace:
    trace = Trace(rng, timed=rng.random() < 0.6)
    for day in range(1, rng.randint(20, 31)):
        found = [words.sentence(rng)] if rng.random() < 0.2 else []
        trace.call("archivist", "events_of", {"date": f"2026-10-{day:02d}"}, found)
    trace.say("archivist", words.paragraph(rng))
    return trace.ends()


@SECOND.honest(25, "a thought, then a look at a job that runs, with pauses that grow, until it is done")
def thoughtful_polling(rng: Random) -> Trace:
    trace, pause = Trace(rng), rng.uniform(2, 6)
    for _ in range(rng.randint(4, 9)):
        trace.say("runner", words.sentence(rng), pause=pause)
        trace.call("runner", "job", {"id": "J-77"}, {"state": "RUNNING"}, pause=1)
        pause *= 1.7
    trace.call("runner", "job", {"id": "J-77"}, {"state": "DONE"}, pause=pause)
    return trace.ends()


@SECOND.honest(25, "one draft shown to many reviewers, each receipt the same")
def many_reviewers(rng: Random) -> Trace:
    trace, draft = Trace(rng, timed=rng.random() < 0.6), words.paragraph(rng, 4, 7)
    crew = rng.sample(words.PEOPLE, rng.randint(5, 12))
    for person in crew:
        trace.call("editor", "send_draft", {"to": person, "draft": draft}, "received")
    for person in crew:
        trace.say(person, words.sentence(rng), "editor")
    trace.call("editor", "publish", {"draft": words.paragraph(rng)}, "published")
    return trace.ends()


@SECOND.honest(25, "a report saved after every paragraph that is added: the whole text each time, always `saved`")
def autosave(rng: Random) -> Trace:
    trace, text = Trace(rng, timed=rng.random() < 0.6), words.paragraph(rng)
    for _ in range(rng.randint(8, 16)):
        text += "\n" + words.paragraph(rng, 3, 6)
        trace.call("writer", "save", {"name": "report.md", "text": text}, "saved")
    return trace.ends()


@SECOND.honest(25, "sub-agents for different parts; some fail alike, are started once more, and succeed")
def second_try_of_parts(rng: Random) -> Trace:
    trace = Trace(rng, timed=rng.random() < 0.6)
    for number in range(rng.randint(5, 12)):
        part = words.sentence(rng)
        for attempt in range(rng.choice((1, 1, 2))):
            name = f"sub-{number}-{attempt}"
            trace.call("lead", "spawn", {"part": part, "name": name}, {"started": name})
            if attempt == 0 and rng.random() < 0.4:
                trace.call(name, "fetch", {"of": part}, error="timeout after 20 s")
                trace.say(name, "I ran into a timeout.", "lead")
            else:
                trace.call(name, "fetch", {"of": part}, words.paragraph(rng))
                trace.say(name, words.paragraph(rng), "lead")
    return trace.ends()


@SECOND.honest(25, "a dashboard read every minute: one number, which sometimes stays")
def dashboard(rng: Random) -> Trace:
    trace, load = Trace(rng), rng.randint(40, 90)
    for _ in range(rng.randint(15, 40)):
        trace.call("operator", "read_gauge", {"name": "load"}, f"{load} %", pause=rng.choice((10, 15, 60)))
        load += rng.choice((-3, -1, -1, 0, 1, 1, 4))
    return trace.ends()


@SECOND.honest(25, "a long essay thought through aloud: arguments, doubts, turns; no tool at all")
def essay(rng: Random) -> Trace:
    trace = Trace(rng, timed=rng.random() < 0.6)
    for _ in range(rng.randint(6, 18)):
        trace.say("essayist", words.paragraph(rng, 3, 9))
    return trace.ends()


@SECOND.looping(20, "a search and an opened page again and again, each under a new plan in other words")
def replanned(rng: Random) -> Trace:
    trace, url = Trace(rng, timed=rng.random() < 0.6), f"https://x.example/{words.token(rng, 6)}"
    page = words.paragraph(rng)
    what = {"q": words.query(rng)}
    for _ in range(rng.randint(0, 6)):
        trace.call("agent", "search", {"q": words.query(rng)}, words.paragraph(rng))
    trace.loop_begins(3)
    for _ in range(9):
        trace.say("agent", f"New plan: {words.sentence(rng)}")
        trace.call("agent", "search", what, [{"url": url, "score": 0.91}])
        trace.call("agent", "open", {"url": url}, page)
    return trace.ends()


@SECOND.looping(20, "a fresh helper for the same part each time, named after a person, which answers the same")
def helpers(rng: Random) -> Trace:
    trace, part = Trace(rng, timed=rng.random() < 0.6), words.sentence(rng)
    answer = f"No access to {rng.choice(words.PLACES)}."
    trace.loop_begins(2)
    for person in rng.sample(words.PEOPLE, 12):
        trace.say("lead", f"Please look into this: {part}", person)
        trace.say(person, answer, "lead")
    return trace.ends()


@SECOND.looping(20, "one search by a model that thinks for ten seconds to two minutes; nothing is ever found")
def slow_and_stuck(rng: Random) -> Trace:
    trace, what = Trace(rng), {"q": words.query(rng), "page": 1}
    for _ in range(rng.randint(0, 4)):
        trace.call(
            "agent", "search", {"q": words.query(rng), "page": 1}, words.paragraph(rng), pause=rng.uniform(10, 120)
        )
    trace.loop_begins()
    for _ in range(12):
        trace.call("agent", "search", what, {"hits": [], "took_ms": rng.randint(2, 900)}, pause=rng.uniform(10, 120))
    return trace.ends()


@SECOND.looping(20, "a failing payment tried again; the message has a fresh reference, the arguments a fresh key")
def declined(rng: Random) -> Trace:
    trace, cents = Trace(rng, timed=rng.random() < 0.6), rng.randint(100, 99999)
    trace.call("cashier", "cart", {}, {"total_cents": cents})
    trace.loop_begins()
    for _ in range(12):
        trace.call(
            "cashier",
            "charge",
            {"cents": cents, "idempotency_key": words.uuid(rng)},
            error=f"card declined (ref {words.token(rng, 12)}, {words.stamp(trace.now_s)})",
        )
    return trace.ends()


@SECOND.looping(15, "two agents confirm to each other that they have received the confirmation (a round: ten messages)")
def confirmations(rng: Random) -> Trace:
    trace = Trace(rng, timed=rng.random() < 0.6)
    trace.call("a", "send_contract", {"id": rng.randint(1, 99)}, "sent")
    forms = (
        "Received, thank you.",
        "I confirm receipt of your receipt.",
        "Noted with thanks.",
        "Confirmed on our side.",
        "Acknowledged.",
        "Your acknowledgement has reached us.",
        "We hereby confirm.",
        "All good here, confirmed.",
    )
    trace.loop_begins(10)
    for number in range(70):
        trace.say("ab"[number % 2], rng.choice(forms), "ba"[number % 2])
    return trace.ends()
