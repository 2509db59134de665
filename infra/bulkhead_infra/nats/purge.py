"""Removes ended tasks after their retention: `python -m bulkhead_infra.nats.purge --data DIR`.

In: a broker, a Retention. Out: what was removed. A task counts as ended when the fact of its end lies in the gateway's
inbox, said by whom the broker vouches for; its age is that fact's, by the broker's clock. What never became a task (an
unreadable request, a cancel of nothing, a subject that is none, an event) goes by the age of its last message, as do
a resource that was leased and a session; what may yet be handled stays. A session that a person deleted goes with the
tasks of its turns, soon after those have ended (`erasure`). Books of the mesh's own (places, checkpoints of the ledger,
reservations of several tasks in one message) are cut to what a start may read, and facts about logins by their age. The
gateway's inbox goes last: a purge that is cut off finds the task again, and doing it again changes nothing. The
provisioner removes and may not read; what has ended is read under the operator's identity. Neither key is kept open.

A task whose replies tell settlements that the newest checkpoint of the ledger has not counted stays whole.

From then on the id is free: the same Idempotency-Key is a new task. So nothing is removed that was stored after this
purge began: another purge, at work at the same time, may have freed an id that is in use again.

Other blobs stay than those of erased sessions, and of documents that could not be read, a day after. They are named by
content: a task that begins at any moment may name one that is old, and learns nothing of its being removed.
"""

import argparse
import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.jetstream.connection import ca_beside
from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import BusError, StoredMessage
from bulkhead_contracts import bounds, catalog, subjects
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.lease import LeaseReleaseRequested, LeaseRequested
from bulkhead_contracts.outside_event import EventAwaited, EventOccurred
from bulkhead_contracts.retrieval import DocumentDeleted, DocumentIngested
from bulkhead_contracts.settlement import SETTLED_FIELD
from bulkhead_contracts.task import TaskEnded, TaskRejected, TaskRequested
from bulkhead_contracts.types import Body
from bulkhead_infra.identity import keys, policy
from bulkhead_infra.identity.config_folder import load_identities
from bulkhead_infra.identity.keys import KeyFileError
from bulkhead_infra.identity.policy import OPERATOR, PROVISIONER
from bulkhead_infra.identity.rights import API
from bulkhead_infra.nats import stream_reads
from bulkhead_infra.nats.erasure import SessionErasure, is_of_stranger, is_session_fact
from bulkhead_infra.nats.trimming import (
    counted_replies,
    trim_checkpoints,
    trim_logins,
    trim_places,
    trim_refused_documents,
    trim_reservations,
)

DAY_S = 24 * 3600
DEFAULT_RETENTION_S = 30 * DAY_S
MIN_RETENTION_S = bounds.MAX_TASK_DEADLINE_MS // 1000 + DAY_S
"""Until then a grant of the task may hold, and its records and halts are what keeps a call from being made again; and
until then the day's money is counted from its facts."""
GATEWAY, PUBLISHED = subjects.inbox_stream("gateway"), subjects.published_stream("")
ENDING_MESSAGES: Mapping[str, tuple[type[Body], ...]] = {
    "planner": (TaskEnded,),
    "gateway": (TaskEnded, TaskRejected),
    "rag": (DocumentIngested, DocumentDeleted),
}
"""Messages by sender that end a task (or an ingestion, a deletion)."""
MEETINGS: Mapping[str, tuple[type[Body], ...]] = {
    "worker": (LeaseRequested, LeaseReleaseRequested),
    "gateway": (EventOccurred,),
    "planner": (EventAwaited,),
}
"""Messages by sender under the name of a resource, or of a name and key of events, in the place of a task."""
TIMEOUT_S = 30.0
PAGE_SIZE = 256
TASKS_AT_ONCE = 16
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": DAY_S}

Task = tuple[str, str]
"""Tenant and task."""


