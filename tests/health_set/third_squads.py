"""The third set, part three: squads. Supervisors, group chats, ledgers, delegations, rings, hand-overs, reviews, votes.

In: a random generator. Out: traces. Styled after LangGraph, AutoGen, Magentic-One, CrewAI and support desks.
"""

from random import Random

from tests.health_set import third_words as words
from tests.health_set.sets import THIRD
from tests.health_set.third_words import Ticking as Trace

TALK = 10
"""Messages of a round where texts are ever new and nobody acts: the sets before count alike."""


def _timed(rng: Random) -> bool:
    return rng.random() < 0.6


def _handed(trace: Trace, one: str, other: str) -> None:
    trace.call(one, f"transfer_to_{other}", {}, f"Successfully transferred to {other}")


@THIRD.honest(16, "a supervisor: transfer, work, transfer back; the transfers are always the same, the work is not")
def supervised(rng: Random) -> Trace:
    trace, crew = Trace(rng, timed=_timed(rng)), ["researcher", "coder", "charter"][: rng.randint(1, 3)]
    for _ in range(rng.randint(4, 9)):
        name = rng.choice(crew)
        _handed(trace, "supervisor", name)
        for _ in range(rng.randint(1, 3)):
            trace.call(name, "tavily_search", {"query": words.phrase(rng)}, words.talk(rng))
        trace.say(name, words.talk(rng))
        _handed(trace, name, "supervisor")
    trace.say("supervisor", words.talk(rng))
    return trace.ends()


@THIRD.honest(16, "a chat of coder, executor and critic: code fails for one reason after the other, then runs")
def group_chat(rng: Random) -> Trace:
    trace, reasons = Trace(rng, timed=_timed(rng)), rng.sample(words.THINGS, rng.randint(2, 6))
    for reason in reasons:
        trace.say("coder", f"```python\n{words.code(rng, 6)}\n```", "manager")
        trace.call(
            "executor", "run_code", {"code": words.code(rng, 6)}, error=f"NameError: name '{reason}' is not defined"
        )
        trace.say("critic", words.line(rng), "manager")
    trace.call("executor", "run_code", {"code": words.code(rng, 6)}, "exitcode: 0 (execution succeeded)")
    trace.say("critic", "TERMINATE", "manager")
    return trace.ends()


