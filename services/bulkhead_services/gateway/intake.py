"""The intake of tasks: requests are appended to the gateway's inbox, authority is signed, work is passed on.

In: submissions of known people, messages of the inbox. Out: durable messages to gateway, planner and doors. HTTP,
outside publishers and doors take the same path: the stored `TaskRequested` is what counts.
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace

from bulkhead.bus.port import BusUnavailable, PubAck, PublishRefused, WrongLastSequence
from bulkhead.gateway_api.query import SUBMITTERS
from bulkhead.runtime.consume.inbound import CauseFields
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import HandBack, RpcRefused
from bulkhead.telemetry import names, trace
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.grant import GrantReplied, GrantRequested
from bulkhead_contracts.output import DRAFT, with_stricter_delivery
from bulkhead_contracts.plan import PLAN_CALL_SOURCE, WORKER_ROLE
from bulkhead_contracts.result import Label, Trust, digest_of
from bulkhead_contracts.task import (
    Place,
    PlaceGranted,
    PlacesGiven,
    RequesterClaim,
    TaskCancelRequested,
    TaskRejected,
    TaskReleased,
    TaskRequested,
    TaskSubmitted,
)
from bulkhead_services.gateway import forks
from bulkhead_services.gateway.admission import rules
from bulkhead_services.gateway.admission.durable_writes import DurableWrites
from bulkhead_services.gateway.admission.rate_limits import SubmissionRateLimits
from bulkhead_services.gateway.admission.run_slots import RunSlotAdmission
from bulkhead_services.gateway.chat_sessions.memory import plan_turn
from bulkhead_services.gateway.problems import Problem, key_reused, not_stored, unavailable
from bulkhead_services.gateway.read_model import task_view
from bulkhead_services.gateway.read_model.feeds import INBOX, InboxFeed, InboxFeeds
from bulkhead_services.gateway.settings import PublisherSettings

log = Log("gateway.intake")
SERVICE = "gateway"
FIRST_RECORD_READS = 8
AT_ONCE = 32
CANCEL_RETRY_S = 0.5
SIGNER_ATTEMPTS = 20
"""Attempts with a signer that answers with an error, before the task is refused; silence is waited out."""
SIGNER_RETRY_S = 1.0


def own_words(
    request: TaskRequested,
    drafted: frozenset[str] = frozenset(),
    *,
    by_model: bool = False,
    approved_steps: Collection[str] = (),
) -> tuple[Label, ...]:
    """Unsigned labels of what the requester wrote: the objective, and of his own plan the text and call of each step of
    which arguments can be made.

    drafted: digests of texts of the task that this one forks, and that a model wrote: they get no label. by_model: a
    model wrote all of it, so that none of it has the trust of a person's words. approved_steps: of the plan, whose
    texts people of the tenant wrote and approved, whoever asks.
    """
    own_trust: Trust = "untrusted" if by_model else "user"
    texts: list[tuple[str, str, Trust]] = [("", request.objective, own_trust)]
    for step in request.plan.steps if request.plan is not None else ():
        trust: Trust = "user" if step.id in approved_steps else own_trust
        if step.tools or step.role != WORKER_ROLE:
            texts.append((f"plan step {step.id}", step.prompt_text, trust))
        if step.call is not None:
            texts.append((f"{PLAN_CALL_SOURCE}{step.id}", step.call.text_in(step.id), trust))
    labels = (
        Label(sha256=digest_of(text), kind="objective", source=source, trust=trust, observed_by="gateway")
        for source, text, trust in texts
        if by_model or digest_of(text) not in drafted
    )
    return tuple({label.sha256: label for label in reversed(tuple(labels))}.values())[::-1]


class Intake:
    """Takes in tasks and cancels."""

    def __init__(
        self,
        context: Context,
        feeds: InboxFeeds,
        policies: Mapping[str, PublisherSettings],
        admission: RunSlotAdmission,
        spikes: SubmissionRateLimits,
        writes: DurableWrites,
        logic: int = 1,
    ) -> None:
        self._context, self._writes, self._feeds, self._admission = context, writes, feeds, admission
        self._spikes, self._policies, self._logic = spikes, policies, logic
        self._agents = {subjects.DOORS, *(name for name, policy in policies.items() if policy.agent)}
        self._in_flight: set[str] = set()
        self._ids = task_view.KeyedIds(context.message_key)

    def task_id(self, claim: RequesterClaim, key: str) -> str:
        """The id of the task that a person asks for under this Idempotency-Key."""
        return self._ids.task_id(claim.tenant, claim.person, key)

    def event_id(self, claim: RequesterClaim, event_id: str) -> str:
        """The id in the mesh of the event that a person tells under this id."""
        return self._ids.event_id(claim.tenant, claim.person, event_id)

    def session_id(self, claim: RequesterClaim, key: str) -> str:
        """The id of the session that a person opens under this Idempotency-Key."""
        return self._ids.session_id(claim.tenant, claim.person, key)

    async def submit_request(self, request: TaskRequested, key: str) -> tuple[str, bool]:
        """Append a request durably; returns the task's id and whether it was there before. Raises as `begin_task`."""
        assert request.requester is not None
        task = self.task_id(request.requester, key)
        return task, await self.begin_task(request, task)

    async def begin_task(self, request: TaskRequested, task: str) -> bool:
        """Append the request of the task of this id durably; True where it was there before.

        Raises Problem: 409 while a request under the same key is in progress, 422 for other content under it, 503.
        """
        claim = request.requester
        assert claim is not None and request.payload_sha256 is not None
        if task in self._in_flight:
            detail = "a request with this Idempotency-Key is in progress"
            hint, headers = "wait a second and repeat it: the answer will be the same", {"Retry-After": "1"}
            raise Problem(409, "idempotency_in_flight", "Request in progress", detail, hint, headers=headers)
        self._in_flight.add(task)
        try:
            return await self._append_request(request, claim, task)
        finally:
            self._in_flight.discard(task)

    async def _append_request(self, request: TaskRequested, claim: RequesterClaim, task: str) -> bool:
        tenant, index, actor = claim.tenant, f"request/{task}", claim.person
        try:
            with trace.span(
                f"{names.INVOKE_WORKFLOW} task",
                attributes={names.OPERATION: names.INVOKE_WORKFLOW, names.TASK: task, names.TENANT: tenant},
            ):
                write = self._context.publisher.send(
                    "gateway", request, tenant=tenant, task=task, index=index, actor=actor, expect_last_on_subject=0
                )
                ack = await self._writes.write_within(write)
            self._feeds.note_accepted(claim.tenant, task, ack.sequence)
            if not ack.duplicate:
                return False
        except WrongLastSequence:
            pass  # Another request was first, perhaps this very one before its ack was lost: the record decides.
        except (BusUnavailable, PublishRefused) as error:
            raise not_stored(error) from error
        first = await self._first_record(claim.tenant, task)
        if first.payload_sha256 != request.payload_sha256:
            raise key_reused(f"task {task} was submitted under this key with other content")
        return True

    async def _first_record(self, tenant: str, task: str) -> TaskRequested:
        for attempt in range(FIRST_RECORD_READS):
            try:
                stored = await self._context.bus.read(
                    INBOX, subjects.mesh_subject("gateway", "gateway", tenant, task), limit=1
                )
            except (BusUnavailable, PublishRefused) as error:
                raise not_stored(error) from error
            if stored:
                return TaskRequested.model_validate_json(stored[0].body)
            await asyncio.sleep(0.02 * 2**attempt)  # A follower may lag behind the leader.
        raise unavailable("the first request under this key cannot be read yet")

    async def handle_request(self, message: ReceivedMessage, request: TaskRequested, feed: InboxFeed) -> None:
        """Pass a stored request on with authority, or record why not. Raises HandBack."""
        if not subjects.may_open(message.sender, message.task):
            log.warning("foreign_task_id", task=message.task, sender=message.sender)
            if feed.view.status == "unknown":  # Else it is the id of somebody's task, of which this says nothing.
                reason = f"{message.sender} may not choose the task id {message.task}"
                hint = f"publish it under a task id that begins with {message.sender}-"
                await self.reject_request(message, task_view.RequestRefusal("foreign_id", reason, hint))
            return
        if feed.view.request_sequence != message.sequence:
            log.warning("second_request_ignored", task=message.task, sender=message.sender)
            return
        if feed.view.status not in ("requested", "queued"):
            return  # Its ack was lost. What was refused stays refused, also when it would be taken now.
        claim = self._allowed_submitter(message)
        if request.unfit is not None and message.sender == SERVICE:
            unfit = request.unfit
            claim = task_view.RequestRefusal(unfit.code, unfit.message, unfit.hint)
        if (misplaced := rules.refuse_misplaced_plan(message.sender, request)) is not None:
            claim = task_view.RequestRefusal(*misplaced)
        if isinstance(claim, task_view.RequestRefusal):
            await self.reject_request(message, claim)
            return
        standing = await self._admission.request_place(message, claim.person)
        if standing == "unknown":
            reason = "your tenant has as many tasks waiting as it may"
            hint = "submit it again under a new task id when some have begun, or have the tenant's quota changed"
            await self.reject_request(message, task_view.RequestRefusal("queue_full", reason, hint))
        elif standing == "runs":
            await self._begin_task(message, request, claim, message.time_unix_ms)

    def _allowed_submitter(self, message: ReceivedMessage) -> RequesterClaim | task_view.RequestRefusal:
        """The requester, if allowed now. A program's message is counted once, at its first delivery."""
        claim = task_view.requester_of(message, self._policies)
        if isinstance(claim, task_view.RequestRefusal):
            return claim
        if claim.role not in SUBMITTERS.names:
            reason = f"the role {claim.role} may not submit tasks"
            return task_view.RequestRefusal("forbidden", reason, "ask for the role submitter or operator")
        if message.sender == "gateway" or message.attempts > 1:
            return claim
        exceeded = self._spikes.count_submission("bus", claim.tenant, claim.person, message.time_unix_ms)
        return (
            task_view.RequestRefusal("too_many_tasks", exceeded.message, exceeded.hint)
            if exceeded is not None
            else claim
        )

    async def handle_release(self, message: ReceivedMessage, feed: InboxFeed) -> None:
        """Begin a task that waited and now has a place, from its stored request. Raises HandBack."""
        request, opening = feed.view.request, feed.opening
        if request is None or opening is None or feed.view.status in task_view.ENDED:
            log.warning("released_without_task", task=message.task, status=feed.view.status)
            return
        claim = task_view.requester_of(opening, self._policies)
        opening = replace(opening, attempts=message.attempts)
        if isinstance(claim, task_view.RequestRefusal):
            await self.reject_request(opening, claim)  # A publisher whose policy went while its task waited.
        else:
            await self._begin_task(opening, request, claim, message.time_unix_ms)

    async def handle_returned_place(self, message: ReceivedMessage) -> None:
        """An outside agent's run has no call: it leaves the queue, or others get its place. Raises HandBack."""
        if not _is_of_run(message):
            return
        reason = "the agent that asked for it waited for it no longer"
        if await self._admission.withdraw_task(message, reason, "queue_timeout") != "over":
            await self._admission.fill_free_places(message.sequence)

    async def handle_wanted_place(self, message: ReceivedMessage) -> None:
        """An outside agent's run wants a place again for its next call. Raises HandBack."""
        if _is_of_run(message):
            await self._admission.regain_place(message)

    async def carry_out_decision(self, message: ReceivedMessage, body: PlacesGiven) -> None:
        """Carry out a decision about places: tasks begin, go on, or end after too long a wait. Raises BusError."""
        waited = [place for place in body.given if place.queued or place.again]
        for start in range(0, len(waited), AT_ONCE):
            await asyncio.gather(*(self._release_task(place, message) for place in waited[start : start + AT_ONCE]))
        for row in body.dropped:
            end, index = task_view.never_begun(row, message.time_unix_ms), f"dropped/{row.tenant}/{row.task}"
            to: CauseFields = {"tenant": row.tenant, "task": row.task, "cause": message.envelope.id}
            if subjects.is_of_doors(row.task):
                await self._context.publisher.send("doors", end, **to, index=f"{index}/doors")
            await self._context.publisher.send("gateway", end, **to, index=index)

    async def _release_task(self, place: Place, message: ReceivedMessage) -> None:
        to: CauseFields = {"tenant": place.tenant, "task": place.task, "cause": message.envelope.id}
        if place.again:
            await self._context.publisher.send("doors", PlaceGranted(), **to, index=f"granted/{place.task}")
            return
        body, index = TaskReleased(request=place.request), f"released/{place.tenant}/{place.task}"
        await self._context.publisher.send("gateway", body, **to, index=index, actor=place.person)

    async def _begin_task(
        self, message: ReceivedMessage, request: TaskRequested, claim: RequesterClaim, began_unix_ms: int
    ) -> None:
        """Hand a task that has a place to the planner; its time counts from `began_unix_ms`. Raises HandBack."""
        inherited = (
            await forks.inherit_results(self._context, message.tenant, message.task, request, self._agents)
            if request.fork
            else None
        )
        if isinstance(inherited, task_view.RequestRefusal):
            if inherited.code in forks.UNTIL_SEEN and message.attempts < forks.LOOKS:
                # Whoever forks has seen the end; a follower may lag behind it, and a refusal cannot be taken back.
                raise HandBack(forks.LOOK_AGAIN_S, inherited.message)
            await self.reject_request(message, inherited)
            return
        reply = await self._request_grant(message, claim, request, inherited, began_unix_ms)
        if isinstance(reply, task_view.RequestRefusal):
            await self.reject_request(message, reply)
            return
        if inherited and (refusal := forks.refuse_repeated_writes(inherited, request, reply.tools)) is not None:
            await self.reject_request(message, refusal)
            return
        # A fork is delivered no looser than the task that it forks.
        output = with_stricter_delivery(
            with_stricter_delivery(reply.output or DRAFT, request.delivery), inherited.delivery if inherited else None
        )
        if (refused := rules.find_broken_rule(request, reply.input, output)) is not None:
            await self.reject_request(message, task_view.RequestRefusal(*refused))
            return
        # An outside publisher may write what it likes into its request: no session is behind that.
        turn = request.turn if message.sender == "gateway" else None
        plan, held_results = request.plan, inherited.given if inherited else ()
        if turn is not None:
            plan, held_results = plan_turn(turn, request.objective, reply.tools), turn.memory
        objective = await self._context.blobs.put(message.tenant, request.objective)
        by_model = claim.agent or forks.is_of_model(request, message.sender, self._agents)
        own_labels = own_words(
            request,
            inherited.drafted if inherited else frozenset(),
            by_model=by_model,
            approved_steps=request.workflow_steps if message.sender == SERVICE else (),
        )
        body = TaskSubmitted(
            objective=objective,
            limits=reply.limits or request.limits,
            submitted_unix_ms=began_unix_ms,
            tools=reply.tools,
            check=request.check,
            plan=plan,
            given=held_results,
            output=output if output != DRAFT else None,
            route=request.route,
            left_out=reply.left_out,
            labels=tuple(self._context.signer.sign_label(label, message.tenant, message.task) for label in own_labels),
            replan="none" if turn is not None else request.replan,
            approve_plan=request.approve_plan and turn is None,
            delegated=reply.delegated,
            roles=reply.roles,
            retrievals_ahead=self._admission.quotas.quota_of(message.tenant).retrievals_ahead,
        )
        if (refusal := forks.too_large(len(body.encode()), request.plan)) is not None:
            await self.reject_request(message, refusal)
            return
        await self._context.publisher.send(
            "planner",
            body,
            **message.cause_fields,
            first=True,
            actor=claim.person,
            grant=reply.token,
            logic=self._logic,
        )

    async def _request_grant(
        self,
        message: ReceivedMessage,
        claim: RequesterClaim,
        request: TaskRequested,
        taken: forks.ForkInheritance | None,
        began_unix_ms: int,
    ) -> GrantReplied | task_view.RequestRefusal:
        # Everything in this body comes from the stored message: a repeat asks for the same grant.
        steps = request.plan.steps if request.plan is not None else ()
        roles = {step.role for step in steps if not step.adopted}
        tools = {name for step in steps for name in step.tools}
        ask = GrantRequested(
            requester=claim,
            tools=request.tools,
            limits=request.limits,
            requested_unix_ms=began_unix_ms,
            origin=taken.origin if taken else None,
            worker_roles=tuple(sorted(roles)),
            feature=request.feature,
            workflow=request.workflow,
            workflow_release=request.workflow_release if message.sender == SERVICE else "",
            release=request.prompt_release,
            plan_tools=tuple(sorted(tools))[: bounds.MAX_TOOLS],
            credential=request.voucher,
            constraints=request.constraints,
            drafted=request.plan is None,
        )
        try:
            reply = await self._context.publisher.request(
                "signer", ask, **message.cause_fields, actor=claim.person, timeout_s=bounds.RPC_TIMEOUT_MS / 1000
            )
        except BusUnavailable as error:
            raise HandBack(SIGNER_RETRY_S, "the signer does not answer; the task waits") from error
        except RpcRefused as error:
            if message.attempts < SIGNER_ATTEMPTS:
                raise HandBack(SIGNER_RETRY_S, f"the signer failed: {error}") from error
            reason = f"no authority could be signed: {error}"
            return task_view.RequestRefusal(
                "signer_failed", reason, "look at the signer's log, then submit the task again"
            )
        assert isinstance(reply, GrantReplied)
        if not reply.granted:
            hint = reply.hint or "ask for less, or have the tenant's policy changed"
            return task_view.RequestRefusal(reply.code or "refused", reply.reason or "the signer refused", hint)
        return reply

    async def reject_request(self, message: ReceivedMessage, refusal: task_view.RequestRefusal) -> None:
        """Record why a request, or an event, is not passed on."""
        reason, hint = (text[: bounds.MAX_REASON_CHARS] for text in (refusal.message, refusal.hint))
        body = TaskRejected(code=refusal.code[: bounds.MAX_NAME_CHARS], message=reason, hint=hint)
        log.info("task_rejected", task=message.task, code=refusal.code)
        if message.sender == subjects.DOORS:
            await self._context.publisher.send("doors", body, **message.cause_fields, index="rejected/doors")
        await self._context.publisher.send("gateway", body, **message.cause_fields, index="rejected")

    async def handle_cancel(self, message: ReceivedMessage, body: TaskCancelRequested, feed: InboxFeed) -> None:
        """Pass a cancel on once the planner has the task; sooner it would wait there for a task that may never come.

        In: a person's cancel, whose role HTTP has checked, or a publisher's, whose tenant and role are checked here.
        """
        actor = message.envelope.actor
        if message.sender != "gateway":
            claim = task_view.requester_of(message, self._policies)
            if isinstance(claim, task_view.RequestRefusal) or claim.role not in SUBMITTERS.names:
                log.warning("cancel_refused", task=message.task, sender=message.sender)
                return
            actor = claim.person
        view = feed.view
        if not view.request_id or view.status in task_view.ENDED:
            log.info("cancel_without_task", task=message.task, status=view.status)
            return
        if view.status in ("requested", "queued"):
            if await self._admission.withdraw_task(message, body.reason) == "over":
                return
            raise HandBack(CANCEL_RETRY_S, "the planner does not have the task yet")
        await self._context.publisher.send("planner", body, **message.cause_fields, actor=actor)

    async def request_cancel(self, claim: RequesterClaim, feed: InboxFeed, reason: str) -> PubAck:
        """Ask for the end of a task, durably. Repeating is harmless. Raises Problem (503)."""
        body = TaskCancelRequested(reason=reason or f"cancelled by {claim.person}")
        try:
            place: CauseFields = {"tenant": feed.tenant, "task": feed.task, "cause": feed.view.request_id}
            write = self._context.publisher.send("gateway", body, **place, index="cancel", actor=claim.person)
            return await self._writes.write_within(write)
        except (BusUnavailable, PublishRefused) as error:
            raise not_stored(error) from error


def _is_of_run(message: ReceivedMessage) -> bool:
    """True for a word of doors about a run of its own."""
    if message.sender == subjects.DOORS and subjects.is_of_doors(message.task):
        return True
    log.warning("foreign_place", task=message.task, sender=message.sender)
    return False