class PurgeError(Exception):
    """The purge could not be done, or ended in the middle; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Time for which a task is kept after its end, by stream. The gateway's inbox and the journal keep it longest."""

    default_s: float = DEFAULT_RETENTION_S
    streams: Mapping[str, float] = field(default_factory=dict)

    def seconds_for(self, stream: str) -> float:
        """In seconds. Raises PurgeError for a stream that holds nothing by task."""
        unknown = set(self.streams) - set(_subjects_of_task(("t", "t")))
        if unknown:
            raise PurgeError(
                f"no such stream to purge: {', '.join(sorted(unknown))}; there are "
                f"{', '.join(_subjects_of_task(('t', 't')))}"
            )
        if stream in (GATEWAY, subjects.JOURNAL_STREAM) or stream.startswith(PUBLISHED):
            # The journal is made of the inboxes: what went from it alone would be copied there again.
            return max(self.default_s, *self.streams.values(), 0)
        return self.streams.get(stream, self.default_s)

    @property
    def shortest_s(self) -> float:
        """When the first stream lets go of a task."""
        return min(self.seconds_for(stream) for stream in _subjects_of_task(("t", "t")))


@dataclass(frozen=True, slots=True)
class PurgeOutcome:
    """Tasks that were found ended long enough ago for some stream, and messages removed by stream."""

    tasks: int
    messages: Mapping[str, int]


def _subjects_of_task(task: Task) -> dict[str, tuple[str, ...]]:
    """Subjects of one task in every stream, in the order in which they go."""
    if not task[0]:
        # Wildcards would stand for others' messages.
        literal = () if set(task[1].split(".")) & {"*", ">"} else (task[1],)
        return {subjects.JOURNAL_STREAM: literal, GATEWAY: literal}
    tenant, name = (subjects.check_token(part) for part in task)
    part = subjects.partition_of(name)
    filters: dict[str, tuple[str, ...]] = {}
    for service in catalog.DECIDERS:
        # First: a timer that fires into what is purged would be a message without a task.
        filters[subjects.timers_stream(service)] = (
            f"timer.{service}.set.{part}.{tenant}.{name}.>",
            f"timer.{service}.fired.{part}.{tenant}.{name}",
        )
    # A call's outcome lies in its asker's inbox: nothing is left then by which it could be asked for again.
    filters[subjects.DEAD_LETTERS_STREAM] = (f"dead.*.{part}.{tenant}.{name}", f"dead.*.{part}.{tenant}.{name}.>")
    for service in (*catalog.DOERS, *catalog.INBOXES):
        if service != "gateway":
            filters[subjects.inbox_stream(service)] = (f"mesh.*.{service}.{part}.{tenant}.{name}.*",)
    for service in catalog.DOERS:
        filters[subjects.records_stream(service)] = (f"record.{service}.{tenant}.{name}.>",)
    filters[subjects.CONTROL_STREAM] = (subjects.control_key("task", tenant, name),)
    filters[subjects.JOURNAL_STREAM] = (f"mesh.*.*.{part}.{tenant}.{name}.*",)
    if name.startswith(subjects.PUBLISHER):
        # A task that a publisher began bears its name: nobody else's stream holds the request.
        publisher = name.partition("-")[0]
        filters[subjects.published_stream(publisher)] = (f"mesh.{publisher}.gateway.{part}.{tenant}.{name}.*",)
    filters[GATEWAY] = (f"mesh.*.gateway.{part}.{tenant}.{name}.*",)
    return filters


async def purge(
    url: str,
    seed_of: Callable[[str], str],
    retention: Retention,
    *,
    now_unix_ms: int | None = None,
    dry_run: bool = False,
    ca_file: Path | None = None,
    publishers: Collection[str] | None = None,
) -> PurgeOutcome:
    """Remove what is due. seed_of: nkey seed of an identity. dry_run only counts the tasks. ca_file: TLS. publishers:
    those outside, of this mesh; None: the package's. Raises PurgeError."""
    names = policy.load_policy().publishers if publishers is None else publishers
    published = tuple(map(subjects.published_stream, names))
    as_of_unix_ms = time.time_ns() // 1_000_000 if now_unix_ms is None else now_unix_ms
    retention.seconds_for(GATEWAY)
    connect = partial(stream_reads.open_bus, url, seed_of=seed_of, ca_file=ca_file)
    try:
        async with connect(OPERATOR) as reader, connect(PROVISIONER) as remover:
            try:
                return await _purge_due(reader, remover, retention, as_of_unix_ms, published, dry_run=dry_run)
            except BusError as error:
                way = "what is gone is gone whole or found again: run it again"
                raise PurgeError(f"the broker stopped answering in the middle of the purge: {error}; {way}") from error
    except BusError as error:
        raise PurgeError(f"cannot reach the broker at {url}: {error}") from error


