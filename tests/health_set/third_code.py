"""The third set, part one: programmers. Sessions styled after SWE-agent, OpenHands, coding CLIs and SQL agents.

In: a random generator. Out: traces. What loops is what people report of such agents in public trackers.
"""

from random import Random

from tests.health_set import third_words as words
from tests.health_set.sets import THIRD
from tests.health_set.third_words import Ticking as Trace


def _timed(rng: Random) -> bool:
    return rng.random() < 0.6


def _viewed(path: str, rng: Random) -> str:
    return f"[File: /repo/{path} ({rng.randint(90, 2400)} lines total)]\n{words.listing(rng, 9)}"


@THIRD.honest(
    14, "windows into files opened, scrolled and searched; a script prints the wrong number until it is mended"
)
def windowed_editor(rng: Random) -> Trace:
    trace, path = Trace(rng, timed=_timed(rng)), words.module(rng)
    wrong, right = rng.sample(range(100, 400), 2)
    trace.call("swe", "create", {"path": "reproduce.py"}, "[File: /repo/reproduce.py (1 lines total)]")
    trace.call("swe", "bash", {"command": "python reproduce.py"}, f"{wrong}\n")
    trace.call("swe", "open", {"path": path}, _viewed(path, rng))
    for _ in range(rng.randint(2, 7)):
        trace.call("swe", "scroll_down", {}, _viewed(path, rng))
    for _ in range(rng.randint(1, 4)):
        trace.call("swe", "search_file", {"term": rng.choice(words.THINGS)}, words.listing(rng, 3))
        trace.call(
            "swe",
            "edit",
            {"lines": f"{rng.randint(1, 900)}:{rng.randint(1, 900)}", "text": words.code(rng)},
            _viewed(path, rng),
        )
        trace.call("swe", "bash", {"command": "python reproduce.py"}, f"{wrong}\n")
    trace.call("swe", "edit", {"lines": "88:90", "text": words.code(rng)}, _viewed(path, rng))
    trace.call("swe", "bash", {"command": "python reproduce.py"}, f"{right}\n")
    trace.call("swe", "submit", {}, words.code(rng, 6))
    return trace.ends()


@THIRD.honest(14, "a list of todos written anew after every item, always answered alike, work in between")
def todo_list(rng: Random) -> Trace:
    trace, items = Trace(rng, timed=_timed(rng)), [words.phrase(rng) for _ in range(rng.randint(6, 13))]
    for done in range(len(items) + 1):
        todos = [
            {"content": item, "status": "completed" if at < done else "in_progress" if at == done else "pending"}
            for at, item in enumerate(items)
        ]
        trace.call("cli", "todo_write", {"todos": todos}, "Todos have been modified successfully.")
        for _ in range(rng.randint(1, 3)):
            path = words.module(rng)
            trace.call("cli", "read", {"file_path": path}, words.listing(rng))
            if rng.random() < 0.6:
                trace.call(
                    "cli", "edit", {"file_path": path, "new_string": words.code(rng)}, "The file has been updated."
                )
    return trace.ends()


