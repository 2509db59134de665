"""The seventh set, part four: loops of coding agents and of what stands round them, as public trackers report them.

In: a random generator. Out: traces. Every run begins with honest work; then `loop_begins` names how many rows a round
has: three periods are over with row `start + 4 * period` (the first round is news). Addresses name the reports.
"""

from random import Random

from tests.health_set import seventh_words as words
from tests.health_set.sets import SEVENTH
from tests.health_set.seventh_words import Run, code_work, run


def rounds(rng: Random) -> int:
    """How often it goes round before a person stops it."""
    return rng.randint(7, 14)


# github.com/bytedance/deer-flow/issues/1055
@SEVENTH.looping(5, "whether a module can be imported is checked again and again, with the same command and answer")
def import_checked_again(rng: Random) -> Run:
    trace, part = run(rng), rng.choice(words.PARTS)
    code_work(trace, "auditor")
    trace.loop_begins(1)
    for _ in range(rounds(rng)):
        trace.call(
            "auditor",
            "bash",
            {"description": "Check if module exists", "command": f"python -c 'import app.{part}; print(\"ok\")'"},
            "ok\n",
        )
    return trace


# github.com/cline/cline/issues/4384, 3771, 2126
@SEVENTH.looping(6, "a diff never matches: read the file, try the block again a little otherwise, refused")
def diff_never_matches(rng: Random) -> Run:
    trace, file = run(rng), words.path(rng, ".ts")
    content, block = words.snippet(rng, 8, 14), words.snippet(rng, 3, 5)
    code_work(trace, "coder")
    trace.loop_begins(2)
    for number in range(rounds(rng)):
        trace.call("coder", "read_file", {"path": file}, content)
        tried = block if number % 3 == 0 else block.replace("    ", rng.choice(("  ", "\t", "      ")))
        trace.call(
            "coder",
            "replace_in_file",
            {"path": file, "diff": (f"<<<<<<< SEARCH\n{tried}\n=======\n{words.snippet(rng, 1, 2)}\n>>>>>>> REPLACE")},
            error=(
                "The SEARCH block:\n...does not match anything in the file. Please re-read the file and make a "
                "targeted "
                "replace_in_file edit."
            ),
        )
    return trace


# github.com/openclaw/openclaw/issues/122577
@SEVENTH.looping(5, "one document is written whole, again and again, each time in other words; nobody reads it")
def document_written_anew(rng: Random) -> Run:
    trace, topic = run(rng), rng.choice(words.TOPICS)
    file = f"docs/{topic.replace(' ', '-')}.md"
    code_work(trace, "writer", 1, 3)
    lines = [words.finding(rng) for _ in range(9)]
    trace.loop_begins(3)
    for _ in range(rng.randint(22, 30)):
        lines[rng.randrange(9)] = words.finding(rng)
        lines[rng.randrange(9)] = words.finding(rng)
        text = f"# {topic.capitalize()}\n\n" + "\n".join(lines)
        trace.call(
            "writer",
            "write",
            {"path": file, "content": text},
            {"changed": True, "message": f"Successfully wrote {len(text)} bytes to {file}"},
        )
    return trace


# github.com/openclaw/openclaw/issues/79301, github.com/microsoft/vscode/issues/256281
@SEVENTH.looping(5, "the same plan and the same file, created again and again as if it were not there yet")
def file_created_again(rng: Random) -> Run:
    trace, file, text = run(rng), words.path(rng, ".ts"), words.snippet(rng, 8, 14)
    code_work(trace, "coder")
    plan = f"Let me plan: 1. create {file}, 2. use it on the page, 3. show while it loads."
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        trace.say("coder", rng.choice((plan, f"The user wants real data. {plan}", f"Now, {plan.lower()}")))
        body = text + "\n" * rng.randrange(3)
        trace.call("coder", "write", {"path": file, "content": body}, f"Successfully wrote {len(body)} bytes to {file}")
    return trace