async def _purge_due(
    reader: JetStreamBus,
    remover: JetStreamBus,
    retention: Retention,
    now_unix_ms: int,
    published: Sequence[str],
    *,
    dry_run: bool,
) -> PurgeOutcome:
    messages: Counter[str] = Counter()
    tasks = 0
    ends, counted = await _stream_ends(remover, published), await counted_replies(reader)
    request_api = partial(_request_api, remover)
    is_counted = partial(_is_counted, reader, counted=counted)
    erasure = SessionErasure(reader, request_api, ends, _subjects_of_task, is_counted)
    sessions = await erasure.find_due(now_unix_ms)
    tasks += len(sessions) + sum(map(len, sessions.values()))
    if sessions and not dry_run:
        await erasure.erase(sessions)
        messages.update(erasure.removed)
    async for page in _all_due(reader, now_unix_ms - int(retention.shortest_s * 1000), now_unix_ms):
        tasks += len(page)
        for start in range(0, 0 if dry_run else len(page), TASKS_AT_ONCE):
            rows = list(page.items())[start : start + TASKS_AT_ONCE]
            done = (
                _remove_task(reader, remover, task, now_unix_ms - ended_unix_ms, retention, ends, counted)
                for task, ended_unix_ms in rows
            )
            for counts in await asyncio.gather(*done):
                messages.update(counts)
    if not dry_run:
        old = now_unix_ms - int(retention.seconds_for(subjects.JOURNAL_STREAM) * 1000)
        for trim in (trim_places, trim_checkpoints):
            messages.update(await trim(reader, request_api, ends))
        for trim_old in (trim_reservations, trim_logins):
            messages.update(await trim_old(reader, request_api, ends, old))
        yesterday = now_unix_ms - DAY_S * 1000
        messages.update(await trim_refused_documents(reader, request_api, ends, yesterday))
    return PurgeOutcome(tasks, dict(messages))


async def _stream_ends(bus: JetStreamBus, published: Sequence[str]) -> dict[str, int]:
    """The first sequence of every stream that this purge must not touch. Raises BusError, PurgeError."""
    return {
        stream: 1 + int((await _request_api(bus, f"STREAM.INFO.{stream}", {}))["state"]["last_seq"])
        for stream in (*_subjects_of_task(("t", "t")), *published)
    }


async def _due_tasks(bus: JetStreamBus, until_unix_ms: int) -> AsyncIterator[dict[Task, int]]:
    """Tasks that ended, or were left lying, no later than that, with that time; by pages, from the oldest on."""
    after = 0
    unended: dict[Task, None] = {}
    sessions: set[Task] = set()
    while page := await bus.read(GATEWAY, "mesh.>", after=after, limit=PAGE_SIZE):
        ended: dict[Task, int] = {}
        for stored in page:
            if stored.time_unix_ms > until_unix_ms:
                break  # Later ones are younger.
            task = _task_of_subject(stored.subject)
            if is_session_fact(stored):
                sessions.add(task)
            elif task in sessions and is_of_stranger(stored):
                continue  # What was refused under a session's id ends no session.
            if _is_end(stored):
                ended.setdefault(task, stored.time_unix_ms)
                unended.pop(task, None)
            elif task not in ended:
                unended[task] = None
        after = page[-1].sequence
        yield ended
        if page[-1].time_unix_ms > until_unix_ms:
            break
    for task in unended:
        if last_unix_ms := await _abandoned_since_unix_ms(bus, task):
            yield {task: last_unix_ms} if last_unix_ms <= until_unix_ms else {}


async def _all_due(bus: JetStreamBus, until_unix_ms: int, now_unix_ms: int) -> AsyncIterator[dict[Task, int]]:
    """Tasks, sessions, resources, and names and keys of events; these not before any lease has ended by its time,
    however short the retention, which outlasts every wait for an event."""
    async for page in _due_tasks(bus, until_unix_ms):
        yield page
    async for page in _unused_resources(bus, min(until_unix_ms, now_unix_ms - 2 * bounds.MAX_LEASE_TTL_MS)):
        yield page


