"""Shapes of the HTTP API that tell what a task did: its story, its timeline, its calls, its messages; and of
push notifications, which tell it to others."""

from typing import Annotated, Self

from pydantic import Field

from bulkhead.journal.lines import Row
from bulkhead.journal.story.detail import CallDetail
from bulkhead.journal.story.model import Story
from bulkhead_contracts.push import Form, PushToken, PushUrl
from bulkhead_contracts.types import Contract, Count
from bulkhead_services.gateway.http.schemas import STRICT
from bulkhead_services.gateway.read_model.feeds import InboxFeed

MAX_OF_ONE_ID = 8


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


class PushSubmission(Contract):
    """Address to which a task's states are posted. token: sent with each post in `X-A2A-Notification-Token`.
    form: the version of A2A in whose form it is posted.
    """

    model_config = STRICT

    url: PushUrl
    token: PushToken = ""
    form: Form = "1.0"


class PushDocument(Contract):
    """Push notifications that are wanted. token: shown to the person who set it. waiting: posts that are not taken yet.
    given_up: why nothing more is posted; "" while it is."""

    config_id: str
    task_id: str
    url: str
    token: str
    form: Form
    person: str
    set_unix_ms: int
    waiting: Count
    given_up: str

    @classmethod
    def from_feed(cls, feed: InboxFeed, config_id: str, person: str) -> Self:
        """The config as a person sees it."""
        config = feed.pushes.configs[config_id]
        return cls(
            config_id=config_id,
            task_id=feed.task,
            url=config.body.url,
            token=config.body.token if config.body.person == person else "",
            form=config.body.form,
            person=config.body.person,
            set_unix_ms=config.set_unix_ms,
            waiting=feed.pushes.count_waiting(config_id),
            given_up=feed.pushes.given_up.get(config_id, ""),
        )


class PushPage(Contract):
    """All push notifications of a task that are wanted."""

    configs: tuple[PushDocument, ...]
