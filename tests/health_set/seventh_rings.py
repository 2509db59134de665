"""The seventh set, part six: loops at the CRM and in browsers, of routines, and of several agents with each other.

In: a random generator. Out: traces. As in part four: `loop_begins` says how many rows a round has, and three periods
are over with row `start + 4 * period`, before round 5 begins.
"""

from random import Random

from tests.health_set import seventh_words as words
from tests.health_set.sets import SEVENTH
from tests.health_set.seventh_loops import rounds
from tests.health_set.seventh_words import Run, code_work, desk_work, run


@SEVENTH.looping(6, "the CRM refuses a record by a rule of its own; the record is read, and sent once more as it was")
def rule_of_the_crm(rng: Random) -> Run:
    trace, deal, stage = run(rng), f"006{words.hexa(rng, 12)}", rng.choice(("Proposal", "Closed Won", "Negotiation"))
    desk_work(trace, "crm-agent", 2, 4)
    record = {"Id": deal, "StageName": "Qualified", "CloseDate": None, "Amount": rng.randrange(10**5)}
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        trace.call("crm-agent", "crm.get", {"object": "Opportunity", "id": deal}, record)
        trace.call(
            "crm-agent",
            "crm.update",
            {"object": "Opportunity", "id": deal, "fields": {"StageName": stage}},
            error={
                "errorCode": "FIELD_CUSTOM_VALIDATION_EXCEPTION",
                "fields": [],
                "message": "Next step must be filled in before a stage can change.",
            },
        )
    return trace


@SEVENTH.looping(6, "a lead is made, looked for in an index that lags, not found, and made again under another id")
def lead_made_again(rng: Random) -> Run:
    trace, who, who_mail = run(rng), words.person(rng), words.mail(rng)
    desk_work(trace, "sdr", 2, 4)
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        trace.call(
            "sdr",
            "crm.create",
            {"object": "Lead", "fields": {"Name": who, "Email": who_mail}},
            {"success": True, "id": f"00Q{words.hexa(rng, 12)}"},
        )
        trace.call("sdr", "crm.search", {"object": "Lead", "email": who_mail}, {"totalSize": 0, "records": []})
    return trace


@SEVENTH.looping(5, "a mail bounces; the address is looked up, it is the same one; the mail is sent, it bounces")
def mail_bounces(rng: Random) -> Run:
    trace, to = run(rng, untimed=0.15), words.mail(rng)
    desk_work(trace, "assistant", 1, 3)
    contact = {"email": to, "name": words.person(rng)}
    text = words.finding(rng)
    trace.loop_begins(3)
    for _ in range(rounds(rng)):
        trace.call("assistant", "get_contact", {"name": contact["name"]}, contact)
        trace.call(
            "assistant",
            "send_email",
            {"to": to, "subject": "Your request", "body": text},
            {"id": f"<{words.uid(rng)}@mail.example>", "status": "queued"},
        )
        trace.call(
            "assistant",
            "check_inbox",
            {"unread": True},
            [
                {
                    "from": "mailer-daemon@mail.example",
                    "date": trace.stamp(),
                    "subject": "Undelivered Mail Returned to Sender",
                    "body": f"550 5.1.1 <{to}>: User unknown",
                }
            ],
        )
    return trace


# github.com/kortix-ai/suna/issues/135
@SEVENTH.looping(5, "the banner about cookies is accepted, the page loads anew, and the banner is there")
def banner_is_back(rng: Random) -> Run:
    trace, site = run(rng), f"https://www.{rng.choice(words.COMPANIES).split()[0].lower()}.example/"
    desk_work(trace, "browser", 1, 2)
    page = f"We value your privacy. [12]<button>Accept all</button> {words.complaint(rng)}"
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        trace.call("browser", "click_element", {"index": 12}, "🖱️ Clicked button with index 12: Accept all")
        trace.call("browser", "get_state", {}, {"url": f"{site}?t={int(trace.now_s * 1000)}", "elements": page})
    return trace


