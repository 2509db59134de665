"""What planted bugs showed to be untested: grants at their edges, contents that are not what they were named by,
handlers that outlive the broker's patience."""

import asyncio

import pytest

from bulkhead.blobs import BlobCorrupt, BlobMissing, Blobs
from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.flow import InboxMessage
from bulkhead.grants import GrantRefused, Signer, Verifier, new_signing_seed, public_of
from bulkhead.runtime.decider.fold import TaskFold, fold_message
from bulkhead.runtime.errors import Unreadable
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import bounds, envelope, subjects
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.result import ContentRef
from tests.samples import sample
from tests.simulation.mesh.loop import LoopClock, SimulationLoop
from tests.unit.bulkhead.runtime.consume import test_loop as shells
from tests.unit.bulkhead.runtime.doer import test_handler as doers

EXPIRES_UNIX_MS = 1_000_000
SEEDS = {"signer": new_signing_seed(), "planner": new_signing_seed()}
VERIFIER = Verifier({name: public_of(seed) for name, seed in SEEDS.items()})


def token(task_expires: int = EXPIRES_UNIX_MS, step_expires: int = EXPIRES_UNIX_MS) -> str:
    top = sample(TaskGrant, tools=("add",), expires_unix_ms=task_expires)
    narrow = StepGrant(
        tenant="demo", task="t1", step_id="s", attempt=1, plan_version=1, tools=("add",), expires_unix_ms=step_expires
    )
    return Signer("planner", SEEDS["planner"]).sign_grant(
        narrow, parent=Signer("signer", SEEDS["signer"]).sign_grant(top)
    )


def refusal(grant: str, *, tenant: str = "demo", task: str = "t1", now: int = 0) -> str:
    try:
        VERIFIER.verify_authority(grant, tenant=tenant, task=task, now_unix_ms=now)
    except GrantRefused as error:
        return error.code
    return ""


@pytest.mark.parametrize(
    ("tenant", "task", "code"), [("demo", "t1", ""), ("acme", "t1", "foreign"), ("demo", "t2", "foreign")]
)
def test_a_grant_is_good_for_its_tenant_and_its_task(tenant, task, code):
    assert refusal(token(), tenant=tenant, task=task) == code


def test_a_grant_ends_when_it_says():
    assert refusal(token(), now=EXPIRES_UNIX_MS - 1) == ""
    assert refusal(token(), now=EXPIRES_UNIX_MS) == "expired"


@pytest.mark.parametrize("expires", [{"task_expires": 500}, {"step_expires": 500}])
def test_a_step_grant_ends_with_the_first_of_itself_and_its_task(expires):
    assert refusal(token(**expires), now=600) == "expired"


async def test_a_content_is_read_only_when_it_has_its_digest():
    broker = MemoryBroker.for_mesh()
    ref = await Blobs(MemoryBus(broker, "rag"), "rag").put("demo", "the fee is 40")
    # Of the same size: another author of this text than its digest says.
    await MemoryBus(broker, "rag").publish(subjects.blob_subject("rag", "acme", ref.sha256), b"the fee is 41", {}, "x")
    reader = Blobs(MemoryBus(broker, "worker"), "worker")
    assert await reader.get_text("demo", ref) == "the fee is 40"
    with pytest.raises(BlobCorrupt):
        await reader.get_text("acme", ref)


async def test_a_content_that_was_erased_is_stored_again_after_a_while(monkeypatch):
    broker, text = MemoryBroker.for_mesh(), "x" * 1_000
    writer, reader = (Blobs(MemoryBus(broker, name), name) for name in ("gateway", "worker"))
    ref = await writer.put("demo", text)
    broker._streams[subjects.BLOBS_STREAM].delete(1)
    broker._streams[subjects.BLOBS_STREAM]._known.clear()  # The broker remembers ids of contents for a moment.
    await writer.put("demo", text)
    with pytest.raises(BlobMissing):
        await reader.get("demo", ref)
    monkeypatch.setattr("bulkhead.blobs.BELIEVED_S", 0.0)
    await writer.put("demo", text)
    assert await reader.get_text("demo", ref) == text


