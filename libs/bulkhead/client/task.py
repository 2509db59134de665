"""A task of the mesh: shown, cancelled, topped up, followed to its end over lost connections.

In: a task's id. Out: events, documents, results. Raises as Mesh does.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from bulkhead.client import request_checks
from bulkhead.client.errors import MeshError, Refused, Unreachable
from bulkhead.client.result import TaskResult
from bulkhead.client.sse import SseParser
from bulkhead.client.transport import RETRYABLE, TaskEvent, Transport
from bulkhead.gateway_api.histories import StoryDocument, StoryQuery, TimelineQuery
from bulkhead.gateway_api.operators import SpendingQuery, SpendPage
from bulkhead.gateway_api.tasks import (
    CitationDocument,
    CitationListQuery,
    CitationPage,
    CitationQuery,
    CitationRow,
    PlanDocument,
    PlanQuery,
    PushListQuery,
    PushQuery,
    TaskQuery,
)
from bulkhead.journal.story.model import Row
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import SpendKey
from bulkhead_contracts.plan import Plan

RECONNECT_MAX_S = 5.0
RECONNECT_GIVE_UP_S = 120.0
PAGE_ROWS = 100
QUOTES_AT_ONCE = 8
MAX_EXPORT_BYTES = 8 * (bounds.MAX_STORY_BYTES + bounds.MAX_EXPORT_BYTES)
"""As JSON they may grow sixfold."""
ENDED = ("task.ended", "task.rejected")
UNENDED = ("requested", "queued", "running", "paused")

OnLost = Callable[[MeshError, float], None]
"""Told why a stream is interrupted, and for how many seconds more it is tried again."""


class Task:
    """A task of the mesh."""

    def __init__(self, transport: Transport, task_id: str) -> None:
        self._transport = transport
        self.id = task_id

    def __repr__(self) -> str:
        return f"Task({self.id!r})"

    async def show(self) -> dict[str, Any]:
        """Everything that the gateway knows about the task now, as JSON: the fields of TaskDocument, among them status,
        answer, answered, steps and usage (money in micro US dollars). Raises Refused (404), Unreachable.
        """
        return await self._transport.read_json(TaskQuery(task_id=self.id))

    async def citations(self) -> dict[str, Any]:
        """The `[#marker]`s of the answer, in its order, and the document, tool or step that each names: the fields of
        CitationPage. `result` has the passages, too. Raises Refused, Unreachable.
        """
        return await self._transport.read_json(CitationListQuery(task_id=self.id))

    async def set_push(self, config_id: str, url: str, token: str = "", form: str = "1.0") -> dict[str, Any]:
        """Have its states posted to a URL, in A2A's form; the same again changes nothing. Raises Refused."""
        path, body = self._push_path(config_id), {"url": url, "token": token, "form": form}
        return await self._transport.send("PUT", path, json=body)

    async def push_configs(self) -> dict[str, Any]:
        """Addresses to which its states are posted."""
        return await self._transport.read_json(PushListQuery(task_id=self.id))

    async def push_config(self, config_id: str) -> dict[str, Any]:
        """One of them. Raises Refused (404)."""
        return await self._transport.read_json(PushQuery(task_id=self.id, config_id=config_id))

    async def delete_push(self, config_id: str) -> dict[str, Any]:
        """Have nothing more posted there; one that is not there is deleted already."""
        return await self._transport.send("DELETE", self._push_path(config_id))

    def _push_path(self, config_id: str) -> str:
        return f"/v1/tasks/{self.id}/push/{quote(config_id, safe='')}"

    async def cite(self, marker: str) -> dict[str, Any]:
        """The text behind a marker, from the version of the document that was cited: the fields of CitationDocument.
        Raises Unfit, Refused (404), Unreachable.
        """
        query = CitationQuery(task_id=self.id, marker=request_checks.check_marker(marker))
        return await self._transport.read_json(query)

    async def why(self, *, whole: bool = False) -> StoryDocument:
        """Account of what it did and why: `text` for people (one screen, or all of it), `story` for programs, and
        whether they hold texts (`content`): those are for operators, and for who submitted it. Raises Refused.
        """
        return await self._transport.read_reply(StoryQuery(task_id=self.id, all=whole))

    async def timeline(self) -> AsyncGenerator[Row, None]:
        """Its messages and calls in order: times in milliseconds, costs in micro US dollars. Raises Refused."""
        after = 0
        while True:
            page = await self._transport.read_reply(TimelineQuery(task_id=self.id, limit=PAGE_ROWS, after=after))
            for row in page.rows:
                yield row
            if page.next is None or page.next <= after:
                return
            after = page.next

    async def spend(self, by: SpendKey = "model") -> SpendPage:
        """Cost of its calls of the last 31 days in micro US dollars, settled (`spent`) and `held`, by name; for
        operators and auditors. by: as in `Mesh.spend`. Raises Refused.
        """
        query = request_checks.check_query(
            SpendingQuery, {"by": by, "since": "31d", "limit": PAGE_ROWS, "tasks": self.id}
        )
        return await self._transport.read_reply(query)

    async def call(self, call_id: str) -> dict[str, Any]:
        """One call of it: what it was given, its answer, sources, attempts, versions and cost in micro US dollars: the
        fields of CallDocument. Raises Unfit, Refused (404), Unreachable.
        """
        name = request_checks.check_call_id(call_id)
        return await self._transport.request_json("GET", f"/v1/tasks/{self.id}/calls/{name}")

    async def export(self) -> bytes:
        """Its portable history, which `bulkhead replay FILE` repeats; for who may read its texts."""
        return await self._transport.fetch_file(f"/v1/tasks/{self.id}/export", MAX_EXPORT_BYTES)

    async def cancel(self, reason: str = "") -> None:
        """Ask for it to end; `events` and `result` tell when it has. Raises Refused when it has ended already."""
        checked_reason = request_checks.check_text("reason", reason, bounds.MAX_REASON_CHARS, least=0)
        await self._transport.request_json("POST", f"/v1/tasks/{self.id}/cancel", json={"reason": checked_reason})

    async def plan(self) -> PlanDocument:
        """Its plan, and whether that waits for a person's word."""
        return await self._transport.read_reply(PlanQuery(task_id=self.id))

    async def decide_plan(
        self,
        decision: str,
        sha256: str,
        reason: str = "",
        *,
        redraft: bool = False,
        plan: Plan | None = None,
        skip: str = "",
    ) -> None:
        """Approve (`approve`) its drafted plan as it was read, or with `plan` in its place; or `reject` it: the task
        ends, or (`redraft`) another draft is made by the reason. sha256: of the plan that was read. skip: `approve`
        the plan that runs without this step.

        Raises Refused (`not_in_review`, `not_skippable`, `plan_rejected`), Unreachable.
        """
        request_checks.check_choice("decision", decision, ("approve", "reject"))
        body: dict[str, Any] = {
            "decision": decision,
            "sha256": sha256,
            "reason": request_checks.check_text("reason", reason, bounds.MAX_REASON_CHARS, least=0),
            "redraft": redraft,
        }
        if skip:
            body["skip"] = skip
        if plan is not None:
            body["plan"] = {"steps": [step.model_dump(mode="json") for step in plan.steps]}
        await self._transport.request_json("POST", f"/v1/tasks/{self.id}/plan", json=body)

    async def rate(
        self, score: str, comment: str = "", *, kind: str = "rating", judge: str = "", certified: bool = False
    ) -> dict[str, Any]:
        """Say whether its answer is `good` or `bad`, and why; a later word replaces the one before. Returns the ratings
        as they stand. kind: `label` for one that is given blind; `judge`, under the key of an evaluator, for a judge's,
        whose `name@digest` is named. Raises Refused (409 before its end).
        """
        body = {
            "score": score,
            "comment": request_checks.check_text("comment", comment, bounds.MAX_REASON_CHARS, least=0),
            "kind": kind,
            "judge": judge,
            "certified": certified,
        }
        return await self._transport.send("PUT", f"/v1/tasks/{self.id}/rating", json=body)

    async def top_up(self, add: Mapping[str, int], reason: str) -> dict[str, Any]:
        """Let it spend so much more, by unit (`cost_usd_micros`, `tokens`, ...); halted at its ceiling, it goes on."""
        body = {
            "add": request_checks.check_units("add", add, least=0, empty=False, removes=False),
            "reason": request_checks.check_text("reason", reason, bounds.MAX_REASON_CHARS),
        }
        return await self._transport.send("POST", f"/v1/tasks/{self.id}/topup", json=body)

    async def events(self, last_id: str = "", on_lost: OnLost | None = None) -> AsyncGenerator[TaskEvent, None]:
        """The events of the task, from the beginning or after `last_id`, until it has ended.

        Reconnects by itself: every stored event comes once. For `text`, keep the first `offset` characters of what
        you have of that step and append `text`. on_lost is called at every pause. Raises Unreachable after two
        minutes without an answer, and at once if this Mesh never got one: then the address is wrong.
        """
        parser = SseParser(last_id)
        loop = asyncio.get_running_loop()
        pause_s, heard_at = 0.0, loop.time()
        while True:
            heard_before = parser.last_id
            try:
                # Closed at once: a caller who stops listening must not leave a connection to the garbage collector.
                async with aclosing(self._transport.stream_events(self.id, parser)) as stream:
                    async for event in stream:
                        pause_s, heard_at = 0.0, loop.time()
                        yield event
                        if event.name in ENDED:
                            return
                # A stream may end before the task does: only one that brings nothing new shows that all was seen.
                nothing_new = parser.last_id and parser.last_id == heard_before
                if nothing_new and (await self.show())["status"] not in UNENDED:
                    return
            except Unreachable as error:
                if not self._transport.reached or loop.time() - heard_at > RECONNECT_GIVE_UP_S:
                    raise
                _report_lost(on_lost, error, heard_at + RECONNECT_GIVE_UP_S - loop.time())
            except Refused as error:
                if error.status not in RETRYABLE or loop.time() - heard_at > RECONNECT_GIVE_UP_S:
                    raise
                _report_lost(on_lost, error, heard_at + RECONNECT_GIVE_UP_S - loop.time())
            pause_s = min(RECONNECT_MAX_S, 2 * pause_s + (parser.retry_ms or 200) / 2000)
            await asyncio.sleep(pause_s)

    async def wait_until_ended(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait until the task has ended; returns what `show` returns. Raises TimeoutError: the task goes on then."""
        try:
            async with asyncio.timeout(
                None if timeout_s is None else request_checks.check_seconds("timeout_s", timeout_s)
            ):
                async for _ in self.events():
                    pass
                return await self.show()
        except TimeoutError as error:
            raise TimeoutError(
                f"task {self.id} has not ended within {timeout_s:g} s: it goes on; wait for it again, or `cancel` it"
            ) from error

    async def result(self, timeout_s: float | None = None) -> TaskResult:
        """Wait until the task has ended; returns its answer with standing, cost, usage, steps and resolved citations.

        A task that failed has a result too: look at `answered` and `failure`. Each citation costs a request. Raises
        TimeoutError after timeout_s seconds (the task goes on), Refused, Unreachable.
        """
        document = await self.wait_until_ended(timeout_s)
        page = CitationPage(task_id=self.id, citations=())
        if "[#" in (document.get("answer") or ""):
            page = await self._transport.read_reply(CitationListQuery(task_id=self.id))
        requests = asyncio.Semaphore(QUOTES_AT_ONCE)
        citations = await asyncio.gather(*(self._quote_source(row, requests) for row in page.citations))
        return TaskResult.model_validate(document | {"citations": citations, "more_citations": page.more})

    async def _quote_source(self, row: CitationRow, requests: asyncio.Semaphore) -> CitationDocument:
        if row.kind == "unknown":
            note = "no accepted result of the task names it"
            return CitationDocument(**row.model_dump(), state="expired", text=None, note=note)
        async with requests:
            return await self._transport.read_reply(CitationQuery(task_id=self.id, marker=row.marker))


def _report_lost(on_lost: OnLost | None, error: MeshError, left_s: float) -> None:
    if on_lost is not None:
        on_lost(error, max(0.0, left_s))
