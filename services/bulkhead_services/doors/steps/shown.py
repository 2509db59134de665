"""Delegated steps without an answer, for people who look on: which wait, and who has them.

In: hand-overs that are open at this replica. Out: `OpenStepList`, oldest first.
"""

from collections.abc import Iterable

from bulkhead_contracts.delegation import OpenStep, OpenStepList
from bulkhead_services.doors.steps.open_steps import OpenHandOver

MAX_SHOWN = 200


def open_step_list(steps: Iterable[OpenHandOver], now_unix_ms: int) -> OpenStepList:
    """Those that can still be answered."""
    listed = [step for handover in steps if (step := _open_step(handover, now_unix_ms)) is not None]
    listed.sort(key=lambda step: (step.asked_unix_ms, step.id))
    return OpenStepList(steps=tuple(listed[:MAX_SHOWN]), more=max(0, len(listed) - MAX_SHOWN))


def _open_step(one: OpenHandOver, now_unix_ms: int) -> OpenStep | None:
    feed, request, taking = one.feed, one.feed.request, one.feed.taken
    if request is None or feed.is_over or feed.deadline_unix_ms <= now_unix_ms:
        return None
    return OpenStep(
        id=feed.call_id,
        task=feed.task,
        step=request.step.id,
        role=request.delegated.role,
        identity=one.identity.name,
        holder=taking.holder if taking is not None else "",
        number=taking.number if taking is not None else 0,
        asked_unix_ms=feed.opened_unix_ms,
        taken_unix_ms=feed.taken_unix_ms,
        held_until_unix_ms=feed.held_until_unix_ms,
        deadline_unix_ms=feed.deadline_unix_ms,
    )
