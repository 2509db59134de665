"""Ended tasks leave after their retention, on a real nats-server with the policy's accounts; nothing else does."""

import asyncio
import json
import secrets
import subprocess
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager

import nkeys
import pytest

from bulkhead.blobs import BlobMissing, Blobs
from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import Schedule
from bulkhead.grants import new_signing_seed, public_of
from bulkhead.runtime.context import Context, ServiceIdentity, make_context
from bulkhead.runtime.dead_letters import MARKED
from bulkhead.runtime.decider import fold
from bulkhead.runtime.decider.history import at_its_source
from bulkhead.runtime.process.service import Service
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.lease import LeaseReleaseRequested, LeaseRequested, resource_token
from bulkhead_contracts.outside_event import EventAwaited, EventOccurred, event_channel
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.result import ContentRef, Failure, Result
from bulkhead_contracts.retrieval import DocumentIngested
from bulkhead_contracts.session import SessionDeleted, SessionOpened, TurnTaken
from bulkhead_contracts.step import StepFinished
from bulkhead_contracts.task import PlacesGiven, TaskEnded, TaskLimits, TaskRejected, TaskRequested, TaskSubmitted
from bulkhead_infra.nats import purge as purging
from bulkhead_infra.nats import stream_reads
from bulkhead_infra.nats.journal import JournalReport, keep_journal_whole
from bulkhead_infra.nats.purge import DAY_S, MIN_RETENTION_S, PurgeError, Retention, parse_duration, purge, retention_of
from bulkhead_infra.nats.streams import Layout
from bulkhead_services.planner.app import LOGICS
from tests.eventually import until
from tests.integration.permissions.broker import Broker

TENANT, OTHER = "demo", "other"
OLD, YOUNG, LIVE = "old", "young", "live"
RETENTION = Retention(1_500.0)


@asynccontextmanager
async def buses(broker: Broker):
    """A connection per identity, made when it is first needed."""
    open_: dict[str, JetStreamBus] = {}

    async def of(identity: str) -> JetStreamBus:
        if identity not in open_:
            seed = broker.seed(identity)
            open_[identity] = await JetStreamBus.connect(broker.url, service=identity, nkey_seed=seed)
        return open_[identity]

    try:
        yield of
    finally:
        for one in open_.values():
            await one.close()


def places(task: str, tenant: str) -> list[tuple[str, str]]:
    """(identity, subject) of one message of a task in every stream that holds tasks."""
    found = [
        (sender, subjects.mesh_subject(sender, to, tenant, task))
        for sender, to in sorted(catalog.MESH_EDGES)
        if sender not in (catalog.PUBLISHER, *catalog.IN_KUBERNETES)
    ]
    found += [(one, subjects.record_subject(one, tenant, task, "key")) for one in catalog.DOERS]
    found += [(one, subjects.dead_letter_subject(one, tenant, task)) for one in (*catalog.DECIDERS, *catalog.DOERS)]
    found.append(("budget", f"{subjects.dead_letter_subject('budget', tenant, task)}.{MARKED}"))
    return [*found, ("budget", subjects.control_key("task", tenant, task))]


async def live_through(of, task: str, tenant: str = TENANT, again: bool = False) -> None:
    for number, (identity, subject) in enumerate(places(task, tenant)):
        name = f"{tenant}/{task}/{number}/{again}"
        await (await of(identity)).publish(subject, b"{}", {"ce-type": "mesh.some.thing.v1"}, name)
    for one in catalog.DECIDERS:
        subject = subjects.timer_set(one, tenant, task, "deadline")
        target = subjects.timer_fired(one, tenant, task)
        await (await of(one)).schedule(Schedule(subject, target, 2**41, b"{}"), f"{tenant}/{task}/timer/{one}/{again}")


async def end(of, task: str, tenant: str = TENANT, sender: str = "planner", kind: str = "", name: str = "") -> int:
    """The fact of an end; returns when it was stored, by the broker's clock."""
    bus = await of(sender)
    subject = subjects.mesh_subject(sender, "gateway", tenant, task)
    await bus.publish(subject, b"{}", {"ce-type": kind or TaskEnded.ce_type()}, name or f"end/{sender}/{tenant}/{task}")
    gateway = await of("gateway")
    # What a publisher says is copied from a stream of its own.
    found = await until(lambda: gateway.read("INBOX_GATEWAY", subject, limit=200))
    return int(found[-1].time_unix_ms)


