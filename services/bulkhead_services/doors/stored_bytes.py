"""Bytes that calls leave in the store, which is everybody's (ADR 0031), by tenant and day.

In: contents that are about to be stored. Out: nothing, or a DoorRefusal (429). A content that was
counted is not counted again; counts live in the process.
"""

import hashlib
from collections.abc import Callable, Iterable

from bulkhead.bounded_dict import BoundedDict
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.quotas.token_buckets import Rate, TokenBuckets
from bulkhead_services.doors.port import DoorRefusal

MINUTES_PER_DAY = 24 * 60
MESSAGE_BYTES = 1_024
"""What a stored message takes beside its body, about."""
MAX_COUNTED = 100_000
"""Contents that are remembered."""
RETRY_WITHIN_S = 60.0


class StoredBytes:
    """The bytes of this replica."""

    def __init__(self, quotas: TenantQuotas, clock: Callable[[], int]) -> None:
        self._quotas, self._clock, self._buckets = quotas, clock, TokenBuckets()
        self._counted = BoundedDict[tuple[str, bytes], bool](MAX_COUNTED)

    def count_contents(self, tenant: str, contents: Iterable[bytes]) -> None:
        """Count what is new, or none of it. Raises DoorRefusal."""
        sizes = {(tenant, hashlib.sha256(raw).digest()): len(raw) + MESSAGE_BYTES for raw in contents}
        new = {name: size for name, size in sizes.items() if not self._counted.get_refreshed(name)}
        if not new:
            return
        self._quotas.reload_if_changed()
        of_day = self._quotas.quota_of(tenant).request_bytes_per_day
        rate = Rate(of_day / MINUTES_PER_DAY, of_day)
        wait_ms, _ = self._buckets.take_tokens([((tenant,), rate)], self._clock(), sum(new.values()))
        if wait_ms:
            message = f"your tenant has sent as many bytes of requests as its quota has for a day ({of_day})"
            hint, wait_s = "an operator can raise request_bytes_per_day of the quota", wait_ms / 1000
            retry = wait_s <= RETRY_WITHIN_S
            raise DoorRefusal(429, "too_many_bytes", message, hint, retry=retry, retry_after_s=wait_s)
        for name in new:
            self._counted[name] = True
