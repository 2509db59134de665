"""Capacity for a load, from measured costs of one task: arithmetic, no I/O.

In: tasks a day, a peak factor, days of retention. Out: rows of text. The costs are of whole tasks on the whole mesh
(every service a process, the offline model, traces on, fsync before every ack), as `/jsz`, Redis and the kernel counted
them over 30 tasks one after the other; tests/bench measures at full load, where batching makes most of it cheaper.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from bulkhead_infra.nats import stream_sizes, streams
from bulkhead_infra.services import SERVICES

DAY_S = 86_400
KIB, GIB, TIB = 1024, 1024**3, 1024**4
STREAM_PER_S = 4_400
"""Acknowledged writes of one stream with an fsync each, on one server; a cluster of three that groups them: 5,000."""
ROOM = 0.6
"""Share of any limit that is used at the peak; the rest is for retries, a lost replica and a bad hour."""
REDIS_KEEP_HOURS = 6
"""How long a settled call is remembered (settings of budget); open ones and accounts are few beside them."""
CHECKPOINT_S = 300
"""services/bulkhead_services/budget/settings.py: what came since the newest checkpoint is folded again."""
REBUILD_PER_S = 10_000
"""Facts a second when the ledger is made again. An estimate: half of what is read without any work."""


@dataclass(frozen=True, slots=True)
class TaskCosts:
    """One task's costs. streams: stored messages and bytes; cpu_ms: by process, the broker among them."""

    what: str
    streams: Mapping[str, tuple[float, int]]
    cpu_ms: Mapping[str, float]
    redis_bytes: int
    model_calls: float

    @property
    def message_count(self) -> float:
        """Acknowledged writes; the journal, a copy without fsync, is left out."""
        return sum(count for count, _ in self.streams.values())

    @property
    def stored_bytes(self) -> int:
        """Bytes that are stored for as long as a task is kept."""
        return sum(size for _, size in self.streams.values())


FULL = TaskCosts(
    what="two checked steps: a write, two searches, a calculation, seven model calls",
    streams={
        "INBOX_WORKER": (11, 21_505),
        "INBOX_MODEL_GATEWAY": (7, 28_791),
        "INBOX_BUDGET": (9, 6_782),
        "INBOX_JOURNAL": (9, 9_351),
        "INBOX_GATEWAY": (5, 10_519),
        "INBOX_CHECKER": (4, 14_753),
        "INBOX_PLANNER": (3.2, 10_536),
        "INBOX_RAG": (2, 4_152),
        "INBOX_TOOL_EXECUTOR": (2, 4_205),
        "TIMERS_PLANNER": (2, 1_483),
        "BLOBS": (2, 499),
    },
    cpu_ms={
        "nats-server": 105,
        "redis": 12,
        "budget": 56,
        "model_gateway": 68,
        "gateway": 24,
        "worker": 23,
        "tool_executor": 17,
        "checker": 12,
        "planner": 11,
        "rag": 9,
        "signer": 3,
    },
    redis_bytes=8_557,
    model_calls=7,
)
"""2026-11-21, 2 busy cores. BLOBS is what repeats leave: tasks that differ store each their texts (0.5-5 KB a call).
redis_bytes was taken before accounts were packed: today it is less."""


@dataclass(frozen=True, slots=True)
class PlannedLoad:
    """Planned load. texts_bytes: of a task's own texts in BLOBS, which are never purged. store_gib: disk that
    the broker is given; 0: as it comes."""

    tasks_per_day: int = 10_000_000
    peak: float = 3.0
    retention_days: int = 8
    texts_bytes: int = 20 * KIB
    store_gib: int = 0
    task: TaskCosts = field(default=FULL)

    @property
    def peak_per_s(self) -> float:
        return self.tasks_per_day / DAY_S * self.peak


