"""The state of a session, folded from its facts."""

from bulkhead_contracts.session import FactPinned, SessionDeleted, SessionOpened, SessionSummary, TurnTaken
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.chat_sessions.state import MAX_VAIN_SUMMARIES, SessionState

ANN = RequesterClaim(tenant="demo", person="ann", role="submitter", via="api_key")
OPENED = SessionOpened(
    requester=ANN, participants=("ben",), opened_unix_ms=1, payload_sha256="0" * 64, summary_cost_usd_micros=100
)


def turn(number: int, **more: object) -> TurnTaken:
    fields = {"number": number, "task": f"t{number}", "text": "?", "person": "ann", "taken_unix_ms": number}
    return TurnTaken.model_validate(fields | more)


def folded(*bodies: object) -> SessionState:
    state = SessionState()
    for sequence, body in enumerate((OPENED, *bodies), 1):
        state.apply_body(body, sequence)  # type: ignore[arg-type]
    return state


def made(number: int, **more: object) -> SessionSummary:
    return SessionSummary.model_validate({"task": f"m{number}", "through": number, "text": "s", **more})


def test_participants_and_the_requester_take_part() -> None:
    state = folded()
    assert state.is_open_to("ann") and state.is_open_to("ben") and not state.is_open_to("eve")
    assert not SessionState().is_open_to("ann")


def test_a_summary_is_awaited_until_a_later_turn_brings_it() -> None:
    state = folded(turn(1), turn(2, begun_summary="m1", begun_through=1))
    assert state.awaited_summary is not None and not state.may_summarise and state.summary is None
    state.apply_body(turn(3, summary=made(1).model_dump()), 9)
    assert state.awaited_summary is None and state.may_summarise
    assert state.summary is not None and state.summary.through == 1 and state.sequence == 9


def test_no_summary_is_begun_without_money_or_after_several_in_vain() -> None:
    assert not folded(turn(1, summary=made(1, cost_usd_micros=100).model_dump())).may_summarise
    vain = [turn(n, summary=made(n, used=False, text="").model_dump()) for n in range(1, MAX_VAIN_SUMMARIES + 1)]
    state = folded(*vain)
    assert not state.may_summarise and state.summary is None
    assert folded(*vain[1:]).may_summarise


def test_the_figures_of_summaries() -> None:
    used, vain = made(1, tokens=50, cost_usd_micros=7), made(2, tokens=40, cost_usd_micros=5, used=False)
    state = folded(
        turn(1, summary=used.model_dump(), memory_tokens=10, whole_tokens=90),
        turn(2, summary=vain.model_dump(), memory_tokens=20, whole_tokens=100),
        turn(3, whole_tokens=110),  # A task that was submitted by itself: it was shown nothing.
    )
    figures = state.measure_summaries()
    assert (figures.made, figures.in_vain, figures.tokens, figures.cost_usd_micros) == (1, 1, 90, 12)
    assert figures.tokens_saved == 160


def test_a_pinned_fact_is_replaced_and_unpinned() -> None:
    def pin(text: str) -> FactPinned:
        return FactPinned(fact_id="a", text=text, person="ann", pinned_unix_ms=1)

    assert folded(pin("one"), pin("two")).facts["a"].text == "two"
    assert not folded(pin("one"), pin("")).facts


def test_a_session_is_deleted() -> None:
    assert folded(SessionDeleted(person="ann")).is_deleted
