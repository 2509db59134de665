"""The seventh set, part two: honest desks: support, sales, back office, research, browsing; and letters that are alike.

In: a random generator. Out: traces. Most of them are lists that are gone through, and waits for people and sites.
"""

from random import Random

from tests.health_set import seventh_words as words
from tests.health_set.sets import SEVENTH
from tests.health_set.seventh_words import Run, desk_work, run


@SEVENTH.honest(9, "where is my order: ticket after ticket with the same four calls, the same answer to most people")
def where_is_my_order(rng: Random) -> Run:
    trace = run(rng)
    for _ in range(rng.randint(7, 12)):
        ticket, order, who = words.ticket(rng), words.order(rng), rng.choice(words.GIVEN)
        trace.call(
            "support",
            "get_ticket",
            {"id": ticket},
            {"from": words.mail(rng), "body": words.complaint(rng), "order": order},
        )
        trace.call(
            "support",
            "get_tracking",
            {"order": order},
            {
                "carrier": rng.choice(("DHL", "UPS", "GLS")),
                "status": rng.choice(("in transit", "in transit", "out for delivery")),
            },
        )
        trace.call(
            "support",
            "reply",
            {
                "ticket": ticket,
                "body": f"Hi {who}, your order {order} is on its way and "
                "should arrive within two working days. Let us know if it does not.",
            },
            {"ok": True},
        )
        trace.call("support", "set_status", {"ticket": ticket, "status": "solved"}, {"ok": True})
    return trace.ends()


@SEVENTH.honest(8, "the same small note and tag are put on every ticket of an outage: equal text and answer")
def same_note_on_every_ticket(rng: Random) -> Run:
    trace, incident = run(rng), f"INC-{rng.randrange(1000, 9999)}"
    note = f"Auto-triage: caused by {incident}. Customer will be told when it is resolved."
    tickets = [words.ticket(rng) for _ in range(rng.randint(12, 22))]
    trace.call(
        "triage",
        "search_tickets",
        {"query": f"{rng.choice(words.SERVERS)} error", "status": "open"},
        {"count": len(tickets), "ids": tickets},
    )
    for ticket in tickets:
        trace.call("triage", "add_internal_note", {"ticket": ticket, "note": note}, {"ok": True})
        trace.call("triage", "add_tag", {"ticket": ticket, "tag": incident.lower()}, {"ok": True})
    return trace.ends()


@SEVENTH.honest(8, "a caller is not understood: the number is asked for three or four times, then the call goes on")
def number_not_understood(rng: Random) -> Run:
    trace, right = run(rng, untimed=0.1), str(rng.randrange(10**7, 10**8))
    trace.say("voice-agent", "Thanks for calling. Could you tell me your order number, please?", "caller", pause=3)
    for _ in range(rng.randint(2, 3)):
        heard = right[: rng.randint(4, 7)]
        trace.say("caller", f"It is {' '.join(heard)}, I think.", "voice-agent", pause=6)
        trace.call("voice-agent", "lookup_order", {"number": heard}, error="invalid order number: 8 digits expected")
        trace.say(
            "voice-agent",
            rng.choice(
                (
                    "Sorry, I did not get that. Could you repeat the order number?",
                    "I'm sorry, could you tell me the order number once more?",
                )
            ),
            "caller",
        )
    trace.say("caller", f"{' '.join(right)}.", "voice-agent", pause=8)
    trace.call("voice-agent", "lookup_order", {"number": right}, {"status": "shipped", "ware": rng.choice(words.WARES)})
    for _ in range(rng.randint(2, 4)):
        trace.say("caller", words.complaint(rng), "voice-agent", pause=9)
        trace.call("voice-agent", "search_kb", {"query": rng.choice(words.TROUBLES)}, {"id": rng.randrange(999)})
        trace.say("voice-agent", f"I see. {words.finding(rng)}", "caller")
    return trace.ends()


