"""A journal that was made again says that all that ever failed has failed just now: no breaker opens for it."""

from collections.abc import Sequence

from bulkhead.bus.port import StoredMessage
from bulkhead.health.breakers.state_machine import Phase
from bulkhead.health.thresholds import DEFAULT
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.result import Failure
from bulkhead_services.budget.watch.fold import WatchFold

NOW = 1_800_000_000_000
CALLS = 2 * DEFAULT.breakers.min_calls
HOUR_MS = 3_600_000


def phases(ended_unix_ms: Sequence[int]) -> set[Phase]:
    """Of the model's breaker, after the watch has read failed calls of these times in a journal that was made now."""
    fold = WatchFold(DEFAULT)
    fold.watch.breakers.from_unix_ms = NOW - 2 * DEFAULT.breakers.window_ms
    for number, ended in enumerate(ended_unix_ms, 1):
        body = ModelCallReplied(
            call_id=f"c{number}",
            outcome="failed",
            model="big",
            prompt_id="worker.step",
            failure=Failure(code="timeout", message="no answer"),
        )
        head = Envelope(f"m{number}", body.ce_type(), "model_gateway", ended).to_headers()
        fold.fold_message(
            StoredMessage(f"mesh.model_gateway.worker.1.acme.t{number}.-", head, body.encode(), number, NOW)
        )
    return {one.phase for key, one in fold.watch.breakers.states.items() if key[0] == "model"}


def test_what_failed_long_ago_opens_no_breaker_in_a_journal_that_was_made_again() -> None:
    assert "open" not in phases([NOW - HOUR_MS - number for number in range(CALLS)])


def test_what_fails_now_does_and_what_its_author_dates_later_fails_now() -> None:
    assert "open" in phases([NOW - 1_000] * CALLS)
    assert "open" in phases([NOW + HOUR_MS] * CALLS)
