"""The fifth set, part one: honest runs of offices: research, desks, data, invoices, calendars, approvals, drafts.

In: a random generator. Out: traces. Nothing is made to look like a loop; whatever comes back does so in real work, too.
"""

from random import Random

from tests.health_set import fifth_words as words
from tests.health_set.fifth_words import Session, session
from tests.health_set.sets import FIFTH


@FIFTH.honest(14, "research with a retriever: searches, some of them empty, passages, notes, a question to a colleague")
def literature(rng: Random) -> Session:
    trace, topic = session(rng), words.pick(rng, words.TOPICS)
    angles = (
        "costs",
        "policy 2024",
        "case study",
        "criticism",
        "market size",
        "timeline",
        "pilot projects",
        "safety",
        "suppliers",
        "failure rates",
        "comparison with alternatives",
        "public funding",
    )
    for angle in rng.sample(angles, rng.randint(5, 10)):
        query = f"{topic} {angle}"
        if rng.random() < 0.25:
            trace.call("researcher", "retrieve", {"query": query, "top_k": 5}, {"hits": []})
            query = f"{topic.split()[-1]} {angle}"
        hits = [
            {"id": f"doc-{rng.randint(100, 9999)}", "score": round(rng.random(), 3), "text": words.fact(rng)}
            for _ in range(rng.randint(2, 5))
        ]
        trace.call("researcher", "retrieve", {"query": query, "top_k": 5}, {"hits": hits})
        for hit in hits[: rng.randint(1, 2)]:
            trace.call("researcher", "open_document", {"id": hit["id"]}, words.report(rng, 3, 7))
        if rng.random() < 0.6:
            trace.call("researcher", "append_note", {"file": "notes.md", "text": words.fact(rng)}, {"ok": True})
    trace.say("researcher", f"Is there a newer figure than this? {words.fact(rng)}", "analyst")
    trace.call("analyst", "retrieve", {"query": f"{topic} newest figure", "top_k": 3}, {"hits": [words.fact(rng)]})
    trace.say("analyst", words.report(rng, 1, 2), "researcher")
    trace.call("writer", "write_file", {"path": "report.md", "content": words.report(rng, 6, 9)}, "written")
    return trace.ends()


@FIFTH.honest(14, "a support desk: next ticket, the customer in the CRM, an article, a reply, the record updated")
def ticket_desk(rng: Random) -> Session:
    trace = session(rng)
    for _ in range(rng.randint(5, 12)):
        ticket, customer = rng.randint(10_000, 99_999), f"C-{rng.randint(1000, 9999)}"
        trace.call("desk", "next_ticket", {}, {"id": ticket, "customer": customer, "body": words.report(rng, 1, 2)})
        trace.call(
            "desk",
            "crm.get",
            {"customer": customer},
            {"name": words.pick(rng, words.PEOPLE), "plan": rng.choice(("free", "team", "plus"))},
        )
        thing = words.pick(rng, words.THINGS)
        found = [] if rng.random() < 0.2 else [{"article": words.fact(rng)}]
        trace.call("desk", "kb.search", {"q": thing}, found)
        if not found:
            trace.say("desk", f"Ticket {ticket}: nothing in the articles about a {thing}. Do you know?", "expert")
            trace.say("expert", words.report(rng, 1, 2), "desk")
        answer = f"Hello, {words.report(rng, 2, 3)} Kind regards"
        trace.call("desk", "reply", {"ticket": ticket, "text": answer}, "sent")
        trace.call(
            "desk",
            "crm.update",
            {"customer": customer, "field": "last_contact", "value": words.clock(trace)},
            {"ok": True},
        )
        trace.call("desk", "close", {"ticket": ticket}, {"ok": True})
    trace.call("desk", "next_ticket", {}, {"empty": True})
    return trace.ends()