@SEVENTH.honest(8, "a refund waits for a manager: its state is looked at every few minutes, pending for an hour or two")
def refund_waits_for_manager(rng: Random) -> Run:
    trace, ask = run(rng, untimed=0.1), f"APR-{rng.randrange(9999)}"
    desk_work(trace, "refunds", 2, 4)
    trace.call(
        "refunds",
        "request_approval",
        {"amount": words.money(rng), "reason": words.complaint(rng)},
        {"approval": ask, "status": "pending"},
    )
    for _ in range(rng.randint(6, 18)):
        trace.call(
            "refunds",
            "get_approval",
            {"approval": ask},
            {"approval": ask, "status": "pending"},
            pause=rng.choice((180.0, 300.0, 600.0)),
        )
    trace.call(
        "refunds",
        "get_approval",
        {"approval": ask},
        {"approval": ask, "status": "approved", "by": words.person(rng)},
        pause=300,
    )
    trace.call("refunds", "issue_refund", {"approval": ask}, {"ok": True, "id": f"re_{words.hexa(rng, 10)}"})
    return trace.ends()


@SEVENTH.honest(8, "a long talk with an upset customer: the agent is sorry in much the same words, the story goes on")
def upset_customer(rng: Random) -> Run:
    trace = run(rng)
    sorry = (
        "I'm really sorry about that.",
        "I apologise for the trouble.",
        "I understand, and I am sorry.",
        "I'm sorry to hear this.",
        "Thank you for your patience, I am sorry.",
    )
    for _ in range(rng.randint(6, 10)):
        trace.say("customer", words.complaint(rng), "support", pause=rng.uniform(20, 120))
        if rng.random() < 0.45:
            trace.call(
                "support",
                "get_order",
                {"order": words.order(rng)},
                {"status": rng.choice(("shipped", "delivered", "returned")), "total": words.money(rng)},
            )
        trace.say(
            "support",
            f"{rng.choice(sorry)} {rng.choice(words.GIVEN)} from our team says: {words.finding(rng)}",
            "customer",
        )
    trace.call("support", "issue_refund", {"amount": words.money(rng)}, {"ok": True, "id": f"re_{words.hexa(rng, 8)}"})
    trace.say("customer", "Good, thanks.", "support")
    return trace.ends()


@SEVENTH.honest(8, "every quarter of an hour: tickets about to miss their time; mostly none, now and then one")
def sla_sweep(rng: Random) -> Run:
    trace = run(rng, untimed=0)
    for _ in range(rng.randint(10, 18)):
        late = [words.ticket(rng)] if rng.random() < 0.2 else []
        trace.call("sla-bot", "list_tickets", {"breach_within": "30m", "status": "open"}, late, pause=900)
        for one in late:
            trace.call("sla-bot", "escalate", {"ticket": one, "to": words.person(rng)}, {"ok": True})
    return trace.ends()


@SEVENTH.honest(8, "a security questionnaire: some twenty questions against a knowledge base, with the same few hits")
def security_questionnaire(rng: Random) -> Run:
    trace = run(rng)
    docs = [{"doc": f"policy-{part}", "text": words.passage(rng, 1, 2)} for part in words.some(rng, words.PARTS, 4, 5)]
    for number in range(rng.randint(14, 22)):
        asked = f"Describe how {rng.choice(words.PARTS)} {rng.choice(words.DOES)} {rng.choice(words.WHATS)}."
        trace.call("rag", "kb_search", {"query": asked, "top_k": 2}, rng.sample(docs, 2))
        trace.call("rag", "fill_cell", {"sheet": "Questionnaire", "row": number + 2, "answer": words.remark(rng)}, "ok")
    return trace.ends()


@SEVENTH.honest(8, "vendors are compared: search, open the price page, note it down; for some there is no price")
def vendor_matrix(rng: Random) -> Run:
    trace = run(rng)
    for firm in words.some(rng, words.COMPANIES, 7, 12):
        site = firm.split()[0].lower()
        trace.call(
            "researcher",
            "web_search",
            {"query": f"{firm} pricing"},
            [{"url": f"https://{site}.example/pricing", "snippet": words.finding(rng)}],
        )
        known = rng.random() < 0.6
        trace.call(
            "researcher",
            "open_url",
            {"url": f"https://{site}.example/pricing"},
            words.passage(rng) if known else "Contact sales for a quote.",
        )
        trace.call(
            "researcher",
            "append_row",
            {"sheet": "V", "row": [firm, words.money(rng) if known else "n/a"]},
            {"updated": 1},
        )
    trace.say("researcher", words.passage(rng, 3, 5))
    return trace.ends()


