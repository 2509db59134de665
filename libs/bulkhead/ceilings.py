"""What a task at a ceiling was told, once the task is over: it goes on no more, and nobody can top it up.

In: words of budget (`parked` in services/budget/reasons.py). Out: the same without what was to be done meanwhile.
"""

import re

from bulkhead_contracts.result import Failure

WAY_ON = "; it goes on where it stands; if nobody does that, it ends at its deadline"
_GIVEN_MORE = re.compile(r" An operator gives it more: .*?" + re.escape(WAY_ON), re.DOTALL)


def when_over(text: str) -> str:
    """The same of what is over: why it was held back."""
    return _GIVEN_MORE.sub("", text).replace(WAY_ON, "")


def failed(failure: Failure) -> Failure:
    """Why a task ended; its hint says what can be done now."""
    return failure.model_copy(update={"message": when_over(failure.message)})
