"""What comes between a token and a login: nobody to ask, keys that change, floods, a broker that does not encrypt."""

import asyncio
import json
import re
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import BusUnavailable
from bulkhead_infra.identity import keys
from bulkhead_infra.nats.purge import DEFAULT_RETENTION_S, Retention, purge
from tests.eventually import until
from tests.integration.identity.world import World, running, signed

pytestmark = pytest.mark.nightly

FLOOD, AT_ONCE = 600, 60


@pytest.fixture
async def world(tmp_path):
    async with running(tmp_path) as found:
        yield found


def _file(world: World, service: str, lasts_s: float = 600):
    path = world.folder / f"{service}.token"
    path.write_text(world.issuer.token(service, lasts_s))
    return path


async def test_the_broker_ends_a_connection_with_its_token_and_takes_the_token_no_more(world: World):
    token, errors = world.issuer.token("worker", 4), []

    async def note(error: Exception) -> None:
        errors.append(str(error))

    client = await world.connect(token, error_cb=note)
    # A copy of the token, as a thief would have it, is good for as long as the token, and not for longer.
    async with world.client(token):
        await until(lambda: client.is_closed, timeout_s=10)
    assert await world.refused(token)
    await until(lambda: "token_expired" in world.broker_log())


async def test_a_key_that_is_added_counts_and_one_that_is_taken_out_does_not(world: World):
    before = world.issuer.token("worker")
    await asyncio.sleep(5.1)  # A set that was just read is not read again.
    world.issuer.add("second", ec.generate_private_key(ec.SECP256R1()), alone=True)
    async with world.client(world.issuer.token("worker")) as client:
        assert client.is_connected
    assert await world.refused(before)
    await until(lambda: "unknown_key" in world.broker_log())


async def test_nobody_to_ask_at_start_is_said_and_then_found(world: World, caplog):
    await world.stop()
    path = _file(world, "worker")
    with pytest.raises(BusUnavailable, match=rf"refused the token in {re.escape(str(path))}: the log of the identity"):
        await JetStreamBus.connect(world.url, service="worker", token_file=path, timeout_s=7)
    assert "token_refused" in [record.message for record in caplog.records]
    opening = asyncio.create_task(JetStreamBus.connect(world.url, service="worker", token_file=path, timeout_s=60))
    await world.start()
    bus = await asyncio.wait_for(opening, 30)
    assert await bus.is_ready()
    await bus.close()


async def test_nobody_to_ask_while_running_stops_new_logins_alone(world: World):
    async with world.client(world.issuer.token("worker")) as client:
        await world.stop(kill=True)
        assert "Authorization Violation" in await world.raw_login({"auth_token": world.issuer.token("budget")})
        await client.flush(5)
        assert client.is_connected
        await world.start()
        async with world.client(world.issuer.token("budget"), "budget") as other:
            assert other.is_connected


async def test_a_token_file_that_is_missing_says_what_to_do(world: World):
    with pytest.raises(BusUnavailable, match=r"none\.token cannot be read: No such file.*mount the projected"):
        await JetStreamBus.connect(world.url, service="worker", token_file=world.folder / "none.token")


async def test_replicas_share_the_questions_and_one_that_is_killed_is_not_missed(world: World):
    await world.start(1)
    for number in range(20):
        async with world.client(world.issuer.token("worker"), name=f"n-{number}"):
            pass
    told = [world.log(number).read_text().count("login_granted") for number in (0, 1)]
    assert min(told) > 0 and sum(told) == 20
    await world.stop(1, kill=True)
    for _ in range(5):
        async with world.client(world.issuer.token("worker")):
            pass


