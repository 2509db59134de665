"""Reads and counts of the inboxes and of JOURNAL: messages of a subject, counts from a number on, the last copied one.

In: the connections of the operator (who reads) and of the provisioner (who asks about streams and makes counters). Out:
messages and numbers. Raises BusError throughout.
"""

import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import BusError, BusUnavailable, StoredMessage
from bulkhead.runtime.decider.history import at_its_source
from bulkhead_contracts import subjects
from bulkhead_infra.identity.rights import API
from bulkhead_infra.nats.provision import STREAM_NOT_FOUND

JOURNAL = subjects.JOURNAL_STREAM
FULL = 0.9
"""Share of its size from which on JOURNAL drops its oldest: only messages after its first can then be compared."""
COUNTER_LIVES_NS = 1_000_000_000
TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0


@asynccontextmanager
async def open_bus(
    url: str, identity: str, seed_of: Callable[[str], str], ca_file: Path | None
) -> AsyncIterator[JetStreamBus]:
    """A connection under an identity. The provisioner works where the streams are. Raises BusError."""
    seed = seed_of(identity)
    bus = await JetStreamBus.connect(
        url, service=identity, nkey_seed=seed, timeout_s=CONNECT_TIMEOUT_S, ca_file=ca_file
    )
    try:
        yield bus
    finally:
        await bus.close()


def inbox_pattern(name: str) -> str:
    """The subjects of all that is said to a service."""
    return f"mesh.*.{name}.>"


@dataclass(frozen=True, slots=True)
class StreamState:
    """Count of messages, and the number of the last one that was ever stored."""

    messages: int
    last: int


class StreamReads:
    """See the module. reader: the operator's connection; maker: the provisioner's."""

    def __init__(self, reader: JetStreamBus, maker: JetStreamBus) -> None:
        self.reader, self._maker = reader, maker

    async def has_journal(self) -> bool:
        return bool(await self._request_api(f"STREAM.INFO.{JOURNAL}", missing_ok=True))

    async def drop_journal(self) -> None:
        await self._request_api(f"STREAM.DELETE.{JOURNAL}", missing_ok=True)

    def read_all(self, stream: str, subject: str, after: int = 0) -> AsyncIterator[StoredMessage]:
        """Every message of a subject after a number, page by page."""
        return stored_messages(self.reader, stream, subject, after=max(0, after))

    async def is_trimming(self) -> bool:
        """True once JOURNAL has begun to drop its oldest. Asked after counting, since it stays full from then on."""
        journal = await self._request_api(f"STREAM.INFO.{JOURNAL}")
        return bool(0 < journal["config"].get("max_bytes", -1) * FULL <= journal["state"]["bytes"])

    async def count_by_subject(self, stream: str, pattern: str) -> dict[str, int]:
        """Count of messages by subject."""
        counts: dict[str, int] = {}
        while True:
            request = {"subjects_filter": pattern, "offset": len(counts)}
            answer = await self._request_api(f"STREAM.INFO.{stream}", request)
            page: dict[str, int] = answer["state"].get("subjects") or {}
            counts |= page
            if not page or len(counts) >= answer.get("total", 0):
                return counts

    async def count_from(self, stream: str, first: int, pattern: str = "") -> int:
        """Messages from a sequence on: what a consumer, made for the moment, would be handed."""
        name = f"count-{secrets.token_hex(8)}"
        kind = {"ack_policy": "none", "mem_storage": True, "num_replicas": 1, "inactive_threshold": COUNTER_LIVES_NS}
        begin = {"deliver_policy": "by_start_sequence", "opt_start_seq": first}
        config: dict[str, Any] = {"name": name, **kind, **begin}
        if pattern:
            config["filter_subjects"] = [pattern]
        answer = await self._request_api(f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config})
        return int(answer["num_pending"])

    async def last_copied_sequence(self, name: str) -> int:
        """The number in its inbox of the last message that JOURNAL has of it; 0 when it has none."""
        message: StoredMessage | None = await self.reader.last(JOURNAL, inbox_pattern(name))
        return at_its_source(message).sequence if message is not None else 0

    async def stream_state(self, stream: str) -> StreamState:
        state = (await self._request_api(f"STREAM.INFO.{stream}"))["state"]
        return StreamState(state["messages"], state["last_seq"])

    async def _request_api(
        self, request: str, body: dict[str, Any] | None = None, *, missing_ok: bool = False
    ) -> dict[str, Any]:
        """{} for a stream that is not there, when that is no fault."""
        answer = await self._maker.request(API + request, json.dumps(body or {}).encode(), timeout_s=TIMEOUT_S)
        content: dict[str, Any] = json.loads(answer.body)
        if "error" not in content:
            return content
        if missing_ok and content["error"].get("err_code") == STREAM_NOT_FOUND:
            return {}
        reason = content["error"].get("description", "no reason given")
        if content["error"].get("code", 0) >= 500:
            raise BusUnavailable(f"{request}: {reason}")
        raise BusError(f"{request}: {reason}; start the mesh again, which provisions what is missing")
