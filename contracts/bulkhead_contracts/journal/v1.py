"""Messages of one task in the journal, for people who may read it: pages without anybody's authority in
them.
"""

from typing import Annotated

from pydantic import Field

from bulkhead_contracts import bounds, subjects

from ..result import Failure
from ..types import Body, Contract, Count, Summary, Token, UnixMs


class TaskMessagesRequested(Body, type="mesh.journal.task_messages_requested"):
    """The messages of the task that the subject names, those behind the place `after` (rpc). The asker may read it.

    claims: grants come along as claims without signatures, which a fold needs that repeats what was decided.
    """

    after: Count = 0
    claims: bool = False


class ToldMessage(Contract):
    """One message as the journal has it, of `sender` for `receiver`.

    headers: without the grant; a call's keeps its claims, without a signature. inbox_sequence: in its inbox.
    left_out_bytes: its body is too large for a page or no text, and not here.
    """

    sequence: Count
    stored_unix_ms: UnixMs
    sender: Summary
    receiver: Summary
    key: Token = subjects.NO_KEY
    headers: dict[str, str]
    body: Annotated[str, Field(max_length=bounds.MAX_TOLD_BYTES)]
    inbox_sequence: Count = 0
    left_out_bytes: Count = 0


class TaskMessagesReplied(Body, type="mesh.journal.task_messages_replied"):
    """A page, in the journal's order; `more` when others follow its last. failure: the journal cannot be read."""

    messages: Annotated[tuple[ToldMessage, ...], Field(max_length=bounds.MAX_TOLD_MESSAGES)] = ()
    more: bool = False
    failure: Failure | None = None
