"""What is taken over is what it was, byte for byte, and is not made again; what has changed is not taken over.

In: a Record. Out: complaints. Taken over is a step that was accepted and never started: from an earlier plan of the
task, or from the task that it forks.
"""

from collections.abc import Iterator
from typing import Any

from tests.simulation.laws.reading import body, contents, said
from tests.simulation.laws.record import Record

OF_A_STEP = ("id", "instruction", "tools", "inputs", "acceptance", "kind", "role")
"""What makes a step the same; its title is for people."""
Place = tuple[int, str]
"""Plan version and step."""


class _Story:
    """What the gateway's inbox tells of one task."""

    def __init__(self) -> None:
        self.plans: dict[int, dict[str, dict[str, Any]]] = {}
        self.told: dict[int, int] = {}
        """Where each plan stands in the inbox."""
        self.asked = 0
        """Where the task does."""
        self.started: set[Place] = set()
        self.accepted: dict[Place, dict[str, Any]] = {}
        self.marked: set[Place] = set()
        """Ran, and stand though the checker did not accept them: no later plan is built on these."""
        self.fork: dict[str, Any] | None = None


def complain(record: Record) -> Iterator[str]:
    """See the module."""
    stories = _stories(record)
    texts = contents(record)
    for task, story in stories.items():
        for (version, step), result in story.accepted.items():
            if (version, step) in story.started:
                continue
            source = _source(stories, story, version, step)
            if source is None:
                yield f"{task}: step {step} of plan {version} was accepted, not run, and nothing was there to take over"
                continue
            before, was = source
            if any(before[key] != story.plans[version][step][key] for key in OF_A_STEP):
                yield f"{task}: step {step} of plan {version} is another, and the result of the old one was taken over"
            yield from _same(f"{task}: step {step} of plan {version}", was, result, texts)
        yield from _again(task, story)
        yield from _kept(task, story)


def _same(whose: str, was: dict[str, Any], result: dict[str, Any], texts: dict[str, bytes]) -> Iterator[str]:
    old, new = (one["content"] and one["content"]["sha256"] for one in (was, result))
    if (old, was["summary"]) != (new, result["summary"]) or texts.get(old or "") != texts.get(new or ""):
        yield f"{whose} was taken over as something else"
    for part in ("standing", "completeness", "citations"):
        if was[part] != result[part]:
            yield f"{whose} was taken over with another {part}"
    labels = [{label["sha256"] for label in one["provenance"]} for one in (was, result)]
    if not labels[0] <= labels[1]:
        yield f"{whose} was taken over without its sources"


def _again(task: str, story: _Story) -> Iterator[str]:
    """A step that is the same as before, on inputs that are, is not started a second time."""
    last = max(story.plans, default=0)
    if last < 2:
        return
    for step in story.plans[last]:
        if _unchanged(story, last, step) and (last, step) in story.started:
            yield f"{task}: step {step} was accepted under plan {last - 1}, is the same, and was run again"


def _unchanged(story: _Story, version: int, step: str) -> bool:
    old, new = story.plans.get(version - 1, {}).get(step), story.plans[version].get(step)
    return (
        old is not None
        and new is not None
        and (version - 1, step) in story.accepted
        and (version - 1, step) not in story.marked
        and all(old[key] == new[key] for key in OF_A_STEP)
        and all(_unchanged(story, version, name) for name in new["inputs"])
    )


def _kept(task: str, story: _Story) -> Iterator[str]:
    """What a fork took over is never run in it, while its first plan holds."""
    for step in (story.fork or {}).get("steps", ()):
        if (1, step) in story.started:
            yield f"{task}: it took {step} over, and ran it"


def _source(
    stories: dict[str, _Story], story: _Story, version: int, step: str
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The step and the result that were there before."""
    if (version - 1, step) in story.accepted:
        return story.plans[version - 1][step], story.accepted[version - 1, step]
    parent = stories.get((story.fork or {}).get("task", ""))
    if version != 1 or parent is None or not parent.plans:
        return None
    # As it was then: a parent that was cut off may tell of one plan more.
    last = max((version for version, at in parent.told.items() if at < story.asked), default=0)
    found = parent.accepted.get((last, step))
    return None if found is None else (parent.plans[last][step], found)


def _stories(record: Record) -> dict[str, _Story]:
    found: dict[str, _Story] = {}

    def each(*kinds: str) -> Iterator[tuple[_Story, dict[str, Any], int]]:
        for task, messages in said(record, "INBOX_GATEWAY", *kinds).items():
            for one in messages:
                yield found.setdefault(task, _Story()), body(one), one.sequence

    for story, one, at in each("mesh.plan.adopted"):
        version = one["plan"]["version"]
        story.plans[version] = {step["id"]: step for step in one["plan"]["steps"]}
        story.told.setdefault(version, at)
    for story, one, _ in each("mesh.task.step_started"):
        story.started.add((one["plan_version"], one["step_id"]))
    for story, one, _ in each("mesh.task.step_ended"):
        if one["outcome"] == "accepted":
            place = one["plan_version"], one["step_id"]
            story.accepted[place] = one["result"]
            if one["reasons"] and place in story.started:
                story.marked.add(place)
    for story, one, at in each("mesh.task.requested"):
        story.fork, story.asked = story.fork or one.get("fork"), story.asked or at
    return found
