"""A write whose outcome was lost: people are told of it, and their first word becomes the outcome of the call."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import ValidationError

from bulkhead.bus.port import BusUnavailable
from bulkhead.runtime.context import Context
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts.tool import ToolCallReplied, WriteResolution, WriteResolveRequested, write_id_of
from bulkhead_services.tool_executor.uncertain_writes import UncertainWrites
from tests.unit.bulkhead.runtime.consume.test_loop import mesh_messages
from tests.unit.bulkhead.runtime.doer.test_handler import Purse, Recording, call, grant, replies
from tests.unit.bulkhead.runtime.doer.test_repeated_requests import delivered_again

pytestmark = pytest.mark.virtual_time


class Doubting(Recording):
    """Its first call may have been done; the others are."""

    def __init__(self, context: Context, fails: int = 0) -> None:
        super().__init__(writes=True)
        self._uncertain, self.fails = UncertainWrites(context), fails
        self.side_handlers = {WriteResolveRequested: self._uncertain.on_write_resolve_requested}

    async def act(self, job, hands, turn):
        reply = await super().act(job, hands, turn)
        return reply.model_copy(update={"outcome": "uncertain"}) if self.done == 1 else reply

    async def on_outcome_stored(self, message, reply):
        if self.fails:
            self.fails -= 1
            raise BusUnavailable("the broker went away")
        if reply.outcome == "uncertain":
            await self._uncertain.tell_people(message, reply)


@asynccontextmanager
async def doubting(fails: int = 0) -> AsyncIterator[tuple[MemoryMesh, list[Doubting]]]:
    made: list[Doubting] = []

    def build(context: Context) -> Doubting:
        made.append(Doubting(context, fails))
        return made[-1]

    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": build}) as mesh:
        await call(mesh, grant(mesh))
        await replies(mesh, 1)
        yield mesh, made


async def say(mesh: MemoryMesh, person: str, happened: bool, result: str = "") -> None:
    word = WriteResolution(
        happened=happened, result=result, person=person, role="approver", reason="I looked", resolved_unix_ms=1
    )
    body = WriteResolveRequested(call_id="c1", resolution=word)
    await mesh.context("gateway").publisher.send(
        "tool_executor", body, tenant="demo", task="t1", cause=person, actor=person
    )


async def told(mesh: MemoryMesh, count: int) -> list[dict]:
    found = await mesh_messages(mesh, "INBOX_GATEWAY", "mesh.tool_executor.gateway.>", count)
    return [json.loads(one.body) for one in found]


async def test_people_are_told_of_a_doubt_also_by_who_could_not_tell_it_at_first():
    async with doubting(fails=1) as (mesh, [doer]):
        [doubt] = await told(mesh, 1)
        assert doubt["write_id"] == write_id_of("t1", "c1") and doubt["key"] == "demo.t1.c1"
        assert doer.done == 1 and (await replies(mesh, 1))[0][1]["outcome"] == "uncertain"


async def test_the_first_of_two_words_is_the_outcome_and_both_are_told_of_it():
    async with doubting() as (mesh, _):
        await asyncio.gather(say(mesh, "bob", True, "paper 7"), say(mesh, "eve", False))
        _, first, second = await told(mesh, 3)
        assert first["resolution"] == second["resolution"]
        doubtful, resolved = await replies(mesh, 2)
        assert doubtful[1]["outcome"] == "uncertain" and resolved[1]["resolution"] == first["resolution"]
        assert resolved[1]["usage"]["tool_calls"] == 0 and "settled" not in resolved[1], "what was used is told once"


@pytest.mark.parametrize(("happened", "done"), [(True, 1), (False, 2)])
async def test_what_did_not_happen_is_made_by_another_request_of_the_key_and_by_no_old_one(happened, done):
    async with doubting() as (mesh, [doer]):
        [asked] = await mesh.messages("INBOX_TOOL_EXECUTOR", "mesh.worker.tool_executor.>")
        await say(mesh, "bob", happened)
        await replies(mesh, 2)
        await delivered_again(mesh, asked)
        await call(mesh, grant(mesh), index=1)
        *_, last = await replies(mesh, 3)
        assert (doer.done, last[1]["outcome"]) == (done, "succeeded")


async def test_a_word_on_a_write_that_is_in_no_doubt_changes_nothing():
    async with doubting() as (mesh, _):
        await call(mesh, grant(mesh), call_id="c2", index=1)
        await replies(mesh, 2)
        body = WriteResolveRequested(
            call_id="c2",
            resolution=WriteResolution(happened=False, person="bob", role="approver", reason="?", resolved_unix_ms=1),
        )
        await mesh.context("gateway").publisher.send("tool_executor", body, tenant="demo", task="t1", cause="x")
        await say(mesh, "bob", True)
        found = [ToolCallReplied.model_validate(one) for _, one in await replies(mesh, 3)]
        assert [(one.call_id, one.outcome) for one in found] == [
            ("c1", "uncertain"),
            ("c2", "succeeded"),
            ("c1", "succeeded"),
        ]
        assert len(await told(mesh, 2)) == 2


def test_a_word_is_an_approvers_or_an_operators():
    for role in ("viewer", "submitter", ""):
        with pytest.raises(ValidationError):
            WriteResolution(happened=True, person="ann", role=role, reason="I looked", resolved_unix_ms=1)
