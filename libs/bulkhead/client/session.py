"""A session: a conversation over tasks, which remembers what was said before.

In: what a person says. Out: tasks, and their results. Raises as Mesh does.
"""

import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from bulkhead.client import request_checks
from bulkhead.client.result import TaskResult
from bulkhead.client.task import Task
from bulkhead.client.transport import Transport
from bulkhead.gateway_api.sessions import SessionDocument, SessionQuery
from bulkhead_contracts import bounds
from bulkhead_contracts.task_options import WrittenBy


class Session:
    """A session, opened at its first turn unless it has an id already."""

    def __init__(self, transport: Transport, session_id: str, options: Mapping[str, Any]) -> None:
        self._transport, self._options = transport, options
        self._key = str(uuid.uuid4())
        self.id = session_id

    def __repr__(self) -> str:
        return f"Session({self.id!r})"

    async def open(self) -> str:
        """The session's id; it is opened where it was not. Raises Refused, Unreachable."""
        if not self.id:
            answer = await self._transport.send("POST", "/v1/sessions", self._key, json=dict(self._options))
            self.id = self._transport.require_field(answer, "session_id")
        return self.id

    async def say(
        self,
        text: str,
        *,
        limit_usd: float | None = None,
        limit_tokens: int | None = None,
        deadline_s: float | None = None,
        written_by: WrittenBy = "person",
        task: str = "",
        replaces: str = "",
        idempotency_key: str = "",
    ) -> Task:
        """Take a turn; returns its task once it is stored durably. Limits: of this turn, in place of the session's.
        task: one of yours, submitted with the session's `conversation`, that is the turn; nothing begins then.
        replaces: task of an earlier turn whose place it takes: that turn and those after it are shown to no model
        again. Raises Refused (`turn_in_progress` until the turn before has ended), Unreachable, Unfit."""
        body: dict[str, Any] = {"text": request_checks.check_text("text", text, bounds.MAX_OBJECTIVE_CHARS)}
        limits = request_checks.check_limits(limit_usd, limit_tokens, deadline_s)
        body |= ({"limits": limits} if limits else {}) | ({"written_by": "model"} if written_by == "model" else {})
        body |= {"task": request_checks.check_task_id(task)} if task else {}
        body |= {"replaces": request_checks.check_task_id(replaces)} if replaces else {}
        answer = await self._transport.send("POST", f"{await self._path()}/turns", idempotency_key, json=body)
        return Task(self._transport, self._transport.require_field(answer, "task_id"))

    async def ask(self, text: str) -> TaskResult:
        """Take a turn and wait for its answer. Raises as `say` and `Task.result` do."""
        return await (await self.say(text)).result()

    async def fork_at(self, task_id: str, *, idempotency_key: str = "") -> "Session":
        """Another session, which begins with the turns of this one up to that of this task. Raises Refused,
        Unreachable, Unfit."""
        body = {"task_id": request_checks.check_task_id(task_id)}
        answer = await self._transport.send("POST", f"{await self._path()}/forks", idempotency_key, json=body)
        return Session(self._transport, self._transport.require_field(answer, "session_id"), self._options)

    async def show(self, before: int = 0) -> SessionDocument:
        """The session, its memory, the figures of its summaries, and a page of turns. before: `next` of the page
        with later turns. Raises Refused, Unreachable."""
        query = request_checks.check_query(SessionQuery, {"session_id": await self.open(), "before": before})
        return SessionDocument.model_validate(await self._transport.read_json(query))

    async def pin(self, fact_id: str, text: str, *, turn: int = 0) -> SessionDocument:
        """Pin a fact that every later turn is shown. turn: whose answer it was taken from; 0 for your own words.
        Raises Refused, Unreachable."""
        body = {"text": text, "turn": turn}
        answer = await self._transport.send("PUT", await self._fact_path(fact_id), json=body)
        return SessionDocument.model_validate(answer)

    async def unpin(self, fact_id: str) -> SessionDocument:
        """Pin it no longer. Raises Refused, Unreachable."""
        answer = await self._transport.send("DELETE", await self._fact_path(fact_id))
        return SessionDocument.model_validate(answer)

    async def delete(self) -> None:
        """Delete the session: it is shown no more, and a purge erases it. Raises Refused, Unreachable."""
        await self._transport.send("DELETE", await self._path())

    async def _path(self) -> str:
        return f"/v1/sessions/{quote(await self.open(), safe='')}"

    async def _fact_path(self, fact_id: str) -> str:
        name = request_checks.check_text("fact_id", fact_id, bounds.MAX_NAME_CHARS)
        return f"{await self._path()}/facts/{quote(name, safe='')}"
