"""The time and the money of a run, in sums: each instant counted once, whatever ran side by side. Pure.

In: the tree of a task. Out: parts of its wall time, and what was spent, reserved and spent again.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from bulkhead_services.gateway.console.task.tree import CALLS, WAITED, TaskTree, TreeNode

WORKED = "worked"
MESH = "span"
"""No call ran, and nothing was waited for: the mesh handed work on."""
CAUSES = (WORKED, "approval", "budget", "halt", "breaker", "time", "lease", "retried", "queued")
"""What an instant counts as, where several hold: work first, then what a person can end."""
LABELS = {**WAITED, WORKED: "worked", "approval": "waited for a person", MESH: "between calls"}


@dataclass(frozen=True, slots=True)
class RunSums:
    """times: cause and milliseconds, which together are the run. retries: cost of attempts after the first, by what
    their steps keep of the attempt before."""

    times: tuple[tuple[str, int], ...]
    spent_usd_micros: int
    reserved_usd_micros: int
    retries: tuple[tuple[str, int], ...]


def sum_run(tree: TaskTree) -> RunSums:
    """Sums of all rows."""
    steps = [node for node in tree.nodes.values() if node.kind == "step"]
    retries = Counter[str]()
    for step in steps:
        retries[step.told.get("retry") or "with_feedback"] += retry_cost(step)
    plans = [tree.nodes[key] for key in tree.roots]
    return RunSums(
        times=_split_time(tree),
        spent_usd_micros=sum(plan.cost_usd_micros for plan in plans),
        reserved_usd_micros=sum(reserved_amount(node) for node in tree.nodes.values() if node.kind in CALLS),
        retries=tuple((mode, cost) for mode, cost in sorted(retries.items()) if cost),
    )


def retry_cost(step: TreeNode) -> int:
    """Cost of a step's attempts after the first."""
    return sum(call["usage"]["cost_usd_micros"] for call in step.told["calls"] if call["attempt"] > 1)


def reserved_amount(node: TreeNode) -> int:
    """The amount that was set aside for a call, or for all calls of a step, before each began."""
    calls = [node.told] if node.kind in CALLS else node.told.get("calls", ())
    return sum(call.get("reserved_usd_micros", 0) for call in calls)


def _split_time(tree: TaskTree) -> tuple[tuple[str, int], ...]:
    """The whole axis by cause, the longest first."""
    changes: list[tuple[int, str, int]] = []
    for cause, start_ms, end_ms in _spans_of(tree):
        start_ms, end_ms = max(start_ms, tree.began_unix_ms), min(end_ms, tree.until_unix_ms)
        if start_ms < end_ms:
            changes += [(start_ms, cause, 1), (end_ms, cause, -1)]
    open_causes, times, last_ms = Counter[str](), Counter[str](), tree.began_unix_ms
    for at_ms, cause, change in [*sorted(changes), (tree.until_unix_ms, MESH, 0)]:
        times[next((name for name in CAUSES if open_causes[name]), MESH)] += at_ms - last_ms
        open_causes[cause] += change
        last_ms = at_ms
    return tuple((cause, span_ms) for cause, span_ms in times.most_common() if span_ms)


def _spans_of(tree: TaskTree) -> Iterator[tuple[str, int, int]]:
    """Causes from when to when: calls but for what they waited for, and waits, except for other steps, which have
    causes of their own."""
    for node in tree.nodes.values():
        end_ms = tree.until_unix_ms if node.took_ms is None else node.began_unix_ms + node.took_ms
        works_from_ms = node.began_unix_ms
        for wait in sorted(node.waits, key=lambda wait: wait["at_unix_ms"]):
            at_ms = wait["at_unix_ms"]
            until_ms = tree.until_unix_ms if wait["took_ms"] is None else at_ms + wait["took_ms"]
            if node.kind in CALLS:
                yield WORKED, works_from_ms, at_ms
                works_from_ms = max(works_from_ms, until_ms)
            if wait["kind"] != "step":
                yield wait["kind"], at_ms, until_ms
        if node.kind in CALLS:
            yield WORKED, works_from_ms, end_ms
