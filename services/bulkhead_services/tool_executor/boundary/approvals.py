"""Approvals on record: a call waits for a person's word, over restarts of everything.

In: a call that policy asks about; a word that the signer signed. Out: how the call stands; facts for the gateway, and a
notice for the tenant's webhook. The record lies beside those of the calls, one per call and arguments; whoever writes
it first decides, and what is said later changes nothing.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

import rfc8785
from pydantic import BaseModel

from bulkhead.bus.port import WrongLastSequence
from bulkhead.grants import GrantRefused
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import HandBack
from bulkhead.telemetry.log import Log
from bulkhead_contracts import envelope, subjects
from bulkhead_contracts.approval import ApprovalDecided, ApprovalEnded, ApprovalGrant, ApprovalRequested
from bulkhead_contracts.control import CallResumed
from bulkhead_contracts.types import Body

log = Log("approvals")
CONFLICT_RETRY_S = 0.2


class ApprovalRecord(BaseModel):
    """Record of one approval. asker: whose call it is. told: people have been asked."""

    request: ApprovalRequested
    asker: str
    told: bool = False
    outcome: Literal["", "granted", "denied", "expired"] = ""
    person: str = ""
    role: str = ""
    reason: str = ""
    ended_unix_ms: int = 0

    def describe_grant(self) -> str:
        """The person's word in words: who, when, and with which comment."""
        when = datetime.fromtimestamp(self.ended_unix_ms / 1000, UTC).isoformat(timespec="seconds")
        comment = f": {self.reason}" if self.reason else ""
        return f"Approved by {self.person} ({self.role}) at {when}{comment}"

    def ended_fact(self) -> ApprovalEnded:
        """The fact of its end."""
        assert self.outcome
        ending = self.model_dump(include={"person", "role", "reason", "ended_unix_ms"})
        return ApprovalEnded(approval_id=self.request.approval_id, outcome=self.outcome, **ending)


def canonicalize_and_digest(tenant: str, task: str, tool: str, arguments: Mapping[str, Any]) -> tuple[str, str]:
    """The arguments in canonical form, and the digest of this very call. Raises ValueError: JSON cannot say them."""
    try:
        canonical = rfc8785.dumps(dict(arguments))
    except rfc8785.CanonicalizationError as error:
        raise ValueError(str(error)) from error
    digested = rfc8785.dumps([tenant, task, tool]) + b"\n" + canonical
    return canonical.decode(), hashlib.sha256(digested).hexdigest()


def approval_id_of(call_id: str, arguments_sha256: str) -> str:
    """Id of the approval of one call with these arguments: another argument is another approval."""
    return envelope.derive_id("approval", call_id, arguments_sha256)


def _denial_id_of(arguments_sha256: str) -> str:
    return envelope.derive_id("denied", arguments_sha256, "")


