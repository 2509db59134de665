"""Events from outside: each begins the runs whose triggers it fits, and is told to the steps that wait for it.

In: `EventPublished` of people and publishers; API keys that there are now; `EventMatched` of the planner. Out: requests
of tasks, in the name of who set the trigger; `EventOccurred` for the planner; the planner's word for the task that
waits, with a signed label of the event's content. The id of a run is of version and event: what comes again, or is
handled again, finds the request stored. An event that cannot be taken, or cannot begin its run, is rejected and seen.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusError, BusUnavailable, PublishRefused, WrongLastSequence
from bulkhead.callers.api_keys import ApiKey
from bulkhead.flow import bounded
from bulkhead.gateway_api.query import SUBMITTERS
from bulkhead.quotas.token_buckets import Rate, TokenBuckets
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import HandBack
from bulkhead.telemetry.log import Log
from bulkhead.workflows.ledger import WorkflowLedger
from bulkhead.workflows.triggers import is_triggered, read_trigger_values
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.outside_event import EventMatched, EventOccurred, EventPublished, event_channel
from bulkhead_contracts.result import Failure, Label
from bulkhead_contracts.task import RequesterClaim, TaskRequested
from bulkhead_contracts.task_options import WrittenBy
from bulkhead_contracts.workflow import WorkflowRow, WorkflowTrigger
from bulkhead_services.gateway.admission.durable_writes import DurableWrites
from bulkhead_services.gateway.admission.rate_limits import SubmissionRateLimits
from bulkhead_services.gateway.intake import Intake
from bulkhead_services.gateway.problems import Problem, not_stored, unavailable
from bulkhead_services.gateway.read_model.task_view import RequestRefusal, requester_of
from bulkhead_services.gateway.schedules import LapsedAuthority, find_authority
from bulkhead_services.gateway.settings import Settings
from bulkhead_services.gateway.workflow_runs import build_request

log = Log("gateway.events")
INBOX = subjects.inbox_stream("gateway")
RETRY_S = 0.5
BODY_MEDIA_TYPE = "application/json"
MAX_COUNTS = 10_000
"""Answers about events that may be delivered again, in memory."""
T = TypeVar("T")


class OutsideEvents:
    """Takes in events. keys_of: a tenant's API keys now."""

    def __init__(
        self,
        context: Context,
        settings: Settings,
        intake: Intake,
        spikes: SubmissionRateLimits,
        writes: DurableWrites,
        ledger: WorkflowLedger,
        keys_of: Callable[[str], tuple[ApiKey, ...]],
    ) -> None:
        self._context, self._settings, self._intake = context, settings, intake
        self._spikes, self._writes, self._ledger, self._keys_of = spikes, writes, ledger, keys_of
        self._trigger_rates = TokenBuckets()
        self._counts = BoundedDict[tuple[str, ...], Any](MAX_COUNTS)

    async def publish_event(self, claim: RequesterClaim, event: EventPublished) -> tuple[str, bool]:
        """Store an event of a person; its id in the mesh, and whether it was there before. Raises Problem: 422 for
        another event under its id, 503."""
        token, tenant = self._intake.event_id(claim, event.id), claim.tenant
        subject = subjects.mesh_subject("gateway", "gateway", tenant, token)
        index, publisher = f"event/{token}", self._context.publisher
        try:
            try:
                write = publisher.send(
                    "gateway",
                    event,
                    tenant=tenant,
                    task=token,
                    index=index,
                    actor=claim.person,
                    expect_last_on_subject=0,
                )
                if not (await self._writes.write_within(write)).duplicate:
                    return token, False
            except WrongLastSequence:
                pass  # It came before, perhaps this very one before its ack was lost: the record decides.
            stored = await self._context.bus.read(INBOX, subject, limit=1)
        except (BusUnavailable, PublishRefused) as error:
            raise not_stored(error) from error
        if not stored:
            raise unavailable("the first event of this id cannot be read yet")
        first = EventPublished.model_validate_json(stored[0].body)
        if (first.name, first.key, first.body_json) != (event.name, event.key, event.body_json):
            detail = f"you told another event under the id {event.id}"
            raise Problem(422, "idempotency_reused", "The id was used for another event", detail, "give it a new id")
        return token, True

    async def handle_event(self, message: ReceivedMessage, event: EventPublished) -> None:
        """Tell a stored event to who waits for it, and begin its runs. Raises HandBack."""
        if message.sender != "gateway" and message.task != subjects.published_event(
            message.sender, message.tenant, event.id
        ):
            # It may be the id of somebody's task: whatever is written under it would be taken for a word about that.
            log.warning("foreign_event_id", sender=message.sender, id=message.task)
            return
        try:
            subject = subjects.mesh_subject(message.sender, "gateway", message.tenant, message.task)
            stored = await self._context.bus.read(INBOX, subject, limit=1)
            if not stored:
                raise HandBack(RETRY_S, "the inbox cannot be read up to this message yet")
            if stored[0].sequence != message.sequence:
                log.info("repeated_event_ignored", sender=message.sender, id=message.task)
                return
            source = self._find_source(message, event)
            if isinstance(source, RequestRefusal):
                await self._intake.reject_request(message, source)
                return
            if event.key:
                await self._tell_waiting(message, event, source)
            await self._ledger.read_new()
            for row in self._ledger.list_triggered(message.tenant, message.time_unix_ms):
                if row.trigger is not None and is_triggered(row.trigger, event, source):
                    await self._begin_run(message, event, row, row.trigger)
        except BusError as error:
            raise HandBack(RETRY_S, f"an event waits for the broker: {error}") from error

    def _find_source(self, message: ReceivedMessage, event: EventPublished) -> str | RequestRefusal:
        """The person who stands behind an event, or why it is not taken. A program's is counted here, a person's when
        it came."""
        claim = requester_of(message, self._settings.publishers)
        if isinstance(claim, RequestRefusal):
            return claim
        if claim.role not in SUBMITTERS.names:
            return RequestRefusal("forbidden", f"the role {claim.role} may not publish events", "ask for submitter")
        if claim.agent:
            # Words of a model begin nothing in a person's name.
            hint = "have a program that is no agent publish it"
            return RequestRefusal("forbidden", "an agent's key may not publish events", hint)
        if message.sender != "gateway":
            count = partial(self._spikes.count_submission, "bus", claim.tenant, claim.person, message.time_unix_ms)
            if (exceeded := self._count_once((claim.tenant, message.task), count)) is not None:
                return RequestRefusal("too_many_tasks", exceeded.message, exceeded.hint)
        try:
            bounded.load_json(event.body_json, once=True)
        except ValueError as error:
            return RequestRefusal("bad_event", f"the body is no JSON that can be read: {error}", "send JSON")
        return claim.person

    async def _tell_waiting(self, message: ReceivedMessage, event: EventPublished, source: str) -> None:
        """Raises BusError."""
        content = await self._context.blobs.put(message.tenant, event.body_json, BODY_MEDIA_TYPE)
        occurred = EventOccurred(
            name=event.name,
            key=event.key,
            event=message.task,
            source=source,
            content=content,
            occurred_unix_ms=message.time_unix_ms,
        )
        # By the event's own id: an outsider chooses the envelope's, and could take that of another's event.
        await self._context.publisher.send(
            "planner",
            occurred,
            tenant=message.tenant,
            task=event_channel(event.name, event.key),
            cause=message.envelope.id,
            index=f"occurred/{message.task}",
            logic=self._settings.logic,
        )

    async def _begin_run(
        self, message: ReceivedMessage, event: EventPublished, row: WorkflowRow, trigger: WorkflowTrigger
    ) -> None:
        """Begin a run, or record why it cannot begin. Raises BusError, HandBack."""
        tenant, ref = message.tenant, f"{row.workflow}.{row.number}"
        key = f"event/{ref}/{message.task}"
        digest = hashlib.sha256(key.encode()).hexdigest()
        try:
            current = self._ledger.find_version(tenant, row.workflow, row.number)
            if current is None or current.row.trigger is None:
                raise ValueError("its trigger was taken away after the event had come")
            self._count_run(message, ref, trigger)
            version, nested = await self._ledger.read_runnable(tenant, row)
            claim = find_authority(tenant, row, self._keys_of(tenant))
            values = read_trigger_values(trigger, event.body_json)
            written_by: WrittenBy = "model" if trigger.fields else "person"  # What the event says has nobody's trust.
            request = build_request(version, nested, values, claim, payload_sha256=digest, written_by=written_by)
        except ValueError as error:
            code = "lapsed_authority" if isinstance(error, LapsedAuthority) else "unfit_event"
            reason = f"the event {event.id} ({event.name}) could not begin {ref}: {error}"
            hint = f"see `bulkhead workflows show {row.workflow}`; an event of another id begins a run"
            # A role that submits nothing: a gateway of before `unfit` refuses it, too.
            claim = RequesterClaim(tenant=tenant, person=row.transitions[-1].person, role="auditor", via="api_key")
            request = TaskRequested(
                objective=f"{ref} on {event.name}",
                workflow=ref,
                requester=claim,
                payload_sha256=digest,
                unfit=Failure.from_text(code, reason, hint),
            )
        try:
            task, repeated = await self._intake.submit_request(request, key)
        except Problem as problem:
            raise HandBack(RETRY_S, str(problem)) from problem
        if not repeated:
            log.info("triggered_run_begun", tenant=tenant, workflow=ref, task=task, unfit=request.unfit is not None)

    def _count_run(self, message: ReceivedMessage, ref: str, trigger: WorkflowTrigger) -> None:
        """Raises ValueError beyond the trigger's rate."""
        tenant, most = message.tenant, trigger.runs_per_minute
        rate = Rate(most / self._settings.edge_replicas, max(1.0, most / self._settings.edge_replicas))
        count = partial(self._trigger_rates.take_tokens, [((tenant, ref), rate)], message.time_unix_ms)
        wait_ms, _ = self._count_once((tenant, message.task, ref), count)
        if wait_ms:
            raise ValueError(f"its trigger begins {most} runs a minute at most, and more events came")

    def _count_once(self, key: tuple[str, ...], count: Callable[[], T]) -> T:
        """The answer of the first count under this key: what is delivered again is refused again, or taken again."""
        if key not in self._counts:
            self._counts[key] = count()
        answer: T = self._counts[key]
        return answer

    async def relay_match(self, message: ReceivedMessage, matched: EventMatched) -> None:
        """Hand the planner's word that an event came to the task that waits, with a label of the content."""
        label = None
        if matched.content is not None:
            label = Label(
                sha256=matched.content.sha256,
                kind="document",
                source=f"event {matched.name} of {matched.source}"[: bounds.MAX_SUMMARY_CHARS],
                trust="untrusted",
                observed_by="gateway",
            )
            label = self._context.signer.sign_label(label, message.tenant, message.task)
        body = matched.model_copy(update={"label": label})
        await self._context.publisher.send("planner", body, **message.cause_fields, index="matched")