async def test_a_flood_of_bad_tokens_keeps_nobody_out_and_fills_nothing(world: World):
    """Each names another unknown key, from one address: as bad for the key set as it can be."""
    one_by_one = asyncio.Semaphore(AT_ONCE)
    key = ec.generate_private_key(ec.SECP256R1())
    tokens = [signed(world.issuer.claims("worker"), key, f"unknown-{number}") for number in range(FLOOD // 2)]
    tokens += [world.issuer.token("stranger", jti=str(number)) for number in range(FLOOD // 2)]
    facts_before = len(await world.facts())

    async def attack(token: str) -> None:
        async with one_by_one:
            assert "PONG" not in await world.raw_login({"auth_token": token})

    began = time.monotonic()
    flood = asyncio.gather(*map(attack, tokens))
    slowest_s = 0.0
    while not flood.done():
        asked = time.monotonic()
        async with world.client(world.issuer.token("worker")):
            slowest_s = max(slowest_s, time.monotonic() - asked)
        await asyncio.sleep(0.05)
    await flood
    assert slowest_s < 4, slowest_s
    took_s = time.monotonic() - began
    refusals = await until(lambda: _counted(world, FLOOD), "every refusal is counted", timeout_s=30, every_s=1.0)
    assert len(refusals) <= 2 * 2 * (took_s / 10 + 2), "two kinds, told at once and as a count, in each ten seconds"
    assert len(await world.facts()) - facts_before < FLOOD
    assert (await world.status())["ready"]


async def _counted(world: World, wanted: int):
    found = [one for one in await world.facts() if not one["granted"]]
    return found if sum(one["count"] for one in found) >= wanted else None


async def test_a_grant_is_a_fact_with_who_where_and_until_when(world: World):
    claims = world.issuer.claims("model_gateway", jti="token-7")
    async with world.client(world.issuer.token("model_gateway", **claims), "model_gateway", name="model_gateway-0"):
        pass
    [fact] = await until(lambda: _granted(world), timeout_s=10, every_s=0.2)
    assert fact["service"] == "model_gateway" and fact["account"] == "SVC_MODEL_GATEWAY"
    assert fact["subject"] == "system:serviceaccount:bulkhead:model-gateway" and fact["token_id"] == "token-7"
    assert fact["pod"] == "model-gateway-x1" and fact["client"] == "model_gateway-0" and fact["host"] == "127.0.0.1"
    assert fact["expires_unix_ms"] == claims["exp"] * 1000 and fact["broker"] == "bulkhead"


async def _granted(world: World):
    return [one for one in await world.facts() if one["granted"]]


async def test_facts_about_logins_go_after_their_retention(world: World):
    for _ in range(3):
        async with world.client(world.issuer.token("worker")):
            pass
    await until(lambda: _several(world, 3), timeout_s=10, every_s=0.2)
    retention, now = Retention(), time.time_ns() // 1_000_000
    await purge(world.url, world.seed, retention, now_unix_ms=now + (DEFAULT_RETENTION_S - 60) * 1000)
    assert len(await world.facts()) == 3
    removed = await purge(world.url, world.seed, retention, now_unix_ms=now + (DEFAULT_RETENTION_S + 60) * 1000)
    assert removed.messages == {"INBOX_JOURNAL": 2, "JOURNAL": 2}
    assert len(await world.facts()) == 1


async def _several(world: World, count: int):
    return len(await world.facts()) == count


async def test_a_broker_that_does_not_encrypt_is_told_so(tmp_path):
    async with running(tmp_path, change=lambda text: re.sub(r"\n    xkey: \w+", "", text)) as world:
        assert await world.refused(world.issuer.token("worker"))
        said = "not_encrypted: the broker sent the token in the clear; set `xkey`"
        await until(lambda: said in world.broker_log(), said)


async def test_a_broker_that_encrypts_for_another_gets_no_answer(tmp_path):
    keys.ensure_keys(tmp_path / "other", keys_policy())
    _, other = keys.login_keys(tmp_path / "other")
    async with running(tmp_path, change=lambda text: re.sub(r"(\n    xkey: )\w+", rf"\g<1>{other}", text)) as world:
        assert await world.refused(world.issuer.token("worker"))
        await until(lambda: "question_unreadable" in world.log().read_text())


def keys_policy():
    from bulkhead_infra.identity import policy

    return policy.load_policy(kubernetes=True)


async def test_another_issuers_answer_counts_for_nothing(tmp_path):
    """Who has the callout's nkey but not the issuer's key lets nobody in."""
    async with running(tmp_path, replicas=0) as world:
        keys.ensure_keys(tmp_path / "other", keys_policy())
        (world.identity / "identity.issuer").write_text((tmp_path / "other" / "identity.issuer").read_text())
        await world.start()
        assert await world.refused(world.issuer.token("worker"))
        await until(lambda: "wrong issuer for auth callout response" in world.broker_log().lower())


async def test_wrong_settings_and_files_end_the_start_with_what_to_do(tmp_path):
    async with running(tmp_path, replicas=0) as world:
        rows = json.loads((world.identity / "permissions.json").read_text())
        rows["services"]["worker"]["publish"] = []
        (tmp_path / "empty.json").write_text(json.dumps(rows))
        for settings, said in {
            ("TOKEN_ISSUER", ""): "BULKHEAD_TOKEN_ISSUER is required",
            ("KEY_SET_URL", "https://x.invalid"): "set one of BULKHEAD_KEY_SET_URL and BULKHEAD_KEY_SET_FILE",
            ("PERMISSIONS_FILE", str(tmp_path / "empty.json")): "permissions file: services.worker.publish",
            ("PERMISSIONS_FILE", str(tmp_path / "none.json")): "none.json cannot be read: No such file",
        }.items():
            await world.start(wait=False, **{settings[0]: settings[1]})
            assert await asyncio.wait_for(world.replicas[0].wait(), 20) == 2
            assert said in world.log().read_text()
