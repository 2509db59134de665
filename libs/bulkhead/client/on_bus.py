"""A task event straight onto the bus, by an outside publisher with an identity of its own.

In: an objective. Out: the id of a task whose request the broker has stored. The broker holds this identity to its
tenant's subjects in the gateway's inbox; who stands behind it is the gateway's policy, not what the message says.
"""

import hashlib
import secrets
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import BusUnavailable, PublishRefused
from bulkhead.client import request_checks
from bulkhead.client.errors import Closed, MeshError, Unfit, Unreachable
from bulkhead_contracts import bounds, envelope, subjects
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.outside_event import EventPublished
from bulkhead_contracts.task import TaskCancelRequested, TaskLimits, TaskRequested, TaskRequestedV1
from bulkhead_contracts.types import Body

CONNECT_TIMEOUT_S = 10.0


class BusPublisher:
    """Made by `Mesh.on_bus`; an async context manager."""

    def __init__(self, nats_url: str, identity_file: Path, publisher: str, tenant: str) -> None:
        self._url = nats_url
        self._file = identity_file
        self._sender = f"pub_{publisher}"
        self._tenant = tenant
        self._key = b""
        self._bus: JetStreamBus | None = None

    async def __aenter__(self) -> Self:
        try:
            seed = self._file.read_text().strip()
        except OSError as error:
            raise MeshError(
                f"cannot read the publisher's key {self._file}: {error.strerror}",
                "`bulkhead up` writes it to identity/ in its data directory",
            ) from error
        self._key = hashlib.blake2b(seed.encode(), digest_size=32, person=b"bulkhead-msgid").digest()
        try:
            self._bus = await JetStreamBus.connect(
                self._url, service=self._sender, nkey_seed=seed, timeout_s=CONNECT_TIMEOUT_S
            )
        except BusUnavailable as error:
            raise Unreachable(f"no broker at {self._url}: {error}", "start the mesh or check the address") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bus is not None:
            await self._bus.close()
        self._bus = None

    async def publish(
        self,
        objective: str,
        *,
        limit_usd: float | None = None,
        limit_tokens: int | None = None,
        deadline_s: float | None = None,
        tools: tuple[str, ...] = (),
        check: bool = True,
        key: str = "",
        constraints: tuple[str, ...] = (),
        contract_version: int = 2,
    ) -> str:
        """Publish a request; returns the task's id once the broker has stored it. The same `key` is the same task.

        contract_version 1 speaks the older form of the message (limit_usd and deadline_s only).
        Raises MeshError (refused), Unreachable, Unfit (a ValueError) for what cannot be asked for, Closed.
        """
        limits = request_checks.check_limits(limit_usd, limit_tokens, deadline_s)
        objective = request_checks.check_text("objective", objective, bounds.MAX_OBJECTIVE_CHARS)
        body: Body = TaskRequested(
            objective=objective,
            limits=TaskLimits(**limits),
            **request_checks.check_options(tools=tools, check=check, constraints=constraints),
        )
        request_checks.check_choice("contract_version", str(contract_version), ("1", "2"))
        if contract_version == 1:
            body = TaskRequestedV1(
                objective=objective, limit_usd=limit_usd, deadline_s=None if deadline_s is None else round(deadline_s)
            )
        task = subjects.published_task(self._sender, self._tenant, key or secrets.token_hex(16))
        await self._publish_message(body, task, f"request/{task}")
        return task

    async def publish_event(self, name: str, body_json: str = "{}", *, key: str = "", event_id: str = "") -> str:
        """Tell that something happened outside; returns the event's id in the mesh once the broker has stored it. The
        same `event_id` is the same event. Raises as `publish` does."""
        event_id = event_id or secrets.token_hex(16)
        try:
            event = EventPublished(name=name, id=event_id, key=key, body_json=body_json)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place, hint = ".".join(map(str, first["loc"])), "write a name like order.paid, and a body of JSON"
            raise Unfit(f"this is no event: {place}: {first['msg']}", hint) from error
        token = subjects.published_event(self._sender, self._tenant, event_id)
        await self._publish_message(event, token, f"event/{token}")
        return token

    async def cancel(self, task: str, reason: str = "") -> None:
        """Ask for a task of this tenant to end."""
        request_checks.check_task_id(task)
        reason = request_checks.check_text("reason", reason, bounds.MAX_REASON_CHARS, least=0)
        await self._publish_message(TaskCancelRequested(reason=reason), task, f"cancel/{task}")

    async def _publish_message(self, body: Body, task: str, index: str) -> None:
        if self._bus is None:
            raise Closed("this publisher is not open", "publish within `async with Mesh.on_bus(...) as bus`")
        head = Envelope(
            id=envelope.derive_id(self._sender, "", index),
            type=body.ce_type(),
            source=self._sender,
            time_unix_ms=time.time_ns() // 1_000_000,
        )
        subject = subjects.mesh_subject(self._sender, "gateway", self._tenant, task)
        try:
            # A repeat is dropped by its message id, or ignored by the gateway: a task's first request counts.
            message_id = envelope.message_id(self._key, subject, head.id)
            await self._bus.publish(subject, body.encode(), head.to_headers(), message_id)
        except PublishRefused as error:
            raise MeshError(
                f"the broker refused {subject}: {error}",
                "a publisher may only speak for its own tenant, to the gateway",
            ) from error
        except BusUnavailable as error:
            raise Unreachable(
                f"the broker did not answer: {error}",
                "a message outside this identity's rights is dropped without an answer; "
                "otherwise repeat with the same key",
            ) from error
