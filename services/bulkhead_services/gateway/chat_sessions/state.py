"""The state of a session, folded from its facts. Pure.

In: messages of one session in stream order. Out: its turns, its summaries, its pinned facts, and what they saved.
"""

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
    summaries: list[SessionSummary] = field(default_factory=list)
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
                self.turns.append(body)
                if body.summary is not None:
                    self.summaries.append(body.summary)
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

    @property
    def summary(self) -> SessionSummary | None:
        """The summary that stands for the oldest turns."""
        return next((summary for summary in reversed(self.summaries) if summary.used), None)

    @property
    def awaited_summary(self) -> TurnTaken | None:
        """The turn beside which a summary began that is not there yet."""
        made_tasks = {summary.task for summary in self.summaries}
        return next((turn for turn in self.turns if turn.begun_summary and turn.begun_summary not in made_tasks), None)

    @property
    def may_summarise(self) -> bool:
        """True while none is awaited, money is left for one, and the last ones were of use."""
        assert self.opened is not None
        spent = sum(summary.cost_usd_micros for summary in self.summaries)
        in_vain = [not summary.used for summary in self.summaries[-MAX_VAIN_SUMMARIES:]]
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
