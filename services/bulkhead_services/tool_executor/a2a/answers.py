"""Events of a remote agent as the outcome of a call.

Enters: events of the SDK, or the error in their place. Leaves: Done, Failed, or AgentFault. What an agent says is a
stranger's text, looked at once and bounded while it comes; files by link are named and not fetched.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import httpx
from a2a.client import A2AClientTimeoutError
from a2a.types import Artifact, Part, StreamResponse, Task, TaskState, TaskStatus
from a2a.utils.errors import (
    A2AError,
    ContentTypeNotSupportedError,
    ExtensionSupportRequiredError,
    InternalError,
    InvalidAgentResponseError,
    InvalidParamsError,
    InvalidRequestError,
    JSONParseError,
    MethodNotFoundError,
    TaskNotFoundError,
    VersionNotSupportedError,
)
from google.protobuf import json_format

from bulkhead.tools.agents_file import AgentTool
from bulkhead.tools.api import Done, Failed
from bulkhead.tools.mcp_pins import clean_line
from bulkhead_contracts import bounds
from bulkhead_services.tool_executor.a2a.http import TOO_LONG

MAX_REASON_CHARS = 600
_UNREACHED = (
    *(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout),
    *(httpx.UnsupportedProtocol, httpx.InvalidURL),
)
_NOT_BEGUN = (
    *(InvalidParamsError, InvalidRequestError, JSONParseError, MethodNotFoundError),
    *(ContentTypeNotSupportedError, ExtensionSupportRequiredError, VersionNotSupportedError),
)
"""Errors about the message itself, found before any work. All others may come after it."""
_AGENT_ERRORS = (InternalError, InvalidAgentResponseError)
"""The agent's own errors, which may be over in a moment."""
_NOT_BEGUN_STATUS, _LATER_STATUS = (401, 403, 404), (408, 425, 429)
SDK_ERRORS = (
    *(A2AError, httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, json_format.Error),
    # What the SDK lets through of a remote that breaks the protocol.
    *(ValueError, RuntimeError, KeyError, TypeError, AttributeError),
)
UNSUCCESSFUL_STATES: dict[TaskState, tuple[str, str, str]] = {
    TaskState.TASK_STATE_FAILED: ("remote_failed", "failed", "change what it is asked, or go another way"),
    TaskState.TASK_STATE_REJECTED: ("remote_rejected", "refused the task", "change what it is asked"),
    TaskState.TASK_STATE_CANCELED: ("remote_cancelled", "was cancelled", "ask again if it is wanted after all"),
    TaskState.TASK_STATE_INPUT_REQUIRED: (
        "remote_asks",
        "asks for more, which nobody here can answer, and was cancelled",
        "tell it all that it needs at once",
    ),
    TaskState.TASK_STATE_AUTH_REQUIRED: (
        "remote_wants_login",
        "asks for a login, and was cancelled",
        "an operator must give it its headers in the file of agents",
    ),
}
"""By state in which a call ends without a result: code, what the agent did, hint."""
ASKING_STATES = (TaskState.TASK_STATE_INPUT_REQUIRED, TaskState.TASK_STATE_AUTH_REQUIRED)
ENDED_STATES = (
    TaskState.TASK_STATE_COMPLETED,
    TaskState.TASK_STATE_FAILED,
    TaskState.TASK_STATE_REJECTED,
    TaskState.TASK_STATE_CANCELED,
)
UNDONE_STATES = (TaskState.TASK_STATE_REJECTED,)


@dataclass(frozen=True, slots=True)
class AgentFault:
    """Why there is no answer. sent: the message may have done something; lost: the agent does not know its task any
    more; broken: what it says breaks the protocol or a bound; answered: it said no, and would say so again."""

    code: str
    reason: str
    sent: bool
    lost: bool = False
    broken: bool = False
    answered: bool = False


