"""Push notifications of a task: configs that its people set, one post at a time for each, and what became of it.

A config lies in the gateway's inbox beside its task's messages, and goes with them. `setting` is the place there of the
message that set the config: the same id that is set anew is another setting. Token and URL are the client's own; a
password of the receiver has no place in any message.
"""

import operator
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from bulkhead_contracts import bounds

from ..result import Answered, ContentRef
from ..types import Body, Count, Name, Reason, Tag, UnixMs

CONFIG_ID = r"^[A-Za-z0-9_.-]{1,64}$"
ConfigId = Annotated[str, StringConstraints(pattern=CONFIG_ID)]
PushUrl = Annotated[str, StringConstraints(pattern=r"^[!-~]+$", max_length=bounds.MAX_PUSH_URL_CHARS)]
PushToken = Annotated[str, StringConstraints(pattern=r"^[!-~]*$", max_length=bounds.MAX_PUSH_TOKEN_CHARS)]
Form = Literal["1.0", "0.3"]
"""The version of A2A in whose form it is posted: that of the client who asked for it."""


class PushConfigSet(Body, type="mesh.push.config_set"):
    """A person wants to be told at this URL what becomes of the task. person: who."""

    config_id: ConfigId
    url: PushUrl
    token: PushToken = ""
    form: Form = "1.0"
    person: Name


class PushConfigDeleted(Body, type="mesh.push.config_deleted"):
    """It is wanted no more. setting: up to which nothing is posted any more; 0 for all that was set before."""

    config_id: ConfigId
    setting: Count = 0


class PushPostRequested(Body, type="mesh.push.post_requested"):
    """Ask: post how the task stands. The next one is asked for when this one has ended.

    update: place of the message by which it came to stand so. asks: a person has to decide about a call. context_id:
    the client's own name for tasks that belong together. answer, standing, complete, answered: of a task that has one.
    """

    config_id: ConfigId
    setting: Count
    update: Count
    url: PushUrl
    token: PushToken = ""
    form: Form = "1.0"
    context_id: Tag = ""
    status: Annotated[str, Field(pattern=r"^[a-z]{1,32}$")]
    asks: bool = False
    reason: Reason = ""
    at_unix_ms: UnixMs
    answer: ContentRef | None = None
    standing: Tag = ""
    complete: bool = True
    answered: Annotated[Answered | None, Field(exclude_if=operator.not_)] = None


class PushEnded(Body, type="mesh.push.ended"):
    """A post was taken by its receiver, or was given up: then nothing more is posted for this setting. reason: why."""

    config_id: ConfigId
    setting: Count
    update: Count
    outcome: Literal["delivered", "given_up"]
    reason: Reason = ""
