"""A2A's operations over the gateway. In: A2A requests with the caller's own client of the gateway. Out: tasks and
updates, or an A2AError.

The task store is the mesh: no replica keeps anything that another one lacks.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import RequestHandler
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskArtifactUpdateEvent,
    TaskPushNotificationConfig,
    TaskState,
    TaskStatusUpdateEvent,
)
from a2a.utils.errors import (
    A2AError,
    InternalError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from bulkhead.client import Mesh
from bulkhead.client.errors import MeshError, Refused, Unfit, Unreachable
from bulkhead.client.task import ENDED
from bulkhead.client.task import Task as MeshTask
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead.telemetry.log import Log
from bulkhead_contracts.push_policy import PushPolicy
from bulkhead_services.doors.a2a import card, messages, push, tasks
from bulkhead_services.doors.a2a.tasks import Document
from bulkhead_services.doors.http.mesh_turns import begin_turn
from bulkhead_services.doors.port import Caller, DoorRefusal

log = Log("doors.a2a")
_T = TypeVar("_T")
PAGE, MAX_PAGE = 50, 100
CANCEL_WAIT_S = 5.0
CARD_WAIT_S = 3.0
PAUSES_S = (0.1, 0.3, 1.0, 3.0, 5.0)
AT_ONCE = 8
ASKING = "asking"
ASKED = ("task.paused", "approval.requested")
"""Events after which a person may have to decide; either may come first."""
_EVENTS = Task | TaskStatusUpdateEvent | TaskArtifactUpdateEvent


@dataclass(slots=True)
class A2aRequest:
    """One request. address: under which its client has come. form: the version of A2A in which it has come. refusal:
    what the gateway said where A2A has no error of its own for it; the HTTP answer gets its status."""

    mesh: Mesh
    caller: Caller
    address: str
    form: str = "1.0"
    refusal: DoorRefusal | None = None


class A2aHandler(RequestHandler):
    """The operations. sign: makes the card's last form. wait_s: so long `SendMessage` waits for a task that runs."""

    def __init__(self, quotas: TenantQuotas, sign: Callable[[AgentCard], AgentCard], wait_s: float) -> None:
        self._quotas, self._sign, self._wait_s = quotas, sign, wait_s
        self._waits: set[asyncio.Timeout] = set()

    def close(self) -> None:
        """End what waits and streams: clients subscribe again, at another replica."""
        for wait in self._waits:
            wait.reschedule(asyncio.get_running_loop().time())

    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> Task:
        """Begin a task, or decide about a call that waits for a person."""
        with _translate_errors(asking := _request_of(context)):
            document = await self._accept_message(asking, params)
            if not params.configuration.return_immediately:
                document = await self._wait_until_settled(asking.mesh, document, self._wait_s)
            return await tasks.read_task(asking.mesh, document, _history_length(params.configuration))

    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[_EVENTS]:
        """The same, followed to its end."""
        with _translate_errors(asking := _request_of(context)):
            document = await self._accept_message(asking, params)
            async with aclosing(
                self._follow_task(asking.mesh, document, _history_length(params.configuration))
            ) as events:
                async for event in events:
                    yield event

    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[_EVENTS]:
        """A task that runs or waits for a person, followed to its end or to the next decision that it asks for."""
        with _translate_errors(asking := _request_of(context)):
            document = await asking.mesh.task(params.id).show()
            if tasks.task_state(document) in tasks.TERMINAL:
                raise UnsupportedOperationError(f"task {params.id} has ended: nothing follows; get it instead")
            async with aclosing(self._follow_task(asking.mesh, document, 1, waits=True)) as events:
                async for event in events:
                    yield event

    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task:
        """A task as it stands."""
        with _translate_errors(asking := _request_of(context)):
            return await tasks.read_task(asking.mesh, await asking.mesh.task(params.id).show(), _history_length(params))

    async def on_list_tasks(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """The tenant's tasks, the newest first."""
        with _translate_errors(asking := _request_of(context)):
            size = params.page_size if params.HasField("page_size") else PAGE
            if not 1 <= size <= MAX_PAGE:
                raise InvalidParamsError(f"pageSize is {size}; send 1 to {MAX_PAGE}")
            page = await tasks.read_page(asking.mesh, params, size, asking.caller.claim.person)
            needs_document = params.include_artifacts or params.history_length > 0
            limit = asyncio.Semaphore(AT_ONCE)

            async def read_row(row: Document) -> Task:
                async with limit:
                    if needs_document:
                        row = await asking.mesh.task(row["task_id"]).show()
                    rendered = await tasks.read_task(asking.mesh, row, params.history_length)
                if not params.include_artifacts:
                    del rendered.artifacts[:]
                return rendered

            listed = await asyncio.gather(*(read_row(row) for row in page.rows))
            return ListTasksResponse(
                tasks=listed, next_page_token=page.following, page_size=size, total_size=page.total
            )

    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> Task:
        """Ask for a task's end, and wait a moment for it."""
        with _translate_errors(asking := _request_of(context)):
            task = asking.mesh.task(params.id)
            try:
                await task.cancel("cancelled over A2A")
            except Refused as error:
                if error.code == "already_ended":
                    raise TaskNotCancelableError(f"{error}: it cannot be cancelled any more") from error
                raise
            return await tasks.read_task(
                asking.mesh, await self._wait_until_settled(asking.mesh, await task.show(), CANCEL_WAIT_S), 1
            )

    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> AgentCard:
        """The card of the caller's tenant."""
        with _translate_errors(asking := _request_of(context)):
            self._quotas.reload_if_changed()
            of, tenant = self._quotas, asking.caller.claim.tenant
            return self._sign(
                card.extended_card(
                    asking.address,
                    of.tools_of(tenant),
                    of.delegated_roles_of(tenant),
                    of.max_task_limits(tenant),
                    of.push_policy_of(tenant).is_enabled,
                    await _published_workflows(asking.mesh),
                )
            )

    async def on_create_task_push_notification_config(
        self, params: TaskPushNotificationConfig, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """Have a task's states posted; the same again changes nothing."""
        with _translate_errors(asking := _request_of(context)):
            push.check_config(params, self._push_policy(asking))
            return await push.store_config(asking.mesh.task(params.task_id), params, asking.form)

    async def on_get_task_push_notification_config(
        self, params: GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> TaskPushNotificationConfig:
        """One of a task's configs."""
        with _translate_errors(asking := _request_of(context)):
            push.require_push(self._push_policy(asking))
            return await push.read_config(asking.mesh.task(params.task_id), params.id)

    async def on_list_task_push_notification_configs(
        self, params: ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> ListTaskPushNotificationConfigsResponse:
        """All of a task's configs, on one page: there are few."""
        with _translate_errors(asking := _request_of(context)):
            push.require_push(self._push_policy(asking))
            page = await asking.mesh.task(params.task_id).push_configs()
            return ListTaskPushNotificationConfigsResponse(
                configs=[push.config_from_row(row) for row in page["configs"]]
            )

    async def on_delete_task_push_notification_config(
        self, params: DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> None:
        """Post nothing more there."""
        with _translate_errors(asking := _request_of(context)):
            push.require_push(self._push_policy(asking))
            await push.delete_config(asking.mesh.task(params.task_id), params.id)

    def _push_policy(self, asking: A2aRequest) -> PushPolicy:
        self._quotas.reload_if_changed()
        return self._quotas.push_policy_of(asking.caller.claim.tenant)

    async def _accept_message(self, asking: A2aRequest, params: SendMessageRequest) -> Document:
        """The task of a message, which is stored when this returns, and where its states are to be posted."""
        wish, has_push = params.configuration, params.configuration.HasField("task_push_notification_config")
        if has_push:
            push.check_config(wish.task_push_notification_config, self._push_policy(asking))
        document = await self._begin_or_decide(asking, params)
        if has_push:
            await push.store_config(
                asking.mesh.task(document["task_id"]), wish.task_push_notification_config, asking.form
            )
        return document

    async def _begin_or_decide(self, asking: A2aRequest, params: SendMessageRequest) -> Document:
        message = params.message
        messages.check_message(message, params.configuration)
        if message.task_id:
            return await _submit_decision(asking.mesh, params)
        caller, objective = asking.caller, messages.read_objective(message)
        key, workflow = messages.idempotency_key(message, objective), messages.read_workflow(message)
        self._quotas.reload_if_changed()
        role = "" if workflow else messages.read_role(message, self._quotas.delegated_roles_of(caller.claim.tenant))
        limits = _limits_of(caller)
        spending: dict[str, Any] = {"feature": caller.feature, "workflow": caller.workflow}

        async def submit_task() -> MeshTask:
            if workflow:
                return await _run_workflow(asking, message, workflow, objective, key)
            return await asking.mesh.submit(
                objective,
                plan=messages.plan_for_role(objective, role) if role else None,
                idempotency_key=key,
                conversation=message.context_id,
                written_by="model",  # Whosever key the agent has that speaks.
                **limits,
                **spending,
            )

        task = await begin_turn(
            asking.mesh,
            message.context_id,
            objective,
            key,
            submit_task,
            limits=limits,
            options=spending,
            is_planned=bool(workflow or role),
        )
        return await task.show()

    async def _wait_until_settled(self, mesh: Mesh, document: Document, wait_s: float) -> Document:
        """The task when it has ended or waits for a person, or as it stands after a while."""
        task = mesh.task(document["task_id"])
        async with self._bounded_wait(wait_s), aclosing(task.events()) as events:
            async for event in events:
                if (
                    event.name in ASKED
                    and (await tasks.read_task(mesh, await task.show(), 0)).status.state in tasks.NO_MORE
                ):
                    break
        return await task.show()

    async def _follow_task(
        self, mesh: Mesh, document: Document, history: int, *, waits: bool = False
    ) -> AsyncGenerator[_EVENTS]:
        """waits: a task that waits for a person is followed beyond that."""
        first = await tasks.read_task(mesh, document, history)
        yield first
        if first.status.state in (tasks.TERMINAL if waits else tasks.NO_MORE):
            return
        task = mesh.task(document["task_id"])
        async with self._bounded_wait(None), aclosing(task.events()) as events:
            async for event in events:
                if event.name in ENDED:
                    break
                if event.name in ASKED:
                    current = await _ask_with_retry(lambda: _read_current(mesh, task))
                    if current.status.state == TaskState.TASK_STATE_INPUT_REQUIRED:
                        if current.status.message.parts == first.status.message.parts:
                            continue  # The first event asks for it.
                        yield TaskStatusUpdateEvent(
                            task_id=current.id, context_id=current.context_id, status=current.status
                        )
                        return
                if event.data.get("time_unix_ms", document["updated_unix_ms"]) < document["updated_unix_ms"]:
                    continue  # The first event tells it.
                if (update := tasks.status_update(document, event.name, event.data)) is not None:
                    yield update
        document = await _ask_with_retry(task.show)
        if tasks.task_state(document) in tasks.TERMINAL:
            ended = document
            for end in tasks.final_events(ended, await _ask_with_retry(lambda: tasks.read_citations(mesh, ended))):
                yield end

    @asynccontextmanager
    async def _bounded_wait(self, seconds: float | None) -> AsyncIterator[None]:
        """Ends quietly what is within after some seconds, and when this replica closes."""
        try:
            async with asyncio.timeout(seconds) as wait:
                self._waits.add(wait)
                yield
        except TimeoutError:
            if not wait.expired():
                raise
        finally:
            self._waits.discard(wait)


async def _ask_with_retry(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Ask beside a stream, which outlives a gateway: one that goes away, or is not ready yet, is asked again."""
    for pause_s in PAUSES_S:
        try:
            return await ask()
        except Unreachable:
            pass
        except Refused as error:
            if error.status < 500:
                raise
        await asyncio.sleep(pause_s)
    return await ask()


async def _read_current(mesh: Mesh, task: MeshTask) -> Task:
    return await tasks.read_task(mesh, await task.show(), 0)


async def _published_workflows(mesh: Mesh) -> list[Document]:
    """Rows of the tenant's published workflows; none while nobody can tell, for a card does not wait for them."""
    try:
        async with asyncio.timeout(CARD_WAIT_S):
            return [row for row in (await mesh.workflows())["workflows"] if row["state"] == "published"]
    except (MeshError, TimeoutError):
        return []


def _limits_of(caller: Caller) -> dict[str, Any]:
    """Limits in the headers of a request, as the client of the gateway takes them."""
    usd, deadline = caller.limit_usd_micros, caller.deadline_ms
    return {
        "limit_usd": None if usd is None else Decimal(usd) / 1_000_000,
        "limit_tokens": caller.limit_tokens,
        "deadline_s": None if deadline is None else deadline / 1_000,
    }


async def _run_workflow(asking: A2aRequest, message: Message, name: str, text: str, key: str) -> MeshTask:
    """The task of a message that asks for a published workflow; its text has the values of the parameters."""
    try:
        parameters = (await asking.mesh.workflow(name))["version"]["content"]["parameters"]
    except Refused as error:
        if error.status != 404:
            raise
        raise InvalidParamsError(f"metadata.{card.SKILL} is no skill of your extended card: {error}") from error
    required = [row["name"] for row in parameters if row.get("default") is None]
    return await asking.mesh.run_workflow(
        name,
        messages.read_parameters(text, required or [row["name"] for row in parameters]),
        conversation=message.context_id,
        written_by="model",
        idempotency_key=key,
        **_limits_of(asking.caller),
    )


async def _submit_decision(mesh: Mesh, params: SendMessageRequest) -> Document:
    """A task that exists, and the word about the call that it waits for."""
    message = params.message
    task = mesh.task(message.task_id)
    document = await task.show()
    if message.context_id and message.context_id != tasks.context_id(document):
        raise InvalidParamsError(f"contextId is not that of task {task.id}; leave it away, or send the task's own")
    if tasks.task_state(document) in tasks.TERMINAL:
        raise UnsupportedOperationError(f"task {task.id} has ended; send a message without taskId to begin another one")
    decision = messages.read_decision(message)
    if decision is None:
        problem = f"task {task.id} takes no further text while it runs"
        raise UnsupportedOperationError(
            f"{problem}; wait for its end, then send it without taskId, with the same contextId"
        )
    if not any(row["approval_id"] == decision.approval_id for row in await tasks.waiting_approvals(mesh, document)):
        raise InvalidParamsError(
            f"no call {decision.approval_id[:40]!r} of task {task.id} waits for a decision; get the task"
        )
    await mesh.decide(decision.approval_id, decision.arguments_sha256, decision.decision, decision.reason)
    return await task.show()


def _history_length(params: Any) -> int:
    return int(params.history_length) if params.HasField("history_length") else 1


def _request_of(context: ServerCallContext) -> A2aRequest:
    request = context.state[ASKING]
    assert isinstance(request, A2aRequest)
    return request


@contextmanager
def _translate_errors(asking: A2aRequest) -> Iterator[None]:
    """A failure of the gateway as A2A tells it. Raises A2AError."""
    try:
        yield
    except A2AError:
        raise
    except Unfit as error:
        raise InvalidParamsError(f"{error}; {error.hint}") from error
    except Refused as error:
        raise _error_of_refused(asking, error) from error
    except MeshError as error:
        problem, hint = "the gateway does not answer", "send the same message again in a moment"
        log.warning("gateway_unreachable", reason=str(error))
        asking.refusal = DoorRefusal(503, "unavailable", problem, hint, retry=True, retry_after_s=2)
        raise InternalError(f"{problem}; {hint}") from error
    except Exception as error:
        log.error("request_failed", reason=repr(error))
        raise InternalError("an error in the doors themselves; the operator finds it in their log") from error


def _error_of_refused(asking: A2aRequest, error: Refused) -> A2AError:
    message = f"{error}; {error.hint}" if error.hint else str(error)
    if error.status == 404:
        return TaskNotFoundError(message)
    if error.code == "push_off":
        return PushNotificationNotSupportedError(message)
    if error.status in (400, 409, 413, 422):
        return InvalidParamsError(message, data={"code": error.code})
    retry = error.status in (429, 503)
    after_s = error.retry_after_s or (2.0 if retry else None)
    asking.refusal = DoorRefusal(error.status, error.code, str(error), error.hint, retry=retry, retry_after_s=after_s)
    return UnsupportedOperationError(message) if error.status in (401, 403) else InternalError(message)
