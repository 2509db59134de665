"""A tenant's share of the mesh: `quota` in its row of the tenants file. Never on the wire."""

from typing import Annotated

from pydantic import Field

from bulkhead_contracts import bounds

from .types import Contract

PerMinute = Annotated[int, Field(ge=1, le=bounds.MAX_TASKS_PER_MINUTE)]
BytesPerDay = Annotated[int, Field(ge=1024 * 1024, le=bounds.MAX_BYTES_PER_DAY)]


class Quota(Contract, extra="forbid"):
    """Spikes: `tasks_per_minute` of the tenant and of each of its people, with bursts of so many at once.

    Fairness: at most `running` tasks at once, `waiting` more wait for a place, each at most `wait_s`; while the whole
    mesh is full, tenants take turns, and `weight` is how many tasks one may begin in its turn.

    Speculation: `retrievals_ahead` is for how many steps of a task the query is embedded while those before them run.

    Storage: bytes of a day that the tenant's people send with requests, and with documents (refused ones, too).
    """

    tasks_per_minute: PerMinute = 12_000
    burst_tasks: PerMinute = 4_000
    person_tasks_per_minute: PerMinute = 6_000
    person_burst_tasks: PerMinute = 2_000
    request_bytes_per_day: BytesPerDay = 64 * 1024 * 1024
    document_bytes_per_day: BytesPerDay = 512 * 1024 * 1024
    running: Annotated[int, Field(ge=0, le=bounds.MAX_RUNNING_TASKS)] = 64
    waiting: Annotated[int, Field(ge=0, le=bounds.MAX_WAITING_TASKS)] = 20_000
    wait_s: Annotated[int, Field(ge=1, le=bounds.MAX_QUEUE_WAIT_S)] = 86_400
    weight: Annotated[int, Field(ge=1, le=bounds.MAX_QUOTA_WEIGHT)] = 1
    retrievals_ahead: Annotated[int, Field(ge=0, le=bounds.MAX_RETRIEVALS_AHEAD)] = 0
