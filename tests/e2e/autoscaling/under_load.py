"""A load that rises tenfold and falls again: the service that is short of places scales, and it alone."""

import itertools
from pathlib import Path

import pytest

from tests.e2e.autoscaling.run import LOW_S, SCENARIOS, Record, Run


@pytest.mark.parametrize("service", sorted(SCENARIOS))
async def test_the_slow_service_alone_scales_and_nothing_is_lost(service: str, tmp_path: Path) -> None:
    record = await Run(SCENARIOS[service], tmp_path).go()
    _every_step_was_done_once(record)
    _replicas_went_up_and_then_down(record)
    others = {look["service"] for look in record.looks} - {service}
    changed = {name: counts for name in others if len(set(counts := record.replicas(name))) > 1}
    assert changed == {}
    _latency_fell_again(record)


def _every_step_was_done_once(record: Record) -> None:
    assert len(record.tasks) > 100
    assert {task["status"] for task in record.tasks} == {"succeeded"}
    assert record.counts == {task["name"]: 1 for task in record.tasks}


def _replicas_went_up_and_then_down(record: Record) -> None:
    counts = record.replicas(record.service)
    assert max(counts) >= 2 * counts[0], counts
    assert counts[-1] == counts[0], "it did not come back"
    top = counts.index(max(counts))
    up, down = counts[: top + 1], counts[top:]
    assert all(a <= b for a, b in itertools.pairwise(up)), f"it flapped on its way up: {counts}"
    assert all(a >= b for a, b in itertools.pairwise(down)), f"it flapped on its way down: {counts}"
    ready = max(look["ready"] for look in record.looks if look["service"] == record.service)
    assert ready == max(counts), "replicas that were wanted never became ready"


def _latency_fell_again(record: Record) -> None:
    begun, ended = record.high
    latest = max(task["at_s"] for task in record.tasks)
    at_first = _middle(record, begun - LOW_S, begun)
    at_last = _middle(record, latest - LOW_S, latest)
    worst = max(task["took_s"] for task in record.tasks if begun <= task["at_s"] <= ended)
    assert worst > 2 * at_first, "the load never was too much: nothing was tried"
    assert at_last < worst / 2 and at_last < 3 * at_first, (at_first, worst, at_last)


def _middle(record: Record, begin_s: float, end_s: float) -> float:
    took = sorted(task["took_s"] for task in record.tasks if begin_s <= task["at_s"] <= end_s)
    return float(took[len(took) // 2])
