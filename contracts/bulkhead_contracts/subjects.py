"""The subject grammar: `mesh.<from>.<to>.<partition>.<tenant>.<task>.<key>`, and its siblings.

mesh.*   stored messages; <to> names the inbox stream; <key>: `-`, but of a doer's outcome that of the call, and of
         doors' notes that of the write (ADR 0045)
rpc.*    request/reply, same tokens without a key, not stored
live.<from>.<tenant>.<task>            progress and token deltas, not stored
blob.<author>.<tenant>.<sha256>        content
record.<service>.<tenant>.<task>.<key> outcome of a doer's call
cache.<service>.<tenant>.<place>       answer that may be given again
timer.<service>.set|fired.<partition>.<tenant>.<task>[.<key>]
dead.<service>.<partition>.<tenant>.<task>   dead letters
prompt.<tenant>.<prompt>.<number>      version of a tenant's prompt, written once
release.<tenant>.<label>.<number>      what a label stands for, written once
workflow.<tenant>.<name>.<number>      version of a workflow, written once; with `.<place>` a fact about it
events.<tenant>.<name>.<task>          what outside subscribers are told; a name has two tokens: task.ended
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

from bulkhead_contracts.bounds import PARTITIONS

PUBLISHER = "pub_"
"""How the names of outside publishers begin."""
SUBSCRIBER = "sub_"
"""How the names of outside subscribers begin."""
NO_KEY = "-"
"""Key of every stored message that is neither the outcome of a call nor a note about a write."""
DOORS = "doors"
"""The service that opens tasks for outside agents; their ids begin with its name and a dash."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DEPTHS = {"mesh": 7, "rpc": 6}
_REMEMBERED = 4096
"""Subjects and tokens: a task's few come again with each of its messages."""
_NO_TOKEN = re.compile(r"[^A-Za-z0-9_-]")


class SubjectError(ValueError):
    """A subject or token that does not fit the grammar."""


@lru_cache(maxsize=_REMEMBERED)
def check_token(value: str) -> str:
    """`value` when it is one legal subject token; raises SubjectError otherwise."""
    if not _TOKEN.fullmatch(value):
        raise SubjectError(f"not a subject token: {value[:80]!r}; use 1-64 of A-Z a-z 0-9 _ -")
    return value


