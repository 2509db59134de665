"""A judge held against people: labelled answers, and the figures of its verdicts on them.

In: a file of answers with labels (JSON Lines), verdicts. Out: figures. Rates are of the answers that all labellers of
them call the same; an abstention counts against the judge.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from bulkhead.evaluation.answers import CaseAnswer
from bulkhead.evaluation.cases import (
    MAX_NAMES,
    MAX_TAGS,
    CaseError,
    Check,
    EvaluationCase,
    Label,
    Words,
    load_rows,
    read_texts,
    require_documents_beside,
)
from bulkhead.evaluation.judges.agreement import (
    LengthBias,
    RateBound,
    bootstrap_estimate,
    krippendorff_alpha,
    length_bias,
)
from bulkhead.evaluation.runs import CaseRunOutcome, Submission
from bulkhead.evaluation.statistics import Estimate, cohen_kappa
from bulkhead.gateway_api.ratings import LabelledDocument
from bulkhead.text.validation_errors import find_misfits
from bulkhead_contracts import bounds

FORM = (
    'write `{"case": "late", "question": "What is refunded?", "documents": ["terms.md"], "answer": "40 EUR.", '
    '"model": "openai/gpt-5-mini", "labels": {"ann": "good", "bob": "bad"}}` on each line'
)
MAX_NAME_CHARS = 200


class LabelledCase(BaseModel):
    """An answer that people have labelled. documents: texts, in a file also paths beside it. model: `provider/model`
    that wrote the answer; "" where a person did. labels: by labeller, each given without seeing the others."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    case: Annotated[Label, Field(validation_alias=AliasChoices("case", "id"))]
    question: Words
    documents: Annotated[tuple[str | LabelledDocument, ...], Field(max_length=MAX_NAMES)] = ()
    answer: Annotated[str, Field(max_length=bounds.MAX_ANSWER_CHARS)]
    model: Annotated[str, Field(max_length=MAX_NAME_CHARS)] = ""
    labels: Annotated[dict[str, Literal["good", "bad"]], Field(min_length=1, max_length=bounds.MAX_RATERS)]
    tags: Annotated[tuple[Label, ...], Field(max_length=MAX_TAGS)] = ()

    @property
    def is_good(self) -> bool | None:
        """The label; None where the labellers differ."""
        labels = {*self.labels.values()}
        return labels == {"good"} if len(labels) == 1 else None

    @property
    def label_counts(self) -> tuple[int, int]:
        """Labellers who call it good, and bad."""
        good = sum(label == "good" for label in self.labels.values())
        return good, len(self.labels) - good

    @property
    def texts(self) -> dict[str, str]:
        """The documents by name."""
        return {row.name: row.text for row in self.documents if not isinstance(row, str)}


def load_labelled(path: Path) -> tuple[LabelledCase, ...]:
    """The labelled answers of a file, with the texts of their documents. Raises CaseError."""
    cases: list[LabelledCase] = []
    for where, row in load_rows(path):
        try:
            case = LabelledCase.model_validate(row)
        except ValidationError as error:
            raise CaseError(f"{path}, {where}: {find_misfits(error, LabelledCase)[0]}", FORM) from error
        names = [name for name in case.documents if isinstance(name, str)]
        require_documents_beside(path, case.case, names)
        from_files = [LabelledDocument(name=name, text=text) for name, text in read_texts(path.parent, names).items()]
        inline = [row for row in case.documents if not isinstance(row, str)]
        cases.append(case.model_copy(update={"documents": (*from_files, *inline)}))
    names = [case.case for case in cases]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise CaseError(f"{path}: several answers are called {', '.join(repeated)}", "give each a name of its own")
    return tuple(cases)


def digest_labelled(cases: Sequence[LabelledCase]) -> str:
    """SHA-256 of the labelled answers and of what their documents hold."""
    return hashlib.sha256("".join(case.model_dump_json() for case in cases).encode()).hexdigest()


