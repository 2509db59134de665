"""The client without `await`: the same methods with the same arguments, for scripts, notebooks and plain programs.

    with SyncMesh("http://127.0.0.1:8080", api_key) as mesh:
        print(mesh.submit("What is refunded, and when?").result().answer)

Each call runs the method of Mesh or Task on an event loop in a thread of its own, which costs a tenth of a millisecond
and works where a loop runs already (a notebook). An interrupt cancels the call. Methods raise what theirs raise.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from bulkhead.client.loop_thread import LoopThread
from bulkhead.client.mesh import DEFAULT_URL, Mesh
from bulkhead.client.session import Session
from bulkhead.client.task import Task
from bulkhead.client.transport import TIMEOUT_S

P = ParamSpec("P")
T = TypeVar("T")
Core = TypeVar("Core")


class _SyncForm(Generic[Core]):
    """An object of the client, and the loop on which its methods run."""

    def __init__(self, core: Core, loop: LoopThread) -> None:
        self._core, self._loop = core, loop

    def __repr__(self) -> str:
        return f"Sync{self._core!r}"


def _block(
    method: Callable[Concatenate[Core, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[_SyncForm[Core], P], T]:
    """The method, which returns when it is done."""

    @wraps(method)
    def call_method(self: _SyncForm[Core], /, *args: P.args, **options: P.kwargs) -> T:
        return self._loop.run(method(self._core, *args, **options))

    return call_method


def _iterate(
    method: Callable[Concatenate[Core, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[_SyncForm[Core], P], Iterator[T]]:
    """The method, as a generator."""

    @wraps(method)
    def iterate_values(self: _SyncForm[Core], /, *args: P.args, **options: P.kwargs) -> Iterator[T]:
        values = method(self._core, *args, **options)
        try:
            while True:
                try:
                    yield self._loop.run(_next_value(values))
                except StopAsyncIteration:
                    return
        finally:
            self._loop.run(values.aclose())

    return iterate_values


async def _next_value(values: AsyncGenerator[T, None]) -> T:
    return await anext(values)


def _block_for_task(
    method: Callable[Concatenate[Core, P], Coroutine[Any, Any, Task]],
) -> "Callable[Concatenate[_SyncForm[Core], P], SyncTask]":
    """The method, whose task is one for plain programs."""

    @wraps(method)
    def call_method(self: _SyncForm[Core], /, *args: P.args, **options: P.kwargs) -> "SyncTask":
        return SyncTask(self._loop.run(method(self._core, *args, **options)), self._loop)

    return call_method


class SyncTask(_SyncForm[Task]):
    """Task without `await`. Made by SyncMesh."""

    @property
    def id(self) -> str:
        """The task's id."""
        return self._core.id

    show = _block(Task.show)
    result = _block(Task.result)
    wait_until_ended = _block(Task.wait_until_ended)
    events = _iterate(Task.events)
    why = _block(Task.why)
    timeline = _iterate(Task.timeline)
    call = _block(Task.call)
    spend = _block(Task.spend)
    citations = _block(Task.citations)
    cite = _block(Task.cite)
    cancel = _block(Task.cancel)
    plan = _block(Task.plan)
    decide_plan = _block(Task.decide_plan)
    top_up = _block(Task.top_up)
    rate = _block(Task.rate)
    export = _block(Task.export)
    set_push = _block(Task.set_push)
    push_configs = _block(Task.push_configs)
    push_config = _block(Task.push_config)
    delete_push = _block(Task.delete_push)


class SyncSession(_SyncForm[Session]):
    """Session without `await`. Made by SyncMesh."""

    @property
    def id(self) -> str:
        """The session's id; "" until it is opened."""
        return self._core.id

    open = _block(Session.open)
    say = _block_for_task(Session.say)
    ask = _block(Session.ask)

    def fork_at(self, task_id: str, *, idempotency_key: str = "") -> "SyncSession":
        """Session.fork_at."""
        core = self._loop.run(self._core.fork_at(task_id, idempotency_key=idempotency_key))
        return SyncSession(core, self._loop)

    show = _block(Session.show)
    pin = _block(Session.pin)
    unpin = _block(Session.unpin)
    delete = _block(Session.delete)


class SyncMesh(_SyncForm[Mesh]):
    """Mesh without `await`: `with SyncMesh(url, api_key) as mesh`, or call `close` at the end."""

    def __init__(self, url: str = DEFAULT_URL, api_key: str = "", *, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(Mesh(url, api_key, timeout_s=timeout_s), LoopThread("bulkhead-client").__enter__())
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, and end the thread. Again: nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self._loop.run(self._core.close())
        finally:
            self._loop.__exit__()

    def task(self, task_id: str) -> SyncTask:
        """A task by its id; nothing is asked yet. Raises Unfit."""
        return SyncTask(self._core.task(task_id), self._loop)

    @wraps(Mesh.session)
    def session(self, *args: Any, **options: Any) -> SyncSession:
        return SyncSession(self._core.session(*args, **options), self._loop)

    submit = _block_for_task(Mesh.submit)
    sessions = _block(Mesh.sessions)
    erase_sessions = _block(Mesh.erase_sessions)
    tasks = _block(Mesh.tasks)
    add_document = _block(Mesh.add_document)
    documents = _block(Mesh.documents)
    delete_document = _block(Mesh.delete_document)
    approvals = _block(Mesh.approvals)
    grant = _block(Mesh.grant)
    deny = _block(Mesh.deny)
    decide = _block(Mesh.decide)
    document_chunks = _block(Mesh.document_chunks)
    search_documents = _block(Mesh.search_documents)
    prompts = _block(Mesh.prompts)
    prompt = _block(Mesh.prompt)
    releases = _block(Mesh.releases)
    publish_prompt = _block(Mesh.publish_prompt)
    move_label = _block(Mesh.move_label)
    request_evaluation = _block(Mesh.request_evaluation)
    evaluations = _block(Mesh.evaluations)
    evaluation = _block(Mesh.evaluation)
    report_evaluation = _block(Mesh.report_evaluation)
    workflows = _block(Mesh.workflows)
    workflow = _block(Mesh.workflow)
    run_workflow = _block_for_task(Mesh.run_workflow)
    draft_workflow = _block(Mesh.draft_workflow)
    move_workflow = _block(Mesh.move_workflow)
    publish_event = _block(Mesh.publish_event)
    tools = _block(Mesh.tools)
    try_policy = _block(Mesh.try_policy)
    writes = _block(Mesh.writes)
    resolve_write = _block(Mesh.resolve_write)
    halts = _block(Mesh.halts)
    halt = _block(Mesh.halt)
    resume = _block(Mesh.resume)
    reset_breaker = _block(Mesh.reset_breaker)
    spend = _block(Mesh.spend)
    change_limit = _block(Mesh.change_limit)
    dismiss_letter = _block(Mesh.dismiss_letter)
    read = _block(Mesh.read)
    read_json = _block(Mesh.read_json)
    get = _block(Mesh.get)
