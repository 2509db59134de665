"""Tasks and documents over the gateway's HTTP API.

In: objectives, documents. Out: receipts, event streams that survive disconnects, results. Every method raises Unfit (a
ValueError) for what cannot be asked for, before anything is sent; Refused when the mesh says no; Unreachable when
nobody answers, or something else than a mesh; Closed after `close`.
"""

import asyncio
import json
import mimetypes
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import httpx

from bulkhead.client import request_checks
from bulkhead.client.errors import Closed, MeshError, Refused, Unreachable
from bulkhead.client.on_bus import BusPublisher
from bulkhead.client.sse import EventTooLarge, Parser
from bulkhead_contracts import bounds

DEFAULT_URL = "http://127.0.0.1:8080"
TIMEOUT_S = 30.0
SILENCE_S = 60.0
"""A stream is silent for longer than its heartbeats allow: reconnect."""
RECONNECT_MAX_S = 5.0
RECONNECT_GIVE_UP_S = 120.0
POST_ATTEMPTS = 4
PAGE = 100
ENDED = ("task.ended", "task.rejected")
UNENDED = ("requested", "queued", "running", "paused")
RETRYABLE = (429, 502, 503, 504)
MAX_RETRY_AFTER_S = 60.0
"""So long a client waits by itself when it is told to come back later."""

OnLost = Callable[[MeshError, float], None]
"""Told why a stream is interrupted, and for how many seconds more it is tried again."""


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """One event of a task: name (`task.accepted`, `text`, …), its data, and the opaque id to resume after it."""

    name: str
    data: dict[str, Any]
    id: str