@SEVENTH.honest(8, "claims of an article are checked one by one; most verdicts are the same word")
def claims_checked(rng: Random) -> Run:
    trace = run(rng)
    for number in range(rng.randint(9, 15)):
        claim = words.finding(rng)
        trace.call("checker", "web_search", {"query": claim}, [words.finding(rng) for _ in range(2)])
        trace.call(
            "checker",
            "record_verdict",
            {"claim": number + 1, "verdict": rng.choice(("supported", "supported", "unclear"))},
            {"ok": True},
        )
    return trace.ends()


@SEVENTH.honest(8, "a question is asked in four or five other words before the knowledge base has something")
def rewritten_until_found(rng: Random) -> Run:
    trace = run(rng)
    for _ in range(rng.randint(2, 3)):
        topic = rng.choice(words.TOPICS)
        forms = [
            "{} rules",
            "{} regulation Europe",
            "how is {} taxed",
            "directive on {}",
            "{} exemptions 2025",
            "legal basis {}",
        ]
        for form in words.some(rng, forms, 3, 5):
            trace.call("rag", "retrieve", {"query": form.format(topic), "top_k": 5}, [])
        trace.call(
            "rag",
            "retrieve",
            {"query": f"{topic} overview", "top_k": 5},
            [{"score": round(rng.uniform(0.5, 0.9), 3), "text": words.finding(rng)} for _ in range(3)],
        )
        trace.say("rag", words.passage(rng, 2, 3))
    return trace.ends()


@SEVENTH.honest(8, "a long report is read page by page, with a note for each page")
def report_page_by_page(rng: Random) -> Run:
    trace, file = run(rng), f"reports/{rng.choice(words.TOPICS).replace(' ', '_')}.pdf"
    for page in range(1, rng.randint(12, 20)):
        trace.call("analyst", "read_pdf", {"file": file, "page": page}, words.passage(rng, 2, 5))
        if rng.random() < 0.6:
            trace.call("analyst", "add_note", {"text": words.finding(rng)}, "Note added.")
    trace.say("analyst", words.passage(rng, 3, 5))
    return trace.ends()


@SEVENTH.honest(8, "leads of a fair are enriched and written to the CRM, row by row, each answered by success")
def leads_enriched(rng: Random) -> Run:
    trace = run(rng)
    for _ in range(rng.randint(9, 14)):
        lead, firm = f"00Q{words.hexa(rng, 12)}", rng.choice(words.COMPANIES)
        trace.call("sdr", "web_search", {"query": f"{words.person(rng)} {firm}"}, [words.finding(rng)])
        trace.call(
            "sdr",
            "crm.update",
            {
                "object": "Lead",
                "id": lead,
                "fields": {
                    "Company": firm,
                    "Employees": rng.randint(5, 4000),
                    "Rating": rng.choice(("Hot", "Warm", "Cold")),
                },
            },
            {"success": True, "errors": []},
        )
    return trace.ends()


@SEVENTH.honest(8, "thirty deals are moved to the same stage after a change of process: one id after the other")
def deals_moved(rng: Random) -> Run:
    trace, stage = run(rng), rng.choice(("Qualified", "Closed Lost", "Nurture"))
    for _ in range(rng.randint(20, 32)):
        trace.call("crm-agent", "update_deal", {"id": rng.randrange(10**8, 10**9), "stage": stage}, {"success": True})
    trace.say("crm-agent", f"All deals are in {stage}.")
    return trace.ends()


@SEVENTH.honest(8, "names are screened against a list of sanctions: no match, over and over, once a possible one")
def names_screened(rng: Random) -> Run:
    trace = run(rng)
    for _ in range(rng.randint(14, 24)):
        name = words.person(rng)
        hit = rng.random() < 0.06
        trace.call(
            "kyc",
            "screen_name",
            {"name": name, "birth_year": rng.randint(1950, 2004)},
            {"matches": [{"list": "OFAC", "score": round(rng.uniform(0.7, 0.9), 2)}]} if hit else {"matches": []},
        )
        if hit:
            trace.call("kyc", "open_case", {"name": name}, {"case": rng.randrange(9999)})
    return trace.ends()


