"""Folder of an evaluation's run: `run.json` says what is run, `rows.jsonl` what became of it, one row a change.

In: submissions and runs. Out: a record that a killed process leaves whole: each row is on the disk before the next step
is taken, so that a run is submitted again under its key, and neither made nor paid twice.
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bulkhead.evaluation.cases import CaseError, EvaluationCase
from bulkhead.evaluation.judges.certificates import SeatedJudge
from bulkhead.evaluation.runs import CaseRun, CaseRunOutcome, CaseRuns, RunRecord, RunSlot, Submission

MANIFEST, ROWS = "run.json", "rows.jsonl"
MAX_MANIFEST_BYTES = 64 * 1024 * 1024
MAX_ROW_CHARS = 8 * 1024 * 1024
_RUN = TypeAdapter(CaseRun)
_OUTCOME = TypeAdapter(CaseRunOutcome)


class RunManifest(BaseModel):
    """Settings of a run. cases: as they are judged; digests: of each with its files, by name; inputs: the same without
    the checks. judges: those of the checks. tenant: the one whose tasks they are, or its key's digest where that does
    not name it. release: the label of the prompts that it is made under. made_by: version of the package."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    form: Literal[1] = 1
    run: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    case_file: str
    began_unix_ms: int
    made_by: str = ""
    mesh: str = ""
    tenant: str = ""
    budget_usd_micros: int = 0
    release: str = ""
    route: str = ""
    repetitions: int
    deadline_s: float
    check: bool = True
    cases: tuple[EvaluationCase, ...]
    digests: dict[str, str]
    inputs: dict[str, str] = {}
    judges: tuple[SeatedJudge, ...] = ()

    @property
    def run_count(self) -> int:
        """Runs that a whole evaluation has."""
        return len(self.cases) * self.repetitions


class _Began(BaseModel):
    kind: Literal["began"] = "began"
    slot: RunSlot
    key: str
    limit_usd_micros: int


class _Answered(BaseModel):
    kind: Literal["answered"] = "answered"
    slot: RunSlot
    outcome: dict[str, Any]


class _Ended(BaseModel):
    kind: Literal["ended"] = "ended"
    run: dict[str, Any]


class _Dropped(BaseModel):
    kind: Literal["dropped"] = "dropped"
    slot: RunSlot
    cost_usd_micros: int


_AnyRow = _Began | _Answered | _Ended | _Dropped
_ROW: TypeAdapter[_AnyRow] = TypeAdapter(Annotated[_AnyRow, Field(discriminator="kind")])


