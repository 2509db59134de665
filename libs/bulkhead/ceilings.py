"""What a task at a ceiling was told, once the task is over: it goes on no more, and nobody can top it up.

In: words of budget (`parked` in services/budget/reasons.py). Out: the same without what was to be done meanwhile.
"""

import re

from bulkhead_contracts.result import Failure

WAY_ON = "; it goes on where it stands; if nobody does that, it ends at its deadline"
_GIVEN_MORE = re.compile(r" An operator gives it more: .*?" + re.escape(WAY_ON), re.DOTALL)


def when_over(failure: Failure) -> Failure:
    """Why a task ended; its hint says what can be done now."""
    message = _GIVEN_MORE.sub("", failure.message).replace(WAY_ON, "")
    return failure if message == failure.message else failure.model_copy(update={"message": message})