@SEVENTH.honest(8, "the checklist of a newcomer: item after item is marked as done, the tool says the same each time")
def newcomer_checklist(rng: Random) -> Run:
    trace, who = run(rng), words.mail(rng)
    items = [
        "laptop",
        "mail account",
        "badge",
        "payroll",
        "VPN",
        "calendar",
        "handbook",
        "buddy",
        "desk",
        "phone",
        "insurance",
        "training",
        "parking",
        "chat groups",
        "password manager",
        "signature",
    ]
    for item in words.some(rng, items, 10, 16):
        if rng.random() < 0.4:
            trace.call(
                "hr-agent",
                "send_request",
                {"team": rng.choice(words.PARTS), "about": f"{item} for {who}"},
                {"ticket": words.ticket(rng)},
            )
        trace.call("hr-agent", "complete_item", {"employee": who, "item": item}, "Checklist updated.")
    return trace.ends()


@SEVENTH.honest(8, "expense reports: read the receipt, ask the policy, approve; the policy mostly answers the same")
def expense_reports(rng: Random) -> Run:
    trace = run(rng)
    for _ in range(rng.randint(7, 12)):
        report, amount = f"EXP-{rng.randrange(99999)}", words.money(rng, 5, 250)
        trace.call(
            "finance",
            "ocr_receipt",
            {"report": report},
            {"vendor": rng.choice(words.COMPANIES), "sum": amount, "date": f"2026-09-{rng.randint(1, 30):02d}"},
        )
        trace.call(
            "finance",
            "check_policy",
            {"category": rng.choice(("meal", "travel", "hotel")), "sum": amount},
            {"allowed": True, "limit": 300},
        )
        trace.call("finance", "approve", {"report": report}, {"status": "approved"})
    return trace.ends()


@SEVENTH.honest(8, "an office's site is asked every ten minutes for an appointment: none, none, none, then one")
def appointment_watched(rng: Random) -> Run:
    trace = run(rng, untimed=0)
    office = f"{rng.choice(('Embassy', 'Registry', 'Clinic'))} {rng.choice(words.COMPANIES)}"
    for _ in range(rng.randint(6, 20)):
        trace.call(
            "booker",
            "browser.open",
            {"url": "https://appointments.example/free"},
            f"{office}\nThere are no appointments available at the moment. Please try again later.",
            pause=600,
        )
    trace.call(
        "booker",
        "browser.open",
        {"url": "https://appointments.example/free"},
        f"{office}\n1 appointment: 2026-12-{rng.randint(1, 24):02d} 09:{rng.randrange(10, 60)}",
        pause=600,
    )
    trace.call("booker", "browser.click", {"text": "Book"}, "Your appointment is confirmed.")
    return trace.ends()


@SEVENTH.honest(8, "a catalogue is scrolled and read till the ware is found: the act is the same, new wares each time")
def catalogue_scrolled(rng: Random) -> Run:
    trace = run(rng)
    trace.call("shopper", "go_to_url", {"url": "https://shop.example/c/home"}, "Navigated")
    for _ in range(rng.randint(6, 12)):
        trace.call("shopper", "scroll_down", {}, "Scrolled down the page by one page")
        trace.call(
            "shopper",
            "extract_content",
            {"goal": "names and prices of wares on screen"},
            [f"{rng.choice(words.COMPANIES)} {rng.choice(words.WARES)}: {words.money(rng)}" for _ in range(4)],
        )
    trace.call("shopper", "click_element", {"index": rng.randrange(90)}, "Clicked: Add to cart")
    return trace.ends()


@SEVENTH.alike(10, "invitations to partners: each has its own name, firm and hour, else the letters are alike")
def partner_invitations(rng: Random) -> Run:
    trace, day = run(rng), f"{rng.randint(1, 28)} March"
    for _ in range(rng.randint(9, 14)):
        who, firm = words.person(rng), rng.choice(words.COMPANIES)
        trace.call(
            "marketing",
            "send_email",
            {
                "to": words.mail(rng),
                "body": (
                    f"Dear {who}, we would be glad to see you and your colleagues of {firm} at our partner day on "
                    f"{day}. Your "
                    f"session with {words.person(rng)} begins at {rng.randint(9, 17)}:{rng.choice(('00', '30'))}. "
                    f"Please tell "
                    "us by the end of the month whether you can come, and what you would like to eat."
                ),
            },
            {"status": "queued", "note": f"Mail to {who} at {firm} was queued for delivery this afternoon."},
        )
    return trace.ends()


