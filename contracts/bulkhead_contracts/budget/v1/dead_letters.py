"""Dead letters of a tenant: messages that a service could not handle, why, and what people did about them."""

from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task.v1 import RequesterClaim
from bulkhead_contracts.types import Body, Contract, Count, Reason, Summary, Token, UnixMs


class LetterMark(Contract):
    """Action of a person on a letter: its message was sent again, or it was dismissed."""

    what: Literal["redriven", "dismissed"]
    by: Summary
    reason: Reason
    at_unix_ms: UnixMs


class DeadLetter(Contract):
    """One dead letter, without its content. It is open without a mark.

    service: whose inbox it lay in, under `subject` and the number `sequence`. sender, type: of the message, the type as
    its author says. reason: why it was not handled; "" for who may not read content, which it may quote. marks: the
    oldest first.
    """

    id: Token
    code: Summary
    reason: Reason
    service: Summary
    sender: Summary
    type: Summary
    task: Token
    subject: Annotated[str, Field(max_length=bounds.MAX_SUBJECT_CHARS)]
    sequence: Count
    buried_unix_ms: UnixMs
    body_bytes: Count
    marks: Annotated[tuple[LetterMark, ...], Field(max_length=bounds.MAX_LETTER_MARKS)] = ()


class DeadLettersRequested(Body, type="mesh.budget.dead_letters_requested"):
    """An operator or auditor asks for the tenant's dead letters behind the place `after` (rpc).

    everything: those too that were sent again or dismissed.
    """

    requester: RequesterClaim
    after: Count = 0
    limit: Annotated[int, Field(ge=1, le=bounds.MAX_LETTERS_LISTED)] = 20
    everything: bool = False


class DeadLettersReplied(Body, type="mesh.budget.dead_letters_replied"):
    """A page of dead letters, the oldest first. next: where the following page begins, 0 behind the last one; a page
    may be short before it. failure: why nothing can be told."""

    letters: Annotated[tuple[DeadLetter, ...], Field(max_length=bounds.MAX_LETTERS_LISTED)] = ()
    next: Count = 0
    failure: Failure | None = None


class DeadLetterRequested(Body, type="mesh.budget.dead_letter_requested"):
    """An operator or auditor asks for one dead letter, by its id or its first characters (rpc)."""

    requester: RequesterClaim
    letter: Token


class DeadLetterReplied(Body, type="mesh.budget.dead_letter_replied"):
    """A dead letter with its content as text, for who may read it: else headers and body are empty.

    headers: of the message, without grants and keys, cut to their bounds. left_out_chars: how much of the body is not
    here; left_out_headers: how many headers are not. failure: why it cannot be shown.
    """

    letter: DeadLetter | None = None
    content: bool = False
    headers: dict[str, Annotated[str, Field(max_length=bounds.MAX_LETTER_HEADER_CHARS)]] = {}
    body: Annotated[str, Field(max_length=bounds.MAX_LETTER_CHARS)] = ""
    left_out_chars: Count = 0
    left_out_headers: Count = 0
    failure: Failure | None = None


class DismissalRequested(Body, type="mesh.budget.dismissal_requested"):
    """An operator says that a dead letter needs no action, and why (rpc)."""

    requester: RequesterClaim
    letter: Token
    reason: Annotated[Reason, Field(min_length=1)]


class DismissalReplied(Body, type="mesh.budget.dismissal_replied"):
    """The letter as it stands then. failure: why nothing has changed."""

    letter: DeadLetter | None = None
    failure: Failure | None = None
