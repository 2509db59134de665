"""Delegated steps for a program of one's own: each is taken, worked on while beats go out, and answered once.

    steps = Steps("http://127.0.0.1:8090", os.environ["BULKHEAD_API_KEY"])

    @steps.on("refunds")
    async def refund(step: Step) -> str: ...

    asyncio.run(steps.run())

In: the doors' address, a key of the role `worker`. Out: calls of the handlers, answers. A program that is killed loses
its step to the next one after a while; a handler whose step is lost or stopped, or whose beats reach nobody for as
long, is cancelled.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import httpx
from pydantic import ValidationError

from bulkhead.client.errors import MeshError, Refused, Unreachable
from bulkhead_contracts import bounds
from bulkhead_contracts.delegation import AnswerAccepted, HandedStep, StepAnswer, StepBeaten
from bulkhead_contracts.types import Contract

log = logging.getLogger("bulkhead.steps")
POLL_S = 20.0
AGAIN_S = 1.0
"""After an error so long passes before the next try."""
SILENT_BEATS = 3
"""Whoever is not heard for so many beats has lost the step, and stops before another begins."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step in hand. handed: what it asks, with its `key`. openai, anthropic, mcp: addresses of the doors, which take
    that key as an API key: all that is called so runs under the step's grant and is counted to it."""

    handed: HandedStep
    openai: str
    anthropic: str
    mcp: str


T = TypeVar("T", bound=Contract)
Handler = Callable[[Step], Awaitable[str | StepAnswer]]


class StepPort(Protocol):
    """The way to the doors. Each method raises Refused, or Unreachable where trying again may help."""

    async def take_step(self, role: str, holder: str) -> HandedStep | None:
        """A step, or None after a while without one."""
        ...

    async def send_beat(self, step: HandedStep) -> StepBeaten:
        """The holder works on it."""
        ...

    async def send_answer(self, step: HandedStep, answer: StepAnswer) -> AnswerAccepted:
        """The answer; the same once more is known."""
        ...

    async def close(self) -> None:
        """Make no more calls."""
        ...


