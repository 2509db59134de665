"""Policy and catalog become rights: who may send, hear or serve which subject, and in which account it lives.

In: an IdentityPolicy and how many shards each inbox has. Out: one `Right` per subject and identity. Pure, and
the only place that knows which subjects a use stands for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from bulkhead_contracts import catalog, subjects
from bulkhead_infra.identity.policy import BACKUP, OPERATOR, PROVISIONER, IdentityPolicy, Use

MESH = "MESH"
"""The account that owns all streams."""
API = "$JS.API."
AUTH_SUBJECT = "$SYS.REQ.USER.AUTH"
"""On which the broker asks about logins, in the account of who answers."""
LOCAL_API = "JSMESH.API."
"""The API by its name in a service's account: its own `$JS.API` would be that of an account without streams."""

Kind = Literal["send", "hear", "serve"]
Answer = Literal["one", "stream", "none"]


@dataclass(frozen=True, slots=True)
class Right:
    """`identity` may send to, hear, or serve `subject`, which lives in account `home`."""

    identity: str
    kind: Kind
    subject: str
    home: str = MESH
    answer: Answer = "one"

    @property
    def local_subject(self) -> str:
        """The subject as the identity's own account calls it."""
        return LOCAL_API + self.subject.removeprefix(API) if self.subject.startswith(API) else self.subject


def account_of(identity: str) -> str:
    """The NATS account of an identity; the provisioner and the backup work where the streams are."""
    if identity in (PROVISIONER, BACKUP):
        return MESH
    return f"SVC_{identity.upper()}" if identity in catalog.EVERY_SERVICE else identity.upper()


def inbox_prefix(identity: str) -> str:
    """Under which an identity gets its answers."""
    return f"_INBOX_{identity}"


def derive_rights(policy: IdentityPolicy, shards: Mapping[str, int]) -> tuple[Right, ...]:
    """All rights of all who do not work where the streams are. shards: of inboxes that have more than one."""
    granted: list[Right] = []
    for name, service in policy.services.items():
        granted.extend(_edge_rights(name))
        granted.extend(_rights_of_uses(name, service.uses, shards.get(name, 1)))
        granted.extend(_read_right(name, subjects.inbox_stream(inbox)) for inbox in service.reads)
        for live_source in service.hears:
            granted.append(Right(name, "hear", f"live.{live_source}.>", account_of(live_source)))
    granted.extend(_rights_of_uses(OPERATOR, policy.operator.uses, 0))
    for name, publisher in policy.publishers.items():
        for sender, receiver in sorted(catalog.MESH_EDGES):
            if sender == catalog.PUBLISHER:
                granted.append(Right(name, "send", f"mesh.{name}.{receiver}.*.{publisher.tenant}.*.{subjects.NO_KEY}"))
    for name, worker in policy.workers.items():
        for sender, receiver in sorted(catalog.RPC_EDGES):
            if sender == catalog.OUTSIDE_WORKER:
                subject = f"rpc.{name}.{receiver}.*.{worker.tenant}.>"
                granted.append(Right(name, "send", subject, account_of(receiver)))
    for name in policy.subscribers:
        durable = f"{subjects.EVENTS_STREAM}.{name}"
        granted.extend(_pull_rights(name, durable))
        # To have its events again, from a sequence on.
        granted.append(Right(name, "send", f"{API}CONSUMER.RESET.{durable}"))
    return tuple(dict.fromkeys(granted))


def _edge_rights(name: str) -> Iterator[Right]:
    for sender, receiver in sorted(catalog.MESH_EDGES):
        if sender == name:
            yield Right(name, "send", f"mesh.{sender}.{receiver}.>")
    for sender, receiver in sorted(catalog.RPC_EDGES):
        if sender == name:
            yield Right(name, "send", f"rpc.{sender}.{receiver}.>", account_of(receiver))
        if receiver == name:
            yield Right(name, "serve", f"rpc.*.{name}.>", account_of(name))


def _rights_of_uses(name: str, uses: frozenset[Use], shards: int) -> Iterator[Right]:
    for use in sorted(uses):
        yield from _rights_of_use(name, use, shards)


