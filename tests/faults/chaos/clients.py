"""Clients of every kind, as patient programs are: each asks for one thing in a way that may be repeated.

In: a world. Out: `ask(request)` returns when the request is served; it raises what its client was told instead.
"""

import asyncio
import json
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import anthropic
import httpx
import openai
from a2a.client import A2AClientError, ClientConfig, create_client
from a2a.types import Message, Part, Role, SendMessageRequest, TaskState

from bulkhead.client import Mesh, MeshError, Refused, Task
from tests.e2e.doors.agent import MODEL
from tests.faults.chaos.requests import ClientRequest, NotServed, WrongAnswer
from tests.faults.chaos.world import AGENTS, ASKING, CALLING, MCP_TOOLS, PUBLISHING, TOOLING, WORKING, ChaosWorld
from tests.faults.fixtures.errand import ANSWER, CITED, Errand
from tests.faults.fixtures.errand import TENANT as PLANNED

NOT_WAITING = "not_waiting"
LATEST_DECISION_S = 6.0
NOT_FOUND, UNREAD_S = 404, 0.3
META = "io.bulkhead/"
PROTOCOL = "2025-11-25"
AGAIN = re.compile(r"again in (\d+) s")
UNCERTAIN = ("uncertain", "outcome_unknown")


class ChaosClient(ABC):
    """One client. kind: of its requests. tenant: whose key it has. fronts: units whose loss it sees as a lost
    connection."""

    kind = ""
    tenant = ""
    fronts: tuple[str, ...] = ("doors",)

    def __init__(self, world: ChaosWorld, draw: random.Random) -> None:
        self.world, self.draw = world, draw

    @abstractmethod
    async def ask(self, request: ClientRequest) -> None:
        """Have the request served, or raise what its client was told."""

    async def close(self) -> None:
        """Close the connections; most clients have none of their own."""
        return

    def _add_key(self, role: str = "submitter") -> str:
        person = "-".join(re.findall(r"[a-z0-9]+", f"{self.tenant} {self.kind}"))
        return self.world.mesh.add_api_key(self.tenant, person, role)


# Models


class ModelClient(ChaosClient):
    """An agent that asks a model by a vendor's SDK. is_keyed: it names its calls; else the SDK's own retries tell which
    request is which."""

    tenant = AGENTS

    def __init__(self, world: ChaosWorld, draw: random.Random, *, stream: bool, is_keyed: bool) -> None:
        super().__init__(world, draw)
        self._stream, self._is_keyed = stream, is_keyed
        self.kind = f"{self.kind}{', streamed' if stream else ''}"
        self._key = self._add_key()

    async def ask(self, request: ClientRequest) -> None:
        headers = {"X-Bulkhead-Run": request.name}
        if self._is_keyed:
            headers["Idempotency-Key"] = request.key
        question = f"What is {request.name.rpartition('-')[2]} * 23? ({request.name})"
        text, finish = await self._ask_model(question, headers)
        if not finish:
            raise WrongAnswer(f"an answer without a finish reason: {text!r}")
        if not text:
            raise WrongAnswer("an answer without a text")

    @abstractmethod
    async def _ask_model(self, question: str, headers: Mapping[str, str]) -> tuple[str, str]:
        """Text and finish reason."""

    @property
    def _options(self) -> dict[str, Any]:
        return {"api_key": self._key, "max_retries": 0 if self._is_keyed else 2, "timeout": self.world.wait_s + 30}


class ChatClient(ModelClient):
    """OpenAI's chat completions."""

    kind = "chat"

    def __init__(self, world: ChaosWorld, draw: random.Random, **options: bool) -> None:
        super().__init__(world, draw, **options)
        self._openai = openai.AsyncOpenAI(base_url=f"{world.mesh.doors_url}/openai/v1", **self._options)

    async def close(self) -> None:
        await self._openai.close()

    async def _ask_model(self, question: str, headers: Mapping[str, str]) -> tuple[str, str]:
        messages: list[Any] = [{"role": "user", "content": question}]
        create = self._openai.chat.completions.create
        if not self._stream:
            choice = (await create(model=MODEL, messages=messages, extra_headers=headers)).choices[0]
            return choice.message.content or "", choice.finish_reason
        text = finish = ""
        async for chunk in await create(model=MODEL, messages=messages, stream=True, extra_headers=headers):
            for piece in chunk.choices:
                text, finish = text + (piece.delta.content or ""), piece.finish_reason or finish
        return text, finish


