"""Reads of ratings: what people and judges say of answers, the queue of labels, and quality over time."""

from typing import Annotated, Literal, get_args

from pydantic import Field, WithJsonSchema

from bulkhead.gateway_api.query import EVERY_ROLE, AllowedRoles, Period, Query, Remedy, Whole, Word
from bulkhead_contracts import bounds
from bulkhead_contracts.prompt import ReleaseRef
from bulkhead_contracts.rating import Score, TaskRated
from bulkhead_contracts.types import Contract, Count, Reason, UnixMs

RatedAs = Literal["good", "bad", "none"]
QualityBy = Literal["feature", "prompt", "model"]
PEOPLE = AllowedRoles(EVERY_ROLE.names - {"evaluator"}, "submitter")
EXPORTERS = AllowedRoles(frozenset({"operator", "evaluator"}), "operator or evaluator")
"""They take labels, with the texts that were labelled, out of the mesh."""
OF_ONLINE_JUDGES = "online-judge"
"""Feature of the votes of judges that judge what ends."""
OF_EVALUATORS = ("eval", OF_ONLINE_JUDGES)
"""Features of the tasks that evaluators submit: no others."""
OF_EVALUATIONS = ("compare", "probe", *OF_EVALUATORS)
"""Features of tasks that are evaluations themselves."""
MAX_QUEUE = 20
MAX_EXPORT_ROWS = 20
MAX_EXPORT_DOCUMENTS = 16
MAX_SLICES = 100


class RatingCounts(Contract):
    """Numbers of ratings. good, bad: words of people. judged_good, judged_bad: verdicts of certified judges. advice:
    verdicts of judges that are not certified. labels: blind ones, whose word shows in their export alone."""

    good: Count = 0
    bad: Count = 0
    judged_good: Count = 0
    judged_bad: Count = 0
    advice: Count = 0
    labels: Count = 0


class TaskRatings(RatingCounts):
    """Ratings of a task. own: the caller's, one of each kind, and of each judge. named: everybody's, for operators and
    auditors, but for labels."""

    own: Annotated[tuple[TaskRated, ...], Field(max_length=2 + bounds.MAX_RATERS)] = ()
    named: Annotated[tuple[TaskRated, ...], Field(max_length=3 * bounds.MAX_RATERS)] = ()


class LabelAgreement(Contract):
    """Agreement of two people about the answers that both have labelled. kappa: Cohen's; null where both gave one
    label only, so that chance explains it all."""

    people: tuple[str, str]
    tasks: Count
    agreed: Count
    kappa: float | None


class LabelQueue(Contract):
    """Answers that are to be labelled. tasks: those that the caller has next, at most 20. sampled: answers of the
    sample; labelled: those with all labels that they want. own: those that the caller has labelled. doubled: answers
    that two people label, of which doubled_done are done. agreement: for operators and auditors, once all of these are
    done. unread: tasks that the gateway has not read yet; ask again."""

    tasks: Annotated[tuple[str, ...], Field(max_length=MAX_QUEUE)]
    sampled: Count
    labelled: Count
    own: Count
    doubled: Count
    doubled_done: Count
    agreement: Annotated[tuple[LabelAgreement, ...], Field(max_length=100)] = ()
    unread: Count = 0


class LabelledDocument(Contract):
    """Words that an answer cites. name: of the document, the tool or the step."""

    name: str
    text: str


class LabelledAnswer(Contract):
    """An answer with its labels, as `bulkhead eval calibrate` reads it. documents: what it cites. labels:
    by person. model: `provider/model` that wrote it. release: of its prompts."""

    id: str
    question: str
    documents: Annotated[tuple[LabelledDocument, ...], Field(max_length=MAX_EXPORT_DOCUMENTS)]
    answer: str
    labels: dict[str, Score]
    model: str = ""
    release: ReleaseRef = ""


class LabelExport(Contract):
    """Answers that people have labelled. next: send it as `after`; null on the last page."""

    rows: Annotated[tuple[LabelledAnswer, ...], Field(max_length=MAX_EXPORT_ROWS)]
    next: str | None = None
    unread: Count = 0


