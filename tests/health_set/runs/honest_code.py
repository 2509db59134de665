"""Honest runs: programming, shells, debuggers, screens, games. In: a random generator. Out: traces."""

from random import Random

from tests.health_set.runs import words
from tests.health_set.runs.traces import Trace
from tests.health_set.sets import DAILY


def tests_output(rng: Random, failing: int, of: int) -> str:
    """What pytest prints: failures by name, and a summary with a duration."""
    names = [
        f"FAILED tests/test_{rng.choice(('io', 'api', 'core'))}.py::test_{n} - assert {rng.randint(0, 99)} == {n}"
        for n in range(failing)
    ]
    verdict = f"{failing} failed, {of - failing} passed" if failing else f"{of} passed"
    return "\n".join([*names, f"===== {verdict} in {rng.uniform(0.2, 9):.2f}s ====="])


@DAILY.honest(35, "edit, test, fix: fewer tests fail from round to round")
def edit_test_fix(trace: Trace, rng: Random) -> None:
    failing, file = rng.randint(3, 9), words.path(rng)
    trace.call("coder", "read_file", {"path": file}, words.document(rng))
    while failing >= 0:
        trace.call("coder", "edit", {"path": file, "old": words.sentence(rng), "new": words.sentence(rng)}, "edited")
        trace.call("coder", "bash", {"command": "pytest -q"}, tests_output(rng, failing, 40))
        if rng.random() < 0.4:
            trace.call("coder", "read_file", {"path": file}, words.document(rng))
        failing -= rng.choice((0, 1, 1, 2)) if failing else 1


@DAILY.honest(30, "a stubborn bug: three to five different fixes with the same failure, then the right one")
def stubborn_bug(trace: Trace, rng: Random) -> None:
    file = words.path(rng)
    failure = "E   AssertionError: assert 3 == 4\nFAILED tests/test_core.py::test_sum"
    for _ in range(rng.randint(3, 5)):
        if rng.random() < 0.5:
            trace.call(
                "coder", "bash", {"command": f"grep -n {rng.choice(words.FIELDS)!r} -r src"}, words.document(rng, 3)
            )
        trace.call(
            "coder",
            "edit",
            {"path": file, "old": words.sentence(rng), "new": words.paragraph(rng)},
            f"The file {file} has been edited.",
        )
        trace.call(
            "coder",
            "bash",
            {"command": "pytest -q tests/test_core.py"},
            f"{failure}\n1 failed in 0.{rng.randint(1, 9)}s",
        )
    trace.call("coder", "edit", {"path": file, "old": words.sentence(rng), "new": words.sentence(rng)}, "edited")
    trace.call("coder", "bash", {"command": "pytest -q tests/test_core.py"}, "1 passed in 0.12s")


@DAILY.honest(25, "one instruction read again now and then, because the context was compacted")
def rereading_the_brief(trace: Trace, rng: Random) -> None:
    brief = words.document(rng)
    for _ in range(rng.randint(4, 8)):
        trace.call("coder", "read_file", {"path": "TASK.md"}, brief)
        for _ in range(rng.randint(6, 14)):
            trace.call(
                "coder",
                "bash",
                {"command": f"sed -n {rng.randint(1, 900)},+40p {words.path(rng)}"},
                words.document(rng, 6),
            )


@DAILY.honest(25, "git status, the list of todos or the quota after each act: the same again and again, beside news")
def housekeeping(trace: Trace, rng: Random) -> None:
    check = rng.choice(
        (
            ("bash", {"command": "git status --short"}, ""),
            ("quota", {}, {"left": "plenty"}),
            ("bash", {"command": "cd /repo"}, ""),
            ("health", {"service": "db"}, "ok"),
        )
    )
    for _ in range(rng.randint(10, 25)):
        trace.call("coder", *check)
        trace.call(
            "coder",
            "bash",
            {"command": f"grep -rn {rng.choice(words.FIELDS)!r} {words.path(rng)}"},
            words.document(rng, 3),
        )
        if rng.random() < 0.3:
            trace.call("coder", "edit", {"path": words.path(rng), "new": words.sentence(rng)}, "edited")


@DAILY.honest(25, "a debugger steps through a loop of the program: lines come back, variables change", timed=0.5)
def debugger(trace: Trace, rng: Random) -> None:
    first, value = rng.randint(10, 200), rng.randint(1, 50)
    trace.call("debugger", "gdb", {"command": f"break main.c:{first}"}, "Breakpoint 1 at 0x401136")
    for number in range(rng.randint(4, 9)):
        for line in range(3):
            trace.call(
                "debugger", "gdb", {"command": "next"}, f"{first + line}\t    total += items[i].price;"[: 20 + line]
            )
        value += rng.randint(1, 90)
        trace.call("debugger", "gdb", {"command": "print total"}, f"${number + 1} = {value}")


@DAILY.honest(25, "keys pressed on a screen: the same key, another picture each time, known by its digest")
def screen(trace: Trace, rng: Random) -> None:
    form = rng.choice(("blob", "sha256", "url"))
    for _ in range(rng.randint(4, 9)):
        key = rng.choice(("Tab", "Down", "PageDown"))
        for _ in range(rng.randint(3, 7)):
            shot = {
                "blob": {"screenshot": f"blob:{words.digest(rng)}"},
                "sha256": {"image_sha256": words.digest(rng)},
                "url": {"screenshot": f"/shots/{words.uuid(rng)}.png"},
            }[form]
            trace.call("driver", "press_key", {"key": key}, shot, pause=rng.uniform(1, 4))
        trace.call("driver", "type", {"text": words.query(rng)}, {"ok": True})


@DAILY.honest(20, "wrong guesses at a name before the right one: errors that resemble each other")
def looking_for_a_file(trace: Trace, rng: Random) -> None:
    for _ in range(rng.randint(2, 4)):
        for _ in range(rng.randint(1, 4)):
            guess = words.path(rng)
            trace.call("coder", "read_file", {"path": guess}, error=f"[Errno 2] No such file or directory: '{guess}'")
        trace.call("coder", "bash", {"command": f"find . -name '*{rng.choice(words.VERBS)}*'"}, words.path(rng))
        trace.call("coder", "read_file", {"path": words.path(rng)}, words.document(rng))


@DAILY.honest(20, "a suite run three times to see whether a test is flaky")
def flaky(trace: Trace, rng: Random) -> None:
    for _ in range(rng.randint(2, 4)):
        for number in range(3):
            trace.call(
                "coder",
                "bash",
                {"command": "pytest -q tests/test_race.py"},
                tests_output(rng, 1 if number == 1 else 0, 12),
            )
        trace.call("coder", "edit", {"path": "src/race.py", "new": words.sentence(rng)}, "edited")
        trace.call("coder", "bash", {"command": f"git diff {words.path(rng)}"}, words.document(rng, 5))


@DAILY.honest(20, "moves of a game: short words, positions that differ in a few marks", timed=0.5)
def game(trace: Trace, rng: Random) -> None:
    board = ["."] * 64
    for number in range(rng.randint(15, 40)):
        field = rng.randrange(64)
        board[field] = "XO"[number % 2]
        name = f"{'abcdefgh'[field % 8]}{field // 8 + 1}"
        trace.call(
            ("white", "black")[number % 2],
            "move",
            {"to": name},
            "\n".join("".join(board[at : at + 8]) for at in range(0, 64, 8)),
        )
