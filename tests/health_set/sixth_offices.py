"""The sixth set, part one: honest runs of offices: desks, books, contracts, mail, forms, calls, deals and debates.

In: a random generator. Out: traces. All of them repeat themselves, because the work does, and all of them get on.
"""

from random import Random

from tests.health_set import sixth_words as words
from tests.health_set.sets import SIXTH
from tests.health_set.sixth_words import Session, session


@SIXTH.honest(11, "one outage, a dozen customers: each ticket read, answered by the same macro, set to pending")
def outage_macros(rng: Random) -> Session:
    trace, service = session(rng), rng.choice(words.SERVICES)
    trace.call("desk", "status_page.get", {"component": service}, {"state": "degraded", "since": trace.stamp()})
    for _ in range(rng.randint(9, 14)):
        ticket = rng.randrange(40_000, 60_000)
        trace.call(
            "desk",
            "zendesk.get_ticket",
            {"id": ticket},
            {"id": ticket, "requester": words.mail(rng), "body": words.text(rng, 1, 2)},
        )
        if rng.random() < 0.2:
            trace.call("desk", "zendesk.get_user", {"ticket": ticket}, {"name": words.person(rng), "plan": "business"})
        trace.call("desk", "zendesk.apply_macro", {"id": ticket, "macro": "known-outage"}, {"ok": True})
        trace.call("desk", "zendesk.update", {"id": ticket, "status": "pending"}, {"ok": True})
    return trace.ends()


@SIXTH.honest(11, "unread mail, one after the other, from a queue; most of it newsletters that get the same label")
def inbox_triage(rng: Random) -> Session:
    trace, left = session(rng), rng.randint(9, 16)
    while left:
        left -= 1
        news = rng.random() < 0.7
        trace.call(
            "triage",
            "gmail_next_unread",
            {},
            {"id": words.digest(rng, 12), "from": words.mail(rng), "subject": words.sentence(rng), "unread": left},
        )
        trace.call(
            "triage",
            "classify",
            {"labels": ["newsletter", "invoice", "person", "spam"]},
            "newsletter" if news else rng.choice(("invoice", "person")),
        )
        trace.call("triage", "gmail_label", {"label": "Newsletters" if news else "Inbox/Now", "archive": news}, "done")
    trace.call("triage", "gmail_next_unread", {}, {"id": None, "unread": 0})
    return trace.ends()


@SIXTH.honest(11, "month-end: account by account against the bank; open differences traced entry by entry to zero")
def month_end_close(rng: Random) -> Session:
    trace = session(rng)
    for account in rng.sample(range(1000, 1999), rng.randint(5, 9)):
        open_cents = rng.choice((0, 0, rng.randrange(900, 90_000)))
        trace.call(
            "closer", "gl.balance", {"account": account, "period": "2026-10"}, {"cents": rng.randrange(10**5, 10**8)}
        )
        trace.call(
            "closer", "bank.balance", {"account": account, "period": "2026-10"}, {"difference_cents": open_cents}
        )
        while open_cents:
            part = open_cents if open_cents < 500 or rng.random() < 0.4 else rng.randrange(100, open_cents)
            open_cents -= part
            trace.call(
                "closer",
                "gl.find_unmatched",
                {"account": account},
                {"entry": words.digest(rng, 6), "cents": part, "memo": words.sentence(rng)},
            )
            trace.call("closer", "gl.match", {"account": account, "cents": part}, {"open_cents": open_cents})
        trace.call("closer", "gl.lock", {"account": account, "period": "2026-10"}, "locked")
        trace.say("closer", f"{account} is reconciled, difference 0.00.", "controller")
    return trace.ends()


@SIXTH.honest(11, "companies of a group confirm their balances to each other, pair by pair, in always the same words")
def intercompany_confirmations(rng: Random) -> Session:
    trace, firms = session(rng), words.several(rng, words.FIRMS, 4, 5)
    pairs = [(one, other) for one in firms for other in firms if one < other]
    rng.shuffle(pairs)
    for one, other in pairs:
        amount = rng.randrange(10_000, 9_000_000)
        trace.say(one, f"Please confirm that we owe you {amount} EUR as of 31 October.", other)
        if rng.random() < 0.3:
            trace.call(other, "ledger.lookup", {"counterparty": one}, {"receivable": amount + 450})
            trace.say(other, "We have 450 EUR more: the freight of 30 October. Please add it.", one)
            trace.call(one, "ledger.post", {"counterparty": other, "amount": 450}, {"entry": words.digest(rng)})
            trace.say(one, f"Added. Please confirm {amount + 450} EUR.", other)
        else:
            trace.call(other, "ledger.lookup", {"counterparty": one}, {"receivable": amount})
        trace.say(other, "Confirmed.", one)
        trace.call(one, "confirmations.file", {"with": other}, "filed")
    return trace.ends()


