"""Erasure of the sessions that people deleted: their facts, the tasks of their turns, and the contents of those.

In: a reader (the operator's bus), a way to ask the broker's API as the provisioner, the first sequence of each stream
that must not be touched, the subjects of a task in each stream, and whether the ledger has counted it. Out: messages
removed by stream.

A purge takes messages out of a stream and leaves their bytes in its file until the broker compacts that. Where the
operator may read, each message is deleted by its number instead, and the broker overwrites it. A session's facts go
last, and of a task its request, so that an erasure that is cut off finds them again. Of the tasks that a session names
those go whose own request names the session as well, or its conversation and the turn's person. Sessions are the
gateway's own word: one that lies erases ended tasks of any session or named conversation, and no task that was
submitted outside of both. A conversation by its first task's id leaves that task to its retention for this reason.
Passages of the tenant's documents (by rag), contents of doors, and what a message of another task names stay. A writer
believes no longer than `blobs.BELIEVED_S` that a content is still there.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress

from pydantic import ValidationError

from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import Bus, StoredMessage
from bulkhead.runtime.decider.history import content_refs, is_of_type
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.session import FactPinned, SessionDeleted, SessionOpened, TurnTaken
from bulkhead_contracts.task import TaskEnded, TaskRejected, TaskRequested
from bulkhead_infra.nats.trimming import ApiRequest

QUIET_MS = 2 * 3_600_000
"""So long after its end, and the time for which its grant may hold, a turn stays: then nothing of it is in flight, no
call can be made again, and a checkpoint of the ledger (hourly, where anything was settled) has counted what it cost."""
GATEWAY, JOURNAL = subjects.inbox_stream("gateway"), subjects.JOURNAL_STREAM
INBOXES = tuple(map(subjects.inbox_stream, catalog.INBOXES))
READABLE = frozenset({*INBOXES, JOURNAL, subjects.DEAD_LETTERS_STREAM, subjects.BLOBS_STREAM})
"""Streams that the operator may read. Others are purged by subject."""
OTHERS_CONTENTS = frozenset({"rag", subjects.DOORS})
SESSION_FACTS = tuple(f"{kind.TYPE}.v" for kind in (SessionOpened, TurnTaken, FactPinned, SessionDeleted))
_DIGEST = re.compile(rb"[0-9a-f]{64}")
Task = tuple[str, str]
"""Tenant, and task or session."""


class SessionErasure:
    """One look at the deleted sessions. Its methods raise BusError, and what `request` raises."""

    def __init__(
        self,
        reader: Bus,
        request: ApiRequest,
        ends: Mapping[str, int],
        subjects_of: Callable[[Task], Mapping[str, tuple[str, ...]]],
        is_counted: Callable[[Task], Awaitable[bool]],
    ) -> None:
        self._reader, self._request, self._ends = reader, request, ends
        self._subjects_of, self._is_counted = subjects_of, is_counted
        self.removed: Counter[str] = Counter()

    async def find_due(self, now_unix_ms: int) -> dict[Task, list[Task]]:
        """Sessions that can go, with the tasks of their turns. A session waits until all of its tasks can go."""
        fact_lines: dict[Task, list[StoredMessage]] = {}
        async for stored in stored_messages(self._reader, GATEWAY, "mesh.gateway.gateway.>"):
            if is_of_type(stored, SessionDeleted.TYPE):
                with suppress(subjects.SubjectError):
                    address = subjects.parse(stored.subject)
                    session = address.tenant, address.task
                    fact_lines[session] = await self._read_messages(GATEWAY, session)
        due = {}
        for session, facts in fact_lines.items():
            if not facts or not all(is_session_fact(fact) or is_of_stranger(fact) for fact in facts):
                continue  # It stands under a task's name.
            try:
                tasks, lifetime_ms = await self._turns_of(session, facts)
            except ValidationError:
                continue  # It goes by its age, as what never became a task.
            since_unix_ms = now_unix_ms - lifetime_ms - QUIET_MS
            if all([await self._is_over(task, since_unix_ms) for task in tasks]):
                due[session] = tasks
        return due

    async def erase(self, sessions: Mapping[Task, Collection[Task]]) -> None:
        """Remove sessions with their tasks. Contents go first: messages tell which they are."""
        tasks = [task for turns in sessions.values() for task in turns]
        for tenant in {tenant for tenant, _ in sessions}:
            await self._erase_contents(tenant, {task for task in (*tasks, *sessions) if task[0] == tenant})
        for task in tasks:
            await self._erase_messages(task, newest_first=True)
        for task in tasks:
            for subject in self._subjects_of(task)[JOURNAL]:
                await self._delete_messages(JOURNAL, subject)  # What it copied meanwhile.
        for session in sessions:
            await self._erase_messages(session)

    async def _erase_messages(self, task: Task, *, newest_first: bool = False) -> None:
        await self._purge_messages(subjects.EVENTS_STREAM, f"events.{task[0]}.*.*.{task[1]}")
        for stream, filters in self._subjects_of(task).items():
            for subject in filters:
                if stream in READABLE:
                    await self._delete_messages(stream, subject, newest_first=newest_first)
                else:
                    await self._purge_messages(stream, subject)

    async def _turns_of(self, session: Task, facts: Sequence[StoredMessage]) -> tuple[list[Task], int]:
        """The tasks of its turns and summaries that are still there, and the longest lifetime of these and of the
        session's limits, in milliseconds."""
        tasks, names, lifetime_ms = [], {session[1]}, 0
        for fact in facts:
            if is_of_type(fact, SessionOpened.TYPE):
                opened = SessionOpened.model_validate_json(fact.body)
                names.add(opened.conversation)
                lifetime_ms = max(lifetime_ms, opened.limits.lifetime_ms)
        for fact in facts:
            if is_of_type(fact, TurnTaken.TYPE):
                turn = TurnTaken.model_validate_json(fact.body)
                for name in filter(None, (turn.task, turn.begun_summary)):
                    task = session[0], name
                    request = await self._request_of(task)
                    if request is None:
                        continue
                    # Submitted by itself, a task became a turn by the name of its conversation.
                    is_own = request.requester is not None and request.requester.person == turn.person
                    is_adopted = is_own and bool(request.conversation) and request.conversation in names
                    if request.turn.session == session[1] if request.turn is not None else is_adopted:
                        tasks.append(task)
                        # A turn has limits of its own, and a task that became one those of its submission.
                        lifetime_ms = max(lifetime_ms, request.limits.lifetime_ms)
        return tasks, lifetime_ms

    async def _request_of(self, task: Task) -> TaskRequested | None:
        """The request by which a task began; None where it is gone. Raises ValidationError."""
        for stored in await self._read_messages(GATEWAY, task):
            if is_of_type(stored, TaskRequested.TYPE) and subjects.may_open(stored.sender, task[1]):
                return TaskRequested.model_validate_json(stored.body)
        return None

    async def _is_over(self, task: Task, since_unix_ms: int) -> bool:
        """True for a task that ended, or was partly erased, of which nothing was said since then, and whose
        settlements a checkpoint of the ledger has counted."""
        messages = await self._read_messages(GATEWAY, task)
        has_ended = any(is_of_type(stored, kind.TYPE) for stored in messages for kind in (TaskEnded, TaskRejected))
        is_quiet = not messages or messages[-1].time_unix_ms <= since_unix_ms
        # What lies before the request in the order of the streams goes before it.
        return is_quiet and await self._is_counted(task) and (has_ended or not await self._read_messages(JOURNAL, task))

    async def _erase_contents(self, tenant: str, gone: Collection[Task]) -> None:
        """Remove the blobs that messages of these alone name, and the tenant's answers that are given again."""
        names: set[str] = set()
        for stream in (*INBOXES, subjects.DEAD_LETTERS_STREAM):
            for task in gone:
                for stored in await self._read_messages(stream, task):
                    refs = (ref for ref in content_refs(stored.body) if ref.author not in OTHERS_CONTENTS)
                    names |= {subjects.blob_subject(ref.author, tenant, ref.sha256) for ref in refs}
        by_digest: defaultdict[bytes, set[str]] = defaultdict(set)
        for name in names:  # Several authors may have stored the same content.
            by_digest[name.rpartition(".")[2].encode()].add(name)
        for service in catalog.INBOXES if names else ():
            pattern = f"mesh.*.{service}.*.{tenant}.*.*"
            async for stored in stored_messages(self._reader, subjects.inbox_stream(service), pattern):
                if (tenant, stored.task) not in gone:
                    names.difference_update(*(by_digest.get(digest, ()) for digest in _DIGEST.findall(stored.body)))
        for name in sorted(names):
            await self._delete_messages(subjects.BLOBS_STREAM, name)
        await self._purge_messages(subjects.CACHE_STREAM, f"cache.*.{tenant}.>")

    async def _read_messages(self, stream: str, task: Task) -> list[StoredMessage]:
        filters = self._subjects_of(task)[stream]
        return [stored for subject in filters async for stored in stored_messages(self._reader, stream, subject)]

    async def _delete_messages(self, stream: str, subject: str, *, newest_first: bool = False) -> None:
        until = self._ends.get(stream)
        numbers = [stored.sequence async for stored in stored_messages(self._reader, stream, subject)]
        for number in sorted(numbers, reverse=newest_first):
            if until is None or number < until:
                await self._request(f"STREAM.MSG.DELETE.{stream}", {"seq": number})
                self.removed[stream] += 1

    async def _purge_messages(self, stream: str, subject: str) -> None:
        until = {"seq": self._ends[stream]} if stream in self._ends else {}
        answer = await self._request(f"STREAM.PURGE.{stream}", {"filter": subject, **until})
        if purged := int(answer.get("purged", 0)):
            self.removed[stream] += purged


def is_session_fact(stored: StoredMessage) -> bool:
    """True for a fact of a session, said by the gateway."""
    return stored.sender == "gateway" and stored.ce_type.startswith(SESSION_FACTS)


def is_of_stranger(stored: StoredMessage) -> bool:
    """True for what lies under a session's id and says nothing of it: a message of who may begin nothing under that
    id, or the gateway's refusal of one."""
    if stored.sender == "gateway":
        return any(is_of_type(stored, kind.TYPE) for kind in (TaskRejected, MessageRejected))
    return stored.sender.startswith(subjects.PUBLISHER) and not subjects.may_open(stored.sender, stored.task)
