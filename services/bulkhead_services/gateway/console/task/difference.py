"""Two tasks side by side: what is the same, what is not, and by how much. Pure.

In: the documents and the stories of both, as the API tells them. Out: rows and sentences for a page. Steps are matched
by their ids, the rest by their titles; the answers sentence by sentence.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from bulkhead.text.amounts import format_count, format_duration, format_tokens, format_usd
from bulkhead_services.gateway.console.api import Json

MAX_SENTENCES = 400
"""Of each answer that are compared: the comparison takes their product in time."""
MAX_WORDS = 400
"""Of each instruction, for the same reason."""
STANDINGS = {"ok": "not degraded", "": "unknown"}
"""Words for a result that is as it should be, and for none."""
Here = Literal["both", "this", "other"]


@dataclass(frozen=True, slots=True)
class AnswerLine:
    """A sentence of one answer or of both."""

    where: Here
    text: str


@dataclass(frozen=True, slots=True)
class ComparedSide:
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
class StepPair:
    """A step in both, or in one of them. said: how they differ. instruction: its words, where they are not the same."""

    name: str
    this: ComparedSide | None
    other: ComparedSide | None
    said: tuple[str, ...]
    instruction: tuple[AnswerLine, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskDifference:
    """All of it. whole: how the tasks as a whole differ; said: that and all else. answer_cut: the answers have more
    sentences than were compared."""

    this: ComparedSide
    other: ComparedSide
    whole: tuple[str, ...]
    said: tuple[str, ...]
    pairs: tuple[StepPair, ...]
    answer: tuple[AnswerLine, ...]
    answer_cut: bool


def compare_tasks(this: Json, other: Json, this_story: Json, other_story: Json) -> TaskDifference:
    """The differences between two tasks. this, other: their documents."""
    this_steps, other_steps = _last_plan(this_story), _last_plan(other_story)
    pairs = tuple(_pair_steps(this_step, other_step) for this_step, other_step in _match_steps(this_steps, other_steps))
    texts = [[row["text"] for row in story["answer"]] for story in (this_story, other_story)]
    answer = _answer_lines(texts[0][:MAX_SENTENCES], texts[1][:MAX_SENTENCES])
    sides = _side_of_task(this, this_story), _side_of_task(other, other_story)
    whole = (*_compare_sides(*sides), *_compare_answered(this, other))
    sentences = [
        *whole,
        *_compare_plans(this_story, other_story),
        *_unpaired_steps(pairs),
        *_compare_answers(this, other, answer),
    ]
    return TaskDifference(
        *sides, whole, tuple(sentences), pairs, answer, any(len(answer_text) > MAX_SENTENCES for answer_text in texts)
    )


def _last_plan(story: Json) -> list[Json]:
    """The steps of the plan that the task ended with."""
    last = max((step["plan_version"] for step in story["steps"]), default=0)
    return [step for step in story["steps"] if step["plan_version"] == last]


def _match_steps(mine: Sequence[Json], others: Sequence[Json]) -> Iterator[tuple[Json | None, Json | None]]:
    """Steps of the one with those of the other; then those that the other has alone."""
    by_id = {step["step_id"]: step for step in others}
    ids = {step["step_id"] for step in mine}
    by_title = {step["title"]: step for step in others if step["title"] and step["step_id"] not in ids}
    unmatched = dict(by_id)
    for step in mine:
        counterpart = by_id.get(step["step_id"]) or by_title.pop(step["title"], None)
        if counterpart is not None:
            unmatched.pop(counterpart["step_id"], None)
        yield step, counterpart
    yield from ((None, step) for step in unmatched.values())


def _pair_steps(mine: Json | None, others: Json | None) -> StepPair:
    step = mine or others
    assert step is not None
    this_side = None if mine is None else _side_of_step(mine)
    other_side = None if others is None else _side_of_step(others)
    differences = (
        (*_compare_sides(this_side, other_side), *_compare_calls(mine, others))
        if this_side and other_side and mine and others
        else ()
    )
    instruction = _compare_words(mine["instruction"], others["instruction"]) if mine and others else ()
    if instruction:
        differences = ("another instruction", *differences)
    return StepPair(step["title"] or step["step_id"], this_side, other_side, differences, instruction)


def _compare_words(mine: str, others: str) -> tuple[AnswerLine, ...]:
    """The words of two texts, in runs that are in both or in one of them; nothing where the texts are the same."""
    if mine == others:
        return ()
    runs: list[AnswerLine] = []
    for line in _answer_lines(mine.split()[:MAX_WORDS], others.split()[:MAX_WORDS]):
        if runs and runs[-1].where == line.where:
            runs[-1] = AnswerLine(line.where, f"{runs[-1].text} {line.text}")
        else:
            runs.append(line)
    return tuple(runs)


def _side_of_step(step: Json) -> ComparedSide:
    return ComparedSide(
        step["outcome"],
        step["standing"],
        step["attempts"],
        len(step["calls"]),
        step["usage"]["input_tokens"] + step["usage"]["output_tokens"],
        step["usage"]["cost_usd_micros"],
        step["took_ms"],
        step["given"],
    )


def _side_of_task(task: Json, story: Json) -> ComparedSide:
    usage = story["usage"]
    return ComparedSide(
        task["status"],
        task["standing"] or "",
        sum(step["attempts"] for step in story["steps"]),
        len(story["planning"]) + sum(len(step["calls"]) for step in story["steps"]),
        usage["input_tokens"] + usage["output_tokens"],
        usage["cost_usd_micros"],
        # As the task's page tells it; of a task that goes on, the time of its messages.
        task["duration_ms"] or story["took_ms"],
    )


def _compare_sides(this: ComparedSide, other: ComparedSide) -> Iterator[str]:
    """Differences of this one from the other, in words."""
    if this.outcome != other.outcome:
        yield f"this one is {this.outcome}, the other {other.outcome}".replace("_", " ")
    if this.standing != other.standing and this.outcome == other.outcome:
        this_word, other_word = (STANDINGS.get(side.standing, side.standing) for side in (this, other))
        yield f"{this_word} here, {other_word} there"
    if this.took_over != other.took_over:
        yield "the result here is taken over" if this.took_over else "the other's result is taken over"
    yield from _compare_amounts(this, other)


def _compare_answered(this: Json, other: Json) -> Iterator[str]:
    if this["answered"] != other["answered"]:
        yield f"answered: {this['answered'] or 'unknown'} here, {other['answered'] or 'unknown'} there"


def _compare_amounts(this: ComparedSide, other: ComparedSide) -> Iterator[str]:
    if surplus := this.attempts - other.attempts:
        yield f"{format_count(abs(surplus), 'attempt')} {_more_or_less(surplus, 'fewer')}"
    if surplus := this.calls - other.calls:
        yield f"{format_count(abs(surplus), 'call')} {_more_or_less(surplus, 'fewer')}"
    if surplus := this.tokens - other.tokens:
        yield f"{format_tokens(abs(surplus))} {_more_or_less(surplus, 'fewer')}"
    if surplus := this.cost_usd_micros - other.cost_usd_micros:
        yield f"{format_usd(abs(surplus))} {_more_or_less(surplus, 'less')}"
    if surplus := this.took_ms - other.took_ms:
        yield f"{format_duration(abs(surplus))} {'longer' if surplus > 0 else 'shorter'}"


def _more_or_less(more: int, less: str) -> str:
    return "more" if more > 0 else less


def _compare_calls(mine: Json, others: Json) -> Iterator[str]:
    """Tools and prompts that one of the two called more often, and calls that went otherwise."""
    this_counts, other_counts = (
        Counter((call["name"], call["outcome"]) for call in step["calls"]) for step in (mine, others)
    )
    for name, outcome in sorted(this_counts.keys() | other_counts.keys()):
        this_count, other_count = this_counts[name, outcome], other_counts[name, outcome]
        if this_count != other_count:
            yield (
                f"{name} {outcome.replace('_', ' ')}: {format_count(this_count, 'time')} here, "
                f"{format_count(other_count, 'time')} there"
            )


def _compare_plans(mine: Json, others: Json) -> Iterator[str]:
    this_count, other_count = len(mine["plans"]), len(others["plans"])
    if this_count != other_count:
        yield f"{format_count(this_count, 'plan')} here, {format_count(other_count, 'plan')} there"


def _unpaired_steps(pairs: Sequence[StepPair]) -> Iterator[str]:
    this_only = [pair.name for pair in pairs if pair.other is None]
    other_only = [pair.name for pair in pairs if pair.this is None]
    if this_only:
        yield f"{format_count(len(this_only), 'step')} only here: {', '.join(this_only)}"
    if other_only:
        yield f"{format_count(len(other_only), 'step')} only there: {', '.join(other_only)}"


def _answer_lines(mine: Sequence[str], others: Sequence[str]) -> tuple[AnswerLine, ...]:
    lines: list[AnswerLine] = []
    for tag, a, b, c, d in SequenceMatcher(None, others, mine, autojunk=False).get_opcodes():
        if tag == "equal":
            lines += [AnswerLine("both", text) for text in mine[c:d]]
        else:
            lines += [AnswerLine("other", text) for text in others[a:b]] + [
                AnswerLine("this", text) for text in mine[c:d]
            ]
    return tuple(lines)


def _compare_answers(this: Json, other: Json, answer: Sequence[AnswerLine]) -> Iterator[str]:
    """Differences of the answers: by what both say, markers and all."""
    if (this["answer"] is None) != (other["answer"] is None):
        yield "only this one has an answer" if this["answer"] is not None else "only the other has an answer"
    elif this["answer"] is not None:
        if this["answer"] == other["answer"]:
            yield "the answers are the same, word for word"
            return
        this_only = sum(line.where == "this" for line in answer)
        other_only = sum(line.where == "other" for line in answer)
        if this_only or other_only:
            yield (
                f"the answers differ: {format_count(this_only, 'sentence')} only here, "
                f"{format_count(other_only, 'sentence')} only there"
            )
        else:
            yield "the answers say the same and differ in their sources or their form"
