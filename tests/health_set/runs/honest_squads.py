"""Honest runs of several agents: discussions, delegation, reviews. In: a random generator. Out: traces."""

from itertools import pairwise
from random import Random

from tests.health_set.runs import words
from tests.health_set.runs.traces import Trace
from tests.health_set.sets import DAILY

# Said by hand, because sentences out of a form resemble each other more than those of a real discussion do.
DEBATE = words.TEXTS["debate"]
REVIEWS = words.TEXTS["reviews"]


def scripted(rng: Random, lines: tuple[str, ...]) -> list[str]:
    """The lines of a script with names and figures of this run, some left out."""
    place, place2 = rng.sample(words.PLACES, 2)
    person, person2 = rng.sample(words.PEOPLE, 2)
    facts = {
        "thing": rng.choice(words.THINGS),
        "place": place,
        "place2": place2,
        "person": person,
        "person2": person2,
        "n": rng.randint(12, 90),
        "n2": rng.randint(900, 9000),
    }
    return [line.format(**facts) for line in lines if rng.random() < 0.92]


@DAILY.honest(30, "two or three agents discuss, every message adds something, and they agree; now and then a look-up")
def converging_discussion(trace: Trace, rng: Random) -> None:
    names = ["ann", "ben", "cid"][: rng.randint(2, 3)]
    for number, line in enumerate(scripted(rng, DEBATE)):
        speaker = names[number % len(names)]
        if rng.random() < 0.25:
            trace.call(speaker, "look_up", {"q": words.query(rng)}, words.paragraph(rng))
        trace.say(speaker, line, names[(number + 1) % len(names)])
    trace.call(names[0], "write_file", {"path": "decision.md", "text": words.paragraph(rng)}, "written")


@DAILY.honest(25, "the same without any tool: talk alone, 12 to 17 messages, and a result", timed=0.5)
def debate_without_tools(trace: Trace, rng: Random) -> None:
    names = ["ann", "ben", "cid", "dot"][: rng.randint(2, 4)]
    for number, line in enumerate(scripted(rng, DEBATE)):
        trace.say(names[number % len(names)], line, names[(number + 1) % len(names)])
    trace.say(names[0], words.paragraph(rng))


@DAILY.honest(25, "two agents look for a date: one proposal after the other in nearly the same words, calendars asked")
def negotiation(trace: Trace, rng: Random) -> None:
    days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]
    slots = [(day, hour) for day in days for hour in range(9, 17)]
    for number, (day, hour) in enumerate(rng.sample(slots, rng.randint(4, 10))):
        one, other = ("kim", "lou")[:: 1 if number % 2 == 0 else -1]
        trace.call(one, "calendar", {"day": day, "hour": hour}, "free")
        trace.say(one, f"How about {day} at {hour}:00?", other)
        trace.call(other, "calendar", {"day": day, "hour": hour}, f"busy: {words.sentence(rng)[:40]}")
        trace.say(other, f"Sorry, {day} at {hour}:00 is taken.", one)
    trace.say("kim", "Then Saturday at 10:00, and we are done.", "lou")


@DAILY.honest(25, "a chain of delegation 4 to 9 deep; work is done at the end, the answer goes back up")
def deep_delegation(trace: Trace, rng: Random) -> None:
    names = [f"level-{n}" for n in range(rng.randint(4, 9))]
    task = words.sentence(rng)
    for one, other in pairwise(names):
        trace.say(one, f"{task} {words.sentence(rng)}", other)
        if rng.random() < 0.3:
            trace.call(one, "note", {"text": words.sentence(rng)}, "noted")
    for _ in range(rng.randint(2, 8)):
        trace.call(names[-1], "search", {"q": words.query(rng)}, words.paragraph(rng))
    answer = words.paragraph(rng)
    for other, one in pairwise(names[::-1]):
        trace.say(other, f"{answer} {words.sentence(rng)}", one)


@DAILY.honest(30, "a checker sends a draft back two to four times, each time for something else")
def review_rounds(trace: Trace, rng: Random) -> None:
    remarks = scripted(rng, REVIEWS)
    for remark in remarks[: rng.randint(2, 4)]:
        draft = words.paragraph(rng, 4, 8)
        trace.call("writer", "save_draft", {"text": draft}, "saved")
        trace.say("writer", "Here is my draft.", "checker")
        trace.say("checker", remark, "writer")
    trace.call("writer", "save_draft", {"text": words.paragraph(rng, 4, 8)}, "saved")
    trace.say("writer", "Here is my draft.", "checker")
    trace.say("checker", "Accepted.", "writer")


@DAILY.honest(25, "one agent thinks aloud for a while, always of something else, before it acts")
def thinking_aloud(trace: Trace, rng: Random) -> None:
    lines = scripted(rng, DEBATE)
    for _ in range(rng.randint(2, 4)):
        for line in [lines.pop(0) for _ in range(rng.randint(5, 7))] if len(lines) > 8 else range(rng.randint(3, 9)):
            trace.say("thinker", line if isinstance(line, str) else words.paragraph(rng))
        trace.call("thinker", "search", {"q": words.query(rng)}, words.paragraph(rng))


@DAILY.honest(20, "a book written chapter by chapter as text to nobody")
def long_writing(trace: Trace, rng: Random) -> None:
    for number in range(rng.randint(6, 14)):
        trace.say("author", f"Chapter {number + 1}\n\n{words.paragraph(rng, 8, 16)}")
        if rng.random() < 0.3:
            trace.call("author", "save", {"chapter": number + 1}, "ok")


@DAILY.honest(20, "a planner, a coder and a tester hand over in turns; each turn has work in it")
def triangle_with_work(trace: Trace, rng: Random) -> None:
    for number in range(rng.randint(4, 10)):
        trace.say("planner", f"Please build feature {number + 1}: {words.sentence(rng)}", "coder")
        for _ in range(rng.randint(1, 4)):
            trace.call("coder", "edit", {"path": words.path(rng), "new": words.sentence(rng)}, "edited")
        trace.say("coder", f"Feature {number + 1} is ready to be tested. {words.sentence(rng)}", "tester")
        trace.call("tester", "run_tests", {}, f"{20 + number} passed")
        trace.say("tester", f"Feature {number + 1} passes.", "planner")


@DAILY.honest(20, "an interview: short questions, short and different answers, no tools")
def interview(trace: Trace, rng: Random) -> None:
    for _ in range(rng.randint(5, 10)):
        trace.say("interviewer", f"And the {rng.choice(words.FIELDS)} in {rng.choice(words.PLACES)}?", "expert")
        trace.say("expert", words.sentence(rng), "interviewer")
    trace.call("interviewer", "write_file", {"path": "interview.md", "text": words.paragraph(rng)}, "written")
