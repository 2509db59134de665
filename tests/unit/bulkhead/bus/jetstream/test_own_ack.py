"""After a conflict a publisher looks whether it met its own message, where it may read."""

from typing import Any

import pytest

from bulkhead.bus import wire
from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import StoredMessage, WrongLastSequence
from bulkhead_contracts import subjects


@pytest.mark.parametrize(("receiver", "key", "looked"), [("doors", "-", 1), ("gateway", "-", 0), ("gateway", "c1", 1)])
async def test_a_publisher_looks_for_its_own_message_in_no_other_service_s_inbox(
    monkeypatch: pytest.MonkeyPatch, receiver: str, key: str, looked: int
) -> None:
    looks: list[str] = []
    stream = subjects.inbox_stream(receiver)

    async def refuse(*_: Any) -> None:
        raise wire.StreamWrongLastSequence("wrong last sequence", stream)

    async def last(_: Any, stream: str, subject: str) -> StoredMessage | None:
        looks.append(stream)
        return None

    monkeypatch.setattr(JetStreamBus, "_store_in_window", refuse)
    monkeypatch.setattr(JetStreamBus, "last", last)
    monkeypatch.setattr(JetStreamBus, "last_on", last)
    bus = object.__new__(JetStreamBus)
    bus._service = "doors"
    with pytest.raises(WrongLastSequence):
        await bus.publish(f"mesh.doors.{receiver}.1.t.x.{key}", b"", {}, "1", expect_last_on_subject=0)
    assert len(looks) == looked, "a denied read is a violation at the broker, and noise among the signs of an attack"
