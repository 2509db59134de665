"""The sixth set, part three: loops of one agent, as users of coding, browsing and robot agents reported them.

In: a random generator. Out: traces. Every run begins with honest work; ids, times, counters and words drift where they
drift in life.
"""

from random import Random

from tests.health_set import sixth_words as words
from tests.health_set.sets import SIXTH
from tests.health_set.sixth_words import Session, prelude, session


def _rounds(rng: Random) -> int:
    """How often it goes round before somebody pulls the plug."""
    return rng.randint(7, 13)


@SIXTH.looping(
    7, "a list is empty; asked for again with another filter or none, by two or three tools, empty each time"
)
def empty_lists(rng: Random) -> Session:
    trace = session(rng)
    prelude(trace, "builder")
    tools = [f"list_{one}" for one in words.several(rng, ("integrations", "triggers", "components", "channels"), 2, 3)]
    trace.loop_begins(len(tools))
    for _ in range(_rounds(rng)):
        for tool in tools:
            trace.call(
                "builder", tool, rng.choice(({}, {"type": "all"}, {"filter": ""}, {"limit": 50}, {"limit": 100})), []
            )
    return trace


@SIXTH.looping(7, "a folder is listed, then listed with -la, then listed: nothing is ever written into it")
def listing_instead_of_writing(rng: Random) -> Session:
    trace, folder = session(rng), f"/home/dev/.config/{rng.choice(words.MODULES)}"
    prelude(trace, "coder")
    flags = rng.choice((("", "-la "), ("", "-l ", "-la "), ("",)))
    trace.loop_begins(len(flags))
    for _ in range(_rounds(rng)):
        for flag in flags:
            trace.call(
                "coder",
                "bash",
                {"command": f"ls {flag}{folder}/"},
                f"total 8\n-rw-r--r-- 1 dev dev 812 Oct 3 base.{flag.strip() or 'css'}",
            )
    return trace


@SIXTH.looping(
    7, "an announcement and a check that already said its one fault, both again and again; nobody mends the fault"
)
def quality_check_again(rng: Random) -> Session:
    trace, fault = session(rng), f"src/{rng.choice(words.MODULES)}.py:{rng.randint(3, 200)}:80: E501 line too long"
    prelude(trace, "coder")
    trace.loop_begins(2)
    for _ in range(_rounds(rng)):
        trace.say(
            "coder",
            rng.choice(
                (
                    "Now let's look at the code quality:",
                    "Let us check the quality of the code.",
                    "Next I check the code quality:",
                    "Now, the code quality.",
                )
            ),
        )
        trace.call("coder", "bash", {"command": "flake8 src --count"}, f"{fault}\n1")
    return trace


@SIXTH.looping(
    8, "an edit that was made is made again: the old text is not there any more, guessed at with other blanks"
)
def edit_already_made(rng: Random) -> Session:
    trace, path, old = session(rng), f"src/{rng.choice(words.MODULES)}/view.tsx", words.sentence(rng)
    prelude(trace, "coder")
    trace.call("coder", "edit_file", {"path": path, "old_string": old, "new_string": words.sentence(rng)}, "Edited.")
    sorry = rng.random() < 0.5
    trace.loop_begins(2 if sorry else 1)
    for _ in range(_rounds(rng)):
        if sorry:
            trace.say(
                "coder",
                rng.choice(
                    (
                        "The whitespace must differ. I try again.",
                        "Let me adjust the old string.",
                        "Apologies, I will match the indentation this time.",
                        "I need to be exact.",
                    )
                ),
            )
        blanks = " " * rng.choice((0, 2, 4, 8))
        trace.call(
            "coder",
            "edit_file",
            {
                "path": path,
                "old_string": blanks + old + "\n" * rng.randint(0, 2),
                "new_string": blanks + "const done = true;",
            },
            error=f"Failed to edit {path}: 0 occurrences found for old_string. Check whitespace, indentation.",
        )
    return trace


