"""The state of a session, folded from its facts."""

from bulkhead_contracts.session import FactPinned, SessionDeleted, SessionOpened, SessionSummary, TurnTaken
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.chat_sessions.state import MAX_VAIN_SUMMARIES, SessionState, fork_facts

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


def pinned(name: str, turn: int = 0) -> FactPinned:
    return FactPinned(fact_id=name, text=name, turn=turn, person="ann", pinned_unix_ms=1)


def test_a_turn_that_is_put_in_other_words_takes_the_place_of_all_after_it() -> None:
    state = folded(turn(1), turn(2), turn(3), pinned("own"), pinned("early", 1), pinned("late", 3), turn(2, task="e2"))
    assert [row.task for row in state.turns] == ["t1", "e2"] and list(state.facts) == ["own", "early"]
    assert [row.task for row in state.replaced["e2"]] == ["t2", "t3"]
    state.apply_body(turn(2, task="f2"), 9)
    assert [row.task for row in state.replaced["f2"]] == ["t2", "t3", "e2"] and "e2" not in state.replaced
    replaced = state.find_turn("t3")
    assert replaced is not None and replaced not in state.turns, "a repeated request is still known"


def test_a_summary_of_replaced_turns_stands_for_nothing_and_is_still_paid() -> None:
    state = folded(turn(1), turn(2, summary=made(1, cost_usd_micros=9).model_dump()), turn(3), turn(1, task="e1"))
    assert state.summary is None and state.measure_summaries().cost_usd_micros == 9
    kept = folded(turn(1), turn(2, summary=made(1).model_dump()), turn(3), turn(2, task="e2"))
    assert kept.summary is not None, "it stands for a turn before"


def test_an_awaited_summary_of_replaced_turns_is_void_when_it_comes_and_counts_as_no_failure() -> None:
    state = folded(turn(1), turn(2), turn(3, begun_summary="m1", begun_through=2), turn(2, task="e2"))
    assert state.awaited_summary is not None and "m1" in state.void_summaries and not state.may_summarise
    vain = made(1, through=2, used=False, text="", cost_usd_micros=9).model_dump()
    state.apply_body(turn(3, task="e3", summary=vain), 9)
    assert state.may_summarise and state.measure_summaries().cost_usd_micros == 9


def test_a_fork_begins_with_the_turns_as_they_stand_and_is_opened_last() -> None:
    summary = made(1, cost_usd_micros=9, tokens=5).model_dump()
    source = folded(
        *(turn(1), turn(2), turn(3, summary=summary, whole_tokens=7), turn(4, begun_summary="m3", begun_through=3)),
        *(pinned("own"), pinned("late", 4), turn(2, task="e2"), turn(3, task="e3")),
    )
    facts = fork_facts(source, source.turns[1], OPENED)
    assert facts[-1] is OPENED
    fork = SessionState()
    for sequence, fact in enumerate(facts, 1):
        assert fork.opened is None
        fork.apply_body(fact, sequence)
    assert [row.task for row in fork.turns] == ["t1", "e2"] and list(fork.facts) == ["own"] and not fork.replaced
    assert fork.summary is not None and fork.summary.through == 1 and fork.awaited_summary is None
    assert (fork.measure_summaries().cost_usd_micros, fork.measure_summaries().tokens_saved) == (0, 0)
