"""A recorded history: one task's journal and the contents that its deciders read, as JSON Lines."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bulkhead.bus.port import Stored
from bulkhead.flow import Decider
from bulkhead.runtime import inbound
from bulkhead.runtime.inbound import Unreadable
from bulkhead_contracts.result import ContentRef

Logics = Mapping[str, Mapping[int, Decider[Any]]]


async def save(
    path: Path, journal: Sequence[Stored], logics: Logics, fetch: Callable[[ContentRef], Awaitable[str]]
) -> None:
    """Write the messages, then every content that a decision needs."""
    wanted: dict[str, ContentRef] = {}
    for stored in journal:
        service = stored.subject.split(".")[2]
        if service not in logics:
            continue
        try:
            message = inbound.read(stored, service)
        except Unreadable:
            continue
        wanted |= {ref.sha256: ref for ref in logics[service][message.envelope.logic].wants(message.body)}
    lines = [
        {
            "subject": one.subject,
            "headers": dict(one.headers),
            "body": one.body.decode(),
            "sequence": one.sequence,
            "time_unix_ms": one.time_unix_ms,
        }
        for one in journal
    ]
    lines += [{"sha256": digest, "text": await fetch(ref)} for digest, ref in wanted.items()]
    path.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))


def load(path: Path) -> tuple[list[Stored], dict[str, str]]:
    """Messages in journal order, and contents by digest."""
    journal, texts = [], {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if "sha256" in row:
            texts[row["sha256"]] = row["text"]
        else:
            journal.append(
                Stored(row["subject"], row["headers"], row["body"].encode(), row["sequence"], row["time_unix_ms"])
            )
    return journal, texts