@SIXTH.honest(11, "invoices matched with order and receipt, each fetched by three calls, nearly all of them in order")
def three_way_match(rng: Random) -> Session:
    trace = session(rng)
    for number in rng.sample(range(70_000, 79_999), rng.randint(7, 11)):
        quantity, order, goods = rng.randint(5, 900), rng.randrange(4_500_000, 4_599_999), rng.choice(words.GOODS)
        trace.call("ap-bot", "getInvoice", {"no": number}, {"po": order, "qty": quantity, "item": goods})
        trace.call("ap-bot", "getPurchaseOrder", {"po": order}, {"po": order, "qty": quantity, "item": goods})
        short = rng.random() < 0.15
        trace.call("ap-bot", "getReceipt", {"po": order}, {"po": order, "qty": quantity - 1 if short else quantity})
        trace.call("ap-bot", "setMatch", {"invoice": number, "state": "short" if short else "matched"}, "ok")
        if short:
            trace.call("ap-bot", "mailBuyer", {"po": order, "text": f"One of the {goods} is missing."}, "sent")
    return trace.ends()


@SIXTH.honest(11, "a framework contract, clause by clause against the playbook; most verdicts are the same three words")
def clause_review(rng: Random) -> Session:
    trace, firm = session(rng), rng.choice(words.FIRMS)
    for number in range(1, rng.randint(12, 18)):
        clause = f"{number}.{rng.randint(1, 4)}"
        trace.call("counsel-agent", "read_clause", {"doc": f"MSA {firm}", "clause": clause}, words.text(rng, 1, 3))
        if rng.random() < 0.75:
            trace.call("counsel-agent", "playbook_check", {"clause": clause}, "no deviation found")
        else:
            trace.call("counsel-agent", "playbook_check", {"clause": clause}, f"deviation: {words.sentence(rng)}")
            trace.call("counsel-agent", "add_redline", {"clause": clause, "text": words.sentence(rng)}, "saved")
            trace.say("counsel-agent", f"{clause}: {words.sentence(rng)} I have marked it.", "partner")
    return trace.ends()


@SIXTH.honest(11, "segments translated and approved one by one; the memory knows none of them, the reviewer says ok")
def translation_segments(rng: Random) -> Session:
    trace, language = session(rng), rng.choice(("de-DE", "pt-PT", "ja-JP", "tr-TR", "nl-NL"))
    for number in range(1, rng.randint(10, 15)):
        source = words.sentence(rng)
        trace.call("translator", "tm_lookup", {"segment": number, "source": source}, {"matches": []})
        trace.call(
            "translator", "save_target", {"segment": number, "target": f"[{language}] {words.sentence(rng)}"}, "ok"
        )
        trace.say("translator", f"Segment {number} is ready for review.", "reviewer")
        if rng.random() < 0.2:
            trace.say(
                "reviewer",
                f"Segment {number}: the term is '{rng.choice(words.GOODS)}', see the glossary.",
                "translator",
            )
            trace.call(
                "translator", "save_target", {"segment": number, "target": f"[{language}] {words.sentence(rng)}"}, "ok"
            )
        trace.call("reviewer", "approve", {"segment": number}, "ok")
    return trace.ends()


@SIXTH.honest(
    10, "a buyer and three sellers: offers in the same phrases, the figures come together, an order is placed"
)
def procurement_rounds(rng: Random) -> Session:
    trace, goods = session(rng), rng.choice(words.GOODS)
    best: tuple[float, str] = (1e9, "")
    for seller in words.several(rng, words.FIRMS, 2, 3):
        bid, ask = rng.uniform(5, 8), rng.uniform(11, 15)
        trace.say("buyer", f"We need {rng.randint(2, 40) * 100} {goods}. What is your price per piece?", seller)
        trace.say(seller, f"Our price is {ask:.2f} EUR per piece, delivered.", "buyer")
        while ask - bid > 0.25:
            bid += (ask - bid) * rng.uniform(0.2, 0.4)
            trace.say("buyer", f"We can offer {bid:.2f} EUR per piece.", seller)
            ask -= (ask - bid) * rng.uniform(0.3, 0.6)
            trace.say(seller, f"We could go down to {ask:.2f} EUR per piece.", "buyer")
        trace.call("buyer", "quotes.save", {"seller": seller, "price": round(ask, 2)}, {"saved": True})
        best = min(best, (ask, seller))
    trace.call("buyer", "orders.place", {"seller": best[1], "price": round(best[0], 2)}, {"order": words.digest(rng)})
    trace.say("buyer", "We accept. The order is on its way to you.", best[1])
    return trace.ends()


