"""The worker's role: one turn of an agent loop. Enters: prompt and offered tools. Leaves: tool calls or an answer.

Nothing is remembered between turns: what was called and came back is read from the conversation.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.offline_model import calling, composing
from infra.offline_model.calling import Call, Tool
from infra.offline_model.claims import Topic, collect, relevant
from infra.offline_model.findings import (
    Findings,
    base_amount,
    dates_for,
    days_between,
    disputes,
    find,
    formula,
)
from infra.offline_model.parts import Prompt, ToolUse, parse_parts
from infra.offline_model.planning import AMOUNT, COMPOSE, DAYS, FINAL, FIND, split_objective
from infra.offline_model.pool import Sentence, marks, sentences_of_passages, sentences_of_results
from infra.offline_model.quantities import find_dates, words_at_range
from infra.offline_model.text import stems

SEARCH, CALCULATE, DIFFERENCE, ADD, GET = (
    "search_documents",
    "calculate",
    "date_difference",
    "date_add",
    "http_get",
)
SEARCH_ROUNDS_MAX = 3
ANSWER_BYTES_MAX = 7_000  # whole lines are left out rather than the last one cut
PASSAGES_PER_SEARCH = 12
EXCEPTIONS = re.compile(r"\b(exceptions?|waiv\w+|exempt\w*|exclusions?|unless)\b", re.I)
GIVEN = re.compile(r"\n\s*Given:\s*")
ACCEPTANCE = re.compile(r"\n?\s*Acceptance:.*\Z", re.S)


@dataclass(frozen=True)
class Turn:
    """What this turn knows."""

    task: str
    topic: Topic
    prompt: Prompt
    offered: Mapping[str, Tool]
    sentences: list[Sentence]
    findings: Findings
    composing: bool

    def uses(self, name: str) -> list[ToolUse]:
        return [use for use in self.prompt.tool_uses if use.name == name and use.answered]

    def good(self, name: str) -> ToolUse | None:
        """The last call of a tool that came back without an error."""
        return next((use for use in reversed(self.uses(name)) if not use.error_code), None)

    def may_call(self, name: str, times: int = 1) -> bool:
        """Whether a tool is offered and was not tried too often; one failed try more is allowed."""
        failed = sum(bool(use.error_code) for use in self.uses(name))
        return name in self.offered and not self.good(name) and failed <= times

    @property
    def wants_days(self) -> bool:
        return bool(DAYS.search(self.task)) and not self.composing

    @property
    def wants_amount(self) -> bool:
        return bool(AMOUNT.search(self.task)) and not self.composing and not FIND.search(self.task)


def read_turn(prompt: Prompt, offered: Mapping[str, Tool]) -> Turn:
    """The turn of a conversation: its task and facts, the sentences to answer from, what they come to."""
    step = ACCEPTANCE.sub("", prompt.text("step"))
    whole = step or prompt.text("objective") or prompt.loose or prompt.text("context")
    pieces = GIVEN.split(whole, maxsplit=1)
    task, facts = pieces[0], pieces[1] if len(pieces) > 1 else ""
    if not facts:
        stated, asked = split_objective(whole if not step else prompt.text("objective"))
        facts = " ".join(stated)
        task = task if step else " ".join(asked) or whole
        facts = facts or whole
    passages = [*prompt.of("passage")]
    for use in prompt.tool_uses:
        if use.name == SEARCH and not use.error_code:
            passages.extend(part for part in parse_parts(use.result) if part.kind == "passage")
    sentences = [*sentences_of_passages(passages), *sentences_of_results(prompt.of("input"))]
    topic = Topic(task, facts)
    results = [use.result for use in prompt.tool_uses if use.name == DIFFERENCE]
    final = bool(prompt.of("input")) and (COMPOSE in task or bool(FINAL.search(_body(task)) or FINAL.search(task)))
    return Turn(
        task,
        topic,
        prompt,
        offered,
        sentences,
        find(sentences, topic, days_between(sentences, results)),
        final,
    )


def _body(task: str) -> str:
    """The task without its title line."""
    return task.split("\n", 1)[-1].strip()


def next_calls(turn: Turn) -> list[Call]:
    """The calls to make now, independent of each other; empty when the answer can be given."""
    if turn.composing:
        return []
    named = _named(turn)
    if named is not None:
        return named
    calls = [*_searches(turn), *_date_calls(turn), *_fetches(turn)]
    return calls or _calculations(turn)


def _named(turn: Turn) -> list[Call] | None:
    """Calls that the task orders by a tool's exact name, those left to make; None when it orders none."""
    wanted = calling.named_calls(_body(turn.task), turn.offered)
    if not wanted:
        return None
    done = [(use.name, dict(use.arguments)) for use in turn.prompt.tool_uses]
    left = []
    for call in wanted:
        tried = [use for use in turn.prompt.tool_uses if use.name == call.name]
        same = [args for name, args in done if name == call.name]
        made = calling.call(call.name, **same[-1]) if same else None
        if not tried or (made != call and all(calling.call(call.name, **args) != call for args in same)):
            left.append(call)
    if left or {call.name for call in wanted} - {CALCULATE, SEARCH, DIFFERENCE, ADD}:
        return left
    return None


