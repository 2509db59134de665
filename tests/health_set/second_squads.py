"""The second set, part two: squads, and runs made of other runs by cutting and pasting.

In: a random generator. Out: traces.
"""

from random import Random

from tests.health_set import second_words as words
from tests.health_set import second_worlds
from tests.health_set.second_words import Paced as Trace
from tests.health_set.sets import SECOND

TALK = 10
BYE = (
    "Thanks, I will come back when I have found the number.",
    "Take your time! I am here whenever you need me.",
    "Great, thank you for your patience.",
    "Of course, no problem at all.",
    "I will look in my mails later today.",
    "Sounds good. Just let me know.",
    "Perfect. Have a lovely evening!",
    "You too, good bye!",
    "Bye, and thanks again!",
    "It was a pleasure. Until then!",
    "Oh, and I really do appreciate it.",
    "Happy to be of service, as always.",
)


@SECOND.honest(30, "a bargain in one form of words: only the sums change, and they meet")
def bargain(rng: Random) -> Trace:
    trace, low, high = Trace(rng, timed=rng.random() < 0.6), rng.randint(200, 400), rng.randint(700, 900)
    trace.call("buyer", "price_history", {"item": words.query(rng)}, [rng.randint(200, 900) for _ in range(4)])
    while high - low > 40:
        trace.say("buyer", f"I offer {low}.", "seller")
        trace.say("seller", f"I ask for {high}.", "buyer")
        low, high = low + (high - low) // 4, high - (high - low) // 5
    trace.call("buyer", "sign", {"price": (low + high) // 2}, "signed")
    return trace.ends()


@SECOND.looping(20, "a bargain in which nobody moves")
def stale_bargain(rng: Random) -> Trace:
    trace, low, high = Trace(rng, timed=rng.random() < 0.6), rng.randint(200, 400), rng.randint(700, 900)
    for step in range(rng.randint(0, 3)):
        trace.say("buyer", f"I offer {low - 60 + 20 * step}.", "seller")
        trace.say("seller", f"I ask for {high + 60 - 20 * step}.", "buyer")
    trace.loop_begins(2)
    for _ in range(15):
        trace.say("buyer", f"I offer {low}.", "seller")
        trace.say("seller", f"I ask for {high}.", "buyer")
    return trace.ends()


@SECOND.honest(30, "a lead, researchers and a critic: questions, finds, doubts, better finds")
def research_squad(rng: Random) -> Trace:
    trace, crew = Trace(rng, timed=rng.random() < 0.6), [f"researcher-{n}" for n in range(rng.randint(2, 5))]
    for name in crew:
        trace.say("lead", f"Please find out: {words.sentence(rng)}", name, pause=0.3)
    for _ in range(rng.randint(1, 3)):
        for name in crew:
            for _ in range(rng.randint(1, 3)):
                trace.call(name, "web_search", {"q": words.query(rng)}, words.paragraph(rng))
            trace.say(name, words.paragraph(rng), "lead")
        trace.say("lead", words.paragraph(rng, 1, 2), "critic")
        trace.say("critic", words.sentence(rng), "lead")
        name = rng.choice(crew)
        trace.say("lead", f"The critic doubts this: {words.sentence(rng)}", name)
        trace.call(name, "web_search", {"q": words.query(rng)}, words.paragraph(rng))
        trace.say(name, words.sentence(rng), "lead")
    trace.call("lead", "publish", {"text": words.paragraph(rng)}, "published")
    return trace.ends()


@SECOND.honest(
    30, "hand-overs by calls that lead somewhere: triage, billing, refunds, back to triage with the next customer"
)
def handed_on(rng: Random) -> Trace:
    trace = Trace(rng, timed=rng.random() < 0.6)
    for _ in range(rng.randint(3, 9)):
        customer = f"C{rng.randint(1000, 9999)}"
        trace.call("triage", "read_mail", {"customer": customer}, words.sentence(rng))
        trace.call("triage", "transfer_to_billing", {}, {"assistant": "billing"})
        trace.call("billing", "invoices", {"customer": customer}, [rng.randint(10, 999) for _ in range(3)])
        if rng.random() < 0.5:
            trace.call("billing", "transfer_to_refunds", {}, {"assistant": "refunds"})
            trace.call("refunds", "refund", {"customer": customer, "cents": rng.randint(100, 9999)}, {"status": "ok"})
            trace.call("refunds", "transfer_to_triage", {}, {"assistant": "triage"})
        else:
            trace.call("billing", "transfer_to_triage", {}, {"assistant": "triage"})
    return trace.ends()


@SECOND.looping(20, "customer and agent part again and again and ask for nothing any more (a round: ten messages)")
def never_ending_goodbye(rng: Random) -> Trace:
    trace = Trace(rng, timed=rng.random() < 0.6)
    for _ in range(rng.randint(1, 4)):
        trace.say("customer", words.sentence(rng), "agent")
        trace.call("agent", "get_order", {"id": f"#{rng.randrange(10**6)}"}, {"items": words.sentence(rng)})
        trace.say("agent", words.paragraph(rng, 1, 2), "customer")
    trace.loop_begins(TALK)
    for number in range(7 * TALK):
        trace.say(
            ("customer", "agent")[number % 2], f"{rng.choice(BYE)} {rng.choice(BYE)}", ("agent", "customer")[number % 2]
        )
    return trace.ends()


@SECOND.looping(20, "a board on which three to six agents write the same entry in turns")
def blackboard(rng: Random) -> Trace:
    trace, size, entry = Trace(rng, timed=rng.random() < 0.6), rng.randint(3, 6), words.sentence(rng)
    for _ in range(rng.randint(0, 5)):
        trace.call("a0", "board_write", {"text": words.sentence(rng)}, "written")
    trace.loop_begins(2 * size)
    for number in range(8 * size):
        trace.call(f"a{number % size}", "board_read", {}, entry)
        trace.call(f"a{number % size}", "board_write", {"text": entry}, "written")
    return trace.ends()


@SECOND.honest(30, "a page edited by three in turns: each reads it, each changes one line")
def shared_page(rng: Random) -> Trace:
    trace, lines = Trace(rng, timed=rng.random() < 0.6), [words.sentence(rng) for _ in range(12)]
    for number in range(rng.randint(9, 24)):
        name = f"a{number % 3}"
        trace.call(name, "read_page", {}, "\n".join(lines))
        lines[rng.randrange(12)] = words.sentence(rng)
        trace.call(name, "write_page", {"text": "\n".join(lines)}, "saved")
        if rng.random() < 0.3:
            trace.say(name, words.sentence(rng), f"a{(number + 1) % 3}")
    return trace.ends()


@SECOND.looping(20, "a critic who never says what is wrong, a writer who hands in the same page")
def vague_critic(rng: Random) -> Trace:
    trace, page = Trace(rng, timed=rng.random() < 0.6), words.paragraph(rng, 5, 9)
    vague = (
        "It lacks something.",
        "Not quite there yet.",
        "Hmm, no.",
        "I expected more.",
        "Try harder.",
        "Not convinced.",
        "Still not what I had in mind.",
        "Closer, perhaps? No.",
        "Again, please.",
        "It does not sing.",
    )
    for _ in range(rng.randint(0, 2)):
        trace.call("writer", "hand_in", {"page": words.paragraph(rng, 5, 9)}, "received")
        trace.say("critic", words.sentence(rng), "writer")
    trace.loop_begins(2)
    for remark in rng.sample(vague, 10):
        trace.call("writer", "hand_in", {"page": page}, "received")
        trace.say("critic", remark, "writer")
    return trace.ends()


@SECOND.looping(
    15, "a squad that meets and meets: who is here, what is the agenda, when do we meet next (a round: ten messages)"
)
def meetings(rng: Random) -> Trace:
    trace, size = Trace(rng, timed=rng.random() < 0.6), rng.randint(3, 5)
    for _ in range(rng.randint(0, 4)):
        trace.call("a0", "search", {"q": words.query(rng)}, words.paragraph(rng))
    said = (
        "Is everybody here?",
        "I am here.",
        "Present.",
        "Who takes the minutes?",
        "Not me, I did last time.",
        "What is on the agenda?",
        "The agenda of our next meeting.",
        "When do we meet next?",
        "Same time?",
        "Fine with me.",
        "Let us take this offline.",
        "I second that.",
        "Any other business?",
        "None from my side.",
    )
    trace.loop_begins(TALK)
    for number in range(7 * TALK):
        one = number % size
        trace.say(f"a{one}", rng.choice(said), f"a{rng.choice([other for other in range(size) if other != one])}")
    return trace.ends()


# Runs made of other runs.

WORLDS = (second_worlds.shell_repairs, second_worlds.depot_day, second_worlds.browsing, second_worlds.shell_installs)


def _cut(trace: Trace, most: int) -> list[dict[str, object]]:
    return [row for row in trace.rows if "ended" not in row][:most]


@SECOND.looping(
    40, "a stretch of one to six acts of an honest run, pasted in behind it again and again, with times and ids anew"
)
def pasted(rng: Random) -> Trace:
    trace, source = Trace(rng, timed=rng.random() < 0.6), _cut(rng.choice(WORLDS)(rng), 40)
    length = rng.randint(1, min(6, len(source)))
    first = rng.randrange(len(source) - length + 1)
    fresh = rng.random() < 0.3

    def again(row: dict[str, object], noisy: bool) -> None:
        arguments = row.get("arguments", {})
        if noisy and isinstance(arguments, dict):
            arguments = arguments | {"request_id": words.uuid(rng), "sent_at": words.stamp(trace.now_s)}
        if "text" in row:
            trace.say(str(row["agent"]), str(row["text"]), str(row.get("to", "")))
        else:
            trace.call(str(row["agent"]), str(row["action"]), arguments, row.get("result"), error=row.get("error"))

    for row in source[: first + length]:
        again(row, fresh)
    trace.loop_begins(length)
    for _ in range(9):
        for row in source[first : first + length]:
            again(row, fresh)
    # Its first round is the honest one: the stretch has been gone through once before the pasting begins.
    trace.start -= length
    return trace.ends()


@SECOND.honest(40, "two to four honest runs of other worlds as agents of one task, acts shuffled into each other")
def interleaved(rng: Random) -> Trace:
    trace = Trace(rng, timed=rng.random() < 0.6)
    runs = [_cut(rng.choice(WORLDS)(rng), 60) for _ in range(rng.randint(2, 4))]
    while any(runs):
        number = rng.choice([number for number, run in enumerate(runs) if run])
        row = runs[number].pop(0)
        name = f"{row['agent']}-{number}"
        if "text" in row:
            trace.say(name, str(row["text"]))
        else:
            trace.call(name, str(row["action"]), row["arguments"], row.get("result"), error=row.get("error"))
    return trace.ends()


@SECOND.honest(40, "an honest run whose records come twice and a few places late, each with its id")
def late_twins(rng: Random) -> Trace:
    trace = Trace(rng)
    for number, row in enumerate(_cut(rng.choice(WORLDS)(rng), 60)):
        if "text" in row:
            trace.say(str(row["agent"]), str(row["text"]), id=f"r{number}")
        else:
            trace.call(
                str(row["agent"]),
                str(row["action"]),
                row["arguments"],
                row.get("result"),
                error=row.get("error"),
                id=f"r{number}",
            )
    order = [(at, row) for at, row in enumerate(trace.rows)]
    order += [(at + rng.choice((0.5, 1.5, 4.5)), row) for at, row in enumerate(trace.rows) if rng.random() < 0.6]
    trace.rows = [row for _, row in sorted(order, key=lambda pair: pair[0])]
    return trace.ends()


@SECOND.alike(25, "one form filled in for many people: near-duplicate arguments, near-duplicate receipts")
def one_form(rng: Random) -> Trace:
    trace, body = Trace(rng, timed=rng.random() < 0.6), words.paragraph(rng, 4, 6)
    for person in rng.sample(words.PEOPLE, rng.randint(9, 15)):
        arguments = {"name": person, "declaration": body, "sum": rng.randint(10, 9999)}
        trace.call("filer", "file_form", arguments, f"Received from {person}: {body} Case {rng.randrange(10**6)}.")
    return trace.ends()


@SECOND.alike(25, "one question asked in many ways; the answers resemble each other and each has a fact of its own")
def asked_in_many_ways(rng: Random) -> Trace:
    trace, thing, place = Trace(rng, timed=rng.random() < 0.6), rng.choice(words.THINGS), rng.choice(words.PLACES)
    body = words.paragraph(rng, 4, 5)
    forms = (
        "cost of a {0} in {1} for residents",
        "what does a {0} cost residents in {1}",
        "a {0} in {1}: cost for residents",
        "residents in {1}, cost of a {0}",
        "how high is the cost of a {0} in {1} for residents",
        "cost for residents of a {0} in {1}",
        "the cost of a {0} for residents in {1}",
        "{1} residents cost of a {0}",
    )
    for form in forms:
        trace.call("asker", "ask", {"question": form.format(thing, place)}, f"{body} {words.sentence(rng)}")
    return trace.ends()
