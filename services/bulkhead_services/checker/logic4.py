"""Decision logic 4 of the checker: as before; a judge's call that somebody halted waits for as long as that lasts.

In and out: as before.
"""

from bulkhead.flow import Decision, Message, SetTimer
from bulkhead_contracts.control import CallDeferred
from bulkhead_services.checker.core import Checker
from bulkhead_services.checker.state import State


class CheckerV4(Checker):
    """Decision logic, version 4."""

    def decide(self, state: State, message: Message) -> Decision[State]:
        """As before, but no cap ends a pause."""
        body = message.body
        if not isinstance(body, CallDeferred) or not body.paused:
            return super().decide(state, message)
        if state.judging(body.call_id) is None:
            return Decision(state)
        return Decision(state, (SetTimer(f"again-{body.call_id}", message.time_unix_ms + body.after_ms),))
