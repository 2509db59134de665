"""Requests of an outside publisher through a FastStream broker, typed by the catalog.

In: bodies. Out: messages in the gateway's inbox with their envelope, trace context and ids that derive from the
caller's key: a repeat is the same request. The broker holds the publisher to its tenant.
"""

import hashlib
import time
from pathlib import Path

from faststream.nats import JStream, NatsBroker
from faststream.nats.publisher.usecase import LogicPublisher
from nats.errors import Error as NatsError

from bulkhead.faststream import broker as brokers
from bulkhead.telemetry import trace
from bulkhead_contracts import catalog, envelope, subjects
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.task import TaskCancelRequested, TaskRequested
from bulkhead_contracts.types import Body

ATTEMPTS = 4
ACK_S = 5.0


class NotStored(Exception):
    """The broker has not stored the request, or nobody knows; asking again under the same key is safe."""


class Requests:
    """Requests of one publisher of policy.yaml. `broker` is its FastStream broker; it needs no handler."""

    def __init__(self, url: str, identity_file: Path | str, *, tenant: str, ca_file: Path | None = None) -> None:
        """tenant: as in the publisher's row. ca_file: TLS."""
        self._file, self._tenant = Path(identity_file), subjects.check_token(tenant)
        self.broker: NatsBroker
        self.broker, self._sender, _ = brokers.make_broker(url, self._file, ca_file)
        self._stream = subjects.published_stream(self._sender)
        self._key = b""
        heard = (TaskRequested, TaskCancelRequested)
        assert all((catalog.PUBLISHER, "gateway") in catalog.BY_TYPE[kind.TYPE].edges for kind in heard)
        subject, stream = f"mesh.{self._sender}.gateway.*.{tenant}.*.*", JStream(self._stream, declare=False)
        self._publishers: dict[type[Body], LogicPublisher] = {
            kind: self.broker.publisher(subject, stream=stream, schema=kind, title=kind.__name__, timeout=ACK_S)
            for kind in heard
        }

    def task_id(self, key: str) -> str:
        """The id of the task that is asked for under this key."""
        return subjects.published_task(self._sender, self._tenant, key)

    async def submit(self, request: TaskRequested, key: str) -> str:
        """Ask for a task; its id once the broker has stored that. The same key is the same task. Raises NotStored."""
        task = self.task_id(key)
        await self._publish_request(request, task, f"request/{task}")
        return task

    async def cancel(self, task: str, reason: str = "") -> None:
        """Ask for a task of this tenant to end. Raises NotStored."""
        await self._publish_request(TaskCancelRequested(reason=reason), task, f"cancel/{task}")

    async def _publish_request(self, body: Body, task: str, index: str) -> None:
        subject = subjects.mesh_subject(self._sender, "gateway", self._tenant, task)
        head = Envelope(
            id=envelope.derive_id(self._sender, "", index),
            type=body.ce_type(),
            source=self._sender,
            time_unix_ms=time.time_ns() // 1_000_000,
            traceparent=trace.current_traceparent(),
        )
        headers = {**head.to_headers(), "Nats-Msg-Id": envelope.message_id(self._message_key(), subject, head.id)}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._publishers[type(body)].publish(body, subject, headers, correlation_id=head.id)
                return
            except NatsError as error:
                if attempt == ATTEMPTS:
                    way = "a message outside this identity's rights is dropped without an answer; otherwise ask again"
                    raise NotStored(
                        f"the broker did not store {subject}: {error!r}; {way} with the same key"
                    ) from error

    def _message_key(self) -> bytes:
        """Key of this identity alone: nobody else can occupy an id to come."""
        self._key = (
            self._key
            or hashlib.blake2b(
                self._file.read_text().strip().encode(), digest_size=32, person=b"bulkhead-msgid"
            ).digest()
        )
        return self._key
