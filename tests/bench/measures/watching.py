"""How fast the watcher's detectors fold a recorded journal, and how long a wait edge takes. Of one core, no broker.

In: the recorded histories of tests/replay, each as many tasks, interleaved as a journal has them; and, because few of
their messages are acts, the runs of a set of tests/health_set, in which every row is one. Out: figures.
`python -m tests.bench.measures.watching [--seconds N] [--edges N]`
"""

import argparse
import json
import random
import time
from collections.abc import Iterator

from bulkhead.bus.port import StoredMessage
from bulkhead.health.deadlock.wait_graph import WaitGraph
from bulkhead.health.deadlock.waits import Wait
from bulkhead.health.sources.journal import JournalReader
from bulkhead.health.sources.trace_rows import TraceRowReader
from bulkhead.health.watch import Watch
from bulkhead.runtime.decider.history_file import load_history
from tests.health_set import everything  # noqa: F401  (imported for the generators that it registers)
from tests.health_set.sets import TWINS
from tests.paths import HISTORIES

OVERLAPPING = 64
"""Tasks that run at once."""
MIN_MESSAGES = 20
MIN_FOLD_PER_S = 10_000
MAX_EDGE_P99_MS = 1.0


def journal(seed: int = 1) -> Iterator[StoredMessage]:
    """Messages without end: tasks of every recorded kind begin, run interleaved, and end."""
    chance = random.Random(seed)
    recorded = [load_history(path).messages for path in sorted(HISTORIES.glob("*.jsonl*"))]
    recorded = [messages for messages in recorded if len(messages) >= MIN_MESSAGES]
    assert recorded, "no recorded histories"
    running: list[tuple[str, int, tuple[StoredMessage, ...]]] = []
    count = 0
    while True:
        while len(running) < OVERLAPPING:
            count += 1
            running.append((f"bench{count}", 0, chance.choice(recorded)))
        at = chance.randrange(OVERLAPPING)
        task, done, messages = running[at]
        one = messages[done]
        subject = ".".join((*one.subject.split(".")[:5], task, one.key))
        yield StoredMessage(subject, one.headers, one.body, one.sequence, one.time_unix_ms)
        if done + 1 == len(messages):
            running[at] = running[-1]
            running.pop()
        else:
            running[at] = (task, done + 1, messages)


def fold_per_s(seconds: float, batch: int = 5_000) -> dict[str, float]:
    """Messages that are read, joined and judged per second of processor time, all detectors on."""
    watch, source, reader = Watch(), journal(), JournalReader()
    folded, spent, trips = 0, 0.0, 0
    while spent < seconds:
        messages = [next(source) for _ in range(batch)]
        begun = time.process_time()
        for one in messages:
            for event in reader.read(one.subject, one.headers, one.body, one.time_unix_ms):
                trips += len(watch.fold_event(event))
        spent += time.process_time() - begun
        folded += batch
    assert reader.unreadable == 0 and trips > 0, "nothing was judged"
    return {"fold_per_s": round(folded / spent), "folded": folded, "trips": trips, "lineages": len(watch.loops)}


def acts_per_s(seconds: float) -> dict[str, float]:
    """Acts (a call and its reply are two messages) that are judged per second of processor time, honest and looping."""
    runs, spent, acts = [rows for run in TWINS.runs() if isinstance(rows := run["rows"], list)], 0.0, 0
    while spent < seconds:
        watch, reader = Watch(), TraceRowReader()
        begun = time.process_time()
        for number, rows in enumerate(runs):
            for row in rows:
                for event in reader.read({**row, "task": str(number)}):
                    watch.fold_event(event)
            acts += len(rows)
        spent += time.process_time() - begun
    return {"acts_per_s": round(acts / spent), "acts": acts}


def edge_ms(edges: int) -> dict[str, float]:
    """Time per edge with `edges` of them open: half in long chains, half at random among the parties of 1,000 tasks."""
    chance, graph, spent = random.Random(2), WaitGraph(), []
    for number in range(edges):
        task = number % 1_000
        if number % 2:
            one, other = f"t{task}/c{number // 1_000}", f"t{task}/c{number // 1_000 + 2}"
        else:
            one, other = (f"t{task}/r{chance.randrange(400)}" for _ in range(2))
        wait = Wait(str(number), one, (other,), task=f"t{task}/{number // 1_000}")
        begun = time.process_time()
        found = graph.open_wait(wait)
        spent.append(time.process_time() - begun)
        for suspected in found:
            graph.close_wait(suspected.refused_wait)
    spent.sort()
    return {
        "edges_live": graph.count_edges(),
        "edge_p50_ms": round(spent[len(spent) // 2] * 1e3, 4),
        "edge_p99_ms": round(spent[int(len(spent) * 0.99)] * 1e3, 4),
        "edge_most_ms": round(spent[-1] * 1e3, 1),
    }


def main() -> None:
    """Measure, print one JSON document, and end with 1 when a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to fold")
    parser.add_argument("--edges", type=int, default=100_000, help="live wait edges")
    wanted = parser.parse_args()
    figures = {**fold_per_s(wanted.seconds), **acts_per_s(wanted.seconds), **edge_ms(wanted.edges)}
    print(json.dumps(figures))
    if figures["fold_per_s"] < MIN_FOLD_PER_S or figures["edge_p99_ms"] > MAX_EDGE_P99_MS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
