"""Bytes that calls leave in the store, by tenant, person and day.

In: contents that are about to be stored. Out: nothing, or a DoorRefusal (413, 429). A content that was
counted is not counted again; counts live in the process.
"""

import hashlib
import math
from collections.abc import Callable, Iterable

from bulkhead.bounded_dict import BoundedDict
from bulkhead.quotas.daily_bytes import MESSAGE_BYTES, DailyBytes
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead_services.doors.port import DoorRefusal

MAX_COUNTED = 100_000
"""Contents that are remembered."""
RETRY_WITHIN_S = 60.0


class StoredBytes:
    """The bytes of this replica."""

    def __init__(self, quotas: TenantQuotas, clock: Callable[[], int]) -> None:
        self._quotas, self._clock, self._bytes = quotas, clock, DailyBytes()
        self._counted = BoundedDict[tuple[str, bytes], bool](MAX_COUNTED)

    def count_contents(self, tenant: str, person: str, contents: Iterable[bytes]) -> None:
        """Count what is new, or none of it. Raises DoorRefusal."""
        sizes = {(tenant, hashlib.sha256(raw).digest()): len(raw) + MESSAGE_BYTES for raw in contents}
        new = {name: size for name, size in sizes.items() if not self._counted.get_refreshed(name)}
        if not new:
            return
        self._quotas.reload_if_changed()
        of_day = self._quotas.quota_of(tenant).request_bytes_per_day
        size, now_ms = sum(new.values()), self._clock()
        wait_ms, message = self._bytes.take_bytes("request", tenant, person, size, of_day, now_ms)
        hint = "an operator can raise request_bytes_per_day of the quota"
        if math.isinf(wait_ms):
            raise DoorRefusal(413, "too_large", message, f"send less at once, or {hint}")
        if wait_ms:
            wait_s = wait_ms / 1000
            retry = wait_s <= RETRY_WITHIN_S
            raise DoorRefusal(429, "too_many_bytes", message, hint, retry=retry, retry_after_s=wait_s)
        for name in new:
            self._counted[name] = True