def _searches(turn: Turn) -> list[Call]:
    """Search calls: the task's words and the case's; then what is missing, at most `SEARCH_ROUNDS_MAX` rounds."""
    done = turn.uses(SEARCH)
    asked_before = {str(use.arguments.get("query", "")) for use in done}
    if SEARCH not in turn.offered or len(asked_before) >= 2 * SEARCH_ROUNDS_MAX:
        return []
    if calling.explicit_expression(_body(turn.task)) and CALCULATE in turn.offered:
        return []
    if (
        turn.wants_days
        and not done
        and {DIFFERENCE, ADD} & set(turn.offered)
        and dates_for([turn.task], turn.topic.facts)
    ):
        return []
    queries: list[str] = []
    if not done:
        queries.append(calling.query_of(_body(turn.task)))
        if turn.topic.facts:
            queries.append(calling.query_of(turn.topic.facts, limit=20))
        if turn.prompt.of("notes"):
            queries.append(calling.query_of(f"{turn.prompt.text('notes')} {_body(turn.task)}", limit=20))
        if turn.wants_amount:
            queries.append(calling.query_of(_body(turn.task) + " percentage fee maximum minimum exception waiver"))
    elif any(use.error_code for use in done) and not turn.good(SEARCH) and len(done) < 4:
        queries.append(calling.query_of(_body(turn.task), limit=8))
    elif turn.good(SEARCH):
        queries.extend(_second_queries(turn))
    return [
        calling.call(SEARCH, query=query[:400], k=PASSAGES_PER_SEARCH)
        for query in dict.fromkeys(queries)
        if query and query not in asked_before
    ]


def _second_queries(turn: Turn) -> list[str]:
    """What to look for again: effective dates of documents that differ, or other words when nothing was found."""
    undated: dict[str, None] = {}
    by_role = collect(turn.sentences)
    for role in ("share", "fee", "fee_share"):
        for choice in disputes(turn.findings, relevant(by_role[role], turn.topic)):
            for claim in (choice.claim, *choice.rivals):
                if not claim.sentence.since:
                    undated[claim.sentence.context or claim.sentence.source] = None
    if undated:
        return [
            calling.query_of(name, ("effective", "date", "force", "valid", "since", "effect"))
            for name in list(undated)[:3]
        ]
    if not composing.finding_lines(turn.sentences, turn.topic, turn.findings, wide=True):
        return [" ".join(sorted(stems(turn.task)))[:200]]
    return []


