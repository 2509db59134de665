"""Two tasks side by side: what is the same, what is not, and by how much. Pure.

In: the documents and the stories of both, as the API tells them. Out: rows and sentences for a page. Steps are matched
by their ids, the rest by their titles; the answers sentence by sentence.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from bulkhead.amounts import counted, money, seconds, tokens
from bulkhead_services.gateway.console.api import Json

MAX_SENTENCES = 400
"""Of each answer that are compared: the comparison takes their product in time."""
Here = Literal["both", "this", "other"]


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence of one answer or of both."""

    where: Here
    text: str


@dataclass(frozen=True, slots=True)
class Side:
    """A step, or a whole task, as it went in one of the two. took_over: its result is another task's."""

    outcome: str
    standing: str
    attempts: int
    calls: int
    tokens: int
    cost_usd_micros: int
    took_ms: int
    took_over: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """A step in both, or in one of them. said: how they differ."""

    name: str
    this: Side | None
    other: Side | None
    said: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """All of it. answer_cut: the answers have more sentences than were compared."""

    this: Side
    other: Side
    said: tuple[str, ...]
    pairs: tuple[Pair, ...]
    answer: tuple[Line, ...]
    answer_cut: bool


def compare(this: Json, other: Json, this_story: Json, other_story: Json) -> Difference:
    """How two tasks differ. this, other: their documents."""
    mine, others = _last_plan(this_story), _last_plan(other_story)
    pairs = tuple(_pair(one, two) for one, two in _matched(mine, others))
    texts = [[row["text"] for row in story["answer"]] for story in (this_story, other_story)]
    answer = _lines(texts[0][:MAX_SENTENCES], texts[1][:MAX_SENTENCES])
    whole = _whole(this, this_story), _whole(other, other_story)
    told = [*_sides(*whole), *_plans(this_story, other_story), *_presence(pairs), *_answered(this, other, answer)]
    return Difference(*whole, tuple(told), pairs, answer, any(len(one) > MAX_SENTENCES for one in texts))


def _last_plan(story: Json) -> list[Json]:
    """The steps of the plan that the task ended with."""
    last = max((step["plan_version"] for step in story["steps"]), default=0)
    return [step for step in story["steps"] if step["plan_version"] == last]


def _matched(mine: Sequence[Json], others: Sequence[Json]) -> Iterator[tuple[Json | None, Json | None]]:
    """Steps of the one with those of the other; then those that the other has alone."""
    by_id = {step["step_id"]: step for step in others}
    ids = {step["step_id"] for step in mine}
    by_title = {step["title"]: step for step in others if step["title"] and step["step_id"] not in ids}
    left = dict(by_id)
    for step in mine:
        found = by_id.get(step["step_id"]) or by_title.pop(step["title"], None)
        if found is not None:
            left.pop(found["step_id"], None)
        yield step, found
    yield from ((None, step) for step in left.values())


def _pair(mine: Json | None, others: Json | None) -> Pair:
    step = mine or others
    assert step is not None
    this = None if mine is None else _side(mine)
    other = None if others is None else _side(others)
    said = (*_sides(this, other), *_calls(mine, others)) if this and other and mine and others else ()
    return Pair(step["title"] or step["step_id"], this, other, said)


def _side(step: Json) -> Side:
    return Side(
        step["outcome"],
        step["standing"],
        step["attempts"],
        len(step["calls"]),
        step["usage"]["input_tokens"] + step["usage"]["output_tokens"],
        step["usage"]["cost_usd_micros"],
        step["took_ms"],
        step["given"],
    )


def _whole(task: Json, story: Json) -> Side:
    usage = story["usage"]
    return Side(
        task["status"],
        task["standing"] or "",
        sum(step["attempts"] for step in story["steps"]),
        len(story["planning"]) + sum(len(step["calls"]) for step in story["steps"]),
        usage["input_tokens"] + usage["output_tokens"],
        usage["cost_usd_micros"],
        story["took_ms"],
    )


def _sides(this: Side, other: Side) -> Iterator[str]:
    """How this one differs, in words."""
    if this.outcome != other.outcome:
        yield f"this one is {this.outcome}, the other {other.outcome}".replace("_", " ")
    if this.standing != other.standing and this.outcome == other.outcome:
        yield f"this one's standing is {this.standing or 'unknown'}, the other's {other.standing or 'unknown'}"
    if this.took_over != other.took_over:
        yield "the result here is taken over" if this.took_over else "the other's result is taken over"
    yield from _amounts(this, other)


def _amounts(this: Side, other: Side) -> Iterator[str]:
    if more := this.attempts - other.attempts:
        yield f"{counted(abs(more), 'attempt')} {_than(more, 'fewer')}"
    if more := this.calls - other.calls:
        yield f"{counted(abs(more), 'call')} {_than(more, 'fewer')}"
    if more := this.tokens - other.tokens:
        yield f"{tokens(abs(more))} {_than(more, 'fewer')}"
    if more := this.cost_usd_micros - other.cost_usd_micros:
        yield f"{money(abs(more))} {_than(more, 'less')}"
    if more := this.took_ms - other.took_ms:
        yield f"{seconds(abs(more))} {'longer' if more > 0 else 'shorter'}"


def _than(more: int, less: str) -> str:
    return "more" if more > 0 else less


def _calls(mine: Json, others: Json) -> Iterator[str]:
    """Tools and prompts that one of the two called more often, and calls that went otherwise."""
    here, there = (Counter((one["name"], one["outcome"]) for one in step["calls"]) for step in (mine, others))
    for name, outcome in sorted(here.keys() | there.keys()):
        one, two = here[name, outcome], there[name, outcome]
        if one != two:
            yield f"{name} {outcome.replace('_', ' ')}: {counted(one, 'time')} here, {counted(two, 'time')} there"


def _plans(mine: Json, others: Json) -> Iterator[str]:
    one, two = len(mine["plans"]), len(others["plans"])
    if one != two:
        yield f"{counted(one, 'plan')} here, {counted(two, 'plan')} there"


def _presence(pairs: Sequence[Pair]) -> Iterator[str]:
    here = [pair.name for pair in pairs if pair.other is None]
    there = [pair.name for pair in pairs if pair.this is None]
    if here:
        yield f"{counted(len(here), 'step')} only here: {', '.join(here)}"
    if there:
        yield f"{counted(len(there), 'step')} only there: {', '.join(there)}"


def _lines(mine: Sequence[str], others: Sequence[str]) -> tuple[Line, ...]:
    found: list[Line] = []
    for tag, a, b, c, d in SequenceMatcher(None, others, mine, autojunk=False).get_opcodes():
        if tag == "equal":
            found += [Line("both", text) for text in mine[c:d]]
        else:
            found += [Line("other", text) for text in others[a:b]] + [Line("this", text) for text in mine[c:d]]
    return tuple(found)


def _answered(this: Json, other: Json, answer: Sequence[Line]) -> Iterator[str]:
    """Whether the answers differ: by what both say, markers and all."""
    if (this["answer"] is None) != (other["answer"] is None):
        yield "only this one has an answer" if this["answer"] is not None else "only the other has an answer"
    elif this["answer"] is not None:
        if this["answer"] == other["answer"]:
            yield "the answers are the same, word for word"
            return
        here = sum(line.where == "this" for line in answer)
        there = sum(line.where == "other" for line in answer)
        if here or there:
            yield f"the answers differ: {counted(here, 'sentence')} only here, {counted(there, 'sentence')} only there"
        else:
            yield "the answers say the same and differ in their sources or their form"
