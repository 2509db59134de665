"""The reason of a task's pause, reworded once the pause is over.

In: a text of budget (`parked` in services/bulkhead_services/budget/limits/messages.py) or of a doer about a halt
(`paused` in runtime/doer/protocol.py). Out: the same text without the advice for the pause.
"""

import re

from bulkhead_contracts.result import Failure

WAY_ON = "; it goes on where it stands; if nobody does that, it ends at its deadline"
_HALTED = re.compile(r" is halted by (.*?)\. It goes on after `bulkhead resume [^`]*`", re.DOTALL)
_GIVEN_MORE = re.compile(r" An operator gives it more: .*?" + re.escape(WAY_ON), re.DOTALL)


def when_over(text: str) -> str:
    """The same of what is over: why it was held back."""
    return _HALTED.sub(r" was halted by \1", _GIVEN_MORE.sub("", text).replace(WAY_ON, ""))


def reword_failure(failure: Failure) -> Failure:
    """Why a task ended; its hint says what can be done now."""
    return failure.model_copy(update={"message": when_over(failure.message)})
