"""The pure parts: ids, positions, what live text is, what is still owed, the view of a task."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts.budget import Amount, Charge, TaskCharged
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.result import Failure, Usage
from bulkhead_contracts.subjects import check_token
from bulkhead_contracts.task import StepEnded, StepStarted, TaskAccepted, TaskEnded, TaskRejected, TaskRequested
from bulkhead_services.budget.ledger.model import MetCeiling
from bulkhead_services.budget.limits.messages import parked_text
from bulkhead_services.gateway.read_model.events import (
    MAX_OPEN_TEXTS,
    BadEventId,
    LiveStepText,
    SentText,
    StreamPosition,
    extend_live_text,
    fact_of,
    owed_final,
    owed_live,
    parse_position,
    step_key,
)
from bulkhead_services.gateway.read_model.task_view import KeyedIds, TaskView, fold_message, spent_more, whole_cost

pieces = st.lists(st.text(max_size=6), max_size=12)


def message(body, sequence=1, sender="planner"):
    head = Envelope(id=f"id{sequence}", type=body.ce_type(), source=sender, time_unix_ms=0)
    return ReceivedMessage(head, body, "acme", "t1", sender, sequence, 1_000 * sequence, 1)


def test_task_ids_are_tokens_and_tell_everything_apart():
    keyed, other = KeyedIds(b"k" * 32), KeyedIds(b"o" * 32)
    ids = {
        keyed.task_id("acme", "ada", "k"),
        keyed.task_id("acme", "adak", ""),
        keyed.task_id("acme", "ad", "ak"),
        keyed.task_id("acmeada", "", "k"),
        keyed.task_id("other", "ada", "k"),
        keyed.ingestion_id("acme", "ada", "k"),
        keyed.ingestion_id("acme", "ada", "k", "again"),
        other.task_id("acme", "ada", "k"),
    }
    assert len(ids) == 8, "who has another key computes another id"
    assert all(check_token(one) == one and len(one) == 26 for one in ids)
    assert keyed.task_id("acme", "ada", "k") == KeyedIds(b"k" * 32).task_id("acme", "ada", "k")


def test_of_a_task_that_is_over_nobody_says_any_more_that_it_can_be_topped_up():
    # In budget's own words: whoever changes them there finds out here.
    words = parked_text(MetCeiling("task:acme:t1", "tokens", 900, 0, 1_000, 500), "t1")
    assert "topup" in words and "goes on where it stands" in words
    failure = Failure(code="budget_exceeded", message=f"nobody gave it more: {words}", hint="submit it again")
    running = fold_message(TaskView(), message(TaskAccepted(deadline_unix_ms=9), 1))
    end = message(TaskEnded(status="halted", failure=failure), 2)
    view = fold_message(running, end)
    event = fact_of(end, running, view)
    assert view.failure.model_dump(mode="json") == event.data["failure"]
    assert view.failure.hint == "submit it again" and "is used up: limit" in view.failure.message
    assert "topup" not in view.failure.message and "goes on" not in view.failure.message


@given(
    st.integers(0, 2**63),
    st.integers(0, 255),
    st.dictionaries(
        st.binary(min_size=4, max_size=4),
        st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
        max_size=MAX_OPEN_TEXTS,
    ),
)
def test_a_position_survives_its_id(sequence, part, opens):
    position = StreamPosition(sequence, {key: SentText(chars, crc) for key, (chars, crc) in opens.items()}, part)
    again = parse_position(position.to_event_id())
    assert (again.sequence, again.open, again.part) == (position.sequence, position.open, position.part)


def test_a_position_is_bounded():
    position = StreamPosition(1, {step_key(str(n)): SentText(n, n) for n in range(200)})
    assert len(parse_position(position.to_event_id()).open) == MAX_OPEN_TEXTS
    assert len(position.to_event_id()) < 1024


@pytest.mark.parametrize("bad", ["", "A", "AAAA", "é", "A" * 2000, "!" * 12, StreamPosition(1).to_event_id() + "AAAA"])
def test_foreign_ids_are_told(bad):
    with pytest.raises(BadEventId):
        parse_position(bad)


@given(pieces, st.randoms(use_true_random=False))
def test_heard_text_is_always_a_beginning_whatever_is_lost_or_repeated(parts, rng):
    whole, deltas, offset = "".join(parts), [], 0
    for part in parts:
        deltas.append((offset, part))
        offset += len(part)
    heard = None
    for delta in [d for d in deltas for _ in range(rng.choice((0, 1, 1, 1, 2)))]:
        heard = extend_live_text(heard, "c1", 1, *delta, epoch=1, max_chars=10_000)
        assert heard is None or whole.startswith(heard.text)


def test_an_attempt_that_begins_again_replaces_what_was_shown():
    heard = extend_live_text(None, "c1", 1, 0, "The old", epoch=1, max_chars=99)
    heard = extend_live_text(heard, "c1", 1, 0, "The", epoch=2, max_chars=99)
    assert (heard.text, heard.epoch) == ("The old", 1), "so far it is the same"
    heard = extend_live_text(heard, "c1", 1, 3, " new", epoch=3, max_chars=99)
    assert (heard.text, heard.epoch) == ("The new", 3)
    assert extend_live_text(heard, "c2", 1, 5, "gap", epoch=4, max_chars=99) is heard
    heard = extend_live_text(heard, "c2", 1, 0, "Next", epoch=5, max_chars=99)
    assert heard.text == "Next" and extend_live_text(heard, "c1", 1, 0, "late", epoch=6, max_chars=99) is heard
    assert extend_live_text(heard, "c2", 1, 4, "x" * 200, epoch=7, max_chars=99).text == "Next" + "x" * 95


@given(pieces, st.text(max_size=30))
def test_whatever_was_sent_the_final_text_is_reached(parts, final):
    shown, sent = "", SentText()
    for part in parts:
        shown, sent = shown + part, sent.with_piece(part, 1)
    owed = owed_final(sent, final)
    if owed is not None:
        offset, piece, replace = owed
        assert replace == (offset < len(shown)) or not shown
        shown = shown[:offset] + piece
    assert shown == final


@given(st.text(max_size=20), st.text(max_size=20), st.booleans())
def test_whatever_was_sent_the_live_text_is_reached(before, live, same_epoch):
    sent = SentText().with_piece(before, 1)
    text = LiveStepText("c", 1, before + live if same_epoch else live, 1 if same_epoch else 2)
    owed = owed_live(sent, text)
    shown = before if owed is None else before[: owed[0]] + owed[1]
    assert shown == text.text


def test_views_and_facts_in_every_order():
    bodies = [
        TaskRequested(objective="x"),
        TaskAccepted(deadline_unix_ms=5),
        StepStarted(step_id="a", title="A", attempt=1, plan_version=1),
        StepEnded(step_id="a", attempt=1, plan_version=1, outcome="accepted"),
    ]
    for order in ((0, 1, 2, 3), (1, 3, 2, 0), (3, 2, 1, 0)):
        view = TaskView()
        for sequence, index in enumerate(order, 1):
            view = fold_message(view, message(bodies[index], sequence))
        assert view.status == "running" and view.steps["a"].attempts == 1
    ended = fold_message(view, message(TaskEnded(status="cancelled"), 9))
    for late in (bodies[1], bodies[2], TaskRejected(code="x", message="y"), TaskEnded(status="succeeded")):
        assert fold_message(ended, message(late, 10)).status == "cancelled"
        assert fact_of(message(late, 10), ended, fold_message(ended, message(late, 10))) is None


def test_a_rejected_message_ends_a_task_only_when_it_was_its_request():
    asked = fold_message(TaskView(), message(TaskRequested(objective="x"), 4))
    later = MessageRejected(sequence=5, code="c", reason="r", dead_letter_id="d")
    own = MessageRejected(sequence=4, code="c", reason="r", dead_letter_id="d")
    assert fold_message(asked, message(later, 6, "gateway")).status == "requested"
    after = fold_message(asked, message(own, 6, "gateway"))
    assert after.status == "rejected"
    assert fact_of(message(own, 6, "gateway"), asked, after).name == "task.rejected"


def started_task(*bodies):
    view = TaskView()
    for sequence, body in enumerate((TaskRequested(objective="x"), TaskAccepted(deadline_unix_ms=5), *bodies), 1):
        view = fold_message(view, message(body, sequence))
    return view


STARTED = StepStarted(step_id="a", title="A", attempt=1, plan_version=1)
ENDED = StepEnded(step_id="a", attempt=1, plan_version=1, outcome="accepted", usage=Usage(cost_usd_micros=7))


def test_no_step_runs_on_when_its_task_has_ended():
    ended = TaskEnded(status="cancelled", usage=Usage(cost_usd_micros=9))
    view = started_task(STARTED, ended)
    assert view.steps["a"].status == "stopped" and view.steps["a"].ended_unix_ms and spent_more(view)
    # Said with the end and stored after it.
    view = started_task(STARTED, TaskEnded(status="succeeded", usage=Usage(cost_usd_micros=9)), ENDED)
    assert (view.status, view.steps["a"].status) == ("succeeded", "accepted")
    assert (view.steps["a"].usage.cost_usd_micros, view.usage.cost_usd_micros) == (7, 9)
    assert not spent_more(view)


def test_what_a_task_that_was_cut_cost_is_exact_when_all_of_it_has_settled():
    cut = TaskEnded(status="cancelled", usage=Usage(cost_usd_micros=9))
    open_call = TaskCharged(charged=Charge(cost_usd_micros=9), held=Amount(tokens=50), settled_calls=1)
    last = TaskCharged(charged=Charge(tokens=40, cost_usd_micros=21), held=Amount(), settled_calls=2)
    held = started_task(STARTED, cut, open_call)
    assert spent_more(held) and whole_cost(held) is None
    assert held.updated_unix_ms == started_task(STARTED, cut).updated_unix_ms
    for order in ((cut, open_call, last), (open_call, last, cut), (cut, last, open_call), (cut, last, last)):
        view = started_task(STARTED, *order)
        assert whole_cost(view) == Charge(tokens=40, cost_usd_micros=21) and not spent_more(view)
        assert view.status == "cancelled"


def test_a_cost_that_may_be_more_is_told_as_such():
    late = Failure(code="deadline_exceeded", message="m")
    assert spent_more(started_task(TaskEnded(status="failed", failure=late)))
    assert spent_more(started_task(TaskEnded(status="halted")))
    assert not spent_more(started_task(STARTED, ENDED, TaskEnded(status="failed")))
    assert not spent_more(started_task(STARTED))
