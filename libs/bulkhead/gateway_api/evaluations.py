"""Reads of evaluations: what was asked for, and the signed statements in which it ended."""

from typing import Annotated

from pydantic import Field

from bulkhead.gateway_api.prompts import Before
from bulkhead.gateway_api.query import AllowedRoles, Id, Query
from bulkhead_contracts import bounds
from bulkhead_contracts.evaluation import Evaluation, EvaluationRow, EvaluationStatement, SignedReport
from bulkhead_contracts.types import Contract

READERS = AllowedRoles(
    frozenset({"operator", "auditor", "prompt_editor", "evaluator"}), "prompt_editor, evaluator, operator or auditor"
)
REPORTERS = AllowedRoles(frozenset({"evaluator", "operator"}), "evaluator or operator")


class EvaluationPage(Contract):
    """Evaluations, the newest first, without their statements. more: there are older ones."""

    evaluations: Annotated[tuple[EvaluationRow, ...], Field(max_length=bounds.MAX_EVALUATION_PAGE)]
    more: bool = False


class EvaluationDocument(Contract):
    """One evaluation. report: None until an evaluator has ended it; with the signed envelope. statement: what the
    envelope says."""

    evaluation: Evaluation
    report: SignedReport | None = None
    statement: EvaluationStatement | None = None


class EvaluationListQuery(
    Query[EvaluationPage], name="listEvaluations", path="/v1/evaluations", action="read evaluations", allowed=READERS
):
    """List evaluations of prompts, the newest first, and what share of their runs passed."""

    before: Before = 0


class EvaluationQuery(
    Query[EvaluationDocument],
    name="showEvaluation",
    path="/v1/evaluations/{number}",
    action="read evaluations",
    allowed=READERS,
):
    """Show an evaluation with its signed statement: the cases that did not pass, and why."""

    number: Annotated[Id, Field(description="The evaluation's number")]