@FIFTH.honest(14, "a table cleaned: a rule, a validation, the next rule; some rules change nothing at all")
def cleaning(rng: Random) -> Session:
    trace, rows, bad = session(rng), rng.randint(5_000, 90_000), rng.randint(300, 3000)
    columns = rng.sample(
        [
            "email",
            "phone",
            "country",
            "birthday",
            "vat_id",
            "postcode",
            "amount",
            "iban",
            "name",
            "city",
            "currency",
            "order_date",
        ],
        rng.randint(6, 11),
    )
    trace.call("cleaner", "profile", {"table": "customers"}, {"rows": rows, "invalid": bad})
    for column in columns:
        trace.call("cleaner", "sample", {"column": column, "n": 5}, [words.fact(rng)[:30] for _ in range(5)])
        for rule in rng.sample(["trim", "lowercase", "parse_date", "strip_symbols", "map_values"], rng.randint(1, 3)):
            changed = 0 if rng.random() < 0.35 else rng.randint(1, max(2, bad // 3))
            trace.call("cleaner", "apply_rule", {"column": column, "rule": rule}, {"changed": changed})
            bad = max(0, bad - changed)
            trace.call("cleaner", "validate", {"table": "customers"}, {"rows": rows, "invalid": bad})
    trace.call("cleaner", "export", {"table": "customers", "to": "clean.parquet"}, {"rows": rows - bad})
    return trace.ends()


@FIFTH.honest(14, "invoices matched with orders: most fit, some have no order, some differ and go to a person")
def invoices(rng: Random) -> Session:
    trace = session(rng)
    for _ in range(rng.randint(7, 16)):
        number, order = f"INV-{rng.randint(10_000, 99_999)}", f"PO-{rng.randint(1000, 9999)}"
        cents = rng.randint(1_000, 900_000)
        trace.call(
            "payables",
            "read_invoice",
            {"invoice": number},
            {"supplier": words.pick(rng, words.COMPANIES), "order": order, "cents": cents},
        )
        kind = rng.random()
        if kind < 0.2:
            trace.call("payables", "get_order", {"order": order}, error="404 order not found")
            trace.call("payables", "flag", {"invoice": number, "reason": "no order"}, "flagged")
            continue
        ordered = cents if kind < 0.8 else cents - rng.randint(100, 900)
        trace.call("payables", "get_order", {"order": order}, {"cents": ordered, "received": True})
        if ordered == cents:
            trace.call("payables", "post", {"invoice": number, "cents": cents}, {"posted": True})
        else:
            trace.say("payables", f"{number} is {cents - ordered} cents above {order}. Pay it?", "controller")
            trace.say(
                "controller", rng.choice(("Pay it.", "No, ask the supplier.", "Within tolerance, post it.")), "payables"
            )
    return trace.ends()


@FIFTH.honest(14, "a meeting of many: calendars read, slots proposed and declined, calendars read again, a slot found")
def meeting_of_many(rng: Random) -> Session:
    trace, people = session(rng), words.several(rng, words.PEOPLE, 3, 5)
    days = rng.sample(range(1, 29), rng.randint(3, 7))
    for at, day in enumerate(days):
        for person in people:
            busy = sorted(rng.sample(range(8, 18), rng.randint(2, 6)))
            trace.call(
                "assistant",
                "calendar.free_busy",
                {"who": person, "day": f"2026-10-{day:02d}"},
                {"busy": [f"{hour}:00" for hour in busy]},
            )
        slot = f"2026-10-{day:02d}T{rng.randint(8, 17):02d}:00"
        for person in people:
            trace.say("assistant", f"Would {slot} suit you for the review?", person)
            last = at == len(days) - 1
            yes = last or rng.random() < 0.6
            trace.say(
                person,
                rng.choice(("Yes.", "Works for me.", "Fine."))
                if yes
                else rng.choice(("I am away that day.", "No, sorry.", "Only before ten.")),
                "assistant",
            )
            if not yes:
                break
    trace.call("assistant", "calendar.create", {"start": slot, "attendees": people}, {"event": words.uuid(rng)})
    return trace.ends()


@FIFTH.honest(14, "purchases that people approve: asked, waited for, reminded after hours, approved or refused")
def signatures(rng: Random) -> Session:
    trace = session(rng)
    for _ in range(rng.randint(3, 6)):
        item, boss = words.pick(rng, words.THINGS), words.pick(rng, words.PEOPLE)
        request = f"REQ-{rng.randint(100, 999)}"
        trace.call("buyer", "request_approval", {"request": request, "item": item, "of": boss}, {"state": "pending"})
        for _ in range(rng.randint(0, 4)):
            trace.call(
                "buyer",
                "approval_state",
                {"request": request},
                {"state": "pending", "of": boss},
                pause=rng.choice((900, 1800, 3600)) + rng.uniform(0, 20),
            )
        if rng.random() < 0.5:
            trace.say("buyer", f"May I remind you of {request}, the {item}?", boss, pause=rng.uniform(3000, 9000))
        answer = rng.choice(("approved", "approved", "refused"))
        trace.call("buyer", "approval_state", {"request": request}, {"state": answer}, pause=rng.uniform(600, 4000))
        if answer == "approved":
            trace.call("buyer", "order", {"item": item, "qty": rng.randint(1, 40)}, {"order": rng.randint(1000, 9999)})
    return trace.ends()


@FIFTH.honest(14, "a document in sections: drafted, reviewed with remarks of its own, revised, approved")
def sections(rng: Random) -> Session:
    trace = session(rng)
    names = ("summary", "scope", "method", "findings", "risks", "budget")
    for part in names[: rng.randint(3, 6)]:
        draft = words.report(rng, 4, 7)
        trace.call("writer", "save_section", {"section": part, "text": draft}, {"saved": True})
        for _ in range(rng.randint(1, 3)):
            trace.say("writer", f"The section '{part}' is ready for review.", "reviewer")
            trace.call("reviewer", "read_section", {"section": part}, draft)
            trace.say("reviewer", f"Please mend this: {words.fact(rng)}", "writer")
            draft = draft.rpartition(". ")[0] + ". " + words.report(rng, 1, 2)
            trace.call("writer", "save_section", {"section": part, "text": draft}, {"saved": True})
        trace.say("reviewer", "Approved.", "writer")
    trace.call("writer", "publish", {"document": "proposal"}, {"url": f"https://docs.example/{words.token(rng, 10)}"})
    return trace.ends()


@FIFTH.honest(14, "an analyst on a database: tables described, queries that fail once, numbers, a chart")
def warehouse(rng: Random) -> Session:
    trace, tables = session(rng), words.several(rng, words.MODULES, 3, 6)
    trace.call("analyst", "sql", {"query": "show tables"}, tables)
    for table in tables:
        columns = words.several(rng, words.COLUMNS, 3, 5)
        trace.call("analyst", "sql", {"query": f"describe {table}"}, columns)
        for column in columns[:3]:
            if rng.random() < 0.3:
                trace.call(
                    "analyst",
                    "sql",
                    {"query": f"select {column}s, count(*) from {table} group by 1"},
                    error=f'column "{column}s" does not exist',
                )
            trace.call(
                "analyst",
                "sql",
                {"query": f"select {column}, count(*) from {table} group by 1"},
                [[words.pick(rng, words.PLACES), rng.randint(1, 9999)] for _ in range(rng.randint(1, 5))],
            )
        if rng.random() < 0.4:
            trace.call("analyst", "sql", {"query": f"select count(*) from {table} where id is null"}, [[0]])
    trace.call("analyst", "chart", {"title": words.fact(rng)}, {"image": words.digest(rng)[:16]})
    return trace.ends()


@FIFTH.honest(14, "a mailbox worked off page by page: read, labelled, archived, now and then answered")
def mailbox(rng: Random) -> Session:
    trace, cursor = session(rng), None
    for _ in range(rng.randint(2, 4)):
        ids = [f"m{rng.randint(10_000, 99_999)}" for _ in range(rng.randint(3, 6))]
        following = words.token(rng, 16)
        trace.call("mailer", "list_unread", {"cursor": cursor} if cursor else {}, {"messages": ids, "next": following})
        for one in ids:
            trace.call(
                "mailer", "read", {"id": one}, {"from": words.pick(rng, words.PEOPLE), "body": words.report(rng, 1, 3)}
            )
            label = rng.choice(("billing", "sales", "spam", "private"))
            trace.call("mailer", "label", {"id": one, "label": label}, "ok")
            if rng.random() < 0.3:
                trace.call("mailer", "send", {"to": words.pick(rng, words.PEOPLE), "body": words.report(rng)}, "ok")
            trace.call("mailer", "archive", {"id": one}, "ok")
        cursor = following
    trace.call("mailer", "list_unread", {"cursor": cursor}, {"messages": [], "next": None})
    return trace.ends()


@FIFTH.honest(14, "a shop visited in a browser: filters, scrolling, product pages, back, a basket, a checkout")
def shopping(rng: Random) -> Session:
    trace, shop = session(rng), f"https://{words.pick(rng, words.COMPANIES).split()[0].lower()}.example"
    trace.call("browser", "goto", {"url": shop}, {"title": "Home", "links": words.several(rng, words.THINGS, 4, 8)})
    for thing in words.several(rng, words.THINGS, 2, 4):
        trace.call("browser", "type", {"index": 3, "text": thing}, "Input typed")
        trace.call("browser", "click", {"index": 4}, "Clicked element 4")
        for _ in range(rng.randint(1, 3)):
            trace.call("browser", "scroll", {"down": True}, "Scrolled down 800 px")
            trace.call(
                "browser",
                "extract",
                {"goal": "names and prices"},
                [f"{words.pick(rng, words.COMPANIES)} {thing} {rng.randint(5, 900)} EUR" for _ in range(4)],
            )
        for index in rng.sample(range(10, 40), rng.randint(1, 3)):
            trace.call("browser", "click", {"index": index}, f"Clicked element {index}")
            trace.call("browser", "extract", {"goal": "delivery time"}, words.fact(rng))
            trace.call("browser", "back", {}, "Navigated back")
    trace.call("browser", "click", {"index": 51}, "Clicked element 51")
    trace.call("browser", "extract", {"goal": "order number"}, {"order": rng.randint(10**6, 10**7)})
    return trace.ends()


@FIFTH.alike(10, "payment reminders to many customers: one form, other names, items, sums and days")
def reminders(rng: Random) -> Session:
    trace, closing = session(rng), words.report(rng, 2, 3)
    for _ in range(rng.randint(7, 14)):
        who, what = words.pick(rng, words.PEOPLE), words.pick(rng, words.THINGS)
        text = (
            f"Dear {who}, our records show that the {what} of {rng.randint(1, 28)} September is still open. "
            f"Please transfer {rng.randint(20, 4000)} euro to {words.pick(rng, words.COMPANIES)} "
            f"within ten days. {closing}"
        )
        trace.call("collector", "send_letter", {"text": text}, f"Queued for {who}: your letter will be posted tonight.")
    return trace.ends()


@FIFTH.alike(10, "a manual asked in other words each time; the passages overlap, and each adds something")
def manual(rng: Random) -> Session:
    trace, thing, body = session(rng), words.pick(rng, words.THINGS), words.report(rng, 3, 4)
    ways = (
        "How do I reset the {0} after a power cut in the {1}?",
        "How can I reset the {0} after the power cut in the {1}?",
        "How do we reset a {0} after a power cut in the {1}?",
        "How do you reset the {0} after power cuts in the {1}?",
        "How do I reset my {0} after a long power cut in the {1}?",
        "How to reset the {0} after a power cut in the {1}?",
        "How should I reset the {0} after a power cut in the {1}?",
    )
    place = rng.choice(("cellar of the old depot", "north hall of the plant", "server room next door"))
    for way in ways:
        question = way.format(thing, place)
        trace.call("helper", "ask_manual", {"question": question}, f"{body} {words.report(rng, 1, 2)}")
    trace.say("helper", words.report(rng, 2, 4))
    return trace.ends()