@SIXTH.honest(10, "a debate of three and a moderator: each turn another argument, one by one they come round")
def debate_that_converges(rng: Random) -> Session:
    trace, crowd = session(rng), words.several(rng, words.FIRST_NAMES, 3, 3)
    topic = words.sentence(rng)
    trace.say("moderator", f"The question is whether we act on this: {topic}", crowd[0])
    against = rng.randint(1, 2)
    for turn in range(rng.randint(3, 6)):
        for place, one in enumerate(crowd):
            side = "I am still against it" if place < against else "I am for it"
            trace.say(one, f"{side}. {words.text(rng, 1, 3)}", crowd[(place + 1) % 3])
        if turn and against and rng.random() < 0.5:
            against -= 1
            trace.say(crowd[against], f"That convinces me: {words.sentence(rng)} I change my vote.", "moderator")
        if not against:
            break
        trace.say("moderator", f"Round {turn + 2}. Please address this: {words.sentence(rng)}", crowd[0])
    trace.call("moderator", "record_decision", {"topic": topic, "votes_for": 3 - against}, "recorded")
    return trace.ends()


@SIXTH.honest(10, "a long form in a browser: fields filled, a date refused and mended, Next clicked page after page")
def form_pages(rng: Random) -> Session:
    trace, index = session(rng), 0
    trace.call("browser", "go_to_url", {"url": "https://permits.example.org/apply"}, "Page 1 of 6: Applicant")
    for page in range(1, 7):
        for label in words.several(
            rng, ("Name", "Street", "Town", "Birth date", "Tax number", "Phone", "Reason"), 2, 4
        ):
            index = rng.randint(3, 40)
            if label == "Birth date" and rng.random() < 0.7:
                trace.call("browser", "input_text", {"index": index, "text": "12/31/1984"}, "typed")
                trace.call("browser", "click", {"index": 41, "label": "Next"}, "Birth date: use the form DD.MM.YYYY")
                trace.call("browser", "input_text", {"index": index, "text": "31.12.1984"}, "typed")
            else:
                trace.call("browser", "input_text", {"index": index, "text": words.person(rng)}, "typed")
        shown = f"Page {page + 1} of 6" if page < 6 else f"Thank you. Your number is {rng.randrange(10**6, 10**7)}."
        trace.call("browser", "click", {"index": 41, "label": "Next"}, shown)
    return trace.ends()


