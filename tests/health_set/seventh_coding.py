"""The seventh set, part one: honest coding agents: moves, sweeps, migrations, builds, reviews, flaky tests.

In: a random generator. Out: traces. What repeats itself here does so because the work does. Addresses name the report
that a family was drawn from: most are of people whose honest work was stopped.
"""

from random import Random

from tests.health_set import seventh_words as words
from tests.health_set.sets import SEVENTH
from tests.health_set.seventh_words import Run, code_work, run


# github.com/google-gemini/gemini-cli/issues/5873
@SEVENTH.honest(8, "components are moved one by one: search for imports, git mv, rewrite the imports, next component")
def moved_components(rng: Random) -> Run:
    trace = run(rng)
    code_work(trace, "coder", 1, 3)
    for part in words.some(rng, words.PARTS, 8, 14):
        name = part.capitalize() + rng.choice(("Card", "Panel", "List", "Form"))
        hits = [f"src/pages/{one}.tsx" for one in words.some(rng, words.PARTS, 0, 4)]
        trace.call(
            "coder", "search_file_content", {"pattern": f"components/{name}"}, "\n".join(hits) or "No matches found"
        )
        trace.call(
            "coder",
            "run_shell_command",
            {"command": f"git mv src/components/{name}.tsx src/features/{part}/{name}.tsx"},
            "(empty)",
        )
        for hit in hits:
            trace.call(
                "coder",
                "replace",
                {"file_path": hit, "old_string": f"components/{name}", "new_string": f"features/{part}/{name}"},
                f"Successfully modified file: {hit} (1 replacements).",
            )
    trace.call("coder", "run_shell_command", {"command": "npx tsc --noEmit"}, "(empty)")
    return trace.ends()


# github.com/google-gemini/gemini-cli/pull/20701
@SEVENTH.honest(8, "the same licence header is put on twenty files: the same edit, the same answer, another path")
def licence_headers(rng: Random) -> Run:
    trace = run(rng)
    header = f"// Copyright {rng.choice(words.COMPANIES)}. SPDX-License-Identifier: Apache-2.0"
    trace.call("coder", "bash", {"command": "git grep -L SPDX -- '*.go' | wc -l"}, str(rng.randint(16, 26)))
    looks = rng.random() < 0.5
    for _ in range(rng.randint(16, 26)):
        file = words.path(rng, ".go")
        if looks:
            trace.call("coder", "bash", {"command": f"head -3 {file}"}, f"package {rng.choice(words.PARTS)}")
        trace.call("coder", "insert", {"path": file, "insert_line": 0, "new_str": header}, "The file has been edited.")
    trace.call("coder", "bash", {"command": "git grep -L SPDX -- '*.go' | wc -l"}, "0")
    return trace.ends()


# github.com/OpenHands/OpenHands/issues/10350, pull/10750
@SEVENTH.honest(9, "a build takes long; the agent sends an empty command to go on waiting, often without new output")
def waiting_by_empty_command(rng: Random) -> Run:
    trace, wait = run(rng, untimed=0.1), rng.choice((10.0, 30.0, 120.0))
    code_work(trace, "coder", 1, 3)
    still = (
        f"[The command has no new output after {wait:.0f} seconds. You may wait longer to see additional output "
        "by sending empty command '', or interrupt it with C-c]"
    )
    trace.call(
        "coder",
        "execute_bash",
        {
            "command": rng.choice(
                ("cargo build --release", "bazel build //...", "make -j4 all", "docker build -t app .")
            )
        },
        f"Compiling {rng.choice(words.PARTS)} v0.{rng.randrange(9)}.1\n{still}",
        pause=wait,
    )
    for _ in range(rng.randint(4, 9)):
        line = f"Compiling {rng.choice(words.PARTS)}-{rng.choice(words.DOES)} v1.{rng.randrange(30)}.0\n"
        trace.call(
            "coder",
            "execute_bash",
            {"command": "", "is_input": True},
            (line if rng.random() < 0.35 else "") + still,
            pause=wait,
        )
    trace.call(
        "coder",
        "execute_bash",
        {"command": "", "is_input": True},
        f"Finished in {rng.randint(4, 19)}m\n[Command finished with exit code 0]",
        pause=wait,
    )
    code_work(trace, "coder", 1, 2)
    return trace.ends()


