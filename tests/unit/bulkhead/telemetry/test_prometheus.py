"""What `/metrics` says, in Prometheus's words: names, labels, whole numbers, histograms."""

import json
import subprocess
import sys

import pytest

from bulkhead.telemetry import prometheus
from bulkhead.telemetry.prometheus import GaugeFamily

PROGRAM = """
from bulkhead.telemetry import metrics, names, prometheus
assert metrics.collected_metrics() is None
metrics.setup("budget", "0", "")
metrics.spent.add(123_456_789_012, {names.UNIT: "cost_usd_micros"})
metrics.tool_calls.add(1, {names.TOOL_NAME: 'odd"\\\\\\n', names.OUTCOME: "failed"})
metrics.tasks_time.record(3, {names.STATUS: "failed"})
metrics.tasks_time.record(86_401, {names.STATUS: "failed"})
metrics.register_gauge(names.DAY_SHARE, lambda: {((names.ACCOUNT, "day"),): 0.25})
print(prometheus.render_exposition([], metrics.collected_metrics()), end="")
"""


@pytest.fixture(scope="module")
def text() -> str:
    """In a process of its own: a process has one set of metrics."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_counters_gauges_and_histograms_bear_the_names_that_opentelemetry_gives_them(text: str) -> None:
    rows = text.splitlines()
    assert 'bulkhead_budget_spent_total{bulkhead_unit="cost_usd_micros"} 123456789012' in rows
    assert 'bulkhead_budget_day_share{bulkhead_account="day"} 0.25' in rows
    buckets = [row for row in rows if row.startswith("bulkhead_tasks_seconds_bucket")]
    assert buckets[0] == 'bulkhead_tasks_seconds_bucket{bulkhead_status="failed",le="1"} 0'
    assert [row.split()[-1] for row in buckets[-2:]] == ["1", "2"] and 'le="+Inf"' in buckets[-1]
    assert 'bulkhead_tasks_seconds_sum{bulkhead_status="failed"} 86404' in rows
    assert "# TYPE bulkhead_tasks_seconds histogram" in rows


@pytest.mark.needs("prometheus")
def test_prometheus_reads_it(text: str) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert not [line for line in done.stderr.splitlines() if "error" in line or "parsing" in line], done.stderr


def test_a_label_says_what_its_value_says() -> None:
    value = 'a "b" \\ c\nd'
    [_, _, row] = prometheus.render_exposition([GaugeFamily("x", "told", "kind", {value: 1})]).splitlines()
    assert json.loads(row.partition("=")[2].partition("}")[0]) == value