class Mesh:
    """A connection to a gateway: `async with Mesh(url=…, api_key=…) as mesh`. `token` is an API key or a JWT."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str = "",
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = request_checks.url(url)
        self.reached = False
        """Whether the gateway has answered anything yet."""
        timeout_s = request_checks.seconds("timeout_s", timeout_s)
        headers = {"Authorization": f"Bearer {api_key}"} if request_checks.api_key(api_key) else {}
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=headers,
            transport=transport,
            timeout=httpx.Timeout(timeout_s, connect=min(5.0, timeout_s)),
        )

    @staticmethod
    def on_bus(nats_url: str, identity_file: Path | str, publisher: str = "demo", tenant: str = "demo") -> BusPublisher:
        """A publisher with an identity of its own: `async with Mesh.on_bus(…) as bus: await bus.publish("…")`."""
        return BusPublisher(nats_url, Path(identity_file), publisher, tenant)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def submit(
        self,
        objective: str,
        *,
        limit_usd: float | None = None,
        limit_tokens: int | None = None,
        deadline_s: float | None = None,
        tools: tuple[str, ...] = (),
        check: bool = True,
        plan: Mapping[str, Any] | None = None,
        fork: Mapping[str, Any] | None = None,
        idempotency_key: str = "",
        feature: str = "",
        workflow: str = "",
    ) -> "Task":
        """Hand an objective in; returns when it is stored durably.

        fork: {"task": an ended task, "steps": of its accepted ones, those that stand unchanged in `plan`}: their
        results are taken over. feature, workflow: what its spending is counted under, and may be limited by. Without a
        key of yours a random one is used, and repeats after lost answers are never a second task.
        """
        limits = request_checks.limits(limit_usd, limit_tokens, deadline_s)
        body: dict[str, Any] = {
            "objective": request_checks.text("objective", objective, bounds.MAX_OBJECTIVE_CHARS),
            "check": bool(check),
        }
        body |= {"limits": limits} if limits else {}
        body |= {"tools": found} if (found := request_checks.tools(tools)) else {}
        body |= {"plan": request_checks.mapping("plan", plan)} if plan is not None else {}
        body |= {"fork": request_checks.mapping("fork", fork)} if fork is not None else {}
        for name, tag in (("feature", feature), ("workflow", workflow)):
            body |= {name: tag} if request_checks.tag(name, tag) else {}
        answer = await self._post("/v1/tasks", request_checks.key(idempotency_key) or str(uuid.uuid4()), json=body)
        return Task(self, self._of(answer, "task_id"))

    def task(self, task_id: str) -> "Task":
        """A task by its id; nothing is asked yet. Raises Unfit."""
        return Task(self, request_checks.task_id(task_id))

    async def tasks(self, limit: int = 20) -> list[dict[str, Any]]:
        """The tenant's newest tasks."""
        found: list[dict[str, Any]] = []
        cursor = ""
        request_checks.whole("limit", limit, 1, 1_000_000)
        while len(found) < limit:
            size = min(100, limit - len(found))
            page = await self.get("/v1/tasks", {"limit": str(size)} | ({"cursor": cursor} if cursor else {}))
            found += self._of(page, "tasks")
            cursor = page.get("next") or ""
            if not cursor:
                break
        return found

    async def add_document(self, content: Path | str | bytes, name: str = "", media_type: str = "") -> dict[str, Any]:
        """Add a document: a path, or bytes with a name. Returns the receipt once the store has answered.

        A document of the same name is replaced: then the receipt's `replaced_sha256` is the digest of what stood there.
        Raises Refused (`rejected` among its reasons), Unreachable, OSError for a file that cannot be read.
        """
        data, name = request_checks.document(content, name)
        if isinstance(data, Path):
            name = name or data.name
            data = await asyncio.to_thread(data.read_bytes)
        guessed = media_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        receipt = await self._post(
            "/v1/documents", str(uuid.uuid4()), params={"name": name}, content=data, headers={"Content-Type": guessed}
        )
        while receipt.get("outcome") == "pending":
            await asyncio.sleep(0.5)
            try:
                receipt = await self.get(receipt["status_url"])
            except Refused as error:
                if error.status != 404:
                    raise  # 404 means: not finished yet.
        return receipt

    async def documents(self) -> list[dict[str, Any]]:
        """The tenant's documents, by name: name, sha256, media_type, chunks, versions, ingested_unix_ms."""
        found: list[dict[str, Any]] = []
        after: str | None = ""
        while after is not None:
            page = await self.get("/v1/documents", {"limit": str(PAGE)} | ({"after": after} if after else {}))
            found += self._of(page, "documents")
            after = page.get("next")
        return found

    async def delete_document(self, name: str) -> dict[str, Any]:
        """Erase a document and every version of it; returns {name, outcome, versions} once the store has answered.

        Raises Refused (`not_found` when there is none of this name), Unreachable.
        """
        key = str(uuid.uuid4())
        request_checks.text("name", name, request_checks.MAX_FILE_NAME_CHARS)
        while True:
            gone = await self._send("DELETE", "/v1/documents", key, params={"name": name})
            if self._of(gone, "outcome") != "pending":
                return gone
            await asyncio.sleep(0.5)

    async def halt(self, scope: str, name: str, reason: str, *, idempotency_key: str = "") -> dict[str, Any]:
        """Hold something of the tenant back until `resume`: a task, tenant, agent, tool, model or feature. Raises
        Refused, Unreachable."""
        request_checks.one_of("scope", scope, request_checks.HALTS)
        return await self._switch("/v1/halts", scope, name, reason, idempotency_key)

    async def resume(self, scope: str, name: str, reason: str, *, idempotency_key: str = "") -> dict[str, Any]:
        """Let it go on. Raises Refused, Unreachable."""
        request_checks.one_of("scope", scope, request_checks.HALTS)
        return await self._switch("/v1/resumes", scope, name, reason, idempotency_key)

    async def reset_breaker(self, scope: str, name: str, reason: str, *, idempotency_key: str = "") -> dict[str, Any]:
        """Close a breaker of the tenant's: of a tool, model or agent. Raises Refused (`tripped_it` when it was opened
        by calls of one's own tasks), Unreachable."""
        request_checks.one_of("scope", scope, request_checks.BREAKERS)
        return await self._switch("/v1/resets", scope, name, reason, idempotency_key)

    async def change_limit(
        self,
        target: str,
        limit: Mapping[str, int | None],
        *,
        expect_revision: int | None = None,
        idempotency_key: str = "",
    ) -> dict[str, Any]:
        """Set the ceilings of one target (`day`, `feature/search`); none at all removes them. Returns all limits.

        expect_revision: change nothing when the limits are not at this one any more. idempotency_key: a repeat under
        the same one is made once. Raises Refused, Unreachable.
        """
        wanted = request_checks.units("limit", limit, least=0, empty=True, removes=True)
        if expect_revision is not None:
            request_checks.whole("expect_revision", expect_revision, 0, 2**53)
        body = {
            "target": request_checks.text("target", target, 200),
            "limit": wanted,
            "expect_revision": expect_revision,
        }
        return await self._send(
            "PUT", "/v1/limits", request_checks.key(idempotency_key) or str(uuid.uuid4()), json=body
        )

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """One GET. Raises Refused, Unreachable."""
        return await self._ask("GET", path, params=params)

    async def _switch(self, path: str, scope: str, name: str, reason: str, key: str) -> dict[str, Any]:
        body = {
            "scope": scope,
            "name": request_checks.text("name", name, bounds.MAX_NAME_CHARS),
            "reason": request_checks.text("reason", reason, bounds.MAX_REASON_CHARS),
        }
        return await self._post(path, request_checks.key(key) or str(uuid.uuid4()), json=body)

    async def _post(self, path: str, key: str, **more: Any) -> dict[str, Any]:
        return await self._send("POST", path, key, **more)

    async def _send(
        self, method: str, path: str, key: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> dict[str, Any]:
        """What may be repeated: the key makes a repeat harmless."""
        for attempt in range(POST_ATTEMPTS):
            pause_s = 0.25 * 2**attempt
            try:
                return await self._ask(method, path, headers={"Idempotency-Key": key, **(headers or {})}, **more)
            except Unreachable:
                if attempt == POST_ATTEMPTS - 1:
                    raise
            except Refused as error:
                in_flight = error.code == "idempotency_in_flight"
                if attempt == POST_ATTEMPTS - 1 or not (in_flight or error.status in RETRYABLE):
                    raise
                if error.retry_after_s > MAX_RETRY_AFTER_S:
                    raise
                pause_s = max(pause_s, error.retry_after_s)
            await asyncio.sleep(pause_s)
        raise AssertionError("unreachable")

    async def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        self._open()
        try:
            answer = await self._http.request(method, path, **more)
        except httpx.HTTPError as error:
            raise self.unreachable(error) from error
        self.reached = True
        if answer.is_error:
            raise _refused(answer)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if answer.is_redirect or not isinstance(found, dict):
            raise self._foreign(f"HTTP {answer.status_code}, {answer.headers.get('content-type', 'no type')[:80]}")
        return found

    def _open(self) -> None:
        if self._http.is_closed:
            raise Closed("this Mesh was closed", "ask within its `async with Mesh(...)`, or make another one")

    def _of(self, answer: dict[str, Any], name: str) -> Any:
        if name not in answer:
            raise self._foreign(f"JSON without {name!r}")
        return answer[name]

    def _foreign(self, what: str) -> Unreachable:
        return Unreachable(
            f"something else than a mesh answers at {self.url}: {what}",
            "check the address: it is the one that `bulkhead up` tells, without a path",
        )

    def unreachable(self, error: Exception) -> Unreachable:
        """That error, for people."""
        reason = str(error) or type(error).__name__
        return Unreachable(
            f"no answer from {self.url}: {reason}",
            "start the mesh (`bulkhead up`) or check the address (--url, BULKHEAD_URL)",
        )

    async def stream_once(self, task_id: str, parser: Parser) -> AsyncGenerator[TaskEvent, None]:
        """One connection's events after `parser.last_id`. Raises Refused, Unreachable."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": parser.last_id} if parser.last_id else {})
        timeout = httpx.Timeout(SILENCE_S, connect=5.0)
        self._open()
        try:
            async with self._http.stream(
                "GET", f"/v1/tasks/{task_id}/events", headers=headers, timeout=timeout
            ) as answer:
                self.reached = True
                if answer.is_error:
                    await answer.aread()
                    raise _refused(answer)
                async with aclosing(_lines(answer)) as lines:
                    async for line in lines:
                        event = parser.line(line)
                        if event is not None:
                            yield TaskEvent(event.name, json.loads(event.data), event.id)
        except (httpx.HTTPError, EventTooLarge, json.JSONDecodeError) as error:
            raise self.unreachable(error) from error


class Task:
    """A task of the mesh."""

    def __init__(self, mesh: Mesh, task_id: str) -> None:
        self._mesh = mesh
        self.id = task_id

    def __repr__(self) -> str:
        return f"Task({self.id!r})"

    async def show(self) -> dict[str, Any]:
        """Everything that the gateway knows of it now."""
        return await self._mesh.get(f"/v1/tasks/{self.id}")

    async def cancel(self, reason: str = "") -> None:
        """Ask for it to end; `events` and `result` tell when it has. Raises Refused when it has ended already."""
        why = request_checks.text("reason", reason, bounds.MAX_REASON_CHARS, least=0)
        await self._mesh._ask("POST", f"/v1/tasks/{self.id}/cancel", json={"reason": why})

    async def top_up(self, add: Mapping[str, int], reason: str) -> dict[str, Any]:
        """Let it spend so much more, by unit (`cost_usd_micros`, `tokens`, ...); halted at its ceiling, it goes on."""
        body = {
            "add": request_checks.units("add", add, least=0, empty=False, removes=False),
            "reason": request_checks.text("reason", reason, bounds.MAX_REASON_CHARS),
        }
        return await self._mesh._post(f"/v1/tasks/{self.id}/topup", str(uuid.uuid4()), json=body)

    async def events(self, last_id: str = "", on_lost: OnLost | None = None) -> AsyncGenerator[TaskEvent, None]:
        """What happens, from the beginning or after `last_id`, until the task has ended.

        Reconnects by itself: every stored event comes once. For `text`, keep the first `offset` characters of what
        you have of that step and append `text`. on_lost is told of every pause. Raises Unreachable when nobody
        answers for two minutes, and at once when nobody has ever answered this Mesh: then the address is wrong.
        """
        parser = Parser(last_id)
        loop = asyncio.get_running_loop()
        pause_s, heard_at = 0.0, loop.time()
        while True:
            heard_before = parser.last_id
            try:
                # Closed here and now: who stops listening must not leave a connection to the garbage collector.
                async with aclosing(self._mesh.stream_once(self.id, parser)) as stream:
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
                if not self._mesh.reached or loop.time() - heard_at > RECONNECT_GIVE_UP_S:
                    raise
                _tell(on_lost, error, heard_at + RECONNECT_GIVE_UP_S - loop.time())
            except Refused as error:
                if error.status not in RETRYABLE or loop.time() - heard_at > RECONNECT_GIVE_UP_S:
                    raise
                _tell(on_lost, error, heard_at + RECONNECT_GIVE_UP_S - loop.time())
            pause_s = min(RECONNECT_MAX_S, 2 * pause_s + (parser.retry_ms or 200) / 2000)
            await asyncio.sleep(pause_s)

    async def result(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait until the task has ended; returns what `show` returns. Raises TimeoutError: the task goes on then."""
        try:
            async with asyncio.timeout(None if timeout_s is None else request_checks.seconds("timeout_s", timeout_s)):
                async for _ in self.events():
                    pass
                return await self.show()
        except TimeoutError as error:
            raise TimeoutError(
                f"task {self.id} has not ended within {timeout_s:g} s: it goes on; wait for it again, or `cancel` it"
            ) from error


def _tell(on_lost: OnLost | None, error: MeshError, left_s: float) -> None:
    if on_lost is not None:
        on_lost(error, max(0.0, left_s))


async def _lines(answer: httpx.Response) -> AsyncGenerator[str, None]:
    """Lines as they come. Only CR and LF end a line here: httpx would split at U+2028 too."""
    rest = ""
    # httpx's iterator is an asynchronous generator, which its annotation does not say.
    async with aclosing(cast(AsyncGenerator[str, None], answer.aiter_text())) as pieces:
        async for piece in pieces:
            *lines, rest = (rest + piece).replace("\r\n", "\n").split("\n")
            for line in lines:
                yield line


def _refused(answer: httpx.Response) -> Refused:
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict) or "title" not in problem:
        problem = {
            "title": f"HTTP {answer.status_code} from {answer.url.host}",
            "hint": "is this really the address of a mesh's gateway?",
        }
    told = answer.headers.get("retry-after", "")
    return Refused(answer.status_code, problem, float(told) if told.isdecimal() and len(told) < 9 else 0.0)