# github.com/macanderson/stella/issues/359
@SEVENTH.honest(8, "a process in the background is polled: read_output and sleep 5 in turn, till it has exited")
def read_output_and_sleep(rng: Random) -> Run:
    trace, handle = run(rng, untimed=0.15), f"proc_{rng.randrange(99)}"
    trace.call("coder", "start_process", {"command": "pnpm test:e2e"}, {"handle": handle})
    done, total = 0, rng.randint(30, 90)
    while done < total:
        trace.call(
            "coder",
            "read_output",
            {"handle": handle},
            {"state": "running", "tail": f"  {done} passed ({total - done} left)"},
            pause=1.5,
        )
        trace.call("coder", "bash", {"command": "sleep 5"}, "", pause=5)
        done += rng.choice((0, 0, 3, 7, 9))
    trace.call(
        "coder",
        "read_output",
        {"handle": handle},
        {"state": "exited (code 0)", "tail": f"  {total} passed ({rng.uniform(1, 4):.1f}m)"},
    )
    return trace.ends()


@SEVENTH.honest(9, "an end-to-end job fails by its flaky tests and is run again, three to five times, till green")
def flaky_job_rerun(rng: Random) -> Run:
    trace, number = run(rng, untimed=0.15), rng.randrange(10**9, 10**10)
    code_work(trace, "ci-agent", 1, 3)
    tests = [f"{part}.spec.ts › {rng.choice(words.WHATS)}" for part in words.some(rng, words.PARTS, 2, 3)]
    for _ in range(rng.randint(3, 5)):
        trace.call(
            "ci-agent",
            "bash",
            {"command": f"gh run watch {number} --exit-status"},
            f"X e2e in {rng.randint(6, 12)}m{rng.randrange(60)}s\n  1 flaky: {rng.choice(tests)} timed out",
            pause=rng.uniform(300, 700),
        )
        trace.call(
            "ci-agent",
            "bash",
            {"command": f"gh run rerun {number} --failed"},
            f"✓ Requested rerun (failed jobs) of run {number}",
        )
    trace.call("ci-agent", "bash", {"command": f"gh run watch {number} --exit-status"}, "✓ e2e", pause=500)
    trace.call("ci-agent", "bash", {"command": "gh pr merge --squash --auto"}, "✓ Pull request will be merged")
    return trace.ends()


@SEVENTH.honest(8, "a monorepo is migrated package by package: bump, build, test, commit, with the same good answers")
def package_by_package(rng: Random) -> Run:
    trace, to = run(rng), f"{rng.randint(4, 9)}.0.0"
    tool = rng.choice(("eslint", "vite", "zod", "prisma", "jest"))
    for part in words.some(rng, words.PARTS, 7, 12):
        there = f"packages/{part}"
        trace.call("coder", "bash", {"command": f"cd {there} && npm i {tool}@{to}"}, "up to date, audited 1 package")
        trace.call("coder", "bash", {"command": f"cd {there} && npm run build"}, "Done.")
        if rng.random() < 0.25:
            trace.call("coder", "bash", {"command": f"cd {there} && npm test"}, error=f"1 failing: {words.remark(rng)}")
            trace.call(
                "coder",
                "edit_file",
                {
                    "path": f"{there}/index.ts",
                    "old_string": words.snippet(rng, 1, 2),
                    "new_string": words.snippet(rng, 1, 2),
                },
                "The file has been updated.",
            )
        trace.call("coder", "bash", {"command": f"cd {there} && npm test"}, "All tests passed")
        trace.call("coder", "bash", {"command": f"git commit -qam 'build({part}): {tool} {to}'"}, "")
    return trace.ends()


@SEVENTH.honest(8, "coverage is raised: a test is written, the suite run; the figure rises slowly and sometimes stays")
def coverage_creeps_up(rng: Random) -> Run:
    trace, percent = run(rng), rng.uniform(55, 72)
    code_work(trace, "tester", 1, 2)
    while percent < 80:
        part = rng.choice(words.PARTS)
        trace.call(
            "tester",
            "write_file",
            {"path": f"tests/test_{part}_{rng.choice(words.DOES)}.py", "content": words.snippet(rng, 4, 8)},
            "File written",
        )
        trace.call(
            "tester",
            "bash",
            {"command": "pytest -q --cov=app --cov-report=term | tail -2"},
            f"TOTAL {percent:.0f}%\n{rng.randint(80, 300)} passed in {rng.uniform(5, 30):.2f}s",
        )
        percent += rng.choice((0, 0.4, 1.1, 2.3))
    trace.call("tester", "bash", {"command": "git commit -am 'Cover what was not'"}, "1 file changed")
    return trace.ends()


