"""The sixth set, part four: loops of several agents, as users of squads reported them; and runs one could argue about.

In: a random generator. Out: traces: hand-overs, tickets, mail, reviews, controllers that fight each other.
"""

from random import Random

from tests.health_set import sixth_words as words
from tests.health_set.sets import SIXTH
from tests.health_set.sixth_words import Session, prelude, session

SOFTLY = (
    "As far as I can see",
    "Having looked at it",
    "From what I know",
    "To be honest",
    "On reflection",
    "In short",
    "I think",
    "After a closer look",
    "Looking at the request",
    "If I read this right",
)


@SIXTH.looping(
    8, "a supervisor hands over, the worker hands back at once; other words each time, the same two transfers"
)
def handed_over_and_back(rng: Random) -> Session:
    trace, worker = session(rng), rng.choice(("math_expert", "travel_agent", "sql_agent"))
    prelude(trace, "supervisor", 2, 5)
    trace.loop_begins(2)
    for _ in range(rng.randint(7, 12)):
        trace.call(
            "supervisor",
            f"transfer_to_{worker}",
            {"context": f"{rng.choice(SOFTLY)}, this is for the {worker}."},
            f"Successfully transferred to {worker}",
        )
        trace.call(
            worker,
            "transfer_back_to_supervisor",
            {"note": f"{rng.choice(SOFTLY)}, the supervisor decides."},
            "Successfully transferred back to supervisor",
        )
    return trace


@SIXTH.looping(
    8, "departments pass a ticket on in a ring of four to seven, each with a reason of its own; nobody works on it"
)
def ticket_on_its_round(rng: Random) -> Session:
    trace, ticket = session(rng, untimed=0.1), f"INC{rng.randrange(10**6, 10**7)}"
    ring = words.several(
        rng, ("network", "identity", "desktop", "cloud", "database", "vendor", "security", "mailteam"), 4, 7
    )
    prelude(trace, "frontdesk", 1, 3)
    trace.say("frontdesk", f"{ticket}: {words.sentence(rng)} Please look at it.", ring[0])
    reasons = (
        "this belongs to {}",
        "{} owns that component",
        "please assign it to {}",
        "we see nothing wrong, {} should check",
        "that is a matter for {}",
        "{} changed it last, over to them",
    )
    trace.loop_begins(len(ring))
    for _ in range(rng.randint(5, 7)):
        for place, one in enumerate(ring):
            other = ring[(place + 1) % len(ring)]
            trace.call(
                one,
                "ticket.assign",
                {
                    "ticket": ticket,
                    "to": other,
                    "comment": f"{rng.choice(SOFTLY)}, {rng.choice(reasons).format(other)}.",
                },
                {"ticket": ticket, "assigned_to": other, "at": trace.stamp()},
                pause=rng.uniform(60, 900),
            )
    return trace


@SIXTH.looping(
    8, "each agent makes a subordinate and gives it the whole task, which makes a subordinate and gives it the task"
)
def ever_deeper_delegation(rng: Random) -> Session:
    trace, task = session(rng), f"Write a short poem about {rng.choice(words.GOODS)}."
    trace.call("agent0", "read_task", {}, task)
    trace.loop_begins(1)
    for depth in range(rng.randint(9, 14)):
        opening = rng.choice(
            ("You are a subordinate expert.", "Act as a specialist.", "As my subordinate:", "Please take over:")
        )
        trace.call(
            f"agent{depth}",
            "call_subordinate",
            {"message": f"{opening} {task}", "reset": True},
            f"agent{depth + 1} started",
        )
    return trace


