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
        happened=tuple(_happened(row) for row in story.happened),
        cause=tuple(_happened(row) for row in story.cause),
        reasons=tuple(replace(one, what=named(one.what)) if one.kind == "doubtful" else one for one in story.reasons),
        planning=tuple(call_without_content(call) for call in story.planning),
        steps=tuple(
            replace(
                step,
                title="",
                refused=tuple(map(named, step.refused)),
                standing_reason=named(step.standing_reason),
                calls=tuple(call_without_content(call) for call in step.calls),
                cites=tuple(_source(one) for one in step.cites),
                result="",
            )
            for step in story.steps
        ),
        answer=tuple(replace(one, text="", sources=tuple(_source(at) for at in one.sources)) for one in story.answer),
        content=False,
    )


def call_without_content(call: Call) -> Call:
    """A call's name, outcome, waits and cost."""
    found = tuple(_source(one) for one in call.found)
    return replace(
        call,
        arguments="",
        why="",
        result="",
        failure=named(call.failure),
        retried=tuple(map(named, call.retried)),
        put_off=tuple(map(named, call.put_off)),
        found=found,
    )


def named(reason: str) -> str:
    """A reason's name, without what it quotes."""
    return reason.partition(":")[0]


def _happened(row: Happened) -> Happened:
    return replace(row, what=named(row.what)) if row.kind in QUOTING else row


def _source(source: Source) -> Source:
    return replace(source, text="")
