"""Uncertain writes: people are told of each, and their word becomes the outcome of the call (ADR 0045).

In: calls that ended `uncertain`, and a person's word on one, as the signer signed it. Out: `WriteDoubted` and
`WriteResolved` to the gateway; a second reply to whoever asked for the call, in the place of the uncertain one. The
first word counts: it is stored behind the uncertain reply, or not at all. It lets no call through the gate: what is
made again is asked about anew.
"""

from bulkhead.bus.port import StoredMessage, WrongLastSequence
from bulkhead.flow.content import summarise
from bulkhead.grants import GrantRefused
from bulkhead.journal.uncertain_writes import claim_of_task, origin_of
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.context import Context
from bulkhead.runtime.doer.idempotency import StoredOutcome, parse_outcome
from bulkhead.runtime.errors import HandBack
from bulkhead.telemetry.log import Log
from bulkhead.telemetry.redaction import without_sensitive
from bulkhead_contracts import catalog, envelope, subjects
from bulkhead_contracts.result import Failure, Usage
from bulkhead_contracts.tool import (
    ToolCallReplied,
    ToolCallRequested,
    WriteDoubted,
    WriteResolved,
    WriteResolveRequested,
    write_id_of,
)

log = Log("uncertain_writes")
CONFLICT_RETRY_S = 0.2
NOT_DONE = "not_done"
"""Code of a write that a person found not to have been done."""