@SEVENTH.honest(8, "an image does not build: another error at each attempt, eight attempts, then it builds")
def image_at_last_builds(rng: Random) -> Run:
    trace = run(rng)
    errors = [
        "COPY failed: no source files were specified",
        "E: Unable to locate package libpq5-dev",
        "error: externally-managed-environment",
        "sh: 1: node-gyp: not found",
        "failed to solve: python:3.13-alpne: not found",
        "ERROR: Could not find a version of psycopg2",
        "mkdir: cannot create directory '/srv': Permission denied",
        "exec format error",
        "npm ERR! ERESOLVE unable to resolve dependency tree",
        "gpg: keyserver receive failed: No data",
    ]
    for error in words.some(rng, errors, 5, 9):
        trace.call(
            "devops",
            "bash",
            {"command": "docker build -t app:dev ."},
            error=f"[{rng.randint(2, 9)}/9] ERROR\n{error}\nexit code: {rng.choice((1, 1, 2, 100))}",
            pause=40,
        )
        trace.call(
            "devops",
            "edit_file",
            {
                "path": "Dockerfile",
                "old_string": f"RUN make {rng.choice(words.PARTS)}",
                "new_string": f"RUN make {rng.choice(words.PARTS)}",
            },
            "The file has been updated.",
        )
    trace.call(
        "devops",
        "bash",
        {"command": "docker build -t app:dev ."},
        f"Successfully tagged app:dev ({words.hexa(rng, 12)})",
        pause=90,
    )
    return trace.ends()


@SEVENTH.honest(9, "a page is tuned by eye: change a style, take a screenshot that only says where it was put")
def tuned_by_screenshot(rng: Random) -> Run:
    trace, shot = run(rng), {"status": "ok", "path": "/tmp/screenshot.png", "size": "1440x900"}
    code_work(trace, "frontend", 1, 2)
    rules = ["padding", "gap", "font-size", "line-height", "max-width", "margin-top", "border-radius"]
    for _ in range(rng.randint(6, 11)):
        rule, before = rng.choice(rules), rng.randint(4, 40)
        trace.call(
            "frontend",
            "edit_file",
            {
                "path": "src/app.css",
                "old_string": f"{rule}: {before}px",
                "new_string": f"{rule}: {before + rng.randint(-4, 9)}px",
            },
            "The file has been updated.",
        )
        trace.call("frontend", "screenshot", {"url": "http://localhost:5173/"}, shot)
    trace.say("frontend", "The header lines up with the table now.")
    return trace.ends()


# github.com/QwenLM/qwen-code/pull/3236
@SEVENTH.honest(8, "a project is read before anything is written: fifteen files and more, one after the other")
def reading_a_project(rng: Random) -> Run:
    trace = run(rng)
    trace.call("explorer", "list_directory", {"path": "."}, "\n".join(sorted(words.some(rng, words.PARTS, 9, 14))))
    for _ in range(rng.randint(12, 22)):
        trace.call("explorer", "read_file", {"path": words.path(rng)}, words.snippet(rng, 3, 9))
    trace.say("explorer", " ".join(words.remark(rng) for _ in range(5)))
    return trace.ends()


@SEVENTH.honest(8, "a list of todos is written anew at every step: the same lines, one more of them done")
def todos_between_steps(rng: Random) -> Run:
    trace, items = run(rng), [words.remark(rng) for _ in range(rng.randint(5, 8))]
    for number, item in enumerate([*items, None]):
        trace.call(
            "coder",
            "TodoWrite",
            {
                "todos": [
                    {
                        "content": one,
                        "status": "completed" if place < number else "in_progress" if place == number else "pending",
                    }
                    for place, one in enumerate(items)
                ]
            },
            "Todos have been modified successfully. Ensure that you continue to use the todo list.",
        )
        if item:
            code_work(trace, "coder", 2, 3)
            if rng.random() < 0.6:
                trace.call("coder", "bash", {"command": "make test"}, "ok")
    return trace.ends()


