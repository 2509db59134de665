"""Which streams and durables the mesh has: data for the provisioner, derived from the catalog.

In: a Layout. Out: JSON for the JetStream API, in the order in which it must be created. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bulkhead_contracts import bounds as contract_bounds
from bulkhead_contracts import catalog, subjects
from bulkhead_infra.identity import policy
from bulkhead_infra.nats.stream_sizes import PUBLISHED, stream_bounds

PRIORITY_GROUP = "replicas"
"""As libs/bulkhead/bus/jetstream/pull_consumer.py names it."""

DUPLICATE_WINDOW_S = 120
LEAST_DUPLICATE_WINDOW_S = 0.1
"""The least there is: a blob's subject is written once anyway, so that remembering ids costs and gives nothing."""
PUBLISHED_MAX_AGE_S = 30 * 24 * 3600
"""How long a publisher's message counts towards its bound: as long as an ended task is kept, where nobody says else."""
PUBLISHED_BYTES_PER_MESSAGE = 4_096
"""A publisher's bound in messages follows from its bytes: each may be answered with a refusal, which takes room too."""
TIMERS_MAX_AGE_S = 2 * contract_bounds.MAX_TASK_DEADLINE_MS // 1000
ACK_WAIT_S = 2.5
EVENTS_MAX_AGE_S = 7 * 24 * 3600
EVENT_ACK_WAIT_S, EVENT_MAX_ACK_PENDING = 15.0, 1_000
"""A subscriber's handler has so long until its event is handed out again; so many are handed out at once."""
MAX_ACK_PENDING = 4_096
MIN_VERSION = (2, 14)
"""The nats-server that has message schedules, fast batched reads and asynchronous persistence of a derived stream."""
STORE_FORMAT = 2
"""Number of the form of what is stored, which every stream bears. Whoever changes a stored form so that tasks under it
can be neither replayed nor ended raises it; older stores have none, which is 0."""
STORE_FORMAT_KEY = "bulkhead_store_format"
FORMAT_STREAM = subjects.inbox_stream("gateway")
"""The stream whose number is read as that of the store."""
Config = dict[str, Any]
"""A JetStream API object: its shape is the broker's."""


@dataclass(frozen=True, slots=True)
class Layout:
    """shards: durables per inbox, where there is more than one. replicas: 1 on a single server.

    store_gib: disk given to the broker, of which each stream gets its share; 0: nobody said, streams that exist keep
    their bounds. ranked: replicas keep their shards by rank, which programs before ADR 0017 cannot read. publishers:
    the outside ones, each with a stream of its own. subscribers: each with a durable of its own.
    """

    shards: Mapping[str, int] = field(default_factory=dict)
    replicas: int = 1
    store_gib: int = 0
    ranked: bool = True
    publishers: tuple[str, ...] = field(default_factory=lambda: tuple(policy.load_policy().publishers))
    subscribers: Mapping[str, policy.OutsideSubscriberPolicy] = field(
        default_factory=lambda: policy.load_policy().subscribers
    )

    def with_outside(self, rules: policy.OutsidePrograms) -> "Layout":
        """The same with these programs outside in place of the package's."""
        return replace(self, publishers=tuple(rules.publishers), subscribers=rules.subscribers)

    def shards_of(self, service: str) -> int:
        """Durables of this service's inbox. Raises ValueError outside 1 to PARTITIONS."""
        count = self.shards.get(service, 1)
        if not 1 <= count <= contract_bounds.PARTITIONS:
            raise ValueError(
                f"{service}: {count} shards; there are {contract_bounds.PARTITIONS} partitions, so 1 to that many"
            )
        return count


def stream_configs(layout: Layout) -> list[Config]:
    """All streams; a source stands before what is made of it. Raises StoreTooSmall."""
    configs = [
        *(_timers_config(name, layout) for name in catalog.DECIDERS),
        *(_published_config(name, layout) for name in layout.publishers),
        *(_inbox_config(name, layout) for name in catalog.INBOXES),
        *(_records_config(name, layout) for name in catalog.DOERS),
        _blobs_config(layout),
        _cache_config(layout),
        _control_config(layout),
        _prompts_config(layout),
        _dead_letters_config(layout),
        _events_config(layout),
        _journal_config(layout),
    ]
    most = stream_bounds([config["name"] for config in configs], layout.store_gib)
    return [_with_bound(config, most[config["name"]]) for config in configs]