# github.com/kentcdodds/kody/issues/1818
@SEVENTH.looping(5, "a server does not start, its port is taken; killed, started, its port is taken")
def port_is_taken(rng: Random) -> Run:
    trace, port = run(rng), rng.choice((3000, 5173, 8000, 8080))
    code_work(trace, "coder")
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        trace.call(
            "coder",
            "bash",
            {"command": "npm run dev"},
            f"> app@0.1.0 dev\nError: listen EADDRINUSE: address already in use :::{port}\n"
            f"npm ERR! A complete log of this run can be found in: /root/.npm/_logs/{trace.stamp()}-debug.log",
        )
        trace.call(
            "coder",
            "bash",
            {"command": f"kill -9 $(lsof -t -i:{port}) || true"},
            rng.choice(
                ("", f"bash: line {rng.randrange(9, 90)}: kill: ({rng.randrange(2000, 32000)}) - No such process")
            ),
        )
    return trace


# dev.to/alanwest/how-to-fix-tool-use-loops-in-autonomous-coding-agents-540e
@SEVENTH.looping(6, "the same four or five files are read in turn, 'to double-check', and never is a line written")
def double_checking_files(rng: Random) -> Run:
    trace = run(rng)
    files = {words.path(rng): words.snippet(rng, 5, 10) for _ in range(rng.randint(4, 5))}
    code_work(trace, "coder", 1, 3)
    trace.loop_begins(len(files))
    order = list(files)
    for _ in range(rng.randint(7, 9)):
        if rng.random() < 0.4:
            rng.shuffle(order)
        for file in order:
            trace.call("coder", "read_file", {"path": file}, files[file])
    return trace


# github.com/anthropics/claude-code/issues/86291
@SEVENTH.looping(5, "after a compaction every 'continue' is answered by reading the same lines of the same file")
def continue_and_read(rng: Random) -> Run:
    trace, file, start = run(rng), words.path(rng, ".go"), rng.randrange(20, 400)
    lines = words.snippet(rng, 6, 10)
    code_work(trace, "coder", 3, 6)
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        trace.say(
            "user",
            rng.choice(("continue", "continue", "Continue.", "go on", "please continue")),
            "coder",
            pause=rng.uniform(10, 90),
        )
        trace.call("coder", "Read", {"file_path": file, "offset": start, "limit": 40}, lines)
    return trace


# github.com/code-yeongyu/oh-my-openagent/issues/4292
@SEVENTH.looping(5, "a hook objects to a comment after every edit; the comment is worded anew, the hook objects")
def hook_objects_to_comment(rng: Random) -> Run:
    trace, file = run(rng), words.path(rng, ".py")
    code_work(trace, "coder")
    part, what = rng.choice(words.PARTS), rng.choice(words.WHATS)
    old = f"# {part} {rng.choice(words.DOES)} {what}"
    trace.loop_begins(3)
    for _ in range(rng.randint(22, 30)):
        new = f"# {part} {rng.choice(words.DOES)} {what} {rng.choice(words.HOWS)}"
        trace.call(
            "coder",
            "edit",
            {"filePath": file, "oldString": old, "newString": new},
            (
                "Edit applied.\n\nCOMMENT/DOCSTRING DETECTED - IMMEDIATE ACTION REQUIRED\nYour edit contains comments. "
                "You must justify them or remove them. This message must never be ignored.\n"
                f"<file>{file}</file><comment line='{rng.randrange(9, 300)}'>{new}</comment>"
            ),
        )
        old = new
    return trace


# github.com/gke-labs/gemini-for-kubernetes-development/issues/680
@SEVENTH.looping(5, "a generator fails; what it generated is deleted, it is run again, it fails at the same line")
def generator_fails(rng: Random) -> Run:
    trace, part, line = run(rng), rng.choice(words.PARTS), rng.randrange(20, 300)
    code_work(trace, "coder")
    trace.loop_begins(3)
    for _ in range(rounds(rng)):
        trace.call(
            "coder",
            "run_shell_command",
            {"command": "./hack/generate.sh"},
            f"[{trace.stamp()}] generating {part}\nerror: {part}_types.go:{line}: undefined: Spec\nexit code 1",
            pause=rng.uniform(10, 30),
        )
        trace.say(
            "coder",
            rng.choice(
                (
                    "The generated file may be stale. I'll delete it and run again.",
                    "Let me remove the generated file, so that the script starts clean.",
                    "It still fails. Perhaps the old output is in the way.",
                )
            ),
        )
        trace.call("coder", "run_shell_command", {"command": f"rm -f pkg/{part}/zz_generated.go"}, "")
    return trace


