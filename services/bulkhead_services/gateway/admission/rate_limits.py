"""Rate limits at this replica: submissions, a bucket per tenant and one per person; bytes to store, too.

In: the submitter, the way (HTTP or bus), the time. Out: nothing, or the wait and its explanation. HTTP (429) and the
bus (`TaskRejected`) share quotas and have separate buckets: a message counts at the time it was stored, so what
piled up while no gateway ran are no spike, and that time may lie far behind a request's.
"""

import math
from dataclasses import dataclass
from typing import Literal

from bulkhead.quotas.daily_bytes import MESSAGE_BYTES, DailyBytes
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.quotas.token_buckets import Rate, TokenBuckets
from bulkhead_contracts.quota import Quota

Stored = Literal["request", "document"]


@dataclass(frozen=True, slots=True)
class RateLimitExceeded:
    """A submission beyond the rate. wait_s: at least 1; 0 for what never fits. limit: submissions per minute."""

    wait_s: int
    limit: int
    message: str
    hint: str


class SubmissionRateLimits:
    """The buckets of this replica; rates are divided by the number of replicas."""

    def __init__(self, quotas: TenantQuotas, replicas: int) -> None:
        self._quotas, self._replicas = quotas, replicas
        self._buckets, self._bytes = TokenBuckets(), DailyBytes(replicas)

    def count_submission(
        self, channel: Literal["http", "bus"], tenant: str, person: str, now_unix_ms: int
    ) -> RateLimitExceeded | None:
        """Count one submission, or say why it must wait."""
        quota = self._quotas.quota_of(tenant)
        wants = (
            ((channel, tenant), self._replica_rate(quota.tasks_per_minute, quota.burst_tasks)),
            ((channel, tenant, person), self._replica_rate(quota.person_tasks_per_minute, quota.person_burst_tasks)),
        )
        wait_ms, which = self._buckets.take_tokens(wants, now_unix_ms)
        if which < 0:
            return None
        return _rate_exceeded(quota, max(1, math.ceil(wait_ms / 1_000)), of_person=which == 1)

    def count_stored_bytes(
        self, kind: Stored, tenant: str, person: str, size: int, now_unix_ms: int
    ) -> RateLimitExceeded | None:
        """Count what a request will leave in the broker's store, or say why it must wait."""
        of_day = getattr(self._quotas.quota_of(tenant), f"{kind}_bytes_per_day")
        wait_ms, message = self._bytes.take_bytes(kind, tenant, person, size + MESSAGE_BYTES, of_day, now_unix_ms)
        if not wait_ms:
            return None
        hint = f"an operator can raise {kind}_bytes_per_day of the quota"
        if math.isinf(wait_ms):
            return RateLimitExceeded(0, of_day, message, f"send less at once, or {hint}")
        wait_s = max(1, math.ceil(wait_ms / 1_000))
        return RateLimitExceeded(wait_s, of_day, message, f"send it again in {wait_s} s, with the same key; {hint}")

    def _replica_rate(self, per_minute: int, burst: int) -> Rate:
        return Rate(per_minute / self._replicas, max(1.0, burst / self._replicas))


def _rate_exceeded(quota: Quota, wait_s: int, *, of_person: bool) -> RateLimitExceeded:
    limit = quota.person_tasks_per_minute if of_person else quota.tasks_per_minute
    burst = quota.person_burst_tasks if of_person else quota.burst_tasks
    whose = "you have" if of_person else "your tenant has"
    return RateLimitExceeded(
        wait_s,
        limit,
        f"{whose} submitted more than {limit} tasks per minute ({burst} at once)",
        f"submit it again in {wait_s} s, with the same key; what is submitted evenly all gets in, and an "
        "operator can raise the tenant's quota",
    )
