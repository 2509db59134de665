"""The state of a session, folded from its facts. Pure.

In: messages of one session in stream order. Out: its turns, its summaries, its pinned facts, and what they saved; the
facts of another session that begins with its turns.
"""

import itertools
from dataclasses import dataclass, field

from bulkhead.gateway_api.sessions import SummaryFigures
from bulkhead.journal.session_figures import saved_tokens
from bulkhead_contracts.session import FactPinned, SessionDeleted, SessionOpened, SessionSummary, TurnTaken
from bulkhead_contracts.types import Body

MAX_VAIN_SUMMARIES = 3
"""After so many in a row that could not be used no other is begun."""


@dataclass(slots=True)
class SessionState:
    """A session as its facts tell. sequence: of the last one; a writer names it, so that no two take the same turn."""

    opened: SessionOpened | None = None
    turns: list[TurnTaken] = field(default_factory=list)
    """Turns in order, without those that were replaced."""
    replaced: dict[str, tuple[TurnTaken, ...]] = field(default_factory=dict)
    """Turns in whose place a turn of `turns` stands, by its task: they are shown to people alone."""
    summaries: list[SessionSummary] = field(default_factory=list)
    awaited_summary: TurnTaken | None = None
    """The turn beside which a summary began that is not there yet."""
    void_summaries: set[str] = field(default_factory=set)
    """Tasks of summaries that stand for turns which were replaced."""
    facts: dict[str, FactPinned] = field(default_factory=dict)
    is_deleted: bool = False
    sequence: int = 0
    messages: int = 0

    def apply_body(self, body: Body, sequence: int) -> None:
        """One message of the session."""
        self.sequence, self.messages = sequence, self.messages + 1
        match body:
            case SessionOpened():
                self.opened = self.opened or body
            case TurnTaken():
                if replaced := self.rewind_to(body.number):
                    self.replaced[body.task] = replaced
                if body.summary is not None:
                    self.add_summary(body.summary)
                self.turns.append(body)
                if body.begun_summary:
                    self.awaited_summary = body
            case FactPinned():
                self.facts.pop(body.fact_id, None)
                if body.text:
                    self.facts[body.fact_id] = body
            case SessionDeleted():
                self.is_deleted = True
            case _:
                pass

    def is_open_to(self, person: str) -> bool:
        """True for who may take turns."""
        return self.opened is not None and person in (self.opened.requester.person, *self.opened.participants)

    def find_turn(self, task: str) -> TurnTaken | None:
        """The turn that this task answers, also one that was replaced."""
        turns = itertools.chain(self.turns, *self.replaced.values())
        return next((turn for turn in turns if turn.task == task), None)

    def rewind_to(self, number: int) -> tuple[TurnTaken, ...]:
        """Take the turns from this number on out of the conversation, with what was pinned from their answers and the
        summaries that stand for one of them. Returns them, each behind those that it had replaced."""
        removed = [turn for turn in self.turns if turn.number >= number]
        if not removed:
            return ()
        self.turns = [turn for turn in self.turns if turn.number < number]
        self.facts = {name: fact for name, fact in self.facts.items() if fact.turn < number}
        self.void_summaries |= {summary.task for summary in self.summaries if summary.through >= number}
        if self.awaited_summary is not None and self.awaited_summary.begun_through >= number:
            self.void_summaries.add(self.awaited_summary.begun_summary)
        return tuple(earlier for turn in removed for earlier in (*self.replaced.pop(turn.task, ()), turn))

    def add_summary(self, summary: SessionSummary) -> None:
        """Note a summary that is there now, of use or not."""
        self.summaries.append(summary)
        if self.awaited_summary is not None and self.awaited_summary.begun_summary == summary.task:
            self.awaited_summary = None

    @property
    def summary(self) -> SessionSummary | None:
        """The summary that stands for the oldest turns."""
        standing = (row for row in reversed(self.summaries) if row.used and row.task not in self.void_summaries)
        return next(standing, None)

    @property
    def may_summarise(self) -> bool:
        """True while none is awaited, money is left for one, and the last ones were of use."""
        assert self.opened is not None
        spent = sum(summary.cost_usd_micros for summary in self.summaries)
        valid_summaries = [summary for summary in self.summaries if summary.task not in self.void_summaries]
        in_vain = [not summary.used for summary in valid_summaries[-MAX_VAIN_SUMMARIES:]]
        return (
            self.awaited_summary is None
            and spent < self.opened.summary_cost_usd_micros
            and not (len(in_vain) == MAX_VAIN_SUMMARIES and all(in_vain))
        )

    def measure_summaries(self) -> SummaryFigures:
        """Cost of the summaries, and what they saved so far."""
        return SummaryFigures(
            made=sum(summary.used for summary in self.summaries),
            in_vain=sum(not summary.used for summary in self.summaries),
            tokens=sum(summary.tokens for summary in self.summaries),
            cost_usd_micros=sum(summary.cost_usd_micros for summary in self.summaries),
            tokens_saved=sum(saved_tokens(turn.whole_tokens, turn.memory_tokens, 1) for turn in self.turns),
        )


def fork_facts(source: SessionState, through: TurnTaken, opened: SessionOpened) -> tuple[Body, ...]:
    """Facts of a session that begins with the turns of another up to this one. Its opening comes last: before that it
    is nobody's, and a fork that was cut off goes on. What the source paid for its summaries, and saved, stays there."""
    turns = [
        turn.model_copy(
            update={"memory_tokens": turn.whole_tokens, "summary": None, "begun_summary": "", "begun_through": 0}
        )
        for turn in source.turns
        if turn.number <= through.number
    ]
    used = [row for row in source.summaries if row.used and row.task not in source.void_summaries]
    standing = [row for row in used if row.through <= through.number]
    if standing:
        summary = standing[-1].model_copy(update={"cost_usd_micros": 0, "tokens": 0})
        turns[-1] = turns[-1].model_copy(update={"summary": summary})
    facts = (fact for fact in source.facts.values() if fact.turn <= through.number)
    return (*turns, *facts, opened)
