"""Cases from tasks that ran in production: keys and personal data masked, with the tenant's own answer as reference.

In: tasks as the gateway shows them. Out: cases for a golden set, for a person to look through. Pure.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bulkhead.evaluation.answers import MARKER
from bulkhead.evaluation.cases import MAX_CHECKS, Check, EvaluationCase
from bulkhead.gateway_api.ratings import OF_EVALUATIONS
from bulkhead.telemetry.redaction import without_sensitive
from bulkhead.text.amounts import format_time
from bulkhead_contracts import bounds


def sample_tasks(rows: Iterable[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """Draw `count` tasks, one an objective, by the digest of their ids: the same ones at every call."""
    ordered = sorted(rows, key=lambda row: hashlib.sha256(str(row["task_id"]).encode()).digest())
    by_objective: dict[str, Mapping[str, Any]] = {}
    for row in ordered:
        if row.get("feature") not in OF_EVALUATIONS:
            by_objective.setdefault(str(row["objective"]), row)
    return list(by_objective.values())[:count]


def build_case(document: Mapping[str, Any], tags: tuple[str, ...] = ()) -> EvaluationCase | None:
    """The case of an ended task of the mesh; None for one without an objective, as an outside agent's run.

    An answer that was given in full, not degraded, and that nobody rates bad, becomes a reference, and the documents
    that it cites become checks; of any other the case asks that it be answered. Comments on a bad answer say in the
    origin what is wrong with it; they are shown to operators and auditors, and to others their own.
    """
    objective = without_sensitive(str(document["objective"]))[: bounds.MAX_OBJECTIVE_CHARS].strip()
    if not objective or document["kind"] == "adopted":
        return None
    result, standing = document.get("result") or {}, str(document.get("standing") or "")
    answered, failure = str(document.get("answered") or ""), document.get("failure") or {}
    checks, references = [Check(answered="yes"), Check(personal_data=())], tuple[str, ...]()
    ratings = document.get("ratings") or {}
    rated = "bad" if ratings.get("bad") else "good" if ratings.get("good") else ""
    if (
        rated != "bad"
        and document["status"] == "succeeded"
        and standing == "ok"
        and answered == "yes"
        and document.get("answer")
    ):
        references = (without_sensitive(MARKER.sub("", str(document["answer"])))[: bounds.MAX_OBJECTIVE_CHARS],)
        names = dict.fromkeys(str(citation["document"]) for citation in result.get("citations") or ())
        checks += [Check(cites=name) for name in names if without_sensitive(name) == name][: MAX_CHECKS - len(checks)]
    outcome = str(failure.get("code") or "") or (standing if standing != "ok" else answered) or str(document["status"])
    origin = f"task {document['task_id']} of {format_time(document['created_unix_ms'])}, {outcome}"
    origin += "".join(f"; {rated}: {comment}" for comment in _list_comments(ratings, rated))
    return EvaluationCase(
        name=str(document["task_id"])[-64:],
        objective=objective,
        references=references,
        checks=tuple(checks),
        tags=("production", *((f"rated-{rated}",) if rated else ()), *tags),
        origin=origin[: bounds.MAX_REASON_CHARS],
    )


def _list_comments(ratings: Mapping[str, Any], rated: str) -> Iterator[str]:
    """Comments of people that rate so, each once."""
    rows = {row["rating_id"]: row for row in (*ratings.get("named", ()), *ratings.get("own", ()))}
    for row in rows.values():
        if row["kind"] == "rating" and row["score"] == rated and row["comment"]:
            yield without_sensitive(row["comment"])
