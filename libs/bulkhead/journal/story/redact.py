"""A story for those who may know what happened, and not what was said. Pure."""

from dataclasses import replace

from bulkhead.journal.story.model import Call, Source, Story


def without_content(story: Story) -> Story:
    """The story without texts of models, documents, tools and people: names, outcomes, sources and costs stay. What
    every reader of a task is shown beside it stays, too: failures, the checker's reasons, writes in doubt."""
    return replace(
        story,
        objective="",
        planning=tuple(call_without_content(call) for call in story.planning),
        steps=tuple(
            replace(
                step,
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
    return replace(call, arguments="", why="", result="", found=tuple(_source(one) for one in call.found))


def _source(source: Source) -> Source:
    return replace(source, text="")
