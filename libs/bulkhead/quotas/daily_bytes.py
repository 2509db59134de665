"""Bytes that people leave in the broker's store, which is everybody's (ADR 0031), by day.

In: a tenant, a person, what is about to be stored. Out: the time to wait, and why. Each replica counts for itself, and
one that starts anew has counted nothing.
"""

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
        """Count so many bytes, or none. Returns the wait in ms (0: counted) and whose day is spent."""
        shares = (of_day / self._replicas, of_day / self._replicas * PERSON_SHARE)
        tenant_rate, person_rate = (Rate(share / MINUTES_PER_DAY, share) for share in shares)
        wants = (((kind, tenant), tenant_rate), ((kind, tenant, person), person_rate))
        wait_ms, index = self._buckets.take_tokens(wants, now_unix_ms, size)
        message = f"your tenant has sent as many bytes of {kind}s as its quota has for a day ({of_day})"
        if index == 1:
            message = f"you have sent half of the bytes of {kind}s that your tenant's quota has for a day ({of_day})"
        return wait_ms, message
