"""The mesh as a test sees it: plain calls without `await`, the same on every backend.

In: documents, objectives. Out: tasks to wait for, read and assert about; a failed one leaves files
(testing/failure_artifacts). The mesh runs in a thread of its own, so a test may be `async` or not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self, TypeVar

from bulkhead.bus.port import Bus, BusUnavailable, StoredMessage
from bulkhead.client import Mesh, Task
from bulkhead.client.loop_thread import LoopThread
from bulkhead.journal import history, timeline
from bulkhead.journal.history import JournalEntry
from bulkhead.journal.reader import read_journal
from bulkhead.testing.assertions import Effects, TaskAnswer, TaskSpend, Trace, refute
from bulkhead.testing.faults import MeshFaults
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
        self.faults = MeshFaults(stage, loop)
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

        async def add_content() -> Mapping[str, Any]:
            return await self._submitter_client().add_document(data, name, media_type)

        return self.loop.run(add_content())

    def submit(self, objective: str, **wishes: Any) -> "TaskUnderTest":
        """A task. wishes as of `bulkhead.client.Mesh.submit`: limit_usd, limit_tokens, deadline_s, tools, check, plan.

        plan: {"steps": [{"id", "title", "instruction", "tools", "inputs", "acceptance", "role"}]}; without it the
        planner makes one. Raises Refused.
        """

        async def hand_in() -> Task:
            return await self._submitter_client().submit(objective, **wishes)

        task = TaskUnderTest(self, self.loop.run(hand_in()))
        self.submitted.append(task)
        return task

    def close(self) -> None:
        """Mend what is broken, give the connections back; the stage goes on."""

        async def close_clients() -> None:
            for client in self._clients.values():
                await client.close()

        try:
            self.offline_model.close()
            self.faults.undo_all()
        finally:
            self.loop.run(close_clients())

    async def ask_broker(self, what: Callable[[Bus], Awaitable[T]]) -> T:
        """Ask the broker as the operator, in the loop of the mesh."""
        async with self.stage.bus() as bus:
            return await what(bus)

    def _submitter_client(self) -> Mesh:
        if "submitter" not in self._clients:
            self._clients["submitter"] = Mesh(self.stage.url, self.key())
        return self._clients["submitter"]


async def journal_so_far(bus: Bus, task: str) -> list[StoredMessage]:
    """The journal's present messages of a task, even while it lags: for a look at a failure."""
    return await read_journal(bus, task, whole=False)