async def put_by(author: str, text: str, **how) -> tuple[ContentRef, Blobs, int]:
    """A content of this author, a reader, and how many blobs there are then."""
    broker = MemoryBroker.for_mesh()
    ref = await Blobs(MemoryBus(broker, author), author).put("demo", text, **how)
    stored = broker._streams[subjects.BLOBS_STREAM].read("blob.>", 0, 10)
    return ref, Blobs(MemoryBus(broker, "worker"), "worker"), len(stored)


@pytest.mark.parametrize(
    ("author", "text", "how", "blobs"),
    [
        ("model_gateway", "The fee is 40.", {}, 0),
        ("checker", "x" * bounds.MAX_SUMMARY_CHARS, {}, 0),
        ("checker", "x" * (bounds.MAX_SUMMARY_CHARS + 1), {}, 1),
        ("checker", "of two\nlines", {}, 1),
        ("doors", "named by its digest alone", {"summary": ""}, 1),
        ("gateway", "My card is 4111", {"summary": "My card is ****"}, 1),
        ("tool_executor", "400 * 0.8 = 320", {}, 1),
        ("rag", "A passage.", {}, 1),
        ("model_gateway", "a verdict\n" * 40, {"is_for_asker": True}, 0),
        ("model_gateway", "x" * bounds.MAX_CARRIED_CHARS, {"is_for_asker": True}, 0),
        ("model_gateway", "x" * (bounds.MAX_CARRIED_CHARS + 1), {"is_for_asker": True}, 1),
        ("model_gateway", "of two\nlines", {"is_for_asker": True}, 0),
    ],
)
async def test_a_text_that_stands_in_its_reference_is_no_blob(author, text, how, blobs):
    ref, reader, stored = await put_by(author, text, **how)
    ref = ContentRef.model_validate_json(ref.model_dump_json())
    assert stored == blobs and (ref.carried_text is None) == bool(blobs)
    assert await reader.get_text("demo", ref) == text
    assert not ref.text or not blobs, "nothing travels twice"


async def test_a_reference_carries_no_text_but_that_of_its_digest():
    ref, reader, _ = await put_by("model_gateway", "The fee is 40.")
    for name in ("summary", "text"):
        with pytest.raises(BlobMissing):
            await reader.get_text("demo", ref.model_copy(update={name: "The fee is 41."}))


@pytest.mark.parametrize("author", ["rag", "tool_executor"])
async def test_evidence_is_what_its_author_stored_whatever_a_reference_says(author):
    """The worker says what rag or a tool has said."""
    ref, reader, _ = await put_by("worker", "The fee is 40.")
    with pytest.raises(BlobMissing):
        await reader.get_text("demo", ref.model_copy(update={"author": author}))


def test_a_task_may_have_as_many_messages_as_its_limit_says():
    fold, logics = TaskFold(state=None), {1: shells.Counting()}

    def hears(body, name: str):
        head = envelope.Envelope(id=name, type=body.ce_type(), source="planner", time_unix_ms=1)
        return fold_message(fold, InboxMessage(head, body, "demo", "t1", 1), logics)

    hears(shells.assigned(), "open")
    fold.seen.update(f"planner/{n}" for n in range(bounds.MAX_MESSAGES_PER_TASK - 2))
    assert hears(shells.cancel("the last one"), "last")
    with pytest.raises(Unreadable, match="over"):
        hears(shells.cancel("one too many"), "more")


class Slow(doers.Recording):
    """Takes many times the broker's patience."""

    async def act(self, job, hands, turn):
        await asyncio.sleep(30)
        return await super().act(job, hands, turn)


def test_a_handler_that_takes_its_time_keeps_its_message():
    """In virtual time, beside an idle replica that would be served instead."""
    loop = SimulationLoop()
    first, second = Slow(), Slow()
    replicas = iter((first, second))

    async def play() -> list:
        builds = {"budget": lambda c: doers.Purse(), "tool_executor": lambda c: next(replicas)}
        async with MemoryMesh(builds, clock=LoopClock(loop, 1_700_000_000_000), ack_wait_ms=3_000) as mesh:
            await mesh.start("tool_executor", "1")
            await doers.call(mesh, doers.grant(mesh))
            await asyncio.sleep(60)
            found = await doers.replies(mesh, 1)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*rest, return_exceptions=True)
        return found

    try:
        found = loop.run_until_complete(play())
    finally:
        loop.close()
    assert len(found) == 1 and first.done + second.done == 1