@SIXTH.looping(7, "a tool says that it has edited and has not: read, the old line is there, edited, read")
def edit_that_does_nothing(rng: Random) -> Session:
    trace, path, old = session(rng), f"notes/{rng.choice(words.MODULES)}.md", words.sentence(rng)
    prelude(trace, "writer")
    rest = words.text(rng, 2, 4)
    trace.loop_begins(2)
    for _ in range(_rounds(rng)):
        trace.call(
            "writer",
            "edit",
            {"path": path, "oldText": old, "newText": "Updated: see the new footer."},
            "Successfully replaced text.",
        )
        trace.call("writer", "read", {"path": path}, f"{rest}\n{old}")
    return trace


@SIXTH.looping(
    7, "one test mended breaks the other: version A, test, version B, test, with the same two failures in turn"
)
def seesaw_patches(rng: Random) -> Session:
    trace, path = session(rng), f"src/{rng.choice(words.MODULES)}.py"
    prelude(trace, "coder")
    one, other, fails = words.sentence(rng), words.sentence(rng), ("test_empty", "test_unicode")
    trace.loop_begins(4)
    for _ in range(_rounds(rng)):
        for before, after, failing in ((one, other, fails[0]), (other, one, fails[1])):
            trace.call("coder", "apply_patch", {"path": path, "minus": before, "plus": after}, "patched")
            trace.call(
                "coder",
                "bash",
                {"command": "pytest -q"},
                f"FAILED {failing}\n1 failed, 41 passed in {rng.uniform(1, 9):.2f}s",
            )
    return trace


@SIXTH.looping(7, "the linter mends a line, the formatter puts it back, the check finds it: over and over, one agent")
def linter_against_formatter(rng: Random) -> Session:
    trace, line = session(rng), rng.randint(5, 300)
    prelude(trace, "coder")
    file = f"src/{rng.choice(words.MODULES)}.ts"
    trace.loop_begins(3)
    for _ in range(_rounds(rng)):
        trace.call("coder", "run", {"cmd": f"eslint --fix {file}"}, f"fixed 1 problem in {rng.uniform(0.4, 3):.1f}s")
        trace.call("coder", "run", {"cmd": f"prettier --write {file}"}, f"{file} {rng.randint(30, 400)}ms")
        trace.call(
            "coder",
            "run",
            {"cmd": "npm run lint"},
            error=f"{file}\n  {line}:3  error  Missing braces  curly\n1 problem",
        )
    return trace


@SIXTH.looping(
    7, "a context fills, is summed up, and the same files are read from the start, in the same order, for ever"
)
def reading_after_compaction(rng: Random) -> Session:
    trace, agent = session(rng), "analyst"
    paths = [f"src/{one}.swift" for one in words.several(rng, words.MODULES, 3, 5)]
    contents = {path: words.text(rng, 4, 8) for path in paths}
    prelude(trace, agent, 1, 3)
    trace.loop_begins(len(paths) + 1)
    for _ in range(rng.randint(6, 9)):
        for path in paths:
            trace.call(agent, "read_file", {"path": path}, contents[path])
        trace.say(
            agent,
            rng.choice(
                (
                    "Summary so far: I am getting an overview of the sources and will then write the analysis.",
                    "Context was compacted. The task is to read the project and write the analysis; reading comes "
                    "first.",
                    "I have the road map. Before I write the analysis I need to read the sources.",
                    "To continue: read all source files, then write the analysis to a file.",
                )
            ),
        )
    return trace


@SIXTH.looping(8, "nothing to be found: searched for in ever other words, no results, 'not enough yet, search again'")
def rewording_the_search(rng: Random) -> Session:
    trace = session(rng)
    prelude(trace, "researcher")
    thing = f"{rng.choice(words.FIRMS)} {rng.choice(words.MODULES)} file format"
    forms = (
        "{} specification",
        "{} documentation",
        "what is the {}",
        "{} layout columns",
        "description of the {}",
        "{} pdf",
        "official {}",
        "{} parser example",
        "how to read {}",
        "{} developer guide",
        "{} forum",
        "{} header",
    )
    trace.loop_begins(2)
    for form in rng.sample(forms, len(forms)):
        trace.call(
            "researcher",
            "web_search",
            {"query": form.format(thing), "step": len(trace.rows)},
            {"results": [], "message": "No relevant results."},
        )
        trace.say(
            "researcher",
            rng.choice(
                (
                    "The knowledge gap is still open: the file format. I will rephrase the query.",
                    "There is not enough information yet. The gap remains the file format; let me try other keywords.",
                    "No relevant results; the gap is unchanged. Trying another phrasing.",
                    "Still insufficient. I should search with different terms for the file format.",
                )
            ),
        )
    return trace