async def census(broker: Broker) -> dict[str, Counter]:
    """Messages of every task in every stream, by what the broker tells of its subjects."""
    found: dict[str, Counter] = {}
    async with broker.client("provisioner") as client:
        for stream in purging._subjects_of_task((TENANT, OLD)):
            ask = await client.ask(f"$JS.API.STREAM.INFO.{stream}", json.dumps({"subjects_filter": ">"}).encode())
            state = json.loads((await asyncio.wait_for(ask, 30)).data)["state"]
            found[stream] = Counter()
            for subject, count in (state.get("subjects") or {}).items():
                found[stream][_of(subject)] += count
    return found


def _of(subject: str) -> str:
    parts = subject.split(".")
    at = {"mesh": 4, "timer": 4, "dead": 3, "record": 2, "$KV": 3}[parts[0]]
    return f"{parts[at]}/{parts[at + 1]}"


async def settled(broker: Broker) -> dict[str, Counter]:
    """The same, once the journal has all that the inboxes have."""

    async def whole() -> dict[str, Counter]:
        found = await census(broker)
        inboxes = sum((tasks for name, tasks in found.items() if name.startswith("INBOX_")), Counter())
        return found if found["JOURNAL"] == inboxes else {}

    return await until(whole, "the journal has all")


async def three_tasks(of) -> int:
    """OLD and YOUNG have ended, LIVE has not, nor has another tenant's OLD. Returns when OLD ended."""
    for task, tenant in ((OLD, TENANT), (YOUNG, TENANT), (LIVE, TENANT), (OLD, OTHER)):
        await live_through(of, task, tenant)
    ended = await end(of, OLD)
    number = 0
    # Until the broker's clock has moved on.
    while await end(of, LIVE, sender="gateway", kind="mesh.task.requested.v2", name=f"tick/{number}") <= ended + 5:
        number += 1
    await end(of, YOUNG)
    # What looks like an end and is none: said by an outside publisher, by a worker, to somebody else.
    await end(of, LIVE, sender="pub_demo")
    await (await of("worker")).publish(
        subjects.mesh_subject("worker", "planner", TENANT, LIVE), b"{}", {"ce-type": TaskEnded.ce_type()}, "forged"
    )
    return ended


async def test_only_what_ended_long_enough_ago_goes_and_it_goes_everywhere(broker):
    async with buses(broker) as of:
        ended = await three_tasks(of)
        before = await settled(broker)
        assert all(f"{TENANT}/{OLD}" in tasks for tasks in before.values()), "a stream was left out of this test"
        due = ended + int(RETENTION.default_s * 1000)
        seed = broker.seed
        assert (await purge(broker.url, seed, RETENTION, now_unix_ms=due - 1)).tasks == 0
        assert (await purge(broker.url, seed, RETENTION, now_unix_ms=due, dry_run=True)).tasks == 1
        assert await settled(broker) == before
        done = await purge(broker.url, seed, RETENTION, now_unix_ms=due)
        assert done.tasks == 1
        after = await settled(broker)
        for stream, tasks in before.items():
            wanted = Counter({name: count for name, count in tasks.items() if name != f"{TENANT}/{OLD}"})
            assert after[stream] == wanted, stream
            assert done.messages[stream] == tasks[f"{TENANT}/{OLD}"], stream
        again = await purge(broker.url, seed, RETENTION, now_unix_ms=due)
        assert again.tasks == 0 and not again.messages
    # A journal that is made of what is left, also when the broker reads its store again.
    await broker.server.kill_and_wait()
    await broker.server.start()
    assert await settled(broker) == after


