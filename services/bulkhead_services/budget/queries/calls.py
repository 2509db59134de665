"""Single calls of a tenant, for people who ask which failed, took long or cost much, and which tasks called a tool.

In: CallsRequested (rpc, from the gateway, which established who asks); the facts that spending is summed from, and the
requests for tools in the journal: a call that was refused before it was admitted has no fact. Out: CallsReplied.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from bulkhead.bus.port import Bus, StoredMessage
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.budget import CallKind, CallRow, CallsReplied, CallsRequested, Settled
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import CALLER_ROLES
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_services.budget.ledger import model
from bulkhead_services.budget.queries.spending import (
    AT_ONCE,
    HALTED,
    MAX_ENDS_READ,
    MAX_NAME_CHARS,
    MAX_WAITING,
    READING_ERRORS,
    RESOURCE_SERVICES,
    CountedReservation,
    SpendFactReader,
    SpendTally,
    TooManySpendMessages,
    count_message,
    explain_unread,
    was_unused,
)
from bulkhead_services.budget.queries.turns import in_turns
from bulkhead_services.budget.readers import MAY_READ, check_reader

KINDS: dict[str, CallKind] = {RESOURCE_SERVICES["model"]: "model", RESOURCE_SERVICES["tool"]: "tool"}
NOT_MADE, WAITS = "not_made", "waits"
"""Of a call without an attempt: its task has ended, or goes on, and the call may still be made."""

NO_END_UNIX_MS = 2**53


class ToolRequest(NamedTuple):
    """A tool's call as it was asked for."""

    task: str
    call_id: str
    step_id: str
    tool: str
    asked_unix_ms: int


class TimedAttempt(NamedTuple):
    """One attempt at a call. settled: None while that is not known; is_over: nothing more will be."""

    reservation: CountedReservation
    settled: Settled | None
    is_over: bool

    @property
    def end_unix_ms(self) -> int:
        """When it ended, as far as it is known."""
        return self.reservation.at_unix_ms + (self.settled.wall_ms if self.settled is not None else 0)


# Pure


async def list_calls(
    tally: SpendTally,
    requests: Mapping[str, ToolRequest],
    since_unix_ms: int,
    lapsed_unix_ms: int = 0,
    ended_tasks: Collection[str] = (),
    open_tasks: Collection[str] = (),
) -> list[CallRow]:
    """Every call of models and tools since then. requests: by the key of their calls; lapsed_unix_ms, ended_tasks: as
    in `build_report`. open_tasks: those that go on: their calls without an attempt may still be made."""
    attempts: dict[str, list[TimedAttempt]] = {}
    async for key, reservation in in_turns(tally.calls.items()):
        is_over = reservation.at_unix_ms <= lapsed_unix_ms or reservation.task in ended_tasks
        if reservation.service not in KINDS or was_unused(tally, key, is_over):
            continue
        attempts.setdefault(reservation.call, []).append(TimedAttempt(reservation, tally.settled.get(key), is_over))
    rows = [_row_of_attempts(parts) async for parts in in_turns(attempts.values())]
    rows += [
        _row_of_request(request, request.task in open_tasks)
        async for key, request in in_turns(requests.items())
        if key not in attempts
    ]
    return [row for row in rows if row.asked_unix_ms >= since_unix_ms]


def choose_calls(rows: Iterable[CallRow], body: CallsRequested) -> tuple[tuple[CallRow, ...], int]:
    """The rows that fit the request, in its order, and how many more there are."""
    fitting = [
        row
        for row in rows
        if body.kind in ("", row.kind)
        and body.name in ("", row.name)
        and (row.failed not in ("", WAITS) or not body.failed)
    ]
    keys: dict[str, Callable[[CallRow], int]] = {
        "newest": lambda row: row.asked_unix_ms,
        "slowest": lambda row: row.took_ms,
        "dearest": lambda row: row.cost_usd_micros,
    }
    key = keys[body.order]
    fitting.sort(key=lambda row: (-key(row), -row.asked_unix_ms, row.call_id))
    return tuple(fitting[: body.top]), max(0, len(fitting) - body.top)


def _row_of_attempts(attempts: list[TimedAttempt]) -> CallRow:
    """Attempts that a halt cut are no part of its time where it was made again."""
    attempts.sort(key=lambda attempt: attempt.reservation.at_unix_ms)
    timed = [attempt for attempt in attempts if attempt.settled is not None and attempt.settled.failed != HALTED]
    timed = timed or [attempt for attempt in attempts if attempt.settled is not None]
    first, last = attempts[0].reservation, attempts[-1]
    is_open = any(attempt.settled is None and not attempt.is_over for attempt in attempts)
    is_answered = any(attempt.settled is not None and not attempt.settled.failed for attempt in attempts)
    failed = last.settled.failed if last.settled is not None and not is_answered and not is_open else ""
    return CallRow(
        call_id=first.call_id,
        task=first.task,
        step_id=first.step_id,
        kind=KINDS[first.service],
        name=last.reservation.resource[:MAX_NAME_CHARS],
        asked_unix_ms=first.at_unix_ms,
        took_ms=timed[-1].end_unix_ms - timed[0].reservation.at_unix_ms if timed else 0,
        attempts=len(attempts),
        tokens=sum(_tokens_of(attempt) for attempt in attempts),
        cost_usd_micros=sum(_cost_of(attempt) for attempt in attempts),
        failed=failed,
        open=is_open,
    )


def _tokens_of(attempt: TimedAttempt) -> int:
    if attempt.settled is None or attempt.settled.estimated:
        return attempt.reservation.ask.tokens
    return attempt.settled.usage.input_tokens + attempt.settled.usage.output_tokens


