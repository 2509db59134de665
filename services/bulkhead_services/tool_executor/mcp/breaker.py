"""The circuit breaker of one replica. Pure: time comes in.

Enters: outcomes of calls. Leaves: whether the next may go there. After FAILURES in a row it is open for a time that
doubles with each failed trial; then one call at a time is let through, until one succeeds.
"""

from dataclasses import dataclass

FAILURES = 3
OPEN_S, MOST_OPEN_S = 2.0, 60.0


@dataclass(slots=True)
class CallBreaker:
    """Times are seconds of any steady clock."""

    failures: int = 0
    open_until_s: float = 0.0
    trial: bool = False

    def allows_call(self, now_s: float) -> bool:
        """True when a call may go out."""
        return self.failures < FAILURES or (now_s >= self.open_until_s and not self.trial)

    def on_call_begun(self) -> None:
        """A call goes out; while the breaker is not closed, it is the one trial."""
        self.trial = self.failures >= FAILURES

    def on_success(self) -> None:
        """The replica answered: closed."""
        self.failures, self.trial = 0, False

    def on_call_ended(self) -> None:
        """A call is over, however it ended."""
        self.trial = False

    def on_failure(self, now_s: float) -> None:
        """The replica gave no answer."""
        self.failures, self.trial = self.failures + 1, False
        if self.failures >= FAILURES:
            self.open_until_s = now_s + min(OPEN_S * 2 ** (self.failures - FAILURES), MOST_OPEN_S)