@SIXTH.looping(8, "two take leave of each other and do not leave: goodbye, take care, see you, goodbye")
def goodbyes(rng: Random) -> Session:
    trace = session(rng)
    one, other = words.several(rng, words.FIRST_NAMES, 2, 2)
    for _ in range(rng.randint(2, 4)):
        trace.say(one, words.text(rng, 1, 2), other)
        trace.say(other, words.text(rng, 1, 2), one)
    byes = (
        "Goodbye, {}!",
        "It was great talking to you, {}.",
        "Bye {}!",
        "You too, {}!",
        "Thanks {}!",
        "Likewise, {}!",
        "Take care, {}!",
        "Always a pleasure, {}.",
    )
    wishes = (
        "See you soon!",
        "Have a lovely day!",
        "Until next time!",
        "I look forward to our next talk.",
        "Stay well!",
        "Enjoy your evening!",
        "Talk to you later!",
        "Greet the others from me!",
    )
    trace.loop_begins(2)
    for _ in range(rng.randint(14, 22)):
        for speaker, hearer in ((one, other), (other, one)):
            trace.say(speaker, f"{rng.choice(byes).format(hearer)} {rng.choice(wishes)}", hearer)
    return trace


@SIXTH.looping(8, "three who must answer every mention acknowledge each other's acknowledgements")
def acknowledged_acknowledgements(rng: Random) -> Session:
    trace, crew = session(rng), words.several(rng, words.FIRST_NAMES, 3, 3)
    for one in crew:
        trace.say(one, f"Hi, I am {one} and look after {rng.choice(words.MODULES)}. {words.sentence(rng)}", "lead")
    thanks = (
        "Thanks @{}, noted.",
        "Got it @{}!",
        "Acknowledged, @{}.",
        "@{} thank you.",
        "Noted, @{}.",
        "Hi @{}, understood.",
    )
    ready = (
        "Standing by.",
        "Ready when you are.",
        "All clear on my side.",
        "I wait for the signal.",
        "Not starting yet.",
        "Standing by for the task.",
    )
    trace.loop_begins(3)
    for _ in range(rng.randint(9, 15)):
        for place, one in enumerate(crew):
            other = crew[(place + 1) % 3]
            trace.say(one, f"{rng.choice(thanks).format(other)} {rng.choice(ready)}", other)
    return trace


@SIXTH.looping(
    8, "a person has rejected it; two minutes later the same approval is asked for again, on a new card, rejected"
)
def rejected_and_asked_again(rng: Random) -> Session:
    trace, person = session(rng, untimed=0.1), words.person(rng)
    prelude(trace, "forms-agent")
    what = {"route": "filing", "quarter": "FY26Q2", "amount_eur": rng.randrange(1000, 90_000)}
    trace.loop_begins(2)
    for _ in range(rng.randint(6, 10)):
        card = f"apr_{words.digest(rng, 8)}"
        trace.call(
            "forms-agent", "request_approval", what, {"card": card, "state": "sent"}, pause=rng.uniform(100, 140)
        )
        trace.call(
            "forms-agent",
            "approval_result",
            {"card": card},
            {"card": card, "state": "rejected", "by": person},
            pause=rng.uniform(20, 400),
        )
    return trace


@SIXTH.looping(
    8, "one bot raises a version, another puts the template's version back; week after week, new pull requests"
)
def raised_and_put_back(rng: Random) -> Session:
    trace, pull = session(rng, untimed=0.1), rng.randrange(100, 900)
    action = rng.choice(("actions/checkout", "docker/login-action"))
    prelude(trace, "update-bot", 1, 3)
    trace.loop_begins(4)
    for _ in range(rng.randint(6, 9)):
        for bot, before, after in (("update-bot", "v6", "v7.0.1"), ("sync-bot", "v7.0.1", "v6")):
            pull += rng.randint(1, 9)
            trace.call(
                bot,
                "open_pr",
                {
                    "file": ".github/workflows/ci.yml",
                    "minus": f"uses: {action}@{before}",
                    "plus": f"uses: {action}@{after}",
                },
                {"pr": pull},
                pause=rng.uniform(1e5, 4e5),
            )
            trace.call(bot, "merge_pr", {"pr": pull}, {"merged": True, "sha": words.digest(rng, 7)}, pause=600)
    return trace