class UncertainWrites:
    """The uncertain writes of this service's calls."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def tell_people(self, message: ReceivedMessage, reply: ToolCallReplied, *, four_eyes: bool) -> None:
        """Tell the gateway of the uncertain write that this message asked for; again is harmless. four_eyes: who asked
        for the task must not resolve it. Raises BusError."""
        request = message.body
        assert isinstance(request, ToolCallRequested)
        write_id = write_id_of(message.task, request.call_id)
        doubt = WriteDoubted(
            write_id=write_id,
            key=f"{message.tenant}.{origin_of(message.envelope.grant) or message.task}.{request.call_id}",
            why=reply.failure.message if reply.failure is not None else "",
            asked_unix_ms=message.envelope.time_unix_ms,
            asked_for=claim_of_task(message.envelope.grant, "actor"),
            four_eyes=four_eyes,
            **request.model_dump(include={"call_id", "step_id", "tool", "arguments_json"}),
        )
        # On record first: who may resolve it is not for the gateway to say.
        subject = self._record_subject(message, write_id)
        message_id = envelope.message_id(self._context.message_key, f"{subject}/{message.envelope.id}")
        headers, record = {"content-type": envelope.CONTENT_TYPE}, doubt.model_dump_json().encode()
        await self._context.bus.publish(subject, record, headers, message_id)
        # A call that was not done and is asked for again may be in doubt again.
        index = f"doubted/{message.envelope.id}"
        await self._context.publisher.send(
            "gateway", doubt, tenant=message.tenant, task=message.task, cause=write_id, index=index
        )

    async def on_write_resolve_requested(self, message: ReceivedMessage) -> None:
        """A person's word: the outcome of the call, where it is uncertain. Raises HandBack."""
        word = message.body
        assert isinstance(word, WriteResolveRequested)
        log_fields = {"tenant": message.tenant, "task": message.task, "call": word.call_id}
        asker, stored = await self._find_reply(message, word.call_id)
        outcome = parse_outcome(stored)
        reply = outcome.body
        if (
            stored is None
            or not isinstance(reply, ToolCallReplied)
            or (reply.outcome != "uncertain" and reply.resolution is None)
        ):
            log.warning("write_not_in_doubt", **log_fields)
            return
        standing = reply.resolution
        if standing is None:
            if refusal_reason := await self._refusal_reason(message, word, stored.time_unix_ms):
                log.warning("resolution_not_taken", **log_fields, reason=refusal_reason)
                return
            standing = word.resolution
            await self._store_resolution(message, word, asker, reply, outcome)
        resolved = WriteResolved(write_id=write_id_of(message.task, word.call_id), resolution=standing)
        await self._context.publisher.send("gateway", resolved, **message.cause_fields, index="resolved")

    async def _refusal_reason(self, message: ReceivedMessage, word: WriteResolveRequested, doubted_unix_ms: int) -> str:
        """Why this word does not count for the write; "" when it does. Raises BusError."""
        tenant, task, resolution = message.tenant, message.task, word.resolution
        try:
            grant = self._context.verifier.verify_approval(word.token, tenant=tenant, task=task, kind="resolution")
        except GrantRefused as error:
            return str(error)
        write_id = write_id_of(task, word.call_id)
        if (grant.approval_id, grant.arguments_sha256) != (write_id, resolution.signed_sha256):
            return "the signer signed another word"
        signed = (grant.person, grant.role, grant.decision == "granted")
        if signed != (resolution.person, resolution.role, resolution.happened):
            return "the signer signed the word of somebody else, or the opposite"
        if grant.decided_unix_ms < doubted_unix_ms:
            return "it was said before the write was in doubt: of an earlier doubt, or the clocks differ; say it again"
        stream, subject = subjects.records_stream(self._context.service), self._record_subject(message, write_id)
        record = await self._context.bus.last(stream, subject)
        doubt = WriteDoubted.model_validate_json(record.body) if record is not None else None
        if doubt is None:
            return "there is no record of this doubt, so nobody knows who asked for the write: call the tool anew"
        if doubt.four_eyes and grant.person == doubt.asked_for:
            return "who asked for the task must not resolve its writes (four eyes)"
        return ""

    def _record_subject(self, message: ReceivedMessage, write_id: str) -> str:
        return subjects.record_subject(self._context.service, message.tenant, message.task, write_id)

    async def _find_reply(self, message: ReceivedMessage, call_id: str) -> tuple[str, StoredMessage | None]:
        """The asker of the call, and its newest outcome; "" where there is none."""
        service = self._context.service
        for asker in sorted(catalog.askers_of(service)):
            subject = subjects.mesh_subject(service, asker, message.tenant, message.task, call_id)
            stored = await self._context.bus.last_on(subjects.inbox_stream(asker), subject)
            if stored is not None:
                return asker, stored
        return "", None

    async def _store_resolution(
        self,
        message: ReceivedMessage,
        word: WriteResolveRequested,
        asker: str,
        doubtful: ToolCallReplied,
        outcome: StoredOutcome,
    ) -> None:
        """Store what the word makes of the call. Raises HandBack when another outcome was stored first."""
        resolution, publisher = word.resolution, self._context.publisher
        by = f"{resolution.person} has looked, and says so: {resolution.reason}"
        # What its attempts used is told by the reply before.
        changes: dict[str, object] = {"answered": outcome.answered, "resolution": resolution, "settled": ()}
        changes |= {"usage": Usage(), "duration_ms": 0, "provenance": ()}
        if resolution.happened:
            text = resolution.result or f"It was made. {by}"
            summary = summarise(without_sensitive(text))
            content = await self._context.blobs.put(message.tenant, text, summary=summary)
            changes |= {"outcome": "succeeded", "failure": None, "content": content, "standing": "ok"}
        else:
            hint = "call it again under another key: it may be made now"
            changes |= {"outcome": "failed", "failure": Failure.from_text(NOT_DONE, f"it was not made: {by}", hint)}
        reply = doubtful.model_copy(update=changes)
        head = publisher.make_envelope(reply, cause=message.envelope.id, actor=message.envelope.actor)
        outgoing = publisher.make_message(
            asker, reply, head, tenant=message.tenant, task=message.task, key=word.call_id
        )
        try:
            await publisher.put_message(outgoing, expect_last_on_subject=outcome.sequence)
        except WrongLastSequence as error:
            raise HandBack(CONFLICT_RETRY_S, "another word on this write was stored first") from error
        log.info("write_resolved", tenant=message.tenant, task=message.task, call=word.call_id, by=resolution.person)