@SEVENTH.honest(8, "a pull request is minded for hours: checks, review comments, a fix and an answer to each, checks")
def minding_a_pull_request(rng: Random) -> Run:
    trace, number = run(rng, untimed=0.15), rng.randrange(200, 9000)
    for _ in range(rng.randint(2, 4)):
        for _ in range(rng.randint(1, 4)):
            trace.call(
                "pr-bot",
                "bash",
                {"command": f"gh pr checks {number}"},
                f"build\tpass\t2m\nunit\tpending\t0\ne2e\tpending\t0\t{number}",
                pause=rng.choice((60.0, 120.0)),
            )
        trace.call(
            "pr-bot", "bash", {"command": f"gh pr checks {number}"}, "build\tpass\nunit\tpass\ne2e\tpass", pause=120
        )
        comments = [{"id": rng.randrange(10**9), "body": words.remark(rng)} for _ in range(rng.randint(1, 3))]
        trace.call("pr-bot", "get_review_comments", {"pr": number, "unresolved": True}, comments, pause=600)
        for one in comments:
            trace.call(
                "pr-bot",
                "edit_file",
                {
                    "path": words.path(rng),
                    "old_string": words.snippet(rng, 1, 2),
                    "new_string": words.snippet(rng, 1, 3),
                },
                "The file has been updated.",
            )
            trace.call("pr-bot", "reply_to_comment", {"id": one["id"], "body": "Fixed, thanks."}, {"ok": True})
        trace.call("pr-bot", "bash", {"command": "git commit -am 'Address review' && git push"}, words.hexa(rng, 7))
    trace.call("pr-bot", "get_review_comments", {"pr": number, "unresolved": True}, [])
    return trace.ends()


# github.com/agent-tools-org/ai-dispatch/pull/125, github.com/anthony-chaudhary/fak/issues/3943
@SEVENTH.honest(8, "one large file is written in twenty edits of its many places, each answered by the same words")
def many_edits_of_one_file(rng: Random) -> Run:
    trace, file = run(rng), words.path(rng, ".py")
    for number in range(rng.randint(14, 22)):
        trace.call(
            "coder",
            "edit_file",
            {"path": file, "old_string": words.snippet(rng, 1, 3), "new_string": words.snippet(rng, 2, 5)},
            "The file has been updated.",
        )
        if number % 6 == 5:
            trace.call("coder", "bash", {"command": f"python -m py_compile {file}"}, "")
    trace.call("coder", "bash", {"command": "pytest -q"}, f"{rng.randint(20, 200)} passed")
    return trace.ends()


@SEVENTH.honest(8, "a bug that does not give in: edit, the same test, the same assertion, four times, then green")
def four_tries_at_a_bug(rng: Random) -> Run:
    trace, test = run(rng), f"tests/test_{rng.choice(words.PARTS)}.py::test_{rng.choice(words.DOES)}"
    failed = f"FAILED {test} - AssertionError: assert {rng.randrange(9)} == {rng.randrange(10, 99)}"
    code_work(trace, "coder", 2, 4)
    for _ in range(rng.randint(3, 5)):
        trace.call(
            "coder",
            "edit_file",
            {
                "path": words.path(rng, ".py"),
                "old_string": words.snippet(rng, 1, 2),
                "new_string": words.snippet(rng, 1, 3),
            },
            "The file has been updated.",
        )
        trace.call("coder", "bash", {"command": f"pytest -q {test}"}, f"{failed}\n1 failed in {rng.uniform(1, 3):.2f}s")
        if rng.random() < 0.5:
            trace.say("coder", words.remark(rng))
    trace.call(
        "coder",
        "edit_file",
        {
            "path": words.path(rng, ".py"),
            "old_string": words.snippet(rng, 1, 2),
            "new_string": words.snippet(rng, 1, 3),
        },
        "The file has been updated.",
    )
    trace.call("coder", "bash", {"command": f"pytest -q {test}"}, "1 passed in 0.31s")
    return trace.ends()
