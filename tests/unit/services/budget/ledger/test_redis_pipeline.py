"""Operations share calls to Redis: two under way at a time, each operation done once, and none left behind."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError

from bulkhead_services.budget.ledger.redis.pipeline import AT_ONCE, MOST_IN_A_CALL, OperationBatcher, OperationWords


class Server:
    """Answers when the test lets it: each operation with its own words."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[OperationWords], asyncio.Future[str]]] = []
        self.most = 0

    async def send(self, epoch: str, operations: list[OperationWords]) -> list[OperationWords]:
        gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.calls.append((epoch, operations, gate))
        self.most = max(self.most, len(self.calls))
        if await gate == "broken":
            raise RedisConnectionError("reset by peer")
        return list(operations)

    async def let(self, at: int = 0, how: str = "done") -> list[OperationWords]:
        _, operations, gate = self.calls.pop(at)
        gate.set_result(how)
        await turn()
        return operations


async def turn() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def test_an_operation_does_not_wait_for_the_one_before_it_and_what_comes_meanwhile_goes_together() -> None:
    server = Server()
    calls = OperationBatcher(server.send)
    asked = []
    for name in "abcd":
        asked.append(asyncio.create_task(calls.run_operation("e", name)))
        await turn()
    assert [operations for _, operations, _ in server.calls] == [[("a",)], [("b",)]]
    await server.let(1)
    assert asked[1].result() == ("b",) and [one[1] for one in server.calls] == [[("a",)], [("c",), ("d",)]]
    await server.let()
    await server.let()
    assert [await one for one in asked] == [("a",), ("b",), ("c",), ("d",)] and server.most == AT_ONCE


async def test_a_call_is_of_one_ledger_and_bounded() -> None:
    server = Server()
    calls = OperationBatcher(server.send)
    epochs = ["e1"] * (MOST_IN_A_CALL + 1) + ["e2"] * 2
    asked = [asyncio.create_task(calls.run_operation(epoch, n)) for n, epoch in enumerate(epochs)]
    await turn()
    assert [(epoch, len(operations)) for epoch, operations, _ in server.calls] == [("e1", MOST_IN_A_CALL), ("e1", 1)]
    await server.let()
    assert (server.calls[-1][0], len(server.calls[-1][1])) == ("e2", 2)
    while server.calls:
        await server.let()
    assert [(await one)[0] for one in asked] == list(range(MOST_IN_A_CALL + 3))


MOVES = st.lists(
    st.one_of(
        st.just(("ask", 0)),
        st.tuples(st.sampled_from(["done", "broken"]), st.integers(0, AT_ONCE - 1)),
        st.tuples(st.just("gone"), st.integers(0, 9)),
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=100)
@given(moves=MOVES)
def test_each_operation_is_sent_once_and_answered_or_refused(moves: list[tuple[str, int]]) -> None:
    asyncio.run(_each(moves))


async def _each(moves: list[tuple[str, int]]) -> None:
    server, sent = Server(), []
    calls = OperationBatcher(server.send)
    asked: list[asyncio.Task[OperationWords]] = []
    for what, number in moves:
        if what == "ask":
            asked.append(asyncio.create_task(calls.run_operation("e", len(asked))))
            await turn()
        elif what == "gone" and number < len(asked):
            asked[number].cancel()
            await turn()
        elif number < len(server.calls):
            sent += await server.let(number, what)
    while server.calls:
        sent += await server.let()
    await turn()
    assert all(one.done() for one in asked) and len(sent) == len(set(sent)) and server.most <= AT_ONCE
    for number, one in enumerate(asked):
        if one.cancelled() or isinstance(one.exception(), RedisConnectionError):
            continue
        assert one.result() == (number,) and (number,) in sent


async def test_who_breaks_off_leaves_nobody_waiting_for_ever() -> None:
    server = Server()
    calls = OperationBatcher(server.send)
    asked = [asyncio.create_task(calls.run_operation("e", n)) for n in range(3)]
    await turn()
    for task in tuple(calls._under_way):
        task.cancel()
    await turn()
    assert all(one.cancelled() for one in asked)
    server.calls.clear()
    again = asyncio.create_task(calls.run_operation("e", "again"))
    await turn()
    await server.let()
    assert await again == ("again",)
    with pytest.raises(asyncio.CancelledError):
        await asked[0]