@dataclass(slots=True)
class PartsText:
    """Text of the parts of one artifact or message. cut: not all of it was kept."""

    name: str = ""
    omitted: list[str] = field(default_factory=list)
    cut: bool = False
    _lines: list[list[str]] = field(default_factory=list)
    _chars: int = 0
    _parts: int = 0
    _adjoins: bool = False

    @classmethod
    def from_parts(cls, parts: Iterable[Part], name: str = "") -> "PartsText":
        """The words of these parts."""
        parts_text = cls(name)
        parts_text.append_parts(parts)
        return parts_text

    def append_parts(self, parts: Iterable[Part]) -> None:
        """More parts. Adjoining texts are one, as agents stream it and a whole task tells it."""
        for part in parts:
            if self._parts >= bounds.MAX_AGENT_PARTS or self._chars >= bounds.MAX_TOOL_OUTPUT_BYTES:
                self.cut = True
                return
            self._parts += 1
            kind = part.WhichOneof("content")
            if kind == "text":
                self._append_text(part.text, self._adjoins)
            elif kind == "data":
                self._append_text(json.dumps(json_format.MessageToDict(part.data), ensure_ascii=False))
            elif kind == "raw" and _is_text(part):
                self._append_text(part.raw.decode("utf-8", "replace"))
            elif kind == "raw":
                self._note_omission(f"a file {_file_label(part)}, {len(part.raw)} bytes")
            elif kind == "url":
                self._note_omission(
                    f"a link to the file {_file_label(part)}: {clean_line(part.url, bounds.MAX_PHRASE_CHARS)}"
                )
            self._adjoins = kind == "text"

    def render_text(self) -> str:
        """Text of all parts, one under another."""
        return "\n".join(filter(None, map("".join, self._lines))).strip()

    def _append_text(self, text: str, adjoins: bool = False) -> None:
        room = bounds.MAX_TOOL_OUTPUT_BYTES - self._chars
        self.cut = self.cut or len(text) > room
        self._chars += len(text)
        if not adjoins:
            self._lines.append([])
        self._lines[-1].append(text[:room])

    def _note_omission(self, what: str) -> None:
        if len(self.omitted) < bounds.MAX_OMISSIONS:
            self.omitted.append(what)


def _is_text(part: Part) -> bool:
    media = part.media_type.partition(";")[0].strip().lower()
    return media.startswith("text/") or media == "application/json"


def _file_label(part: Part) -> str:
    return f"{clean_line(part.filename, 64) or 'without a name'} ({clean_line(part.media_type, 64) or 'unknown'})"


@dataclass(slots=True)
class AgentAnswerFold:
    """Fold of what was heard of one call until now."""

    task: str = ""
    state: TaskState = TaskState.TASK_STATE_UNSPECIFIED
    status_text: str = ""
    message: PartsText | None = None
    artifacts: dict[str, PartsText] = field(default_factory=dict)
    events: int = 0
    left_out: int = 0

    def apply_event(self, event: StreamResponse) -> None:
        """One event. Raises ValueError where the id of its task is none."""
        self.events += 1
        match event.WhichOneof("payload"):
            case "task":
                self._apply_task(event.task)
            case "message":
                self.message = PartsText.from_parts(event.message.parts)
            case "status_update":
                self.task = self.task or _check_task_id(event.status_update.task_id)
                self._apply_status(event.status_update.status)
            case "artifact_update":
                self.task = self.task or _check_task_id(event.artifact_update.task_id)
                self._apply_artifact(event.artifact_update.artifact, event.artifact_update.append)

    def is_over(self) -> bool:
        """True when nothing more is to come."""
        ended = self.state == TaskState.TASK_STATE_COMPLETED or self.state in UNSUCCESSFUL_STATES
        return ended or self.message is not None or self.events >= bounds.MAX_AGENT_EVENTS

    def to_outcome(self, tool: AgentTool) -> Done | Failed:
        """When it is over."""
        name = tool.row.spec.name
        if self.state in UNSUCCESSFUL_STATES:
            code, what_happened, hint = UNSUCCESSFUL_STATES[self.state]
            reason = clean_line(self.status_text, MAX_REASON_CHARS) or "it gave no reason"
            undone = self.state in UNDONE_STATES or tool.declared.on_error == "undone"
            return Failed(code, f"{name} {what_happened}: {reason}", hint, effect="none" if undone else "unknown")
        if self.message is None and self.state != TaskState.TASK_STATE_COMPLETED:
            message = f"{name} sent more than {bounds.MAX_AGENT_EVENTS} events, and was given up"
            return Failed("output_too_large", message, "ask for less", effect="unknown")
        contents = list(self.artifacts.values()) or ([self.message] if self.message is not None else [])
        texts = [_text_with_title(content) if len(contents) > 1 else content.render_text() for content in contents] or [
            self.status_text
        ]
        omitted = [omission for content in contents for omission in content.omitted]
        if self.left_out:
            omitted.append(f"{self.left_out} artifacts beyond the first {bounds.MAX_AGENT_ARTIFACTS}")
        text = "\n\n".join(filter(None, texts))
        if not text and not omitted:
            return Failed("empty_answer", f"{name} ended its task and said nothing", "go another way", effect="unknown")
        return Done(text, any(content.cut for content in contents), omitted=tuple(omitted[: bounds.MAX_OMISSIONS - 1]))

    def _apply_task(self, task: Task) -> None:
        self.task = _check_task_id(task.id)
        self._apply_status(task.status)
        self.artifacts, self.left_out = {}, 0  # A whole task has all of them.
        for artifact in task.artifacts:
            self._apply_artifact(artifact, append=False)

    def _apply_status(self, status: TaskStatus) -> None:
        self.state = status.state
        parts = status.message.parts if status.HasField("message") else ()
        self.status_text = PartsText.from_parts(parts).render_text()

    def _apply_artifact(self, artifact: Artifact, append: bool) -> None:
        existing = self.artifacts.get(artifact.artifact_id)
        if existing is not None and append:
            existing.append_parts(artifact.parts)
        elif existing is None and len(self.artifacts) >= bounds.MAX_AGENT_ARTIFACTS:
            self.left_out += 1
        else:
            self.artifacts[artifact.artifact_id] = PartsText.from_parts(artifact.parts, artifact.name)


