"""Tasks of the mesh as A2A shows them. In: documents and events of the gateway. Out: A2A's tasks, updates and pages.

A task's contextId is the one that its message named, or the task's own id where it named none.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from a2a.types import (
    Artifact,
    ListTasksRequest,
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
from bulkhead.client import Mesh
from bulkhead.gateway_api.approvals import ApprovalListQuery
from bulkhead.text.live_calls import CALL_EVENTS, describe_call
from bulkhead.text.plain_text import escape_controls

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
_OF_MESH = re.compile(r"[st][a-z2-7]{25}")
"""Ids of tasks and sessions: a context has one of them, or a name that its client made."""
MAX_PAGES_SCANNED = 20
"""A list that is filtered asks the gateway no more often for one page; its next page goes on from there."""


def task_state(document: Document, approvals: Sequence[Document] = ()) -> TaskState:
    """A task that waits for a person's decision is `input-required`; one that is held otherwise goes on by itself."""
    a2a_state: TaskState = TaskState.Value(states.a2a_state(document["status"], bool(approvals)))
    return a2a_state


def context_id(document: Document) -> str:
    """The context of a task."""
    return str(document.get("conversation") or document["task_id"])


def render_task(
    document: Document, approvals: Sequence[Document] = (), cited: Document | None = None, history: int = 1
) -> Task:
    """A whole task. approvals: those that wait, of one that is `input-required`. cited: the citations of its answer.
    history: how many messages to show; the mesh keeps the first one's text."""
    context = context_id(document)
    first = _build_message(f"{document['task_id']}-0", [_text_part(document["objective"])], Role.ROLE_USER)
    rendered = Task(
        id=document["task_id"],
        context_id=context,
        status=render_status(document, approvals),
        artifacts=render_artifacts(document, cited),
        history=[first] if history > 0 and document["objective"] else [],
        metadata=_to_struct({"bulkhead": _mesh_facts(document)}),
    )
    for message in rendered.history:
        message.task_id, message.context_id = rendered.id, context
    return rendered


def render_status(document: Document, approvals: Sequence[Document] = ()) -> TaskStatus:
    """A task's state, with what a person should know about it."""
    rendered = TaskStatus(state=task_state(document, approvals))
    rendered.timestamp.FromMilliseconds(document["updated_unix_ms"])
    pause, failure = document.get("pause") or {}, document.get("failure") or {}
    explanation = pause.get("reason", "")
    if failure:
        explanation = f"{failure['code']}: {failure['message']}" + (
            f" ({failure['hint']})" if failure.get("hint") else ""
        )
    parts = [_text_part(explanation)] if explanation else []
    parts += [Part(data=_to_value(_render_approval(row)), media_type="application/json") for row in approvals]
    if parts:
        rendered.message.CopyFrom(_build_message(f"{document['task_id']}-{document['updated_unix_ms']}", parts))
    return rendered


def render_artifacts(document: Document, cited: Document | None = None) -> list[Artifact]:
    """The answer of a task that has one: its text, and what stands behind its markers."""
    if document.get("answer") is None:
        return []
    about = {name: document.get(name) for name in ("standing", "complete")}
    about |= {name: document[name] for name in ("answered", "answered_reason") if document.get(name)}
    data = about | {"citations": (cited or {}).get("citations", [])}
    parts = [
        _text_part(document["answer"], media_type="text/plain"),
        Part(data=_to_value(data), media_type="application/json"),
    ]
    return [Artifact(artifact_id=ANSWER, name=ANSWER, parts=parts)]


def final_events(
    document: Document, cited: Document | None = None
) -> list[TaskArtifactUpdateEvent | TaskStatusUpdateEvent]:
    """The last events of a stream: the answer whole, then the state."""
    ids = {"task_id": document["task_id"], "context_id": context_id(document)}
    events: list[TaskArtifactUpdateEvent | TaskStatusUpdateEvent] = [
        TaskArtifactUpdateEvent(artifact=artifact, last_chunk=True, **ids)
        for artifact in render_artifacts(document, cited)
    ]
    return [*events, TaskStatusUpdateEvent(status=render_status(document), **ids)]


def status_update(document: Document, name: str, data: Document) -> TaskStatusUpdateEvent | None:
    """An event of the gateway's stream while the task runs; None for one that says nothing to a client.

    Text of a step is a message of the state, no artifact: it is not the answer before it is checked.
    """
    parts: list[Part] = []
    about: dict[str, Any] = {"event": name}
    new_state = TaskState.TASK_STATE_WORKING
    match name:
        case "task.queued":
            new_state = TaskState.TASK_STATE_SUBMITTED
            parts = [Part(text=f"waits for a place to run; {data['ahead']} tasks are before it")]
        case "task.accepted" | "task.released" | "task.resumed":
            pass
        case "task.paused":
            parts = [_text_part(data["reason"])]
        case "step.started":
            about |= {"stepId": data["step_id"], "attempt": data["attempt"]}
            parts = [_text_part(data["title"])] if data["title"] else []
        case "text":
            about |= {"stepId": data["step_id"], **{key: data[key] for key in ("attempt", "offset", "replace")}}
            parts = [_text_part(data["text"])]
        case call if call in CALL_EVENTS:
            about |= {"stepId": data["step_id"], "callId": data["call_id"], "tool": data["tool"]}
            about |= {"outcome": data["outcome"]} if "outcome" in data else {}
            parts = [_text_part(describe_call(name, data))]
        case _:
            return None
    new_status = TaskStatus(state=new_state)
    if "time_unix_ms" in data:
        new_status.timestamp.FromMilliseconds(data["time_unix_ms"])
    else:
        new_status.timestamp.GetCurrentTime()
    if parts:
        name = f"{name}-{data['call_id']}" if name in CALL_EVENTS else name
        name = f"{document['task_id']}-{name}-{new_status.timestamp.ToMilliseconds()}-{data.get('offset', 0)}"
        new_status.message.CopyFrom(_build_message(name, parts))
    ids = {"task_id": document["task_id"], "context_id": context_id(document)}
    return TaskStatusUpdateEvent(status=new_status, metadata=_to_struct({"bulkhead": about}), **ids)