class ResponsesClient(ChatClient):
    """OpenAI's responses."""

    kind = "responses"

    async def _ask_model(self, question: str, headers: Mapping[str, str]) -> tuple[str, str]:
        create = self._openai.responses.create
        if not self._stream:
            response = await create(model=MODEL, input=question, extra_headers=headers)
            return response.output_text, response.status or ""
        text = finish = ""
        async for event in await create(model=MODEL, input=question, stream=True, extra_headers=headers):
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type in ("response.completed", "response.incomplete", "response.failed"):
                finish = event.type
        return text, finish


class MessagesClient(ModelClient):
    """Anthropic's messages."""

    kind = "messages"

    def __init__(self, world: ChaosWorld, draw: random.Random, **options: bool) -> None:
        super().__init__(world, draw, **options)
        self._anthropic = anthropic.AsyncAnthropic(base_url=f"{world.mesh.doors_url}/anthropic", **self._options)

    async def close(self) -> None:
        await self._anthropic.close()

    async def _ask_model(self, question: str, headers: Mapping[str, str]) -> tuple[str, str]:
        asked: dict[str, Any] = {"model": MODEL, "max_tokens": 512, "extra_headers": headers}
        asked["messages"] = [{"role": "user", "content": question}]
        if not self._stream:
            message = await self._anthropic.messages.create(**asked)
        else:
            async with self._anthropic.messages.stream(**asked) as stream:
                message = await stream.get_final_message()
        return "".join(getattr(block, "text", "") for block in message.content), message.stop_reason or ""


# Tools by MCP


