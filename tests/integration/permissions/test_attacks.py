"""Attacks that worked on other layouts (FACTS), each tried with a stolen key on the real one.

A test counts what lies in the streams before and after: an attack that is answered with an error but leaves a trace
has worked.
"""

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from bulkhead.bus.port import StoredMessage
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.errors import Unreadable
from bulkhead_contracts import envelope, subjects
from tests.integration.permissions import expected
from tests.integration.permissions.broker import Broker, Client, running

SCHEDULES_OFF, ROLLUPS_OFF, TTL_OFF, TARGET_ELSEWHERE = 10188, 10111, 10166, 10190
FORGED = "mesh.budget.planner.3.demo.t.-"
GET_ALL = b'{"seq": 1, "next_by_subj": ">", "batch": 10}'


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[False, True], ids=["nkeys", "tokens"])
async def broker(request, tmp_path_factory):
    async with running(tmp_path_factory.mktemp("broker"), tokens=request.param) as found:
        yield found


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def clients(broker: Broker):
    async with AsyncExitStack() as open_clients:
        found = {}
        for identity in expected.IDENTITIES:
            found[identity] = await open_clients.enter_async_context(broker.client(identity))
        yield found


async def _filled(clients: dict[str, Client], task: str) -> str:
    """One real message in the worker's inbox; its subject."""
    subject = subjects.mesh_subject("planner", "worker", "demo", task)
    assert "error" not in await clients["planner"].store(subject, b'{"real": true}')
    return subject


async def test_a_chosen_reply_subject_makes_nobody_a_deputy(broker, clients):
    subject = await _filled(clients, "deputy")
    assert "error" not in await clients["worker"].store("blob.worker.demo." + "1" * 64, b"{}")
    before = await _kept(broker)
    thief = clients["worker"]
    targets = [
        "$JS.API.STREAM.DELETE.INBOX_PLANNER",
        "$JS.API.STREAM.PURGE.INBOX_WORKER",
        "$JS.API.STREAM.PURGE.BLOBS",
        "$JS.API.STREAM.MSG.DELETE.INBOX_WORKER",
        "$JS.API.CONSUMER.DELETE.INBOX_PLANNER.planner-0",
        "JSMESH.API.STREAM.DELETE.INBOX_PLANNER",
        subject,
        subjects.mesh_subject("gateway", "planner", "demo", "deputy"),
        subjects.mesh_subject("pub_demo", "gateway", "demo", "deputy"),
        "$KV.CONTROL.task.deputy",
        "dead.planner.3.demo.t",
        "_INBOX_planner.stolen",
        "rpc.gateway.signer.3.demo.t",
    ]
    requests = {
        "JSMESH.API.DIRECT.GET.INBOX_WORKER": GET_ALL,
        "JSMESH.API.DIRECT.GET.BLOBS": GET_ALL,
        "JSMESH.API.CONSUMER.MSG.NEXT.INBOX_WORKER.worker-0": b'{"batch": 1, "no_wait": true}',
        "JSMESH.API.CONSUMER.INFO.INBOX_WORKER.worker-0": b"",
        subjects.mesh_subject("worker", "planner", "demo", "deputy"): b'{"forged": true}',
    }
    for target in targets:
        for request, body in requests.items():
            await thief.nc.publish(request, body, reply=target)
    await thief.settle()
    after = await _quiet(broker)
    # Its own words arrived in the planner's inbox, as many as it sent; nothing else has changed anywhere.
    assert after.pop("INBOX_PLANNER")[0] - before.pop("INBOX_PLANNER")[0] == len(targets)
    assert after == before


