"""What metrics tell: counts of what happened, gauges of what stands, and never whose it is. In a process of its own."""

import json
import subprocess
import sys

PROGRAM = """
import asyncio, json
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from bulkhead.telemetry import metrics, names
reader = InMemoryMetricReader()
metrics.setup("budget", "0", "", reader)
from tests.unit.services.budget.limits import test_ceiling_pause as parking, test_alert_list as listed
from tests.unit.bulkhead.runtime.doer import test_deferred_calls as parked

async def main():
    world = await parking.made()
    await parking.test_it_is_halted_once_and_goes_on_when_it_is_topped_up(world)
    await listed.test_the_latest_are_listed_the_newest_first_and_bounded()
    doer = parked.World()
    await doer.says(parked.TASK, active=True)
    await doer.says(parked.TENANT, active=True)
    doer.puts_off("a")
    metrics.register_gauge(names.PARKED, doer.deferred.count_waiting)
    metrics.register_gauge(names.HALTS, doer.halts.count_standing)
    metrics.register_gauge(names.BREAKERS, doer.halts.count_open_breakers)

asyncio.run(main())
found = {}
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            for point in metric.data.data_points:
                found.setdefault(metric.name, []).append([dict(point.attributes), point.value])
print(json.dumps(found))
"""


def test_what_happened_is_counted_and_what_stands_is_shown() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    account = {"bulkhead.unit": "cost_usd_micros", "bulkhead.account": "task"}
    assert found["bulkhead.budget.ceilings"] == [[account, 1]] and found["bulkhead.budget.let_go"] == [[{}, 1]]
    assert found["bulkhead.budget.top_ups"][0][1] >= 2
    assert [{}, 1] in found["bulkhead.calls.parked"]
    assert sorted(one["bulkhead.scope"] for one, _ in found["bulkhead.halts.standing"]) == ["task", "tenant"]
    assert found.get("bulkhead.breakers.open", []) == []
    alerts = found["bulkhead.budget.alerts"]
    assert {one["bulkhead.account"] for one, _ in alerts} == {"task", "mesh"}
    spent = {one["bulkhead.unit"]: value for one, value in found["bulkhead.budget.spent"]}
    assert spent["cost_usd_micros"] > 0
    said = json.dumps(found)
    assert "demo" not in said and "t1" not in said, "whose it is nobody is told"
