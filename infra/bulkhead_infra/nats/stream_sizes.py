"""Sizes of the streams: from one number, the disk that the operator gives the broker. Pure.

In: GiB of disk; 0 where nobody said. Out: bytes by stream, which add up to no more than was given. A bound
takes no disk by itself: it makes a flood be refused with a reason, before it fills the disk.

The shares follow the measured size of a full task (infra/bulkhead_infra/capacity, whose test holds them
together), so that streams fill at about the same time. The journal, which drops its oldest, and texts, which
are never purged, take the rest.
"""

GIB = 1024**3
MIB = 1024**2
PUBLISHED = "PUBLISHED"
MIN_PUBLISHED = 4 * MIB
MIN_STORE_GIB, MAX_STORE_GIB = 4, 1024 * 1024
DEFAULT_BYTES = {
    "INBOX": 4 * GIB,
    PUBLISHED: GIB,
    "RECORDS": 4 * GIB,
    "TIMERS": 4 * GIB,
    "BLOBS": 32 * GIB,
    "CACHE": GIB,
    "KV": 256 * MIB,
    "PROMPTS": 256 * MIB,
    "DEAD": 4 * GIB,
    "EVENTS": GIB,
    "JOURNAL": 16 * GIB,
}
"""By the first word of a stream's name, where nobody said how much disk there is: enough for a laptop."""
SHARE_PERCENT = {
    "INBOX_MODEL_GATEWAY": 13,
    "INBOX_WORKER": 13,
    "INBOX_CHECKER": 7,
    "INBOX_PLANNER": 6,
    "INBOX_GATEWAY": 5,
    "INBOX_JOURNAL": 5,
    "INBOX_BUDGET": 4,
    "INBOX_RAG": 2,
    "INBOX_TOOL_EXECUTOR": 2,
    "RECORDS_TOOL_EXECUTOR": 2,
    "JOURNAL": 16,
    "BLOBS": 13,
}
"""Shares of the disk. A stream that is not named here is seldom written to, and has one hundredth."""


class StoreTooSmall(ValueError):
    """The given disk is no store for a mesh; the message says how much to give."""


def stream_bounds(names: list[str], store_gib: int = 0) -> dict[str, int]:
    """Bytes by name. Raises StoreTooSmall."""
    publishers = sum(name.startswith(PUBLISHED) for name in names)
    if not store_gib:
        most = {name: DEFAULT_BYTES[name.partition("_")[0]] for name in names}
        return {name: _publisher_share(most[name], publishers, name) for name in names}
    if not MIN_STORE_GIB <= store_gib <= MAX_STORE_GIB:
        way = "`python -m bulkhead_infra.capacity --tasks-per-day N` tells how much so many tasks need"
        raise StoreTooSmall(f"a store of {store_gib} GiB: write {MIN_STORE_GIB} to {MAX_STORE_GIB}; {way}")
    most = {name: store_gib * GIB * SHARE_PERCENT.get(name, 1) // 100 for name in names}
    return {name: _publisher_share(most[name], publishers, name) for name in names}


def _publisher_share(most: int, publishers: int, name: str) -> int:
    """All outside publishers together have one share: no more of them fill a larger part of the gateway's inbox."""
    return max(MIN_PUBLISHED, most // publishers) if name.startswith(PUBLISHED) else most
