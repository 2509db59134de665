"""Attribution in a process of its own: a long or hostile text holds up no other call's tokens.

In: calls, and the texts of which they were made, as those that stood in a model's context. Out: for each call its
unsigned Attribution. The process is started with the first call that needs it and without this service's keys, does one
request at a time, and is killed when a request takes longer than REQUEST_LIMIT_S. What is not attributed in time, or
lies behind MAX_CHARS, has no known origin: each value counts as the least trusted source.
"""

import asyncio
import json
import os
import resource
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import astuple
from typing import Any, BinaryIO

from bulkhead.flow import bounded
from bulkhead.grants.attribution import OBSERVER, arguments_sha256
from bulkhead.policy.attribution import (
    TRUST,
    UNKNOWN_SOURCE,
    SourceText,
    attribute_values,
    least_trusted_source,
    shown_sources,
)
from bulkhead.policy.planned_values import PlannedRules
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds
from bulkhead_contracts.grant import StepGrant
from bulkhead_contracts.model import ToolCall
from bulkhead_contracts.provenance import Attribution

log = Log("attribution")
INLINE_CHARS = 1_024
"""So short a request is done at once, within some milliseconds whatever it says."""
MAX_CHARS = 1024 * 1024
"""Of all texts of one request; those of the most trusted come first."""
REQUEST_LIMIT_S = 5.0
"""Of one request; 128 KiB of prose take 0.2 s, of the worst text 2 to 4 s."""
TURN_WAIT_S = 10.0
"""For the turn of a request, shared fairly by tenant."""
START_LIMIT_S = 20.0
MEMORY_BYTES = 1024 * 1024 * 1024
FRAME_HEADER = struct.Struct(">I")
ToolAndArguments = tuple[str, str]
"""The tool's name, and its arguments as JSON."""