@SIXTH.looping(
    8, "a coordinator starts a worker for a task, it dies at the same import, and another is started: a new name each"
)
def workers_that_die_at_birth(rng: Random) -> Session:
    trace, task = session(rng), f"T-{rng.randrange(100, 999)}"
    prelude(trace, "coordinator", 1, 4)
    fault = f"ModuleNotFoundError: No module named '{rng.choice(words.MODULES)}_skill'"
    trace.loop_begins(2)
    for _ in range(rng.randint(7, 12)):
        worker = f"worker-{words.digest(rng, 6)}"
        trace.call("coordinator", "spawn", {"task": task, "executor": "coder", "name": worker}, {"spawned": worker})
        trace.call(worker, "start", {"task": task}, error=fault, pause=rng.uniform(1, 30))
    return trace


@SIXTH.looping(
    8, "the help desk confirms each mail, the absent one's mailbox answers each confirmation: tickets without end"
)
def absence_mails(rng: Random) -> Session:
    trace, person = session(rng, untimed=0.1), words.mail(rng)
    prelude(trace, "helpdesk", 1, 3)
    number, pause = rng.randrange(5000, 9000), rng.choice((5, 60, 300))
    trace.loop_begins(3)
    for _ in range(rng.randint(6, 10)):
        number += 1
        trace.say(
            person,
            "Automatic reply: I am out of the office until 3 December and will read your mail when I am back.",
            "helpdesk",
            pause=pause,
        )
        trace.call(
            "helpdesk",
            "ticket.create",
            {"from": person, "subject": f"Automatic reply: [#{number - 1}] received"},
            {"ticket": number},
        )
        trace.say(
            "helpdesk", f"[#{number}] Thank you for your message. We have opened a ticket and will be in touch.", person
        )
    return trace


@SIXTH.looping(8, "one adds machines for the latency, the other takes them away for the cost; up, down, up, down")
def scaling_up_and_down(rng: Random) -> Session:
    trace, service = session(rng, untimed=0), rng.choice(words.SERVICES)
    prelude(trace, "latency-agent", 1, 4)
    few, many = rng.randint(3, 5), rng.randint(8, 12)
    trace.loop_begins(4)
    for _ in range(rng.randint(6, 10)):
        trace.call(
            "latency-agent", "metrics.get", {"service": service, "metric": "p99_ms"}, round(rng.gauss(900, 8)), pause=60
        )
        trace.call("latency-agent", "scale", {"service": service, "replicas": many}, {"from": few, "to": many})
        trace.call(
            "cost-agent",
            "metrics.get",
            {"service": service, "metric": "cpu_percent"},
            round(rng.gauss(17, 1)),
            pause=240,
        )
        trace.call("cost-agent", "scale", {"service": service, "replicas": few}, {"from": many, "to": few})
    return trace


@SIXTH.looping(8, "a reviewer wants it this way, then that way, then this way again; the author does as told each time")
def review_without_a_mind(rng: Random) -> Session:
    trace, pull, path = session(rng), rng.randrange(100, 999), f"src/{rng.choice(words.MODULES)}.py"
    prelude(trace, "author", 1, 4)
    one, other = words.sentence(rng), words.sentence(rng)
    asks = (
        (
            "Please return early instead of nesting.",
            "An early return would read better here.",
            "Prefer a guard clause.",
        ),
        (
            "Please avoid early returns, keep one exit.",
            "One exit point is our style, no guard clauses.",
            "Nest this, please.",
        ),
    )
    trace.loop_begins(6)
    for _ in range(rng.randint(5, 8)):
        for ask, before, after in ((asks[0], one, other), (asks[1], other, one)):
            trace.say("reviewer", f"PR {pull}, {path}: {rng.choice(ask)}", "author")
            trace.call("author", "edit", {"path": path, "old": before, "new": after}, "ok")
            trace.call("author", "push", {"branch": f"pr-{pull}"}, {"sha": words.digest(rng, 7)})
    return trace