# github.com/browser-use/browser-use/issues/191
@SEVENTH.looping(6, "down the page, 'success', down the page, 'success': nothing is ever read")
def scrolls_and_succeeds(rng: Random) -> Run:
    trace = run(rng)
    desk_work(trace, "browser", 1, 3)
    trace.call("browser", "go_to_url", {"url": f"https://{words.hexa(rng, 6)}.example"}, "Navigated")
    trace.loop_begins(2)
    for number in range(rng.randint(10, 20)):
        trace.say(
            "browser",
            f"Step {number + 4}. Eval: Success. Memory: Scrolled down the page. Next goal: "
            f"{rng.choice(('Scroll down again to see more.', 'Scroll down to find more.'))}",
        )
        trace.call("browser", "scroll_down", {}, "🔍  Scrolled down the page by one page")
    return trace


# github.com/browser-use/browser-use/issues/554
@SEVENTH.looping(5, "an element cannot be clicked, the page may have changed; another index, the same words")
def element_not_clickable(rng: Random) -> Run:
    trace = run(rng)
    desk_work(trace, "browser", 1, 3)
    trace.loop_begins(3)
    for _ in range(rng.randint(22, 32)):
        index = rng.randint(40, 75)
        trace.call(
            "browser",
            "click_element",
            {"index": index},
            error=f"Element not clickable with index {index} - most likely the page changed",
        )
    return trace


@SEVENTH.looping(5, "a calendar is turned to the next month, the day is not there; to the one before; to the next")
def calendar_to_and_fro(rng: Random) -> Run:
    trace, month = run(rng), rng.randrange(10)
    months = (
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    )
    desk_work(trace, "browser", 1, 2)
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        trace.call("browser", "click", {"selector": ".datepicker .next"}, f"{months[month + 1]} 2027\nMo Tu We Th Fr")
        trace.call("browser", "click", {"selector": ".datepicker .prev"}, f"{months[month]} 2027\nMo Tu We Th Fr")
    return trace


@SEVENTH.looping(5, "a form is filled in and sent, the same field is said to be missing, it is filled in and sent")
def field_is_missing(rng: Random) -> Run:
    trace, who = run(rng), words.person(rng)
    desk_work(trace, "browser", 1, 2)
    fields = (("#name", who), ("#email", words.mail(rng)), ("#city", rng.choice(words.FAMILY)))
    trace.loop_begins(4)
    for _ in range(rounds(rng)):
        for selector, value in fields:
            trace.call("browser", "fill", {"selector": selector, "value": value}, "ok")
        trace.call("browser", "click", {"selector": "button[type=submit]"}, "Please select a state or province.")
    return trace


# github.com/anthropics/claude-code/issues/50554
@SEVENTH.looping(5, "a routine of the past is set up again after each compaction; the runs it minds are long complete")
def routine_of_the_past(rng: Random) -> Run:
    trace = run(rng, untimed=0.15)
    ids = [rng.randrange(10**13, 10**14) for _ in range(3)]
    code_work(trace, "coder", 2, 4)
    trace.loop_begins(3)
    for _ in range(rounds(rng)):
        trace.call(
            "coder",
            "CronCreate",
            {"cron": "*/5 * * * *", "prompt": f"Monitor eval runs {ids}"},
            {"job": words.hexa(rng, 8), "created": trace.stamp()},
            pause=rng.uniform(60, 900),
        )
        trace.call("coder", "get_runs", {"ids": ids}, [{"id": one, "state": "COMPLETED"} for one in ids])
        trace.say(
            "coder",
            rng.choice(
                (
                    "All three runs are complete. I will keep watching them.",
                    "The runs have completed; monitoring continues.",
                    "Status: all completed. Next check in five minutes.",
                )
            ),
        )
    return trace


# github.com/crewAIInc/crewAI/issues/330, 6414
@SEVENTH.looping(7, "writer and researcher delegate the task to each other, in new words each time; nobody does it")
def delegated_to_and_fro(rng: Random) -> Run:
    trace, topic = run(rng), rng.choice(words.TOPICS)
    desk_work(trace, "researcher", 1, 3)
    whys = (
        "I need the facts before I can write",
        "the tone is for you to decide",
        "please finish it in your style",
        "this needs sources first",
        "you know the subject better",
        "as the expert you should take it from here",
        "the outline must come from you",
        "we want a result of high quality",
    )
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        for one, other in (("writer", "researcher"), ("researcher", "writer")):
            trace.call(
                one,
                "Delegate work to coworker",
                {"task": f"Write an article about {topic}", "coworker": other, "context": f"{rng.choice(whys)}."},
                f"Delegated to {other}.",
            )
    return trace