class McpClient(ChaosClient):
    """An agent that writes by a tool of an outside MCP server. is_keyed: it names its calls, and the tool honours the
    key of the mesh; reconnects: it comes again with a new session, else with the one that it had."""

    tenant = TOOLING

    def __init__(self, world: ChaosWorld, draw: random.Random, *, is_keyed: bool, reconnects: bool) -> None:
        self.kind = f"mcp, {'keyed' if is_keyed else 'unkeyed'}{', reconnecting' if reconnects else ''}"
        super().__init__(world, draw)
        self._is_keyed, self._reconnects = is_keyed, reconnects
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._add_key()}", "Accept": "application/json, text/event-stream"},
            timeout=world.wait_s + 30,
        )
        self._session: dict[str, str] = {}
        self._last_id = 0

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, request: ClientRequest) -> None:
        tool = self.draw.choice([name for name in MCP_TOOLS if name.endswith("_once") == self._is_keyed])
        text = request.key
        await self._write(request, tool, text, {"text": text, "wait_s": round(self.draw.uniform(0, 0.6), 1)})

    async def _write(self, request: ClientRequest, tool: str, text: str, arguments: Mapping[str, Any]) -> None:
        # The same write is the same call: what was drawn first stays.
        tool, arguments = request.calls.setdefault(text, (tool, dict(arguments)))
        if self._reconnects or not self._session:
            await self._open_session(request)
        if not self._reconnects and request.attempts:
            message_id = self._last_id
        else:
            message_id = self._last_id = self._last_id + 1
        params: dict[str, Any] = {"name": tool, "arguments": arguments}
        if self._is_keyed:
            params["_meta"] = {META + "idempotency-key": text}
        request.writes.setdefault(text, "open")
        result = await self._post(request, message_id, "tools/call", params)
        words = "".join(part.get("text", "") for part in result.get("content", ()))
        meta = result.get("_meta", {})
        request.task = meta.get(META + "task", request.task)
        if not result.get("isError"):
            request.writes[text] = "acknowledged"
            return
        code = meta.get(META + "code") or words.partition(":")[0]
        is_lost = code in UNCERTAIN or meta.get(META + "outcome") == "uncertain"
        if is_lost and not self._is_keyed:
            request.writes[text] = "uncertain"
        pause = AGAIN.search(words)
        raise NotServed(
            "uncertain" if meta.get(META + "outcome") == "uncertain" else code,
            words,
            float(pause[1]) if pause else 0.0,
            is_final=is_lost and (not self._is_keyed or code != "outcome_unknown"),
        )

    async def _open_session(self, request: ClientRequest) -> None:
        about = {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": {"name": "chaos", "version": "1"}}
        self._session = {}
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": about}
        answer = await self._http.post(f"{self.world.mesh.doors_url}/mcp", json=body)
        _raise_for_status(answer)
        self._session = {"Mcp-Session-Id": answer.headers["mcp-session-id"], "MCP-Protocol-Version": PROTOCOL}

    async def _post(self, request: ClientRequest, number: int, method: str, params: Mapping[str, Any]) -> Any:
        body = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        headers = self._session | {"X-Bulkhead-Run": request.name}
        answer = await self._http.post(f"{self.world.mesh.doors_url}/mcp", json=body, headers=headers)
        _raise_for_status(answer)
        lines = [answer.text]
        if "event-stream" in answer.headers.get("content-type", ""):
            lines = [line.removeprefix("data:") for line in answer.text.splitlines() if line.startswith("data:")]
        for line in lines:
            message = json.loads(line or "{}")
            if message.get("id") == number and "error" in message:
                error = message["error"]
                raise NotServed(str((error.get("data") or {}).get("code", error["code"])), error["message"])
            if message.get("id") == number:
                return message["result"]
        raise httpx.RemoteProtocolError("the stream ended without an answer")


def _raise_for_status(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    try:
        body = answer.json()
    except ValueError:
        body = {}
    error = body.get("error", body) if isinstance(body, dict) else {}
    error = error if isinstance(error, dict) else {"message": str(error)}
    code = str((error.get("data") or {}).get("code") or error.get("code") or f"HTTP {answer.status_code}")
    text = str(error.get("message") or error.get("detail") or answer.text[:500])
    raise NotServed(code, text, float(answer.headers.get("retry-after", 0)))


class ApprovedMcpClient(McpClient):
    """An agent whose every write a person approves: it calls again until that is done."""

    tenant = ASKING

    def __init__(self, world: ChaosWorld, draw: random.Random) -> None:
        super().__init__(world, draw, is_keyed=False, reconnects=False)
        self.kind = "mcp, approved"

    async def ask(self, request: ClientRequest) -> None:
        try:
            await self._write(request, "counter_increment", request.key, {"name": request.key, "amount": 1})
        except NotServed as refusal:
            if refusal.code == "approval_wanted":
                await decide_waiting(self.world, "granted", naming=request.key)
            raise


# Tasks


class TaskClient(ChaosClient):
    """A client that submits a task and waits for its end."""

    fronts = ("gateway",)

    async def ask(self, request: ClientRequest) -> None:
        task = await self._submit(request)
        request.task = task.id
        document = await self._follow(request, task)
        if document["status"] != "succeeded":
            failure = document["failure"] or {}
            words = f"task {task.id} {document['status']}: {failure.get('message')} ({failure.get('hint')})"
            raise NotServed(f"task {failure.get('code', '')}", words, is_final=True)
        if request.writes.get(request.key) == "open":
            request.writes[request.key] = "acknowledged"
        self._judge(request, document)

    @abstractmethod
    async def _submit(self, request: ClientRequest) -> Task: ...

    async def _follow(self, request: ClientRequest, task: Task) -> dict[str, Any]:
        return await task.wait_until_ended()

    def _judge(self, request: ClientRequest, document: Mapping[str, Any]) -> None:
        """Raise WrongAnswer where the answer is not the one of a quiet mesh."""


class PlannedClient(TaskClient):
    """An errand: a write, a search, a calculation, checks."""

    kind, tenant = "task", PLANNED

    async def _submit(self, request: ClientRequest) -> Task:
        errand = Errand(self.world)
        errand.name = request.key
        request.writes[errand.name] = "open"
        return await errand.submit()

    def _judge(self, request: ClientRequest, document: Mapping[str, Any]) -> None:
        if CITED.sub("[#]", document["answer"] or "") != ANSWER or document["result"]["standing"] != "ok":
            raise WrongAnswer(f"{request.task}: {document['answer']!r}, {document['result']}")


class LeasingClient(TaskClient):
    """A task that writes while it holds what every other one of these wants, too."""

    kind, tenant = "task, leasing", PLANNED

    async def _submit(self, request: ClientRequest) -> Task:
        request.writes[request.key] = "open"
        text = f"One after the other, use acquire_lease resource=crm:account:42, counter_increment name={request.key}."
        step = {"id": "book", "title": "Book it", "instruction": text, "acceptance": "Booked.", "inputs": []}
        plan = {"steps": [step | {"tools": ["acquire_lease", "counter_increment"]}]}
        return await self.world.submit(self.tenant, "Book it.", plan=plan, check=False, idempotency_key=request.key)


class ApprovedClient(TaskClient):
    """A task whose write a person grants or denies, sooner or later."""

    tenant = ASKING

    def __init__(self, world: ChaosWorld, draw: random.Random, decision: str) -> None:
        super().__init__(world, draw)
        self.kind, self._decision = f"task, {decision}", decision

    async def _submit(self, request: ClientRequest) -> Task:
        request.writes[request.key] = "open" if self._decision == "granted" else "forbidden"
        step: dict[str, Any] = {"id": "s1", "title": "Count", "tools": ["counter_increment"], "inputs": []}
        step |= {"instruction": f"Use counter_increment with name={request.key} amount=1.", "acceptance": "Counted."}
        return await self.world.submit(
            self.tenant, "Count it.", plan={"steps": [step]}, check=False, idempotency_key=request.key
        )

    async def _follow(self, request: ClientRequest, task: Task) -> dict[str, Any]:
        ending = asyncio.create_task(task.wait_until_ended())
        late_s = self.draw.uniform(0, LATEST_DECISION_S)
        try:
            while not ending.done():
                await asyncio.wait({ending}, timeout=late_s)
                if not ending.done():
                    await decide_waiting(self.world, self._decision, task=task.id)
                late_s = 1.0
            return await ending
        finally:
            ending.cancel()

    def _judge(self, request: ClientRequest, document: Mapping[str, Any]) -> None:
        if self._decision == "denied" and document["answered"] != "no":
            raise WrongAnswer(f"{request.task}: answered {document['answered']} though its one write was denied")


async def decide_waiting(world: ChaosWorld, decision: str, *, task: str = "", naming: str = "") -> None:
    """The person decides about what waits: of a task, or naming something. A person who is not heard tries again."""
    approver = world.client(ASKING, "approver")
    try:
        for row in (await approver.approvals("waiting", task)).approvals:
            if naming in row.model_dump_json():
                await (approver.grant if decision == "granted" else approver.deny)(row, "seen")
    except Refused as error:
        if error.status < 500 and error.code != NOT_WAITING:
            raise WrongAnswer(f"the person's decision is refused: {error.code}: {error}") from error
    except MeshError:
        pass


class PublishedClient(TaskClient):
    """A program on the bus that publishes its request, and reads the end over HTTP."""

    kind, tenant = "task, published", PUBLISHING

    async def _submit(self, request: ClientRequest) -> Task:
        key = self.world.mesh.directory / "identity" / "pub_demo.nkey"
        async with Mesh.on_bus(self.world.mesh.nats_url, key, "demo", PUBLISHING) as bus:
            task = await bus.publish(f"What is 17 * 23? ({request.key})", key=request.key)
        return self.world.client(PUBLISHING).task(task)

    async def _follow(self, request: ClientRequest, task: Task) -> dict[str, Any]:
        while True:
            try:
                return await task.wait_until_ended()
            except Refused as error:
                if error.status != NOT_FOUND:
                    raise
            await asyncio.sleep(UNREAD_S)  # The gateway has not read it yet.

    def _judge(self, request: ClientRequest, document: Mapping[str, Any]) -> None:
        if "391" not in (document["answer"] or ""):
            raise WrongAnswer(f"{request.task}: {document['answer']!r}")


class DelegatingClient(TaskClient):
    """A task whose step a worker outside carries out."""

    def __init__(self, world: ChaosWorld, draw: random.Random, tenant: str) -> None:
        super().__init__(world, draw)
        self.tenant, self.kind = tenant, f"task, outside worker{' on the bus' if tenant == PUBLISHING else ''}"

    async def _submit(self, request: ClientRequest) -> Task:
        step = {"id": "a", "title": "Refund", "instruction": f"Say it of {request.key}.", "acceptance": "it"}
        step["role"] = "refunds"
        return await self.world.submit(
            self.tenant, "What is refunded?", plan={"steps": [step]}, check=False, idempotency_key=request.key
        )

    def _judge(self, request: ClientRequest, document: Mapping[str, Any]) -> None:
        if not (document["answer"] or "").startswith("Refund: "):
            raise WrongAnswer(f"{request.task}: {document['answer']!r}")


class A2aClient(ChaosClient):
    """An A2A agent that knows the official SDK: after a lost stream it sends the same message again."""

    kind, tenant, fronts = "a2a", CALLING, ("doors", "gateway")

    def __init__(self, world: ChaosWorld, draw: random.Random) -> None:
        super().__init__(world, draw)
        headers = {"Authorization": f"Bearer {self._add_key()}"}
        self._http = httpx.AsyncClient(headers=headers, timeout=world.wait_s + 30)

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, request: ClientRequest) -> None:
        parts = [Part(text=f"What is 17 * 23? ({request.key})")]
        sent = SendMessageRequest(message=Message(message_id=request.key, role=Role.ROLE_USER, parts=parts))
        state = 0
        try:
            client = await create_client(self.world.mesh.doors_url, ClientConfig(httpx_client=self._http))
            async for event in client.send_message(sent):
                if event.HasField("task"):
                    request.task, state = event.task.id, event.task.status.state
                elif event.HasField("status_update"):
                    state = event.status_update.status.state
        except A2AClientError as error:
            if isinstance(error.__cause__, httpx.TransportError) or "onnection" in str(error):
                raise httpx.ReadError(str(error)) from error
            raise NotServed(type(error).__name__, str(error)) from error
        if state == TaskState.TASK_STATE_COMPLETED:
            return
        if state in (TaskState.TASK_STATE_FAILED, TaskState.TASK_STATE_REJECTED, TaskState.TASK_STATE_CANCELED):
            raise NotServed(f"task {TaskState.Name(state)}", f"task {request.task}", is_final=True)
        raise httpx.ReadError(f"the stream ended while the task stood at {TaskState.Name(state)}")


def all_clients(world: ChaosWorld, draw: random.Random) -> list[ChaosClient]:
    """One of each kind. draw: of each, in order, its own draws."""

    def fork() -> random.Random:
        return random.Random(draw.random())

    return [
        *(
            kind(world, fork(), stream=stream, is_keyed=stream == is_odd)
            for is_odd, kind in ((False, ChatClient), (True, ResponsesClient), (False, MessagesClient))
            for stream in (False, True)
        ),
        *(
            McpClient(world, fork(), is_keyed=is_keyed, reconnects=reconnects)
            for is_keyed in (True, False)
            for reconnects in (False, True)
        ),
        ApprovedMcpClient(world, fork()),
        PlannedClient(world, fork()),
        LeasingClient(world, fork()),
        ApprovedClient(world, fork(), "granted"),
        ApprovedClient(world, fork(), "denied"),
        PublishedClient(world, fork()),
        DelegatingClient(world, fork(), WORKING),
        DelegatingClient(world, fork(), PUBLISHING),
        A2aClient(world, fork()),
    ]
