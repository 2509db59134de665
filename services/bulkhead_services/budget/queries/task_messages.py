"""The messages of a task in the journal, page by page, for a gateway that tells its people what happened and why.

In: TaskMessagesRequested (rpc, from the gateway, which knows that the asker may read this task). Out:
TaskMessagesReplied. Budget reads the journal anyway; so nobody who faces the internet needs the right to. No message
leaves with a grant that somebody could act under.
"""

import json
from collections.abc import Sequence

from bulkhead.bus.port import StoredMessage
from bulkhead.runtime.decider.history import at_its_source
from bulkhead.runtime.decider.history_secrets import GRANT, without_secrets
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts.bounds import MAX_TOLD_BYTES
from bulkhead_contracts.journal import TaskMessagesReplied, TaskMessagesRequested, ToldMessage
from bulkhead_contracts.result import Failure
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_services.budget.queries.uncertain_writes import PAGE, TaskJournal

FRAME_BYTES = 512
"""Of one message in a page, beside its headers and body."""


def messages_reply(page: Sequence[StoredMessage], *, keep_grants: bool = False) -> TaskMessagesReplied:
    """Messages of this page, as many as there is room for: always one at least, without its body where that is
    too large.
    """
    room, rows = MAX_TOLD_BYTES - FRAME_BYTES, list[ToldMessage]()
    for stored, bare in zip(page, without_secrets(list(page)), strict=True):
        headers = {
            name: value for name, value in bare.headers.items() if name != GRANT or keep_grants or _is_call(bare)
        }
        body, left_out = _decode_body(bare.body)
        size = FRAME_BYTES + len(json.dumps(headers)) + len(json.dumps(body))
        if size > room and not rows:
            left_out, body, size = len(stored.body), "", 0
        room -= size
        if room < 0:
            break
        rows.append(
            ToldMessage(
                sequence=stored.sequence,
                inbox_sequence=at_its_source(stored).sequence,
                stored_unix_ms=stored.time_unix_ms,
                sender=stored.sender,
                receiver=stored.receiver,
                headers=headers,
                body=body,
                left_out_bytes=left_out,
            )
        )
    return TaskMessagesReplied(messages=tuple(rows), more=len(rows) < len(page) or len(page) == PAGE)


def _decode_body(body: bytes) -> tuple[str, int]:
    """The body, or how large one is that nobody can read."""
    try:
        return body.decode(), 0
    except UnicodeDecodeError:
        return "", len(body)


def _is_call(stored: StoredMessage) -> bool:
    """True for a call: its grant names the task under whose name a write's key is, a fork's."""
    return stored.ce_type.startswith(f"{ToolCallRequested.TYPE}.")


class TaskMessageQuery:
    """Answers from the journal."""

    def __init__(self, journal: TaskJournal) -> None:
        self._journal = journal

    async def answer_task_messages(self, message: ReceivedMessage) -> TaskMessagesReplied:
        """The next page of the asker's task."""
        assert isinstance(message.body, TaskMessagesRequested)
        page = await self._journal.read_page(message, message.body.after)
        return (
            TaskMessagesReplied(failure=page)
            if isinstance(page, Failure)
            else messages_reply(page, keep_grants=message.body.claims)
        )
