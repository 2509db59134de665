"""A mesh that does what A2A's TCK asks an agent to do, as far as a mesh can. Out: an address for it.

A mesh works on texts and knows nothing of a messageId's meaning: a proxy writes it into the text of a new task, where
the scripted model finds it. It numbers them, too, for the TCK gives several messages one messageId, which the mesh
takes for repeats. A call that waits for a person goes on by an approver's decision: the proxy makes one of each message
that follows up such a task.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from tests.integration.conformance.suite import Sent, proxy
from tests.integration.doors.agent_door import before
from tests.integration.memory_mesh.test_approvals import asks
from tests.replay.stage import APPROVER, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import Exchange, Script, says

ANN = "bk_ann_of_demo"
TEXTS = {"tck-artifact-text": "Generated text content"}
HELLO, COUNT = "hello", "count"
WAITS = "tck-input-required"


@asynccontextmanager
async def mesh(folder: Path) -> AsyncIterator[str]:
    """A whole mesh with a proxy before it."""
    async with stage(folder, rule=asks) as on, before(on.url, folder / "keys.json") as url:
        steps: dict[str, list[Script]] = {_step(name): [says(text)] for name, text in TEXTS.items()}
        steps |= {HELLO: [says("Hello from TCK")], COUNT: [_counts]}
        on.model.will(_planned)
        on.model.steps = steps
        async with httpx.AsyncClient(base_url=url, headers={"A2A-Version": "1.0"}) as http:
            numbers = count(1)

            async def adapted(sent: Sent) -> Sent:
                return await _adapted(http, sent, numbers)

            async with proxy(url, adapted) as own:
                yield own


async def _planned(x: Exchange) -> None:
    """One step, by what the objective names."""
    objective = x.body["messages"][1]["content"]
    name = next((name for name in TEXTS if name in objective), "")
    if WAITS in objective:
        await plan({"id": COUNT, "tools": ["counter_increment"]})(x)
    else:
        await plan({"id": _step(name) if name else HELLO})(x)


def _step(name: str) -> str:
    """The step of what the TCK asks for."""
    return name.replace("-", "_")


async def _counts(x: Exchange) -> None:
    """A call that policy asks about, and an answer once it was made."""
    made = any(message["role"] == "tool" for message in x.body["messages"])
    await (says("It is counted.") if made else use(call("counter_increment", name="kept")))(x)


async def _adapted(http: httpx.AsyncClient, sent: Sent, numbers: Iterator[int]) -> Sent:
    """A request as the mesh understands it."""
    headers = {**sent.headers, "authorization": f"Bearer {ANN}"}
    message = _message(body := _json(sent.body))
    if message is None:
        return Sent(headers, sent.body)
    if not message.get("taskId"):
        if message.get("parts") and "text" in message["parts"][0]:
            message["parts"][0]["text"] += f"\n\n({message.get('messageId', '')}, {next(numbers)})"
    elif (word := await _decision(http, message["taskId"])) is not None:
        message["parts"] = [{"data": word}]
        headers["authorization"] = f"Bearer {APPROVER}"
    return Sent(headers, json.dumps(body).encode())


async def _decision(http: httpx.AsyncClient, task: Any) -> dict[str, str] | None:
    """An approver's yes to the call that a task waits for."""
    answer = await http.get(f"/a2a/tasks/{task}", headers={"Authorization": f"Bearer {APPROVER}"})
    status = answer.json().get("status", {})
    if status.get("state") != "TASK_STATE_INPUT_REQUIRED":
        return None
    asked: dict[str, str] = status["message"]["parts"][-1]["data"]["answer_with"]
    return asked | {"decision": "granted", "reason": "a follow-up of the TCK"}


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:  # The TCK sends such bodies, too.
        return None


def _message(body: Any) -> dict[str, Any] | None:
    """The message of a request in either binding."""
    within = body.get("params", body) if isinstance(body, dict) else {}
    found = within.get("message") if isinstance(within, dict) else None
    return found if isinstance(found, dict) else None
