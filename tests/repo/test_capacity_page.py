"""docs/how-to/capacity.md shows what the arithmetic gives, and the arithmetic goes in the direction that it must."""

import json
from dataclasses import replace

import pytest

from bulkhead_infra.capacity import (
    PlannedLoad,
    breaking_points,
    capacity_rows,
    facts_to_refold,
    render_tables,
    replicas_for,
    store_gib,
)
from bulkhead_infra.capacity.__main__ import main
from bulkhead_infra.nats.stream_sizes import SHARE_PERCENT
from bulkhead_infra.nats.streams import Layout, stream_configs
from tests.paths import ROOT

PAGE = ROOT / "docs" / "how-to" / "capacity.md"
BEGIN = "<!-- rendered by tests/repo/test_capacity_page.py: python -m bulkhead_infra.capacity -->\n"
END = "<!-- end -->"


def test_the_page_shows_the_table() -> None:
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert shown == render_tables(PlannedLoad()), (
        f"put this between the marks of {PAGE.name}:\n{render_tables(PlannedLoad())}"
    )


def test_costs_name_streams_that_exist() -> None:
    assert set(PlannedLoad().task.streams) <= {one["name"] for one in stream_configs(Layout())}


def test_more_tasks_need_more_of_everything() -> None:
    small, large = PlannedLoad(tasks_per_day=1_000_000), PlannedLoad()
    assert facts_to_refold(large) == 10 * facts_to_refold(small)
    assert all(replicas_for(large, name) > replicas_for(small, name) for name in large.task.cpu_ms if name != "signer")
    assert [what for what, _ in capacity_rows(small)] == [what for what, _ in capacity_rows(large)]
    assert breaking_points(small) == breaking_points(large), "from when on something gives way is no matter of the load"
    assert [count for _, count in breaking_points(large)] == sorted(count for _, count in breaking_points(large))


def test_a_store_of_that_size_is_not_full_before_its_tasks_are_purged() -> None:
    for tasks in (20_000, 100_000, 10_000_000):
        load = PlannedLoad(tasks_per_day=tasks)
        given = store_gib(load)
        full = min(
            count for what, count in breaking_points(replace(load, store_gib=given)) if "reaches its bound" in what
        )
        assert full >= tasks, (tasks, given, full)
        assert store_gib(PlannedLoad(tasks_per_day=tasks * 2)) > given


def test_streams_fill_at_about_the_same_time() -> None:
    """The shares follow what a task stores; otherwise most of the disk would stand empty when the first one is full."""
    stored = {name: size for name, (_, size) in PlannedLoad().task.streams.items() if size > 4_000 and name != "BLOBS"}
    days = {name: SHARE_PERCENT[name] / size for name, size in stored.items()}
    assert max(days.values()) < 2 * min(days.values()), days


def test_as_a_command(capsys) -> None:
    assert main(["--tasks-per-day", "1000000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["needs"]["tasks"].startswith("12/s") and found["gives_way_from_tasks_per_day"]
    for wrong in (["--tasks-per-day", "0"], ["--store-gib", "3"], ["--store-gib", "-1"]):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)
