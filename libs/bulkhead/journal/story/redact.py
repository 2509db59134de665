"""A story for those who may know what happened, and not what was said. Pure."""

from dataclasses import replace

from bulkhead.journal.story.model import Call, Happened, Source, Story

QUOTING = frozenset({"refused", "failed", "uncertain", "degraded"})
"""Happenings whose reasons may quote what a model, a document or a person said."""


def without_content(story: Story) -> Story:
    """The story without texts of models, documents, tools and people: names, outcomes, sources and costs stay. A reason
    loses what it quotes, which stands behind a colon."""
    return replace(
        story,
        objective="",
        plans=tuple(replace(plan, notes=()) for plan in story.plans),
        happened=tuple(_redact_happening(row) for row in story.happened),
        cause=tuple(_redact_happening(row) for row in story.cause),
        reasons=tuple(
            replace(reason, what=reason_name(reason.what)) if reason.kind == "doubtful" else reason
            for reason in story.reasons
        ),
        planning=tuple(call_without_content(call) for call in story.planning),
        steps=tuple(
            replace(
                step,
                title="",
                refused=tuple(map(reason_name, step.refused)),
                standing_reason=reason_name(step.standing_reason),
                calls=tuple(call_without_content(call) for call in step.calls),
                cites=tuple(_redact_source(source) for source in step.cites),
                result="",
                instruction="",
                tried=tuple(
                    replace(attempt, reasons=tuple(map(reason_name, attempt.reasons))) for attempt in step.tried
                ),
            )
            for step in story.steps
        ),
        answer=tuple(
            replace(sentence, text="", sources=tuple(_redact_source(source) for source in sentence.sources))
            for sentence in story.answer
        ),
        content=False,
    )


def call_without_content(call: Call) -> Call:
    """A call's name, outcome, waits and cost."""
    sources = tuple(_redact_source(source) for source in call.found)
    return replace(
        call,
        arguments="",
        why="",
        result="",
        failure=reason_name(call.failure),
        retried=tuple(map(reason_name, call.retried)),
        put_off=tuple(map(reason_name, call.put_off)),
        found=sources,
    )


def reason_name(reason: str) -> str:
    """A reason's name, without what it quotes."""
    return reason.partition(":")[0]


def _redact_happening(row: Happened) -> Happened:
    return replace(row, what=reason_name(row.what)) if row.kind in QUOTING else row


def _redact_source(source: Source) -> Source:
    return replace(source, text="")
