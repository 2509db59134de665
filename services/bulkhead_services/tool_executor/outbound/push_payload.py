"""Body and headers of a push notification, in A2A's form. Pure.

In: `PushPostRequested`, and the text of the answer where the task has one. Out: in the form of 1.0 a StreamResponse
(section 4.3.3): a statusUpdate; at the end of a task with an answer its artifactUpdate before that. In the form of 0.3
a Task.
"""

import json
from typing import Any

from bulkhead.a2a.states import state
from bulkhead.plain_text import harmless
from bulkhead_contracts.envelope import CONTENT_TYPE, rfc3339
from bulkhead_contracts.push import PushPostRequested

TOKEN = "X-A2A-Notification-Token"  # noqa: S105 - a header's name
MEDIA_TYPES = {"1.0": "application/a2a+json", "0.3": CONTENT_TYPE}
ANSWER = "answer"


def bodies(task: str, asked: PushPostRequested, answer: str | None) -> tuple[bytes, ...]:
    """What is posted, in this order. answer: None where there is none, or it cannot be read any more."""
    said = (_of_0_3 if asked.form == "0.3" else _of_1_0)(task, asked, answer)
    return tuple(json.dumps(one, ensure_ascii=False, separators=(",", ":")).encode() for one in said)


def headers(asked: PushPostRequested) -> dict[str, str]:
    """The client's own token, by which it knows that it asked for this."""
    return {"content-type": MEDIA_TYPES[asked.form]} | ({TOKEN: asked.token} if asked.token else {})


def _of_1_0(task: str, asked: PushPostRequested, answer: str | None) -> list[dict[str, Any]]:
    own = {"taskId": task, "contextId": asked.context_id or task}
    status: dict[str, Any] = {"state": state(asked.status, asked.asks), "timestamp": rfc3339(asked.at_unix_ms)}
    if asked.reason:
        status["message"] = {"role": "ROLE_AGENT", "parts": [{"text": harmless(asked.reason)}], **_message(task, asked)}
    found: list[dict[str, Any]] = []
    if answer is not None:
        parts = [
            {"text": harmless(answer), "mediaType": "text/plain"},
            {"data": _about(asked), "mediaType": CONTENT_TYPE},
        ]
        artifact = {"artifactId": ANSWER, "name": ANSWER, "parts": parts}
        found.append({"artifactUpdate": {**own, "artifact": artifact, "lastChunk": True}})
    metadata = {"bulkhead": {"status": asked.status}}
    return [*found, {"statusUpdate": {**own, "status": status, "metadata": metadata}}]


def _of_0_3(task: str, asked: PushPostRequested, answer: str | None) -> list[dict[str, Any]]:
    found: dict[str, Any] = {"kind": "task", "id": task, "contextId": asked.context_id or task}
    name = state(asked.status, asked.asks).removeprefix("TASK_STATE_").lower().replace("_", "-")
    found["status"] = {"state": name, "timestamp": rfc3339(asked.at_unix_ms)}
    if asked.reason:
        parts = [{"kind": "text", "text": harmless(asked.reason)}]
        found["status"]["message"] = {"kind": "message", "role": "agent", "parts": parts, **_message(task, asked)}
    if answer is not None:
        about = [{"kind": "text", "text": harmless(answer)}, {"kind": "data", "data": _about(asked)}]
        found["artifacts"] = [{"artifactId": ANSWER, "name": ANSWER, "parts": about}]
    return [found | {"metadata": {"bulkhead": {"status": asked.status}}}]


def _message(task: str, asked: PushPostRequested) -> dict[str, str]:
    return {"messageId": f"{task}-{asked.update}", "taskId": task, "contextId": asked.context_id or task}


def _about(asked: PushPostRequested) -> dict[str, Any]:
    return {"standing": asked.standing, "complete": asked.complete}
