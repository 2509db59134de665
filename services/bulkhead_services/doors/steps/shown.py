"""Delegated steps without an answer, for people who look on: which wait, and who has them.

In: hand-overs that are open at this replica. Out: `OpenStepList`, oldest first.
"""

from collections.abc import Iterable

from bulkhead_contracts.delegation import OpenStep, OpenStepList
from bulkhead_services.doors.steps.open_steps import Open

MAX_SHOWN = 200


def shown(steps: Iterable[Open], now_unix_ms: int) -> OpenStepList:
    """Those that can still be answered."""
    found = [step for one in steps if (step := _shown(one, now_unix_ms)) is not None]
    found.sort(key=lambda step: (step.asked_unix_ms, step.id))
    return OpenStepList(steps=tuple(found[:MAX_SHOWN]), more=max(0, len(found) - MAX_SHOWN))


def _shown(one: Open, now_unix_ms: int) -> OpenStep | None:
    feed, request, taken = one.feed, one.feed.request, one.feed.taken
    if request is None or feed.over or feed.deadline_unix_ms <= now_unix_ms:
        return None
    return OpenStep(
        id=feed.call_id,
        task=feed.task,
        step=request.step.id,
        role=request.delegated.role,
        identity=one.identity.name,
        holder=taken.holder if taken is not None else "",
        number=taken.number if taken is not None else 0,
        asked_unix_ms=feed.opened_unix_ms,
        taken_unix_ms=feed.taken_unix_ms,
        held_until_unix_ms=feed.held_until_unix_ms,
        deadline_unix_ms=feed.deadline_unix_ms,
    )
