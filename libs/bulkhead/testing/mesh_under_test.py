"""The mesh as a test sees it: plain calls without `await`, the same on every backend.

In: documents, objectives. Out: tasks to wait for, read and assert about; a failed one leaves files
(testing/failure_artifacts). The mesh runs in a thread of its own, so a test may be `async` or not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self, TypeVar

from bulkhead.bus.port import Bus, BusUnavailable, Stored
from bulkhead.client import Mesh, Task
from bulkhead.journal import history, timeline
from bulkhead.journal.history import Entry
from bulkhead.journal.reader import read_journal
from bulkhead.testing.assertions import Answer, Effects, Spend, Trace, refute
from bulkhead.testing.faults import Faults
from bulkhead.testing.loop_thread import LoopThread
from bulkhead.testing.mesh_backend import Stage
from bulkhead.testing.model import ModelUnderTest
from bulkhead_contracts.task import TaskEnded

WAIT_S = 60.0
JOURNAL_S = 15.0
"""The journal copies every inbox and may lag behind."""
POLL_S = 0.02
ENDED = ("succeeded", "failed", "cancelled", "halted", "rejected")
T = TypeVar("T")


class MeshUnderTest:
    """One test's share of a stage: a tenant of its own, so that tests on one stage do not meet.

    mode: `memory`, `processes`, `containers`. faults, offline_model: what can go wrong, on purpose.
    """

    def __init__(self, stage: Stage, loop: LoopThread, tenant: str) -> None:
        self.mode, self.tenant, self.stage = stage.mode, tenant, stage
        self.loop = loop
        self.submitted: list[TaskUnderTest] = []
        self.faults = Faults(stage, loop)
        self.offline_model = ModelUnderTest(stage.model_url)
        self._clients: dict[str, Mesh] = {}

    def __repr__(self) -> str:
        return f"<mesh of {self.mode} at {self.stage.url}, tenant {self.tenant}>"

    @property
    def url(self) -> str:
        """The gateway's HTTP address."""
        return self.stage.url

    def key(self, role: str = "submitter") -> str:
        """A new API key of this test's tenant: submitter, approver, operator, auditor."""
        return self.stage.new_key(self.tenant, f"{self.tenant}-{role}", role)

    def add_document(self, content: Path | str, name: str = "", media_type: str = "") -> Mapping[str, Any]:
        """A file, or text with a name. Returns the receipt once the store has it. Raises Refused."""
        if isinstance(content, str) and not name:
            raise ValueError("text has no name: add_document(text, name='fares.md'); a file is given as a Path")
        data = content.encode() if isinstance(content, str) else content

        async def add() -> Mapping[str, Any]:
            return await self._client().add_document(data, name, media_type or _media(name))

        return self.loop.run(add())

    def submit(self, objective: str, **wishes: Any) -> "TaskUnderTest":
        """A task. wishes as of `bulkhead.client.Mesh.submit`: limit_usd, limit_tokens, deadline_s, tools, check, plan.

        plan: {"steps": [{"id", "title", "instruction", "tools", "inputs", "acceptance", "role"}]}; without it the
        planner makes one. Raises Refused.
        """

        async def hand_in() -> Task:
            return await self._client().submit(objective, **wishes)

        found = TaskUnderTest(self, self.loop.run(hand_in()))
        self.submitted.append(found)
        return found

    def close(self) -> None:
        """Mend what is broken, give the connections back; the stage goes on."""

        async def close() -> None:
            for client in self._clients.values():
                await client.close()

        try:
            self.offline_model.close()
            self.faults.undo()
        finally:
            self.loop.run(close())

    async def ask(self, what: Callable[[Bus], Awaitable[T]]) -> T:
        """Ask the broker as the operator, in the loop of the mesh."""
        async with self.stage.bus() as bus:
            return await what(bus)

    def _client(self) -> Mesh:
        if "submitter" not in self._clients:
            self._clients["submitter"] = Mesh(self.stage.url, self.key())
        return self._clients["submitter"]


async def journal_so_far(bus: Bus, task: str) -> list[Stored]:
    """The journal's present messages of a task, even while it lags: for a look at a failure."""
    return await read_journal(bus, task, whole=False)


def _media(name: str) -> str:
    known = {".md": "text/markdown", ".txt": "text/plain", ".html": "text/html", ".pdf": "application/pdf"}
    return known.get(Path(name).suffix, "")


