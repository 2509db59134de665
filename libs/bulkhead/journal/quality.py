"""Quality, cost and latency by model and by feature, as the inboxes of planner, gateway and worker tell
them.

In: the broker under the operator's identity; or messages, in any order and any number of times. Out: rows. An attempt
at a step counts for the model that wrote its answer, with all that it cost (its worker's calls and its check). The
inboxes and not the journal are read: they keep the broker's times also where the journal was made again.
"""

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import Bus
from bulkhead.bus.seek_time import last_before
from bulkhead.journal.prompt_usage import TaskPrompts, report_prompts
from bulkhead.journal.session_figures import report_sessions
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import Unreadable
from bulkhead.text.amounts import format_usd
from bulkhead_contracts import subjects
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.plan import PlanAdopted, planned_ids
from bulkhead_contracts.result import Result, Usage
from bulkhead_contracts.retrieval import RetrievalReplied
from bulkhead_contracts.session import TurnTaken
from bulkhead_contracts.step import StepFinished
from bulkhead_contracts.task import TaskEnded, TaskRequested
from bulkhead_contracts.verdict import VerdictReached

SOURCES = (("gateway", "*"), ("planner", "checker"), ("planner", "worker"), ("worker", "rag"))
"""Inbox and sender of the messages that count."""
PROMPT_SOURCES = (
    ("gateway", "*"),
    ("planner", "checker"),
    *((inbox, "model_gateway") for inbox in ("planner", "worker", "checker")),
)
"""So for the use of prompts."""
NO_ANSWER = "(no answer)"
NO_FEATURE = "(no feature)"
MIN_ANSWERS = 5
"""Nothing is said of a model that gave fewer."""
TIMED = frozenset({"succeeded", "failed"})
"""Ends of tasks whose duration counts: people and limits decide how long the others take."""


@dataclass(slots=True)
class AnswerFigures:
    """Attempts at steps. cost: of all of them, also those that were rejected or brought nothing."""

    answers: int = 0
    judged: int = 0
    accepted: int = 0
    scores: list[float] = field(default_factory=list)
    usage: Usage = Usage()

    def add_attempt(self, body: VerdictReached | StepFinished) -> None:
        """One more attempt."""
        self.answers += 1
        self.usage = self.usage + body.usage
        if isinstance(body, VerdictReached):
            self.judged += 1
            self.accepted += body.accepted
            self.scores += [body.score] if body.score is not None else []

    @property
    def per_accepted(self) -> float:
        """Micro dollars for one accepted answer."""
        return self.usage.cost_usd_micros / self.accepted if self.accepted else math.inf

    @property
    def per_answer(self) -> float:
        """Micro dollars for one answer, accepted or not."""
        return self.usage.cost_usd_micros / self.answers if self.answers else 0.0

    def as_json(self) -> dict[str, Any]:
        """Figures; null where there is nothing to divide by."""
        return {
            "answers": self.answers,
            "judged": self.judged,
            "accepted": self.accepted,
            "accepted_share": round(self.accepted / self.judged, 4) if self.judged else None,
            "score": round(sum(self.scores) / len(self.scores), 4) if self.scores else None,
            "answers_usd_micros": self.usage.cost_usd_micros,
            "answers_estimated_usd_micros": self.usage.estimated_usd_micros,
            "per_accepted_usd_micros": math.ceil(self.per_accepted) if self.accepted else None,
        }


@dataclass(slots=True)
class FeatureFigures:
    """Tasks of one feature that have ended. durations_ms: from the request to the end, by the broker's clock."""

    tasks: int = 0
    succeeded: int = 0
    durations_ms: list[int] = field(default_factory=list)
    usage: Usage = Usage()
    answers: AnswerFigures = field(default_factory=AnswerFigures)

    def as_json(self, target_ms: int) -> dict[str, Any]:
        """Figures. missed: the 95th percentile is above the target; null without a target or a task."""
        p95 = percentile(self.durations_ms, 95)
        return {
            "tasks": self.tasks,
            "succeeded": self.succeeded,
            "p50_ms": percentile(self.durations_ms, 50),
            "p95_ms": p95,
            "target_ms": target_ms or None,
            "missed": p95 > target_ms if target_ms and p95 is not None else None,
            "cost_usd_micros": self.usage.cost_usd_micros,
            "estimated_usd_micros": self.usage.estimated_usd_micros,
            "per_task_usd_micros": math.ceil(self.usage.cost_usd_micros / self.tasks) if self.tasks else None,
            **self.answers.as_json(),
        }