@SIXTH.honest(10, "a caller is hard to hear: asked once or twice more for the number and the day, then it is booked")
def voice_booking(rng: Random) -> Session:
    trace = session(rng, untimed=0)
    trace.say("voice", "Good morning, this is the clinic's booking line. May I have your phone number?", "caller")
    number = str(rng.randrange(10**8, 10**9))
    for heard in range(rng.randint(1, 3)):
        trace.say("caller", f"It is {' '.join(number[: 5 + heard * 2])}", "voice", pause=rng.uniform(3, 6))
        trace.say(
            "voice",
            rng.choice(
                (
                    "Sorry, I did not catch all of it. Could you say the number again?",
                    "I only got the first digits. Once more, please?",
                )
            ),
            "caller",
            pause=1.5,
        )
    trace.say("caller", f"Right, slowly: {' '.join(number)}", "voice", pause=7)
    trace.call("voice", "find_patient", {"phone": number}, {"patient": words.person(rng)}, pause=1)
    for day in words.several(rng, ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday"), 2, 4):
        trace.call(
            "voice", "free_slots", {"day": day}, [f"{rng.randint(8, 17)}:{rng.choice(('00', '20', '40'))}"], pause=1
        )
        trace.say("voice", f"On {day} we have one free time. Would that suit you?", "caller", pause=1)
        trace.say(
            "caller", rng.choice(("No, I work then.", "Hm, not that day.", "Later would be better.")), "voice", pause=3
        )
    trace.call("voice", "free_slots", {"day": "Saturday"}, ["09:20"], pause=1)
    trace.say("voice", "On Saturday at twenty past nine?", "caller", pause=1)
    trace.say("caller", "Yes, perfect.", "voice", pause=2)
    trace.call("voice", "book", {"slot": "Saturday 09:20"}, {"booking": words.digest(rng, 6)}, pause=1)
    return trace.ends()


@SIXTH.honest(10, "an outbound call waits in a hotline's queue: the same announcement, the place in it falls slowly")
def on_hold(rng: Random) -> Session:
    trace, place = session(rng, untimed=0), rng.randint(4, 8)
    trace.call("dialer", "dial", {"number": f"+49 800 {rng.randrange(10**6, 10**7)}"}, "connected", pause=2)
    trace.call("dialer", "press", {"key": rng.choice("1234")}, "All our agents are busy.", pause=8)
    while place:
        for _ in range(rng.randint(1, 2)):
            trace.call(
                "dialer",
                "listen",
                {"seconds": 30},
                f"Thank you for waiting. You are number {place} in the queue.",
                pause=31,
            )
        place -= 1
    trace.call("dialer", "listen", {"seconds": 30}, f"Hello, my name is {words.person(rng)}, how can I help?", pause=12)
    trace.say("dialer", f"I am calling on behalf of {words.person(rng)}: {words.sentence(rng)}", "human")
    trace.call("dialer", "listen", {"seconds": 30}, words.sentence(rng), pause=9)
    trace.call("dialer", "hang_up", {}, "ended", pause=2)
    return trace.ends()


@SIXTH.honest(11, "a person must approve: looked at every ten minutes for hours, two reminders, at last yes")
def approval_over_lunch(rng: Random) -> Session:
    trace, pause = session(rng, untimed=0), rng.choice((300, 600, 900))
    trace.call(
        "buyer-bot",
        "create_request",
        {"item": rng.choice(words.GOODS), "eur": rng.randrange(900, 9000)},
        {"request": "R-1", "state": "waiting for approver"},
    )
    looks = rng.randint(6, 16)
    for look in range(looks):
        trace.call(
            "buyer-bot",
            "get_request",
            {"request": "R-1"},
            {"request": "R-1", "state": "waiting for approver"},
            pause=pause,
        )
        if look and look % 6 == 0:
            trace.call("buyer-bot", "remind", {"request": "R-1", "channel": "mail"}, "reminder sent")
    trace.call("buyer-bot", "get_request", {"request": "R-1"}, {"request": "R-1", "state": "approved"}, pause=pause)
    trace.call("buyer-bot", "place_order", {"request": "R-1"}, {"order": words.digest(rng)})
    return trace.ends()


@SIXTH.honest(10, "stand-up of a squad, three days: the lead asks each the same, each answers with that day's work")
def daily_standup(rng: Random) -> Session:
    trace, crew = session(rng, untimed=0), words.several(rng, words.FIRST_NAMES, 3, 4)
    for day in ("Monday", "Tuesday", "Wednesday"):
        for one in crew:
            trace.say("lead", f"Good morning {one}, what did you do, what is next, what is in your way?", one)
            trace.call(one, "tracker.mine", {"user": one}, [words.sentence(rng) for _ in range(2)])
            trace.say(one, f"{words.sentence(rng)} Next: {rng.choice(words.MODULES)}. Nothing in my way.", "lead")
        trace.call("lead", "notes.append", {"day": day, "text": words.text(rng, 2, 4)}, "saved")
        trace.wait(86_000)
    return trace.ends()


@SIXTH.honest(10, "three label the same items by themselves; who disagrees is heard, an adjudicator decides")
def labelling_consensus(rng: Random) -> Session:
    trace = session(rng)
    for item in rng.sample(range(100, 999), rng.randint(6, 9)):
        shown, found = words.sentence(rng), rng.choice(("complaint", "praise", "question"))
        odd = rng.random() < 0.3
        for place, one in enumerate(("labeler-a", "labeler-b", "labeler-c")):
            trace.call(one, "label", {"item": item, "text": shown}, "neutral" if odd and place == 2 else found)
        if odd:
            trace.say("labeler-c", f"Item {item} reads neutral to me: {words.sentence(rng)}", "adjudicator")
        trace.call("adjudicator", "accept", {"item": item, "label": found}, "ok")
    return trace.ends()


@SIXTH.honest(
    10, "articles of a knowledge base compared pair by pair; hardly any is a duplicate, which is said each time"
)
def duplicate_hunt(rng: Random) -> Session:
    trace, articles = session(rng), rng.sample(range(200, 399), rng.randint(5, 6))
    for place, one in enumerate(articles):
        for other in articles[place + 1 :]:
            same = rng.random() < 0.08
            trace.call(
                "curator",
                "compare_articles",
                {"left": one, "right": other},
                {"duplicate": same, "score": round(rng.uniform(0.8, 0.95) if same else rng.uniform(0.05, 0.4), 2)},
            )
            if same:
                trace.call("curator", "merge_articles", {"keep": one, "drop": other}, "merged")
    return trace.ends()