# github.com/anthropics/claude-code/issues/43906, github.com/openai/codex/issues/37937
@SEVENTH.looping(6, "a stop hook blocks the end of every turn with the same words; the agent says that it is done")
def stop_hook_blocks(rng: Random) -> Run:
    trace = run(rng)
    code_work(trace, "coder", 3, 6)
    said = rng.choice(
        (
            "Stop hook feedback: No stderr output",
            "Stop hook feedback: summary not saved, call session_summary",
            "Stop hook error: Cannot find module './review.mjs'",
        )
    )
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        trace.say("hook", said, "coder", pause=1)
        trace.say(
            "coder",
            rng.choice(
                (
                    "The work is complete; nothing is left to do.",
                    "Everything is done. I have nothing to add.",
                    "All tasks are finished, as I said.",
                    "The hook has no message for me. The work is done.",
                    "Done. The change is committed and the tests pass.",
                )
            ),
            "user",
        )
    return trace


# github.com/Untrivial-ai/agent-orchestrator/issues/5701
@SEVENTH.looping(5, "a reviewer runs `true`, dozens of times, instead of the one call that it means to make")
def runs_true(rng: Random) -> Run:
    trace = run(rng)
    code_work(trace, "reviewer", 3, 6)
    trace.loop_begins(1)
    for _ in range(rng.randint(12, 30)):
        trace.call(
            "reviewer",
            "Bash",
            {
                "command": "true",
                "description": rng.choice(("No-op", "Placeholder", "Prepare review payload", "Continue")),
            },
            "",
        )
    return trace


@SEVENTH.looping(5, "the whole suite is run, cut off after two minutes, and run again in the same way")
def suite_is_cut_off(rng: Random) -> Run:
    trace = run(rng)
    code_work(trace, "coder")
    trace.loop_begins(1)
    for _ in range(rounds(rng)):
        trace.call(
            "coder",
            "bash",
            {"command": "npm test", "timeout": 120_000},
            error=f"Command timed out after 2m 0.{rng.randrange(9)}s\n> jest --runInBand\nRUNS tests/e2e/"
            "checkout.test.ts",
            pause=rng.uniform(121, 128),
        )
    return trace


# github.com/QwenLM/qwen-code/issues/6505
@SEVENTH.looping(5, "a helper lists a folder that does not exist, with fresh call ids, thousands of times")
def folder_not_there(rng: Random) -> Run:
    trace, folder = run(rng), f"/workspace/project/{rng.choice(words.PARTS)}"
    code_work(trace, "main", 1, 3)
    trace.say("main", "Explore: find where the settings are read.", "explore-1")
    trace.loop_begins(1)
    for _ in range(rounds(rng)):
        trace.call(
            "explore-1",
            "list_directory",
            {"path": folder},
            error=f"ENOENT: no such file or directory, scandir '{folder}'",
            call_id=f"call_{words.hexa(rng, 16)}",
        )
    return trace


@SEVENTH.looping(5, "a command is refused by the sandbox; tried with sudo, another shell, by python")
def sandbox_refuses(rng: Random) -> Run:
    trace, file = run(rng), f"/etc/{rng.choice(words.PARTS)}.d/local.conf"
    code_work(trace, "coder")
    ways = (
        "cp conf {f}",
        "sudo cp conf {f}",
        "bash -c 'cp conf {f}'",
        "install -m 644 conf {f}",
        "tee {f} < conf",
        "python3 -c \"open('{f}','w')\"",
        "sudo -E tee {f} < conf",
        "dd if=conf of={f}",
        "cat conf > {f}",
        "sh -c 'cat conf > {f}'",
        "rsync conf {f}",
        "mv conf {f}",
        "ln -sf $PWD/conf {f}",
        "cp --no-preserve=all conf {f}",
        "chmod 777 {f}",
    )
    trace.loop_begins(3)
    for way in rng.sample(ways, len(ways)):
        trace.call(
            "coder",
            "shell",
            {"command": ["bash", "-lc", way.format(f=file)]},
            error={"exit_code": 1, "stderr": f"{file}: Operation not permitted (sandbox: workspace-write)"},
        )
    for way in rng.sample(ways, 9):
        trace.call(
            "coder",
            "shell",
            {"command": ["bash", "-lc", way.format(f=file)]},
            error={"exit_code": 1, "stderr": f"{file}: Operation not permitted (sandbox: workspace-write)"},
        )
    return trace


