"""Bytes that people leave in the broker's store, which is everybody's (ADR 0031), by day.

In: a tenant, a person, what is about to be stored. Out: the time to wait, and why. Each replica counts for itself, and
one that starts anew has counted nothing.
"""

import math

from bulkhead.quotas.token_buckets import Rate, TokenBuckets

MINUTES_PER_DAY = 24 * 60
MESSAGE_BYTES = 1_024
"""What a stored message takes beside its body, about."""
PERSON_SHARE = 0.5
"""Of a tenant's day, what one of its people may use: the others go on."""


class DailyBytes:
    """The buckets of one replica. kind: of what is stored, `request` or `document`."""

    def __init__(self, replicas: int = 1) -> None:
        self._replicas, self._buckets = replicas, TokenBuckets()

    def take_bytes(
        self, kind: str, tenant: str, person: str, size: int, of_day: int, now_unix_ms: int
    ) -> tuple[float, str]:
        """Count so many bytes, or none. Returns the wait in ms (0: counted; inf: they never fit) and the reason: whose
        day is spent, or the least quota that they fit."""
        shares = (of_day / self._replicas, of_day / self._replicas * PERSON_SHARE)
        if size > shares[1]:
            # Who sends alone has half, too: all of a day for one document could be spent by one that is refused later.
            least = math.ceil(size / PERSON_SHARE * self._replicas)
            message = (
                f"these {size} bytes are more than one person may send: {shares[1]:.0f}, half of the day's {kind}s"
            )
            message += f" of your tenant at this replica; they fit {kind}_bytes_per_day from {least} on ({of_day} now)"
            return math.inf, message
        tenant_rate, person_rate = (Rate(share / MINUTES_PER_DAY, share) for share in shares)
        wants = (((kind, tenant), tenant_rate), ((kind, tenant, person), person_rate))
        wait_ms, index = self._buckets.take_tokens(wants, now_unix_ms, size)
        message = f"your tenant has sent as many bytes of {kind}s as its quota has for a day ({of_day})"
        if index == 1:
            message = f"you have sent half of the bytes of {kind}s that your tenant's quota has for a day ({of_day})"
        return wait_ms, message