@SIXTH.looping(7, "a list's cursors go in a circle: two or three pages come back in turn, as if they were new")
def cursors_in_a_circle(rng: Random) -> Session:
    trace = session(rng)
    tokens = [words.digest(rng, 12) for _ in range(rng.randint(2, 3))]
    trace.call("crawler", "GET /orders", {"cursor": ""}, {"items": [words.digest(rng, 6)], "next": tokens[0]})
    pages = [[words.digest(rng, 6) for _ in range(4)] for _ in tokens]
    trace.loop_begins(len(tokens))
    for _ in range(_rounds(rng)):
        for place, token in enumerate(tokens):
            trace.call(
                "crawler",
                "GET /orders",
                {"cursor": token},
                {"items": pages[place], "next": tokens[(place + 1) % len(tokens)], "request_id": words.uuid(rng)},
            )
    return trace


@SIXTH.looping(8, "an apology, a vow, and the same malformed call, refused with the same words")
def apology_and_same_call(rng: Random) -> Session:
    trace = session(rng)
    prelude(trace, "phone-agent")
    wrong, error = rng.choice(
        (
            ({"x": "861, 365"}, "Invalid tool call: Expected number for 'x', got str: '861, 365'"),
            ({}, "ToolValidationError: missing required parameter 'command'"),
            ({"job_id": "<job_id>"}, "validation error: job_id must be an integer"),
            ({"source": 77, "target": 77}, "source and target must differ"),
        )
    )
    trace.loop_begins(2)
    for _ in range(_rounds(rng)):
        trace.say(
            "phone-agent",
            rng.choice(
                (
                    "I apologize for the confusion. Let me try that again correctly.",
                    "You're right, I'm sorry. Here is the call.",
                    "My mistake. I will now provide the parameters properly.",
                    "Sorry about that! Let me fix the call.",
                    "I see the problem: the arguments were wrong. Calling again.",
                    "Apologies, this time it will work.",
                )
            ),
        )
        trace.call("phone-agent", "execute", wrong, error=error)
    return trace


@SIXTH.looping(
    7, "a tool that does not exist, now under this name, now under that; the list of real ones is told each time"
)
def tools_that_do_not_exist(rng: Random) -> Session:
    trace = session(rng)
    prelude(trace, "assistant")
    names, known = ("get_activity_by_name", "find_activity"), "list_activities, open_activity, finish"
    trace.loop_begins(2)
    for _ in range(_rounds(rng)):
        for name in names:
            trace.call(
                "assistant",
                name,
                {"name": "Month-end report", "try": rng.randint(1, 9)},
                error=f"Invalid tool: {name} is not a valid tool, try one of [{known}]",
            )
    return trace


@SIXTH.looping(7, "a process that has ended with an error is polled on, with waits between: 'I wait a little longer'")
def polling_the_dead(rng: Random) -> Session:
    trace, process = session(rng, untimed=0), f"proc_{words.digest(rng, 10)}"
    prelude(trace, "devbox")
    trace.call("devbox", "terminal", {"command": "make release", "background": True}, {"session": process})
    pause, talk = rng.choice((20, 30, 60)), rng.random() < 0.5
    trace.loop_begins(2 if talk else 1)
    for _ in range(_rounds(rng)):
        trace.call(
            "devbox",
            "process_poll",
            {"session": process},
            {"session": process, "state": "exited", "exit_code": 2, "output": "", "elapsed_ms": rng.randint(1, 9)},
            pause=pause,
        )
        if talk:
            trace.say(
                "devbox",
                rng.choice(
                    (
                        "It is not done yet. I wait a little longer.",
                        "Let me wait for the release.",
                        "Still waiting for the output.",
                        "I check again in a moment.",
                    )
                ),
            )
    return trace