async def test_a_stream_may_hold_longer_and_what_is_refused_or_ingested_ends_too(broker):
    async with buses(broker) as of:
        for task, sender, kind in (
            ("refused", "gateway", TaskRejected.ce_type()),
            ("document", "rag", "mesh.retrieval.ingested.v1"),
        ):
            await live_through(of, task)
            ended = await end(of, task, sender=sender, kind=kind)
        await settled(broker)
        longer = Retention(10.0, {"RECORDS_RAG": 1_000.0})
        seed = broker.seed
        await purge(broker.url, seed, longer, now_unix_ms=ended + 500_000)
        found = await census(broker)
        left = {stream for stream, tasks in found.items() if tasks}
        # What finds the task and shows it whole stays as long as anything of it.
        assert left == {"RECORDS_RAG", "INBOX_GATEWAY", "JOURNAL"}
        await purge(broker.url, seed, longer, now_unix_ms=ended + 1_000_001)
        assert not any((await census(broker)).values())


async def say(of, sender: str, task: str, kind: str, body: dict | None = None) -> int:
    """One message in the gateway's inbox; returns its sequence."""
    subject = subjects.mesh_subject(sender, "gateway", TENANT, task)
    name = f"{sender}/{task}/{kind}"
    await (await of(sender)).publish(subject, json.dumps(body or {}).encode(), {"ce-type": kind}, name)
    gateway = await of("gateway")

    async def copied() -> int:
        found = await gateway.read("INBOX_GATEWAY", subject)
        return max((one.sequence for one in found if one.ce_type == kind), default=0)

    return await until(copied, "a publisher's message lies in the gateway's inbox")


async def test_what_never_became_a_task_goes_by_its_age_and_a_request_that_waits_stays(broker):
    asked, cancelled = TaskRequested.ce_type(), "mesh.task.cancel_requested.v1"
    async with buses(broker) as of:
        await say(of, "gateway", "waiting", asked)
        await say(of, "pub_demo", "nothing", cancelled)
        unreadable = await say(of, "pub_demo", "unreadable", asked)
        await say(of, "gateway", "unreadable", MessageRejected.ce_type(), {"sequence": unreadable})
        other = await say(of, "pub_demo", "doubted", asked)
        await say(of, "pub_demo", "doubted", MessageRejected.ce_type(), {"sequence": other})
        odd = f"mesh.pub_demo.gateway.0.{TENANT}.no%task.-"
        await (await of("pub_demo")).publish(odd, b"{}", {"ce-type": asked}, "odd")
        await settled(broker)
        stored = await (await of("gateway")).read("INBOX_GATEWAY", "mesh.>", limit=200)
        due = stored[-1].time_unix_ms + int(RETENTION.default_s * 1000)
        assert (await purge(broker.url, broker.seed, RETENTION, now_unix_ms=stored[0].time_unix_ms)).tasks == 0
        done = await purge(broker.url, broker.seed, RETENTION, now_unix_ms=due)
        assert done.tasks == 3 and done.messages["INBOX_GATEWAY"] == done.messages["JOURNAL"] == 4
        after = await settled(broker)
        assert set(after["INBOX_GATEWAY"]) == {f"{TENANT}/waiting", f"{TENANT}/doubted"}, "a promise, and a forged fact"


async def test_a_session_goes_by_the_age_of_its_last_fact(broker):
    opened, taken, deleted = SessionOpened.ce_type(), TurnTaken.ce_type(), SessionDeleted.ce_type()
    async with buses(broker) as of:
        await say(of, "gateway", "s-old", opened)
        await say(of, "gateway", "s-old", taken)
        await say(of, "pub_demo", "s-old", deleted)  # Nobody outside deletes it.
        await settled(broker)
        stored = await (await of("gateway")).read("INBOX_GATEWAY", "mesh.>", limit=200)
        assert (await purge(broker.url, broker.seed, RETENTION, now_unix_ms=stored[0].time_unix_ms)).tasks == 0
        due = stored[-1].time_unix_ms + int(RETENTION.default_s * 1000)
        assert (await purge(broker.url, broker.seed, RETENTION, now_unix_ms=due)).tasks == 1
        assert not (await settled(broker))["INBOX_GATEWAY"]


