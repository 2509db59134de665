"""Evaluations of prompts before a label moves to them: a person's request, and the signed statement that ends it.

An in-toto Statement v1 names what was evaluated (subjects) and what came of it (the predicate, of a type of our own).
"""

import operator
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from bulkhead_contracts import bounds

from ..prompt.v1 import PromptId, ReleaseChange, ReleaseLabel, ReleaseRef, canonical_sha256
from ..result import Failure
from ..task.v1 import RequesterClaim
from ..types import Body, Contract, Count, Name, Sha256, Summary, Tag, Token, UnixMs, UsdMicros

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:bulkhead:evaluation:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PROMPTS, DATASETS, TOOLS, IMAGES = "prompts/", "datasets/", "tools/", "images/"
"""Beginnings of the names of subjects, by what they are."""
SetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{0,64}$")]
"""Name of a set of cases; "" for none."""
Share = Annotated[float, Field(ge=0, le=1)]
Excerpt = Annotated[str, StringConstraints(max_length=bounds.MAX_EXCERPT_CHARS)]
Envelope = Annotated[str, StringConstraints(max_length=bounds.MAX_STATEMENT_BYTES)]
"""A DSSE envelope as JSON."""


class SubjectDigest(Contract):
    """Digest of a subject."""

    sha256: Sha256


