"""Bodies that programs outside write read the same to everybody."""

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead.runtime.consume.inbound import read_message
from bulkhead.runtime.errors import Unreadable
from bulkhead_contracts import subjects
from bulkhead_contracts.envelope import Envelope

TASK = "pub_shop-t1"
HEAD = Envelope(id="1" * 32, type="mesh.task.requested.v2", source="pub_shop", time_unix_ms=1)


def message_of(body: bytes) -> StoredMessage:
    subject = subjects.mesh_subject("pub_shop", "gateway", "acme", TASK)
    return StoredMessage(subject, HEAD.to_headers(), body, 1, 1)


def test_a_key_that_is_there_twice_is_refused() -> None:
    assert read_message(message_of(b'{"objective": "a"}'), "gateway").task == TASK
    with pytest.raises(Unreadable, match="holds a key twice"):
        read_message(message_of(b'{"objective": "a", "objective": "b"}'), "gateway")
