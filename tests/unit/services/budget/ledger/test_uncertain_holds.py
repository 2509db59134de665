"""Doubtful holds are remembered within a bound: an outage of the journal must not fill the memory."""

from typing import Any

from bulkhead_services.budget.ledger import uncertain_holds
from bulkhead_services.budget.ledger.uncertain_holds import UncertainHolds


async def test_the_oldest_doubtful_hold_is_forgotten_first(monkeypatch) -> None:
    monkeypatch.setattr(uncertain_holds, "MAX_KEYS", 2)
    nothing: Any = None
    holds = UncertainHolds(nothing, nothing, nothing, lambda: 0)
    for key in ("a", "b", "a", "c"):
        holds.add_attempt(key, nothing, key)
    assert list(holds.attempts) == ["b", "c"]