def _date_calls(turn: Turn) -> list[Call]:
    after = calling.DAYS_AFTER.search(turn.task)
    days = find_dates(turn.task) or find_dates(turn.topic.facts)
    if after and days and turn.may_call(ADD) and not re.search(r"\bhow many\b", turn.task, re.I):
        count = int(next(group for group in after.groups() if group and group.isdigit()))
        if after.group(2) == "before":
            count = -count
        return [calling.call(ADD, date=days[0].day.isoformat(), days=count)]
    ranged = turn.wants_amount and any(claim.days for claim in turn.findings.shares) and turn.findings.days is None
    if not (turn.wants_days or ranged) or not turn.may_call(DIFFERENCE) or turn.good(ADD):
        return []
    texts = [words_at_range(claim.sentence.text) for claim in turn.findings.shares if claim.days]
    span = dates_for(texts if ranged else [turn.task], turn.topic.facts)
    return [calling.call(DIFFERENCE, start=span[0].isoformat(), end=span[1].isoformat())] if span else []


def _fetches(turn: Turn) -> list[Call]:
    links = dict.fromkeys(link.rstrip(".,") for link in calling.URL.findall(turn.task))
    done = {str(use.arguments.get("url", "")) for use in turn.uses(GET)}
    return [calling.call(GET, url=link) for link in links if GET in turn.offered and link not in done][:4]


def _calculations(turn: Turn) -> list[Call]:
    if not turn.may_call(CALCULATE):
        return []
    expression = calling.explicit_expression(_body(turn.task))
    if not expression and turn.wants_amount:
        expression = formula(turn.findings)
    return [calling.call(CALCULATE, expression=expression)] if expression else []


def final_answer(turn: Turn) -> str:
    """The answer as cited lines; says so when nothing was found or a tool failed."""
    lines = composing.composed_lines(turn.prompt.of("input"), turn.task) if turn.composing else _lines(turn)
    failed = [use for use in turn.prompt.tool_uses if use.error_code and not turn.good(use.name)]
    for use in {use.name: use for use in failed}.values():
        lines.append(f"The tool {use.name} did not work ({use.error_code}).")
    while len(lines) > 1 and sum(len(line.encode()) + 1 for line in lines) > ANSWER_BYTES_MAX:
        lines.pop()
    return "\n".join(lines or [composing.nothing_line(_body(turn.task), turn.sentences)])


def _lines(turn: Turn) -> list[str]:
    calculated, spanned, added = turn.good(CALCULATE), turn.good(DIFFERENCE), turn.good(ADD)
    own = [sentence for sentence in turn.sentences if sentence.own]
    if calculated and turn.wants_amount and not calling.explicit_expression(_body(turn.task)):
        lines = composing.amount_lines(turn.findings, calculated, own)
        return [*lines, *_tool_lines([spanned])]
    lines = _tool_lines([spanned, added, calculated])
    lines += _tool_lines(
        [
            use
            for use in turn.prompt.tool_uses
            if use.name not in (SEARCH, CALCULATE, DIFFERENCE, ADD) and not use.error_code
        ]
    )
    if lines and not turn.uses(SEARCH):
        return lines
    if turn.wants_amount and CALCULATE in turn.offered and not calculated:
        missing = "no percentage or fee" if base_amount(turn.topic.facts) else "no amount to start from"
        lines.append(f"The amount cannot be worked out: there is {missing} in what is known.")
    if EXCEPTIONS.search(turn.task) and not turn.wants_amount:
        found = composing.exception_lines(turn.sentences, turn.topic, turn.findings.ruling)
        if found and not re.search(r"\bpercent\w*\b", turn.task):
            return [*lines, *found]
    found = composing.finding_lines(turn.sentences, turn.topic, turn.findings, bool(turn.prompt.of("notes")))
    if not found and turn.prompt.of("input"):
        found = composing.composed_lines(turn.prompt.of("input"), turn.task)
    return [*lines, *found]


def _tool_lines(uses: Sequence[ToolUse | None]) -> list[str]:
    lines = []
    for use in uses:
        if use and use.answered:
            text = " ".join(use.result.split())[:600].rstrip(". ")
            body = text if use.name in (CALCULATE, DIFFERENCE, ADD) else f"The tool {use.name} gave: {text}"
            # `05-20 = 19` would read as a subtraction that is wrong.
            body = body.replace(" = ", " is ") if use.name in (DIFFERENCE, ADD) else body
            lines.append(f"{body} {marks([use.id])}.")
    return lines
