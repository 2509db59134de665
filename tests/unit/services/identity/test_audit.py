"""Facts about logins: each grant, and refusals as bounded counts that lose nobody."""

import asyncio
from dataclasses import replace

from bulkhead.bus.port import BusUnavailable
from bulkhead_contracts.identity import LoginDecided
from bulkhead_services.identity import audit
from bulkhead_services.identity.audit import LoginAudit
from bulkhead_services.identity.core import LoginAdmission, LoginQuestion, LoginRefusal, ServicePermissions, TokenClaims

CLAIMS = TokenClaims("system:serviceaccount:bulkhead:worker", 1, 2_000)
MAY = ServicePermissions(account="SVC_WORKER", service_account="worker", publish=("a",), subscribe=("b",))


class Publisher:
    """Stores facts by index, as the broker does by message id."""

    def __init__(self) -> None:
        self.stored: dict[str, LoginDecided] = {}
        self.away = 0

    async def send(self, to: str, body: LoginDecided, *, tenant: str, task: str, index: str) -> None:
        assert (to, tenant, task) == ("journal", "_", "logins")
        if self.away:
            self.away -= 1
            self.stored[index] = body  # Stored, and the ack lost.
            raise BusUnavailable("away")
        assert self.stored.setdefault(index, body) == body
        await asyncio.sleep(0)

    @property
    def refused(self) -> list[LoginDecided]:
        return [one for one in self.stored.values() if not one.granted]


async def _run(publisher: Publisher, work, monkeypatch, **settings: float) -> LoginAudit:
    for name, value in {"RETRY_S": 0.01, **settings}.items():
        monkeypatch.setattr(audit, name, value)
    found = LoginAudit(publisher, lambda: 7)
    running = asyncio.create_task(found.run())
    await work(found)
    await found.wait_until_stored()
    running.cancel()
    return found


def _grant(found: LoginAudit, token_id: str = "", host: str = "10.0.0.1", client: str = "worker-0") -> None:
    claims = replace(CLAIMS, token_id=token_id)
    found.record_granted(LoginAdmission("worker", MAY, claims), LoginQuestion("N", "U", host=host, client=client))


def _refuse(found: LoginAudit, code: str = "bad_signature", host: str = "10.0.0.1") -> None:
    found.record_refused(LoginRefusal(code, "why", "what to do"), LoginQuestion("N", "U", host=host))


async def test_each_grant_is_stored_once_also_when_the_broker_is_away(monkeypatch):
    publisher = Publisher()
    publisher.away = 3

    async def work(found: LoginAudit) -> None:
        for number in range(5):
            _grant(found, f"t-{number}", client=f"worker-{number}")

    await _run(publisher, work, monkeypatch)
    assert [one.client for one in publisher.stored.values()] == [f"worker-{number}" for number in range(5)]
    assert all(one.granted and one.expires_unix_ms == 2_000_000 for one in publisher.stored.values())


async def test_refusals_of_a_kind_are_told_once_and_then_counted(monkeypatch):
    publisher = Publisher()

    async def work(found: LoginAudit) -> None:
        for _ in range(1_000):
            _refuse(found)
        _refuse(found, "token_expired")

    await _run(publisher, work, monkeypatch)
    assert sorted((one.code, one.count) for one in publisher.refused) == [
        ("bad_signature", 1),
        ("bad_signature", 999),
        ("token_expired", 1),
    ]


async def test_the_count_comes_at_the_end_of_the_window_by_itself(monkeypatch):
    publisher = Publisher()

    async def work(found: LoginAudit) -> None:
        _refuse(found)
        _refuse(found)
        async with asyncio.timeout(5):
            while len(publisher.refused) < 2:
                await asyncio.sleep(0.01)

    await _run(publisher, work, monkeypatch, WINDOW_S=0.1)
    assert [one.count for one in publisher.refused] == [1, 1]


async def test_many_kinds_make_few_facts_and_none_is_uncounted(monkeypatch):
    publisher = Publisher()

    async def work(found: LoginAudit) -> None:
        for number in range(5_000):
            _refuse(found, host=f"10.0.{number % 250}.{number // 250}")

    await _run(publisher, work, monkeypatch)
    assert len(publisher.refused) <= 2 * (audit.MAX_KINDS + 1)
    assert sum(one.count for one in publisher.refused) == 5_000


async def test_what_does_not_fit_is_said(monkeypatch):
    publisher = Publisher()
    publisher.away = 10**9

    async def work(found: LoginAudit) -> None:
        for number in range(12):
            _grant(found, f"t-{number}")

    found = await _run(publisher, work, monkeypatch, MAX_WAITING=10, SETTLE_S=0.05)
    assert found.waiting_facts == 10 and found.lost_count == 2


async def test_one_token_that_logs_in_again_and_again_is_counted(monkeypatch):
    publisher = Publisher()

    async def work(found: LoginAudit) -> None:
        for number in range(1_000):
            _grant(found, "t-1", client=f"worker-{number}")
        _grant(found, "t-2")
        _grant(found, "t-1", host="10.0.0.2")

    await _run(publisher, work, monkeypatch)
    assert sorted((one.token_id, one.host, one.count) for one in publisher.stored.values()) == [
        ("t-1", "10.0.0.1", 1),
        ("t-1", "10.0.0.1", 999),
        ("t-1", "10.0.0.2", 1),
        ("t-2", "10.0.0.1", 1),
    ]
    assert all(one.granted and one.service == "worker" and one.since_unix_ms for one in publisher.stored.values())


async def test_more_tokens_than_are_told_apart_are_facts_each(monkeypatch):
    publisher = Publisher()

    async def work(found: LoginAudit) -> None:
        for number in range(20):
            _grant(found, f"t-{number % 10}")

    await _run(publisher, work, monkeypatch, MAX_GRANTS=5)
    assert sum(one.count for one in publisher.stored.values()) == 20
    assert len(publisher.stored) == 5 + 5 + 10


async def test_what_was_dropped_is_a_fact_when_there_is_room_again(monkeypatch):
    publisher = Publisher()
    publisher.away = 3

    async def work(found: LoginAudit) -> None:
        for number in range(14):
            _grant(found, f"t-{number}")
        assert found.lost_count == 4

    found = await _run(publisher, work, monkeypatch, MAX_WAITING=10)
    assert found.lost_count == 0 and found.waiting_facts == 0
    assert sum(one.count for one in publisher.stored.values()) == 14
    [lost] = publisher.refused
    assert (lost.code, lost.count) == ("facts_lost", 4) and "journal" in lost.reason


async def test_refusals_make_no_more_facts_than_is_said(monkeypatch):
    """At the turn of a window the counts of the one before come, too."""
    publisher = Publisher()

    async def work(found: LoginAudit) -> None:
        for turn in range(2):
            found._began = float("-inf")
            before = found.waiting_facts
            for number in range(500):
                _refuse(found, host=f"10.{turn}.{number % 250}.1")
            assert found.waiting_facts - before <= 2 * (audit.MAX_KINDS + 1)

    await _run(publisher, work, monkeypatch)
    assert sum(one.count for one in publisher.refused) == 1_000