class TaskUnderTest:
    """A task. `effects`, `spend`, `trace` and `answer` wait for its end, so they can be claimed about at once."""

    def __init__(self, mesh: MeshUnderTest, task: Task) -> None:
        self._mesh, self._task = mesh, task
        self.id = task.id
        self._read: list[Entry] | None = None
        self._shown: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<task {self.id}>"

    # Waiting

    def until(self, event: str, timeout_s: float = WAIT_S) -> Mapping[str, Any]:
        """Data of its first event of this name: `task.accepted`, `step.started`, `text`, ... (docs: contracts)."""

        async def listen() -> Mapping[str, Any] | None:
            async with asyncio.timeout(timeout_s), aclosing(self._task.events()) as events:
                async for one in events:
                    if one.name == event:
                        return one.data
            return None

        __tracebackhide__ = True
        claim = f"task {self.id} until {event!r}"
        try:
            found = self._mesh.loop.run(listen())
        except TimeoutError:
            refute(claim, f"not within {timeout_s:g} s", self._story())
        if found is None:
            refute(claim, "it ended without", self._story())
        return found

    def ended(self, status: str = "", timeout_s: float = WAIT_S) -> Self:
        """It ends, whatever its status, or with this one: succeeded, failed, cancelled, halted, rejected."""
        __tracebackhide__ = True
        if status and status not in ENDED:
            raise ValueError(f"no task ends {status!r}; it ends {', '.join(ENDED)}")
        if self._shown is None:
            try:
                self._shown = self._mesh.loop.run(self._task.result(timeout_s))
            except TimeoutError:
                refute(
                    f"task.ended({status!r})" if status else "task.ended()",
                    f"task {self.id} has not ended within {timeout_s:g} s",
                    self._story(),
                )
        if status and self._shown["status"] != status:
            failure = self._shown["failure"]
            why = f": {failure['code']}: {failure['message']} ({failure['hint']})" if failure else ""
            refute(f"task.ended({status!r})", f"it has {self._shown['status']}{why}", self._story())
        return self

    def succeeded(self, timeout_s: float = WAIT_S) -> Self:
        """It ends with an answer."""
        __tracebackhide__ = True
        return self.ended("succeeded", timeout_s)

    def cancel(self, reason: str = "") -> None:
        """Ask for its end."""
        self._mesh.loop.run(self._task.cancel(reason))

    # Reading

    async def show(self) -> Mapping[str, Any]:
        """What the gateway shows of it now, in the loop of the mesh."""
        return await self._task.show()

    @property
    def document(self) -> Mapping[str, Any]:
        """What the gateway shows of it: now, or as it stood at the end once that was waited for."""
        return self._shown if self._shown is not None else self._mesh.loop.run(self.show())

    @property
    def status(self) -> str:
        """requested, running, or how it has ended."""
        return str(self.document["status"])

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        """Its steps: step_id, title, status, attempts, reasons, usage."""
        return list(self.document["steps"])

    @property
    def failure(self) -> Mapping[str, Any] | None:
        """code, message, hint of what kept it from succeeding."""
        found: Mapping[str, Any] | None = self.document["failure"]
        return found

    @property
    def journal(self) -> list[Entry]:
        """Every stored message of it, in order, once it has ended."""
        __tracebackhide__ = True
        if self._read is None:
            self.ended()
            entries = self._mesh.loop.run(self._mesh.ask(self._whole))
            self._read = history.each_fact(entries)
        return self._read

    @property
    def timeline(self) -> list[dict[str, Any]]:
        """As `bulkhead timeline TASK --json`."""
        return timeline.as_json(self.journal)

    @property
    def answer(self) -> Answer:
        """What it has answered."""
        return Answer(self.ended().document)

    @property
    def effects(self) -> Effects:
        """Its tool calls."""
        return Effects(self.journal)

    @property
    def spend(self) -> Spend:
        """Its cost."""
        return Spend(self.journal)

    @property
    def trace(self) -> Trace:
        """Who spoke to whom."""
        return Trace(self.journal)

    async def _whole(self, bus: Bus) -> Sequence[Entry]:
        """The journal, once it holds the end. A rejected task was never the planner's: it has none."""
        deadline = asyncio.get_running_loop().time() + JOURNAL_S
        while True:
            found = history.entries(await read_journal(bus, self.id))
            over = any(isinstance(one.body, TaskEnded) for one in found)
            if over or self.status_seen == "rejected" or asyncio.get_running_loop().time() > deadline:
                return found
            await asyncio.sleep(POLL_S)

    @property
    def status_seen(self) -> str:
        """The last status that was read, without a request."""
        return str(self._shown["status"]) if self._shown is not None else ""

    def entries_so_far(self) -> list[Entry]:
        """The journal as it is, also of a task that has not ended."""

        async def read(bus: Bus) -> list[Entry]:
            return history.each_fact(history.entries(await journal_so_far(bus, self.id)))

        return self._mesh.loop.run(self._mesh.ask(read))

    def _story(self) -> list[str]:
        """The task's last messages, for the report of its failure."""
        try:
            found = self.entries_so_far()
        except BusUnavailable as error:
            return [f"the journal cannot be read now: {error}"]
        if not found:
            return ["the journal holds nothing of it"]
        began = found[0].at_unix_ms
        return [
            f"+{(one.at_unix_ms - began) / 1000:.3f}s {one.sender} -> {one.receiver} {one.type}" for one in found[-10:]
        ]