@SIXTH.looping(
    8, "three vote, one for each, and vote again with the same reasons in the same or in other words; no majority"
)
def votes_without_majority(rng: Random) -> Session:
    trace, options = session(rng), words.several(rng, words.SERVICES, 3, 3)
    reasons = [words.sentence(rng) for _ in options]
    for place, option in enumerate(options):
        trace.call(f"voter-{place}", "read_proposal", {"option": option}, words.text(rng, 2, 3))
    trace.loop_begins(4)
    for turn in range(1, rng.randint(7, 11)):
        for place, option in enumerate(options):
            trace.say(f"voter-{place}", f"{rng.choice(SOFTLY)}, I vote for {option}. {reasons[place]}", "chair")
        trace.call(
            "chair", "tally", {"round": turn}, {"result": "tie", "votes": dict.fromkeys(options, 1), "round": turn}
        )
    return trace


@SIXTH.looping(8, "buyer and seller say their one figure again in other words, and neither moves by a cent")
def haggling_without_moving(rng: Random) -> Session:
    trace, goods = session(rng), rng.choice(words.GOODS)
    bid, ask = rng.randint(50, 80), rng.randint(95, 140)
    prelude(trace, "buyer", 1, 3)
    trace.loop_begins(2)
    for _ in range(rng.randint(14, 22)):
        trace.say(
            "buyer",
            rng.choice(
                (
                    f"{rng.choice(SOFTLY)}, {bid} EUR for the {goods} is our limit.",
                    f"We remain at {bid} EUR for the {goods}.",
                    f"Our budget allows {bid} EUR for the {goods}, no more.",
                    f"Could you do the {goods} for {bid} EUR?",
                )
            ),
            "seller",
        )
        trace.say(
            "seller",
            rng.choice(
                (
                    f"{rng.choice(SOFTLY)}, {ask} EUR for the {goods} is our final price.",
                    f"The {goods} cost {ask} EUR, as said.",
                    f"We cannot go below {ask} EUR for the {goods}.",
                    f"I understand, yet {ask} EUR it is for the {goods}.",
                )
            ),
            "buyer",
        )
    return trace


@SIXTH.looping(
    8, "a caller's record is not found; asked to say name and birth date again, says them, not found, asked again"
)
def caller_not_found(rng: Random) -> Session:
    trace, name = session(rng, untimed=0.1), words.person(rng)
    born = f"{rng.randint(1, 28)} May {rng.randint(1940, 2000)}"
    trace.say("voice", "Welcome to the clinic. May I have your name and date of birth?", "caller", pause=1)
    trace.loop_begins(3)
    for _ in range(rng.randint(6, 9)):
        trace.say(
            "caller",
            rng.choice(
                (
                    f"{name}, {born}.",
                    f"It's {name}, born {born}.",
                    f"As I said: {name}, {born}.",
                    f"Yes. {name}. {born}.",
                )
            ),
            "voice",
            pause=rng.uniform(3, 6),
        )
        trace.call(
            "voice",
            "chart.lookup",
            {"name": name, "birth_date": born},
            error="no chart matches; ask the caller to check those two details",
            pause=1,
        )
        trace.say(
            "voice",
            rng.choice(
                (
                    "I could not find that. Could you check your name and date of birth?",
                    "Hm, no match. Could you repeat your name and date of birth for me?",
                    "Let me try once more: your name and date of birth, please?",
                )
            ),
            "caller",
            pause=1.5,
        )
    return trace


@SIXTH.looping(
    8, "a choice is put to the user, who chooses; the same choice is put to the user again, who chooses the same"
)
def choice_put_again(rng: Random) -> Session:
    trace, options = session(rng), words.several(rng, words.MODULES, 3, 3)
    prelude(trace, "wizard")
    trace.loop_begins(1)
    for number in range(rng.randint(6, 11)):
        trace.call(
            "wizard",
            "ask_user",
            {
                "question": rng.choice(("Which module shall I change?", "Which of the modules shall I change?")),
                "options": options,
                "request_id": words.uuid(rng),
            },
            {"answer": options[1], "answered_in_ms": rng.randint(900, 90_000), "n": number},
        )
    return trace