def _mesh_facts(document: Document) -> dict[str, Any]:
    facts = {"status": document["status"], "kind": document.get("kind", "planned")}
    usage = document.get("usage") or {}
    cost = usage.get("cost_usd_micros", document.get("cost_usd_micros"))
    return facts | ({"costUsdMicros": cost} if cost is not None else {})


def _render_approval(row: Document) -> dict[str, Any]:
    """An approval as a client needs it to decide: the request as it stands, and the fields of its answer."""
    answer = {"decision": "granted or denied", "reason": "why", "approval_id": row["approval_id"]}
    answer["arguments_sha256"] = row["request"].get("arguments_sha256", "")
    return {"approval": row, "answer_with": answer}


def _build_message(name: str, parts: Iterable[Part], role: Role = Role.ROLE_AGENT) -> Message:
    return Message(message_id=name, role=role, parts=list(parts))


def _text_part(text: str, media_type: str = "") -> Part:
    """Text of a model, a document or a person: nothing in it turns other text around or hides from a reader."""
    return Part(text=escape_controls(text), media_type=media_type)


def _harmless_copy(document: Any) -> Any:
    """The same of every text in a document."""
    match document:
        case str():
            return escape_controls(document)
        case Mapping():
            return {_harmless_copy(name): _harmless_copy(value) for name, value in document.items()}
        case list() | tuple():
            return [_harmless_copy(item) for item in document]
    return document


def _to_struct(document: Mapping[str, Any]) -> Struct:
    return ParseDict(dict(document), Struct())


def _to_value(document: Mapping[str, Any]) -> Value:
    return ParseDict(_harmless_copy(document), Value())


@dataclass(frozen=True, slots=True)
class A2aTaskPage:
    """Rows that fit a filter. following: where the next page begins; "" where nothing is left. total: of all pages;
    behind a filter, those that were seen, at least."""

    rows: list[Document]
    following: str
    total: int


async def read_page(mesh: Mesh, params: ListTasksRequest, size: int, person: str) -> A2aTaskPage:
    """A page of the tenant's tasks. person: who asks; a context that a client has named is its person's own."""
    rows: list[Document] = []
    cursor, requests, total = params.page_token, 0, 0
    since = params.status_timestamp_after.ToMilliseconds() if params.HasField("status_timestamp_after") else 0
    while len(rows) < size and requests < MAX_PAGES_SCANNED:
        query = {"limit": str(size - len(rows))} | ({"cursor": cursor} if cursor else {})
        answer = await mesh.get("/v1/tasks", query)
        total = answer.get("total") or 0
        for row in answer["tasks"]:
            fits = params.context_id in ("", context_id(row)) and row["updated_unix_ms"] >= since
            fits &= not params.context_id or row["person"] == person or bool(_OF_MESH.fullmatch(params.context_id))
            if fits and await _has_state(mesh, row, params.status):
                rows.append(row)
        requests += 1
        cursor = answer["next"] or ""
        if not cursor:
            break
    known_total = len(rows) + bool(cursor)
    filtered = params.context_id or since or params.status != TaskState.TASK_STATE_UNSPECIFIED
    return A2aTaskPage(rows, cursor, known_total if filtered else max(known_total, total))


async def _has_state(mesh: Mesh, row: Document, state: TaskState) -> bool:
    if state == TaskState.TASK_STATE_UNSPECIFIED:
        return True
    return task_state(row, await waiting_approvals(mesh, row)) == state


async def read_task(mesh: Mesh, document: Document, history: int) -> Task:
    """A task with what waits for a person and what its answer cites. history: how many messages to show."""
    return render_task(document, await waiting_approvals(mesh, document), await read_citations(mesh, document), history)


async def waiting_approvals(mesh: Mesh, document: Document) -> list[Document]:
    """The calls of a task that wait for a person."""
    if document["status"] != "paused":
        return []
    page = await mesh.read_json(ApprovalListQuery(task=document["task_id"]))
    approvals: list[Document] = page["approvals"]
    return approvals


async def read_citations(mesh: Mesh, document: Document) -> Document | None:
    """The citations of an answer that has markers."""
    return await mesh.task(document["task_id"]).citations() if "[#" in (document.get("answer") or "") else None
