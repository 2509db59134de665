"""`python -m tests.faults.chaos --seed 7 --seconds 300 --load 20`: everything is killed and stopped under real clients.

Progress goes to standard error, the report to standard output; the exit code is 1 where a law is broken. The folder of
a broken run stays, with the logs of every process.
"""

import argparse
import asyncio
import json
import logging
import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.chaos.run import ChaosPlan, run_chaos
from tests.faults.chaos.schedule import draw_schedule


def read_arguments() -> argparse.Namespace:
    """What the command line asks for."""
    usual = ChaosPlan(1)
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="so long blows fall")
    parser.add_argument("--grace", type=float, default=usual.grace_s, metavar="S", help="after the last blow")
    parser.add_argument("--gap", type=float, default=usual.gap_s, metavar="S", help="between blows, on average")
    parser.add_argument("--load", type=int, default=0, metavar="N", help="so many processes compute beside the mesh")
    parser.add_argument("--clients", type=int, default=usual.at_once, metavar="N", help="of each kind")
    parser.add_argument("--data", type=Path, help="folder of the mesh; it stays")
    parser.add_argument("--schedule", action="store_true", help="print the blows of the seed, and do nothing")
    parser.add_argument("--json", action="store_true", help="the report as JSON, with every request")
    return parser.parse_args()


def main() -> int:
    """Run, print, and say by the exit code whether every law holds."""
    given = read_arguments()
    if given.schedule:
        print("\n".join(map(str, draw_schedule(given.seed, given.seconds, given.gap))))
        return 0
    plan = ChaosPlan(given.seed, given.seconds, given.grace, given.gap, given.load, given.clients)
    logging.getLogger("bulkhead").setLevel(logging.ERROR)
    folder = given.data or Path(tempfile.mkdtemp(prefix="bulkhead-chaos-"))
    report = asyncio.run(run_chaos(plan, folder, lambda text: print(text, file=sys.stderr, flush=True)))
    print(json.dumps(report.as_json(), indent=1) if given.json else report.as_text())
    if report.breaches or given.data:
        print(f"logs and data: {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return int(bool(report.breaches))


if __name__ == "__main__":
    sys.exit(main())
