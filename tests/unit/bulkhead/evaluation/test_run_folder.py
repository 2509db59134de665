"""Record of a run in a folder: what a crash at each point leaves, and one writer at a time."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead.evaluation.answers import CaseAnswer, ToolCallRecord
from bulkhead.evaluation.cases import CaseError, Check, EvaluationCase
from bulkhead.evaluation.python_checks import load_python_check
from bulkhead.evaluation.run_folder import ROWS, RunFolder, RunManifest
from bulkhead.evaluation.runs import CaseRun, CaseRunOutcome, RunRecord, RunSlot, Submission, run_all

CASES = tuple(EvaluationCase(name=f"c{n}", objective="x", checks=(Check(contains="yes"),)) for n in range(3))
MANIFEST = RunManifest(
    run="r1",
    case_file="cases.jsonl",
    began_unix_ms=1,
    repetitions=2,
    deadline_s=60,
    cases=CASES,
    digests={case.name: "0" for case in CASES},
)
ANSWER = CaseAnswer("yes [#3fa9c1d2e4b5]", ("terms.md",), "yes", (ToolCallRecord("search", "{}", "succeeded"),), 7, 9)
OUTCOME = CaseRunOutcome("t1", "succeeded", ANSWER, 9, None, 7, 5, models=("p/m",))
SLOT = ("c0", "", 0)


class Crashing:
    """A runner on tasks that are kept under their keys, as a mesh does; it crashes at the calls that are named."""

    def __init__(self, *crashes: int) -> None:
        self.tasks: dict[str, int] = {}
        self.repeated: list[str] = []
        self._crashes, self._calls = crashes, 0

    async def run(self, case: EvaluationCase, route: str, submission: Submission) -> CaseRunOutcome:
        self._calls += 1
        assert self.tasks.setdefault(submission.key, submission.limit_usd_micros) == submission.limit_usd_micros
        if submission.repeated:
            self.repeated.append(submission.key)
        await asyncio.sleep(0)
        if self._calls in self._crashes:
            raise ConnectionError("killed")
        return replace(OUTCOME, task=submission.key)


async def run_folder(folder: RunFolder, runner: Crashing, at_once: int = 2) -> None:
    how = {"repeat": 2, "limit_usd_micros": 10**9, "at_once": at_once}
    await run_all(runner, CASES, ("",), record=folder, **how)


async def test_a_run_that_is_killed_again_and_again_submits_each_repetition_under_one_key(tmp_path: Path) -> None:
    runner = Crashing(1, 4, 5)
    folder = RunFolder.create(tmp_path / "run", MANIFEST)
    while not folder.runs.is_complete:
        try:
            await run_folder(folder, runner)
        except ConnectionError:
            folder.close()
            folder = RunFolder.open(tmp_path / "run", may_write=True)
    assert len(runner.tasks) == MANIFEST.run_count and runner.repeated
    assert {run.outcome.task for run in folder.runs.runs} == {*runner.tasks}
    assert folder.runs.spent_usd_micros == 7 * MANIFEST.run_count


def test_a_run_on_disk_is_the_run_that_was_made(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", MANIFEST)
    submission = folder.begin_run(SLOT, 100)
    run = CaseRun(*SLOT, OUTCOME, ("contains: yes (why)",))
    folder.finish_run(run)
    other = RunFolder.open(tmp_path / "run")
    assert other.manifest == MANIFEST and other.finished == {SLOT: run} and other.find_submission(SLOT) is None
    assert submission.key == "eval/r1/c0//0/0" and not submission.repeated


def test_a_row_that_was_not_written_to_its_end_is_cut_off(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", MANIFEST)
    folder.begin_run(SLOT, 100)
    folder.close()
    rows = tmp_path / "run" / ROWS
    whole = rows.read_bytes()
    rows.write_bytes(whole + whole[:-9])
    folder = RunFolder.open(tmp_path / "run", may_write=True)
    assert folder.find_submission(SLOT) == Submission("eval/r1/c0//0/0", 100, repeated=True)
    folder.finish_run(CaseRun(*SLOT, OUTCOME))
    assert rows.read_bytes().startswith(whole) and RunFolder.open(tmp_path / "run").finished


def test_a_run_that_was_cut_off_is_paid_and_gets_another_key(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", MANIFEST)
    folder.begin_run(SLOT, 100)
    folder.drop_run(SLOT, 90)
    folder.close()
    folder = RunFolder.open(tmp_path / "run", may_write=True)
    assert folder.runs.spent_usd_micros == folder.lost_usd_micros == 90
    assert folder.find_submission(SLOT) is None and folder.begin_run(SLOT, 200).key.endswith("/1")


async def test_an_answer_outlives_a_check_that_breaks_and_is_judged_without_another_run(tmp_path: Path) -> None:
    missing = CASES[0].model_copy(update={"checks": (Check(python=f"{tmp_path}/checks.py:check"),)})
    runner, one_run = Crashing(), {"repeat": 1, "limit_usd_micros": 10**9, "at_once": 1}
    folder = RunFolder.create(tmp_path / "run", MANIFEST)
    with pytest.raises(CaseError, match="cannot be loaded"):
        await run_all(runner, (missing,), ("",), record=folder, **one_run)
    folder.close()
    folder = RunFolder.open(tmp_path / "run", may_write=True)
    assert folder.find_outcome(SLOT) and folder.runs.spent_usd_micros == 7 and not folder.finished
    # Not even the money for another run is wanted.
    runs = await run_all(runner, CASES[:1], ("",), record=folder, **(one_run | {"limit_usd_micros": 7}))
    assert len(runner.tasks) == 1 and runs.is_complete and folder.finished[SLOT].has_passed
    assert runs.spent_usd_micros == folder.runs.spent_usd_micros == 7 and not runner.repeated


async def test_runs_go_on_while_a_check_takes_its_time(tmp_path: Path) -> None:
    # The check waits for the other case's task, which the runner submits meanwhile.
    (tmp_path / "slow.py").write_text(
        "import threading\nsubmitted = threading.Event()\ndef check(answer): return submitted.wait(5)\n"
    )
    slow = CASES[0].model_copy(update={"checks": (Check(python=f"{tmp_path}/slow.py:check"),)})
    submitted = load_python_check(f"{tmp_path}/slow.py:check").__globals__["submitted"]
    is_judging = asyncio.Event()

    class Waiting(Crashing):
        async def run(self, case: EvaluationCase, route: str, submission: Submission) -> CaseRunOutcome:
            if case is not slow:
                await is_judging.wait()
                submitted.set()
            return await super().run(case, route, submission)

    class Telling(RunRecord):
        def keep_outcome(self, slot: RunSlot, outcome: CaseRunOutcome) -> None:
            asyncio.get_running_loop().call_soon(is_judging.set)

    how = {"repeat": 1, "limit_usd_micros": 10**9, "at_once": 2}
    runs = await run_all(Waiting(), (slow, CASES[1]), ("",), record=Telling(), **how)
    assert all(run.has_passed for run in runs.runs) and runs.is_complete


def test_only_one_process_writes_and_no_run_is_written_over(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", MANIFEST)
    with pytest.raises(CaseError, match="another process runs"):
        RunFolder.open(tmp_path / "run", may_write=True)
    folder.close()
    with pytest.raises(CaseError, match="holds a run already"):
        RunFolder.create(tmp_path / "run", MANIFEST)


@pytest.mark.parametrize(
    ("name", "text"), [("run.json", "{}"), (ROWS, "{}\n"), (ROWS, '{"kind": "ended", "run": {}}\n')]
)
def test_files_that_were_changed_by_hand_are_refused(tmp_path: Path, name: str, text: str) -> None:
    RunFolder.create(tmp_path / "run", MANIFEST).close()
    (tmp_path / "run" / name).write_text(text)
    with pytest.raises(CaseError) as caught:
        RunFolder.open(tmp_path / "run")
    assert name in str(caught.value) and caught.value.hint
    with pytest.raises(CaseError, match="no run that can be read"):
        RunFolder.open(tmp_path / "none")
