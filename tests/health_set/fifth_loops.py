"""The fifth set, part three: loops as people report them of agents in public trackers, each after some real work.

In: a random generator. Out: traces. What changes from round to round is what changes there, too: ids, times, durations,
tokens, and the words of whoever apologises.
"""

from random import Random

from tests.health_set import fifth_words as words
from tests.health_set.fifth_words import Session, session
from tests.health_set.sets import FIFTH

ROUNDS = 12
TALK = 10


def _begun(rng: Random, agent: str) -> Session:
    """A session in which somebody has already done something, seldom nothing, now and then much."""
    trace = session(rng)
    for _ in range(rng.choice((0, 2, 4, 7, 12, 25))):
        kind = rng.random()
        if kind < 0.4:
            trace.call(agent, "read_file", {"path": words.files(rng, 1, 1)[0]}, words.report(rng, 2, 5))
        elif kind < 0.7:
            trace.call(
                agent,
                "search",
                {"q": f"{words.pick(rng, words.TOPICS)} {words.pick(rng, words.PLACES)}"},
                [words.fact(rng) for _ in range(3)],
            )
        else:
            trace.call(agent, "note", {"text": words.fact(rng)}, "ok")
    return trace


@FIFTH.looping(9, "a reviewer calls `true` in a shell instead of writing its review, dozens of times")
def no_operation(rng: Random) -> Session:
    trace = _begun(rng, "reviewer")
    trace.loop_begins()
    for _ in range(rng.randint(21, 41)):
        trace.call("reviewer", "bash", {"command": "true"}, "")
    return trace.ends()


@FIFTH.looping(9, "an edit whose text is not in the file any more, after an apology in other words each time")
def edit_of_the_past(rng: Random) -> Session:
    trace, path, old = _begun(rng, "coder"), words.files(rng, 1, 1)[0], words.fact(rng)
    sorry = (
        "Let me try that edit again.",
        "The edit failed, I will retry with the exact text.",
        "I apologise, I will now apply the change correctly.",
        "I see the problem now. Applying the fix.",
        "Second attempt at the replacement.",
        "I'll make the change once more, carefully.",
    )
    trace.loop_begins(2)
    for _ in range(ROUNDS):
        trace.say("coder", rng.choice(sorry))
        trace.call(
            "coder",
            "replace",
            {"path": path, "old_string": old, "new_string": old.upper()},
            error="Failed to edit, 0 occurrences found for old_string. No edits made.",
        )
    return trace.ends()


@FIFTH.looping(9, "three tools that list and describe, one after the other, over and over; the lists are empty")
def describing_tools(rng: Random) -> Session:
    trace, kind = _begun(rng, "builder"), words.pick(rng, words.MODULES)
    told = words.fact(rng)
    trace.loop_begins(3)
    for _ in range(ROUNDS):
        trace.call("builder", "list_integration_resources", {"type": kind}, [])
        trace.call("builder", "describe_trigger", {"name": f"on_{kind}"}, {"description": told})
        trace.call("builder", "list_components", {}, {"components": [], "request_id": words.uuid(rng)})
    return trace.ends()


@FIFTH.looping(9, "a token that is refreshed and refused: the scope is missing, and a new one has it no more")
def scope_missing(rng: Random) -> Session:
    trace, bearer = _begun(rng, "crm"), words.token(rng, 32)
    account = f"A-{rng.randint(100, 999)}"
    trace.loop_begins(2)
    for _ in range(ROUNDS):
        trace.call(
            "crm",
            "get_account",
            {"id": account, "access_token": bearer},
            error={"status": 401, "message": "insufficient_scope", "request_id": words.uuid(rng)},
        )
        bearer = words.token(rng, 32)
        trace.call("crm", "refresh_token", {"client": "squad"}, {"access_token": bearer, "expires_in": 3600})
    return trace.ends()