class LabelledAnswers:
    """A `Runner` whose answers are those of a labelled set: they cost nothing. cases: the set as cases that the judge
    alone checks."""

    def __init__(self, cases: Sequence[LabelledCase], judge: str) -> None:
        self._cases = {case.case: case for case in cases}
        self.cases = tuple(
            EvaluationCase(name=row.case, objective=row.question, checks=(Check(judge=judge),), tags=row.tags)
            for row in cases
        )

    def find_texts(self, case: EvaluationCase) -> dict[str, str]:
        """Texts of the documents of a case, by name."""
        return self._cases[case.name].texts

    async def run(self, case: EvaluationCase, route: str, submission: Submission) -> CaseRunOutcome:
        """The labelled answer."""
        labelled = self._cases[case.name]
        models = (labelled.model,) if labelled.model else ()
        return CaseRunOutcome("", "succeeded", CaseAnswer(labelled.answer), 0, None, 0, 0, models=models)


@dataclass(frozen=True, slots=True)
class ConfusionTable:
    """Verdicts by label."""

    good_passed: int = 0
    good_failed: int = 0
    good_abstained: int = 0
    bad_passed: int = 0
    bad_failed: int = 0
    bad_abstained: int = 0

    @classmethod
    def of_verdicts(cls, pairs: Sequence[tuple[bool, bool | None]]) -> "ConfusionTable":
        """The table of labels (good) with verdicts (passed)."""
        return cls(*(pairs.count((good, passed)) for good in (True, False) for passed in (True, False, None)))

    @property
    def true_positive(self) -> RateBound:
        """Share of the good answers that pass."""
        return RateBound.of_counts(self.good_passed, self.good_passed + self.good_failed + self.good_abstained)

    @property
    def true_negative(self) -> RateBound:
        """Share of the bad answers that fail."""
        return RateBound.of_counts(self.bad_failed, self.bad_passed + self.bad_failed + self.bad_abstained)

    @property
    def voting_rates(self) -> tuple[RateBound, RateBound]:
        """Both rates of the answers that were given a verdict: those that correct a share."""
        return (
            RateBound.of_counts(self.good_passed, self.good_passed + self.good_failed),
            RateBound.of_counts(self.bad_failed, self.bad_passed + self.bad_failed),
        )


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """Figures of a judge on labelled answers. disputed: answers whose labellers differ; they count in no rate. kappa:
    of the judge with the label (Cohen); alpha: of the judge and all labellers (Krippendorff); labellers_alpha: of these
    without the judge, None of one alone. by_tag: the table of each tag."""

    cases: int
    disputed: int
    table: ConfusionTable
    kappa: Estimate | None
    alpha: Estimate | None
    labellers_alpha: Estimate | None
    length: LengthBias | None
    by_tag: dict[str, ConfusionTable]

    def reaches(self, true_positive: float, true_negative: float) -> bool:
        """Check whether the lower bounds of both rates clear a gate."""
        return self.table.true_positive.low >= true_positive and self.table.true_negative.low >= true_negative


def calibrate_judge(cases: Sequence[LabelledCase], verdicts: Mapping[str, bool | None]) -> CalibrationFigures:
    """The figures of verdicts by the names of the cases. Raises CaseError where the package for alpha is missing."""
    rows = [case for case in cases if case.case in verdicts]
    settled = [(case, case.is_good, verdicts[case.case]) for case in rows if case.is_good is not None]
    voted = [(bool(good), passed) for _, good, passed in settled if passed is not None]
    with_judge = []
    for case in rows:
        (good, bad), passed = case.label_counts, verdicts[case.case]
        with_judge.append((good + (passed is True), bad + (passed is False)))
    tags = sorted({tag for case in rows for tag in case.tags})
    return CalibrationFigures(
        len(rows),
        len(rows) - len(settled),
        ConfusionTable.of_verdicts([(bool(good), passed) for _, good, passed in settled]),
        bootstrap_estimate(voted, cohen_kappa),
        bootstrap_estimate(with_judge, krippendorff_alpha),
        bootstrap_estimate([case.label_counts for case in rows if len(case.labels) > 1], krippendorff_alpha),
        length_bias([(bool(good), len(case.answer), passed) for case, good, passed in settled if passed is not None]),
        {
            tag: ConfusionTable.of_verdicts([(bool(good), vote) for case, good, vote in settled if tag in case.tags])
            for tag in tags
        },
    )
