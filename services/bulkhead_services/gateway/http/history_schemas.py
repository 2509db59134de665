"""Shapes of the HTTP API that tell what a task did: its story, its timeline, its calls, its messages."""

from typing import Annotated

from pydantic import Field

from bulkhead.journal.lines import Row
from bulkhead.journal.story.detail import CallDetail
from bulkhead.journal.story.model import Story
from bulkhead_contracts.types import Contract, Count

MAX_OF_ONE_ID = 8


class StoryDocument(Contract):
    """What a task did and why. text: for people, one screen, or all of it. content: whether the caller may read texts;
    without, story and text have names, outcomes, sources and costs. cut: the task has more messages than were read."""

    task_id: str
    status: str
    content: bool
    cut: bool
    text: str
    story: Story


class TimelinePage(Contract):
    """Messages of a task in order, as rows and as text for people. next: send it as `after`; null on the last page."""

    task_id: str
    content: bool
    cut: bool
    text: str
    rows: tuple[Row, ...]
    next: int | None = None


class CallDocument(Contract):
    """One call of a task: what was put into it, what came of it, its attempts and versions. text: for people."""

    task_id: str
    content: bool
    text: str
    call: CallDetail


class RawMessage(Contract):
    """A message as the journal has it. headers: without signatures, for those who may not read texts only what says
    what it is. body: as it was sent, "" where it may not be read. left_out_bytes: the body is too large or no text."""

    sequence: Count
    inbox_sequence: Count
    stored_unix_ms: Count
    sender: str
    receiver: str
    type: str
    cause: str
    headers: dict[str, str]
    body: str
    left_out_bytes: Count = 0


class MessageDocument(Contract):
    """The messages of a task that bear one id: one, unless somebody took an id that was in use. more: others do too."""

    task_id: str
    message_id: str
    content: bool
    messages: Annotated[tuple[RawMessage, ...], Field(max_length=MAX_OF_ONE_ID)]
    more: Count = 0