def _rights_of_use(name: str, use: Use, shards: int) -> Iterator[Right]:
    inbox = subjects.inbox_stream(name)
    match use:
        case Use.INBOX:
            for shard in range(shards):
                yield from _pull_rights(name, f"{inbox}.{subjects.durable_name(name, shard)}")
        case Use.INBOX_HISTORY:
            yield _read_right(name, inbox)
        case Use.TIMERS:
            # Only the schedules: what fires is the broker's to say.
            yield Right(name, "send", f"timer.{name}.set.>")
        case Use.RECORDS:
            yield Right(name, "send", f"record.{name}.>")
            yield _read_right(name, subjects.records_stream(name))
            # Of what others are told, the outcomes that it told itself.
            for asker in sorted(catalog.askers_of(name)):
                yield Right(name, "send", f"{API}DIRECT.GET.{subjects.inbox_stream(asker)}.mesh.{name}.{asker}.>")
        case Use.RESPONSE_CACHE:
            yield Right(name, "send", f"cache.{name}.>")
            yield _read_right(name, subjects.CACHE_STREAM)
        case Use.BLOBS_WRITE:
            yield Right(name, "send", f"blob.{name}.>")
            yield _read_right(name, subjects.BLOBS_STREAM)
        case Use.BLOBS_READ:
            yield _read_right(name, subjects.BLOBS_STREAM)
        case Use.EVENTS_WRITE:
            yield Right(name, "send", "events.>")
        case Use.LIVE_WRITE:
            yield Right(name, "send", f"live.{name}.>", account_of(name), answer="none")
        case Use.CONTROL_READ:
            yield _read_right(name, subjects.CONTROL_STREAM)
            yield Right(name, "hear", "control.live.>")
            # With its counts the broker tells its time.
            yield Right(name, "send", f"{API}STREAM.INFO.{subjects.CONTROL_STREAM}")
        case Use.CONTROL_WRITE:
            yield Right(name, "send", "$KV.CONTROL.>")
        case Use.PROMPTS_READ:
            yield _read_right(name, subjects.PROMPTS_STREAM)
        case Use.RELEASES_HEAR:
            yield Right(name, "hear", "releases.live.>")
        case Use.PROMPTS_WRITE:
            yield Right(name, "send", "prompt.>")
            yield Right(name, "send", "release.>")
            yield Right(name, "send", "evaluation.>")
            yield Right(name, "send", "workflow.>")
        case Use.DEAD_LETTERS_WRITE:
            yield Right(name, "send", f"dead.{name}.>")
        case Use.DEAD_LETTERS_READ:
            yield _read_right(name, subjects.DEAD_LETTERS_STREAM)
        case Use.JOURNAL_READ:
            yield _read_right(name, subjects.JOURNAL_STREAM)
        case Use.INBOXES_READ:
            yield from (_read_right(name, subjects.inbox_stream(service)) for service in catalog.INBOXES)
        case Use.COUNTS:
            for stream in catalog.COUNTED_STREAMS:
                yield Right(name, "send", f"{API}STREAM.INFO.{stream}")
            for service in catalog.INBOXES:
                yield Right(name, "send", f"{API}CONSUMER.INFO.{subjects.inbox_stream(service)}.*")
            # What waits for outside subscribers; not what it is.
            yield Right(name, "send", f"{API}CONSUMER.INFO.{subjects.EVENTS_STREAM}.*")
        case Use.STREAM_INFO:
            yield Right(name, "send", f"{API}STREAM.INFO.*")
            yield Right(name, "send", f"{API}CONSUMER.INFO.*.*")
        case Use.LOGINS:
            yield Right(name, "serve", AUTH_SUBJECT, account_of(name))
        case Use.REDRIVE:
            yield from (Right(name, "send", f"mesh.*.{service}.>") for service in catalog.INBOXES)


def _pull_rights(name: str, durable: str) -> Iterator[Right]:
    """durable: `<stream>.<its name>`."""
    yield Right(name, "send", f"{API}CONSUMER.MSG.NEXT.{durable}", answer="stream")
    yield Right(name, "send", f"{API}CONSUMER.INFO.{durable}")
    yield Right(name, "send", f"$JS.ACK.{durable}.>", answer="none")


def _read_right(name: str, stream: str) -> Right:
    return Right(name, "send", f"{API}DIRECT.GET.{stream}", answer="stream")