async def _unused_resources(bus: JetStreamBus, until_unix_ms: int) -> AsyncIterator[dict[Task, int]]:
    """Leased resources (see lease.book), and names and keys of events, without a message since then: nobody holds them,
    or waits for them."""
    inbox = subjects.inbox_stream("planner")
    resources: dict[Task, None] = {}
    for sender, kinds in MEETINGS.items():
        async for stored in stored_messages(bus, inbox, f"mesh.{sender}.planner.>"):
            if stored.time_unix_ms > until_unix_ms:
                break  # Later ones are younger.
            if any(_is_message_of(stored, kind) for kind in kinds):
                resources[_task_of_subject(stored.subject)] = None
    for task in resources:
        last = await bus.last(inbox, _subjects_of_task(task)[inbox][0])
        if last is not None and last.time_unix_ms <= until_unix_ms:
            yield {task: last.time_unix_ms}


async def _abandoned_since_unix_ms(bus: JetStreamBus, task: Task) -> int:
    """When the last message of what never was a task was stored; 0 when it is one, ended or not, or nothing is left."""
    last_unix_ms = 0
    requests: set[int] = set()
    rejected: set[int] = set()
    is_session = False
    for subject in _subjects_of_task(task)[GATEWAY]:
        async for stored in stored_messages(bus, GATEWAY, subject):
            is_session = is_session or is_session_fact(stored)
            if is_session and is_of_stranger(stored):
                continue
            if _is_end(stored) or stored.sender == "planner":
                return 0  # What began is over when its end is told, and then it was found by that.
            if task[0] and _is_message_of(stored, TaskRequested):
                requests.add(stored.sequence)
            elif _is_message_of(stored, MessageRejected) and stored.sender == "gateway":
                rejected.add(int(json.loads(stored.body).get("sequence", 0)))
            last_unix_ms = stored.time_unix_ms
    # However old: a request that nobody could handle yet (the signer is away, the mesh was off) is a promise.
    return 0 if requests - rejected else last_unix_ms


def _is_end(stored: StoredMessage) -> bool:
    return any(_is_message_of(stored, kind) for kind in ENDING_MESSAGES.get(stored.sender, ()))


def _is_message_of(stored: StoredMessage, kind: type[Body]) -> bool:
    return stored.ce_type.startswith(f"{kind.TYPE}.v")


def _task_of_subject(subject: str) -> Task:
    """The task of a subject; one that is no task's (publishers choose its end) stands for itself, without a tenant."""
    try:
        address = subjects.parse(subject)
    except subjects.SubjectError:
        return "", subject
    return address.tenant, address.task


async def _is_counted(reader: JetStreamBus, task: Task, *, counted: Mapping[tuple[str, str], int]) -> bool:
    """True when a checkpoint of the ledger has every settlement that the task's replies tell. Raises BusError."""
    tenant, name = task
    for doer, asker in catalog.SETTLEMENT_EDGES if tenant else ():
        place = f"{subjects.partition_of(name)}.{tenant}.{name}.*"
        stream, subject = subjects.inbox_stream(asker), f"mesh.{doer}.{asker}.{place}"
        async for stored in stored_messages(reader, stream, subject, after=counted.get((doer, asker), 0)):
            if SETTLED_FIELD in stored.body:
                return False
    return True


async def _remove_task(
    reader: JetStreamBus,
    bus: JetStreamBus,
    task: Task,
    age_ms: int,
    retention: Retention,
    ends: Mapping[str, int],
    counted: Mapping[tuple[str, str], int],
) -> dict[str, int]:
    """One task from every stream that need not hold it any longer. Raises BusError, PurgeError."""
    counts: dict[str, int] = {}
    if not await _is_counted(reader, task, counted=counted):
        return counts
    for stream, filters in _subjects_of_task(task).items():
        if age_ms < retention.seconds_for(stream) * 1000 or stream not in ends:
            continue  # Of a publisher that policy no longer names, the stream's own bound of age takes it.
        for subject in filters:
            answer = await _request_api(bus, f"STREAM.PURGE.{stream}", {"filter": subject, "seq": ends[stream]})
            counts[stream] = counts.get(stream, 0) + int(answer.get("purged", 0))
    return counts