class CallApprovals:
    """The approvals of this service's calls."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._stream = subjects.records_stream(context.service)

    async def find_record(self, tenant: str, task: str, approval_id: str) -> tuple[ApprovalRecord | None, int]:
        """Record of how it stands, and its sequence; None and 0 when nobody asked yet."""
        stored = await self._context.bus.last(self._stream, self._record_subject(tenant, task, approval_id))
        return (None, 0) if stored is None else (ApprovalRecord.model_validate_json(stored.body), stored.sequence)

    async def find_denial(self, tenant: str, task: str, arguments_sha256: str) -> ApprovalRecord | None:
        """The denial of the very same call under another id: nobody is asked until he gives in."""
        return (await self.find_record(tenant, task, _denial_id_of(arguments_sha256)))[0]

    async def open_approval(self, tenant: str, task: str, request: ApprovalRequested, asker: str) -> ApprovalRecord:
        """Record that a person is asked. Raises HandBack when another replica was first."""
        record = ApprovalRecord(request=request, asker=asker)
        await self._write_record(tenant, task, record, 0)
        return record

    async def expire_approval(self, tenant: str, task: str, record: ApprovalRecord, sequence: int) -> ApprovalRecord:
        """Expire it: nobody decided in time. That is on record from now on, and said again where it was before: who
        wrote it may have died before saying so. Raises HandBack.
        """
        expired = record
        if not expired.outcome:
            ended = {"outcome": "expired", "ended_unix_ms": self._context.clock()}
            expired = record.model_copy(update={**ended, "reason": "nobody decided in time"})
            await self._write_record(tenant, task, expired, sequence)
        await self._send_fact("gateway", expired.ended_fact(), tenant, task, expired.request.approval_id, "ended")
        return expired

    async def ask_people(self, tenant: str, task: str, approval_id: str) -> None:
        """Ask people, once: the gateway lists it, and the tenant's webhook is posted."""
        record, sequence = await self.find_record(tenant, task, approval_id)
        if record is None or record.told or record.outcome:
            return
        for recipient in ("gateway", self._context.service):
            await self._send_fact(recipient, record.request, tenant, task, approval_id, "requested")
        await self._write_record(tenant, task, record.model_copy(update={"told": True}), sequence)
        log.info("approval_requested", tenant=tenant, task=task, approval=approval_id, tool=record.request.tool)

    async def on_approval_decided(self, message: ReceivedMessage) -> None:
        """A person's word: on record if it is the first, in time and of somebody who may."""
        body = message.body
        assert isinstance(body, ApprovalDecided)
        tenant, task = message.tenant, message.task
        try:
            grant = self._context.verifier.verify_approval(body.token, tenant=tenant, task=task)
        except GrantRefused as error:
            log.warning("approval_not_believed", tenant=tenant, task=task, code=error.code, reason=str(error))
            return
        record, sequence = await self.find_record(tenant, task, grant.approval_id)
        if record is None:
            log.warning("approval_unknown", tenant=tenant, task=task, approval=grant.approval_id)
            return
        if not record.outcome:
            refusal_reason = _refusal_reason(record.request, grant, self._context.clock())
            if (
                not refusal_reason
                and grant.decision == "granted"
                and await self.find_denial(tenant, task, grant.arguments_sha256)
            ):
                refusal_reason = "the very same call was denied"
            if refusal_reason:
                log.warning("approval_not_taken", tenant=tenant, task=task, by=grant.person, reason=refusal_reason)
                return
            ended = {"outcome": grant.decision, "ended_unix_ms": grant.decided_unix_ms}
            record = record.model_copy(update={**ended, **grant.model_dump(include={"person", "role", "reason"})})
            await self._write_record(tenant, task, record, sequence)
            log.info("approval_ended", tenant=tenant, task=task, approval=grant.approval_id, outcome=grant.decision)
        # Also when it stood already: who wrote it may have died before saying so.
        if record.outcome == "denied":
            await self._record_denial(tenant, task, record)
        await self._send_fact("gateway", record.ended_fact(), tenant, task, grant.approval_id, "ended")
        request = record.request
        resumed = CallResumed(call_id=request.call_id, step_id=request.step_id)
        await self._send_fact(record.asker, resumed, tenant, task, grant.approval_id, "resumed")

    async def _record_denial(self, tenant: str, task: str, record: ApprovalRecord) -> None:
        subject = self._record_subject(tenant, task, _denial_id_of(record.request.arguments_sha256))
        message_id = envelope.message_id(self._context.message_key, subject)
        headers, body = {"content-type": envelope.CONTENT_TYPE}, record.model_dump_json().encode()
        with suppress(WrongLastSequence):  # It was denied before.
            await self._context.bus.publish(subject, body, headers, message_id, expect_last_on_subject=0)

    def _record_subject(self, tenant: str, task: str, approval_id: str) -> str:
        return subjects.record_subject(self._context.service, tenant, task, approval_id)

    async def _write_record(self, tenant: str, task: str, record: ApprovalRecord, sequence: int) -> None:
        subject = self._record_subject(tenant, task, record.request.approval_id)
        write_identity = f"{subject}/{sequence}/{record.outcome}/{record.told}/{record.person}"
        message_id = envelope.message_id(self._context.message_key, write_identity)
        headers, body = {"content-type": envelope.CONTENT_TYPE}, record.model_dump_json().encode()
        try:
            await self._context.bus.publish(subject, body, headers, message_id, expect_last_on_subject=sequence)
        except WrongLastSequence as error:
            raise HandBack(CONFLICT_RETRY_S, "another replica wrote this approval first") from error

    async def _send_fact(
        self, recipient: str, body: Body, tenant: str, task: str, approval_id: str, event: str
    ) -> None:
        index = f"approval/{event}/{recipient}"
        await self._context.publisher.send(recipient, body, tenant=tenant, task=task, cause=approval_id, index=index)


def _refusal_reason(request: ApprovalRequested, grant: ApprovalGrant, now_unix_ms: int) -> str:
    """Why this word does not count for the call; "" when it does."""
    if grant.arguments_sha256 != request.arguments_sha256:
        return "the word is for other arguments"
    if request.four_eyes and grant.person == request.asked_for and grant.decision == "granted":
        return "who asked for the task must not approve its calls (four eyes)"
    if request.roles and grant.role not in request.roles:
        return f"{grant.role} may not decide about it; {' or '.join(request.roles)} may"
    if max(grant.decided_unix_ms, now_unix_ms) >= request.expires_unix_ms:
        return "the approval had expired"
    return ""