async def test_a_served_request_answers_within_the_askers_own_rights(broker, clients):
    """budget answers rag on a reply subject that rag chose; the answer must not speak as budget."""
    budget, rag = clients["budget"], clients["rag"]

    async def answer(message):
        await message.respond(b'{"forged": true}')

    subscription = await budget.nc.subscribe("rpc.*.budget.>", cb=answer)
    await budget.settle()
    before = await _kept(broker)
    targets = ("mesh.budget.planner.3.demo.t.-", "$KV.CONTROL.task.t", "_INBOX_budget.x", "$JS.API.STREAM.DELETE.BLOBS")
    for target in targets:
        await rag.nc.publish("rpc.rag.budget.3.demo.t", b"{}", reply=target)
    await rag.settle()
    proof = await rag.ask("rpc.rag.budget.3.demo.t", b"{}")
    assert (await asyncio.wait_for(proof, 30)).data == b'{"forged": true}'
    after = await _quiet(broker)
    assert after == before
    # Whoever serves may answer, once, and say nothing else where answers go.
    await budget.nc.publish("_R_.some.where", b"{}")
    assert await budget.is_denied("_R_.some.where")
    await subscription.unsubscribe()


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Nats-Schedule": "@at 2020-01-01T00:00:00Z", "Nats-Schedule-Target": FORGED}, SCHEDULES_OFF),
        ({"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": FORGED}, SCHEDULES_OFF),
        ({"Nats-Rollup": "all"}, ROLLUPS_OFF),
        ({"Nats-Rollup": "sub"}, ROLLUPS_OFF),
        ({"Nats-TTL": "1s"}, TTL_OFF),
    ],
)
@pytest.mark.parametrize(
    ("identity", "subject"),
    [
        ("gateway", "mesh.gateway.planner.3.demo.header.-"),
        ("pub_demo", "mesh.pub_demo.gateway.3.demo.header.-"),
        ("budget", "$KV.CONTROL.task.header"),
        ("worker", "blob.worker.demo.header"),
        ("rag", "record.rag.demo.header.k"),
        ("worker", "dead.worker.3.demo.header"),
    ],
)
async def test_no_header_forges_or_erases(broker, clients, identity, subject, headers, code):
    before = await _kept(broker)
    answer = await clients[identity].store(subject, b"{}", headers)
    assert answer["error"]["err_code"] in (code, 10167 if code == TTL_OFF else code), answer
    assert await _kept(broker) == before