@FIFTH.looping(9, "a plan that is written again in other words; the worker lacks the same access each time")
def plan_again(rng: Random) -> Session:
    trace, goal = _begun(rng, "planner"), words.pick(rng, words.THINGS)
    first = ("Get access to", "Obtain access to", "Request access to", "Make sure we have access to")
    then = ("export the records of the", "pull all records of the", "extract the records of the")
    trace.loop_begins(3)
    for _ in range(ROUNDS):
        plan = [
            f"{rng.choice(first)} the {goal} system",
            f"{rng.choice(then).capitalize()} {goal}",
            "Check the totals",
            rng.choice(("Write the summary", "Summarise the findings")),
        ]
        trace.call("planner", "write_todos", {"todos": plan}, "Updated todo list")
        trace.say("planner", f"Please {rng.choice(then)} {goal}.", "worker")
        trace.say(
            "worker",
            rng.choice(
                (
                    f"I have no access to the {goal} system. Could you plan for that?",
                    f"The {goal} system refuses me; the plan needs a step for access.",
                    f"Without access to the {goal} system I cannot start.",
                )
            ),
            "planner",
        )
    return trace.ends()


@FIFTH.looping(9, "a draft sent back with the same objection; the writer moves words about and hands it in again")
def same_objection(rng: Random) -> Session:
    trace, sentences = _begun(rng, "writer"), [words.fact(rng) for _ in range(6)]
    lacking = words.pick(rng, words.THINGS)
    trace.loop_begins(2)
    for number in range(ROUNDS):
        at = rng.randrange(6)
        body = [*sentences[:at], sentences[at].replace("The", rng.choice(("This", "The", "Our"))), *sentences[at + 1 :]]
        trace.call("writer", "submit_draft", {"text": " ".join(body)}, {"submission": number + 1})
        trace.say(
            "checker",
            rng.choice(
                (
                    f"The draft still does not mention the {lacking}. Please revise.",
                    f"Rejected: there is nothing about the {lacking}. Revise, please.",
                    f"As before, the {lacking} is missing. Please revise the draft.",
                )
            ),
            "writer",
        )
    return trace.ends()


@FIFTH.looping(9, "a search that finds nothing, rephrased and rephrased (a round: three)")
def rephrased_in_vain(rng: Random) -> Session:
    trace = _begun(rng, "researcher")
    who, what = words.pick(rng, words.COMPANIES), words.pick(rng, words.THINGS)
    around = [
        "",
        "official",
        "latest",
        "2026",
        "report",
        "pdf",
        "statement",
        "details",
        "information about",
        "news",
        "announcement",
        "press release",
        "exact",
        "number",
        "overview",
        "data",
    ]
    trace.loop_begins(3)
    for _ in range(ROUNDS * 3):
        extra = rng.sample(around, 2)
        trace.call(
            "researcher",
            "web_search",
            {"query": f"{extra[0]} {who} {what} {extra[1]}".strip()},
            {"results": [], "took_ms": rng.randint(80, 900)},
        )
    return trace.ends()


@FIFTH.looping(9, "one question searched in other words; the same three hits, none of them opened (a round: three)")
def spiral(rng: Random) -> Session:
    trace, topic = _begun(rng, "researcher"), words.pick(rng, words.TOPICS)
    hits = [{"url": f"https://example.org/{words.token(rng, 6)}", "title": words.fact(rng)} for _ in range(3)]
    ways = [
        "what is",
        "explain",
        "overview of",
        "state of",
        "latest on",
        "research about",
        "facts on",
        "summary of",
        "background of",
        "details of",
        "analysis of",
        "introduction to",
    ]
    trace.loop_begins(3)
    for _ in range(ROUNDS * 3):
        query = f"{rng.choice(ways)} {topic} {rng.choice(('2025', '2026', 'today', 'in depth', ''))}".strip()
        trace.call("researcher", "web_search", {"query": query}, rng.sample(hits, 3))
    return trace.ends()


