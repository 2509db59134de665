"""Reads that tell what a task did: its story, its timeline, its calls, its messages."""

from typing import Annotated

from pydantic import Field

from bulkhead.gateway_api.query import Flag, Id, PageSize, Query, Remedy, TaskId, Whole
from bulkhead.journal.story.model import CallDetail, Row, Story
from bulkhead_contracts.types import Contract, Count

MAX_OF_ONE_ID = 8
MAX_ROWS = 10**6


class StoryDocument(Contract):
    """Story of a task: what it did and why. text: for people, one screen, or all of it. content: whether the
    caller may read texts; without, story and text have names, outcomes, sources and costs. cut: the task has
    more messages than were read.
    """

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


_CONTENT = (
    "Texts of models, tools, documents and people are shown to operators, and to the person who submitted the task "
    "where the tenant's output policy delivers drafts; each look at them is logged. Others get names, outcomes, "
    "sources and costs."
)


class StoryQuery(
    Query[StoryDocument],
    name="explainTask",
    path="/v1/tasks/{task_id}/why",
    action="read tasks",
    note=_CONTENT,
    problems=(429,),
):
    """Tell what a task did and why: plan, calls, sources, costs, refusals, and the cause of a failure."""

    task_id: TaskId
    all: Annotated[Flag, Field(description="Every call, message and sentence, uncut")] = False


class TimelineQuery(
    Query[TimelinePage],
    name="showTimeline",
    path="/v1/tasks/{task_id}/timeline",
    action="read tasks",
    note=_CONTENT,
    problems=(429,),
):
    """List a task's messages and calls in order: arguments, results, attempts, waits, writes."""

    task_id: TaskId
    limit: PageSize = 20
    after: Annotated[
        int,
        Field(ge=0, le=MAX_ROWS, description="`next` of the previous page"),
        Whole,
        Remedy("send the `next` of the previous page", MAX_ROWS),
    ] = 0


class MessageQuery(
    Query[MessageDocument],
    name="showMessage",
    path="/v1/tasks/{task_id}/messages/{message_id}",
    action="read tasks",
    note=_CONTENT,
    problems=(429,),
):
    """Show one message of a task as it stands in the journal: its headers and its body.

    Grants and approvals in it have no signature and vouchers are left out.
    """

    task_id: TaskId
    message_id: Annotated[
        Id, Field(description="The message's id, as the timeline and the evidence of findings have it")
    ]


class CallQuery(
    Query[CallDocument],
    name="showCall",
    path="/v1/tasks/{task_id}/calls/{call_id}",
    action="read tasks",
    note=_CONTENT,
    problems=(429,),
):
    """Show one call of a task: what it was given, its answer, sources, versions, attempts, waits and cost."""

    task_id: TaskId
    call_id: Annotated[Id, Field(description="The call's id, as story and timeline have it")]