@pytest.mark.parametrize(
    "headers", [{"Nats-Incr": "+1"}, {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1", "Nats-Batch-Commit": "1"}]
)
async def test_counters_and_batches_are_off_in_inboxes(broker, clients, headers):
    before = await _quiet(broker)
    answer = await clients["gateway"].store("mesh.gateway.planner.3.demo.odd.-", b"{}", headers)
    assert "error" in answer
    assert await _kept(broker) == before


async def test_a_trace_header_carries_nothing_to_others(broker, clients):
    before = await _kept(broker)
    for target in ("mesh.budget.planner.3.demo.trace.-", "$KV.CONTROL.task.trace", "_INBOX_planner.trace"):
        headers = {"Nats-Trace-Dest": target, "Nats-Trace-Only": "true"}
        await clients["worker"].nc.publish("mesh.worker.planner.3.demo.trace.-", b"{}", headers=headers)
    await clients["worker"].settle()
    assert await _quiet(broker) == before


async def test_timers_fire_into_the_own_inbox_alone(broker, clients):
    worker = clients["worker"]
    before = await _kept(broker)
    due = {"Nats-Schedule": "@at 2020-01-01T00:00:00Z"}
    for target in (
        "mesh.planner.worker.3.demo.t.-",
        "mesh.worker.planner.3.demo.t.-",
        "timer.planner.fired.3.demo.t",
        "$KV.CONTROL.task.t",
        "blob.planner.demo.t",
    ):
        answer = await worker.store("timer.worker.set.3.demo.t.k", b"{}", {**due, "Nats-Schedule-Target": target})
        assert answer["error"]["err_code"] == TARGET_ELSEWHERE, (target, answer)
    for subject in ("timer.planner.set.3.demo.t.k", "timer.worker.fired.3.demo.t"):
        await worker.ask(subject, b"{}")
        assert await worker.is_denied(subject)
    assert await _kept(broker) == before
    fired = {**due, "Nats-Schedule-Target": "timer.worker.fired.3.demo.t"}
    assert "error" not in await worker.store("timer.worker.set.3.demo.t.k", b"{}", fired)
    async with asyncio.timeout(30):
        while (await _kept(broker))["INBOX_WORKER"][0] == before["INBOX_WORKER"][0]:
            await asyncio.sleep(0.02)


async def test_a_guessed_message_id_occupies_nothing(broker, clients):
    """The real id is an HMAC under the sender's key: neither a stranger nor a neighbour of the same inbox has it."""
    subject = subjects.mesh_subject("planner", "worker", "demo", "occupied")
    ce_id = envelope.derive_id("planner", "cause", 0)
    guesses = [ce_id, *(envelope.message_id(_message_key(broker, who), subject, ce_id) for who in ("rag", "checker"))]
    real = envelope.message_id(_message_key(broker, "planner"), subject, ce_id)
    assert real not in guesses
    for guess in (*guesses, real):
        # A stranger cannot even use the right one: it may not speak there.
        await clients["checker"].ask(subject, b"{}", {"Nats-Msg-Id": guess})
    assert await clients["checker"].is_denied(subject)
    neighbour = subjects.mesh_subject("rag", "worker", "demo", "occupied")
    for guess in guesses:
        assert "error" not in await clients["rag"].store(neighbour, b"{}", {"Nats-Msg-Id": guess})
    answer = await clients["planner"].store(subject, b"{}", {"Nats-Msg-Id": real})
    assert "error" not in answer and not answer.get("duplicate")
    again = await clients["planner"].store(subject, b"{}", {"Nats-Msg-Id": real})
    assert again["duplicate"] and again["seq"] == answer["seq"]


def _message_key(broker: Broker, identity: str) -> bytes:
    return hashlib.blake2b(broker.seed(identity).encode(), digest_size=32, person=b"bulkhead-msgid").digest()


async def test_an_outside_publisher_is_held_to_its_tenant_and_inbox(broker, clients):
    publisher = clients["pub_demo"]
    before = await _kept(broker)
    refused = [
        subjects.mesh_subject("pub_demo", "gateway", "acme", "t"),
        subjects.mesh_subject("pub_other", "gateway", "demo", "t"),
        subjects.mesh_subject("pub_demo", "planner", "demo", "t"),
        subjects.mesh_subject("gateway", "gateway", "demo", "t"),
        "mesh.pub_demo.gateway.demo.demo",
        "mesh.pub_demo.gateway.3.acme.demo.t",
        "mesh.pub_demo.gateway.3.*.t.*",
        "rpc.pub_demo.signer.3.demo.t",
        "blob.pub_demo.demo.x",
    ]
    for subject in refused:
        await publisher.ask(subject, b"{}")
    await publisher.settle()
    assert {one.lower() for one in refused} <= publisher.denied
    assert await _kept(broker) == before


@pytest.mark.parametrize("partition", ["0", "99", "-1", "x"])
async def test_a_foreign_partition_is_refused_by_its_reader(broker, clients, partition):
    """The broker cannot hash; who reads does, and rejects the message whoever sent it."""
    task = "partitioned"
    assert subjects.partition_of(task) != 0
    subject = f"mesh.pub_demo.gateway.{partition}.demo.{task}.-"
    answer = await clients["pub_demo"].store(subject, b"{}")
    with pytest.raises(Unreadable, match="partition"):
        inbound.read_message(StoredMessage(subject, {}, b"{}", answer["seq"], 0), "gateway")


async def test_a_blob_is_written_once_and_by_its_author(broker, clients):
    subject = "blob.rag.demo." + "a" * 64
    assert "error" not in await clients["rag"].store(subject, b"first")
    # The same subject again, with or without a fresh id, and after the broker's window for duplicates.
    for headers in ({}, {"Nats-Msg-Id": "other"}, {"Nats-Expected-Last-Subject-Sequence": "1"}):
        assert "error" in await clients["rag"].store(subject, b"second", headers)
    await clients["worker"].ask(subject, b"second")
    assert await clients["worker"].is_denied(subject)
    got = await asyncio.wait_for(
        await clients["worker"].ask("JSMESH.API.DIRECT.GET.BLOBS", json.dumps({"last_by_subj": subject}).encode()), 3
    )
    assert got.data == b"first"


async def test_nobody_acks_for_another(broker, clients):
    await _filled(clients, "acked")
    pulled = await asyncio.wait_for(
        await clients["worker"].ask("JSMESH.API.CONSUMER.MSG.NEXT.INBOX_WORKER.worker-0", b'{"batch": 1}'), 3
    )
    for who in ("planner", "checker", "rag", "pub_demo"):
        for word in (b"+ACK", b"+TERM", b"-NAK"):
            await clients[who].nc.publish(pulled.reply, word)
        assert await clients[who].is_denied(pulled.reply)
    pending = await _pending(broker, "INBOX_WORKER", "worker-0")
    assert pending >= 1
    await clients["worker"].nc.publish(pulled.reply, b"+ACK")
    await clients["worker"].settle()
    async with asyncio.timeout(30):
        while await _pending(broker, "INBOX_WORKER", "worker-0") >= pending:
            await asyncio.sleep(0.02)


async def test_nobody_acks_for_another_through_the_broker(broker, clients):
    """An answer of the broker, an empty one say, would be an ack where the reply subject is an ack subject."""
    subject = subjects.mesh_subject("gateway", "planner", "demo", "acked")
    assert "error" not in await clients["gateway"].store(subject)
    pull = await clients["planner"].ask("JSMESH.API.CONSUMER.MSG.NEXT.INBOX_PLANNER.planner-0", b'{"batch": 1}')
    victim = (await asyncio.wait_for(pull, 30)).reply
    for word in ("+TERM", "+ACK", ""):
        assert "error" not in await clients["worker"].store(f"blob.worker.demo.ack{word[1:]}", word.encode())
    before = await _quiet(broker)
    pending = await _pending(broker, "INBOX_PLANNER", "planner-0")
    requests = {
        "JSMESH.API.DIRECT.GET.INBOX_WORKER": b'{"last_by_subj": "none"}',
        "JSMESH.API.CONSUMER.MSG.NEXT.INBOX_WORKER.worker-0": b'{"batch": 1, "no_wait": true}',
        "$JS.ACK.INBOX_WORKER.worker-0.1.1.1.1.0": b"+ACK",
        subjects.mesh_subject("worker", "planner", "demo", "acked"): b"",
    }
    blobs = [json.dumps({"last_by_subj": f"blob.worker.demo.ack{end}"}).encode() for end in ("TERM", "ACK", "")]
    for request, body in [*requests.items(), *(("JSMESH.API.DIRECT.GET.BLOBS", body) for body in blobs)]:
        await clients["worker"].nc.publish(request, body, reply=victim)
    await clients["worker"].settle()
    assert await _quiet(broker) == before
    assert await _pending(broker, "INBOX_PLANNER", "planner-0") == pending >= 1


async def test_nobody_overhears_anothers_answers(broker, clients):
    """Not by the right to subscribe, and not by the border: an inbox prefix is only known inside its account."""
    heard: list[str] = []

    async def hear(message):
        heard.append(message.subject)

    spy = clients["rag"]
    for subject in (">", "_INBOX_planner.>", "_INBOX_worker.>", "_INBOX_provisioner.>", "*.>", "$JS.>"):
        await spy.nc.subscribe(subject, cb=hear)
        assert await spy.is_denied(subject)
    await _filled(clients, "overheard")
    assert not heard


async def test_only_budget_and_the_operator_set_halts(broker, clients):
    for who, client in clients.items():
        subject = f"$KV.CONTROL.task.{who}"
        if who in ("budget", "operator"):
            assert "error" not in await client.store(subject)
        else:
            await client.ask(subject)
            assert await client.is_denied(subject)


async def test_a_wildcard_in_a_publish_reaches_no_other_subject(broker, clients):
    """The broker takes wildcards in a publish as they are: a right to some subjects is no right to more."""
    before = await _kept(broker)
    for subject in (
        "mesh.*.worker.3.demo.t.*",
        "mesh.>",
        "mesh.rag.*.3.demo.t.*",
        "blob.*.demo.x",
        "blob.>",
        "record.*.demo.t.k",
        "$JS.ACK.*.*.1.1.1.1.0",
        "JSMESH.API.DIRECT.GET.*",
        "JSMESH.API.CONSUMER.MSG.NEXT.*.*",
        "JSMESH.API.>",
    ):
        await clients["rag"].nc._send_publish(subject, "_INBOX_rag.probe.x", b"{}", 2, None)
        assert await clients["rag"].is_denied(subject), subject
    for subject in ("mesh.pub_demo.gateway.3.*.t.*", "mesh.pub_demo.gateway.3.>", "mesh.pub_demo.>"):
        await clients["pub_demo"].nc._send_publish(subject, "_INBOX_pub_demo.probe.x", b"{}", 2, None)
        assert await clients["pub_demo"].is_denied(subject), subject
    assert await _kept(broker) == before


async def _pending(broker: Broker, stream: str, durable: str) -> int:
    from bulkhead_infra.processes.http import get_url

    _, body = await get_url(f"{broker.server.plan.monitor_url}/jsz?consumers=true&accounts=true", 5)
    [found] = [
        consumer["num_ack_pending"]
        for account in json.loads(body)["account_details"]
        for one in account["stream_detail"]
        for consumer in one.get("consumer_detail") or ()
        if (one["name"], consumer["name"]) == (stream, durable)
    ]
    return found


async def _quiet(broker: Broker) -> dict[str, tuple[int, int, int]]:
    """What the streams hold, when it has stopped changing."""
    before = await _kept(broker)
    async with asyncio.timeout(30):
        while True:
            await asyncio.sleep(0.2)
            after = await _kept(broker)
            if after == before:
                return after
            before = after


async def _kept(broker: Broker) -> dict[str, tuple[int, int, int]]:
    """What the streams hold, but for the journal, which lags."""
    return {name: state for name, state in (await broker.contents()).items() if name != "JOURNAL"}
