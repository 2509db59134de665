"""Tasks at remote agents on record: which one carries out a call, over restarts of everything.

In: the key of a call. Out: how it stands. The record lies beside those of the calls and is written before a message is
sent, so that no replica sends a second one for a call; then once more when the agent has named its task.
"""

import itertools
from typing import Literal

from pydantic import BaseModel

from bulkhead.runtime.context import Context
from bulkhead.runtime.publish.publisher import publish_persistently
from bulkhead_contracts import envelope, subjects


class RemoteTask(BaseModel):
    """number: of the message that was sent for the call, 0 for none. task: as the agent named it; "" until it did.

    stopped: `cut` by a halt that may be lifted, when a read begins anew; `cancelled` for good.
    """

    agent: str
    number: int = 0
    task: str = ""
    stopped: Literal["", "cut", "cancelled"] = ""

    def message_id(self, key: str) -> str:
        """The message's id: the same for the same call, however often it is sent."""
        return envelope.derive_id("a2a", key, self.number)


class RemoteTasks:
    """The records. Their methods raise BusError."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._serial = itertools.count()
        self._stream = subjects.records_stream(context.service)

    async def find_task(self, key: str) -> tuple[RemoteTask | None, int]:
        """Record of a call, and its sequence; None and 0 where nothing was sent."""
        stored = await self._context.bus.last(self._stream, self._record_subject(key))
        return (None, 0) if stored is None else (RemoteTask.model_validate_json(stored.body), stored.sequence)

    async def age_ms(self, key: str) -> int:
        """Time for which a call's record has stood as it is."""
        stored = await self._context.bus.last(self._stream, self._record_subject(key))
        return 0 if stored is None else self._context.clock() - stored.time_unix_ms

    async def put(self, key: str, row: RemoteTask, sequence: int, patience_s: float = 0.0) -> int:
        """Write it in place of what stands at this sequence. Raises WrongLastSequence where another was first."""
        subject, body = self._record_subject(key), row.model_dump_json().encode()
        # Of this writing alone: two replicas must not take one record for their own.
        write_identity = f"{self._context.instance}/{self._context.clock()}/{next(self._serial)}"
        message_id = envelope.message_id(self._context.message_key, f"{subject}/{write_identity}")
        headers = {"content-type": envelope.CONTENT_TYPE}
        ack = await publish_persistently(
            lambda: self._context.bus.publish(subject, body, headers, message_id, expect_last_on_subject=sequence),
            patience_s=patience_s,
        )
        return ack.sequence

    def _record_subject(self, key: str) -> str:
        tenant, task, _ = key.split(".")
        return subjects.record_subject(self._context.service, tenant, task, envelope.derive_id("a2a", key, "task"))
