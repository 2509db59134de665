"""KEDA's part, restated: a ScaledObject with its triggers, formula, fallback, and the way to and from zero.

In: a ScaledObject as rendered, readings of its sources, a clock in seconds. Out: proposals for hpa.Autoscaler, and
replicas. By the documentation and the source of KEDA 2.20: the autoscaler reads a metric at each of its own syncs, from
the source; KEDA's poll only looks whether there is work, and steps between zero and one.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.e2e.autoscaling import hpa

DEFAULT_POLL_S, DEFAULT_COOLDOWN_S = 30, 300
UNITS = {"m": 0.001}


class Sources(Protocol):
    """Readings of this moment. They raise OSError or LookupError where there is none."""

    def lag(self, metadata: Mapping[str, str]) -> float:
        """`num_pending` and `num_ack_pending` of one durable, as its leader tells."""
        ...

    def load(self, metadata: Mapping[str, str]) -> float:
        """A value of each replica's /metrics, added up over those that answer."""
        ...

    def cpu(self, target: str) -> Sequence[float]:
        """Cores that each ready replica used lately."""
        ...


@dataclass(frozen=True, slots=True)
class Trigger:
    """One trigger. target: per replica."""

    kind: str
    name: str
    metadata: Mapping[str, str]
    target: float


def _trigger(row: Mapping[str, Any]) -> Trigger:
    metadata = row["metadata"]
    assert row["metricType"] == "AverageValue", f"no other kind of target is restated here: {row}"
    field_name = {"nats-jetstream": "lagThreshold", "metrics-api": "targetValue", "cpu": "value"}[row["type"]]
    return Trigger(row["type"], row.get("name", row["type"]), metadata, quantity(metadata[field_name]))


def quantity(text: str) -> float:
    """A number of Kubernetes: `600m`, `0.75`, `64`."""
    return float(text[:-1]) * UNITS[text[-1]] if text[-1] in UNITS else float(text)


def evaluated(formula: str, values: Mapping[str, float]) -> float:
    """A formula of sums, which is all that is rendered. Raises ValueError for another."""

    def value(node: ast.expr) -> float:
        match node:
            case ast.BinOp(left, ast.Add(), right):
                return value(left) + value(right)
            case ast.Name(name):
                return values[name]
        raise ValueError(f"{ast.unparse(node)} is no sum of names")

    return value(ast.parse(formula, mode="eval").body)


@dataclass(slots=True)
class ScaledObject:
    """One object with its memory. last_active_s: when it last had work; None: never while KEDA looked."""

    name: str
    spec: Mapping[str, Any]
    triggers: tuple[Trigger, ...]
    autoscaler: hpa.Autoscaler
    last_active_s: float | None = None
    _failures: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, rendered: Mapping[str, Any]) -> "ScaledObject":
        """See the module."""
        spec = rendered["spec"]
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        directions = hpa.rules(behavior, "scaleUp"), hpa.rules(behavior, "scaleDown")
        autoscaler = hpa.Autoscaler(max(1, spec["minReplicaCount"]), spec["maxReplicaCount"], *directions)
        name = spec["scaleTargetRef"]["name"]
        return cls(name, spec, tuple(map(_trigger, spec["triggers"])), autoscaler)

    @property
    def poll_s(self) -> int:
        return int(self.spec.get("pollingInterval", DEFAULT_POLL_S))

    def sync(self, now_s: float, replicas: int, sources: Sources) -> int:
        """The autoscaler's turn: replicas from now on."""
        if not replicas:
            return self.autoscaler.decide(now_s, 0, ())
        proposals = [
            None if value is None else hpa.by_total(value, target, replicas)
            for value, target in self._external(replicas, sources)
        ]
        for trigger in self.triggers:
            if trigger.kind == "cpu":
                used = sources.cpu(self.name)
                proposals.append(hpa.by_pods(used, trigger.target, replicas) if used else None)
        return self.autoscaler.decide(now_s, replicas, proposals)

    def poll(self, now_s: float, replicas: int, sources: Sources) -> int:
        """KEDA's turn: from zero to the minimum or one when there is work, to zero when there was none for long."""
        readings = [value for value, _ in self._external(replicas, sources)]
        active = any(value is not None and value > 0 for value in readings) or not readings
        failed, least = None in readings, int(self.spec["minReplicaCount"])
        if active:
            self.last_active_s = now_s
            return replicas or max(1, least)
        if failed or least or not replicas:
            return max(replicas, least)
        quiet_s = now_s - (self.last_active_s if self.last_active_s is not None else float("-inf"))
        return 0 if quiet_s > self.spec.get("cooldownPeriod", DEFAULT_COOLDOWN_S) else replicas

    def _external(self, replicas: int, sources: Sources) -> list[tuple[float | None, float]]:
        """(total, target per replica) of each metric that the autoscaler is shown; None where it cannot be had."""
        outside = [one for one in self.triggers if one.kind != "cpu"]
        found = {one.name: self._reading(one, sources) for one in outside}
        modifiers = self.spec["advanced"].get("scalingModifiers")
        if modifiers is None:
            return [(self._or_fallback(one.name, found[one.name], one.target, replicas), one.target) for one in outside]
        target = quantity(modifiers["target"])
        known = {name: value for name, value in found.items() if value is not None}
        if len(known) == len(found):
            return [(evaluated(modifiers["formula"], known), target)]
        # A formula with a part that failed too often is not evaluated: the fallback stands for the whole of it.
        worst = max((name for name in found if name not in known), key=lambda name: self._failures[name])
        return [(self._or_fallback(worst, None, target, replicas), target)]

    def _reading(self, trigger: Trigger, sources: Sources) -> float | None:
        read = sources.lag if trigger.kind == "nats-jetstream" else sources.load
        try:
            value = read(trigger.metadata)
        except (OSError, LookupError):
            self._failures[trigger.name] = self._failures.get(trigger.name, 0) + 1
            return None
        self._failures[trigger.name] = 0
        return value

    def _or_fallback(self, name: str, value: float | None, target: float, replicas: int) -> float | None:
        fallback = self.spec.get("fallback")
        if value is not None or fallback is None or self._failures[name] <= fallback["failureThreshold"]:
            return value
        assert fallback["behavior"] == "currentReplicasIfHigher", fallback
        return target * max(replicas, int(fallback["replicas"]))