@SIXTH.looping(7, "a job that was cancelled is waited for: asked every minute or two, cancelled, cancelled, cancelled")
def waiting_for_the_cancelled(rng: Random) -> Session:
    trace, job = session(rng, untimed=0), f"job-{rng.randrange(10**5)}"
    prelude(trace, "runner", 1, 4)
    trace.call("runner", "submit_training", {"config": "a.yaml"}, {"job": job, "status": "queued"})
    trace.call("runner", "get_job", {"job": job}, {"job": job, "status": "running"}, pause=120)
    gone = rng.choice(
        (
            {"status": "cancelled", "by": "quota-admin"},
            {"status": "failed", "reason": "ImagePullBackOff: not found"},
            {"status": "expired", "reason": "the reservation has ended"},
        )
    )
    trace.loop_begins(2)
    for _ in range(_rounds(rng)):
        trace.call("runner", "get_job", {"job": job}, {"job": job, "checked_at": trace.stamp(), **gone}, pause=2)
        trace.call("runner", "wait", {"seconds": 120, "reason": "until the job has finished"}, "waited", pause=120)
    return trace


@SIXTH.looping(7, "the page is at its end; scrolled on, step by step, 'to see more of it'")
def scrolling_past_the_end(rng: Random) -> Session:
    trace = session(rng)
    trace.call(
        "browser", "go_to_url", {"url": f"https://{rng.choice(words.SERVICES)}.example.com/all"}, words.text(rng, 2, 3)
    )
    for below in (5400, 3600, 1800):
        trace.call("browser", "scroll_down", {}, {"text": words.text(rng, 2, 3), "pixels_below": below})
    trace.loop_begins(1)
    for _ in range(_rounds(rng) + 4):
        trace.call(
            "browser",
            "scroll_down",
            {} if rng.random() < 0.7 else {"memory": f"Scrolled {len(trace.rows)} times."},
            {"text": "About us. Imprint. Privacy.", "pixels_below": 0},
        )
    return trace


@SIXTH.looping(7, "an element that cannot be clicked: the page's state, its number, the click, refused; numbers drift")
def clicking_the_hidden(rng: Random) -> Session:
    trace, label = session(rng), rng.choice(("Accept all", "Continue", "Load more", "Select seat"))
    prelude(trace, "browser", 1, 3)
    trace.loop_begins(2)
    for _ in range(_rounds(rng)):
        index = rng.randint(40, 70)
        trace.call("browser", "get_state", {}, f"[{index}]<button>{label}</button> [covered by dialog]")
        trace.call(
            "browser",
            "click_element",
            {"index": index},
            error=f"Element not clickable with index {index} - most likely the page changed",
        )
    return trace


@SIXTH.looping(7, "sign in, solve the picture, the sign-in page again; another picture each time and no way through")
def captcha_for_ever(rng: Random) -> Session:
    trace, user = session(rng), words.mail(rng)
    trace.call("browser", "go_to_url", {"url": "https://shop.example.com/orders"}, "Please sign in.")
    trace.loop_begins(4)
    for _ in range(rng.randint(6, 10)):
        challenge = words.digest(rng, 10)
        trace.call("browser", "input_text", {"field": "user", "text": user}, "typed")
        trace.call("browser", "click", {"label": "Sign in"}, f"Prove that you are no robot. challenge={challenge}")
        trace.call("browser", "solve_captcha", {"challenge": challenge}, {"solution": words.digest(rng, 5)})
        trace.call("browser", "click", {"label": "Verify"}, "Please sign in.")
    return trace


