"""`python -m bulkhead_infra.capacity`: the needs of a number of tasks a day. Exit codes: 0, 2 wrong usage."""

import argparse
import json
import sys
from collections.abc import Sequence

from bulkhead_infra.capacity import PlannedLoad, breaking_points, capacity_rows, render_tables, unmeasured_services
from bulkhead_infra.nats.stream_sizes import StoreTooSmall, stream_bounds


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bulkhead_infra.capacity", description="What so many tasks a day need."
    )
    parser.add_argument("--tasks-per-day", type=int, default=10_000_000, metavar="N")
    parser.add_argument("--peak", type=float, default=3.0, metavar="X", help="peak over average (3)")
    parser.add_argument("--retention", type=int, default=8, metavar="DAYS", help="ended tasks are kept so long (8)")
    parser.add_argument("--store-gib", type=int, default=0, metavar="N", help="disk that the broker is given")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args(argv)
    if options.tasks_per_day < 1 or options.peak < 1 or options.retention < 1:
        parser.error("tasks, peak and retention are 1 or more")
    try:
        stream_bounds([], options.store_gib)
    except StoreTooSmall as error:
        parser.error(str(error))
    load = PlannedLoad(options.tasks_per_day, options.peak, options.retention, store_gib=options.store_gib)
    for name in unmeasured_services(load.task):
        print(
            f"{name} is left out: measure its CPU per task and add it to bulkhead_infra.capacity.FULL.cpu_ms",
            file=sys.stderr,
        )
    if options.json:
        print(
            json.dumps(
                {"needs": dict(capacity_rows(load)), "gives_way_from_tasks_per_day": dict(breaking_points(load))}
            )
        )
    else:
        print(render_tables(load), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
