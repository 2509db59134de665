"""The circuit breaker of one replica. Pure: time comes in.

Enters: outcomes of calls. Leaves: whether the next may go there. After OPENING_FAILURES in a row it is open for a time
that doubles with each failed trial; then one call at a time is let through, until one succeeds.
"""

from dataclasses import dataclass

OPENING_FAILURES = 3
MIN_OPEN_S, MAX_OPEN_S = 2.0, 60.0


@dataclass(slots=True)
class CallBreaker:
    """Times are seconds of any steady clock."""

    failures: int = 0
    open_until_s: float = 0.0
    trial_running: bool = False

    def allows_call(self, now_s: float) -> bool:
        """True when a call may go out."""
        return self.failures < OPENING_FAILURES or (now_s >= self.open_until_s and not self.trial_running)

    def on_call_begun(self) -> None:
        """A call goes out; while the breaker is not closed, it is the one trial."""
        self.trial_running = self.failures >= OPENING_FAILURES

    def on_success(self) -> None:
        """The replica answered: closed."""
        self.failures, self.trial_running = 0, False

    def on_call_ended(self) -> None:
        """A call is over, however it ended."""
        self.trial_running = False

    def on_failure(self, now_s: float) -> None:
        """The replica gave no answer."""
        self.failures, self.trial_running = self.failures + 1, False
        if self.failures >= OPENING_FAILURES:
            self.open_until_s = now_s + min(MIN_OPEN_S * 2 ** (self.failures - OPENING_FAILURES), MAX_OPEN_S)
