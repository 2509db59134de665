"""Sessions over HTTP: conversations whose turns are tasks, and whose memory stays affordable.

In: requests of participants. Out: receipts, documents, problem details. A turn is followed by its task's own events.
"""

import asyncio
import hashlib
import itertools
import random
import re
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.bus.port import BusUnavailable, PubAck, PublishRefused, WrongLastSequence
from bulkhead.gateway_api.query import OPERATORS, SUBMITTERS
from bulkhead.gateway_api.sessions import (
    MAX_KEPT_SESSIONS,
    MAX_SESSION_PAGE,
    MAX_TURN_PAGE,
    FactDocument,
    KeptData,
    SessionDocument,
    SessionErasureReceipt,
    SessionListQuery,
    SessionPage,
    SessionQuery,
    SessionSummaryRow,
    SummaryDocument,
    TurnDocument,
)
from bulkhead.runtime.context import Context
from bulkhead.telemetry.log import Log
from bulkhead.text.plain_text import cut_line
from bulkhead_contracts import bounds
from bulkhead_contracts.result import digest_of
from bulkhead_contracts.session import FactPinned, SessionDeleted, SessionOpened, TurnTaken
from bulkhead_contracts.step import StepInput
from bulkhead_contracts.task import RequesterClaim, SessionTurn, TaskLimits, TaskRequested
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.authority import obtain_voucher
from bulkhead_services.gateway.chat_sessions import memory
from bulkhead_services.gateway.chat_sessions.state import SessionState, fork_facts
from bulkhead_services.gateway.chat_sessions.turns import SessionTurns
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.content_access import log_content_read
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.http.request_limits import GatewayRequestBodies
from bulkhead_services.gateway.http.request_values import check_id, idempotency_key, json_response, parse_body
from bulkhead_services.gateway.http.schemas import (
    FactSubmission,
    SessionForkSubmission,
    SessionSubmission,
    TurnReceipt,
    TurnSubmission,
)
from bulkhead_services.gateway.http.sessions.documents import describe_row, describe_turn, title_of
from bulkhead_services.gateway.http.submission_checks import SubmissionChecks
from bulkhead_services.gateway.intake import Intake
from bulkhead_services.gateway.problems import Problem, forbidden, invalid_query, key_reused, not_found, not_stored
from bulkhead_services.gateway.read_model.feeds import InboxFeed, InboxFeeds
from bulkhead_services.gateway.read_model.task_index import TaskIndex

log = Log("gateway.sessions")
MAX_BODY_BYTES = 128 * 1024
MAX_ERASED = 100
"""Sessions that one request erases."""
KEPT_DATA: tuple[KeptData, ...] = (
    KeptData(what="sums of money and tokens", reason="ceilings count them by person, feature and day, without content"),
    KeptData(
        what="first tasks of conversations that go by a task's id",
        reason="they were submitted outside of any conversation: they go after their retention",
    ),
    KeptData(what="words in others' forks", reason="those are sessions of their own; the answers in them are erased"),
    KeptData(what="lines in logs", reason="they tell who read or erased what, and hold none of it"),
    KeptData(what="backups made before", reason="they are copies: delete their files"),
)
LOST_TURN_MS = 30_000
"""A turn whose task is not there after so long was not stored; another may be taken."""
ADOPTION_TRIES, ADOPTION_PAUSE_S = 16, 0.1
"""Attempts to become a turn beside other tasks, and the longest pause after the first one."""
READ_AT_ONCE = 100
DELETED = "its session was deleted"
SUMMARY_WORKFLOW = "session-summary"
"""Name under which the spending for summaries is counted."""
TITLE = "The turn cannot be taken"
_SESSION_ID, _TASK_ID = re.compile(r"s[a-z2-7]{25}"), re.compile(r"t[a-z2-7]{25}")
"""Ids as `KeyedIds` makes them; every other name of a conversation is one that its person chose."""