@FIFTH.looping(9, "a customer transferred from desk to desk and round again; nobody looks anything up")
def passed_on(rng: Random) -> Session:
    desks = rng.sample(["triage", "billing", "technical", "sales", "returns"], rng.randint(2, 4))
    trace = _begun(rng, desks[0])
    trace.loop_begins(2 * len(desks))
    for _ in range(ROUNDS):
        for at, desk in enumerate(desks):
            other = desks[(at + 1) % len(desks)]
            trace.say(
                desk,
                rng.choice(
                    (
                        f"This is a matter for {other}.",
                        f"{other} can help with that better.",
                        f"I am passing this on to {other}.",
                    )
                ),
                "customer",
            )
            trace.call(desk, f"transfer_to_{other}", {}, f"Transferred to {other}. Adopt the persona immediately.")
    return trace.ends()


@FIFTH.looping(9, "agents that thank each other when the work is done (a round: ten messages)")
def gratitude(rng: Random) -> Session:
    crew = words.several(rng, words.PEOPLE, 2, 3)
    trace = _begun(rng, crew[0])
    kind = (
        "Thank you, {0}! It was a pleasure working with you.",
        "You're welcome, {0}! Great teamwork.",
        "Likewise, {0}. Do not hesitate to reach out.",
        "Glad I could help, {0}. Have a great day!",
        "Thanks again, {0}! Looking forward to the next project.",
        "The pleasure was mine, {0}.",
        "Wonderful collaboration, {0}! All the best.",
        "I appreciate that, {0}. Take care!",
    )
    trace.loop_begins(TALK)
    for number in range(8 * TALK):
        one, other = crew[number % len(crew)], crew[(number + 1) % len(crew)]
        trace.say(one, rng.choice(kind).format(other.split()[0]), other)
    return trace.ends()


@FIFTH.looping(9, "a list whose next page is the page it is on: the cursor does not move")
def cursor_that_stays(rng: Random) -> Session:
    trace, cursor = _begun(rng, "importer"), words.token(rng, 20)
    rows = [{"id": rng.randint(1000, 9999), "name": words.pick(rng, words.PEOPLE)} for _ in range(4)]
    trace.loop_begins()
    for _ in range(2 * ROUNDS):
        trace.call(
            "importer",
            "list_contacts",
            {"cursor": cursor, "limit": 4},
            {
                "data": rows,
                "next_cursor": cursor,
                "has_more": True,
                "request_id": words.uuid(rng),
                "served_at": words.clock(trace),
            },
        )
    return trace.ends()


@FIFTH.looping(9, "a line changed, one test fails; changed back, another test fails; changed again")
def patch_flip(rng: Random) -> Session:
    trace, path = _begun(rng, "coder"), words.files(rng, 1, 1)[0]
    one, other, passed = words.fact(rng), words.fact(rng), rng.randint(20, 300)
    trace.loop_begins(4)
    for _ in range(ROUNDS):
        for old, new, test in ((one, other, "test_legacy"), (other, one, "test_modern")):
            trace.call("coder", "edit", {"path": path, "old": old, "new": new}, "1 replacement")
            trace.call(
                "coder",
                "bash",
                {"command": "pytest -q"},
                f"FAILED tests/{test}.py::{test} - AssertionError\n"
                f"=== 1 failed, {passed} passed in {rng.uniform(1, 9):.2f}s ===",
            )
    return trace.ends()


@FIFTH.looping(9, "'let me try again' with another id: a draft order made and refused, made and refused")
def other_id(rng: Random) -> Session:
    trace, item = _begun(rng, "buyer"), words.pick(rng, words.THINGS)
    quantity = rng.randint(2, 90)
    trace.loop_begins(2)
    for _ in range(ROUNDS):
        order = f"ord_{words.token(rng, 12)}"
        trace.call(
            "buyer",
            "create_order",
            {"item": item, "quantity": quantity, "idempotency_key": words.uuid(rng)},
            {"order": order, "state": "draft"},
        )
        trace.call(
            "buyer",
            "submit_order",
            {"order": order},
            error=f"422 cost centre is required (request {words.token(rng, 10)})",
        )
    return trace.ends()


