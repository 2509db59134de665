"""Body and headers of a push notification, in A2A's form. Pure.

In: `PushPostRequested`, and the text of the answer where the task has one. Out: in the form of 1.0 a StreamResponse
(section 4.3.3): a statusUpdate; at the end of a task with an answer its artifactUpdate before that. In the form of 0.3
a Task.
"""

import json
from typing import Any

from bulkhead.a2a.states import a2a_state
from bulkhead.text.plain_text import escape_controls
from bulkhead_contracts.envelope import CONTENT_TYPE, format_rfc3339
from bulkhead_contracts.push import PushPostRequested

TOKEN = "X-A2A-Notification-Token"  # noqa: S105 - a header's name
MEDIA_TYPES = {"1.0": "application/a2a+json", "0.3": CONTENT_TYPE}
ANSWER = "answer"


def post_bodies(task: str, asked: PushPostRequested, answer: str | None) -> tuple[bytes, ...]:
    """Bodies to post, in this order. answer: None where there is none, or it cannot be read any more."""
    messages = (_messages_of_0_3 if asked.form == "0.3" else _messages_of_1_0)(task, asked, answer)
    return tuple(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() for message in messages)


def post_headers(asked: PushPostRequested) -> dict[str, str]:
    """The client's own token, by which it knows that it asked for this."""
    return {"content-type": MEDIA_TYPES[asked.form]} | ({TOKEN: asked.token} if asked.token else {})


def _messages_of_1_0(task: str, asked: PushPostRequested, answer: str | None) -> list[dict[str, Any]]:
    ids = {"taskId": task, "contextId": asked.context_id or task}
    status: dict[str, Any] = {
        "state": a2a_state(asked.status, asked.asks),
        "timestamp": format_rfc3339(asked.at_unix_ms),
    }
    if asked.reason:
        status["message"] = {
            "role": "ROLE_AGENT",
            "parts": [{"text": escape_controls(asked.reason)}],
            **_message_ids(task, asked),
        }
    updates: list[dict[str, Any]] = []
    if answer is not None:
        parts = [
            {"text": escape_controls(answer), "mediaType": "text/plain"},
            {"data": _answer_metadata(asked), "mediaType": CONTENT_TYPE},
        ]
        artifact = {"artifactId": ANSWER, "name": ANSWER, "parts": parts}
        updates.append({"artifactUpdate": {**ids, "artifact": artifact, "lastChunk": True}})
    metadata = {"bulkhead": {"status": asked.status}}
    return [*updates, {"statusUpdate": {**ids, "status": status, "metadata": metadata}}]


def _messages_of_0_3(task: str, asked: PushPostRequested, answer: str | None) -> list[dict[str, Any]]:
    message: dict[str, Any] = {"kind": "task", "id": task, "contextId": asked.context_id or task}
    name = a2a_state(asked.status, asked.asks).removeprefix("TASK_STATE_").lower().replace("_", "-")
    message["status"] = {"state": name, "timestamp": format_rfc3339(asked.at_unix_ms)}
    if asked.reason:
        parts = [{"kind": "text", "text": escape_controls(asked.reason)}]
        message["status"]["message"] = {"kind": "message", "role": "agent", "parts": parts, **_message_ids(task, asked)}
    if answer is not None:
        about = [{"kind": "text", "text": escape_controls(answer)}, {"kind": "data", "data": _answer_metadata(asked)}]
        message["artifacts"] = [{"artifactId": ANSWER, "name": ANSWER, "parts": about}]
    return [message | {"metadata": {"bulkhead": {"status": asked.status}}}]


def _message_ids(task: str, asked: PushPostRequested) -> dict[str, str]:
    return {"messageId": f"{task}-{asked.update}", "taskId": task, "contextId": asked.context_id or task}


def _answer_metadata(asked: PushPostRequested) -> dict[str, Any]:
    return {"standing": asked.standing, "complete": asked.complete}