@dataclass(slots=True)
class AheadFigures:
    """Queries that were embedded ahead, of tasks that have ended. saved_ms: so much earlier had those that were used
    their vectors, together."""

    asked: int = 0
    used: int = 0
    cost_usd_micros: int = 0
    wasted_usd_micros: int = 0
    saved_ms: int = 0

    def add_query(self, asked: RetrievalReplied, saved_ms: int | None) -> None:
        """One more. saved_ms: None where its step never asked, or found its vector gone."""
        cost = asked.usage.cost_usd_micros
        self.asked += 1
        self.used += saved_ms is not None
        self.cost_usd_micros += cost
        self.wasted_usd_micros += cost if saved_ms is None else 0
        self.saved_ms += saved_ms or 0


@dataclass(slots=True)
class QualityReport:
    """Fold of the messages; `fold_message` changes it in place."""

    requested: dict[str, tuple[str, int]] = field(default_factory=dict)
    """By task: its feature, and when it was requested."""
    ended: dict[str, tuple[TaskEnded, int]] = field(default_factory=dict)
    attempts: dict[tuple[str, str, int, int], VerdictReached | StepFinished] = field(default_factory=dict)
    """By task, step, version of the plan and attempt."""
    fresh_steps: set[tuple[str, str, int]] = field(default_factory=set)
    """By task, step and version of the plan: those whose next attempt is not told why the last one failed."""
    asked_ahead: dict[tuple[str, str], RetrievalReplied] = field(default_factory=dict)
    """By task and step."""
    saved_ms: dict[tuple[str, str], int] = field(default_factory=dict)
    """Likewise, where that was used."""
    turns: dict[tuple[str, int], TurnTaken] = field(default_factory=dict)
    """By session and number."""

    def fold_message(self, message: ReceivedMessage) -> None:
        """Fold one message; the first of its kind counts."""
        task, body, stored_unix_ms = f"{message.tenant}/{message.task}", message.body, message.time_unix_ms
        match body:
            case TaskRequested():
                self.requested.setdefault(task, (body.feature, stored_unix_ms))
            case TaskEnded():
                self.ended.setdefault(task, (body, stored_unix_ms))
            case PlanAdopted():
                rows = (step.id for step in body.plan.steps if step.retry == "fresh")
                self.fresh_steps.update((task, step_id, body.plan.version) for step_id in rows)
            case TurnTaken():
                # Named as the keys of `ended` are: ids of tasks are a tenant's own.
                turn = body.model_copy(update={"task": f"{message.tenant}/{body.task}"})
                self.turns.setdefault((task, body.number), turn)
            case VerdictReached() | StepFinished():
                self.attempts.setdefault((task, body.step_id, body.plan_version, body.attempt), body)
            case RetrievalReplied():
                if body.asked_ahead:
                    self.asked_ahead.setdefault((task, body.step_id), body)
                elif body.saved_ms is not None:
                    self.saved_ms.setdefault((task, body.step_id), body.saved_ms)
            case _:
                pass

    def figures_of_ahead(self) -> AheadFigures:
        """Queries that were embedded ahead: used, wasted, paid."""
        figures = AheadFigures()
        for (task, step_id), body in self.asked_ahead.items():
            if task in self.requested and task in self.ended:
                figures.add_query(body, self.saved_ms.get((task, step_id)))
        return figures

    def figures_by_model(self) -> dict[str, AnswerFigures]:
        """By model, the one with the most answers first."""
        figures: dict[str, AnswerFigures] = {}
        for (task, *_), body in self.attempts.items():
            if task in self.requested:
                figures.setdefault(answering_model(body.result), AnswerFigures()).add_attempt(body)
        return dict(sorted(figures.items(), key=lambda row: (-row[1].answers, row[0])))

    def figures_by_feature(self) -> dict[str, FeatureFigures]:
        """By feature, the one with the most tasks first."""
        figures: dict[str, FeatureFigures] = {}
        for task, (end, ended_unix_ms) in self.ended.items():
            if task not in self.requested:
                continue  # Requested before the time that was asked for.
            name, began = self.requested[task]
            row = figures.setdefault(name or NO_FEATURE, FeatureFigures())
            row.tasks += 1
            row.succeeded += end.status == "succeeded"
            row.usage = row.usage + end.usage
            row.durations_ms += [max(0, ended_unix_ms - began)] if end.status in TIMED else []
        for (task, *_), body in self.attempts.items():
            name, _ = self.requested.get(task, ("", 0))
            if task in self.requested and (name or NO_FEATURE) in figures:
                figures[name or NO_FEATURE].answers.add_attempt(body)
        return dict(sorted(figures.items(), key=lambda row: (-row[1].tasks, row[0])))

    def figures_by_retry(self) -> dict[str, AnswerFigures]:
        """Second and later attempts at steps, by what the plan lets them keep of those before."""
        figures: dict[str, AnswerFigures] = {}
        for (task, step_id, plan_version, attempt), body in self.attempts.items():
            if attempt > 1 and task in self.requested:
                is_fresh = any((task, name, plan_version) in self.fresh_steps for name in planned_ids(step_id))
                figures.setdefault("fresh" if is_fresh else "with_feedback", AnswerFigures()).add_attempt(body)
        return dict(sorted(figures.items()))

    def as_json(self, targets_ms: Mapping[str, int]) -> dict[str, Any]:
        """The whole report; targets_ms: by feature."""
        models, features = self.figures_by_model(), self.figures_by_feature()
        ahead = self.figures_of_ahead()
        absent = {name: FeatureFigures() for name in targets_ms if name not in features}
        return {
            "models": [{"model": name, **row.as_json()} for name, row in models.items()],
            "features": [
                {"feature": name, **row.as_json(targets_ms.get(name, 0))} for name, row in (features | absent).items()
            ],
            "retries": [{"retry": choice, **row.as_json()} for choice, row in self.figures_by_retry().items()],
            "ahead": {**asdict(ahead), "wasted": ahead.asked - ahead.used},
            "sessions": report_sessions(
                ((session, turn) for (session, _), turn in self.turns.items()),
                {task: end.usage for task, (end, _) in self.ended.items() if task in self.requested},
                {task: name or NO_FEATURE for task, (name, _) in self.requested.items()},
            ),
            "does_not_pay": [asdict(finding) for finding in find_uneconomic_models(models)],
        }