class QualityShare(Contract):
    """A share, and its interval of 95 % (Wilson)."""

    value: float
    low: float
    high: float


class QualityFigures(Contract):
    """Quality of tasks that ended. ended: those that succeeded, failed or were halted. good: those that are answered
    `yes` by a result that is not degraded. refused: answered `no` though the task succeeded.

    rated, judged: shares of good ones among ratings of people and of certified judges, null without one; `ratings` has
    the numbers. citations: of all `answers`. cost_usd_micros: of all that ended; per_good_usd_micros: for a good one.
    """

    ended: Count
    good: Count
    refused: Count
    answers: Count
    citations: Count
    cost_usd_micros: Count
    per_good_usd_micros: Count | None
    ratings: RatingCounts
    good_share: QualityShare | None
    rated: QualityShare | None
    judged: QualityShare | None


class QualityRow(QualityFigures):
    """The same for one feature, prompt or model."""

    name: str


class QualitySlice(QualityFigures):
    """The same for tasks that ended in one part of the time."""

    from_unix_ms: UnixMs


class QualityPage(Contract):
    """Quality by name, and over time. A task counts for each of the models that it rests on. unread: tasks that the
    gateway has not read yet; ask again. note: what is left out."""

    by: QualityBy
    since_unix_ms: UnixMs
    until_unix_ms: UnixMs
    total: QualityFigures
    rows: Annotated[tuple[QualityRow, ...], Field(max_length=100)]
    slices: Annotated[tuple[QualitySlice, ...], Field(max_length=MAX_SLICES)] = ()
    unread: Count = 0
    note: Reason = ""


_Feature = Annotated[Word, Field(description="Only tasks of this feature")]
_Release = Annotated[
    ReleaseRef,
    Field(description="Only tasks of this release: production.12, or production.12.canary"),
    Remedy("send a release like production.12"),
]
_Since = Annotated[Period, Field(description="Only tasks that ended in this time")]


class LabelQueueQuery(
    Query[LabelQueue], name="showLabelQueue", path="/v1/labels", action="label answers", allowed=PEOPLE
):
    """Show which answers the caller is to label next, and how far all are.

    The sample is drawn by the digest of the task's id, so that it is the same for everybody and stays as it is. Nothing
    says what others have said, nor which model or prompt an answer came from. A label is a rating of the kind `label`.
    """

    feature: _Feature = ""
    release: _Release = ""
    since: _Since = "7d"
    share: Annotated[
        int,
        Field(ge=1, le=100, description="Percent of the answers that are labelled"),
        Whole,
        Remedy("send a number from 1 to 100", 100),
    ] = 100
    double_every: Annotated[
        int,
        Field(ge=0, le=100, description="Every so many answers go to a second person; 0 for none"),
        Whole,
        Remedy("send a number from 0 to 100", 100),
    ] = 5


class LabelExportQuery(
    Query[LabelExport], name="exportLabels", path="/v1/labels/export", action="export labels", allowed=EXPORTERS
):
    """Export answers that people have labelled, with question, sources and labels."""

    feature: _Feature = ""
    release: _Release = ""
    since: _Since = "31d"
    after: Annotated[Word, Field(description="`next` of the previous page: the id of its last task")] = ""


class QualityQuery(Query[QualityPage], name="showQuality", path="/v1/quality", action="read quality"):
    """Show the quality of tasks that have ended, by feature, prompt or model, and over time.

    Tasks of evaluations themselves, and runs of outside agents, are not counted.
    """

    by: Annotated[
        QualityBy,
        Field(description="What the rows stand for; a prompt by the release that the task was given"),
        WithJsonSchema({"type": "string", "enum": list(get_args(QualityBy))}),
        Remedy(f"use one of: {', '.join(get_args(QualityBy))}"),
    ] = "feature"
    since: _Since = "7d"
    feature: _Feature = ""
    slices: Annotated[
        int,
        Field(ge=0, le=MAX_SLICES, description="Equal parts of the time to divide into"),
        Whole,
        Remedy(f"send a number from 0 to {MAX_SLICES}", MAX_SLICES),
    ] = 0