# github.com/crewAIInc/crewAI/issues/2838
@SEVENTH.looping(6, "a manager gives out a task that is done; the worker reports the same result once more, and so on")
def manager_asks_again(rng: Random) -> Run:
    trace, topic = run(rng), rng.choice(words.TOPICS)
    result = words.passage(rng, 2, 4)
    desk_work(trace, "analyst", 2, 4)
    orders = (
        f"Please summarise what is known about {topic}.",
        f"I need a summary on {topic}, please.",
        f"Could you sum up {topic}?",
        f"Activate: summary of {topic}.",
        f"Next: summarise {topic}.",
    )
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        trace.say("manager", rng.choice(orders), "analyst")
        trace.say("analyst", rng.choice(("", "As requested: ", "Summary: ", "Here it is: ")) + result, "manager")
    return trace


# github.com/ShaftHQ/SHAFT_ENGINE/issues/4083
@SEVENTH.looping(5, "a helper whose work is merged is woken again in other words; it looks, declines, is woken again")
def woken_again(rng: Random) -> Run:
    trace, number = run(rng), rng.randrange(1000, 9000)
    code_work(trace, "helper", 3, 6)
    asks = (
        "Manage the open bugs, with at most four agents.",
        "Please take over the whole backlog of bugs.",
        "Delegate the bug backlog; keep to the cap of four.",
        "Work through all open bug reports.",
        "Own the open bugs end to end.",
        "As agreed, coordinate the backlog under the cap.",
    )
    nos = (
        "My work is done and merged. The backlog is not mine.",
        "I was started for one change; that is merged.",
        "I decline: this is for the main thread.",
        "Same request, other words; my answer is no.",
        "That is outside of what I was started for.",
    )
    trace.loop_begins(4)
    for _ in range(rng.randint(7, 10)):
        trace.say("harness", rng.choice(asks), "helper")
        trace.call("helper", "bash", {"command": f"gh pr view {number} --json state"}, {"state": "MERGED"})
        trace.call("helper", "bash", {"command": "git status --short"}, "")
        trace.say("helper", rng.choice(nos), "harness")
    return trace


# github.com/bentleypark/aiwatch/issues/1298, github.com/obra/superpowers/issues/1218
@SEVENTH.looping(7, "a reviewer wants it this way, then that way, then this way; the coder obeys, the tests pass")
def reviewer_to_and_fro(rng: Random) -> Run:
    trace, file, name = run(rng), words.path(rng, ".py"), f"{rng.choice(words.DOES)}_{rng.choice(words.PARTS)}"
    code_work(trace, "coder", 2, 4)
    inline, apart = words.snippet(rng, 3, 5), words.snippet(rng, 4, 6)
    wants = (
        (f"Please extract this into {name}().", f"This should be a function {name} of its own.", apart, inline),
        (f"{name}() is used once; please inline it.", f"{name}() for one caller is too much.", inline, apart),
    )
    trace.loop_begins(6)
    for _ in range(rng.randint(7, 9)):
        for *said, new, old in wants:
            trace.say("reviewer", f"Changes requested. {rng.choice(said)}", "coder")
            trace.call(
                "coder", "edit_file", {"path": file, "old_string": old, "new_string": new}, "The file has been updated."
            )
            trace.call("coder", "bash", {"command": "make test"}, f"211 passed in {rng.uniform(3, 9):.2f}s")
    return trace


@SEVENTH.looping(6, "a critic objects to the same two things in other words; the writer hands in nearly the same draft")
def same_two_objections(rng: Random) -> Run:
    trace, topic = run(rng), rng.choice(words.TOPICS)
    desk_work(trace, "writer", 1, 3)
    lines = [words.finding(rng) for _ in range(6)]
    objections = (
        "The draft lacks a conclusion, and its claims need sources.",
        "I miss sources for the claims, and there is no conclusion.",
        "Sources are missing. It also ends without a conclusion.",
        "Still no conclusion and no sources.",
        "Please add sources, and conclude the text.",
        "Two points: a conclusion, and evidence for what is claimed.",
    )
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        place = rng.randrange(6)
        lines[place] = lines[place].replace(" a ", " the ", 1) if " a " in lines[place] else lines[place][:-1] + "!"
        trace.say("writer", f"Revised draft on {topic}: " + " ".join(lines), "critic")
        trace.say("critic", rng.choice(objections), "writer")
    return trace


