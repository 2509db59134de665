"""Which call a call is: one that asks for less than what was found empty, or says besides what changes nothing.

In: acts of one lineage. Out: the digest of the call that it comes to; and whether a call itself waited.
"""

import json
import re
from collections.abc import Sequence

from bulkhead.health.events import Act, Json
from bulkhead.health.loops.detectors import Step
from bulkhead.health.text import normalize, result_status

MAX_ASKED, MAX_ACTIONS = 16, 64
_LASTS = re.compile(r"wait|block|poll|linger|timeout", re.IGNORECASE)
_LONG_MS, _MOST = 1_000, 0.8


def differing(one: str, other: str) -> tuple[int, list[tuple[Json, Json]]] | None:
    """How many arguments two calls (JSON texts) have, and the values of those that are not the same in both; None where
    they do not have the same arguments."""
    try:
        mine, theirs = json.loads(one), json.loads(other)
    except ValueError:
        return None
    if not isinstance(mine, dict) or not isinstance(theirs, dict) or mine.keys() != theirs.keys():
        return None
    return len(mine), [(mine[key], theirs[key]) for key in mine if mine[key] != theirs[key]]


class Empty:
    """What agents of one lineage have asked for and found nothing."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[frozenset[str], int]] = {}

    def wider(self, act: Act, call: int) -> int:
        """The call that found nothing where this one, which asks for less, can find nothing either; else itself."""
        asked = normalize.narrowing(act.arguments)
        if asked is None or not result_status.reads(act.action, ""):
            return call
        known = self._known.setdefault((act.agent, act.action), {})
        if len(self._known) > MAX_ACTIONS:
            self._known.pop(next(iter(self._known)))
        for one, wider in known.items():
            if one <= asked:
                return wider
        if len(known) < MAX_ASKED:
            known[asked] = call
        return call


def plainer(act: Act, call: int, result: int, window: Sequence[Step]) -> int:
    """The call without arguments that had the same answer just before: what is said besides changed nothing."""
    for step in reversed(window):
        if not step.says and (step.action != act.action or step.result != result):
            break
        if step.text == "{}":
            return step.call
    return call


class LongCalls:
    """When each agent of one lineage did something last."""

    __slots__ = ("_last_unix_ms", "_most")

    def __init__(self, most: int) -> None:
        self._last_unix_ms: dict[str, int] = {}
        self._most = most

    def lasted(self, act: Act, least_ms: int) -> bool:
        """Whether the call itself waited, as its arguments asked it to: a long poll."""
        before = act.since_unix_ms or self._last_unix_ms.get(act.agent, 0)
        self._last_unix_ms[act.agent] = act.time_unix_ms
        if len(self._last_unix_ms) > self._most:
            self._last_unix_ms.pop(next(iter(self._last_unix_ms)))
        if act.says or not before or not isinstance(act.arguments, dict):
            return False
        for key, value in act.arguments.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and _LASTS.search(str(key)):
                asked_ms = value if str(key).lower().endswith("ms") or value >= _LONG_MS else value * 1_000
                if asked_ms >= least_ms and act.time_unix_ms - before >= _MOST * asked_ms:
                    return True
        return False