@FIFTH.looping(9, "two who each wait for what the other is to send first, and say so (a round: ten messages)")
def both_wait(rng: Random) -> Session:
    trace, mine, yours = _begun(rng, "analyst"), words.pick(rng, words.THINGS), words.pick(rng, words.PLACES)
    asks = (
        "I am waiting for your outline before I run the numbers for {1}.",
        "Still waiting for the outline, {1} is on hold.",
        "As soon as I have your outline I can start on {1}.",
        "Any news of the outline? I cannot begin with {1}.",
    )
    replies = (
        "I need your numbers on the {0} before I can write the outline.",
        "The outline depends on your {0} numbers.",
        "I will send the outline once the {0} numbers are here.",
        "Waiting for the {0} numbers on my side.",
    )
    trace.loop_begins(TALK)
    for _ in range(4 * TALK):
        trace.say("analyst", rng.choice(asks).format(mine, yours), "author", pause=rng.uniform(2, 40))
        trace.say("author", rng.choice(replies).format(mine, yours), "analyst", pause=rng.uniform(2, 40))
    return trace.ends()


@FIFTH.looping(9, "a button that does nothing: clicked, the page looked at, clicked; every picture has its own id")
def dead_button(rng: Random) -> Session:
    trace, index, waits = _begun(rng, "browser"), rng.randint(5, 90), rng.random() < 0.4
    page = {"url": f"https://shop.example/{words.token(rng, 5)}", "text": words.report(rng, 3, 5)}
    trace.loop_begins(3 if waits else 2)
    for _ in range(ROUNDS):
        trace.call("browser", "click_element", {"index": index}, f"Clicked element with index {index}")
        if waits:
            trace.call("browser", "wait", {"seconds": 3}, "Waited 3 s", pause=3)
        trace.call("browser", "get_state", {}, page | {"screenshot": words.uuid(rng)})
    return trace.ends()


@FIFTH.looping(9, "an orchestrator gives its task to another orchestrator, and that one to the next")
def delegated_down(rng: Random) -> Session:
    trace, job = _begun(rng, "orchestrator"), words.report(rng, 1, 2)
    listing = "\n".join(words.files(rng, 4, 8))
    trace.loop_begins(2)
    for depth in range(ROUNDS + 6):
        agent = f"orchestrator-{words.token(rng, 4)}"
        trace.call(agent, "list_files", {"path": "."}, listing)
        trace.call(
            agent,
            "task",
            {
                "subagent": "orchestrator",
                "depth": depth + 1,
                "prompt": f"{rng.choice(('Please do this:', 'Your task:', 'Task:'))} {job}",
            },
        )
    return trace.ends()


@FIFTH.looping(9, "a task that is done: tests, linter, git status, 'all done', and all of it again")
def done_again(rng: Random) -> Session:
    trace, passed = _begun(rng, "coder"), rng.randint(10, 400)
    ends = (
        "The task is complete.",
        "All changes are in place, the task is done.",
        "Everything passes. I am finished.",
        "I have completed the task.",
        "The work is complete and verified.",
    )
    trace.loop_begins(4)
    for _ in range(ROUNDS):
        trace.call("coder", "bash", {"command": "pytest -q"}, f"{passed} passed in {rng.uniform(1, 20):.2f}s")
        trace.call("coder", "bash", {"command": "ruff check ."}, "All checks passed!")
        trace.call("coder", "bash", {"command": "git status"}, "nothing to commit, working tree clean")
        trace.say("coder", rng.choice(ends))
    return trace.ends()


