"""The worker's role: one turn of an agent loop. Enters: prompt and offered tools. Leaves: tool calls or an answer.

Nothing is remembered between turns: earlier calls and their results are read from the conversation.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bulkhead_infra.offline_model.parts import Prompt, ToolUse, parse_parts
from bulkhead_infra.offline_model.quoting import (
    NOTHING,
    Sentence,
    best_sentences,
    mark_ids,
    nothing_line,
    sentences_of_passages,
    sentences_of_results,
)
from bulkhead_infra.offline_model.refund_case import (
    AMOUNT_LINE,
    KINDS_OF_TASK,
    RefundCase,
    Settlement,
    kind_of_task,
    read_case,
)
from bulkhead_infra.offline_model.roles import calling, planning
from bulkhead_infra.offline_model.roles.calling import CALCULATE, DIFFERENCE, SEARCH, Call
from bulkhead_infra.offline_model.roles.recalling import SUMMARY_TASK, remembered_sentences, summary_lines
from bulkhead_infra.offline_model.text import MARKER

IN_TURN = re.compile(r"(?i)\bone after the other\b")  # one named tool is called per turn
DAYS_RESULT = re.compile(r"\d{4}-\d\d-\d\d (?:=|is) (-?\d+) days?")


@dataclass(frozen=True)
class Turn:
    """The facts of one turn. case: the generated case that the facts state, if they do."""

    task: str
    facts: str
    prompt: Prompt
    offered: Mapping[str, Mapping[str, Any]]

    @cached_property
    def case(self) -> RefundCase | None:
        return read_case(self.facts)

    @property
    def questions(self) -> list[str]:
        return planning.split_objective(self.task)[1] or [self.task]

    @cached_property
    def composing(self) -> bool:
        return bool(self.prompt.of("input") and planning.FINAL.search(self.task))

    @cached_property
    def sentences(self) -> list[Sentence]:
        passages = [*self.prompt.of("passage")]
        for use in self.prompt.tool_uses:
            if use.name == SEARCH and not use.error_code:
                passages.extend(part for part in parse_parts(use.result) if part.kind == "passage")
        inputs = self.prompt.of("input")
        return [*sentences_of_passages(passages), *sentences_of_results(inputs), *remembered_sentences(inputs)]

    @property
    def settlement(self) -> Settlement | None:
        """The generated case as far as earlier steps and searches have found it out."""
        days = DAYS_RESULT.search(
            "\n".join([self.prompt.text("input"), *(use.result for use in self.prompt.tool_uses)])
        )
        if self.case is None or days is None:
            return None
        return Settlement(self.case, self.case.rules_in(self.sentences), int(days.group(1)))

    def result_of(self, wanted: Call) -> ToolUse | None:
        """The result of such a call; None while there is none without an error."""
        good = (use for use in self.prompt.tool_uses if use.answered and not use.error_code)
        return next((use for use in good if calling.make_call(use.name, **use.arguments) == wanted), None)

    def without_result(self, calls: Sequence[Call]) -> list[Call]:
        """The calls of offered tools that have no result yet; a tool may fail once."""
        failed = [use.name for use in self.prompt.tool_uses if use.error_code]
        possible = (call for call in calls if call.name in self.offered and failed.count(call.name) <= 1)
        return [call for call in dict.fromkeys(possible) if not self.result_of(call)]


def read_turn(prompt: Prompt, offered: Mapping[str, Mapping[str, Any]]) -> Turn:
    """The turn of a conversation."""
    task, facts = planning.task_and_facts(prompt.text("step"))
    if not facts:
        whole = task or prompt.objective
        stated, tasks = planning.split_objective(whole)
        task, facts = " ".join(tasks) or whole, " ".join(stated)
    return Turn(task, facts, prompt, offered)


def next_calls(turn: Turn) -> list[Call]:
    """The calls to make now, independent of each other; empty when the answer can be given."""
    if turn.composing:
        return []
    named = calling.named_calls(turn.task, turn.offered)
    done = [calling.make_call(use.name, **use.arguments) for use in turn.prompt.tool_uses]
    left = [call for call in named if call not in done]
    if left and IN_TURN.search(turn.task):
        return left[:1]
    return [*left, *turn.without_result([call for question in turn.questions for call in _calls_for(turn, question)])]


def _calls_for(turn: Turn, question: str) -> list[Call]:
    """The calls that a question asks for without naming a tool, made before or not."""
    if calling.named_calls(question, turn.offered):
        return []
    kind = kind_of_task(question) if turn.case else ""
    if turn.case and kind == "amount":
        expression = turn.settlement.expression if turn.settlement else ""
        return [calling.make_call(CALCULATE, expression=expression)] if expression else []
    if turn.case and kind:
        return [turn.case.days_call()] if kind == "days" else turn.case.search_calls(question)
    if CALCULATE in turn.offered and (expression := calling.find_expression(question)):
        return [calling.make_call(CALCULATE, expression=expression)]
    days = calling.days_call(question) if DIFFERENCE in turn.offered else None
    return [days or calling.search_call(question)]


def final_answer(turn: Turn) -> str:
    """The answer as cited lines; says so when nothing was found or a tool failed. Of a conversation, its summary."""
    if turn.task.startswith(SUMMARY_TASK):
        return "\n".join(summary_lines(turn.prompt.of("input")))
    lines = _composed_lines(turn) if turn.composing else _own_lines(turn)
    good = {use.name for use in turn.prompt.tool_uses if not use.error_code}
    failed = {use.name: use.error_code for use in turn.prompt.tool_uses if use.error_code and use.name not in good}
    lines = list(dict.fromkeys([*lines, *(f"The tool {name} did not work ({code})." for name, code in failed.items())]))
    return "\n".join(lines or [nothing_line(turn.task, turn.sentences)])


def _own_lines(turn: Turn) -> list[str]:
    """Results of tools, then what the documents say on each question."""
    uses = [use for use in turn.prompt.tool_uses if use.answered and not use.error_code and use.name != SEARCH]
    kinds = [kind for question in turn.questions if turn.case and (kind := kind_of_task(question))]
    if turn.case and kinds and (lines := _case_lines(turn, turn.case, kinds)):
        return lines
    lines = [tool_line(use) for use in uses]
    failed = any(use.error_code for use in turn.prompt.tool_uses)
    for question in turn.questions:
        named = {call.name for call in calling.named_calls(question, turn.offered)} - {SEARCH}
        if not named and not any(turn.result_of(call) for call in _calls_for(turn, question) if call.name != SEARCH):
            quotes = [sentence.line for sentence in best_sentences(turn.sentences, question)]
            lines += quotes or ([] if failed else [nothing_line(question, turn.sentences)])
    return lines


def _case_lines(turn: Turn, case: RefundCase, kinds: Sequence[str]) -> list[str]:
    """The lines of a step of the generated case."""
    use = next((use for use in turn.prompt.tool_uses if use.name == CALCULATE and not use.error_code), None)
    if "amount" in kinds and turn.settlement and use:
        days = [line for line in turn.prompt.text("input").splitlines() if DAYS_RESULT.search(line)]
        return [*turn.settlement.lines(use.result, use.id), *days]
    shown = [rule for kind in kinds for rule in KINDS_OF_TASK.get(kind, ())]
    return [rule.sentence.line for rule in case.rules_in(turn.sentences) if rule.kind in shown]


def tool_line(use: ToolUse) -> str:
    """The result of a tool as a cited line."""
    text = " ".join(use.result.split())[:600].rstrip(". ")
    if use.name == DIFFERENCE:
        text = text.replace(" = ", " is ")  # `05-20 = 19` would read as a wrong subtraction
    elif use.name != CALCULATE:
        text = f"The tool {use.name} gave: {text}"
    return f"{text} {mark_ids([use.id])}."


def _composed_lines(turn: Turn) -> list[str]:
    """The final answer from earlier results: of one with an amount all lines, of the others what they do not quote."""
    texts = [[line.strip() for line in part.text.splitlines() if line.strip()] for part in turn.prompt.of("input")]
    amounts = [lines for lines in texts if lines and lines[0].startswith(AMOUNT_LINE)]
    rest = [line for lines in texts if lines not in amounts for line in lines]
    if amounts:
        rest = [line for line in rest if not line.startswith(("“", NOTHING))]
    kept: dict[str, str] = {}
    for line in (*(line for lines in amounts for line in lines), *rest):
        kept.setdefault(MARKER.sub("", line).strip(" ."), line)
    return list(kept.values())
