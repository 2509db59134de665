"""Knobs of budget. Enters: the environment (BULKHEAD_*). Leaves: one checked value."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from bulkhead.health.thresholds import DEFAULT, Thresholds
from bulkhead.runtime.settings import ServiceSettings
from bulkhead_contracts.bounds import MAX_TASK_DEADLINE_MS, UNLIMITED
from bulkhead_contracts.types import Tag

MEMORY = "memory://"
DAY_MS = 24 * 3600 * 1000


class Settings(ServiceSettings):
    """lease_ms: what is not settled within it counts as spent in full; longer than any call may take.

    keep_days: so long after the end of the longest possible task Redis remembers a reservation. rebuild_at_start:
    read the journal also when a ledger stands that was built in the same Redis process (false makes a rolling
    restart of several replicas free of pauses). tail_grace_s: a rebuild looks again so soon when the
    follower that answers it lags. watch: read the journal and tell of loops, chatter and stalls; auto: where there is a
    Redis, which several replicas need to agree who tells. watch_halts: stop a task that loops or only chatters; false
    tells of it and stops nothing. watch_counts_s: so often the broker is asked what waits for each service, and
    who asks for it. settled_keep_minutes: so long a reservation is remembered after it was settled.
    checkpoint_s: so often one replica looks whether a checkpoint of the ledger is due: after so many messages
    (checkpoint_messages), or an hour. ceiling: what becomes of a task at its ceiling: it waits where it stands, until
    somebody raises the ceiling or its deadline is there; or it ends. mesh_day_*: what all tenants together may spend
    in a day (UTC). breaker_open_s: so long a breaker stays open at first; each time that it opens again without having
    closed, twice as long, up to ten minutes. breaker_window_s: calls of so long count together; what is usual is learnt
    over the first window. breaker_slow_s: a call that takes so long is slow. breaker_spike_calls: fewer in a window are
    no spike. stall_after_s: a task in which nothing is outstanding for so long, and that has not ended, is stalled.
    hold_above_times, hold_above_usd_micros: a call that costs more than so many times what was reserved for it, and
    more than this sum, halts its task until an operator resumes it.
    latency_targets: seconds by feature, as {"search": 30}: told when the 95th percentile of its latest tasks is above.
    """

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    redis_prefix: str = Field(default="bulkhead.budget", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    redis_timeout_s: float = Field(default=1.0, gt=0, le=10)
    redis_connections: int = Field(default=32, ge=1, le=1000)
    lease_ms: int = Field(default=600_000, ge=1000)
    keep_days: int = Field(default=3, ge=1, le=365)
    retry_after_ms: int = Field(default=100, ge=1, le=60_000)
    rebuild_at_start: bool = True
    tail_grace_s: float = Field(default=0.05, ge=0, le=10)
    watch: Literal["auto", "on", "off"] = "auto"
    watch_interval_s: float = Field(default=0.2, ge=0.01, le=10)
    watch_halts: bool = True
    watch_counts_s: float = Field(default=10.0, ge=0.5, le=60)
    breaker_open_s: float = Field(default=30.0, ge=0.1, le=600)
    breaker_window_s: float = Field(default=60.0, ge=1, le=3_600)
    breaker_slow_s: float = Field(default=60.0, ge=0.1, le=3_600)
    breaker_spike_calls: int = Field(default=200, ge=10, le=1_000_000)
    stall_after_s: float = Field(default=30.0, ge=1, le=3_600)
    latency_targets: dict[Tag, Annotated[float, Field(ge=0.1, le=604_800)]] = Field(default={}, max_length=100)
    settled_keep_minutes: int = Field(default=360, ge=1, le=14_400)
    checkpoint_s: float = Field(default=300.0, ge=0.05, le=86_400)
    checkpoint_messages: int = Field(default=20_000, ge=1)
    ceiling: Literal["wait", "end"] = "wait"
    hold_above_times: int = Field(default=10, ge=1, le=1_000_000)
    hold_above_usd_micros: int = Field(default=10_000, ge=0, le=UNLIMITED)
    mesh_day_cost_usd_micros: int = Field(default=UNLIMITED, ge=0, le=UNLIMITED)
    mesh_day_tokens: int = Field(default=UNLIMITED, ge=0, le=UNLIMITED)

    @property
    def in_memory(self) -> bool:
        """True when the ledger lives in this process."""
        return self.redis_url.get_secret_value() == MEMORY

    @property
    def watches(self) -> bool:
        """True when the journal is watched."""
        return self.watch == "on" or (self.watch == "auto" and not self.in_memory)

    @property
    def watch_thresholds(self) -> Thresholds:
        """Limits that the watcher judges by: as documented, but for what an operator may set."""
        breakers = replace(
            DEFAULT.breakers,
            open_ms=round(self.breaker_open_s * 1000),
            window_ms=round(self.breaker_window_s * 1000),
            slow_ms=round(self.breaker_slow_s * 1000),
            spike_min_calls=self.breaker_spike_calls,
        )
        return replace(
            DEFAULT, breakers=breakers, stalls=replace(DEFAULT.stalls, after_ms=round(self.stall_after_s * 1000))
        )

    @property
    def latency_targets_ms(self) -> dict[str, int]:
        """By feature."""
        return {feature: round(seconds * 1000) for feature, seconds in self.latency_targets.items()}

    @property
    def keep_ms(self) -> int:
        """A repeated id gets its first answer within the task's life, however long that is."""
        return MAX_TASK_DEADLINE_MS + self.keep_days * DAY_MS