@SIXTH.looping(7, "a robot before a blocked door: spin, back up, clear the map, plan, no path; only its pose trembles")
def recovery_behaviours(rng: Random) -> Session:
    trace = session(rng)
    for waypoint in range(1, rng.randint(3, 5)):
        trace.call(
            "nav", "navigate_to_pose", {"waypoint": waypoint}, {"result": "SUCCEEDED", "metres": rng.randint(3, 30)}
        )
    goal = rng.randint(6, 20)
    trace.loop_begins(4)
    for _ in range(_rounds(rng)):
        pose = {"x": round(rng.gauss(4.2, 0.03), 3), "y": round(rng.gauss(-1.1, 0.03), 3)}
        trace.call(
            "nav",
            "navigate_to_pose",
            {"waypoint": goal},
            {"result": "ABORTED", "error": "no valid path found", "pose": pose},
        )
        trace.call("nav", "spin", {"radians": 1.57}, {"result": "SUCCEEDED"})
        trace.call("nav", "back_up", {"metres": 0.3}, {"result": "ABORTED", "error": "collision ahead"})
        trace.call("nav", "clear_costmap", {"which": "global"}, {"result": "SUCCEEDED"})
    return trace


@SIXTH.looping(7, "the context is too long: summed up without getting shorter, asked again, refused within some tokens")
def overflow_that_does_not_shrink(rng: Random) -> Session:
    trace, limit = session(rng), rng.choice((128_000, 200_000))
    prelude(trace, "auditor", 4, 8)
    trace.loop_begins(2)
    for _ in range(_rounds(rng)):
        now = limit + rng.randint(3000, 3026)
        trace.call(
            "auditor",
            "model.call",
            {"messages": rng.randint(40, 43)},
            error=f"context_length_exceeded: {now} tokens, at most {limit} are allowed",
        )
        trace.call(
            "auditor", "context.reduce", {"keep_recent": 10}, {"reduced": True, "tokens": now + rng.randint(-20, 5)}
        )
    return trace


@SIXTH.looping(7, "a plan, a better plan, a revised plan of the same steps; the first of them is never taken")
def planning_for_ever(rng: Random) -> Session:
    trace = session(rng)
    prelude(trace, "architect", 1, 4)
    steps = words.several(
        rng,
        (
            ("collect the requirements", "gather all requirements"),
            ("draw the schema", "design the schema"),
            ("write the importer", "implement the importer"),
            ("test it with real data", "try it with real data"),
            ("roll it out", "deploy it"),
            ("tell the users", "inform the users"),
            ("watch the metrics", "monitor the metrics"),
        ),
        4,
        5,
    )
    tool = rng.random() < 0.5
    trace.loop_begins(1)
    for version in range(1, _rounds(rng) + 4):
        opening = rng.choice(
            (
                "Here is my plan:",
                "Let me refine the plan first.",
                "An improved plan:",
                "The restructured plan:",
                "Before I start, the updated plan:",
                "Thinking again, this is the plan:",
            )
        )
        plan = [rng.choice(step) for step in steps]
        if tool:
            trace.call(
                "architect",
                "write_todos",
                {"todos": [{"content": one, "status": "pending"} for one in plan], "note": f"{opening} (v{version})"},
                f"Updated todo list: 0/{len(steps)}",
            )
        else:
            listed = " ".join(f"{place}. {one.capitalize()}." for place, one in enumerate(plan, 1))
            trace.say("architect", f"{opening} {listed}")
    return trace


@SIXTH.looping(7, "a build that cannot compile is run again and again, under a new number each time, minutes apart")
def rerun_without_hope(rng: Random) -> Session:
    trace, commit = session(rng, untimed=0.1), words.digest(rng, 7)
    prelude(trace, "ci-agent", 1, 4)
    error = f"src/{rng.choice(words.MODULES)}.rs:{rng.randint(4, 400)}: error[E0425]: cannot find value `limit` here"
    trace.loop_begins(3)
    for run in range(4000, 4000 + _rounds(rng)):
        trace.call("ci-agent", "actions.rerun", {"commit": commit}, {"run_id": run})
        trace.call(
            "ci-agent",
            "actions.wait",
            {"run_id": run},
            {"run_id": run, "conclusion": "failure"},
            pause=rng.uniform(90, 240),
        )
        trace.call("ci-agent", "actions.log", {"run_id": run, "tail": 20}, error)
    return trace