@dataclass(frozen=True, slots=True)
class UneconomicModel:
    """A model whose answers are cheaper than those of another, and whose accepted answers are not."""

    model: str
    dearer: str
    what: str


def find_uneconomic_models(models: Mapping[str, AnswerFigures]) -> list[UneconomicModel]:
    """Models that are worth nothing as a cheap tier, each beside the one that gives accepted answers for the least."""
    rated = {name: row for name, row in models.items() if row.judged >= MIN_ANSWERS and name != NO_ANSWER}
    findings = []
    for name, row in rated.items():
        dearer = [
            candidate
            for candidate in rated
            if rated[candidate].per_answer > row.per_answer > 0 and rated[candidate].accepted
        ]
        if not dearer:
            continue
        best = min(dearer, key=lambda one: rated[one].per_accepted)
        cheapest = rated[best]
        if row.per_accepted >= cheapest.per_accepted:
            mine = f"costs {format_usd(math.ceil(row.per_accepted))}" if row.accepted else "was never given"
            message = (
                f"{name} does not pay: an answer costs {format_usd(math.ceil(row.per_answer))} and an "
                f"accepted one {mine} "
                f"({row.accepted} of {row.judged} accepted); {best} gives an accepted answer for "
                f"{format_usd(math.ceil(cheapest.per_accepted))}"
            )
            findings.append(UneconomicModel(name, best, message))
    return findings


def answering_model(result: Result) -> str:
    """The model that wrote a result, `provider/model`, by the model gateway's label of its content."""
    sha256 = result.content.sha256 if result.content is not None else ""
    for label in result.provenance:
        if label.kind == "model_reply" and label.sha256 == sha256 and label.observed_by == "model_gateway":
            return label.source
    return NO_ANSWER


def percentile(values: Sequence[int], percent: int) -> int | None:
    """By the nearest rank; None of nothing."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)] if values else None


async def read_quality(bus: Bus, since_unix_ms: int, tenant: str = "*") -> QualityReport:
    """Fold what was stored since then. Raises BusError."""
    report = QualityReport()
    for inbox, sender in SOURCES:
        async for message in _read_messages(bus, inbox, f"mesh.{sender}.{inbox}.*.{tenant}.*.*", since_unix_ms):
            report.fold_message(message)
    return report


async def read_prompt_usage(bus: Bus, since_unix_ms: int, tenant: str = "*") -> dict[str, Any]:
    """Use of prompts by the tasks that were requested since then. Raises BusError."""
    requested, tasks = set[str](), dict[str, TaskPrompts]()
    for inbox, sender in PROMPT_SOURCES:
        async for message in _read_messages(bus, inbox, f"mesh.{sender}.{inbox}.*.{tenant}.*.*", since_unix_ms):
            task = f"{message.tenant}/{message.task}"
            if isinstance(message.body, TaskRequested):
                requested.add(task)
            elif isinstance(message.body, ModelCallReplied | VerdictReached):
                tasks.setdefault(task, TaskPrompts()).fold_body(message.body)
    return report_prompts(prompts for task, prompts in tasks.items() if task in requested)


async def _read_messages(bus: Bus, inbox: str, subject: str, since_unix_ms: int) -> AsyncIterator[ReceivedMessage]:
    stream = subjects.inbox_stream(inbox)
    newest = await bus.last(stream, subject)
    if newest is None:
        return
    after = await last_before(bus, stream, subject, since_unix_ms, newest.sequence)
    async for stored in stored_messages(bus, stream, subject, after=after):
        with suppress(Unreadable):  # It is of another version, or no message of the mesh.
            yield inbound.read_message(stored, inbox)