def partition_of(task: str) -> int:
    """The partition of a task: blake2b(task) mod PARTITIONS; equal in every language and process."""
    digest = hashlib.blake2b(task.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % PARTITIONS


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed `mesh.` or `rpc.` subject."""

    plane: str
    sender: str
    receiver: str
    partition: int
    tenant: str
    task: str
    key: str = NO_KEY

    def __str__(self) -> str:
        place = f"{self.plane}.{self.sender}.{self.receiver}.{self.partition}.{self.tenant}.{self.task}"
        return f"{place}.{self.key}" if self.plane == "mesh" else place


@lru_cache(maxsize=_REMEMBERED)
def mesh_subject(sender: str, receiver: str, tenant: str, task: str, key: str = NO_KEY) -> str:
    """Subject of a stored message. key: of the call whose outcome it is."""
    place = f"{partition_of(task)}.{check_token(tenant)}.{check_token(task)}"
    return f"mesh.{check_token(sender)}.{check_token(receiver)}.{place}.{check_token(key)}"


def rpc_subject(sender: str, receiver: str, tenant: str, task: str) -> str:
    """Subject of a request."""
    place = f"{partition_of(task)}.{check_token(tenant)}.{check_token(task)}"
    return f"rpc.{check_token(sender)}.{check_token(receiver)}.{place}"


def live_subject(sender: str, tenant: str, task: str) -> str:
    """Subject of unstored progress."""
    return f"live.{check_token(sender)}.{check_token(tenant)}.{check_token(task)}"


def abandoned_subject(tenant: str, task: str) -> str:
    """Subject of the word that nobody follows a call any more: apart, so that no model gateway wakes for the rest of
    what doors says live."""
    return f"{live_subject(DOORS, tenant, task)}.abandoned"


def blob_subject(author: str, tenant: str, sha256: str) -> str:
    """Subject under which a blob is stored once."""
    return f"blob.{check_token(author)}.{check_token(tenant)}.{check_token(sha256)}"


def record_subject(service: str, tenant: str, task: str, key: str) -> str:
    """Subject of a doer's claim and outcome for one idempotency key."""
    return f"record.{check_token(service)}.{check_token(tenant)}.{check_token(task)}.{check_token(key)}"


def cache_entry(service: str, tenant: str, place: int) -> str:
    """Subject of one place in a tenant's cache; what is stored there replaces what was."""
    return f"cache.{check_token(service)}.{check_token(tenant)}.{place}"


def timer_set(service: str, tenant: str, task: str, key: str) -> str:
    """Subject of a schedule; one per key, so that setting it again replaces it."""
    place = f"{partition_of(task)}.{check_token(tenant)}.{check_token(task)}"
    return f"timer.{check_token(service)}.set.{place}.{check_token(key)}"


def timer_fired(service: str, tenant: str, task: str) -> str:
    """Target of a schedule; the inbox sources it as `mesh.<service>.<service>...`."""
    return f"timer.{check_token(service)}.fired.{partition_of(task)}.{check_token(tenant)}.{check_token(task)}"


def dead_letter_subject(service: str, tenant: str, task: str) -> str:
    """Subject of a dead letter of this service."""
    return f"dead.{check_token(service)}.{partition_of(task)}.{check_token(tenant)}.{check_token(task)}"


def event_subject(tenant: str, name: str, task: str) -> str:
    """Subject of an event of this name (`task.ended`)."""
    noun, _, verb = name.partition(".")
    return f"events.{check_token(tenant)}.{check_token(noun)}.{check_token(verb)}.{check_token(task)}"


def event_filter(tenant: str, name: str) -> str:
    """All events of this name of one tenant."""
    return event_subject(tenant, name, "-").removesuffix("-") + "*"


def prompt_version_subject(tenant: str, prompt: str, number: int | str) -> str:
    """Subject of a version of a tenant's prompt; number `*`: of all of them."""
    # No dash stands in the name of a prompt: no two have the same token.
    name = check_token(prompt.replace(".", "-"))
    return f"prompt.{check_token(tenant)}.{name}.{number}"


def release_subject(tenant: str, label: str, number: int | str) -> str:
    """Subject of a release; number `*`: of all of its label's."""
    return f"release.{check_token(tenant)}.{check_token(label)}.{number}"


def evaluation_subject(tenant: str, number: int | str) -> str:
    """Subject of a request for an evaluation; number `*`: of all of them."""
    return f"evaluation.{check_token(tenant)}.{number}"


def evaluation_report_subject(tenant: str, number: int) -> str:
    """Subject of the report that ends an evaluation."""
    return f"{evaluation_subject(tenant, number)}.report"


def workflow_subject(tenant: str, name: str, number: int | str, place: int = 0) -> str:
    """Subject of a version of a workflow, or of the fact at a place about it; number `*`: of all versions."""
    subject = f"workflow.{check_token(tenant)}.{check_token(name)}.{number}"
    return f"{subject}.{place}" if place else subject


def task_filter(receiver: str, tenant: str, task: str) -> str:
    """Everything of one task in one inbox."""
    return f"mesh.*.{check_token(receiver)}.{partition_of(task)}.{check_token(tenant)}.{check_token(task)}.*"


def may_open(sender: str, task: str) -> bool:
    """True if this sender may begin a task of this id: those of publishers and of doors begin with the sender's
    name and a dash (a name has none), so that each can occupy nobody else's.
    """
    if sender.startswith(PUBLISHER) or sender == DOORS:
        return task.startswith(f"{sender}-")
    return not is_of_doors(task)


def published_task(sender: str, tenant: str, key: str) -> str:
    """The id of the task that a publisher asks for under a key of its own: the same key is the same task."""
    digest = hashlib.blake2b(f"{sender}/{tenant}/{key}".encode(), digest_size=16, person=b"bulkhead-pub").digest()
    return f"{sender}-{base64.b32encode(digest).decode().lower()[:25]}"


def published_event(sender: str, tenant: str, event_id: str) -> str:
    """The id in the mesh of an event that a publisher tells under an id of its own, in the place of a task."""
    return published_task(sender, tenant, f"event/{event_id}")


def is_of_doors(task: str) -> bool:
    """True if doors opens the tasks of such ids, and nobody else."""
    return task.startswith(f"{DOORS}-")


def inbox_stream(receiver: str) -> str:
    """Name of the stream that holds `mesh.*.<receiver>.>`."""
    return f"INBOX_{receiver.upper()}"


def published_stream(publisher: str) -> str:
    """Name of the stream that holds what an outside publisher says; the gateway's inbox copies it from there."""
    return f"PUBLISHED_{publisher.removeprefix(PUBLISHER).upper()}"


def timers_stream(service: str) -> str:
    """Name of the stream that holds a service's schedules."""
    return f"TIMERS_{service.upper()}"


def records_stream(service: str) -> str:
    """Name of the stream that holds a doer's claims and outcomes."""
    return f"RECORDS_{service.upper()}"


def durable_name(service: str, shard: int) -> str:
    """Name of the durable consumer of one shard of an inbox."""
    return f"{service}-{shard}"


@lru_cache(maxsize=_REMEMBERED)
def parse(subject: str) -> Address:
    """Parse a `mesh.` or `rpc.` subject; raises SubjectError when it lies about its partition."""
    parts = subject.split(".")
    if len(parts) != _DEPTHS.get(parts[0]):
        raise SubjectError(f"not a mesh subject: {subject[:200]!r}")
    plane, sender, receiver, partition, tenant, task, *keys = parts
    for part in (sender, receiver, tenant, task, *keys):
        check_token(part)
    # As text: "07" and digits of other scripts are numbers too, and would be other subjects for the same address.
    if partition != str(partition_of(task)):
        raise SubjectError(f"partition {partition[:8]!r} is not the partition of task {task!r}")
    return Address(plane, sender, receiver, int(partition), tenant, task, *keys)


RESERVED_TENANTS = frozenset({"_", "checkpoint", "ledger", "limits", "places"})
"""Stand for a tenant in facts of the mesh's own: budget's books, the gateway's places. A tenant of such a name could
choose a task id that is the subject of everybody's book."""
JOURNAL_STREAM = "JOURNAL"
BLOBS_STREAM = "BLOBS"
CACHE_STREAM = "CACHE"
CONTROL_STREAM = "KV_CONTROL"
PROMPTS_STREAM = "PROMPTS"
DEAD_LETTERS_STREAM = "DEAD_LETTERS"
EVENTS_STREAM = "EVENTS"


EVERYBODY = "_"
"""Stands for a tenant where there has to be one: of what is everybody's. One of RESERVED_TENANTS."""


@lru_cache(maxsize=_REMEMBERED)
def as_token(name: str) -> str:
    """A name as one subject token, for people to read: models, agents and features may have dots and more in theirs,
    and two of them (`a.b`, `a-b`) may look alike here."""
    return _NO_TOKEN.sub("-", name)[:64]


def halt_key(scope: str, tenant: str, name: str) -> str:
    """Subject of the entry that halts something, for one tenant or ("") for everybody; of another name another one."""
    return control_key(scope, *_key_tokens(tenant, name))


def breaker_key(scope: str, tenant: str, name: str) -> str:
    """Subject of a breaker's entry; of another name another one."""
    return control_key("breaker", scope, *_key_tokens(tenant, name))


def _key_tokens(tenant: str, name: str) -> tuple[str, ...]:
    """A name that is no token has a digest of its own beside what can be read of it: no other name's place has so many
    tokens and is the same."""
    if _TOKEN.fullmatch(name):
        return (tenant, name) if tenant else (name,)
    return tenant or EVERYBODY, as_token(name), hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def control_key(scope: str, *names: str) -> str:
    """Subject of one control entry: scope `task` with tenant and task id, the others with their name."""
    return ".".join(("$KV.CONTROL", check_token(scope), *(check_token(name) for name in names)))