class StatementSubject(Contract):
    """One thing that was evaluated. name: `prompts/worker.step`, `datasets/answers`, `tools/calculate`,
    `images/worker`."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=bounds.MAX_SUMMARY_CHARS)]
    digest: SubjectDigest


class FailedCase(Contract):
    """A case that did not pass in each of its runs. case: its name. passed: share of those that did. expected: its
    references, or its checks; got: the first answer that did not pass; texts are cut. tasks: those that did not
    pass."""

    case: Name
    passed: Share
    objective: Excerpt
    expected: Excerpt = ""
    got: Excerpt = ""
    reasons: Annotated[tuple[Excerpt, ...], Field(max_length=8)] = ()
    tasks: Annotated[tuple[Token, ...], Field(max_length=8)] = ()


class BaselineComparison(Contract):
    """The run against an earlier one. run: the earlier one. verdict: by a paired test. p_value: of that test.
    difference: of the shares that passed."""

    run: Name
    verdict: Literal["better", "worse", "no difference shown"]
    difference: float | None = None
    p_value: float | None = None


class EvaluationPredicate(Contract):
    """Result of an evaluation.

    tenant: whose prompts they are; "" in a run that nobody asked for. evaluation: number of the request, 0 without one.
    case_set: name of the set. release: under which its tasks ran. models:
    those that answered, `provider/model`. judges: certificates of judges, `name@digest`. cases: of the set; runs: that
    were made; expected_runs: that a whole evaluation has. passed: share of the runs that passed; low: lower end of its
    interval of 95 %; high: its upper end; min_pass: share that was asked for. problems: reasons not to stand on it.
    failed: the first cases that did not pass; failed_count: all of them. spent_usd_micros: cost of all runs.
    made_unix_ms: time of the statement, in milliseconds since 1970 (UTC). made_by: program that made it.
    """

    tenant: Tag = ""
    evaluation: Count = 0
    case_set: SetName
    release: ReleaseRef = ""
    models: Annotated[tuple[Summary, ...], Field(max_length=64)] = ()
    judges: Annotated[tuple[Summary, ...], Field(max_length=16)] = ()
    cases: Count
    runs: Count
    expected_runs: Count
    passed: Share
    low: Share | None = None
    high: Share | None = None
    min_pass: Share | None = None
    problems: Annotated[tuple[Excerpt, ...], Field(max_length=8)] = ()
    failed: Annotated[tuple[FailedCase, ...], Field(max_length=bounds.MAX_FAILED_CASES)] = ()
    failed_count: Count = 0
    baseline: BaselineComparison | None = None
    spent_usd_micros: UsdMicros = 0
    made_unix_ms: UnixMs
    made_by: Summary = ""


class EvaluationStatement(Contract):
    """Content of a statement: subjects, and the predicate about them."""

    subject: Annotated[tuple[StatementSubject, ...], Field(min_length=1, max_length=bounds.MAX_STATEMENT_SUBJECTS)]
    predicate: EvaluationPredicate

    def digests_of(self, kind: str) -> dict[str, str]:
        """Digests by name, of the subjects whose names begin with this."""
        rows = (row for row in self.subject if row.name.startswith(kind))
        return {row.name.removeprefix(kind): row.digest.sha256 for row in rows}


class Evaluation(Contract):
    """A request to evaluate changes on top of what a label stands for; it never changes.

    tenant: whose it is. number: of the evaluation, from 1. release: `trial.7`, which stands for just that, for tasks
    that name it. case_set: "" for a trial alone, which nobody evaluates. base: number of the label's release then.
    prompts: digests of all prompts of the mesh as `release` has them.
    """

    tenant: Tag = ""
    number: Annotated[Count, Field(ge=1)]
    case_set: SetName = ""
    label: ReleaseLabel
    base: Count
    changes: Annotated[tuple[ReleaseChange, ...], Field(max_length=bounds.MAX_RELEASED_PROMPTS)] = ()
    release: ReleaseRef
    prompts: Annotated[dict[PromptId, Sha256], Field(max_length=bounds.MAX_PROMPTS)]
    reason: Annotated[str, StringConstraints(max_length=bounds.MAX_REASON_CHARS)]
    person: Name
    role: Name
    act: Token
    act_sha256: Sha256
    requested_unix_ms: UnixMs


class SignedReport(Contract):
    """The signed end of an evaluation; it never changes. number: of the evaluation. envelope: DSSE envelope as JSON; ""
    in a list. statement_sha256: of its payload; key_id: of the key that signed it. passed: share of the runs.
    failed_count: cases that did not pass in each run. reported_unix_ms: time of the report, in milliseconds since 1970
    (UTC)."""

    number: Annotated[Count, Field(ge=1)]
    envelope: Envelope
    statement_sha256: Sha256
    key_id: Sha256
    passed: Share
    failed_count: Count = 0
    person: Name
    role: Name
    reported_unix_ms: UnixMs


class EvaluationRow(Contract):
    """An evaluation and, once it has ended, its report; in a list without the envelope."""

    evaluation: Evaluation
    report: SignedReport | None = None


class EvaluationRequested(Body, type="mesh.evaluation.requested"):
    """A person wants changes evaluated (rpc), or, without a set, a release to try them on tasks. token: the signer's
    word on it, as for prompts."""

    act: Token
    label: ReleaseLabel
    changes: Annotated[tuple[ReleaseChange, ...], Field(max_length=bounds.MAX_RELEASED_PROMPTS)] = ()
    case_set: SetName = ""
    reason: Annotated[str, StringConstraints(min_length=1, max_length=bounds.MAX_REASON_CHARS)]
    token: Annotated[str, Field(max_length=bounds.MAX_GRANT_TOKEN_BYTES)] = ""

    @property
    def act_sha256(self) -> str:
        """Digest of all that the person asks for."""
        return canonical_sha256(self.model_dump(mode="json", exclude={"token"}))


class EvaluationReported(Body, type="mesh.evaluation.reported"):
    """An evaluator hands in the statement of an evaluation (rpc). Its signature is what counts."""

    requester: RequesterClaim
    number: Annotated[Count, Field(ge=1)]
    envelope: Envelope


class EvaluationReplied(Body, type="mesh.evaluation.replied"):
    """The evaluation as it stands, or why nothing was stored."""

    row: EvaluationRow | None = None
    failure: Failure | None = None


class EvaluationsRequested(Body, type="mesh.evaluation.evaluations_requested"):
    """Question for a tenant's evaluations (rpc): for those before a number, or for this one with its envelope."""

    requester: RequesterClaim
    before: Count = 0
    number: Annotated[Count, Field(exclude_if=operator.not_)] = 0


class EvaluationsReplied(Body, type="mesh.evaluation.evaluations_replied"):
    """Evaluations, the newest first."""

    rows: Annotated[tuple[EvaluationRow, ...], Field(max_length=bounds.MAX_EVALUATION_PAGE)] = ()
    more: bool = False
    failure: Failure | None = None
