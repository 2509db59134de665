"""Limits that callers tell in headers."""

import pytest

from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.doors.http.caller import caller_of
from bulkhead_services.doors.port import DoorRefusal

CLAIM = RequesterClaim(tenant="acme", person="alice", role="submitter", via="api_key")


@pytest.mark.parametrize(("text", "micros"), [("1", 1_000_000), ("0.5", 500_000), (".25", 250_000), ("1e-3", 1_000)])
def test_a_limit_is_a_number_above_0(text: str, micros: int) -> None:
    assert caller_of({"x-bulkhead-limit-usd": text}, CLAIM, "t").limit_usd_micros == micros


@pytest.mark.parametrize("text", ["1_000", "١", "+1", "0", "-1", "1e99", "nan", "Infinity", "1 000", "1\n"])
def test_what_others_read_otherwise_is_no_limit(text: str) -> None:
    with pytest.raises(DoorRefusal, match="X-Bulkhead-Limit-Usd"):
        caller_of({"x-bulkhead-limit-usd": text}, CLAIM, "t")
