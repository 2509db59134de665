"""What the journal lacks of its inboxes is seen while it is read, and a purge is not taken for it."""

from bulkhead_services.budget.watch.journal_gaps import LAG_MS, Gap, JournalGaps


def begun() -> JournalGaps:
    gaps = JournalGaps()
    gaps.begin({"planner": 7, "worker": 3})
    return gaps


def test_a_number_that_is_passed_over_is_a_gap() -> None:
    gaps = begun()
    assert gaps.take("planner", 8) is None and gaps.take("worker", 4) is None
    assert gaps.take("planner", 11) == Gap("planner", 9, 10)
    assert gaps.take("planner", 11) is None and gaps.take("planner", 12) is None
    told = gaps.degraded(0)
    assert "lacks 2 message(s), the first 9 of the inbox of planner" in told


def test_what_lies_before_the_begin_may_have_been_purged() -> None:
    gaps = begun()
    assert gaps.take("planner", 2) is None and gaps.take("planner", 6) is None and gaps.take("planner", 8) is None
    gaps.forget()
    assert gaps.take("planner", 99) is None
    gaps.begin({"planner": 120})
    assert gaps.take("planner", 121) is None and not gaps.degraded(0)


def test_the_last_message_that_never_comes_is_told_after_a_while() -> None:
    gaps = begun()
    gaps.look({"planner": 8, "worker": 3}, 1_000)
    gaps.look({"planner": 9, "worker": 3}, 1_000 + LAG_MS - 1)
    assert gaps.behind(1_000 + LAG_MS - 1) == ()
    assert gaps.behind(1_000 + LAG_MS) == ("planner",) and "inbox of planner" in gaps.degraded(1_000 + LAG_MS)
    gaps.take("planner", 8)
    gaps.look({"planner": 9, "worker": 3}, 1_000 + LAG_MS)
    assert gaps.behind(1_000 + LAG_MS) == (), "it comes on, so it lags"