def _with_bound(config: Config, max_bytes: int) -> Config:
    """The stream with its share of the disk."""
    most = {"max_msgs": max_bytes // PUBLISHED_BYTES_PER_MESSAGE} if config["name"].startswith(PUBLISHED) else {}
    return {**config, "max_bytes": max_bytes, **most}


def store_format_of(config: Mapping[str, Any]) -> int:
    """The number that a stream's settings bear."""
    return int((config.get("metadata") or {}).get(STORE_FORMAT_KEY, 0))


def durable_configs(layout: Layout) -> list[tuple[str, Config]]:
    """(stream, consumer) for every shard of every service's inbox."""
    configs = []
    for name in catalog.INBOXES:
        if name == catalog.JOURNAL:
            continue  # Facts that nobody acts on.
        count = layout.shards_of(name)
        for shard in range(count):
            configs.append((subjects.inbox_stream(name), _durable_config(name, shard, count, layout)))
    return configs


def event_durable_configs(layout: Layout) -> list[Config]:
    """The consumer of every outside subscriber, which the broker holds to the events of its row."""
    return [
        {
            "durable_name": name,
            "name": name,
            "description": f"What {name} is told",
            "filter_subjects": [subjects.event_filter(row.tenant, event) for event in sorted(set(row.events))],
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": _to_nanoseconds(EVENT_ACK_WAIT_S),
            "max_deliver": -1,
            "max_ack_pending": EVENT_MAX_ACK_PENDING,
            "replay_policy": "instant",
            "num_replicas": layout.replicas,
        }
        for name, row in layout.subscribers.items()
    ]


def _stream_config(name: str, layout: Layout, description: str, **more: Any) -> Config:
    """Limits, files, no deletes by age, nothing that lets a publisher forge or erase."""
    return {
        "name": name,
        "description": description,
        "subjects": [],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "num_replicas": layout.replicas,
        "max_age": 0,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_msg_size": contract_bounds.MAX_STORED_MESSAGE_BYTES,
        "duplicate_window": _to_nanoseconds(DUPLICATE_WINDOW_S),
        "allow_direct": True,
        "allow_rollup_hdrs": False,
        "allow_msg_ttl": False,
        "allow_msg_schedules": False,
        "allow_msg_counter": False,
        "allow_atomic": False,
        "metadata": {STORE_FORMAT_KEY: str(STORE_FORMAT)},
        **more,
    }


def _inbox_config(name: str, layout: Layout) -> Config:
    config = _stream_config(
        subjects.inbox_stream(name), layout, f"What is said to {name}", subjects=[f"mesh.*.{name}.>"]
    )
    if name in catalog.DECIDERS:
        same = ".".join(f"{{{{wildcard({place})}}}}" for place in (1, 2, 3))
        fired = {"src": f"timer.{name}.fired.*.*.*", "dest": f"mesh.{name}.{name}.{same}.{subjects.NO_KEY}"}
        config["sources"] = [{"name": subjects.timers_stream(name), "subject_transforms": [fired]}]
    if name == "gateway":
        # What is said outside is copied from streams of the publishers' own, so that each fills its own bound.
        inside = sorted(sender for sender, to in catalog.MESH_EDGES if to == name and sender != catalog.PUBLISHER)
        config["subjects"] = [f"mesh.{sender}.{name}.>" for sender in inside]
        config["sources"] = [{"name": subjects.published_stream(publisher)} for publisher in layout.publishers]
    return config


def _published_config(name: str, layout: Layout) -> Config:
    stream, heard = subjects.published_stream(name), [f"mesh.{name}.gateway.>"]
    return _stream_config(
        stream, layout, f"What {name} says", subjects=heard, max_age=_to_nanoseconds(PUBLISHED_MAX_AGE_S)
    )


def _timers_config(name: str, layout: Layout) -> Config:
    # Schedules let a publisher write to any subject of their stream: hence a stream that this service alone uses.
    # The broker wants discard old with them; the bound is far beyond what live tasks can have set.
    schedules = {"discard": "old", "allow_msg_schedules": True, "allow_rollup_hdrs": True}
    stream, heard, age = subjects.timers_stream(name), [f"timer.{name}.>"], _to_nanoseconds(TIMERS_MAX_AGE_S)
    return _stream_config(stream, layout, f"What {name} wants to hear later", subjects=heard, max_age=age, **schedules)


def _records_config(name: str, layout: Layout) -> Config:
    description = f"What {name} has claimed and done"
    return _stream_config(subjects.records_stream(name), layout, description, subjects=[f"record.{name}.>"])


def _blobs_config(layout: Layout) -> Config:
    once = {"max_msgs_per_subject": 1, "discard_new_per_subject": True}
    limits = {
        "max_msg_size": contract_bounds.MAX_STORED_BLOB_BYTES,
        "duplicate_window": _to_nanoseconds(LEAST_DUPLICATE_WINDOW_S),
    }
    description = "Content by digest, written once"
    return _stream_config(subjects.BLOBS_STREAM, layout, description, subjects=["blob.>"], **once, **limits)


def _cache_config(layout: Layout) -> Config:
    # What is new takes the place of what is old, in its own place and where the stream is full: it can all be had anew.
    places = {"discard": "old", "max_msgs_per_subject": 1, "max_age": _to_nanoseconds(contract_bounds.MAX_CACHE_TTL_S)}
    window = {"duplicate_window": _to_nanoseconds(LEAST_DUPLICATE_WINDOW_S)}
    return _stream_config(
        subjects.CACHE_STREAM, layout, "Answers to give again", subjects=["cache.>"], **places, **window
    )


def _control_config(layout: Layout) -> Config:
    keys = {"subjects": ["$KV.CONTROL.>"], "max_msgs_per_subject": 1}
    live = {"src": "$KV.CONTROL.>", "dest": "control.live.>"}
    return _stream_config(subjects.CONTROL_STREAM, layout, "Halts and kill switches", **keys, republish=live)


def _prompts_config(layout: Layout) -> Config:
    once = {"max_msgs_per_subject": 1, "discard_new_per_subject": True}
    live = {"src": "release.>", "dest": "releases.live.>"}
    heard = ["prompt.>", "release.>", "evaluation.>", "workflow.>"]
    description = "Versions of prompts and workflows, evaluations, and what labels stand for"
    return _stream_config(subjects.PROMPTS_STREAM, layout, description, subjects=heard, **once, republish=live)


def _dead_letters_config(layout: Layout) -> Config:
    return _stream_config(
        subjects.DEAD_LETTERS_STREAM, layout, "Messages that could not be handled", subjects=["dead.>"]
    )


def _events_config(layout: Layout) -> Config:
    # The oldest go first: a subscriber that is away must not hold back the gateway, which tells them.
    limits = {"discard": "old", "max_age": _to_nanoseconds(EVENTS_MAX_AGE_S)}
    return _stream_config(
        subjects.EVENTS_STREAM, layout, "Events for subscribers outside", subjects=["events.>"], **limits
    )


def _journal_config(layout: Layout) -> Config:
    """A derived view: it may lag, and the oldest goes first. Lost writes are sourced again."""
    config = _stream_config(
        subjects.JOURNAL_STREAM,
        layout,
        "Everything that was said, in one stream",
        discard="old",
        sources=[{"name": subjects.inbox_stream(name)} for name in catalog.INBOXES],
        # It drops the second of two messages under one id, also where each stands in an inbox of its own: an author
        # could hide what it says. Its sources hold nothing twice; less than this the broker does not take.
        duplicate_window=_to_nanoseconds(LEAST_DUPLICATE_WINDOW_S),
    )
    del config["subjects"]
    if layout.replicas == 1:
        config["persist_mode"] = "async"  # Single servers only; with fsync each it lags by seconds.
    return config


def _durable_config(name: str, shard: int, count: int, layout: Layout) -> Config:
    config: Config = {
        "durable_name": subjects.durable_name(name, shard),
        "name": subjects.durable_name(name, shard),
        "description": f"Shard {shard} of {count}",
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": _to_nanoseconds(ACK_WAIT_S),
        "max_deliver": -1,
        "max_ack_pending": MAX_ACK_PENDING,
        "replay_policy": "instant",
        "num_replicas": layout.replicas,
    }
    if count > 1 and layout.ranked and name not in catalog.DOERS:
        # The replica of the lowest rank among those that have room: a shard stays with one replica, whose folds in
        # memory then need no read, and another is served at once when it is gone or full (ADR 0017). Doers fold
        # nothing: they take turns, or one had calls waiting for its places while another's are free.
        config |= {"priority_groups": [PRIORITY_GROUP], "priority_policy": "prioritized"}
    if count > 1:
        partitions = [p for p in range(contract_bounds.PARTITIONS) if p % count == shard]
        config["filter_subjects"] = [f"mesh.*.{name}.{p}.>" for p in partitions]
    return config


def _to_nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