def attribute_call(
    call: ToolAndArguments, sources: Sequence[SourceText], step: StepGrant | None = None, *, is_complete: bool = True
) -> Attribution | None:
    """The unsigned attribution of a call; None where its arguments are no JSON object of canonical form. step: whose
    plan may state values. is_complete: False where texts are lacking."""
    tool, arguments_json = call
    sha256 = arguments_sha256(arguments_json)
    arguments = bounded.load_json(arguments_json or "{}") if sha256 is not None else None
    if sha256 is None or not isinstance(arguments, dict):
        return None
    rules = PlannedRules(tool, step.flows, step.calls) if step is not None else None
    values, complete = attribute_values(arguments, sources, rules, is_complete=is_complete)
    call_attribution = Attribution(
        tool=tool,
        arguments_sha256=sha256,
        values=values,
        complete=complete and is_complete,
        least=least_trusted_source(sources) if is_complete else "model",
        shown=shown_sources(sources, is_complete=is_complete),
        observed_by=OBSERVER,
    )
    while call_attribution.values and len(call_attribution.model_dump_json()) > bounds.MAX_ATTRIBUTION_BYTES:
        # What is left out comes from nowhere known.
        call_attribution = call_attribution.model_copy(
            update={"values": call_attribution.values[: len(call_attribution.values) // 2], "complete": False}
        )
    return call_attribution


def unattributed_call(call: ToolAndArguments) -> Attribution | None:
    """Attribution of a call whose values were not looked for: nothing of them is known, and the model is the least."""
    sha256 = arguments_sha256(call[1])
    if sha256 is None:
        return None
    return Attribution(
        tool=call[0],
        arguments_sha256=sha256,
        values=(),
        complete=False,
        least="model",
        shown=(UNKNOWN_SOURCE,),
        observed_by=OBSERVER,
    )


class Attributor:
    """See the module. own_process: False where all is done at once, in a mesh without processes.

    _due: turns are numbered by tenant, each tenant's next behind its last and none before the one that is served: the
    second request of one tenant is behind the first of every other.
    """

    def __init__(self, *, own_process: bool = True, limit_s: float = REQUEST_LIMIT_S) -> None:
        self._own_process, self._limit_s = own_process, limit_s
        self._turn = FairSemaphore(1)
        self._now, self._due = 0, dict[str, int]()
        self._process: Process | None = None

    async def stop(self) -> None:
        """End the process."""
        if (process := self._process) is not None:
            self._process = None
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def attribute_calls(
        self,
        tenant: str,
        calls: Sequence[ToolCall],
        sources: Iterable[SourceText],
        step: StepGrant | None = None,
        *,
        is_complete: bool = True,
    ) -> list[Attribution | None]:
        """One attribution for each call, as `attribute_call` says."""
        named_calls = [(call.name, call.arguments_json) for call in calls]
        texts, is_within_bounds = _bounded_texts(sources)
        is_complete = is_complete and is_within_bounds
        length = sum(len(source.text) for source in texts) + sum(len(json_text) for _, json_text in named_calls)
        if not self._own_process or length <= INLINE_CHARS:
            return [attribute_call(call, texts, step, is_complete=is_complete) for call in named_calls]
        due = self._due[tenant] = max(self._now, self._due.get(tenant, 0)) + 1
        if await self._turn.acquire_slot(tenant, TURN_WAIT_S, None, due):
            try:
                self._now = due
                self._due = {name: last for name, last in self._due.items() if last > due}
                return await self._ask_process(named_calls, texts, step, is_complete)
            except (TimeoutError, asyncio.IncompleteReadError, OSError, ValueError) as error:
                log.warning("attribution_given_up", tenant=tenant, chars=length, reason=type(error).__name__)
            finally:
                self._turn.release_slot(tenant)
        else:
            log.warning("attribution_given_up", tenant=tenant, chars=length, reason="busy")
        return [unattributed_call(call) for call in named_calls]

    async def _ask_process(
        self, calls: Sequence[ToolAndArguments], texts: Sequence[SourceText], step: StepGrant | None, is_complete: bool
    ) -> list[Attribution | None]:
        """The process's answer. Raises TimeoutError, OSError, ValueError, IncompleteReadError."""
        grant = step.model_dump(mode="json") if step is not None else None
        frame = _frame_of([calls, [astuple(source) for source in texts], grant, is_complete])
        try:
            process = self._process or await self._start_process()
            async with asyncio.timeout(self._limit_s):
                _, rows = await asyncio.gather(_send_frame(process, frame), _receive_answer(process))
        except BaseException:
            await self.stop()  # What it still says would be taken for the answer to the next.
            raise
        return [Attribution.model_validate(row) if row is not None else None for row in rows]

    async def _start_process(self) -> Process:
        program = (sys.executable, "-P", "-m", __name__)
        # An environment of its own: what reads hostile texts must not see this service's keys.
        env = {"PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = await asyncio.create_subprocess_exec(*program, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=env)
        async with asyncio.timeout(START_LIMIT_S):
            await _receive_answer(self._process)
        return self._process


def _bounded_texts(sources: Iterable[SourceText]) -> tuple[list[SourceText], bool]:
    """Texts that may be looked at, the most trusted first, and whether these are all."""
    texts, room = sorted(sources, key=lambda source: TRUST.index(source.source)), MAX_CHARS
    for index, source in enumerate(texts):
        if (room := room - len(source.text)) < 0:
            return texts[:index], False
    return texts, True


async def _send_frame(process: Process, frame: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(frame)
    await process.stdin.drain()


async def _receive_answer(process: Process) -> Any:
    assert process.stdout is not None
    size = FRAME_HEADER.unpack(await process.stdout.readexactly(FRAME_HEADER.size))[0]
    return json.loads(await process.stdout.readexactly(size))


def _frame_of(value: object) -> bytes:
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return FRAME_HEADER.pack(len(body)) + body


def main(requests: BinaryIO, answers: BinaryIO) -> None:
    """Say that it is ready, then answer requests until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    answers.write(_frame_of(True))
    answers.flush()
    while len(head := requests.read(FRAME_HEADER.size)) == FRAME_HEADER.size:
        body = requests.read(FRAME_HEADER.unpack(head)[0])
        calls, texts, grant, is_complete = json.loads(body.decode("utf-8", "surrogatepass"))
        sources = [SourceText(*row) for row in texts]
        step = StepGrant.model_validate(grant) if grant is not None else None
        attributions = [
            attribute_call((tool, arguments), sources, step, is_complete=is_complete) for tool, arguments in calls
        ]
        answers.write(
            _frame_of(
                [
                    call_attribution.model_dump(mode="json") if call_attribution is not None else None
                    for call_attribution in attributions
                ]
            )
        )
        answers.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