async def test_a_resource_or_event_that_nobody_has_named_for_so_long_goes_and_one_that_is_in_use_stays(broker):
    async with buses(broker) as of:
        worker, planner = await of("worker"), await of("planner")
        leases = [LeaseRequested.ce_type(), LeaseReleaseRequested.ce_type()]
        in_use = resource_token("crm:account:42")
        for sender, token, kinds in (
            ("worker", in_use, leases),
            ("worker", resource_token("erp:order:7"), leases),
            ("gateway", event_channel("order.paid", "7"), [EventOccurred.ce_type()]),
            ("planner", event_channel("order.paid", "8"), [EventAwaited.ce_type()]),
        ):
            subject = subjects.mesh_subject(sender, "planner", TENANT, token)
            for number, kind in enumerate(kinds):
                await (await of(sender)).publish(subject, b"{}", {"ce-type": kind}, f"{token}/{number}")
        [first, *_, last] = await planner.read("INBOX_PLANNER", "mesh.>")
        used = subjects.mesh_subject("worker", "planner", TENANT, in_use)
        number = 0
        # Until the broker's clock has moved on.
        while (await planner.last("INBOX_PLANNER", used)).time_unix_ms <= last.time_unix_ms:
            await worker.publish(used, b"{}", {"ce-type": leases[0]}, f"again/{number}")
            number += 1
        early, due = (row.time_unix_ms + int(RETENTION.default_s * 1000) for row in (first, last))
        await settled(broker)
        assert (await purge(broker.url, broker.seed, RETENTION, now_unix_ms=early - 1)).tasks == 0
        assert (await purge(broker.url, broker.seed, RETENTION, now_unix_ms=due)).tasks == 3
        left = await settled(broker)
        assert set(left["INBOX_PLANNER"]) == {f"{TENANT}/{in_use}"} == set(left["JOURNAL"])


async def test_an_id_that_another_purge_freed_and_somebody_uses_again_is_left_alone(broker, monkeypatch):
    original = purging._remove_task
    lives = []

    async def removed_by_two(bus, task, age_ms, retention, *more):
        if not lives:
            lives.append(task)  # What the other one did meanwhile, and the second life of the id.
            await purge(broker.url, broker.seed, RETENTION, now_unix_ms=due)
            await live_through(of, OLD, again=True)
        return await original(bus, task, age_ms, retention, *more)

    async with buses(broker) as of:
        await live_through(of, OLD)
        due = await end(of, OLD) + int(RETENTION.default_s * 1000)
        await settled(broker)
        monkeypatch.setattr(purging, "_remove_task", removed_by_two)
        await purge(broker.url, broker.seed, RETENTION, now_unix_ms=due)
        left = await settled(broker)
    assert all(tasks[f"{TENANT}/{OLD}"] for tasks in left.values()), left


# Late messages


def context(name: str, bus: JetStreamBus, seeds: dict[str, str]) -> Context:
    public = {one: public_of(seed) for one, seed in seeds.items()}
    return make_context(name, "0", bus, ServiceIdentity(f"seed-of-{name}", seeds[name], public))


async def facts(bus: JetStreamBus, stream: str, subject: str, count: int = 1, kind: str = "") -> list:

    async def enough() -> list:
        found = [one for one in await bus.read(stream, subject) if one.ce_type.startswith(kind)]
        return found if len(found) >= count else []

    return await until(enough, f"{kind} in {stream}")