def capacity_rows(load: PlannedLoad) -> list[tuple[str, str]]:
    """Rows: what, and how much of it."""
    task, peak = load.task, load.peak_per_s
    busiest, (count, _) = max(task.streams.items(), key=lambda one: one[1][0])
    copies = 3
    disk = task.stored_bytes * load.tasks_per_day * load.retention_days
    texts = load.texts_bytes * load.tasks_per_day
    ledger, facts_to_fold = task.redis_bytes * load.tasks_per_day * REDIS_KEEP_HOURS / 24, facts_to_refold(load)
    return [
        ("tasks", f"{load.tasks_per_day / DAY_S:,.0f}/s on average, {peak:,.0f}/s at the peak (x {load.peak:g})"),
        ("model calls", f"{peak * task.model_calls:,.0f}/s at the peak: ask your provider first"),
        ("acknowledged writes", f"{peak * task.message_count:,.0f}/s at the peak ({task.message_count:.0f} a task)"),
        ("busiest stream", f"{busiest}: {peak * count:,.0f}/s, {peak * count / STREAM_PER_S:.0%} of one's fsyncs"),
        ("streams for it", f"{math.ceil(peak * count / (STREAM_PER_S * ROOM))} at {ROOM:.0%} each"),
        ("broker CPU", f"{peak * task.cpu_ms['nats-server'] / 1000:,.0f} cores for one copy, x {copies} for R{copies}"),
        *(
            (f"{name}", f"{replicas_for(load, name)} replicas ({peak * task.cpu_ms[name] / 1000:,.1f} cores)")
            for name in task.cpu_ms
            if name not in ("nats-server", "redis")
        ),
        ("disk for messages", f"{disk / TIB:,.1f} TiB for {load.retention_days} days, x {copies} for R{copies}"),
        ("disk for texts", f"{texts / GIB:,.0f} GiB a day, x {copies}; they stay"),
        ("store to give", f"--store-gib {store_gib(load)}, and texts for {load.retention_days} days are among it"),
        ("network of the broker", f"{peak * task.stored_bytes * (1 + copies) * 8 / 1e9:,.1f} Gbit/s at the peak"),
        ("Redis", f"{ledger / GIB:,.0f} GiB ({REDIS_KEEP_HOURS} hours), {peak * task.cpu_ms['redis'] / 1e3:.1f} cores"),
        (
            "ledger made again",
            f"{facts_to_fold / REBUILD_PER_S:,.0f} s for {facts_to_fold / 1e6:,.1f} million facts since a checkpoint",
        ),
    ]


def unmeasured_services(task: TaskCosts) -> list[str]:
    """Services that the figures leave out: what a task costs them was not measured. Doors and the registry have no
    part in it."""
    return [name for name in SERVICES if name not in task.cpu_ms and name not in ("doors", "registry")]


def store_gib(load: PlannedLoad) -> int:
    """Store size of each copy (`--store-gib`), so that no stream is full before its tasks are purged."""
    share = {name: stream_sizes.SHARE_PERCENT.get(name, 1) / 100 for name in load.task.streams}
    kept_tasks = load.tasks_per_day * load.retention_days
    needs = [size * kept_tasks / share[name] for name, (_, size) in load.task.streams.items() if name != "BLOBS"]
    texts = load.texts_bytes * kept_tasks / share["BLOBS"]
    return max(stream_sizes.MIN_STORE_GIB, math.ceil(max(*needs, texts) / GIB))


def replicas_for(load: PlannedLoad, service: str) -> int:
    """A process uses one core; so many keep to their share of it at the peak, and one more may go away."""
    return math.ceil(load.peak_per_s * load.task.cpu_ms[service] / 1000 / ROOM) + 1


def facts_to_refold(load: PlannedLoad) -> float:
    """Facts that budget folds when Redis is lost at the peak, beside the newest checkpoint."""
    per_task = load.task.streams["INBOX_BUDGET"][0] + load.task.streams["INBOX_JOURNAL"][0]
    return per_task * load.peak_per_s * CHECKPOINT_S


def breaking_points(load: PlannedLoad) -> list[tuple[str, int]]:
    """With the settings as they come, and `load.store_gib`: from how many tasks a day on something gives way, the first
    one first."""
    task, keep = load.task, load.retention_days
    max_bytes_of = {
        config["name"]: config["max_bytes"]
        for config in streams.stream_configs(streams.Layout(store_gib=load.store_gib))
    }
    daily_tasks_to_fill = {
        name: int(max_bytes_of[name] / size / keep) for name, (_, size) in task.streams.items() if name != "BLOBS"
    }
    fullest = min(daily_tasks_to_fill, key=lambda name: daily_tasks_to_fill[name])
    peak = DAY_S / load.peak
    busiest, (count, _) = max(task.streams.items(), key=lambda one: one[1][0])
    one_core = {name: int(1000 / cost * peak) for name, cost in task.cpu_ms.items()}
    slowest = min((name for name in one_core if name != "nats-server"), key=lambda name: one_core[name])
    rebuilt = int(300 * REBUILD_PER_S / (facts_to_refold(load) / load.tasks_per_day))
    return sorted(
        [
            (
                f"{fullest} reaches its bound of {max_bytes_of[fullest] / GIB:,.0f} GiB within {keep} days",
                daily_tasks_to_fill[fullest],
            ),
            (f"one {slowest} is one core", one_core[slowest]),
            ("the broker takes four cores", 4 * one_core["nats-server"]),
            (f"{busiest} is one stream's fsyncs", int(STREAM_PER_S / count * peak)),
            ("Redis takes 16 GiB", int(16 * GIB / task.redis_bytes * 24 / REDIS_KEEP_HOURS)),
            ("a lost ledger takes five minutes to make again", rebuilt),
        ],
        key=lambda one: one[1],
    )


def render_tables(load: PlannedLoad) -> str:
    rows = [
        "| what | for this load |",
        "| --- | --- |",
        *(f"| {need} | {amount} |" for need, amount in capacity_rows(load)),
        "",
    ]
    rows += ["| gives way | from so many tasks a day |", "| --- | --- |"]
    return "\n".join([*rows, *(f"| {limit} | {count:,} |" for limit, count in breaking_points(load))]) + "\n"