@SEVENTH.alike(10, "follow-ups to leads that have not answered: a personal line each, then the same offer and question")
def sales_follow_ups(rng: Random) -> Run:
    trace = run(rng)
    for _ in range(rng.randint(9, 13)):
        who, firm, part = rng.choice(words.GIVEN), rng.choice(words.COMPANIES), rng.choice(words.PARTS)
        trace.call(
            "sdr",
            "send_email",
            {
                "to": words.mail(rng),
                "body": (
                    f"Hi {who}, I wanted to follow up on my note about {part} at {firm}. Teams like yours save about "
                    f"{rng.randint(3, 12)} hours a week with our platform, and we could show you how in a short call. "
                    f"Would "
                    f"{rng.choice(('Tuesday', 'Wednesday', 'Thursday'))} at {rng.randint(9, 16)} suit you, or is "
                    f"somebody else "
                    f"at {firm} the better person to ask about {part}?"
                ),
            },
            {"message": f"Email to {who} at {firm} sent; it is tracked for opens and replies in the sequence."},
        )
    return trace.ends()


@SEVENTH.alike(10, "notices to tenants of the same works: other flats, days and rooms in the same sentences")
def notices_of_works(rng: Random) -> Run:
    trace, firm = run(rng), rng.choice(words.COMPANIES)
    for flat in rng.sample(range(1, 90), rng.randint(9, 14)):
        who, room = words.person(rng), rng.choice(("kitchen", "bathroom", "hall", "cellar"))
        trace.call(
            "property",
            "send_letter",
            {
                "to": f"{who}, flat {flat}",
                "text": (
                    f"Dear {who}, on {rng.randint(1, 28)} May people of {firm} replace the pipes in your {room}. The "
                    f"water "
                    f"is off from {rng.randint(7, 9)} to {rng.randint(13, 17)} that day. Please clear the {room} the "
                    f"evening "
                    f"before, and ask {words.person(rng)} for a key box if you are not at home."
                ),
            },
            f"Letter to {who} about the works in the {room} was printed and handed to the post.",
        )
    return trace.ends()


@SEVENTH.honest(8, "somebody talks with the handbook: question after question, looked up, answered, thanks in between")
def talk_with_the_handbook(rng: Random) -> Run:
    trace = run(rng)
    for _ in range(rng.randint(5, 9)):
        asked = f"How do we handle {rng.choice(words.WHATS)} in {rng.choice(words.PARTS)}?"
        trace.say("user", rng.choice(("", "Thanks! ", "Ok. ", "And ")) + asked, "handbook", pause=rng.uniform(20, 200))
        trace.call(
            "handbook",
            "retrieve",
            {"query": asked, "k": 4},
            [{"text": words.remark(rng), "score": round(rng.uniform(0.4, 0.9), 3)} for _ in range(3)],
        )
        trace.say("handbook", f"{words.remark(rng)} {words.remark(rng)} Does that help?", "user")
    trace.say("user", "Yes, thanks.", "handbook")
    return trace.ends()


@SEVENTH.honest(8, "records that somebody else changes at the same time: conflict, read again, write again")
def records_in_conflict(rng: Random) -> Run:
    trace = run(rng)
    for _ in range(rng.randint(3, 5)):
        deal, version, to = rng.randrange(10**6), rng.randint(3, 40), rng.choice(("Won", "Lost", "Open"))
        for tries in range(rng.randint(0, 3), -1, -1):
            trace.call(
                "crm-agent", "get_deal", {"id": deal}, {"id": deal, "version": version, "owner": words.person(rng)}
            )
            if tries:
                trace.call(
                    "crm-agent",
                    "put_deal",
                    {"id": deal, "if_version": version, "status": to},
                    error={"status": 409, "message": "Version conflict: the record has been changed"},
                )
                version += rng.randint(1, 3)
            else:
                trace.call(
                    "crm-agent",
                    "put_deal",
                    {"id": deal, "if_version": version, "status": to},
                    {"id": deal, "version": version + 1},
                )
    return trace.ends()