class RunFolder(RunRecord):
    """Record in a folder. Made by `create` or `open`; only one process at a time may write to it."""

    def __init__(self, path: Path, manifest: RunManifest, rows: IO[bytes] | None) -> None:
        self.path, self.manifest = path, manifest
        self._rows = rows
        self._finished: dict[RunSlot, CaseRun] = {}
        self._open: dict[RunSlot, Submission] = {}
        self._unjudged: dict[RunSlot, CaseRunOutcome] = {}
        self._attempts: dict[RunSlot, int] = {}
        self._lost_usd_micros = 0

    @classmethod
    def create(cls, path: Path, manifest: RunManifest) -> Self:
        """A new run. Raises CaseError for a folder that has one, or cannot be written."""
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (path / MANIFEST).exists():
                raise CaseError(f"{path} holds a run already", "resume it with --resume, or name another folder")
            # The rows first: a folder without a manifest is no run yet, and may be made again.
            rows = _open_rows(path, "ab")
            _write_manifest(path, manifest)
        except OSError as error:
            problem = f"{path} cannot be written: {error.strerror}"
            raise CaseError(problem, "name a folder for the run with --out") from error
        return cls(path, manifest, rows)

    @classmethod
    def open(cls, path: Path, *, may_write: bool = False) -> Self:
        """A run that was begun before. Raises CaseError for one that cannot be read, or that another process writes."""
        try:
            if (path / MANIFEST).stat().st_size > MAX_MANIFEST_BYTES:
                raise CaseError(f"{path / MANIFEST} is larger than {MAX_MANIFEST_BYTES:,} bytes", "it is no run's")
            manifest = RunManifest.model_validate_json((path / MANIFEST).read_bytes())
            folder = cls(path, manifest, _open_rows(path, "r+b") if may_write else None)
            folder._read_rows()
        except OSError as error:
            problem = f"{path} holds no run that can be read: {error.strerror}"
            raise CaseError(problem, "name the folder of a run, or its id below .bulkhead/evals") from error
        except ValidationError as error:
            problem = f"{path / MANIFEST} is no run's: {error.errors()[0]['msg'][:200]}"
            raise CaseError(problem, "name a folder that `bulkhead eval run` has made with this version") from error
        return folder

    def close(self) -> None:
        """Let other processes write to it."""
        if self._rows is not None:
            self._rows.close()
            self._rows = None

    @property
    def finished(self) -> Mapping[RunSlot, CaseRun]:
        """See RunRecord."""
        return self._finished

    @property
    def lost_usd_micros(self) -> int:
        """See RunRecord. A run that is not judged yet is paid, too."""
        return self._lost_usd_micros + sum(outcome.cost_usd_micros for outcome in self._unjudged.values())

    @property
    def runs(self) -> CaseRuns:
        """All runs on record."""
        spent = sum(run.outcome.cost_usd_micros for run in self._finished.values()) + self.lost_usd_micros
        return CaseRuns(tuple(self._finished.values()), self.manifest.run_count, spent)

    def find_submission(self, slot: RunSlot) -> Submission | None:
        """See RunRecord."""
        return self._open.get(slot)

    def begin_run(self, slot: RunSlot, limit_usd_micros: int) -> Submission:
        """See RunRecord: the key is on the disk before anything is submitted under it."""
        case, route, repetition = slot
        attempt = self._attempts.get(slot, 0)
        key = f"eval/{self.manifest.run}/{case}/{route}/{repetition}/{attempt}"
        self._append_row(_Began(slot=slot, key=key, limit_usd_micros=limit_usd_micros))
        return Submission(key, limit_usd_micros)

    def change_manifest(self, manifest: RunManifest) -> int:
        """Go on with other settings. Runs of cases whose checks were changed are to be judged anew; gives their number.
        Raises CaseError where it cannot be written."""
        changed = {name for name, digest in manifest.digests.items() if self.manifest.digests.get(name) != digest}
        runs = [run for run in self._finished.values() if run.case in changed]
        for run in runs:
            self.keep_outcome((run.case, run.route, run.repetition), run.outcome)
        # The manifest last: until it is replaced a process that is killed leaves a run that is judged once more.
        try:
            _write_manifest(self.path, manifest)
        except OSError as error:
            problem = f"{self.path} cannot be written: {error.strerror}"
            raise CaseError(problem, "make room there, or allow it, and resume again") from error
        self.manifest = manifest
        return len(runs)

    def find_outcome(self, slot: RunSlot) -> CaseRunOutcome | None:
        """See RunRecord."""
        return self._unjudged.get(slot)

    def keep_outcome(self, slot: RunSlot, outcome: CaseRunOutcome) -> None:
        """See RunRecord."""
        self._append_row(_Answered(slot=slot, outcome=_OUTCOME.dump_python(outcome, mode="json")))

    def finish_run(self, run: CaseRun) -> None:
        """See RunRecord."""
        self._append_row(_Ended(run=_RUN.dump_python(run, mode="json")))

    def drop_run(self, slot: RunSlot, cost_usd_micros: int) -> None:
        """See RunRecord."""
        self._append_row(_Dropped(slot=slot, cost_usd_micros=cost_usd_micros))

    def _append_row(self, row: _AnyRow) -> None:
        assert self._rows is not None, "opened for reading"
        self._rows.write(row.model_dump_json().encode() + b"\n")
        self._rows.flush()
        os.fsync(self._rows.fileno())
        self._apply_row(row)

    def _apply_row(self, row: _AnyRow) -> None:
        match row:
            case _Began():
                self._open[row.slot] = Submission(row.key, row.limit_usd_micros, repeated=True)
            case _Answered():
                self._unjudged[row.slot] = _OUTCOME.validate_python(row.outcome)
                self._open.pop(row.slot, None)
                self._finished.pop(row.slot, None)  # It is judged anew.
            case _Ended():
                run = _RUN.validate_python(row.run)
                slot = (run.case, run.route, run.repetition)
                self._finished[slot] = run
                self._unjudged.pop(slot, None)
                self._open.pop(slot, None)
            case _Dropped():
                self._attempts[row.slot] = self._attempts.get(row.slot, 0) + 1
                self._lost_usd_micros += row.cost_usd_micros
                self._open.pop(row.slot, None)

    def _read_rows(self) -> None:
        """Apply the stored rows; cut off a last one that a killed process has not written to its end."""
        whole_bytes = 0
        with (self.path / ROWS).open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_ROW_CHARS), b""), 1):
                if not line.endswith(b"\n"):
                    if file.read(1):
                        raise CaseError(f"{self.path / ROWS}, line {number} is too long", "it is no run's")
                    break
                try:
                    self._apply_row(_ROW.validate_json(line))
                except ValidationError as error:
                    problem = f"{self.path / ROWS}, line {number} is no row: {error.errors()[0]['msg'][:200]}"
                    raise CaseError(problem, "start a new run; this one was changed by hand") from error
                whole_bytes += len(line)
        if self._rows is not None:
            self._rows.truncate(whole_bytes)
            self._rows.seek(whole_bytes)


def _open_rows(path: Path, mode: str) -> IO[bytes]:
    """The rows for one writer. Raises CaseError while another process has them."""
    rows: IO[bytes] = (path / ROWS).open(mode)
    try:
        fcntl.flock(rows, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        rows.close()
        raise CaseError(f"another process runs {path}", "wait for it, or stop it") from error
    return rows


def _write_manifest(path: Path, manifest: RunManifest) -> None:
    """Replace the manifest in one step. Raises OSError."""
    fresh = path / f"{MANIFEST}.new"
    with fresh.open("w") as file:
        file.write(manifest.model_dump_json(exclude_unset=True, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path / MANIFEST)
    _sync_folder(path)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