@THIRD.honest(14, "edits that do not match once, twice or three times, in file after file, and then do")
def edits_that_miss(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    for _ in range(rng.randint(3, 7)):
        path = words.module(rng)
        for _ in range(rng.choice((0, 1, 2, 3))):
            trace.call(
                "dev",
                "str_replace",
                {"path": path, "old_str": words.code(rng, 2), "new_str": words.code(rng, 2)},
                error=f"No replacement was performed, old_str did not appear verbatim in {path}.",
            )
            trace.call("dev", "view", {"path": path, "view_range": [rng.randint(1, 400), 600]}, words.listing(rng))
        trace.call(
            "dev",
            "str_replace",
            {"path": path, "old_str": words.code(rng, 2), "new_str": words.code(rng, 2)},
            f"The file {path} has been edited.\n{words.listing(rng, 5)}",
        )
    trace.call("dev", "bash", {"command": "cargo test"}, "test result: ok. 41 passed; 0 failed")
    return trace.ends()


@THIRD.honest(14, "a linter run after each mended file: the same command, one finding less")
def lint_sweep(rng: Random) -> Trace:
    trace, left = Trace(rng, timed=_timed(rng)), rng.randint(8, 22)
    files = [words.module(rng) for _ in range(left)]
    while left:
        shown = "\n".join(f"{files[at]}:{at * 7 + 3}:1 F401 unused import" for at in range(min(left, 3)))
        trace.call("dev", "bash", {"command": "make lint"}, f"{shown}\nFound {left} errors.")
        trace.call("dev", "edit", {"path": files[left - 1], "delete_line": rng.randint(1, 30)}, "ok")
        left -= 1
    trace.call("dev", "bash", {"command": "make lint"}, "All checks passed!")
    return trace.ends()


@THIRD.honest(14, "one module's tests after the other, every one green: only the path differs")
def module_by_module(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    for thing in rng.sample(sorted(set(words.THINGS)), rng.randint(15, 35)):
        trace.call(
            "dev",
            "bash",
            {"command": f"pytest -q tests/{thing}"},
            f"{rng.randint(2, 40)} passed in {rng.uniform(0.1, 4):.2f}s",
        )
    trace.say("dev", words.talk(rng))
    return trace.ends()


@THIRD.honest(14, "a rebase: conflict by conflict is resolved, added silently, continued")
def rebase(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    trace.call(
        "dev",
        "bash",
        {"command": "git rebase main"},
        error=f"CONFLICT (content): Merge conflict in {words.module(rng)}",
    )
    for _ in range(rng.randint(4, 9)):
        path = words.module(rng)
        trace.call("dev", "edit", {"path": path, "text": words.code(rng)}, "ok")
        trace.call("dev", "bash", {"command": f"git add {path}"}, "")
        trace.call(
            "dev",
            "bash",
            {"command": "GIT_EDITOR=true git rebase --continue"},
            error=f"CONFLICT (content): Merge conflict in {words.module(rng)}",
        )
    trace.call("dev", "bash", {"command": "GIT_EDITOR=true git rebase --continue"}, "Successfully rebased.")
    return trace.ends()


@THIRD.honest(10, "one benchmark run five to seven times, because it is noisy; then a change, and again")
def benchmark_repeated(rng: Random) -> Trace:
    trace, mean = Trace(rng, timed=_timed(rng)), rng.uniform(30, 900)
    for variant in range(rng.randint(2, 3)):
        trace.call("perf", "edit", {"path": words.module(rng), "text": words.code(rng)}, "ok")
        for _ in range(rng.randint(5, 7)):
            got = mean * rng.uniform(0.95, 1.05)
            trace.call(
                "perf", "bash", {"command": "./bench --threads 4"}, f"throughput {got:.1f} ops/s  p99 {1000 / got:.2f}"
            )
        mean *= 1.2 + variant / 10
    return trace.ends()


@THIRD.honest(14, "a notebook: cell after cell, now and then the head of the same table, which has a column more")
def notebook(rng: Random) -> Trace:
    trace, columns = Trace(rng, timed=_timed(rng)), rng.sample(words.THINGS, 3)
    for _ in range(rng.randint(6, 14)):
        name = rng.choice(words.THINGS)
        trace.call("analyst", "run_cell", {"code": f"df['{name}'] = {words.code(rng, 1)}"}, rng.choice(("", "None")))
        columns.append(name)
        trace.call(
            "analyst",
            "run_cell",
            {"code": "df.head()"},
            "\n".join(" ".join([*columns, str(rng.randint(1, 99))]) for _ in range(3)),
        )
    return trace.ends()


@THIRD.honest(14, "tables listed, schemas read, a query checked, wrong twice or three times, then right; next question")
def questions_to_a_database(rng: Random) -> Trace:
    trace, tables = Trace(rng, timed=_timed(rng)), ", ".join(rng.sample(words.THINGS, 6))
    for _ in range(rng.randint(2, 5)):
        trace.call("sql", "sql_db_list_tables", {}, tables)
        trace.call("sql", "sql_db_schema", {"tables": rng.choice(words.THINGS)}, words.code(rng, 5))
        for _ in range(rng.randint(0, 3)):
            name = rng.choice(words.THINGS)
            trace.call(
                "sql",
                "sql_db_query",
                {"query": f"SELECT {name} FROM {rng.choice(words.THINGS)}"},
                error=f"(sqlite3.OperationalError) no such column: {name}",
            )
        table, column = rng.choice(words.THINGS), rng.choice(words.THINGS)
        query = f"SELECT count(*) FROM {table} WHERE {column} > {rng.randint(2, 900)}"
        trace.call("sql", "sql_db_query_checker", {"query": query}, query)
        trace.call("sql", "sql_db_query", {"query": query}, f"[({rng.randint(1, 9999)},)]")
        trace.say("sql", words.line(rng))
    return trace.ends()


@THIRD.honest(14, "a tool for thinking: thought after thought, each another one, answered with its number alone")
def thoughts_by_tool(rng: Random) -> Trace:
    trace, total = Trace(rng, timed=_timed(rng)), rng.randint(6, 14)
    for number in range(1, total + 1):
        more = number < total
        state = {"thoughtNumber": number, "totalThoughts": total, "nextThoughtNeeded": more}
        trace.call("agent", "sequentialthinking", {"thought": words.talk(rng)} | state, state)
    trace.say("agent", words.talk(rng))
    return trace.ends()


# What people report of such agents.


@THIRD.looping(12, "an exact replacement that is never found: apology, the file read again, the same replacement")
def replacement_in_vain(rng: Random) -> Trace:
    trace, path = Trace(rng, timed=_timed(rng)), words.module(rng)
    seen, old, new = words.listing(rng), words.code(rng, 2), words.code(rng, 2)
    for _ in range(rng.randint(0, 6)):
        trace.call("cli", "read_file", {"path": words.module(rng)}, words.listing(rng))
    sorry = rng.random() < 0.6
    trace.loop_begins(3 if sorry else 2)
    for _ in range(12):
        trace.call(
            "cli",
            "replace",
            {"file_path": path, "old_string": old, "new_string": new},
            error="Failed to edit, 0 occurrences found for old_string.",
        )
        if sorry:
            trace.say("cli", f"I apologise. {words.line(rng)} I will read the file again and be more careful.")
        trace.call("cli", "read_file", {"path": path}, seen)
    return trace.ends()


@THIRD.looping(12, "an edit whose old text is its new text: told that it worked, the test fails as before")
def edit_of_nothing(rng: Random) -> Trace:
    trace, path, text = Trace(rng, timed=_timed(rng)), words.module(rng), words.code(rng, 2)
    for _ in range(rng.randint(0, 5)):
        trace.call("coder", "str_replace", {"path": words.module(rng), "new": words.code(rng)}, {"replacements": 1})
    trace.loop_begins(2)
    for _ in range(14):
        trace.call("coder", "str_replace", {"path": path, "old": text, "new": text}, {"path": path, "replacements": 1})
        trace.call("coder", "run_tests", {}, f"1 failed, 33 passed in {rng.uniform(1, 9):.2f}s\nFAILED test_timetable")
    return trace.ends()


@THIRD.looping(12, "the same folder listed in one of two ways, in no order (a round: two looks)")
def listing_again(rng: Random) -> Trace:
    trace, folder = Trace(rng, timed=_timed(rng)), f"/srv/{rng.choice(words.THINGS)}"
    short = "custom.css\ncustom.js"
    long = f"total 8\n-rw-r--r-- 1 dev dev {rng.randint(100, 9000)} custom.css\n-rw-r--r-- 1 dev dev 0 custom.js"
    for _ in range(rng.randint(1, 6)):
        trace.call("cli", "bash", {"command": f"grep -rn {rng.choice(words.THINGS)} ."}, words.listing(rng, 3))
    trace.loop_begins(2)
    for _ in range(30):
        flag = rng.random() < 0.5
        trace.call("cli", "bash", {"command": f"ls {'-la ' if flag else ''}{folder}/"}, long if flag else short)
    return trace.ends()


@THIRD.looping(12, "two mends in turns, each brings the other's error back; some with a fresh comment in the code")
def flapping_between_errors(rng: Random) -> Trace:
    trace, path, one, two = Trace(rng, timed=_timed(rng)), words.module(rng), words.code(rng, 2), words.code(rng, 2)
    fresh = rng.random() < 0.4
    errors = (
        "error TS2322: Type 'string' is not assignable to type 'number'.",
        "error TS2345: Argument of type 'number' is not assignable to parameter of type 'string'.",
    )
    for _ in range(rng.randint(0, 5)):
        trace.call("dev", "read", {"path": words.module(rng)}, words.listing(rng))
    trace.loop_begins(4)
    for number in range(10):
        for text, error in zip((one, two), errors, strict=True):
            mark = f"\n// attempt {number + 1}, {words.token(rng, 8)}" if fresh else ""
            trace.call("dev", "write_file", {"path": path, "content": text + mark}, "Wrote 2 lines.")
            trace.call("dev", "bash", {"command": "npx tsc --noEmit"}, error=f"{path}(41,7): {error}")
    return trace.ends()


@THIRD.looping(12, "a tool that does not exist, called after the same thought")
def no_such_tool(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    thought = f"I should look at the tables in the database. {words.line(rng)}"
    trace.loop_begins(2)
    for _ in range(14):
        trace.say("sql", thought)
        trace.call(
            "sql",
            "list_tables_sql_db",
            rng.choice(({}, {"tool_input": ""})),
            error="list_tables_sql_db is not a valid tool, try another one.",
        )
    return trace.ends()


@THIRD.looping(12, "databases looked for, tables looked for, in no order; there are none (a round: three acts)")
def empty_schema(rng: Random) -> Trace:
    trace, name = Trace(rng, timed=_timed(rng)), f"{rng.choice(words.THINGS)}_db"
    trace.loop_begins(3)
    for _ in range(36):
        if rng.random() < 0.6:
            trace.call("sql", "list_databases", {}, [name])
        else:
            trace.call(
                "sql", "query", {"database": name, "sql": "SELECT * FROM pg_tables WHERE schemaname = 'public'"}, []
            )
    return trace.ends()


@THIRD.looping(
    12, "a list of todos that changes its capitals to and fro, because the tool says that items were removed"
)
def todo_oscillation(rng: Random) -> Trace:
    trace, items = Trace(rng, timed=_timed(rng)), [words.phrase(rng) for _ in range(rng.randint(4, 8))]
    for _ in range(rng.randint(0, 4)):
        trace.call("cli", "read", {"path": words.module(rng)}, words.listing(rng))
    trace.loop_begins(2)
    for number in range(20):
        shown = [item.title() if number % 2 else item for item in items]
        trace.call(
            "cli",
            "todo_write",
            {"todos": [{"content": item, "status": "pending"} for item in shown]},
            f"Updated. NOTE: this update REMOVED {len(items)} unfinished items from the previous list. Every "
            "call replaces the whole list: if you did not mean to drop them, call again with the complete list.",
        )
    return trace.ends()


@THIRD.looping(
    12, "an agent that says that it is stuck in a loop, in ever other words, and calls the denied tool again"
)
def stuck_and_says_so(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    said = (
        "I am repeating myself with this tool and must stop.",
        "My mistake: it is denied. I wait for your first command.",
        "This is a loop. No more tool calls from me.",
        "I keep trying to write the list, which is not allowed.",
        "I will now simply wait.",
        "Again denied; I should have stopped before.",
        "Stopping here. Awaiting input.",
    )
    trace.loop_begins(2)
    for _ in range(14):
        trace.say("cli", f"{rng.choice(said)} {rng.choice(said)}")
        trace.call("cli", "write_todos", {"todos": []}, error="Tool execution denied by policy.")
    return trace.ends()


@THIRD.looping(
    12, "after each compaction of its context the agent begins anew: five looks and a summary in other words"
)
def amnesia(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    looks = [
        ("read", {"path": "TASK.md"}, words.talk(rng)),
        ("bash", {"command": "ls"}, "\n".join(rng.sample(words.THINGS, 6))),
    ]
    looks += [("read", {"path": path}, words.listing(rng)) for path in (words.module(rng), words.module(rng))]
    looks.append(("bash", {"command": "make test"}, "2 failed, 118 passed"))
    trace.loop_begins(6)
    for _ in range(9):
        for look in looks:
            trace.call("cli", *look)
        trace.say("cli", f"Summary of the work so far: {words.talk(rng)}")
    return trace.ends()


@THIRD.looping(12, "a formatter and a linter that disagree: format, lint, format, lint")
def format_and_lint(rng: Random) -> Trace:
    trace, path = Trace(rng, timed=_timed(rng)), words.module(rng)
    for _ in range(rng.randint(0, 8)):
        trace.call("dev", "edit", {"path": words.module(rng), "text": words.code(rng)}, "ok")
    trace.loop_begins(2)
    for _ in range(14):
        trace.call("dev", "bash", {"command": f"fmt {path}"}, f"1 file reformatted in {rng.randint(3, 90)} ms")
        trace.call(
            "dev", "bash", {"command": f"lint --fix {path}"}, f"{path}: fixed 1 problem ({rng.randint(10, 300)} ms)"
        )
    return trace.ends()


@THIRD.looping(
    12, "arguments that never fit the schema, another field wrong each time, one answer (a round: three tries)"
)
def wrong_arguments(rng: Random) -> Trace:
    trace = Trace(rng, timed=_timed(rng))
    trace.loop_begins(3)
    for _ in range(30):
        arguments = {
            rng.choice(words.THINGS): rng.choice((rng.randint(1, 99), words.phrase(rng))),
            "station": rng.choice(words.TOWNS),
        }
        trace.call("planner", "book_path", arguments, error="Invalid arguments: missing required field 'window'.")
    return trace.ends()
