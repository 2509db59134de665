"""The worker's role: one turn of an agent loop. Enters: prompt and offered tools. Leaves: tool calls or an answer.

Nothing is remembered between turns: earlier calls and their results are read from the conversation.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from bulkhead_infra.offline_model.language import findings
from bulkhead_infra.offline_model.language.claims import Topic, collect, relevant
from bulkhead_infra.offline_model.language.extracting import best_sentences
from bulkhead_infra.offline_model.language.findings import Findings, find, formula
from bulkhead_infra.offline_model.language.pool import Sentence, marks, sentences_of_passages, sentences_of_results
from bulkhead_infra.offline_model.language.quantities import find_dates, words_at_range
from bulkhead_infra.offline_model.language.rates import Plain, plain_sum
from bulkhead_infra.offline_model.language.text import other_words, split_sentences
from bulkhead_infra.offline_model.parts import Prompt, ToolUse, parse_parts
from bulkhead_infra.offline_model.roles import calling, composing, planning
from bulkhead_infra.offline_model.roles.calling import Call, Tool

SEARCH, CALCULATE, DIFFERENCE, ADD, GET = ("search_documents", "calculate", "date_difference", "date_add", "http_get")
QUERIES_MAX = 24
ANSWER_BYTES_MAX = 7_000  # whole lines are left out rather than the last one cut
PASSAGES_PER_SEARCH = 12
BRIEF_LINES = 2  # on each question where several share a step
IN_TURN = re.compile(r"\bone after the other\b", re.I)  # one named tool is called per turn
EXCEPTIONS = re.compile(r"\b(exceptions?|waiv\w+|exempt\w*|exclusions?|unless)\b", re.I)
BETWEEN = re.compile(r"\b(?:between|from) (.{3,80}?) (?:and|to|until|till) (.{3,80}?)(?:[?.;]|$)", re.I)


@dataclass(frozen=True)
class Turn:
    """The facts of one turn."""

    task: str
    topic: Topic
    prompt: Prompt
    offered: Mapping[str, Tool]
    sentences: list[Sentence]
    findings: Findings
    composing: bool

    @property
    def pieces(self) -> list["Turn"]:
        """A turn for each question of the task; the turn itself when there is only one."""
        asked = planning.questions_of(self.task)
        if len(asked) == 1:
            return [self]
        topics = [Topic(question, self.topic.facts) for question in asked]
        return [
            replace(self, task=topic.task, topic=topic, findings=find(self.sentences, topic, self.findings.days))
            for topic in topics
        ]

    @property
    def sum(self) -> Plain | None:
        """The plain sum that is asked for, where the rules give no formula."""
        if not self.wants_amount or formula(self.findings):
            return None
        return plain_sum(self.sentences, self.topic)

    @property
    def stands_alone(self) -> bool:
        """Whether the task itself holds the numbers or dates of its calculation."""
        if CALCULATE in self.offered and calling.explicit_expression(self.task):
            return True
        dated = self.wants_days and {DIFFERENCE, ADD} & set(self.offered)
        return bool(dated and findings.dates_for([self.task], self.topic.facts))

    def uses(self, name: str) -> list[ToolUse]:
        return [use for use in self.prompt.tool_uses if use.name == name and use.answered]

    def good(self, name: str) -> ToolUse | None:
        """The last call of a tool that gave no error."""
        return next((use for use in reversed(self.uses(name)) if not use.error_code), None)

    def result_of(self, call: Call) -> ToolUse | None:
        """The result of such a call; None while there is none without an error."""
        good = [use for use in self.uses(call.name) if not use.error_code]
        return next((use for use in good if calling.call(use.name, **use.arguments) == call), None)

    def left(self, calls: Sequence[Call]) -> list[Call]:
        """The calls of offered tools that have no result yet; a tool may fail once."""
        failed = {name: sum(bool(use.error_code) for use in self.uses(name)) for name in self.offered}
        return [call for call in calls if failed.get(call.name, 2) <= 1 and not self.result_of(call)]

    @property
    def wants_days(self) -> bool:
        return bool(planning.DAYS.search(self.task)) and not self.composing

    @property
    def wants_amount(self) -> bool:
        amount = planning.AMOUNT.search(self.task) and not planning.FIND.search(self.task)
        return bool(amount) and not self.composing


def read_turn(prompt: Prompt, offered: Mapping[str, Tool]) -> Turn:
    """The turn of a conversation: its task and facts, the sentences to answer from, their values."""
    task, facts = planning.task_and_facts(prompt.text("step"))
    if not facts:
        whole = prompt.text("objective") or prompt.loose or prompt.text("context")
        stated, asked = planning.split_objective(whole)
        task = task or " ".join(asked) or whole
        facts = " ".join(stated)
    passages = [*prompt.of("passage")]
    for use in prompt.tool_uses:
        if use.name == SEARCH and not use.error_code:
            passages.extend(part for part in parse_parts(use.result) if part.kind == "passage")
    sentences = [*sentences_of_passages(passages), *sentences_of_results(prompt.of("input"))]
    topic = Topic(task, facts)
    results = [use.result for use in prompt.tool_uses if use.name == DIFFERENCE]
    final = bool(prompt.of("input")) and (planning.COMPOSE in task or bool(planning.FINAL.search(task)))
    values = find(sentences, topic, findings.days_between(sentences, results))
    return Turn(task, topic, prompt, offered, sentences, values, final)


def next_calls(turn: Turn) -> list[Call]:
    """The calls to make now, independent of each other; empty when the answer can be given."""
    if turn.composing:
        return []
    named = _named(turn)
    if named is not None:
        return named
    pieces = turn.pieces
    calls = [call for piece in pieces for call in (*_searches(piece), *turn.left(_date_calls(piece)), *_fetches(piece))]
    calls = calls or turn.left([call for piece in pieces for call in _calculations(piece)])
    return list(dict.fromkeys(calls))


def _named(turn: Turn) -> list[Call] | None:
    """Remaining calls of the tools that the task names exactly; None when it names no tool."""
    wanted = calling.named_calls(turn.task, turn.offered)
    if not wanted:
        return None
    done = [calling.call(use.name, **use.arguments) for use in turn.prompt.tool_uses]
    left = [call for call in wanted if call not in done]
    if left and IN_TURN.search(turn.task):
        return left[:1]
    if left or {call.name for call in wanted} - {CALCULATE, SEARCH, DIFFERENCE, ADD}:
        return left
    return None


def _searches(turn: Turn) -> list[Call]:
    """Search calls: the words of task and case at first, then the missing facts."""
    done = turn.uses(SEARCH)
    asked_before = {str(use.arguments.get("query", "")) for use in done}
    if SEARCH not in turn.offered or turn.stands_alone or len(asked_before) >= QUERIES_MAX:
        return []
    queries: list[str] = []
    if not done:
        queries.append(calling.query_of(turn.task))
        if turn.topic.facts:
            queries.append(calling.query_of(turn.topic.facts, limit=20))
        if turn.wants_amount and findings.base_amount(turn.topic.facts):
            queries.append(calling.query_of(turn.task + " percentage fee maximum minimum exception waiver"))
    elif any(use.error_code for use in done) and not turn.good(SEARCH) and len(done) < 4:
        queries.append(calling.query_of(turn.task, limit=8))
    elif turn.good(SEARCH):
        queries.extend(_second_queries(turn))
    return [
        calling.call(SEARCH, query=query[:400], k=PASSAGES_PER_SEARCH)
        for query in dict.fromkeys(queries)
        if query and query not in asked_before
    ]


def _second_queries(turn: Turn) -> list[str]:
    """Further searches: effective dates of documents that differ, or other words when nothing was found."""
    undated: dict[str, None] = {}
    by_role = collect(turn.sentences)
    for role in ("share", "fee", "fee_share"):
        for choice in findings.disputes(turn.findings, relevant(by_role[role], turn.topic)):
            for claim in (choice.claim, *choice.rivals):
                if not claim.sentence.since:
                    undated[claim.sentence.context or claim.sentence.source] = None
    if undated:
        more = ("effective", "date", "force", "valid", "since", "effect")
        return [calling.query_of(name, more) for name in list(undated)[:3]]
    return [] if best_sentences(turn.sentences, turn.topic) else [other_words(turn.task)]


def _date_calls(turn: Turn) -> list[Call]:
    """The calls of date tools that the task asks for, made before or not."""
    after = calling.DAYS_AFTER.search(turn.task)
    days = find_dates(turn.task) or find_dates(turn.topic.facts)
    if after and days and ADD in turn.offered and not re.search(r"\bhow many\b", turn.task, re.I):
        count = int(next(group for group in after.groups() if group and group.isdigit()))
        count *= 7 if "week" in after.group() else 1
        if after.group(2) == "before":
            count = -count
        return [calling.call(ADD, date=days[0].day.isoformat(), days=count)]
    ranged = turn.wants_amount and any(claim.days for claim in turn.findings.shares) and turn.findings.days is None
    if not (turn.wants_days or ranged):
        return []
    texts = [words_at_range(claim.sentence.text) for claim in turn.findings.shares if claim.days]
    span = findings.dates_for(texts if ranged else [turn.task], turn.topic.facts)
    if turn.wants_days and turn.good(SEARCH):
        span = _ends_in_documents(turn) or span
    return [calling.call(DIFFERENCE, start=span[0].isoformat(), end=span[1].isoformat())] if span else []


def _ends_in_documents(turn: Turn) -> tuple[date, date] | None:
    """The dates of the two events between which the days are counted, from the task or the documents."""
    named = BETWEEN.search(turn.task)
    ends: list[date] = []
    for thing in named.groups() if named else ():
        texts = [thing, *(s.text for s in best_sentences(turn.sentences, Topic(f"When is {thing}?", "")))]
        ends.extend([when.day for text in texts for when in find_dates(text)][:1])
    return (min(ends), max(ends)) if len(set(ends)) == 2 else None


def _fetches(turn: Turn) -> list[Call]:
    links = dict.fromkeys(link.rstrip(".,") for link in calling.URL.findall(turn.task))
    done = {str(use.arguments.get("url", "")) for use in turn.uses(GET)}
    return [calling.call(GET, url=link) for link in links if GET in turn.offered and link not in done][:4]


def _calculations(turn: Turn) -> list[Call]:
    """The calculation that the task asks for, made before or not."""
    expression = calling.explicit_expression(turn.task)
    if not expression and turn.wants_amount:
        expression = formula(turn.findings) or (turn.sum.expression if turn.sum else "")
    return [calling.call(CALCULATE, expression=expression)] if expression else []


def final_answer(turn: Turn) -> str:
    """The answer as cited lines; says so when nothing was found or a tool failed."""
    lines = composing.composed_lines(turn.prompt.of("input"), turn.task) if turn.composing else _lines(turn)
    failed = [use for use in turn.prompt.tool_uses if use.error_code and not turn.good(use.name)]
    for use in {use.name: use for use in failed}.values():
        lines.append(f"The tool {use.name} did not work ({use.error_code}).")
    if planning.LEFT_OUT in turn.topic.facts and turn.composing:
        lines.append(next(s for s in split_sentences(turn.topic.facts) if planning.LEFT_OUT in s))
    whole = len(lines)
    while len(lines) > 1 and sum(len(line.encode()) + 1 for line in lines) > ANSWER_BYTES_MAX:
        lines.pop()
    if len(lines) < whole:
        lines.append(f"Left out for want of room: the last {whole - len(lines)} lines of the answer.")
    return "\n".join(lines or [_nothing(turn)])


def _lines(turn: Turn) -> list[str]:
    """Results of the tools that the task names, then the lines on each of its questions."""
    named = calling.named_calls(turn.task, turn.offered)
    kept = [use for use in turn.prompt.tool_uses if use.name != SEARCH and not use.error_code]
    lines = _tool_lines([use for use in kept if named or use.name not in (CALCULATE, DIFFERENCE, ADD)])
    if lines and not turn.uses(SEARCH):
        return lines
    pieces = turn.pieces
    for piece in pieces:
        answer = _answer_to(piece)
        lines += answer if len(pieces) == 1 else answer[:BRIEF_LINES] or [_nothing(piece)]
    return list(dict.fromkeys(lines))


def _answer_to(turn: Turn) -> list[str]:
    """The lines on one question; none when nothing was found."""
    [calculated] = [turn.result_of(call) for call in _calculations(turn)] or [None]
    explicit = bool(calling.explicit_expression(turn.task))
    if calculated and not explicit and formula(turn.findings):
        own = [sentence for sentence in turn.sentences if sentence.own]
        return [*composing.amount_lines(turn.findings, calculated, own), *_tool_lines([turn.good(DIFFERENCE)])]
    if calculated and not explicit and turn.sum:
        return composing.plain_lines(turn.sum, calculated)
    lines = _tool_lines([*(turn.result_of(call) for call in _date_calls(turn)), calculated])
    if lines and turn.stands_alone:
        return lines
    if EXCEPTIONS.search(turn.task) and not turn.wants_amount:
        exceptions = composing.exception_lines(turn.sentences, turn.topic, turn.findings.ruling)
        if exceptions and not re.search(r"\bpercent\w*\b", turn.task):
            return [*lines, *exceptions]
    more = composing.finding_lines(turn.sentences, turn.topic, turn.findings, bool(turn.prompt.of("notes")))
    if not more and turn.prompt.of("input"):
        more = composing.composed_lines(turn.prompt.of("input"), turn.task)
    return [*lines, *more]


def _nothing(turn: Turn) -> str:
    return composing.nothing_line(turn.topic, turn.sentences, bool(turn.uses(SEARCH)))


def _tool_lines(uses: Sequence[ToolUse | None]) -> list[str]:
    lines = []
    for use in uses:
        if use and use.answered:
            text = " ".join(use.result.split())[:600].rstrip(". ")
            body = text if use.name in (CALCULATE, DIFFERENCE, ADD) else f"The tool {use.name} gave: {text}"
            # `05-20 = 19` would read as a wrong subtraction.
            body = body.replace(" = ", " is ") if use.name in (DIFFERENCE, ADD) else body
            lines.append(f"{body} {marks([use.id])}.")
    return lines