@THIRD.honest(16, "an orchestrator that writes one ledger before each turn: not done, no loop, who is next, what to do")
def progress_ledger(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    for number in range(rng.randint(5, 12)):
        name = rng.choice(("WebSurfer", "FileSurfer", "Coder"))
        order = words.line(rng)
        ledger = (
            "is_request_satisfied: false\nis_in_loop: false\nis_progress_being_made: true\n"
            f"next_speaker: {name}\ninstruction: {order}"
        )
        trace.call("Orchestrator", "write_ledger", {"ledger": ledger}, {"turn": number + 1})
        trace.say("Orchestrator", order, name)
        trace.call(name, rng.choice(("visit", "open_path", "python")), {"what": words.phrase(rng)}, words.talk(rng))
        trace.say(name, words.talk(rng), "Orchestrator")
    return trace.ends()


@THIRD.honest(16, "a review: changes are asked for, pushed, checked; each round of something else; approved")
def review_that_ends(rng: Random) -> Trace:
    trace, change = Trace(rng, timed=_timed(rng)), rng.randint(100, 9000)
    for _ in range(rng.randint(3, 7)):
        trace.call("author", "push", {"branch": f"pr-{change}", "diff": words.code(rng)}, "pushed")
        trace.call("ci", "run_checks", {"pr": change}, "all checks passed")
        trace.call(
            "reviewer", "review", {"pr": change, "state": "changes_requested", "body": words.talk(rng)}, "submitted"
        )
        trace.say("author", words.line(rng), "reviewer")
    trace.call("reviewer", "review", {"pr": change, "state": "approved", "body": "LGTM"}, "submitted")
    return trace.ends()


@THIRD.honest(14, "stories estimated by four: bare numbers, sometimes a second round, each story's sum recorded")
def estimating(rng: Random) -> Trace:
    trace, crew = Trace(rng, timed=_timed(rng)), rng.sample(words.CREW, 4)
    for _ in range(rng.randint(3, 5)):
        story = words.phrase(rng)
        trace.call("lead", "show_story", {"text": story}, "shown")
        for _ in range(rng.choice((1, 1, 2))):
            for name in crew:
                trace.say(name, str(rng.choice((2, 3, 5, 8))), "lead")
        trace.call("lead", "record", {"story": story, "points": rng.choice((3, 5))}, "recorded")
    return trace.ends()


@THIRD.honest(
    14, "translator, editor and proofreader in a ring, document after document, handed on in the same few words"
)
def editorial_ring(rng: Random) -> Trace:
    trace, crew = Trace(rng, timed=_timed(rng)), ("translator", "editor", "proofreader")
    for number in range(rng.randint(4, 9)):
        for at, name in enumerate(crew):
            trace.call(name, "load", {"document": f"doc-{number}", "stage": at}, words.talk(rng, 3, 5))
            trace.call(
                name, "save", {"document": f"doc-{number}", "stage": at + 1, "text": words.talk(rng, 3, 5)}, "saved"
            )
            trace.say(
                name,
                f"doc-{number} is yours." if at < 2 else f"doc-{number} is finished, next please.",
                crew[(at + 1) % 3],
            )
    return trace.ends()


@THIRD.honest(14, "changes merged one by one, each after three approvals that consist of `+1`")
def plus_ones(rng: Random) -> Trace:
    trace, crew = Trace(rng, timed=_timed(rng)), rng.sample(words.CREW, 3)
    for number in range(rng.randint(5, 9)):
        trace.call("release", "show_diff", {"change": 400 + number}, words.code(rng, 5))
        for name in crew:
            trace.say(name, "+1", "release")
        trace.call("release", "merge", {"change": 400 + number}, "merged")
    return trace.ends()


@THIRD.honest(16, "one customer handed from desk to desk and back; every desk finds or does something")
def desk_to_desk(rng: Random) -> Trace:
    trace, order = Trace(rng, timed=_timed(rng)), f"#W{rng.randint(10**6, 10**7)}"
    desks = ("triage", "billing", "shipping", "returns")
    at = "triage"
    for _ in range(rng.randint(4, 9)):
        trace.call(
            at,
            rng.choice(("get_order", "get_invoice", "track", "get_notes")),
            {"order": order},
            {"order": order, "note": words.line(rng)},
        )
        if rng.random() < 0.5:
            trace.say(at, words.talk(rng), "customer")
            trace.say("customer", words.line(rng), at)
        following = rng.choice([desk for desk in desks if desk != at])
        _handed(trace, at, following)
        at = following
    trace.call(at, "close_case", {"order": order}, "closed")
    return trace.ends()


@THIRD.honest(16, "a traveller and a desk: reservations read one by one, dates without flights, `yes` again and again")
def travel_desk(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    trace.say("traveller", words.talk(rng), "desk")
    trace.call("desk", "get_user_details", {"user_id": f"mia_{rng.randint(1000, 9999)}"}, {"reservations": 5})
    for _ in range(rng.randint(2, 5)):
        trace.call("desk", "get_reservation_details", {"id": words.token(rng, 6).upper()}, {"seats": words.phrase(rng)})
    for _ in range(rng.randint(2, 4)):
        for day in rng.sample(range(10, 29), rng.randint(1, 4)):
            found = [] if rng.random() < 0.5 else [{"flight": f"HAT{rng.randint(100, 300)}", "free": rng.randint(1, 9)}]
            asked = {"origin": "JFK", "destination": "SEA", "date": f"2026-05-{day}"}
            trace.call("desk", "search_direct_flight", asked, found)
        trace.say("desk", f"{words.line(rng)} Do you want me to go on (yes/no)?", "traveller")
        trace.say("traveller", "yes", "desk")
        trace.call("desk", "update_reservation", {"change": words.phrase(rng)}, {"status": "updated"})
    trace.say("traveller", "###STOP###", "desk")
    return trace.ends()


@THIRD.honest(14, "a pair debugs: short questions with facts in the answers, a look between")
def pair(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    for _ in range(rng.randint(4, 9)):
        trace.say("driver", f"What do you see in {words.module(rng)}?", "navigator")
        trace.call("navigator", "open", {"path": words.module(rng)}, words.listing(rng))
        trace.say("navigator", words.line(rng), "driver")
        trace.call("driver", "edit", {"path": words.module(rng), "text": words.code(rng)}, "ok")
    return trace.ends()


@THIRD.alike(
    14, "one announcement posted to many channels, each with its name in it and a receipt that differs a little"
)
def announcements(rng: Random) -> Trace:
    trace, body = Trace(rng, timed=_timed(rng)), words.talk(rng, 4, 6)
    for town in rng.sample(words.TOWNS, rng.randint(9, 16)):
        trace.call(
            "herald",
            "post",
            {"channel": f"#{town.lower()}", "text": f"Dear colleagues in {town}! {body}"},
            f"Posted in #{town.lower()}: {body} Seen by {rng.choice(words.CREW)} and {rng.choice(words.CREW)}.",
        )
    return trace.ends()


@THIRD.alike(
    14, "the page of an outage written anew every half hour in nearly the same words; the state of things moves"
)
def status_page(rng: Random) -> Trace:
    trace, body = Trace(rng), words.talk(rng, 4, 5)
    for stage in rng.sample(sorted(set(words.THINGS)), rng.randint(9, 14)):
        text = f"{body} We are now looking at the {stage}."
        trace.call(
            "comms",
            "publish",
            {"page": "status", "text": text},
            f"Published: {text} Next look: {rng.choice(words.CREW)}.",
            pause=1800 + rng.uniform(-60, 60),
        )
    return trace.ends()


# Around and around.


@THIRD.looping(12, "a supervisor that does not see the answer: transfer, the same look, the same answer, transfer back")
def supervisor_forgets(rng: Random) -> Trace:
    trace, asked, found = Trace(rng, timed=_timed(rng)), {"query": words.phrase(rng)}, words.talk(rng)
    fresh = rng.random() < 0.5
    trace.loop_begins(4)
    for _ in range(9):
        _handed(trace, "supervisor", "retrieval")
        trace.call("retrieval", "account_search", asked | ({"call_id": words.uuid(rng)} if fresh else {}), found)
        trace.say("retrieval", found, "supervisor")
        _handed(trace, "retrieval", "supervisor")
    return trace.ends()


@THIRD.looping(12, "transfer to an agent, transfer back, transfer to the agent: nobody does anything")
def back_and_forth(rng: Random) -> Trace:
    trace, other = Trace(rng, timed=_timed(rng)), rng.choice(("math_expert", "writer", "booker"))
    for _ in range(rng.randint(0, 3)):
        trace.call(other, "search", {"query": words.phrase(rng)}, words.talk(rng))
    trace.loop_begins(2)
    for _ in range(14):
        _handed(trace, "supervisor", other)
        _handed(trace, other, "supervisor")
    return trace.ends()


@THIRD.looping(12, "work delegated to a coworker, who delegates it back; the context is worded anew each time")
def delegated_back(rng: Random) -> Trace:
    trace, task = Trace(rng, timed=_timed(rng)), words.phrase(rng)
    for _ in range(rng.randint(0, 4)):
        trace.call("writer", "search", {"q": words.phrase(rng)}, words.talk(rng))
    trace.loop_begins(2)
    for _ in range(12):
        for one, other in (("writer", "researcher"), ("researcher", "writer")):
            trace.call(
                one,
                "delegate_work_to_coworker",
                {"task": task, "coworker": other, "context": words.line(rng)},
                f"{other} has accepted the task.",
            )
    return trace.ends()


GRATEFUL = (
    "You are welcome!",
    "Thank you, team.",
    "Great work, everyone.",
    "Glad I could help.",
    "It was a pleasure.",
    "Looking forward to the next project.",
    "Thanks for the kind words!",
    "Likewise, have a great day!",
    "Congratulations to all of us.",
    "Feel free to reach out any time.",
    "Wonderful cooperation.",
    "Cheers!",
)


@THIRD.looping(12, "a chat of three to five that has done its work and congratulates itself (a round: ten messages)")
def congratulations(rng: Random) -> Trace:
    trace, size = Trace(rng, timed=_timed(rng)), rng.randint(3, 5)
    for number in range(rng.randint(2, 6)):
        trace.call(f"a{number % size}", "run_code", {"code": words.code(rng)}, "exitcode: 0")
    trace.loop_begins(TALK)
    for number in range(7 * TALK):
        trace.say(
            f"a{number % size}",
            " ".join(rng.sample(GRATEFUL, rng.randint(1, 3))),
            "manager" if size > 3 else f"a{(number + 1) % size}",
        )
    return trace.ends()


@THIRD.looping(12, "an automatic reply that asks to go on or say why not; the solution is told once more")
def reply_continue(rng: Random) -> Trace:
    trace, solution = Trace(rng, timed=_timed(rng)), words.talk(rng, 3, 5)
    trace.loop_begins(2)
    for _ in range(12):
        trace.say("user_proxy", "Reply CONTINUE, or the reason why the task is not solved yet.", "solver")
        trace.say(
            "solver",
            f"{rng.choice(('CONTINUE.', 'The task is solved.', 'As shown:', 'To repeat:'))} {solution}",
            "user_proxy",
        )
    return trace.ends()


@THIRD.looping(12, "an empty answer and a nudge, an empty answer and a nudge")
def nudged(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    for _ in range(rng.randint(1, 6)):
        trace.call("agent", "search", {"q": words.phrase(rng)}, words.talk(rng))
    trace.loop_begins(2)
    for _ in range(14):
        trace.say("agent", "(empty)", "harness")
        trace.say("harness", "Your last response did not include a function call or a message. Please go on.", "agent")
    return trace.ends()


@THIRD.looping(12, "a planner that gives the same plan in other words, an executor that fails at its first step")
def same_plan_anew(rng: Random) -> Trace:
    trace, (a, b, c) = Trace(rng, timed=_timed(rng)), rng.sample(words.TOWNS, 3)
    first = rng.choice(("Collect", "Gather", "Fetch"))
    forms = (
        f"1. {first} the timetable of {a}. 2. Compare it with {b}. 3. Tell {c}.",
        f"First get hold of the times in {a}; next, hold them against {b}'s; finally inform {c}.",
        f"Plan: timetable ({a}), comparison ({b}), message ({c}).",
        f"We begin with {a}'s departures. Once we have them we look at {b}. {c} is told at the end.",
        f"Step one is {a}, step two the differences to {b}, step three a note to {c}.",
    )
    trace.loop_begins(3)
    for number in range(11):
        trace.say("planner", forms[number % len(forms)], "executor")
        trace.call("executor", "timetable", {"town": a}, error="permission denied for table departures")
        trace.say(
            "executor", rng.choice(("Step 1 failed.", "I could not do the first step.", "No access, sorry.")), "planner"
        )
    return trace.ends()


@THIRD.looping(14, "a ring of seven: each claims the ticket with a fresh id and hands it on (a round: seven agents)")
def ring_of_seven(rng: Random) -> Trace:
    trace, ticket, size = Trace(rng, timed=_timed(rng)), rng.randint(1000, 9999), 7
    names, said, told = rng.sample(words.CREW, size), words.line(rng), rng.random() < 0.6
    for _ in range(rng.randint(0, 6)):
        trace.call(names[0], "search", {"q": words.phrase(rng)}, words.talk(rng))
    trace.loop_begins(size * (2 if told else 1))
    for number in range(size * 7):
        name = names[number % size]
        trace.call(name, "claim", {"ticket": ticket, "handover_id": words.uuid(rng)}, {"owner": name, "hop": number})
        if told:
            trace.say(name, said, names[(number + 1) % size])
    return trace.ends()


@THIRD.looping(14, "three desks: each looks the order up and passes the customer on, in ever other words")
def three_desks(rng: Random) -> Trace:
    trace, order = Trace(rng, timed=_timed(rng)), {"order": f"#W{rng.randint(10**6, 10**7)}"}
    found, desks = {"status": "lost in transit", "carrier": rng.choice(words.TOWNS)}, ("triage", "billing", "shipping")
    trace.loop_begins(6)
    for number in range(30):
        one, other = desks[number % 3], desks[(number + 1) % 3]
        trace.call(one, "get_order", order, found)
        trace.say(
            one,
            f"{rng.choice(('This is for', 'I believe that', 'Better ask', 'Over to', 'A case for'))} {other}. "
            f"{rng.choice(('Thanks!', 'Can you take it?', 'It is not ours.', 'We cannot do that here.'))}",
            other,
        )
    return trace.ends()


@THIRD.looping(12, "two mailboxes that are out of office answer each other, minutes apart, with a fresh number")
def out_of_office(rng: Random) -> Trace:
    trace, first = Trace(rng), rng.randint(10_000, 90_000)
    texts = (
        "Thank you for your mail. We are closed until Monday. Your case has the number {0}.",
        "I am out of the office and will answer when I am back. Reference: {0}.",
    )
    trace.loop_begins(2)
    for number in range(24):
        trace.say(
            ("desk", "buyer")[number % 2],
            texts[number % 2].format(first + number),
            ("buyer", "desk")[number % 2],
            pause=rng.uniform(40, 600),
        )
    return trace.ends()


@THIRD.looping(12, "a reviewer who wants tabs, then spaces, then tabs; the author does as told")
def tabs_and_spaces(rng: Random) -> Trace:
    trace, change = Trace(rng, timed=_timed(rng)), {"pr": rng.randint(100, 9000)}
    for _ in range(rng.randint(0, 2)):
        trace.call("author", "push", change | {"diff": words.code(rng)}, "pushed")
        trace.say("reviewer", words.line(rng), "author")
    diffs = (words.code(rng), words.code(rng))
    trace.loop_begins(4)
    for _ in range(10):
        for want, diff in zip(("tabs", "spaces"), diffs, strict=True):
            trace.say("reviewer", f"Please indent with {want}.", "author")
            trace.call("author", "push", change | {"diff": diff}, "pushed")
    return trace.ends()


@THIRD.looping(12, "a vote without a majority, held again and again: everybody votes as before")
def vote_again(rng: Random) -> Trace:
    trace, (a, b, c) = Trace(rng, timed=_timed(rng)), rng.sample(words.CREW, 3)
    trace.loop_begins(4)
    for number in range(12):
        trace.say("chair", f"Round {number + 1}: please vote for a route.", "all")
        for name, route in ((a, "north"), (b, "coast"), (c, "tunnel")):
            trace.say(name, f"I vote for the {route}.", "chair")
    return trace.ends()


@THIRD.looping(
    12, "two agents loop, each its own way (of two and of three acts), their acts in each other (a round: six)"
)
def two_loops(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    left = [("open", {"path": words.module(rng)}, words.listing(rng)) for _ in range(2)]
    right = [("search", {"q": words.phrase(rng)}, words.talk(rng)) for _ in range(3)]
    trace.loop_begins(6)
    for number in range(30):
        trace.call("left", *left[number % 2])
        trace.call("right", *right[number % 3])
    return trace.ends()


@THIRD.looping(12, "one act over and over while another agent now and then says what it has found (a round: two acts)")
def beside_news(rng: Random) -> Trace:
    trace, asked, found = Trace(rng, timed=_timed(rng)), {"q": words.phrase(rng)}, words.talk(rng)
    trace.loop_begins(2)
    for _ in range(20):
        trace.call("stuck", "search", asked, found)
        if rng.random() < 0.5:
            trace.say("busy", words.line(rng), "lead")
    return trace.ends()


@THIRD.looping(12, "one summary told to nobody again and again, with a word changed (a round: three texts)")
def resummarised(rng: Random) -> Trace:
    trace, text = Trace(rng, timed=_timed(rng)), words.talk(rng, 4, 5).split()
    for _ in range(rng.randint(1, 4)):
        trace.call("analyst", "run_cell", {"code": words.code(rng, 1)}, words.line(rng))
    trace.loop_begins(3)
    for _ in range(24):
        text[rng.randrange(len(text))] = rng.choice(words.KINDS)
        trace.say("analyst", f"Summary: {' '.join(text)}")
    return trace.ends()


@THIRD.looping(12, "a tool for thinking, called with nearly one thought; it answers with the number of the thought")
def numbered_thoughts(rng: Random) -> Trace:
    trace, thought = Trace(rng, timed=_timed(rng)), words.talk(rng, 2, 3)
    trace.loop_begins()
    for number in range(1, 22):
        trace.call(
            "agent",
            "sequentialthinking",
            {"thought": thought, "thoughtNumber": number, "totalThoughts": number + 1, "nextThoughtNeeded": True},
            {"thoughtNumber": number, "totalThoughts": number + 1, "nextThoughtNeeded": True},
        )
    return trace.ends()
