"""One remote agent: a call is sent to it once, followed to its end, and found again after a loss.

Enters: a pinned agent with a text and the call's key. Leaves: an outcome. The task that the agent makes of a message is
on record (remote_tasks.py): a connection that breaks is made anew, and a replica that takes a call over follows what
the one before it sent.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, cast

import httpx
from a2a.client import Client
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
)

from bulkhead.bus.port import BusError, WrongLastSequence
from bulkhead.telemetry.log import Log
from bulkhead.tools.agent_cards import UnfitCard, digest_of
from bulkhead.tools.agents_file import AgentTool
from bulkhead.tools.api import Done, Failed
from bulkhead.tools.results import RETRY_HINT
from bulkhead_services.tool_executor.a2a import http
from bulkhead_services.tool_executor.a2a.answers import (
    ASKING_STATES,
    ENDED_STATES,
    SDK_ERRORS,
    AgentAnswerFold,
    AgentFault,
    fault_of,
)
from bulkhead_services.tool_executor.a2a.cards import CardUnreadable, client_of, read_card
from bulkhead_services.tool_executor.a2a.remote_tasks import RemoteTask, RemoteTasks
from bulkhead_services.tool_executor.mcp.breaker import CallBreaker
from bulkhead_services.tool_executor.registry import BEGUN_ELSEWHERE

log = Log("agents")

CARD_CHECK_S, CHANGED_CARD_CHECK_S = 60.0, 5.0
"""How old a look at the card may be before a call; where it differs from its pin."""
POLL_INTERVAL_S = 1.0
"""Between looks at the task of an agent that does not stream."""
MAX_EMPTY_RESUMES = 5
"""So many connections in a row that bring nothing, and the agent is given up."""
RESUME_S = 0.3
CANCEL_TIMEOUT_S, CANCEL_TRIES = 5.0, 3
RECORD_PATIENCE_S = 5.0
UNSENT_CODES = ("unavailable", "remote_refused")
"""Codes of calls whose message has done nothing, where their effect says so, too."""


class AgentSilent(Exception):
    """The agent said nothing for its time."""


class PinnedAgent:
    """The agent, for as long as it is declared and pinned as it is."""

    def __init__(self, tool: AgentTool, tasks: RemoteTasks) -> None:
        self.tool, self._tasks = tool, tasks
        self._http = http.checked_client(tool.declared)
        self._client: Client = client_of(tool.pin.card, self._http)
        self._streams = bool(cast("Any", self._client)._card.capabilities.streaming)
        self._breaker = CallBreaker()
        self._card_lock = asyncio.Lock()
        self._next_card_check_s = 0.0
        self.card_changed = False
        self.last_failure = ""

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    def find_problem(self) -> str:
        """Why it cannot be called; "" when it can."""
        if self.card_changed:
            return f"the card of the agent {self.tool.agent} is not what was pinned"
        if self._breaker.allows_call(asyncio.get_running_loop().time()):
            return ""
        return f"the breaker of the agent {self.tool.agent} is open: {self.last_failure}"

    async def call_agent(self, texts: Sequence[str], key: str) -> Done | Failed:
        """One attempt. Cancelled by its caller when its time is over or the task is halted, who then calls `stop`."""
        name, now_s = self.tool.row.spec.name, asyncio.get_running_loop().time()
        reads = self.tool.row.spec.effect == "read"
        if not self._breaker.allows_call(now_s):
            hint = "go another way, or try again in a minute; its operator sees more with `bulkhead doctor`"
            return Failed("breaker_open", f"{name} is not called: {self.find_problem()}", hint)
        try:
            row, sequence = await self._tasks.find_task(key)
        except BusError as error:
            return _record_unavailable_failure(name, error)
        self._breaker.on_call_begun()
        try:
            # One that was stopped is looked at, too: it may have ended before that reached it.
            if row is not None and row.task and not (reads and row.stopped == "cut"):
                return await self._follow_to_end(key, row, sequence, None)
            return await self._send_message(texts, key, row, sequence)
        finally:
            self._breaker.on_call_ended()

    async def _send_message(
        self, texts: Sequence[str], key: str, row: RemoteTask | None, sequence: int
    ) -> Done | Failed:
        """Send the message, unless it may have been sent before."""
        name, reads = self.tool.row.spec.name, self.tool.row.spec.effect == "read"
        if row is not None and (row.stopped == "cancelled" or (row.stopped and not reads)):
            reason, hint = (
                f"{name} was stopped: the task was cancelled or halted",
                "ask again if it is wanted after all",
            )
            return Failed("cancelled", reason, hint, effect="unknown" if row.number else "none")
        if row is not None and row.number and not row.stopped and not reads:
            return await self._outcome_without_task(key)
        if (refusal := await self._check_card()) is not None:
            return refusal
        previous = row or RemoteTask(agent=self.tool.agent)
        is_resend = bool(previous.number) and not previous.stopped
        attempt = RemoteTask(agent=self.tool.agent, number=previous.number + (not is_resend))
        try:
            sequence = await self._tasks.put(key, attempt, sequence)
        except WrongLastSequence:
            return _begun_elsewhere_failure(name)
        except BusError as error:
            return _record_unavailable_failure(name, error)
        message = Message(
            message_id=attempt.message_id(key), role=Role.ROLE_USER, parts=[Part(text=text) for text in texts]
        )
        outcome = await self._follow_to_end(
            key, attempt, sequence, self._client.send_message(SendMessageRequest(message=message))
        )
        if isinstance(outcome, Failed) and outcome.code in UNSENT_CODES and outcome.effect == "none" and not is_resend:
            with suppress(BusError):  # Left as it is, a write counts as sent.
                await self._tasks.put(key, previous, sequence)
        return outcome

    async def _outcome_without_task(self, key: str) -> Failed:
        """The outcome of a write whose message was sent and whose task has no name: not known while whoever sent it may
        still hear of it."""
        name = self.tool.row.spec.name
        try:
            age_ms = await self._tasks.age_ms(key)
        except BusError as error:
            return replace(_record_unavailable_failure(name, error), effect="unknown")
        if age_ms < self.tool.declared.silence_ms + RECORD_PATIENCE_S * 1000:
            return _begun_elsewhere_failure(name)
        message = f"the message to {name} was sent, and its answer was lost with the name of its task"
        return Failed("connection_lost", message, "look at the agent whether it was done", effect="unknown")

    async def _follow_to_end(
        self, key: str, row: RemoteTask, sequence: int, answer_events: AsyncIterator[StreamResponse] | None
    ) -> Done | Failed:
        """Read to the end. answer_events: the answer to the message that was sent just now."""
        answer, empty_reconnects, events_before = AgentAnswerFold(task=row.task), 0, 0
        events = answer_events if answer_events is not None else self._reconnect(row.task)
        while True:
            fault: AgentFault | None = None
            try:
                async with aclosing(self._with_silence_limit(events)) as limited_events:
                    async for event in limited_events:
                        answer.apply_event(event)
                        if answer.task and not row.task:
                            row, sequence = await self._record_task_name(key, row, sequence, answer.task)
                        if answer.is_over():
                            return await self._finish_call(answer)
            except AgentSilent:
                return await self._fail_as_silent(answer)
            except SDK_ERRORS as error:
                fault = fault_of(error)
            empty_reconnects, events_before = (
                (0 if answer.events > events_before + 1 else empty_reconnects + 1),
                answer.events,
            )
            if (failure := self._failure_unless_resumable(fault, answer, row, empty_reconnects)) is not None:
                return failure
            await asyncio.sleep(POLL_INTERVAL_S if fault is None else RESUME_S * 2**empty_reconnects)
            events = self._reconnect(row.task)

    async def _finish_call(self, answer: AgentAnswerFold) -> Done | Failed:
        self._breaker.on_success()
        if answer.state in ASKING_STATES or answer.state not in ENDED_STATES:
            await self.cancel_task(answer.task)
        return answer.to_outcome(self.tool)

    async def _fail_as_silent(self, answer: AgentAnswerFold) -> Failed:
        name, silence_s = self.tool.row.spec.name, self.tool.declared.silence_ms / 1000
        self._record_failure(f"it said nothing for {silence_s:g} s")
        await self.cancel_task(answer.task)
        message = f"{name} said nothing for {silence_s:g} s and was given up"
        return Failed("remote_silent", message, "try again later, or go another way", effect="unknown")

    def _failure_unless_resumable(
        self, fault: AgentFault | None, answer: AgentAnswerFold, row: RemoteTask, empty_reconnects: int
    ) -> Failed | None:
        """The end of a call that is not to be followed further; None where it is."""
        name, hint = self.tool.row.spec.name, RETRY_HINT
        if fault is None:
            if row.task:
                return None  # Its stream ended, or it has none: it is asked for.
            fault = AgentFault("malformed_output", "it answered with neither a task nor a message", True, broken=True)
        if not fault.sent and not row.task and not answer.events:
            if fault.code == "unavailable":
                self._record_failure(fault.reason)
            return Failed(fault.code, f"{name} was not begun: {fault.reason}", hint, fault.code == "unavailable")
        if row.task and empty_reconnects < MAX_EMPTY_RESUMES and not fault.lost and not fault.broken:
            log.info("agent_asked_again", agent=self.tool.agent, task=row.task, why=fault.reason)
            return None
        if not fault.answered:
            self._record_failure(fault.reason)
        code = "connection_lost" if not fault.sent else fault.code
        # A read whose message brought nothing is sent again, under the same id.
        transient = not row.task and self.tool.row.spec.effect == "read" and not fault.answered
        return Failed(code, f"{name} was lost: {fault.reason}", hint, transient=transient, effect="unknown")

    async def _record_task_name(self, key: str, row: RemoteTask, sequence: int, task: str) -> tuple[RemoteTask, int]:
        """The agent has named its task: a call that is taken over finds it. Without a record it is followed all the
        same; only who takes it over cannot."""
        named = row.model_copy(update={"task": task})
        try:
            return named, await self._tasks.put(key, named, sequence, RECORD_PATIENCE_S)
        except WrongLastSequence:
            # It was stopped meanwhile: whoever stopped it knew no task to cancel.
            log.warning("agent_task_stopped", agent=self.tool.agent, task=task)
            await self.cancel_task(task)
        except BusError as error:
            log.error("agent_task_not_recorded", agent=self.tool.agent, task=task, error=str(error))
        return named, sequence

    def _reconnect(self, task: str) -> AsyncGenerator[StreamResponse]:
        return self._subscribe_events(task) if self._streams else self._poll_events(task)

    async def _subscribe_events(self, task: str) -> AsyncGenerator[StreamResponse]:
        snapshot = await self._client.get_task(GetTaskRequest(id=task))
        yield StreamResponse(task=snapshot)
        async with aclosing(
            cast("AsyncGenerator[StreamResponse]", self._client.subscribe(SubscribeToTaskRequest(id=task)))
        ) as events:
            async for event in events:
                yield event

    async def _poll_events(self, task: str) -> AsyncGenerator[StreamResponse]:
        while True:
            yield StreamResponse(task=await self._client.get_task(GetTaskRequest(id=task)))
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _with_silence_limit(self, events: AsyncIterator[StreamResponse]) -> AsyncGenerator[StreamResponse]:
        """The same, or AgentSilent. Comments that keep a connection open are no word of the agent's."""
        silence_s = self.tool.declared.silence_ms / 1000
        async with aclosing(cast("AsyncGenerator[StreamResponse]", events)) as closing:
            while True:
                try:
                    async with asyncio.timeout(silence_s) as silence:
                        event = await anext(closing)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    if silence.expired():
                        raise AgentSilent from error
                    raise httpx.ReadTimeout(str(error)) from error
                yield event

    async def _check_card(self) -> Failed | None:
        """The refusal of an agent whose card is not the pinned one, or cannot be read."""
        loop, name = asyncio.get_running_loop(), self.tool.row.spec.name
        async with self._card_lock:
            if loop.time() >= self._next_card_check_s:
                try:
                    digest = digest_of(await read_card(self._http, self.tool.declared.card))
                except (CardUnreadable, UnfitCard) as error:
                    self._record_failure(str(error))
                    return Failed("unavailable", f"{name} was not begun: {error}"[:1500], RETRY_HINT, transient=True)
                self.card_changed = digest != self.tool.pin.digest
                self._next_card_check_s = loop.time() + (CHANGED_CARD_CHECK_S if self.card_changed else CARD_CHECK_S)
        return quarantine_refusal(self.tool) if self.card_changed else None

    def _record_failure(self, reason: str) -> None:
        now_s = asyncio.get_running_loop().time()
        self.last_failure = reason[:300]
        self._breaker.on_failure(now_s)
        self._next_card_check_s = 0.0
        if not self._breaker.allows_call(now_s):
            log.warning("agent_breaker_open", agent=self.tool.agent, why=self.last_failure)

    async def cancel_task(self, task: str) -> None:
        """Ask the agent to cancel its task, a few times; what it answers changes nothing here."""
        if not task:
            return
        for attempt in range(CANCEL_TRIES):
            try:
                async with asyncio.timeout(CANCEL_TIMEOUT_S):
                    await self._client.cancel_task(CancelTaskRequest(id=task))
                log.info("agent_task_cancelled", agent=self.tool.agent, task=task)
                return
            except (TimeoutError, *SDK_ERRORS) as error:
                fault = fault_of(error) if not isinstance(error, TimeoutError) else None
                if fault is not None and (fault.lost or fault.answered):
                    return  # It has ended, or is not known: there is nothing to cancel.
                reason = fault.reason if fault is not None else "it did not answer"
            await asyncio.sleep(RESUME_S * 2**attempt)
        log.warning("agent_task_not_cancelled", agent=self.tool.agent, task=task, why=reason)


def quarantine_refusal(tool: AgentTool) -> Failed:
    """The refusal of an agent that is not what was pinned."""
    message = f"{tool.row.spec.name} is quarantined: its card says something else than when it was pinned"
    hint = f"an operator must look at it and approve it: bulkhead agents add {tool.declared.card} --name {tool.agent}"
    return Failed("quarantined", message, hint)


def _begun_elsewhere_failure(name: str) -> Failed:
    message = f"another replica sent the message to {name} and may be listening to its answer"
    return Failed(BEGUN_ELSEWHERE, message, "wait for its answer", transient=True, effect="unknown")


def _record_unavailable_failure(name: str, error: BusError) -> Failed:
    message = f"{name} was not begun: its record cannot be kept: {str(error)[:200]}"
    return Failed("unavailable", message, "try again later", transient=True)