@SIXTH.looping(8, "writer and editor: warmer, please; cooler, please; draft after draft between two texts")
def warmer_and_cooler(rng: Random) -> Session:
    trace = session(rng)
    prelude(trace, "writer", 1, 4)
    rest = words.text(rng, 2, 4)
    warm, cool = f"Dear friends, we are so happy to tell you: {rest}", f"To whom it may concern. {rest}"
    trace.loop_begins(4)
    number = 1
    for _ in range(rng.randint(6, 9)):
        for draft, ask in (
            (warm, ("Too chatty, please be more formal.", "This should sound more formal.")),
            (cool, ("Too stiff, please be warmer.", "Could it be a little warmer?")),
        ):
            trace.call("writer", "save_draft", {"name": f"letter_v{number}", "text": draft}, "saved")
            trace.say("editor", rng.choice(ask), "writer")
            number += 1
    return trace


@SIXTH.alike(
    7, "one notice for twelve towns: the same words but for town, hall and date, asked for and written one by one"
)
def notice_per_town(rng: Random) -> Session:
    trace, body = session(rng), words.text(rng, 2, 3)
    for town in words.several(rng, words.CITIES, 9, 12):
        trace.call(
            "writer",
            "draft",
            {"prompt": f"Write the notice for {town}. {body}"},
            f"Citizens of {town}! {body} We meet in the hall of {town} on the {rng.randint(2, 28)}th.",
        )
    return trace.ends()


@SIXTH.alike(7, "the same interview with personas that a model plays: the same question, much the same answers")
def personas_interviewed(rng: Random) -> Session:
    trace, question = session(rng), f"What do you think when you hear this: {words.sentence(rng)}"
    wish = words.sentence(rng)
    for name in words.several(rng, words.FIRST_NAMES, 7, 10):
        trace.say("interviewer", f"{name}, {question[0].lower()}{question[1:]}", name)
        trace.say(name, f"I am {name}, {rng.randint(19, 80)} years old. It would matter to me. {wish}", "interviewer")
        trace.call(
            "interviewer", "codebook.add", {"person": name, "code": rng.choice(("matters", "matters a lot"))}, "ok"
        )
    return trace.ends()


@SIXTH.alike(7, "a search in other words brings one hit more each time, among the old ones; is that still worth it?")
def one_hit_more(rng: Random) -> Session:
    trace, thing, hits = session(rng), f"{rng.choice(words.FIRMS)} {rng.choice(words.MODULES)}", [words.sentence(rng)]
    forms = (
        "{} history",
        "history of {}",
        "{} history in short",
        "the history of {}",
        "{} history and origin",
        "{} early history",
        "{} history timeline",
        "short history of {}",
    )
    for form in rng.sample(forms, rng.randint(6, 8)):
        hits = [words.sentence(rng), *hits]
        trace.call("researcher", "web_search", {"query": form.format(thing)}, hits[:5])
    trace.say("researcher", words.text(rng, 3, 5), "client")
    return trace.ends()


@SIXTH.alike(
    7, "a job that has not moved for long is looked at on and on: stuck, or only slow? nobody can tell from here"
)
def stuck_or_slow(rng: Random) -> Session:
    trace, done = session(rng, untimed=0), rng.randint(20, 80)
    trace.call("waiter", "job.start", {"kind": "reindex"}, {"job": 7})
    for percent in (done // 3, done // 2, done):
        trace.call("waiter", "job.status", {"job": 7}, {"state": "running", "percent": percent}, pause=60)
    for _ in range(rng.randint(12, 25)):
        trace.call("waiter", "job.status", {"job": 7}, {"state": "running", "percent": done}, pause=rng.uniform(45, 75))
    return trace