async def _request_api(bus: JetStreamBus, request: str, body: Mapping[str, object]) -> dict[str, Any]:
    """One request to the broker's API. Raises BusError, PurgeError."""
    reply = await bus.request(f"{API}{request}", json.dumps(body).encode(), timeout_s=TIMEOUT_S)
    answer: dict[str, Any] = json.loads(reply.body)
    if "error" in answer:
        refused = f"the broker refused {request} {dict(body)}: {answer['error'].get('description')}"
        raise PurgeError(f"{refused}; run the provisioner (start the mesh once), then again")
    return answer


# Command


def parse_duration(text: str) -> float:
    """`30d`, `12h`. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if match is None:
        raise ValueError(f"{text!r} is no time: write it as 30d or 720h")
    return int(match[1]) * UNITS_S[match[2]]


def retention_of(default: str, per_stream: Sequence[str]) -> Retention:
    """From the command line. Raises ValueError, PurgeError."""
    pairs = (pair.partition("=") for pair in per_stream)
    streams = {name: parse_duration(value) for name, _, value in pairs}
    retention = Retention(parse_duration(default), streams)
    if retention.shortest_s < MIN_RETENTION_S:
        raise ValueError(
            f"a retention below {MIN_RETENTION_S // DAY_S}d could remove what a grant that still holds leans on; "
            f"write {MIN_RETENTION_S // DAY_S}d or more"
        )
    return retention


def _resolve_target(options: argparse.Namespace) -> tuple[str, Path, Path | None]:
    """Address, and the folders with the keys and of files of one's own. Raises PurgeError."""
    if options.nats:
        return options.nats, options.identity, options.config
    try:
        mesh = json.loads((options.data / "mesh.json").read_text())
        config = options.config or mesh.get("config_dir") or None
        return mesh["nats_url"], Path(mesh["identity_dir"]), Path(config) if config else None
    except (OSError, ValueError, KeyError) as error:
        way = "name its directory with --data, or the broker and the folder of its keys with --nats and --identity"
        raise PurgeError(f"no mesh has run in {options.data} ({error}); {way}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 it could not be done (the message says why and what to do), 2 wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m bulkhead_infra.nats.purge",
        description="Remove ended tasks after their retention from every inbox, the journal, records, timers, halts "
        "and dead letters, and from the gateway's inbox what never became a task. Tasks that have not ended, and those "
        "that ended later, are left as they are. Blobs stay, but for deleted sessions and unreadable documents. A "
        "purged task's id is free: its Idempotency-Key begins a new one.",
    )
    parser.add_argument("--data", type=Path, default=Path(".bulkhead"), help="directory of a running mesh")
    parser.add_argument("--nats", help="a broker's URL in place of --data; needs --identity")
    parser.add_argument("--identity", type=Path, metavar="DIR", help="keys of the operator and the provisioner")
    parser.add_argument("--config", type=Path, metavar="DIR", help="files of one's own, if the mesh has such a folder")
    parser.add_argument("--retention", default="30d", metavar="TIME", help="after a task's end, e.g. 30d (the default)")
    parser.add_argument("--stream", action="append", default=[], metavar="STREAM=TIME", help="another one for a stream")
    parser.add_argument("--dry-run", action="store_true", help="count the tasks that are due, remove nothing")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    options = parser.parse_args(argv)
    if options.nats and options.identity is None:
        parser.error("--nats needs --identity")
    try:
        retention = retention_of(options.retention, options.stream)
        url, folder, config = _resolve_target(options)
        seed_of, ca_file = partial(keys.nkey_seed, folder), ca_beside(folder)
        publishers = load_identities(config).publishers
        done = asyncio.run(
            purge(url, seed_of, retention, dry_run=options.dry_run, ca_file=ca_file, publishers=publishers)
        )
    except (PurgeError, KeyFileError, policy.IdentityPolicyError) as error:
        print(f"cannot purge: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        parser.error(str(error))
    total = sum(done.messages.values())
    if options.json:
        print(json.dumps({"tasks": done.tasks, "messages": done.messages, "dry_run": options.dry_run}))
    elif options.dry_run:
        print(f"{done.tasks} ended tasks are due")
    else:
        print(f"{done.tasks} ended tasks were due; {total} messages removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