async def test_a_late_message_of_a_purged_task_is_refused_and_a_live_task_goes_on(broker, monkeypatch):
    monkeypatch.setattr(fold, "OPENING_MAX_AGE_MS", 0)
    seeds = {name: new_signing_seed() for name in catalog.SERVICES}
    async with buses(broker) as of:
        gateway, worker = context("gateway", await of("gateway"), seeds), context("worker", await of("worker"), seeds)
        planner = asyncio.create_task(Service(context("planner", await of("planner"), seeds), LOGICS).run())
        plan = Plan(steps=(PlanStep(id="n", title="", instruction="echo", kind="noop"),))
        body = TaskSubmitted(
            objective=ContentRef(author="gateway", sha256="0" * 64, size_bytes=1),
            check=False,
            limits=TaskLimits(),
            submitted_unix_ms=gateway.clock(),
            plan=plan,
        )
        for task in (OLD, LIVE):
            await gateway.publisher.send("planner", body, tenant=TENANT, task=task, index=task)
            await facts(await of("worker"), "INBOX_WORKER", subjects.mesh_subject("planner", "worker", TENANT, task))
        done = StepFinished(step_id="n", attempt=1, plan_version=1, result=Result(summary="echo"))
        await worker.publisher.send("planner", done, tenant=TENANT, task=OLD, index=1)
        where = subjects.mesh_subject("planner", "gateway", TENANT, OLD)
        (ended,) = await facts(await of("gateway"), "INBOX_GATEWAY", where, kind=TaskEnded.TYPE)
        found = await purge(broker.url, broker.seed, Retention(0.0), now_unix_ms=ended.time_unix_ms)
        assert found.tasks == 1 and found.messages["TIMERS_PLANNER"] >= 1
        # The replica that has just let the task go, and then one that never saw it.
        await worker.publisher.send("planner", done, tenant=TENANT, task=OLD, index="late")
        operator = await of("operator")
        (dead,) = await facts(operator, "DEAD_LETTERS", subjects.dead_letter_subject("planner", TENANT, OLD))
        assert dead.headers["bulkhead-dead-code"] == "not_opened"
        rejected = subjects.mesh_subject("planner", "planner", TENANT, OLD)
        (fact,) = await facts(await of("planner"), "INBOX_PLANNER", rejected, kind="mesh.control.message_rejected")
        assert json.loads(fact.body)["code"] == "not_opened"
        gone = await operator.read("INBOX_GATEWAY", subjects.mesh_subject("planner", "gateway", TENANT, OLD))
        assert gone == [], "a refusal does not bring the task back to life"
        await worker.publisher.send("planner", done, tenant=TENANT, task=LIVE, index=1)
        where = subjects.mesh_subject("planner", "gateway", TENANT, LIVE)
        (ended,) = await facts(await of("gateway"), "INBOX_GATEWAY", where, kind=TaskEnded.TYPE)
        assert json.loads(ended.body)["status"] == "succeeded"
        planner.cancel()
        await asyncio.gather(planner, return_exceptions=True)


# Command


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "bulkhead_infra.nats.purge", *arguments], capture_output=True, text=True, timeout=60
    )


async def test_the_command_says_what_it_did(broker, tmp_path):
    async with buses(broker) as of:
        await end(of, OLD)
    where = ("--nats", broker.url, "--identity", str(broker.identity))
    done = await asyncio.to_thread(command, *where, "--json")
    assert done.returncode == 0 and json.loads(done.stdout) == {"tasks": 0, "messages": {}, "dry_run": False}
    done = await asyncio.to_thread(command, *where, "--retention", "3d")
    assert done.returncode == 2 and "8d or more" in done.stderr
    done = await asyncio.to_thread(command, "--data", str(tmp_path / "nowhere"))
    assert done.returncode == 1 and "--data" in done.stderr and "Traceback" not in done.stderr


async def test_a_broker_that_is_away_is_said(monkeypatch):
    monkeypatch.setattr(stream_reads, "CONNECT_TIMEOUT_S", 0.3)

    def keys_of_nobody(_: str) -> str:
        return nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER).decode()

    with pytest.raises(PurgeError, match="cannot reach the broker"):
        await purge("nats://127.0.0.1:1", keys_of_nobody, Retention())


def test_retentions():
    assert (
        parse_duration("30d") == 30 * DAY_S == Retention().seconds_for("INBOX_WORKER")
        and parse_duration("90m") == 5_400
    )
    found = retention_of("20d", ["RECORDS_RAG=40d"])
    assert (found.seconds_for("RECORDS_RAG"), found.seconds_for("INBOX_WORKER")) == (40 * DAY_S, 20 * DAY_S)
    assert found.seconds_for("JOURNAL") == found.seconds_for("INBOX_GATEWAY") == 40 * DAY_S
    assert retention_of(f"{MIN_RETENTION_S // DAY_S}d", []).shortest_s == MIN_RETENTION_S
    for text in ("", "30", "d", "-1d", "1y", "²d"):
        with pytest.raises(ValueError, match="write it as"):
            parse_duration(text)
    with pytest.raises(ValueError, match="8d or more"):
        retention_of("30d", ["RECORDS_RAG=1h"])
    with pytest.raises(PurgeError, match="BLOBS"):
        Retention(streams={"BLOBS": 1.0}).seconds_for("JOURNAL")


