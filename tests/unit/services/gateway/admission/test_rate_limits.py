"""Token buckets: a burst, then the rate, for whatever order the clock comes in."""

from hypothesis import given
from hypothesis import strategies as st

from bulkhead.quotas import token_buckets
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.quotas.token_buckets import Rate, TokenBuckets
from bulkhead_contracts.quota import Quota
from bulkhead_services.gateway.admission.rate_limits import SubmissionRateLimits

KEY = ("acme",)


def took(found: tuple[float, int]) -> bool:
    return found == (0.0, -1)


def test_a_burst_gets_in_then_one_per_interval():
    some, rate = TokenBuckets(), Rate(per_minute=60, burst=3)
    assert [took(some.take_tokens([(KEY, rate)], 0)) for _ in range(5)] == [True, True, True, False, False]
    assert some.take_tokens([(KEY, rate)], 0) == (1_000.0, 0)
    assert some.take_tokens([(KEY, rate)], 400) == (600.0, 0)
    assert took(some.take_tokens([(KEY, rate)], 1_000)) and not took(some.take_tokens([(KEY, rate)], 1_000))
    assert [took(some.take_tokens([(KEY, rate)], 60_000)) for _ in range(4)] == [True, True, True, False]


def test_nothing_is_taken_from_one_bucket_when_the_other_is_empty():
    some, tenant, person = TokenBuckets(), Rate(60, 5), Rate(60, 1)
    wants = [(KEY, tenant), ((*KEY, "ada"), person)]
    assert took(some.take_tokens(wants, 0))
    assert [some.take_tokens(wants, 0)[1] for _ in range(9)] == [1] * 9
    assert [took(some.take_tokens([(KEY, tenant)], 0)) for _ in range(5)] == [True] * 4 + [False]


@given(st.lists(st.integers(0, 3_000), max_size=200), st.integers(1, 600), st.integers(1, 20))
def test_never_more_than_a_burst_and_the_rate_in_any_window(gaps, per_minute, burst):
    some, rate = TokenBuckets(), Rate(per_minute, burst)
    now, taken = 0, []
    for gap in gaps:
        now += gap
        if took(some.take_tokens([(KEY, rate)], now)):
            taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - taken[first]) * per_minute / 60_000 + 1e-6


@given(st.lists(st.integers(0, 100_000), max_size=60))
def test_whoever_waits_as_long_as_he_is_told_gets_in(times):
    some, rate = TokenBuckets(), Rate(90, 2)
    for now in times:
        wait, _ = some.take_tokens([(KEY, rate)], now)
        if wait:
            assert took(some.take_tokens([(KEY, rate)], now + wait))


def test_a_clock_that_goes_back_fills_nothing():
    some, rate = TokenBuckets(), Rate(60, 1)
    assert took(some.take_tokens([(KEY, rate)], 5_000))
    assert some.take_tokens([(KEY, rate)], 3_000) == (3_000.0, 0)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(token_buckets, "MAX_KEYS", 10)
    some = TokenBuckets()
    for number in range(50):
        some.take_tokens([((str(number),), Rate(60, 1))], 0)
    assert len(some._full_at) == 10


def test_replicas_share_a_quota_and_the_person_is_told_apart_from_the_tenant(tmp_path):
    file = tmp_path / "tenants.yaml"
    file.write_text(
        "tenants: {acme: {tools: [], quota: {tasks_per_minute: 120, burst_tasks: 8, "
        "person_tasks_per_minute: 60, person_burst_tasks: 4}}}"
    )
    one = SubmissionRateLimits(TenantQuotas(file), replicas=2)
    assert [one.count_submission("http", "acme", "ada", 0) is None for _ in range(3)] == [True, True, False]
    told = one.count_submission("http", "acme", "ada", 0)
    assert (told.wait_s, told.limit) == (2, 60) and told.message.startswith("you have")
    assert [one.count_submission("http", "acme", name, 0) is None for name in "bcd"] == [True, True, False]
    assert one.count_submission("http", "acme", "d", 0).message.startswith("your tenant has")
    assert (
        one.count_submission("http", "other", "ada", 0) is None
        and one.count_submission("bus", "acme", "ada", 0) is None
    )


def test_a_tenant_fills_its_own_day_of_bytes_and_nobody_elses(tmp_path):
    file, mib = tmp_path / "tenants.yaml", 1024 * 1024
    file.write_text(f"tenants: {{acme: {{tools: [], quota: {{document_bytes_per_day: {8 * mib}}}}}}}")
    one = SubmissionRateLimits(TenantQuotas(file), replicas=2)
    people = ("ada", "ada", "bob", "cyd")
    assert [one.count_stored_bytes("document", "acme", name, 2 * mib - 1_024, 0) is None for name in people] == [
        True,
        False,
        True,
        False,
    ]
    assert one.count_stored_bytes("document", "acme", "ada", 2 * mib - 1_024, 0).message.startswith("your tenant has")
    told = one.count_stored_bytes("document", "acme", "cyd", 2 * mib - 1_024, 0)
    assert (told.wait_s, told.limit) == (12 * 3600, 8 * mib) and "document_bytes_per_day" in told.hint
    assert (
        one.count_stored_bytes("document", "other", "ada", 2 * mib, 0) is None
        and one.count_stored_bytes("request", "acme", "ada", 2 * mib, 0) is None
    )
    assert one.count_stored_bytes("document", "acme", "cyd", 2 * mib - 1_024, 12 * 3600 * 1000) is None


def test_quotas_change_while_it_runs_and_a_broken_file_changes_nothing(tmp_path):
    file = tmp_path / "tenants.yaml"
    file.write_text("tenants: {acme: {quota: {running: 3}}}")
    quotas = TenantQuotas(file)
    assert (quotas.quota_of("acme").running, quotas.quota_of("other")) == (3, Quota())
    file.write_text("tenants: {acme: {quota: {running: 12}}}")
    quotas.reload_if_changed()
    assert quotas.quota_of("acme").running == 12
    for broken in ("tenants: {acme: {quota: {running: -1}}}", "tenants: {acme: {quota: {runing: 1}}}", "- [", "x" * 9):
        file.write_text(broken)
        quotas.reload_if_changed()
        assert quotas.quota_of("acme").running == 12
    file.unlink()
    quotas.reload_if_changed()
    assert quotas.quota_of("acme").running == 12
