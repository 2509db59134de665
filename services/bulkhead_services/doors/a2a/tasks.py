"""Tasks of the mesh as A2A shows them. Pure. In: documents and events of the gateway. Out: A2A's tasks and updates.

A task's contextId is the one that its first message named, or the task's own id where it named none.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from a2a.types import (
    Artifact,
    Message,
    Part,
    Role,
    Task,
    TaskArtifactUpdateEvent,
    TaskState,
    TaskStatus,
    TaskStatusUpdateEvent,
)
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct, Value

from bulkhead.a2a import states
from bulkhead.plain_text import harmless

Document = Mapping[str, Any]
ANSWER = "answer"
TERMINAL = frozenset(
    {
        TaskState.TASK_STATE_COMPLETED,
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_CANCELED,
        TaskState.TASK_STATE_REJECTED,
    }
)
NO_MORE = TERMINAL | {TaskState.TASK_STATE_INPUT_REQUIRED}
"""States at which a stream and a waiting `SendMessage` end."""


def state(document: Document, approvals: Sequence[Document] = ()) -> TaskState:
    """A task that waits for a person's decision is `input-required`; one that is held otherwise goes on by itself."""
    found: TaskState = TaskState.Value(states.state(document["status"], bool(approvals)))
    return found


def context_id(document: Document) -> str:
    """The context of a task."""
    return str(document.get("conversation") or document["task_id"])


def task(
    document: Document, approvals: Sequence[Document] = (), cited: Document | None = None, history: int = 1
) -> Task:
    """A whole task. approvals: those that wait, of one that is `input-required`. cited: the citations of its answer.
    history: how many messages to show; the mesh keeps the first one's text."""
    context = context_id(document)
    first = _message(f"{document['task_id']}-0", [_text(document["objective"])], Role.ROLE_USER)
    found = Task(
        id=document["task_id"],
        context_id=context,
        status=status(document, approvals),
        artifacts=artifacts(document, cited),
        history=[first] if history > 0 and document["objective"] else [],
        metadata=_struct({"bulkhead": _facts(document)}),
    )
    for message in found.history:
        message.task_id, message.context_id = found.id, context
    return found


def status(document: Document, approvals: Sequence[Document] = ()) -> TaskStatus:
    """A task's state, with what a person should know about it."""
    found = TaskStatus(state=state(document, approvals))
    found.timestamp.FromMilliseconds(document["updated_unix_ms"])
    pause, failure = document.get("pause") or {}, document.get("failure") or {}
    told = pause.get("reason", "")
    if failure:
        told = f"{failure['code']}: {failure['message']}" + (f" ({failure['hint']})" if failure.get("hint") else "")
    parts = [_text(told)] if told else []
    parts += [Part(data=_value(_waiting(row)), media_type="application/json") for row in approvals]
    if parts:
        found.message.CopyFrom(_message(f"{document['task_id']}-{document['updated_unix_ms']}", parts))
    return found


def artifacts(document: Document, cited: Document | None = None) -> list[Artifact]:
    """The answer of a task that has one: its text, and what stands behind its markers."""
    if document.get("answer") is None:
        return []
    about = {"standing": document.get("standing"), "complete": document.get("complete")}
    data = about | {"citations": (cited or {}).get("citations", [])}
    parts = [_text(document["answer"], media_type="text/plain"), Part(data=_value(data), media_type="application/json")]
    return [Artifact(artifact_id=ANSWER, name=ANSWER, parts=parts)]


def ended(document: Document, cited: Document | None = None) -> list[TaskArtifactUpdateEvent | TaskStatusUpdateEvent]:
    """The last events of a stream: the answer whole, then the state."""
    own = {"task_id": document["task_id"], "context_id": context_id(document)}
    found: list[TaskArtifactUpdateEvent | TaskStatusUpdateEvent] = [
        TaskArtifactUpdateEvent(artifact=one, last_chunk=True, **own) for one in artifacts(document, cited)
    ]
    return [*found, TaskStatusUpdateEvent(status=status(document), **own)]


def update(document: Document, name: str, data: Document) -> TaskStatusUpdateEvent | None:
    """An event of the gateway's stream while the task runs; None for one that says nothing to a client.

    Text of a step is a message of the state, no artifact: it is not the answer before it is checked.
    """
    parts: list[Part] = []
    about: dict[str, Any] = {"event": name}
    now = TaskState.TASK_STATE_WORKING
    match name:
        case "task.queued":
            now = TaskState.TASK_STATE_SUBMITTED
            parts = [Part(text=f"waits for a place to run; {data['ahead']} tasks are before it")]
        case "task.accepted" | "task.released" | "task.resumed":
            pass
        case "task.paused":
            parts = [_text(data["reason"])]
        case "step.started":
            about |= {"stepId": data["step_id"], "attempt": data["attempt"]}
            parts = [_text(data["title"])] if data["title"] else []
        case "text":
            about |= {"stepId": data["step_id"], **{key: data[key] for key in ("attempt", "offset", "replace")}}
            parts = [_text(data["text"])]
        case _:
            return None
    found = TaskStatus(state=now)
    if "time_unix_ms" in data:
        found.timestamp.FromMilliseconds(data["time_unix_ms"])
    else:
        found.timestamp.GetCurrentTime()
    if parts:
        name = f"{document['task_id']}-{name}-{found.timestamp.ToMilliseconds()}-{data.get('offset', 0)}"
        found.message.CopyFrom(_message(name, parts))
    own = {"task_id": document["task_id"], "context_id": context_id(document)}
    return TaskStatusUpdateEvent(status=found, metadata=_struct({"bulkhead": about}), **own)


def _facts(document: Document) -> dict[str, Any]:
    found = {"status": document["status"], "kind": document.get("kind", "planned")}
    usage = document.get("usage") or {}
    cost = usage.get("cost_usd_micros", document.get("cost_usd_micros"))
    return found | ({"costUsdMicros": cost} if cost is not None else {})


def _waiting(row: Document) -> dict[str, Any]:
    """An approval as a client needs it to decide: the request as it stands, and the fields of its answer."""
    answer = {"decision": "granted or denied", "reason": "why", "approval_id": row["approval_id"]}
    answer["arguments_sha256"] = row["request"].get("arguments_sha256", "")
    return {"approval": row, "answer_with": answer}


def _message(name: str, parts: Iterable[Part], role: Role = Role.ROLE_AGENT) -> Message:
    return Message(message_id=name, role=role, parts=list(parts))


def _text(text: str, media_type: str = "") -> Part:
    """What a model, a document or a person wrote: nothing in it turns other text around or hides from a reader."""
    return Part(text=harmless(text), media_type=media_type)


def _shown(found: Any) -> Any:
    """The same of every text in a document."""
    match found:
        case str():
            return harmless(found)
        case Mapping():
            return {_shown(name): _shown(value) for name, value in found.items()}
        case list() | tuple():
            return [_shown(one) for one in found]
    return found


def _struct(found: Mapping[str, Any]) -> Struct:
    return ParseDict(dict(found), Struct())


def _value(found: Mapping[str, Any]) -> Value:
    return ParseDict(_shown(found), Value())