# github.com/anthropics/claude-code/issues/67311
@SEVENTH.looping(5, "a result is handed in and refused by its schema, dozens of times, in other words, alike wrong")
def schema_refuses(rng: Random) -> Run:
    trace, lacks = run(rng), rng.choice(("finding_id", "severity", "verdict"))
    title, file, forms = (
        words.remark(rng),
        words.path(rng),
        ("{}", "Finding: {}", "{} Confirmed.", "In short: {}", "{} Traced in the code.", "Verdict: {}", "Result. {}"),
    )
    code_work(trace, "adjudicator", 3, 6)
    trace.loop_begins(3)
    for _ in range(rng.randint(22, 36)):
        trace.call(
            "adjudicator",
            "StructuredOutput",
            {
                "summary": f"{rng.choice(forms).format(title)} {words.remark(rng)}",
                "finding": {"title": rng.choice(forms).format(title), "file": file},
            },
            error=f"Output does not match required schema: root: must have required property '{lacks}'",
        )
    return trace


# github.com/QwenLM/qwen-code/issues/5180
@SEVENTH.looping(5, "a child was killed long ago; its output and its file are looked for again and again")
def child_is_dead(rng: Random) -> Run:
    trace, child = run(rng), f"agent_{words.hexa(rng, 8)}"
    code_work(trace, "lead", 2, 4)
    trace.call("lead", "agent", {"prompt": words.remark(rng), "run_in_background": True}, {"agentId": child})
    trace.loop_begins(2)
    for _ in range(rounds(rng)):
        trace.call(
            "lead",
            "task_output",
            {"task_id": child, "block": False},
            {"task_id": child, "status": "killed", "output": ""},
        )
        trace.call("lead", "glob", {"pattern": "reports/*.md"}, "No files found")
    return trace


# github.com/openai/codex/issues/36665
@SEVENTH.looping(5, "context is compacted, rules and skills are read, git status and diff, and it is compacted again")
def compacted_and_read_again(rng: Random) -> Run:
    trace = run(rng)
    code_work(trace, "coder", 3, 6)
    rules, skill, diff = words.snippet(rng, 6, 9), words.snippet(rng, 6, 9), words.snippet(rng, 5, 9)
    trace.loop_begins(5)
    for _ in range(rng.randint(7, 9)):
        trace.say(
            "coder",
            rng.choice(
                (
                    "Context compacted. I continue with the refactoring.",
                    "The conversation was compacted; first I read the rules again.",
                    "After the compaction I get an overview again.",
                )
            ),
        )
        trace.call("coder", "read_file", {"path": "AGENTS.md"}, rules)
        trace.call("coder", "read_file", {"path": ".skills/refactor/SKILL.md"}, skill)
        trace.call("coder", "shell", {"command": "git status --short"}, " M pkg/upload.go\n M pkg/store.go")
        trace.call("coder", "shell", {"command": "git diff"}, diff)
    return trace


# github.com/IntertechInc/claude-agent-team-feedback/issues/99
@SEVENTH.looping(5, "a run is polled by a malformed query that prints the same error each time; waited for anyway")
def malformed_poll(rng: Random) -> Run:
    trace, number = run(rng, untimed=0.15), rng.randrange(10**9, 10**10)
    code_work(trace, "ci-agent", 1, 3)
    trace.loop_begins(1)
    for _ in range(rounds(rng)):
        trace.call(
            "ci-agent",
            "bash",
            {"command": f"gh run view {number} --json status,conclusion --jq '.status|tostring + .conclusion'"},
            "failed to parse jq expression: expected an object but got: number",
            pause=rng.uniform(24, 28),
        )
    return trace