def test_what_could_ask_for_a_call_again_goes_before_its_outcome_and_a_claim_after_it():
    order = list(purging._subjects_of_task((TENANT, OLD)))
    asking = {subjects.DEAD_LETTERS_STREAM, *map(subjects.inbox_stream, catalog.DOERS)}
    outcomes = {subjects.inbox_stream(asker) for doer in catalog.DOERS for asker in catalog.askers_of(doer)}
    claims = {*map(subjects.records_stream, catalog.DOERS)}
    assert max(map(order.index, asking)) < min(map(order.index, outcomes))
    # Ingestions leave no claims, and their outcomes stay with the fact that ends them.
    assert max(map(order.index, outcomes - {purging.GATEWAY})) < min(map(order.index, claims))


async def test_decisions_about_places_that_no_start_reads_again_leave(broker, tmp_path):
    """Three that tell who runs; a task waits since the first. What is left is enough to begin from."""
    async with buses(broker) as of:
        gateway, where = await of("gateway"), subjects.mesh_subject("gateway", "gateway", "places", "places")
        told: list[int] = []
        for number in range(9):
            body = PlacesGiven(
                running=() if number % 3 == 0 else None,
                snapshot=told[-1] if told else 0,
                through=number,
                waiting_from=1 if number < 3 else 5,
            )
            ack = await gateway.publish(where, body.encode(), {"ce-type": PlacesGiven.ce_type()}, f"places/{number}")
            told += [ack.sequence] if number % 3 == 0 else []
        operator = await of("operator")
        await facts(operator, "JOURNAL", where, 9)
        for expected in (range(5, 10), range(5, 10)):
            await purge(broker.url, broker.seed, RETENTION)
            left = [one.sequence for one in await gateway.read("INBOX_GATEWAY", where)]
            assert left == list(expected) and told[-1] in left
            copied = [at_its_source(one).sequence for one in await operator.read("JOURNAL", where)]
            assert copied == left, "the journal lets go of the same, and of nothing else"
            look = await keep_journal_whole(broker.url, broker.seed, Layout(), tmp_path / "lost")
            assert look == JournalReport(), "what was trimmed on purpose is no loss"
        provisioner = await of("provisioner")

        async def take(**which: object) -> JournalReport:
            wanted = json.dumps({"filter": where, **which}).encode()
            answer = await provisioner.request("$JS.API.STREAM.PURGE.INBOX_GATEWAY", wanted)
            assert json.loads(answer.body)["success"]
            return await keep_journal_whole(broker.url, broker.seed, Layout(), tmp_path / "lost")

        assert await take(seq=7) == JournalReport(), "nor is it between the purges of the two streams"
        assert "(INBOX_GATEWAY 5; of tasks places)" in (await take()).lost, "a trim leaves the newest"


async def test_the_content_of_a_document_that_could_not_be_read_leaves_after_a_day(broker):
    now_unix_ms = int(time.time() * 1000)
    async with buses(broker) as of:
        gateway, rag = await of("gateway"), await of("rag")
        writer = Blobs(gateway, "gateway")
        kept = {}
        for name, code in (("scan", "no_text"), ("taken", ""), ("busy", "store_busy")):
            content = await writer.put(TENANT, f"%PDF-1.7\n{name}")
            failure = Failure.from_text(code, "refused", "") if code else None
            outcome = "rejected" if code else "ingested"
            body = DocumentIngested(name=name, sha256=content.sha256, outcome=outcome, failure=failure)
            subject = subjects.mesh_subject("rag", "gateway", TENANT, f"ingest-{name}")
            await rag.publish(subject, body.encode(), {"ce-type": DocumentIngested.ce_type()}, name)
            kept[name] = content
        assert not (await purge(broker.url, broker.seed, Retention(), now_unix_ms=now_unix_ms)).messages.get("BLOBS")
        later = now_unix_ms + (DAY_S + 60) * 1000
        assert (await purge(broker.url, broker.seed, Retention(), now_unix_ms=later)).messages["BLOBS"] == 1
        reader = Blobs(await of("worker"), "worker")
        for name in ("taken", "busy"):
            assert await reader.get(TENANT, kept[name]) == f"%PDF-1.7\n{name}".encode()
        with pytest.raises(BlobMissing):
            await reader.get(TENANT, kept["scan"])
        again = await writer.put(TENANT, "%PDF scan", may_be_gone=True)
        assert await reader.get(TENANT, again) == b"%PDF scan", "whoever sends it anew stores it anew"