@FIFTH.looping(9, "a module that is installed for one Python and missing in another: installed again, run again")
def already_installed(rng: Random) -> Session:
    trace, module = _begun(rng, "coder"), rng.choice(("pandas", "yaml", "lxml", "numpy", "httpx"))
    trace.loop_begins(2)
    for _ in range(ROUNDS):
        trace.call(
            "coder",
            "bash",
            {"command": f"pip install {module}"},
            f"Requirement already satisfied: {module} in /opt/py311/lib (took {rng.uniform(0.4, 4):.1f}s)",
        )
        trace.call(
            "coder", "bash", {"command": "python main.py"}, error=f"ModuleNotFoundError: No module named '{module}'"
        )
    return trace.ends()


@FIFTH.looping(9, "a field that may not be written: written, refused, read as it was; some beside a colleague")
def read_only_field(rng: Random) -> Session:
    trace, account = _begun(rng, "crm"), f"001{words.token(rng, 9)}"
    record = {"id": account, "owner": words.pick(rng, words.PEOPLE), "notes": words.fact(rng)}
    owner, beside = words.pick(rng, words.PEOPLE), rng.random() < 0.5
    trace.loop_begins(3 if beside else 2)
    for _ in range(ROUNDS):
        trace.call(
            "crm",
            "update_account",
            {"id": account, "fields": {"owner": owner}},
            error={"code": "FIELD_INTEGRITY", "message": "owner is read-only", "trace": words.token(rng, 14)},
        )
        trace.call("crm", "get_account", {"id": account}, record | {"fetched_at": words.clock(trace)})
        if beside:
            trace.call("colleague", "read", {"id": f"m{rng.randint(10_000, 99_999)}"}, words.report(rng, 1, 3))
    return trace.ends()


@FIFTH.looping(9, "two automations at one ticket: one closes what is idle, the other opens what is unanswered")
def opened_and_closed(rng: Random) -> Session:
    trace, ticket = _begun(rng, "closer"), rng.randint(1000, 99_999)
    version = rng.randint(3, 40)
    trace.loop_begins(2)
    for _ in range(ROUNDS + 4):
        for agent, state, why in (
            ("closer", "closed", "no reply from the customer"),
            ("guardian", "open", "the last question is unanswered"),
        ):
            version += 1
            trace.call(
                agent,
                "update_ticket",
                {"ticket": ticket, "status": state, "comment": why},
                {"ok": True, "version": version, "updated_at": words.clock(trace)},
            )
    return trace.ends()


@FIFTH.looping(9, "a fixer that finds open threads, says they need no repair, pushes nothing, and is started again")
def declined_threads(rng: Random) -> Session:
    trace, change, threads = _begun(rng, "fixer"), rng.randint(100, 2000), rng.randint(2, 9)
    trace.loop_begins(3)
    for _ in range(ROUNDS):
        trace.wait(rng.uniform(60, 3000))
        trace.call(
            "fixer", "discover_threads", {"pull_request": change}, {"unresolved": threads, "run": words.uuid(rng)}
        )
        said = "no repair needed, the items are already on the branch"
        trace.call("fixer", "report", {"result": said, "replies": []}, "recorded")
        trace.call("fixer", "push", {"pull_request": change}, "skipped: no new commits")
    return trace.ends()


@FIFTH.looping(9, "a table that may not be read, asked for in one query after the other (a round: three)")
def denied_table(rng: Random) -> Session:
    trace, table = _begun(rng, "analyst"), words.pick(rng, words.MODULES)
    trace.loop_begins(3)
    for _ in range(ROUNDS * 3):
        columns = ", ".join(rng.sample(["id", "amount", "owner", "created", "state", "region", "kind"], 3))
        where = f"where id > {rng.randint(1, 900)}"
        ends = rng.choice(("limit 10", "limit 100", "order by 1", where, "group by 1, 2, 3"))
        trace.call(
            "analyst",
            "sql",
            {"query": f"select {columns} from finance.{table} {ends}"},
            error=f"permission denied for table {table}",
        )
    return trace.ends()