@SIXTH.looping(7, "a charge that the bank has declined for good is tried again with a fresh key, a minute apart")
def declined_for_good(rng: Random) -> Session:
    trace, cents = session(rng, untimed=0.1), rng.randrange(900, 90_000)
    prelude(trace, "billing", 1, 4)
    customer = f"cus_{words.digest(rng, 10)}"
    trace.loop_begins(1)
    for attempt in range(1, _rounds(rng) + 1):
        trace.call(
            "billing",
            "payments.charge",
            {"customer": customer, "cents": cents, "idempotency_key": words.uuid(rng)},
            error={
                "code": "card_declined",
                "decline_code": "stolen_card",
                "charge": f"ch_{words.digest(rng, 14)}",
                "attempt": attempt,
            },
            pause=rng.uniform(40, 90),
        )
    return trace


@SIXTH.looping(7, "a query names a column that is not there; the table is described; the same query once more")
def column_that_is_not_there(rng: Random) -> Session:
    trace, table = session(rng), f"{rng.choice(words.MODULES)}_events"
    prelude(trace, "sql-agent")
    columns, drift = ["id", "created_at", "customer", "amount"], rng.choice((" -- try {}", " LIMIT {}", ""))
    trace.loop_begins(2)
    for number in range(_rounds(rng)):
        blank = rng.choice((" ", "\n", "  "))
        query = f"SELECT customer_name,{blank}sum(amount) FROM {table} GROUP BY 1{drift.format(10 + number)}"
        trace.call("sql-agent", "run_sql", {"sql": query}, error='column "customer_name" does not exist')
        trace.call("sql-agent", "describe_table", {"table": table}, columns)
    return trace


@SIXTH.looping(7, "the same fact is put into the memory again and again, under a new id each time")
def remembering_it_again(rng: Random) -> Session:
    trace, fact = session(rng), f"{words.person(rng)} prefers metric units and short answers."
    prelude(trace, "assistant")
    trace.loop_begins(1)
    for _ in range(_rounds(rng)):
        trace.call(
            "assistant",
            "memory.save",
            {"content": rng.choice((fact, fact.replace(".", ""), f"User note: {fact}"))},
            {"id": f"mem_{words.digest(rng, 12)}", "saved": True, "at": trace.stamp()},
        )
    return trace


@SIXTH.looping(7, "a page is opened again and again for a price that is not on it; its advert and visitors change")
def page_with_adverts(rng: Random) -> Session:
    trace, goods = session(rng), rng.choice(words.GOODS)
    prelude(trace, "shopper", 1, 4)
    url, body = f"https://www.example.com/p/{words.digest(rng, 6)}", words.text(rng, 3, 5)
    trace.loop_begins(1)
    for _ in range(_rounds(rng) + 2):
        trace.call(
            "shopper",
            "browse",
            {"url": url},
            f"Advert: {rng.choice(words.FIRMS)}, now in {rng.choice(words.CITIES)}!\n"
            f"{goods.capitalize()}. {body}\nPrice on request. "
            f"{rng.randint(3, 90)} people are looking at this. token={words.digest(rng, 12)}",
        )
    return trace


@SIXTH.looping(7, "a test run collects nothing; run with other flags, nothing; the folder listed; run again, nothing")
def no_tests_collected(rng: Random) -> Session:
    trace, module = session(rng), rng.choice(words.MODULES)
    prelude(trace, "tester")
    trace.loop_begins(3)
    for _ in range(_rounds(rng)):
        for flags in (
            rng.choice(("-q", "-v", "-vv", "-x", "-rA")),
            rng.choice(("--tb=short", "-s", "--maxfail=1", "-k test")),
        ):
            trace.call(
                "tester",
                "bash",
                {"command": f"cd /work && pytest {flags} checks/{module}"},
                f"collected 0 items\n\n=== no tests ran in {rng.uniform(0.01, 0.09):.2f}s ===",
            )
        trace.call("tester", "bash", {"command": f"ls checks/{module}"}, f"conftest.py\n{module}_check.py")
    return trace
