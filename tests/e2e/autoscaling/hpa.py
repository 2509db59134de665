"""The arithmetic of the HorizontalPodAutoscaler of Kubernetes (autoscaling/v2), restated.

In: replicas, readings of metrics, and a clock in seconds. Out: replicas wanted. By the documentation of the algorithm
("Horizontal Pod Autoscaling": ratio, tolerance, ceiling, policies, stabilisation) and the order in which the controller
applies it; where the two leave a choice, a comment says what the controller does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SYNC_S = 15.0
"""`--horizontal-pod-autoscaler-sync-period`."""
TOLERANCE = 0.1
"""`--horizontal-pod-autoscaler-tolerance`."""
DEFAULT_WINDOW_S = {"scaleUp": 0.0, "scaleDown": 300.0}


@dataclass(frozen=True, slots=True)
class Policy:
    """So many pods, or so much per cent of what there was when the period began."""

    kind: Literal["Pods", "Percent"]
    value: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Rules:
    """One direction of `behavior`."""

    window_s: float
    policies: tuple[Policy, ...]
    select: Literal["Max", "Min", "Disabled"] = "Max"


DEFAULT_POLICIES = {
    "scaleUp": (Policy("Pods", 4, 15), Policy("Percent", 100, 15)),
    "scaleDown": (Policy("Percent", 100, 15),),
}


def rules(behavior: Mapping[str, Any], direction: Literal["scaleUp", "scaleDown"]) -> Rules:
    """One direction as the API server completes it: what is not said is the default."""
    told = behavior.get(direction, {})
    policies = tuple(Policy(row["type"], row["value"], row["periodSeconds"]) for row in told.get("policies", ()))
    window_s = float(told.get("stabilizationWindowSeconds", DEFAULT_WINDOW_S[direction]))
    return Rules(window_s, policies or DEFAULT_POLICIES[direction], told.get("selectPolicy", "Max"))


def by_total(value: float, target: float, replicas: int) -> int:
    """An external metric with a target of kind AverageValue: the total over the target, unless that is near enough."""
    if abs(1 - value / (target * replicas)) <= TOLERANCE:
        return replicas
    return math.ceil(value / target)


def by_pods(values: Sequence[float], target: float, replicas: int) -> int:
    """A resource metric with a target of kind AverageValue. values: of the ready pods; one that is not ready counts as
    idle when there would be more, so that those which just start are not doubled."""
    ratio = sum(values) / len(values) / target
    if len(values) == replicas or ratio <= 1:
        return replicas if abs(1 - ratio) <= TOLERANCE else math.ceil(ratio * len(values))
    damped = sum(values) / replicas / target
    return replicas if damped <= 1 + TOLERANCE else math.ceil(damped * replicas)


@dataclass(slots=True)
class Autoscaler:
    """One object with its memory: recommendations and events of the last periods."""

    least: int
    most: int
    up: Rules
    down: Rules
    _recommended: list[tuple[float, int]] = field(default_factory=list)
    _added: list[tuple[float, int]] = field(default_factory=list)
    _removed: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, now_s: float, replicas: int, proposals: Sequence[int | None]) -> int:
        """Replicas from now on. proposals: of each metric; None where it could not be read."""
        wanted = self._wanted(now_s, replicas, proposals)
        if wanted > replicas:
            self._added.append((now_s, wanted - replicas))
        elif wanted < replicas:
            self._removed.append((now_s, replicas - wanted))
        return wanted

    def _wanted(self, now_s: float, replicas: int, proposals: Sequence[int | None]) -> int:
        if replicas == 0:
            return 0  # Switched off: something else starts the first one.
        if not self.least <= replicas <= self.most:
            return min(max(replicas, self.least), self.most)  # At once; no policy holds it back.
        known = [one for one in proposals if one is not None]
        if not known or (len(known) < len(proposals) and max(known) < replicas):
            return replicas  # A metric that is missing may be the one that needs them.
        return self._limited(now_s, replicas, self._stable(now_s, replicas, max(known)))

    def _stable(self, now_s: float, replicas: int, wanted: int) -> int:
        """Not above the smallest recommendation of the window for growth, not below the largest of that for less."""
        recent = [*self._recommended, (now_s, wanted)]
        ceiling = min(count for at_s, count in recent if at_s > now_s - self.up.window_s or at_s == now_s)
        floor = max(count for at_s, count in recent if at_s > now_s - self.down.window_s or at_s == now_s)
        kept_s = max(self.up.window_s, self.down.window_s)
        self._recommended = [row for row in recent if row[0] > now_s - kept_s]
        return min(max(replicas, ceiling), floor)

    def _limited(self, now_s: float, replicas: int, wanted: int) -> int:
        """As far as the policies and the bounds let it."""
        if wanted > replicas:
            return min(wanted, self.most, max(replicas, self._limit(now_s, replicas, self.up, 1)))
        if wanted < replicas:
            return max(wanted, self.least, min(replicas, self._limit(now_s, replicas, self.down, -1)))
        return wanted

    def _limit(self, now_s: float, replicas: int, given: Rules, sign: int) -> int:
        if given.select == "Disabled":
            return replicas
        limits = []
        for policy in given.policies:
            began = replicas + _within(self._removed, now_s, policy) - _within(self._added, now_s, policy)
            if policy.kind == "Pods":
                limits.append(began + sign * policy.value)
            elif sign > 0:
                limits.append(math.ceil(began * (1 + policy.value / 100)))
            else:
                limits.append(int(began * (1 - policy.value / 100)))
        # The largest change: the highest limit upwards, the lowest downwards.
        return max(limits) if (given.select == "Max") == (sign > 0) else min(limits)


def _within(events: Sequence[tuple[float, int]], now_s: float, policy: Policy) -> int:
    return sum(count for at_s, count in events if at_s > now_s - policy.period_s)