class Steps:
    """The roles that a program plays. at_once: steps of each role that it works on together."""

    def __init__(self, url: str, key: str, *, at_once: int = 1, port: StepPort | None = None) -> None:
        """url: of the doors. port: another way to them than HTTP, with which the key is not used."""
        self._url, self._at_once = url.rstrip("/"), at_once
        self._port = port if port is not None else HttpSteps(self._url, key)
        self._holder = f"{socket.gethostname()}/{os.getpid()}"[: bounds.MAX_NAME_CHARS]
        self._handlers: dict[str, Handler] = {}

    def on(self, role: str) -> Callable[[Handler], Handler]:
        """Decorator: the function carries out the steps of this role. It returns the result, or raises: then the
        attempt has failed, by the error's words."""

        def register_handler(handler: Handler) -> Handler:
            self._handlers[role] = handler
            return handler

        return register_handler

    async def run(self) -> None:
        """Until cancelled, or a key is refused (`Refused`)."""
        try:
            async with asyncio.TaskGroup() as group:
                for role, handler in self._handlers.items():
                    for _ in range(self._at_once):
                        group.create_task(self._serve_role(role, handler))
        finally:
            await self._port.close()

    async def _serve_role(self, role: str, handler: Handler) -> None:
        while True:
            try:
                handed = await self._port.take_step(role, self._holder)
            except Unreachable as error:
                log.warning("no steps can be taken: %s", error)
                await asyncio.sleep(AGAIN_S)
                continue
            if handed is not None:
                await self._carry_out(handed, handler)

    async def _carry_out(self, handed: HandedStep, handler: Handler) -> None:
        url = self._url
        step = Step(handed, f"{url}/openai/v1", f"{url}/anthropic", f"{url}/mcp")
        work = asyncio.ensure_future(handler(step))
        beating = asyncio.create_task(self._keep_beating(handed, work))
        try:
            await asyncio.wait({work})
        finally:
            beating.cancel()
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating
        if work.cancelled():
            return  # It is stopped, or somebody else has it: nobody waits for an answer.
        if (error := work.exception()) is not None:
            log.error("step %s of task %s failed", handed.step, handed.task, exc_info=error)
            answer = StepAnswer(failed=f"{type(error).__name__}: {error}"[: bounds.MAX_REASON_CHARS])
        else:
            result = work.result()
            answer = StepAnswer(text=result[: bounds.MAX_ANSWER_CHARS]) if isinstance(result, str) else result
        await self._deliver_answer(handed, answer)

    async def _keep_beating(self, handed: HandedStep, work: "asyncio.Future[str | StepAnswer]") -> None:
        loop = asyncio.get_running_loop()
        pause_s, heard = handed.beat_s, loop.time()
        while True:
            await asyncio.sleep(pause_s)
            sent, silent_at = loop.time(), heard + SILENT_BEATS * handed.beat_s
            try:
                async with asyncio.timeout_at(silent_at):
                    beaten = await self._port.send_beat(handed)
            except (MeshError, TimeoutError) as error:
                log.warning("no beat of step %s: %s", handed.step, str(error) or "doors do not answer")
                if loop.time() >= silent_at:
                    self._give_up(handed, work, "no beat was heard for so long that another may have it")
                    return
                pause_s = min(handed.beat_s, AGAIN_S, silent_at - loop.time())
                continue
            if not beaten.go_on:
                self._give_up(handed, work, beaten.reason)
                return
            pause_s, heard = handed.beat_s, sent

    def _give_up(self, handed: HandedStep, work: "asyncio.Future[str | StepAnswer]", why: str) -> None:
        log.warning("step %s of task %s is given up: %s", handed.step, handed.task, why)
        work.cancel()

    async def _deliver_answer(self, handed: HandedStep, said: StepAnswer) -> None:
        """Until it is stored or refused, or the step's time is up: the same answer counts once."""
        while True:
            try:
                await self._port.send_answer(handed, said)
                return
            except Refused as error:
                log.warning("the answer to step %s of task %s: %s", handed.step, handed.task, error)
                return
            except Unreachable as error:
                left_s = handed.deadline_unix_ms / 1000 - time.time()
                if left_s <= 0:
                    message = "the answer to step %s of task %s is given up: its deadline passed without doors: %s"
                    log.error(message, handed.step, handed.task, error)
                    return
                log.warning("the answer to step %s waits: %s", handed.step, error)
                await asyncio.sleep(min(AGAIN_S, left_s))


class HttpSteps:
    """By HTTP. key: of the role `worker`."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(POLL_S + 20, connect=5))
        self._key = key

    async def take_step(self, role: str, holder: str) -> HandedStep | None:
        """A step, or None after `POLL_S`."""
        params = {"role": role, "holder": holder, "wait_s": str(POLL_S)}
        answer = await self._call_doors("GET", "/v1/steps", self._key, params=params)
        return None if answer.status_code == httpx.codes.NO_CONTENT else _parse_reply(HandedStep, answer)

    async def send_beat(self, step: HandedStep) -> StepBeaten:
        """The holder works on it."""
        return _parse_reply(StepBeaten, await self._call_doors("POST", f"/v1/steps/{step.id}/heartbeat", step.key))

    async def send_answer(self, step: HandedStep, answer: StepAnswer) -> AnswerAccepted:
        """The answer."""
        body = answer.model_dump(mode="json")
        return _parse_reply(
            AnswerAccepted, await self._call_doors("POST", f"/v1/steps/{step.id}/answer", step.key, json=body)
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _call_doors(self, method: str, path: str, key: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"}
        try:
            answer = await self._http.request(method, path, headers=headers, **more)
        except httpx.HTTPError as error:
            raise Unreachable(f"no answer from {self._http.base_url}: {error or type(error).__name__}") from error
        if answer.is_success:
            return answer
        problem = _parse_problem(answer)
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error:
            raise Unreachable(str(problem["detail"]))
        raise Refused(answer.status_code, problem)


def _parse_problem(answer: httpx.Response) -> dict[str, object]:
    try:
        error = answer.json()["error"]
        return {"detail": error["message"], "code": error["code"]}
    except (ValueError, LookupError, TypeError):
        return {"detail": f"HTTP {answer.status_code} from {answer.url.host}", "hint": "is this the address of doors?"}


def _parse_reply(kind: type[T], answer: httpx.Response) -> T:
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as error:
        raise Unreachable(f"something else than doors answers at {answer.url.host}", "check the address") from error
