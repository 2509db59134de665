"""The circuit breaker of a replica."""

from bulkhead_services.tool_executor.mcp.breaker import MAX_OPEN_S, MIN_OPEN_S, OPENING_FAILURES, CallBreaker


def _open(failures: int) -> CallBreaker:
    breaker = CallBreaker()
    for _ in range(failures):
        breaker.on_failure(100.0)
    return breaker


def test_it_opens_after_failures_in_a_row_and_lets_one_trial_through() -> None:
    assert _open(OPENING_FAILURES - 1).allows_call(100.0)
    breaker = _open(OPENING_FAILURES)
    assert not breaker.allows_call(100.0 + MIN_OPEN_S - 0.1) and breaker.allows_call(100.0 + MIN_OPEN_S)
    breaker.on_call_begun()
    assert not breaker.allows_call(100.0 + MIN_OPEN_S), "one trial at a time"
    breaker.on_success()
    assert breaker.allows_call(100.0)


def test_each_failed_trial_doubles_its_time_up_to_a_bound() -> None:
    assert not _open(OPENING_FAILURES + 1).allows_call(100.0 + 2 * MIN_OPEN_S - 0.1) and _open(
        OPENING_FAILURES + 1
    ).allows_call(100.0 + 2 * MIN_OPEN_S)
    assert _open(OPENING_FAILURES + 30).allows_call(100.0 + MAX_OPEN_S)