class SessionRoutes:
    """The routes under /v1/sessions."""

    def __init__(
        self,
        context: Context,
        auth: GatewayAuthenticator,
        bodies: GatewayRequestBodies,
        feeds: InboxFeeds,
        turns: SessionTurns,
        intake: Intake,
        door: SubmissionChecks,
        listing: TaskIndex,
    ) -> None:
        self._context, self._auth, self._bodies, self._feeds = context, auth, bodies, feeds
        self._turns, self._intake, self._door, self._listing = turns, intake, door, listing

    def routes(self) -> list[Route]:
        """Routes for the application."""
        fact_path = "/v1/sessions/{session_id}/facts/{fact_id}"
        return [
            Route("/v1/sessions", self.open_session, methods=["POST"]),
            Route("/v1/sessions", self.erase_sessions, methods=["DELETE"]),
            query_route(SessionListQuery, self._auth, self.list_sessions),
            query_route(SessionQuery, self._auth, self.show_session),
            Route("/v1/sessions/{session_id}", self.delete_session, methods=["DELETE"]),
            Route("/v1/sessions/{session_id}/turns", self.take_turn, methods=["POST"]),
            Route("/v1/sessions/{session_id}/forks", self.fork_session, methods=["POST"]),
            Route(fact_path, self.pin_fact, methods=["PUT"]),
            Route(fact_path, self.unpin_fact, methods=["DELETE"]),
        ]

    async def open_session(self, request: Request) -> Response:
        """POST /v1/sessions: the same key is the same session, and so is the same conversation."""
        claim = await self._auth.require_role(request, SUBMITTERS, "open sessions")
        key = idempotency_key(request, required=True)
        async with self._bodies.read_body(request, claim, MAX_BODY_BYTES) as raw:
            body = parse_body(SessionSubmission, raw)
        self._door.check_tools(claim.tenant, body.tools)
        if _SESSION_ID.fullmatch(name := body.conversation):
            state = await self._existing_session(claim, name, takes_part=True)
            if state.opened is not None and state.opened.conversation:
                hint = f"that session goes by the name {state.opened.conversation}, as its tasks do"
                raise not_found("conversation", name, hint)
            return await self._answer_opened(claim, name, state)
        # Keyed by the person: whoever guesses the name of another's conversation begins one of his own.
        session = self._intake.session_id(claim, f"conversation\0{name}" if name else key)
        opened = SessionOpened(
            requester=claim,
            title=body.title,
            participants=body.participants,
            limits=TaskLimits(**body.limits.model_dump()),
            window_turns=body.window_turns,
            summary_cost_usd_micros=body.summary_cost_usd_micros,
            opened_unix_ms=self._context.clock(),
            payload_sha256=hashlib.sha256(body.model_dump_json().encode()).hexdigest(),
            **body.pick_options(),
        )
        state = await self._turns.read_session(claim.tenant, session)
        if name and state.is_deleted:
            raise not_found("conversation", name, "it was deleted: begin another one under another name, or without")
        first_task = (
            await self._require_own_task(claim, name, "") if _TASK_ID.fullmatch(name) and not state.turns else None
        )
        if state.opened is None:
            ack = await self._append(claim, session, opened, state, "opened")
            if ack.duplicate:
                # Another opening under this key was first, perhaps with other options.
                state = await self._existing_session(claim, session)
            else:
                state.apply_body(opened, ack.sequence)
        if state.is_deleted:
            raise not_found("session", session, "it was deleted; use a new key for a new session")
        if not name and state.opened is not None and state.opened.payload_sha256 != opened.payload_sha256:
            raise key_reused(f"session {session} was opened under this key with other options")
        if first_task is not None:
            await self._adopt_task(claim, session, first_task)
            state = await self._existing_session(claim, session)
        return await self._answer_opened(claim, session, state)

    async def _answer_opened(self, claim: RequesterClaim, session: str, state: SessionState) -> Response:
        """A session without its turns, which `getSession` reads."""
        document = await self._describe_session(claim, session, state, 1)
        return json_response(document, 201, {"Location": f"/v1/sessions/{session}"})

    async def _require_own_task(self, claim: RequesterClaim, task: str, conversation: str) -> InboxFeed:
        """A task of the caller's own in this conversation. Raises Problem 404, BusError."""
        feed = await self._feeds.fresh_feed(claim.tenant, task)
        request, requester = feed.view.request, feed.view.requester
        is_own = requester is not None and requester.person == claim.person
        if request is None or not is_own or request.conversation != conversation:
            hint = "send it without a conversation to begin another one; a task that belongs to one goes by its name"
            raise not_found("conversation", task, hint)
        return feed

    async def _adopt_task(self, claim: RequesterClaim, session: str, feed: InboxFeed) -> TurnTaken:
        """A task that was submitted by itself becomes a turn, which was shown nothing. Raises Problem, BusError."""
        request = feed.view.request
        assert request is not None
        for attempt in range(ADOPTION_TRIES):
            state = await self._existing_session(claim, session, takes_part=True)
            if (turn := state.find_turn(feed.task)) is not None:
                return turn
            _require_turn_left(state)
            last = state.turns[-1] if state.turns else None
            past = await self._turns.read_past(claim.tenant, state.turns[-1:])
            turn = TurnTaken(
                number=len(state.turns) + 1,
                task=feed.task,
                text=request.objective,
                person=claim.person,
                taken_unix_ms=self._context.clock(),
                whole_tokens=last.whole_tokens + past[0].past.tokens if last is not None else 0,
            )
            try:
                await self._append(claim, session, turn, state, f"turn/{feed.task}/{digest_of(turn.text)}")
                return turn
            except Problem as problem:
                if problem.body.code != "session_changed":
                    raise
                changed = problem
            await asyncio.sleep(random.uniform(0, ADOPTION_PAUSE_S * min(attempt + 1, 5)))  # noqa: S311
        raise changed

    async def fork_session(self, request: Request) -> Response:
        """POST /v1/sessions/{session_id}/forks: the same key is the same session."""
        claim = await self._auth.require_role(request, SUBMITTERS, "fork sessions")
        key, source_id = idempotency_key(request, required=True), request.path_params["session_id"]
        async with self._bodies.read_body(request, claim, MAX_BODY_BYTES) as raw:
            task = parse_body(SessionForkSubmission, raw).task_id
        source = await self._existing_session(claim, source_id, takes_part=True)
        through = _require_turn(source, task, "The session cannot be forked")
        if through is source.turns[-1] and not (await self._feeds.fresh_feed(claim.tenant, task)).has_ended:
            raise _turn_in_progress(f"turn {through.number} goes on as task {task}")
        assert source.opened is not None
        self._door.check_tools(claim.tenant, source.opened.tools)
        changes = {
            "requester": claim,
            "title": cut_line(f"Fork: {title_of(source)}", bounds.MAX_TITLE_CHARS),
            "participants": (),
            "conversation": "",
            "opened_unix_ms": self._context.clock(),
            "payload_sha256": digest_of(f"fork {source_id} {task}"),
        }
        opened = source.opened.model_copy(update=changes)
        session = self._intake.session_id(claim, f"fork/{source_id}/{key}")
        state, facts = await self._turns.read_session(claim.tenant, session), fork_facts(source, through, opened)
        if (
            state.opened.payload_sha256 != opened.payload_sha256
            if state.opened is not None
            else any(turn.task != earlier.task for turn, earlier in zip(state.turns, source.turns, strict=False))
        ):
            raise key_reused(f"session {session} was forked under this key from other turns")
        for fact in () if state.opened is not None else facts[state.messages :]:
            index = f"fork/{state.messages}/{digest_of(fact.model_dump_json())}"
            ack = await self._append(claim, session, fact, state, index)
            state.apply_body(fact, ack.sequence)
        document = await self._describe_session(claim, session, await self._existing_session(claim, session), 0)
        return json_response(document, 201, {"Location": f"/v1/sessions/{session}"})

    async def list_sessions(self, claim: RequesterClaim, _: SessionListQuery) -> SessionPage:
        """The caller's sessions."""
        rows: list[SessionSummaryRow] = []
        for session in await self._listing.list_sessions(claim.tenant, claim.person):
            state = await self._turns.read_session(claim.tenant, session)
            if state.is_open_to(claim.person) and not state.is_deleted:
                rows.append(describe_row(session, state))
            if len(rows) == MAX_SESSION_PAGE:
                break
        return SessionPage(sessions=tuple(rows))

    async def show_session(self, claim: RequesterClaim, query: SessionQuery) -> SessionDocument:
        """A session and a page of its turns."""
        state = await self._existing_session(claim, query.session_id)
        if not state.is_open_to(claim.person):
            log_content_read(claim, "session", query.session_id)
        return await self._describe_session(claim, query.session_id, state, query.before)

    async def delete_session(self, request: Request) -> Response:
        """DELETE /v1/sessions/{session_id}: what runs is cancelled, and it is shown no more."""
        claim = await self._auth.require_role(request, SUBMITTERS, "delete sessions")
        return json_response(await self._mark_deleted(claim, request.path_params["session_id"]))

    async def erase_sessions(self, request: Request) -> Response:
        """DELETE /v1/sessions?person=: all that a person opened, as if each was deleted."""
        claim = await self._auth.require_role(request, SUBMITTERS, "erase sessions")
        person = request.query_params.get("person", "")
        if not 0 < len(person) <= bounds.MAX_NAME_CHARS:
            raise invalid_query("person", person, "name whose sessions: ?person=ann")
        if claim.agent or (person != claim.person and claim.role not in OPERATORS.names):
            raise forbidden(claim.role, f"erase the sessions of {person}", "the person's own key or an operator's")
        sessions = await self._turns.find_sessions(claim.tenant, person)
        erased, asked_by = 0, {"person": claim.person, "role": claim.role, "via": claim.via}
        try:
            for session in sessions.live[:MAX_ERASED]:
                await self._mark_deleted(claim, session)
                erased += 1
        finally:  # Also where the broker went away, or a session changed, in the midst of it.
            log.warning("sessions_erased", tenant=claim.tenant, of=person, sessions=erased, **asked_by)
        kept = KEPT_DATA
        if sessions.shared:
            reason = f"others opened these {len(sessions.shared)}; they, or an operator, delete them one by one"
            turns = KeptData(
                what="turns in sessions of others", reason=reason, session_ids=sessions.shared[:MAX_KEPT_SESSIONS]
            )
            kept = (turns, *kept)
        receipt = SessionErasureReceipt(
            person=person,
            erased=erased,
            waiting=len(sessions.deleted) + erased,
            remaining=len(sessions.live) - erased,
            kept=kept,
        )
        return json_response(receipt)

    async def _mark_deleted(self, claim: RequesterClaim, session: str) -> SessionSummaryRow:
        """Cancel what runs in a session, and store that it is deleted. Raises BusError, Problem (404, 409, 503)."""
        state = await self._existing_session(claim, session)
        _refuse_agent(claim, state, "delete the session")
        turns = (*state.turns, *itertools.chain.from_iterable(state.replaced.values()))
        await self._cancel_turns(claim, session, state, turns, DELETED)
        await self._append(claim, session, SessionDeleted(person=claim.person), state, "deleted")
        return describe_row(session, state)

    async def _cancel_turns(
        self, claim: RequesterClaim, session: str, state: SessionState, turns: Iterable[TurnTaken], reason: str
    ) -> None:
        """Ask for the end of turns of this session, not of one that it forked, and of the summaries beside them. Raises
        BusError, Problem (503)."""
        assert state.opened is not None
        names = {session, state.opened.conversation or session}

        async def cancel_task(task: str) -> None:
            feed = await self._feeds.read_feed(claim.tenant, task)
            if (request := feed.view.request) is None or feed.has_ended:
                return
            if (request.turn.session if request.turn is not None else request.conversation or task) in names:
                await self._intake.request_cancel(claim, feed, reason)

        tasks = [task for turn in turns for task in (turn.task, turn.begun_summary) if task]
        for start in range(0, len(tasks), READ_AT_ONCE):
            await asyncio.gather(*map(cancel_task, tasks[start : start + READ_AT_ONCE]))

    async def pin_fact(self, request: Request) -> Response:
        """PUT /v1/sessions/{session_id}/facts/{fact_id}: every later turn is shown it."""
        claim = await self._auth.require_role(request, SUBMITTERS, "pin facts")
        async with self._bodies.read_body(request, claim, MAX_BODY_BYTES) as raw:
            body = parse_body(FactSubmission, raw)
        return await self._store_fact(request, claim, body.text, body.turn)

    async def unpin_fact(self, request: Request) -> Response:
        """DELETE /v1/sessions/{session_id}/facts/{fact_id}: one that is not there is gone already."""
        claim = await self._auth.require_role(request, SUBMITTERS, "pin facts")
        return await self._store_fact(request, claim, "", 0)

    async def _store_fact(self, request: Request, claim: RequesterClaim, text: str, turn: int) -> Response:
        session, fact_id = request.path_params["session_id"], check_id(request.path_params["fact_id"], "fact")
        state = await self._existing_session(claim, session, takes_part=True)
        standing = state.facts.get(fact_id)
        if turn > len(state.turns):
            detail, hint = f"the session has {len(state.turns)} turns", "name one of them, or 0 for your own words"
            raise Problem(422, "unknown_turn", "The fact cannot be pinned", detail, hint, limit=len(state.turns))
        if (standing.text, standing.turn) != (text, turn) if standing is not None else bool(text):
            is_full = standing is None and len(state.facts) >= bounds.MAX_PINNED_FACTS
            if is_full or state.messages >= bounds.MAX_SESSION_FACTS:
                detail = f"the session has {len(state.facts)} pinned facts and {state.messages} changes"
                hint = f"unpin one of them: {bounds.MAX_PINNED_FACTS} may stand; or open another session"
                raise Problem(409, "fact_limit", "The fact cannot be pinned", detail, hint)
            fact = FactPinned(
                fact_id=fact_id, text=text, turn=turn, person=claim.person, pinned_unix_ms=self._context.clock()
            )
            # The digest: two changes of the same state are two messages, of which the broker refuses the second.
            index = f"fact/{state.sequence}/{fact_id}/{digest_of(f'{turn} {text}')}"
            await self._append(claim, session, fact, state, index)
            state = await self._existing_session(claim, session)
        return json_response(await self._describe_session(claim, session, state, 0))

    async def take_turn(self, request: Request) -> Response:
        """POST /v1/sessions/{session_id}/turns: a task that is shown what was said before."""
        claim = await self._auth.require_role(request, SUBMITTERS, "take turns")
        key, session = idempotency_key(request, required=True), request.path_params["session_id"]
        async with self._bodies.read_body(request, claim, MAX_BODY_BYTES) as raw:
            body = parse_body(TurnSubmission, raw)
        text, state = body.text, await self._existing_session(claim, session, takes_part=True)
        assert state.opened is not None
        conversation = state.opened.conversation or session
        submitted = (
            await self._require_own_task(claim, check_id(body.task, "task"), conversation)
            if body.task
            # Its caller may have gone between its submission and its turn.
            else await self._feeds.read_feed(claim.tenant, self._intake.task_id(claim, key))
        )
        if (first := submitted.view.request) is not None and first.conversation == conversation:
            if not body.task and first.objective != text:
                raise key_reused(f"task {submitted.task} was submitted under this key with other words")
            return _answer_turn(session, await self._adopt_task(claim, session, submitted), repeated=True)
        task, token = self._intake.task_id(claim, f"session/{session}/{key}"), self._auth.token_of(request)
        turn = state.find_turn(task)
        if turn is not None and turn.text != text:
            raise key_reused(f"turn {turn.number} was taken under this key with another text")
        if turn is not None and turn not in state.turns:
            return _answer_turn(session, turn, repeated=True)  # Another stands in its place by now.
        is_new, replaced = turn is None, state.replaced.get(task, ())
        if is_new:
            await self._require_room(claim, state)
            if body.replaces:
                _refuse_agent(claim, state, "replace a turn")
                replaced = state.rewind_to(_require_turn(state, body.replaces, TITLE).number)
        earlier = state.turns[: turn.number - 1] if turn is not None else state.turns
        ready_summary = turn.summary if turn is not None else await self._turns.find_summary(claim.tenant, state)
        summary = ready_summary if ready_summary is not None and ready_summary.used else state.summary
        unsummarised = earlier[summary.through if summary is not None else 0 :]
        past = await self._turns.read_past(claim.tenant, unsummarised)
        parts = memory.compose_memory(
            state.facts.values(), summary, [row.past for row in past], lost=len(unsummarised) - len(past)
        )
        inputs = await self._turns.store_memory(claim.tenant, task, parts, state, summary, past)
        if turn is None:
            if ready_summary is not None:
                state.add_summary(ready_summary)
            through = self._turns.find_due_summary(state, state.opened, summary, past)
            last = earlier[-1] if earlier else None
            turn = TurnTaken(
                number=len(earlier) + 1,
                task=task,
                text=text,
                person=claim.person,
                taken_unix_ms=self._context.clock(),
                memory_tokens=sum(memory.estimate_tokens(part.text) for part in parts),
                whole_tokens=(last.whole_tokens if last is not None else 0) + (past[-1].past.tokens if past else 0),
                summary=ready_summary,
                begun_summary=self._intake.task_id(claim, f"summary/{session}/{task}") if through else "",
                begun_through=through,
            )
        # Before the turn is stored: one whose task cannot begin would hold up the session.
        tasks = [task, *([turn.begun_summary] if turn.begun_summary else [])]
        vouchers = [await obtain_voucher(self._context, claim, token, begun) for begun in tasks]
        if is_new:
            await self._append(claim, session, turn, state, f"turn/{task}/{digest_of(text)}")
        repeated = await self._submit_task(
            claim, vouchers[0], _options_of_turn(state.opened, body), session, task, text, turn.number, inputs
        )
        if turn.begun_summary:
            summarised = memory.compose_memory(
                (), summary, [row.past for row in past if row.past.number <= turn.begun_through]
            )
            summarised_inputs = await self._turns.store_memory(
                claim.tenant, turn.begun_summary, summarised, state, summary, past
            )
            await self._submit_task(
                claim,
                vouchers[1],
                state.opened,
                session,
                turn.begun_summary,
                memory.SUMMARY_OBJECTIVE,
                turn.begun_through,
                summarised_inputs,
                summary_budget=state.opened.summary_cost_usd_micros - state.measure_summaries().cost_usd_micros,
            )
        if (await self._turns.read_session(claim.tenant, session)).is_deleted:
            # It was deleted after the turn was taken and before its tasks were there to be cancelled.
            await self._cancel_turns(claim, session, state, (turn,), DELETED)
        await self._cancel_turns(claim, session, state, replaced, "another turn stands in its place")
        return _answer_turn(session, turn, repeated=repeated)

    async def _require_room(self, claim: RequesterClaim, state: SessionState) -> None:
        """Raises Problem: 429, 409 while the turn before goes on, or after the last turn that a session may have."""
        await self._door.check_submission(claim)
        _require_turn_left(state)
        last = state.turns[-1] if state.turns else None
        if last is None:
            return
        feed = await self._feeds.fresh_feed(claim.tenant, last.task)
        is_lost = not feed.is_known and self._context.clock() - last.taken_unix_ms > LOST_TURN_MS
        if not feed.has_ended and not is_lost:
            raise _turn_in_progress(f"turn {last.number} goes on as task {last.task}")

    async def _submit_task(
        self,
        claim: RequesterClaim,
        voucher: str,
        opened: SessionOpened,
        session: str,
        task: str,
        text: str,
        number: int,
        inputs: tuple[StepInput, ...],
        *,
        summary_budget: int = 0,
    ) -> bool:
        """Store the task of a turn, or with a budget that of a summary; True for a repeat. Raises Problem."""
        limits, options = opened.limits, opened.pick_options()
        if summary_budget:
            limits = limits.model_copy(update={"cost_usd_micros": min(limits.cost_usd_micros, summary_budget)})
            # Nobody is shown a summary as an answer, and it may use no tool.
            options |= {"tools": (), "check": False, "delivery": None, "constraints": (), "workflow": SUMMARY_WORKFLOW}
        options |= {"conversation": opened.conversation or session} | ({"written_by": "model"} if claim.agent else {})
        body = TaskRequested(
            objective=text,
            limits=limits,
            requester=claim,
            payload_sha256=digest_of(text),
            voucher=voucher,
            turn=SessionTurn(session=session, number=number, is_summary=bool(summary_budget), memory=inputs),
            **options,
        )
        with self._door.pending_request(claim.tenant, task) as mark_stored:
            repeated = await self._intake.begin_task(body, task)
            mark_stored(not repeated)
        return repeated

    async def _append(self, claim: RequesterClaim, session: str, body: Body, state: SessionState, index: str) -> PubAck:
        """Store the next fact of a session. Raises Problem (409, 503)."""
        try:
            return await self._turns.append_fact(claim.tenant, session, body, state, claim.person, index)
        except WrongLastSequence as error:
            detail, hint = "somebody else changed the session at the same time", "look at it, then send this again"
            title, headers = "The session has changed", {"Retry-After": "1"}
            raise Problem(409, "session_changed", title, detail, hint, headers=headers) from error
        except (BusUnavailable, PublishRefused) as error:
            raise not_stored(error) from error

    async def _existing_session(self, claim: RequesterClaim, session: str, *, takes_part: bool = False) -> SessionState:
        """A session that the caller may see: a participant, or, but for taking part, an operator. Raises Problem 404
        for every other, so that nobody learns of it."""
        state = await self._turns.read_session(claim.tenant, check_id(session, "session"))
        may_see = state.is_open_to(claim.person) or (claim.role in OPERATORS.names and not takes_part)
        if state.opened is None or state.is_deleted or not may_see:
            raise not_found("session", session, "check the id; GET /v1/sessions lists yours")
        return state

    async def _describe_session(
        self, claim: RequesterClaim, session: str, state: SessionState, before: int
    ) -> SessionDocument:
        opened, summary = state.opened, state.summary
        assert opened is not None
        below = [turn for turn in state.turns if not before or turn.number < before]
        page = below[-MAX_TURN_PAGE:]
        turns = await asyncio.gather(*(self._describe_turn(claim, state, turn) for turn in page))
        return SessionDocument(
            **describe_row(session, state).model_dump(),
            participants=opened.participants,
            window_turns=opened.window_turns,
            summary_limit_usd_micros=opened.summary_cost_usd_micros,
            turns=tuple(turns),
            next=page[0].number if len(below) > len(page) else None,
            facts=tuple(
                FactDocument(**fact.model_dump(include=set(FactDocument.model_fields))) for fact in state.facts.values()
            ),
            summary=None
            if summary is None
            else SummaryDocument(
                through=summary.through,
                text=summary.text,
                completeness=summary.result.completeness,
                task_id=summary.task,
            ),
            summaries=state.measure_summaries(),
        )

    async def _describe_turn(self, claim: RequesterClaim, state: SessionState, turn: TurnTaken) -> TurnDocument:
        remembered, feed = await self._turns.read_turn(claim.tenant, turn)
        return describe_turn(turn, feed, remembered.past.answer, state.replaced.get(turn.task, ()))