# github.com/microsoft/autogen/issues/1406, 254
@SEVENTH.looping(6, "the question is answered; 'CONTINUE', says the proxy, and the assistant asks how it may help")
def continue_says_the_proxy(rng: Random) -> Run:
    trace = run(rng)
    desk_work(trace, "assistant", 2, 3)
    trace.say("assistant", words.passage(rng, 1, 2), "user_proxy")
    trace.loop_begins(2)
    for _ in range(rng.randint(9, 16)):
        trace.say("user_proxy", "CONTINUE", "assistant")
        trace.say(
            "assistant",
            rng.choice(
                (
                    "I'm here to assist you further. How may I help you?",
                    "It seems there might be a misunderstanding. Please let me know how I can help.",
                    "If you have any more questions, feel free to ask.",
                    "Thank you! Is there anything else I can do for you?",
                    "I'm glad I could help. Do you have other questions?",
                )
            ),
            "user_proxy",
        )
    return trace


# github.com/langchain-ai/langgraph-swarm-py/issues/6
@SEVENTH.looping(7, "three desks hand a customer on in a ring; each says that the next one is right for this")
def handed_round_three_desks(rng: Random) -> Run:
    trace, ring = run(rng), words.some(rng, ("triage", "billing", "tech", "sales", "returns"), 3, 3)
    trace.say("customer", words.complaint(rng), ring[0])
    trace.loop_begins(3)
    for _ in range(rounds(rng)):
        for place, one in enumerate(ring):
            other = ring[(place + 1) % 3]
            trace.call(
                one,
                f"transfer_to_{other}",
                {
                    "reason": rng.choice(
                        (
                            f"{other} handles this.",
                            "Not my area.",
                            f"The customer needs {other}.",
                            "Better placed there.",
                            "They have the data for it.",
                        )
                    )
                },
                f"Successfully transferred to {other}",
            )
    return trace


# github.com/openai/codex/issues/37964
@SEVENTH.looping(5, "two bots on a pull request answer each other that their plan's limit is reached")
def two_bots_out_of_limits(rng: Random) -> Run:
    trace, number = run(rng, untimed=0.15), rng.randrange(20, 900)
    code_work(trace, "claude-bot", 1, 3)
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        for one, other in (("codex-bot", "claude-bot"), ("claude-bot", "codex-bot")):
            trace.call(
                one,
                "create_comment",
                {
                    "issue": number,
                    "body": (f"@{other} I have reached my usage limit for reviews. To continue, see your plan."),
                },
                {"id": rng.randrange(10**9), "created_at": trace.stamp()},
                pause=rng.uniform(5, 40),
            )
    return trace


@SEVENTH.looping(5, "two agents each wait for the other's part, and tell each other so")
def each_waits_for_the_other(rng: Random) -> Run:
    trace = run(rng)
    code_work(trace, "backend", 1, 2)
    code_work(trace, "frontend", 1, 2)
    one = (
        "I need your form of the data before I can go on.",
        "Waiting for your types.",
        "Still waiting for the form.",
        "As soon as I have your types I will start.",
        "Please send the form of the data first.",
    )
    other = (
        "I wait for your endpoint, then I can define the types.",
        "First I need the endpoint.",
        "Ready when the endpoint is there.",
        "Your endpoint comes first, then my types.",
        "Where is the endpoint?",
    )
    trace.loop_begins(2)
    for _ in range(rng.randint(9, 16)):
        trace.say("backend", rng.choice(one), "frontend")
        trace.say("frontend", rng.choice(other), "backend")
    return trace


@SEVENTH.looping(5, "two assistants arrange a meeting: each proposes the same two slots that the other has declined")
def same_two_slots(rng: Random) -> Run:
    trace, hour = run(rng, untimed=0.15), rng.randint(9, 15)
    mine, yours = f"Tuesday {hour}:00", f"Thursday {hour + 1}:30"
    desk_work(trace, "assistant-a", 1, 3)
    trace.loop_begins(4)
    for _ in range(rng.randint(7, 9)):
        trace.say("assistant-a", f"Would {mine} suit?", "assistant-b", pause=rng.uniform(30, 600))
        trace.call("assistant-b", "free_busy", {"slot": mine}, "busy")
        trace.say("assistant-b", f"Sorry, not {mine}. How about {yours}?", "assistant-a", pause=rng.uniform(30, 600))
        trace.call("assistant-a", "free_busy", {"slot": yours}, "busy")
    return trace