class TaskUnderTest:
    """A task. `effects`, `spend`, `trace` and `answer` wait for its end, so they can be claimed about at once."""

    def __init__(self, mesh: MeshUnderTest, task: Task) -> None:
        self._mesh, self._task = mesh, task
        self.id = task.id
        self._read: list[JournalEntry] | None = None
        self._shown: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<task {self.id}>"

    # Waiting

    def until(self, event: str, timeout_s: float = WAIT_S) -> Mapping[str, Any]:
        """Data of its first event of this name: `task.accepted`, `step.started`, `text`, ... (docs: contracts)."""

        async def first_event_data() -> Mapping[str, Any] | None:
            async with asyncio.timeout(timeout_s), aclosing(self._task.events()) as events:
                async for task_event in events:
                    if task_event.name == event:
                        return task_event.data
            return None

        __tracebackhide__ = True
        claim = f"task {self.id} until {event!r}"
        try:
            event_data = self._mesh.loop.run(first_event_data())
        except TimeoutError:
            refute(claim, f"not within {timeout_s:g} s", self._last_messages())
        if event_data is None:
            refute(claim, "it ended without", self._last_messages())
        return event_data

    def ended(self, status: str = "", timeout_s: float = WAIT_S) -> Self:
        """It ends, whatever its status, or with this one: succeeded, failed, cancelled, halted, rejected."""
        __tracebackhide__ = True
        if status and status not in ENDED:
            raise ValueError(f"no task ends {status!r}; it ends {', '.join(ENDED)}")
        if self._shown is None:
            try:
                self._shown = self._mesh.loop.run(self._task.wait_until_ended(timeout_s))
            except TimeoutError:
                refute(
                    f"task.ended({status!r})" if status else "task.ended()",
                    f"task {self.id} has not ended within {timeout_s:g} s",
                    self._last_messages(),
                )
        if status and self._shown["status"] != status:
            failure = self._shown["failure"]
            reason = f": {failure['code']}: {failure['message']} ({failure['hint']})" if failure else ""
            refute(f"task.ended({status!r})", f"it has {self._shown['status']}{reason}", self._last_messages())
        return self

    def succeeded(self, timeout_s: float = WAIT_S) -> Self:
        """It ends with an answer."""
        __tracebackhide__ = True
        return self.ended("succeeded", timeout_s)

    def cancel(self, reason: str = "") -> None:
        """Ask for its end."""
        self._mesh.loop.run(self._task.cancel(reason))

    # Reading

    async def show_document(self) -> Mapping[str, Any]:
        """Document that the gateway shows of it now, in the loop of the mesh."""
        return await self._task.show()

    @property
    def document(self) -> Mapping[str, Any]:
        """Document that the gateway shows of it: now, or as it stood at the end once that was waited for."""
        return self._shown if self._shown is not None else self._mesh.loop.run(self.show_document())

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
        failure: Mapping[str, Any] | None = self.document["failure"]
        return failure

    @property
    def journal(self) -> list[JournalEntry]:
        """Every stored message of it, in order, once it has ended."""
        __tracebackhide__ = True
        if self._read is None:
            self.ended()
            entries = self._mesh.loop.run(self._mesh.ask_broker(self._complete_journal))
            self._read = history.each_fact(entries)
        return self._read

    @property
    def timeline(self) -> list[dict[str, Any]]:
        """Timeline, as `bulkhead timeline TASK --json`."""
        return timeline.as_json(self.journal)

    @property
    def answer(self) -> TaskAnswer:
        """Its answer."""
        return TaskAnswer(self.ended().document)

    @property
    def effects(self) -> Effects:
        """Its tool calls."""
        return Effects(self.journal)

    @property
    def spend(self) -> TaskSpend:
        """Its cost."""
        return TaskSpend(self.journal)

    @property
    def trace(self) -> Trace:
        """Senders and receivers of its messages."""
        return Trace(self.journal)

    async def _complete_journal(self, bus: Bus) -> Sequence[JournalEntry]:
        """The journal, once it holds the end. A rejected task was never the planner's: it has none."""
        deadline = asyncio.get_running_loop().time() + JOURNAL_S
        while True:
            entries = history.build_entries(await read_journal(bus, self.id))
            over = any(isinstance(entry.body, TaskEnded) for entry in entries)
            if over or (self._shown or {}).get("status") == "rejected" or asyncio.get_running_loop().time() > deadline:
                return entries
            await asyncio.sleep(POLL_S)

    def entries_so_far(self) -> list[JournalEntry]:
        """The journal as it is, also of a task that has not ended."""

        async def read_entries(bus: Bus) -> list[JournalEntry]:
            return history.each_fact(history.build_entries(await journal_so_far(bus, self.id)))

        return self._mesh.loop.run(self._mesh.ask_broker(read_entries))

    def _last_messages(self) -> list[str]:
        """The task's last messages, for the report of its failure."""
        try:
            entries = self.entries_so_far()
        except BusUnavailable as error:
            return [f"the journal cannot be read now: {error}"]
        if not entries:
            return ["the journal holds nothing of it"]
        began = entries[0].at_unix_ms
        return [
            f"+{(entry.at_unix_ms - began) / 1000:.3f}s {entry.sender} -> {entry.receiver} {entry.type}"
            for entry in entries[-10:]
        ]