def _text_with_title(content: PartsText) -> str:
    text, title = content.render_text(), clean_line(content.name, bounds.MAX_NAME_CHARS)
    return f"## {title}\n{text}" if title and text else text


def _check_task_id(task_id: str) -> str:
    """It goes on record, into logs and URLs: one that is none breaks the protocol."""
    if len(task_id) > bounds.MAX_AGENT_TASK_ID_CHARS or not task_id.isprintable():
        raise ValueError(f"its task's id is no text of at most {bounds.MAX_AGENT_TASK_ID_CHARS} characters")
    return task_id


def fault_of(error: Exception) -> AgentFault:
    """The fault behind an exception of the SDK. Only what is known to come before any work is not `sent`."""
    cause = error.__cause__ if isinstance(error, A2AError) and error.__cause__ is not None else error
    reason = clean_line(str(cause) or type(cause).__name__, MAX_REASON_CHARS)
    if isinstance(cause, _UNREACHED):
        return AgentFault("unavailable", reason, sent=False)
    if TOO_LONG in reason:
        return AgentFault("output_too_large", reason, sent=True, broken=True)
    if isinstance(error, TaskNotFoundError):
        return AgentFault("remote_lost_task", f"it does not know the task any more: {reason}", sent=True, lost=True)
    status = cause.response.status_code if isinstance(cause, httpx.HTTPStatusError) else 0
    if status < 500 and isinstance(error, _NOT_BEGUN):
        return AgentFault("remote_refused", f"{type(error).__name__}: {reason}", sent=False, answered=True)
    if status:
        return _fault_of_status(status)
    if isinstance(cause, httpx.HTTPError) or isinstance(error, A2AClientTimeoutError):
        return AgentFault("connection_lost", f"{type(cause).__name__}: {reason}", sent=True)
    if isinstance(error, A2AError) and type(error).__module__ == "a2a.utils.errors":
        answered = not isinstance(error, _AGENT_ERRORS)
        return AgentFault("remote_error", f"{type(error).__name__}: {reason}", sent=True, answered=answered)
    return AgentFault(
        "malformed_output", f"it answered what the protocol does not allow: {reason}", sent=True, broken=True
    )


def _fault_of_status(status: int) -> AgentFault:
    if status in _NOT_BEGUN_STATUS:
        detail = ": its headers are not taken" if status != 404 else ""
        return AgentFault("remote_refused", f"it answered HTTP {status}{detail}", sent=False, answered=True)
    if status >= 500:
        return AgentFault("connection_lost", f"it answered HTTP {status}", sent=True)
    return AgentFault("remote_error", f"it answered HTTP {status}", sent=True, answered=status not in _LATER_STATUS)
