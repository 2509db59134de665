"""Certificates of judges: which may fail a case, for how long, and what the others lack.

In: judges and certificates beside a set, the time. Out: judges, each with why it is advice.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bulkhead.evaluation.cases import CaseError, EvaluationCase
from bulkhead.evaluation.judges.calibration import CalibrationFigures
from bulkhead.evaluation.judges.pairs import PositionBias
from bulkhead.evaluation.judges.panels import FILE, GROUNDED, Judge, load_judges
from bulkhead.text.amounts import format_time

GATE = 0.8
"""The lower bounds of both rates reach it, or what a calibration names above it."""
LEAST_CASES = 20
"""Labelled answers of each kind, good and bad, whose labellers agree."""
DAY_MS = 86_400_000
MAX_BYTES = 1024 * 1024
CALIBRATE = "hold it against labelled answers with `bulkhead eval calibrate`"


class Certificate(BaseModel):
    """A judge's certificate. judge_sha256: of its whole definition; dataset_sha256: of the labelled answers with their
    documents. models: those that voted, as `provider/model`. gate_true_positive, gate_true_negative: what the lower
    bounds had to reach. position: the bias of its jurors, where pairs were asked."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    form: Literal[1] = 1
    judge: str
    judge_sha256: str
    dataset: str
    dataset_sha256: str
    is_certified: bool
    gate_true_positive: float
    gate_true_negative: float
    models: tuple[str, ...] = ()
    figures: CalibrationFigures
    position: PositionBias | None = None
    made_unix_ms: int
    expires_unix_ms: int


class SeatedJudge(BaseModel):
    """A judge of a run. advice: why it fails no case; "" for a judge that may."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    judge: Judge
    certificate: Certificate | None = None
    advice: str = ""

    @property
    def digest(self) -> str:
        """The basis of a verdict: the definition, and whether it may fail a case."""
        return f"{self.judge.digest} {'advice' if self.advice else 'certified'}"

    def find_advice(self, models: Iterable[str]) -> str:
        """The reason for which a verdict of these models fails no case; "" where it may."""
        if self.advice or self.certificate is None:
            return self.advice
        strangers = sorted({*models} - {*self.certificate.models})
        return f"{', '.join(strangers)} voted, which its certificate does not name" if strangers else ""


def certificate_path(folder: Path, judge: str) -> Path:
    """The place of a judge's certificate beside a set."""
    return folder / f"{judge}.certificate.json"


def read_certificate(path: Path) -> Certificate | None:
    """The certificate of a file; None where there is no file. Raises CaseError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CaseError(f"{path} is larger than {MAX_BYTES:,} bytes", "it is no certificate: remove it")
        return Certificate.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CaseError(f"{path} cannot be read: {error.strerror}", "let it be read, or remove it") from error
    except ValidationError as error:
        problem = f"{path} is no certificate: {error.errors()[0]['msg'][:200]}"
        raise CaseError(problem, f"remove it, or {CALIBRATE}") from error


def find_shortcoming(figures: CalibrationFigures) -> str:
    """The lack for which nobody may fail a case by a judge of these figures, whatever its calibration asked for; "" for
    none."""
    good, bad = figures.table.true_positive.count, figures.table.true_negative.count
    if min(good, bad) < LEAST_CASES:
        return f"it was held against {good} good and {bad} bad answers, and {LEAST_CASES} of each are needed"
    return "" if figures.reaches(GATE, GATE) else f"the lower bounds of its rates do not both reach {GATE:.0%}"


def find_standing(judge: Judge, certificate: Certificate | None, now_unix_ms: int) -> str:
    """The reason for which a judge fails no case; "" for one that may."""
    if certificate is None:
        return f"it has no certificate: {CALIBRATE}"
    if certificate.judge != judge.name or certificate.judge_sha256 != judge.digest:
        return f"its certificate is of another definition: {CALIBRATE} again"
    if not certificate.is_certified:
        return "its rates did not reach the gate"
    if certificate.expires_unix_ms <= now_unix_ms:
        return f"its certificate is past its date, {format_time(certificate.expires_unix_ms)}: {CALIBRATE} again"
    return find_shortcoming(certificate.figures)


def seat_judge(judge: Judge, path: Path, now_unix_ms: int) -> SeatedJudge:
    """The judge with the certificate of this file. Raises CaseError."""
    certificate = read_certificate(path)
    return SeatedJudge(judge=judge, certificate=certificate, advice=find_standing(judge, certificate, now_unix_ms))


def seat_judges(case_file: Path, cases: Iterable[EvaluationCase], now_unix_ms: int) -> Mapping[str, SeatedJudge]:
    """The judges that the cases' checks name, with their certificates. Raises CaseError for a name that nobody has."""
    folder, judges = case_file.parent, load_judges(case_file.parent / FILE)
    seats: dict[str, SeatedJudge] = {}
    for case in cases:
        for name in (check.judge for check in case.checks if check.judge is not None):
            if name not in judges:
                hint = f"declare it in {folder / FILE}; there are: {', '.join(judges)}"
                raise CaseError(f"case {case.name}: there is no judge {name}", hint)
            if name == GROUNDED and not case.documents:
                raise CaseError(f"case {case.name}: the judge {name} needs documents", "name those that it may rest on")
            if name not in seats:
                seats[name] = seat_judge(judges[name], certificate_path(folder, name), now_unix_ms)
    return seats
