"""Operations of one moment go to Redis together: one call of ledger.lua, one write, one answer.

In: operations, each under the epoch that it was made for. Out: each one's answer. Two calls are under way at a time;
what comes meanwhile makes up the next one. So an operation does not wait for the way there and back of the one before
it, and under load the script's start, the fence, the balances that calls share and that way are paid once for many.
Between operations that are under way at the same moment there is no order, as between those of two replicas.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from bulkhead_services.budget.ledger.store import Fenced, RedisFailure

AT_ONCE = 2
MOST_IN_A_CALL = 64
"""Redis does nothing else meanwhile; so many take it a few milliseconds."""
OperationWords = tuple[object, ...]
"""The name of an operation and what it is done with."""
SendOperations = Callable[[str, Sequence[OperationWords]], Awaitable[list[Any]]]
"""Does operations in order under an epoch; one answer for each. Raises Fenced, RedisFailure: then none is known."""


class _QueuedOperation(NamedTuple):
    epoch: str
    words: OperationWords
    done: "asyncio.Future[Any]"


class OperationBatcher:
    """Queue of one process."""

    def __init__(self, send: SendOperations) -> None:
        self._send = send
        self._waiting: deque[_QueuedOperation] = deque()
        self._under_way: set[asyncio.Task[None]] = set()

    async def run_operation(self, epoch: str, *words: object) -> Any:
        """One operation's answer. Raises Fenced, RedisFailure: whether it was done is unknown."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_QueuedOperation(epoch, words, done))
        if len(self._under_way) < AT_ONCE:
            self._under_way.add(asyncio.create_task(self._send_batches()))
        return await done

    async def _send_batches(self) -> None:
        try:
            while self._waiting:
                epoch, batch = self._waiting[0].epoch, list[_QueuedOperation]()
                while self._waiting and self._waiting[0].epoch == epoch and len(batch) < MOST_IN_A_CALL:
                    operation = self._waiting.popleft()
                    if not operation.done.done():  # Who asked may have gone.
                        batch.append(operation)
                if batch:
                    await self._send_batch(epoch, batch)
        finally:
            # At once: who asks next must find room, or nobody would take what it asks.
            self._under_way.discard(asyncio.current_task())
            for operation in self._waiting:
                operation.done.cancel()
            self._waiting.clear()

    async def _send_batch(self, epoch: str, batch: Sequence[_QueuedOperation]) -> None:
        try:
            answers = await self._send(epoch, [operation.words for operation in batch])
        except (Fenced, *RedisFailure) as error:
            for operation in batch:
                if not operation.done.done():
                    operation.done.set_exception(error)
            return
        except BaseException as error:
            for operation in batch:
                if isinstance(error, asyncio.CancelledError):
                    operation.done.cancel()
                elif not operation.done.done():
                    operation.done.set_exception(
                        error
                    )  # A bug, which who asks must see: a cancel would pass for an end.
            raise
        for operation, answer in zip(batch, answers, strict=True):
            if not operation.done.done():
                operation.done.set_result(answer)
