"""Sessions and their turns as people see them. Pure.

In: the state of a session, a turn with its task. Out: documents of the API.
"""

from collections.abc import Sequence

from bulkhead.gateway_api.sessions import (
    MAX_REPLACED_CHARS,
    MAX_REPLACED_TURNS,
    ReplacedTurn,
    SessionSummaryRow,
    TurnDocument,
)
from bulkhead.text.plain_text import cut_line
from bulkhead_contracts import bounds
from bulkhead_contracts.session import TurnTaken
from bulkhead_services.gateway.chat_sessions.state import SessionState
from bulkhead_services.gateway.read_model.feeds import InboxFeed


def describe_turn(turn: TurnTaken, feed: InboxFeed, answer: str, replaced: Sequence[TurnTaken]) -> TurnDocument:
    """A turn as people see it."""
    view = feed.view
    url = f"/v1/tasks/{turn.task}"
    return TurnDocument(
        number=turn.number,
        task_id=turn.task,
        person=turn.person,
        text=turn.text,
        taken_unix_ms=turn.taken_unix_ms,
        status=view.status,
        answer=answer or None,
        standing=view.result.standing if view.result is not None else None,
        failure=view.failure.message if view.failure is not None else "",
        tokens=view.usage.input_tokens + view.usage.output_tokens,
        cost_usd_micros=view.usage.cost_usd_micros,
        memory_tokens=turn.memory_tokens,
        whole_tokens=turn.whole_tokens,
        replaced=tuple(
            ReplacedTurn(
                number=earlier.number,
                task_id=earlier.task,
                person=earlier.person,
                text=cut_line(earlier.text, MAX_REPLACED_CHARS),
                taken_unix_ms=earlier.taken_unix_ms,
            )
            for earlier in replaced[-MAX_REPLACED_TURNS:]
        ),
        status_url=url,
        events_url=f"{url}/events",
    )


def describe_row(session: str, state: SessionState) -> SessionSummaryRow:
    """A session in a list."""
    opened = state.opened
    assert opened is not None
    return SessionSummaryRow(
        session_id=session,
        title=title_of(state),
        person=opened.requester.person,
        opened_unix_ms=opened.opened_unix_ms,
        turn_count=len(state.turns),
        changed_unix_ms=max(
            [opened.opened_unix_ms]
            + [turn.taken_unix_ms for turn in state.turns[-1:]]
            + [fact.pinned_unix_ms for fact in state.facts.values()]
        ),
    )


def title_of(state: SessionState) -> str:
    """The title of a session, or the beginning of its first turn; "" where it has neither."""
    title = state.opened.title if state.opened is not None else ""
    return title or (state.turns[0].text[: bounds.MAX_TITLE_CHARS] if state.turns else "")
