"""A write whose outcome was lost: people are told of it, and their first word becomes the outcome of the call."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import ValidationError

from bulkhead.bus.port import BusUnavailable
from bulkhead.runtime.context import Context
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts.approval import ApprovalGrant
from bulkhead_contracts.tool import ToolCallReplied, WriteResolution, WriteResolveRequested, write_id_of
from bulkhead_services.gateway.read_model.approvals import ApprovalIndex
from bulkhead_services.tool_executor.uncertain_writes import UncertainWrites
from tests.unit.bulkhead.runtime.consume.test_loop import mesh_messages
from tests.unit.bulkhead.runtime.doer.test_handler import Purse, Recording, call, grant, replies
from tests.unit.bulkhead.runtime.doer.test_repeated_requests import delivered_again

pytestmark = pytest.mark.virtual_time


class Doubting(Recording):
    """Its first calls may have been done; the others are."""

    def __init__(self, context: Context, fails: int = 0, doubts: int = 1, four_eyes: bool = False) -> None:
        super().__init__(writes=True)
        self._uncertain, self.fails = UncertainWrites(context), fails
        self.doubts, self.four_eyes = doubts, four_eyes
        self.side_handlers = {WriteResolveRequested: self._uncertain.on_write_resolve_requested}

    async def act(self, job, hands, turn):
        reply = await super().act(job, hands, turn)
        return reply.model_copy(update={"outcome": "uncertain"}) if self.done <= self.doubts else reply

    async def on_outcome_stored(self, message, reply):
        if self.fails:
            self.fails -= 1
            raise BusUnavailable("the broker went away")
        if reply.outcome == "uncertain":
            await self._uncertain.tell_people(message, reply, four_eyes=self.four_eyes)


@asynccontextmanager
async def doubting(**knobs: Any) -> AsyncIterator[tuple[MemoryMesh, list[Doubting]]]:
    made: list[Doubting] = []

    def build(context: Context) -> Doubting:
        made.append(Doubting(context, **knobs))
        return made[-1]

    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": build}) as mesh:
        await call(mesh, grant(mesh))
        await replies(mesh, 1)
        yield mesh, made


def word_of(person: str, happened: bool, result: str = "") -> WriteResolution:
    return WriteResolution(
        happened=happened, result=result, person=person, role="approver", reason="I looked", resolved_unix_ms=1
    )


def token_of(mesh: MemoryMesh, word: WriteResolution, by: str = "signer", call_id: str = "c1", **changes: Any) -> str:
    """The signed word, as the signer makes it for the gateway."""
    signer = mesh.context(by)
    fields: dict[str, Any] = {
        "kind": "resolution",
        "tenant": "demo",
        "task": "t1",
        "approval_id": write_id_of("t1", call_id),
        "arguments_sha256": word.signed_sha256,
        "decision": "granted" if word.happened else "denied",
        "person": word.person,
        "role": word.role,
        "via": "api_key",
        "decided_unix_ms": signer.clock(),
    }
    return signer.signer.sign_approval(ApprovalGrant(**(fields | changes)))


async def send(mesh: MemoryMesh, word: WriteResolution, token: str, call_id: str = "c1", index: str = "") -> None:
    body = WriteResolveRequested(call_id=call_id, resolution=word, token=token)
    await mesh.context("gateway").publisher.send(
        "tool_executor", body, tenant="demo", task="t1", cause=word.person, actor=word.person, index=index
    )


async def say(mesh: MemoryMesh, person: str, happened: bool, result: str = "", index: str = "") -> None:
    word = word_of(person, happened, result)
    await send(mesh, word, token_of(mesh, word), index=index)


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
        word = word_of("bob", False)
        await send(mesh, word, token_of(mesh, word, call_id="c2"), "c2", index="c2")
        await say(mesh, "bob", True)
        found = [ToolCallReplied.model_validate(one) for _, one in await replies(mesh, 3)]
        assert [(one.call_id, one.outcome) for one in found] == [
            ("c1", "uncertain"),
            ("c2", "succeeded"),
            ("c1", "succeeded"),
        ]
        assert len(await told(mesh, 2)) == 2


async def test_a_word_that_the_signer_did_not_sign_for_this_write_and_doubt_changes_nothing():
    async with doubting() as (mesh, _):
        word, other = word_of("bob", False), word_of("bob", False, "another")
        forged = [
            "",
            token_of(mesh, word, by="gateway"),
            token_of(mesh, word, kind="approval"),
            token_of(mesh, word, task="t2"),
            token_of(mesh, word, call_id="c2"),
            token_of(mesh, word, person="eve"),
            token_of(mesh, word, role="operator"),
            token_of(mesh, word, decision="granted"),
            token_of(mesh, word, decided_unix_ms=1),
            token_of(mesh, other),
        ]
        for number, token in enumerate(forged):
            await send(mesh, word, token, index=str(number))
        await say(mesh, "ann", True, "paper 7", index="last")
        _, resolved = await told(mesh, 2)
        assert resolved["resolution"]["person"] == "ann", "what was forged was read before"


async def test_who_asked_does_not_resolve_a_write_of_a_tool_that_wants_four_eyes():
    async with doubting(four_eyes=True) as (mesh, _):
        [doubt] = await told(mesh, 1)
        assert doubt["four_eyes"] and doubt["asked_for"]
        await say(mesh, doubt["asked_for"], True)
        await say(mesh, "eve", False)
        _, resolved = await told(mesh, 2)
        assert resolved["resolution"]["person"] == "eve"


async def test_a_write_that_is_in_doubt_again_waits_for_a_new_word():
    async with doubting(doubts=2) as (mesh, [doer]):
        word = word_of("bob", False)
        first_token = token_of(mesh, word)
        await send(mesh, word, first_token)
        await replies(mesh, 2)
        await asyncio.sleep(1)
        await call(mesh, grant(mesh), index=1)
        await replies(mesh, 3)
        await told(mesh, 3)
        index = ApprovalIndex(mesh.context("gateway").bus)
        [row] = await index.list_writes("demo")
        assert (doer.done, row.state) == (2, "uncertain")
        await send(mesh, word, first_token, index="again")
        await say(mesh, "eve", True)
        await told(mesh, 4)
        [row] = await index.list_writes("demo")
        assert row.ended is not None and row.ended.resolution.person == "eve", "an old word is not good twice"


def test_a_word_is_an_approvers_or_an_operators():
    for role in ("viewer", "submitter", ""):
        with pytest.raises(ValidationError):
            WriteResolution(happened=True, person="ann", role=role, reason="I looked", resolved_unix_ms=1)
