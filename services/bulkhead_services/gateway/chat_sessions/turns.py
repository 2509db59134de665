"""Sessions in the gateway's inbox: read, written, and summary into what the next turn is shown.

In: a session's id, a turn. Out: its state; parts of its memory as contents whose labels are signed for the new task.
Whoever takes the next turn looks whether the summary that began beside an earlier one is there: nothing waits for it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bulkhead.blobs import BlobCorrupt, BlobMissing
from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import PubAck
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import Unreadable
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.result import Label, Result, cut_completeness, merge_completeness, merge_labels
from bulkhead_contracts.session import FactPinned, SessionDeleted, SessionOpened, SessionSummary, TurnTaken
from bulkhead_contracts.step import StepInput
from bulkhead_contracts.types import Body
from bulkhead_services.gateway import forks
from bulkhead_services.gateway.admission.durable_writes import DurableWrites
from bulkhead_services.gateway.chat_sessions import memory
from bulkhead_services.gateway.chat_sessions.memory import MemoryPart, PastTurn
from bulkhead_services.gateway.chat_sessions.state import SessionState
from bulkhead_services.gateway.read_model.feeds import INBOX, InboxFeed, InboxFeeds

SESSION_TYPES = tuple(f"{kind.TYPE}.v" for kind in (SessionOpened, TurnTaken, FactPinned, SessionDeleted))
MAX_TURNS_READ = 100
"""Turns without a summary that are read back for the next one at most."""


@dataclass(frozen=True, slots=True)
class RememberedTurn:
    """An earlier turn with its result, where it has one."""

    past: PastTurn
    task: str
    result: Result | None = None


@dataclass(frozen=True, slots=True)
class PersonSessions:
    """Sessions of a person, by id, oldest first. shared: of others, in which the person took turns or pinned facts."""

    live: tuple[str, ...]
    deleted: tuple[str, ...]
    shared: tuple[str, ...]


class SessionTurns:
    """The sessions of all tenants, each read from its facts when it is asked for."""

    def __init__(self, context: Context, feeds: InboxFeeds, writes: DurableWrites) -> None:
        self._context, self._feeds, self._writes = context, feeds, writes

    async def read_session(self, tenant: str, session: str) -> SessionState:
        """A session as its facts tell; one without any for an unknown id. Raises BusError."""
        state, subject = SessionState(), subjects.mesh_subject("gateway", "gateway", tenant, session)
        async for stored in stored_messages(self._context.bus, INBOX, subject):
            try:
                message = inbound.read_message(stored, "gateway")
            except Unreadable:
                continue
            state.apply_body(message.body, message.sequence)
        return state

    async def find_sessions(self, tenant: str, person: str) -> PersonSessions:
        """All sessions that a person opened, and those of others in which he took turns. Raises BusError."""
        mine: dict[str, bool] = {}
        shared: dict[str, bool] = {}
        async for stored in stored_messages(self._context.bus, INBOX, f"mesh.gateway.gateway.*.{tenant}.*.*"):
            if not stored.ce_type.startswith(SESSION_TYPES):
                continue
            try:
                body = inbound.read_message(stored, "gateway").body
            except Unreadable:
                continue
            if isinstance(body, SessionOpened) and body.requester.person == person:
                # The turns that a fork began with come before its opening.
                mine.setdefault(stored.task, shared.pop(stored.task, False))
            elif isinstance(body, TurnTaken | FactPinned) and body.person == person and stored.task not in mine:
                shared.setdefault(stored.task, False)
            elif isinstance(body, SessionDeleted):
                for sessions in (mine, shared):
                    if stored.task in sessions:
                        sessions[stored.task] = True
        return PersonSessions(
            live=tuple(session for session, deleted in mine.items() if not deleted),
            deleted=tuple(session for session, deleted in mine.items() if deleted),
            shared=tuple(session for session, deleted in shared.items() if not deleted),
        )

    async def append_fact(
        self, tenant: str, session: str, body: Body, state: SessionState, person: str, index: str
    ) -> PubAck:
        """Store the next fact of a session, once. Raises BusError, of these WrongLastSequence where another fact was
        first."""
        write = self._context.publisher.send(
            "gateway",
            body,
            tenant=tenant,
            task=session,
            index=f"session/{session}/{index}",
            actor=person,
            expect_last_on_subject=state.sequence,
        )
        return await self._writes.write_within(write)

    async def find_summary(self, tenant: str, state: SessionState) -> SessionSummary | None:
        """The awaited summary once its task has ended; None before, and where none is awaited. Raises BusError."""
        begun = state.awaited_summary
        if begun is None:
            return None
        feed = await self._feeds.read_feed(tenant, begun.begun_summary)
        ended = feed.view.ended
        if not feed.has_ended:
            # A request that never was stored is begun no more: another summary takes its place.
            lost = not feed.is_known and self._context.clock() - begun.taken_unix_ms > bounds.DEFAULT_TASK_DEADLINE_MS
            return SessionSummary(task=begun.begun_summary, through=begun.begun_through, used=False) if lost else None
        usage = ended.usage if ended is not None else feed.view.usage
        summary = SessionSummary(
            task=begun.begun_summary,
            through=begun.begun_through,
            cost_usd_micros=usage.cost_usd_micros,
            tokens=usage.input_tokens + usage.output_tokens,
            used=False,
        )
        if begun.begun_summary in state.void_summaries:
            return summary
        result, request = feed.view.result, feed.view.request
        if feed.view.status != "succeeded" or result is None or request is None or request.turn is None:
            return summary
        inputs = request.turn.memory
        replaced = [await self._text_of(tenant, part.result) for part in inputs]
        before = merge_completeness(*(part.result.completeness for part in inputs), result.completeness)
        result = result.model_copy(update={"completeness": before})
        text = (await self._text_of(tenant, result))[: bounds.MAX_SESSION_SUMMARY_CHARS]
        summary = summary.model_copy(update={"text": text, "result": result})
        return memory.judge_summary(summary, "\n".join(replaced), state.summary)

    async def read_turn(self, tenant: str, turn: TurnTaken) -> tuple[RememberedTurn, InboxFeed]:
        """A turn with its answer. Raises BusError."""
        feed = await self._feeds.read_feed(tenant, turn.task)
        result, failure = feed.view.result, feed.view.failure
        answer, reason = "", failure.message if failure is not None else feed.view.status
        if not feed.is_known:
            reason = "it is no longer kept"
        elif feed.has_ended and result is not None:
            answer = await self._text_of(tenant, result)
        # A task that was submitted by itself was planned: its calls tell nothing of how often a turn reads the memory.
        is_read = feed.view.request is not None and feed.view.request.turn is not None
        past = PastTurn(turn.number, turn.text, answer, reason, feed.view.usage.model_calls if is_read else 1)
        return RememberedTurn(past, turn.task, result), feed

    async def read_past(self, tenant: str, turns: Sequence[TurnTaken]) -> list[RememberedTurn]:
        """The last turns of these, in order. Raises BusError."""
        turns = turns[-MAX_TURNS_READ:]
        return [remembered for remembered, _ in await asyncio.gather(*(self.read_turn(tenant, turn) for turn in turns))]

    async def _text_of(self, tenant: str, result: Result) -> str:
        """The text of a result; "" where it is gone."""
        if result.content is None:
            return result.summary
        try:
            return await self._context.blobs.get_text(tenant, result.content)
        except (BlobMissing, BlobCorrupt):
            return ""

    async def store_memory(
        self,
        tenant: str,
        task: str,
        parts: Sequence[MemoryPart],
        state: SessionState,
        summary: SessionSummary | None,
        turns: Sequence[RememberedTurn],
    ) -> tuple[StepInput, ...]:
        """The parts as inputs of a new task, each with the labels of all that it was made from. Raises BusError."""
        assert state.opened is not None
        of_turns = {turn.past.number: turn for turn in turns}
        pinned = {fact.turn for fact in state.facts.values() if fact.turn}
        elsewhere = [turn for turn in state.turns if turn.number in pinned - set(of_turns)]
        of_turns |= {turn.past.number: turn for turn in await self.read_past(tenant, elsewhere)}
        inputs = []
        for part in parts:
            if part.name == memory.PINNED:
                sources = [
                    (of_turns[number].task, of_turns[number].result) for number in sorted(pinned & set(of_turns))
                ]
            else:
                sources = [(turn.task, turn.result) for turn in turns]
                sources += [(summary.task, summary.result)] if summary is not None else []
            groups = [self._relabel(tenant, source, task, result) for source, result in sources if result is not None]
            content = await self._context.blobs.put(tenant, part.text, summary=part.title)
            # By it an answer that cites the part tells what that is.
            own_label = Label(
                sha256=content.sha256, kind="step_result", source=part.title, observed_by=self._context.service
            )
            groups.insert(0, (self._context.signer.sign_label(own_label, tenant, task),))
            result = Result(
                content=content,
                summary=part.title,
                completeness=merge_completeness(part.completeness, cut_completeness(groups)),
                provenance=merge_labels(*groups),
            )
            inputs.append(StepInput(step_id=part.name, title=part.title, result=result))
        return tuple(inputs)

    def _relabel(self, tenant: str, source: str, task: str, result: Result) -> tuple[Label, ...]:
        """Labels of an earlier task's result, believed in the new one: but for a requester's own words, since people
        share a session."""
        relabelled = forks.relabel_result(
            self._context, tenant, (source, task), memory.TURN_STEP, result, same_person=False
        )
        return relabelled.provenance

    @staticmethod
    def find_due_summary(
        state: SessionState, opened: SessionOpened, summary: SessionSummary | None, turns: Sequence[RememberedTurn]
    ) -> int:
        """The last turn of a summary that is to begin now; 0 for none."""
        if not turns or not state.may_summarise:
            return 0
        return memory.last_summarised_turn([turn.past for turn in turns], summary, opened.window_turns)