def _options_of_turn(opened: SessionOpened, body: TurnSubmission) -> SessionOpened:
    """Options and limits of the session, but for what one turn says of its own."""
    limits = body.limits.model_dump(exclude_unset=True) if body.limits is not None else {}
    by_model = {"written_by": "model"} if body.written_by == "model" else {}
    return opened.model_copy(update={"limits": opened.limits.model_copy(update=limits), **by_model})


def _require_turn(state: SessionState, task: str, title: str) -> TurnTaken:
    """A turn of the conversation as it stands. Raises Problem (422)."""
    turn = state.find_turn(task)
    if turn is None or turn not in state.turns:
        detail = f"task {task} is no turn of the session" if turn is None else f"turn {turn.number} was replaced before"
        raise Problem(422, "unknown_turn", title, detail, "read the session, and name the task of one of its turns")
    return turn


def _answer_turn(session: str, turn: TurnTaken, *, repeated: bool) -> Response:
    url = f"/v1/tasks/{turn.task}"
    receipt = TurnReceipt(
        task_id=turn.task, status_url=url, events_url=f"{url}/events", session_id=session, number=turn.number
    )
    return json_response(receipt, 202, {"Location": url} | ({"Idempotency-Replayed": "true"} if repeated else {}))


def _refuse_agent(claim: RequesterClaim, state: SessionState, action: str) -> None:
    """Raises Problem 403 for an agent, but in a session that an agent opened."""
    if claim.agent and not (state.opened is not None and state.opened.requester.agent):
        detail, hint = f"an agent may not {action}: a person opened it", "ask that person"
        raise Problem(403, "forbidden", "Agents may not do this", detail, hint)


def _require_turn_left(state: SessionState) -> None:
    """Raises Problem 409 after the last turn that a session may have."""
    if len(state.turns) >= bounds.MAX_SESSION_TURNS or state.messages >= bounds.MAX_SESSION_FACTS:
        detail, hint = f"the session has {len(state.turns)} turns", "open another session"
        raise Problem(409, "session_full", TITLE, detail, hint, limit=bounds.MAX_SESSION_TURNS)


def _turn_in_progress(detail: str) -> Problem:
    hint = "wait for its end (its events tell), or cancel that task; then send this again"
    return Problem(409, "turn_in_progress", TITLE, detail, hint, headers={"Retry-After": "1"})