def _cost_of(attempt: TimedAttempt) -> int:
    if attempt.settled is None or attempt.settled.estimated:
        return attempt.reservation.ask.cost_usd_micros
    return attempt.settled.usage.cost_usd_micros


def _row_of_request(request: ToolRequest, may_be_made: bool) -> CallRow:
    return CallRow(
        call_id=request.call_id,
        task=request.task,
        step_id=request.step_id,
        kind="tool",
        name=request.tool,
        asked_unix_ms=request.asked_unix_ms,
        failed=WAITS if may_be_made else NOT_MADE,
    )


def _read_request(stored: StoredMessage) -> ToolRequest | None:
    """The request that a message is; None for another, and for one that cannot be read: its doer rejects it."""
    if not stored.ce_type.startswith(ToolCallRequested.TYPE + "."):
        return None
    try:
        body = ToolCallRequested.model_validate_json(stored.body)
    except ValueError:
        return None
    return ToolRequest(stored.task, body.call_id, body.step_id, body.tool, stored.time_unix_ms)


# The streams


class TenantCallQuery:
    """Answers one tenant's questions after the other."""

    def __init__(self, bus: Bus, clock: Callable[[], int], *, lease_ms: int = 600_000) -> None:
        self._clock, self._lease_ms, self._reader = clock, lease_ms, SpendFactReader(bus, clock)
        self._places = FairSemaphore(AT_ONCE, kept=AT_ONCE - 1)

    async def answer_calls(self, message: ReceivedMessage) -> CallsReplied:
        """Calls of the asker's tenant, or the tasks that made them."""
        body, tenant = message.body, message.tenant
        assert isinstance(body, CallsRequested)
        roles = CALLER_ROLES if body.tasks_only else MAY_READ
        if (failure := check_reader(body.requester, tenant, f"see the calls of {tenant}", roles)) is not None:
            return CallsReplied(failure=failure)
        if self._places.count_waiting(tenant) >= MAX_WAITING:
            return _failed_reply("busy", "others ask for calls at the same time", "ask again in a moment")
        try:
            # Less than the asker waits, so that it hears why.
            async with asyncio.timeout(bounds.SPEND_TIMEOUT_MS / 1_000 * 0.8), self._places.hold_slot(tenant):
                return await (self._list_tasks(tenant, body) if body.tasks_only else self._list_calls(tenant, body))
        except READING_ERRORS as error:
            return CallsReplied(failure=explain_unread(error, self._reader.max_messages))

    async def _list_calls(self, tenant: str, body: CallsRequested) -> CallsReplied:
        until = self._clock()
        since, tally = max(0, until - body.since_s * 1000), SpendTally()
        # Requests first: the facts of each one's attempts are stored after it.
        requests = {} if body.kind == "model" else await self._read_requests(tenant, since)
        await self._reader.read_facts(tenant, since, tally, lambda fact: count_message(tally, fact, "tool"))
        lapsed = self._clock() - self._lease_ms
        ended_tasks = await self._reader.find_ended_tasks(tally, tenant, lapsed)
        open_tasks = await self._find_open_tasks(tally, requests, tenant)
        rows, more = choose_calls(await list_calls(tally, requests, since, lapsed, ended_tasks, open_tasks), body)
        return CallsReplied(since_unix_ms=since, until_unix_ms=until, rows=rows, more=more)

    async def _find_open_tasks(
        self, tally: SpendTally, requests: Mapping[str, ToolRequest], tenant: str
    ) -> Collection[str]:
        """Tasks that go on and have calls without an attempt, of the newest such tasks. Raises BusError."""
        attempted = {reservation.call for reservation in tally.calls.values()}
        unmade = [request for key, request in requests.items() if key not in attempted]
        newest_first = sorted(unmade, key=lambda request: -request.asked_unix_ms)
        tasks = list(dict.fromkeys(request.task for request in newest_first))[:MAX_ENDS_READ]
        ended_tasks = await self._reader.read_ends(tasks, tenant, NO_END_UNIX_MS)
        return {task for task in tasks if task not in ended_tasks}

    async def _list_tasks(self, tenant: str, body: CallsRequested) -> CallsReplied:
        until = self._clock()
        since = max(0, until - body.since_s * 1000)
        requests = await self._read_requests(tenant, since)
        newest_first = sorted(requests.values(), key=lambda request: -request.asked_unix_ms)
        tasks = dict.fromkeys(request.task for request in newest_first if body.name in ("", request.tool))
        return CallsReplied(
            since_unix_ms=since,
            until_unix_ms=until,
            tasks=tuple(tasks)[: bounds.MAX_CALLING_TASKS],
            more=max(0, len(tasks) - bounds.MAX_CALLING_TASKS),
        )

    async def _read_requests(self, tenant: str, since_unix_ms: int) -> dict[str, ToolRequest]:
        """Requests for tools since then, by the keys of their calls. Raises TooManySpendMessages, BusError."""
        requests: dict[str, ToolRequest] = {}
        service = RESOURCE_SERVICES["tool"]
        subject = f"mesh.*.{service}.*.{subjects.check_token(tenant)}.>"
        async for page in self._reader.read_since(subjects.JOURNAL_STREAM, subject, since_unix_ms):
            for request in filter(None, map(_read_request, page)):
                key = model.entry_key(service, tenant, request.task, request.call_id)
                requests.setdefault(key, request)
            if len(requests) > self._reader.max_messages:
                raise TooManySpendMessages
        return requests


def _failed_reply(code: str, message: str, hint: str) -> CallsReplied:
    return CallsReplied(failure=Failure.from_text(code, message, hint))
