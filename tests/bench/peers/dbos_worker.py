"""One DBOS process: durable workflows of no-op steps. It runs in the bench's own venv and imports nothing of ours.

In: orders, a JSON object per line on standard input. Out: an answer per order on standard output, and while `steps` is
set a line for every step that runs. It ends when its standard input does.
"""

import itertools
import json
import os
import sys
import threading
import time

import sqlalchemy
from dbos import DBOS, SetWorkflowID

RESULT = "x" * 64
_telling = threading.Event()
_gate = threading.Event()
_gate.set()
_mouth = threading.Lock()


def say(**row):
    """One line, in one write: lines of several threads do not mix, and a kill -9 loses none that was written."""
    with _mouth:
        os.write(1, (json.dumps(row) + "\n").encode())


@DBOS.step()
def noop(number):
    """A step: its result is checkpointed before the workflow goes on."""
    if _telling.is_set():
        say(step=number, workflow=DBOS.workflow_id, at=time.monotonic())
    return RESULT


@DBOS.workflow()
def chain(length, tell=False):
    """A chain of steps; milliseconds from each checkpoint to the next."""
    if tell:
        _telling.set()  # Also in the process that takes the workflow over.
        _gate.wait()
    at = []
    for number in range(length):
        noop(number)
        at.append(time.perf_counter())
    return [(b - a) * 1000 for a, b in itertools.pairwise(at)]


def latency(order):
    """Chains, one after the other."""
    gaps = []
    for _ in range(order["chains"]):
        gaps += chain(order["length"])
    return {"gaps_ms": gaps}


def tasks(order):
    """Whole workflows, one after the other, from the start to the result."""
    times = []
    for _ in range(order["count"]):
        began = time.perf_counter()
        chain(order["length"])
        times.append((time.perf_counter() - began) * 1000)
    return {"times_ms": times}


def load(order):
    """Many workflows at the same time; when the first began and the last ended, by the machine's clock."""
    began = time.monotonic()
    handles = [DBOS.start_workflow(chain, order["length"]) for _ in range(order["count"])]
    for handle in handles:
        handle.get_result()
    return {"began": began, "ended": time.monotonic()}


def begin(order):
    """Start named workflows and do not wait: the process is to be killed. None runs before all have begun: the first
    would have ended by then."""
    _gate.clear()
    for number in range(order["count"]):
        with SetWorkflowID(f"{order['name']}-{number}"):
            DBOS.start_workflow(chain, order["length"], True)
    _gate.set()
    return {"begun": order["count"]}


def recorded(order):
    """Steps whose result stands in the database, as [workflow, step]. DBOS numbers them from one."""
    wanted = "select workflow_uuid, function_id from dbos.operation_outputs where workflow_uuid like :name"
    with sqlalchemy.create_engine(_url()).connect() as database:
        rows = database.execute(sqlalchemy.text(wanted), {"name": f"{order['name']}-%"})
        return {"recorded": [[name, number - 1] for name, number in rows]}


ORDERS = {"latency": latency, "tasks": tasks, "load": load, "begin": begin, "recorded": recorded}


def _url():
    return os.environ["BENCH_URL"].replace("postgresql://", "postgresql+psycopg://")


def main():
    """Launch, which recovers what this executor had begun; then take orders."""
    os.sched_setaffinity(0, {int(os.environ["BENCH_CORE"])})  # One process per core, as its docs advise.
    DBOS(
        config={
            "name": "bench",
            "system_database_url": os.environ["BENCH_URL"],
            "executor_id": os.environ["BENCH_EXECUTOR"],
            "application_version": "1",
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    say(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        say(done=ORDERS[order["do"]](order))
    os._exit(0)


if __name__ == "__main__":
    main()
