"""A call of a remote agent: what it answers, how it fails, how it is stopped, and that it is never sent twice."""

import asyncio
from typing import Any

import pytest

from bulkhead.blobs import Blobs
from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.runtime.errors import HandBack
from bulkhead.tools.api import Done, Failed
from bulkhead_contracts import bounds
from bulkhead_contracts.control import Halt
from bulkhead_contracts.plan import Delegation
from bulkhead_services.tool_executor.a2a import remote
from tests.eventually import until
from tests.unit.services.tool_executor.a2a.conftest import Far, House

COURIER = Delegation(role="courier", to="agent", name="echo")
OF_A_STEP: dict[str, Any] = {"role": "courier", "delegated": (COURIER,)}


@pytest.mark.parametrize(
    "card",
    [{}, {"versions": ["0.3"]}, {"streaming": False}, {"streaming": False, "versions": ["0.3"]}],
    ids=["1.0", "0.3", "1.0 polled", "0.3 polled"],
)
async def test_an_agent_of_each_version_answers_with_its_artifacts(house: House, card: dict[str, object]) -> None:
    far = await Far(**card).open()
    try:
        await house.pin(far)
        desk = await house.desk()
        assert await house.call(desk, "hello you") == Done("you said: hello you, indeed")
        assert len(far.agent.begun) == 1
    finally:
        await far.close()


async def test_its_artifacts_are_labelled_with_the_agents_name_and_charged_its_price(house: House, far: Far) -> None:
    await house.pin(far, price_usd_micros=50_000)
    desk = await house.desk()
    reply = await desk.call("agent_echo", {"text": "hello"})
    assert reply.outcome == "succeeded" and desk.text(reply) == "you said: hello , indeed"
    [label] = reply.provenance
    assert (label.kind, label.source) == ("tool_result", "agent_echo")
    [held] = desk.reservations
    assert held.worst_case.cost_usd_micros == 50_000
    assert held.settled is not None and held.settled.usage.cost_usd_micros == 50_000


async def test_data_and_texts_are_read_and_other_files_are_named_and_never_fetched(house: House, far: Far) -> None:
    await house.pin(far)
    said = await house.call(await house.desk(), "parts")
    assert isinstance(said, Done)
    assert said.text == '## sum\nthe sum\n{"sum": 3.0}\n\n## files\na note'
    assert [one.split(":")[0] for one in said.omitted] == [
        "a file chart.png (image/png), 4 bytes",
        "a link to the file far.txt (text/plain)",
    ]


async def test_a_direct_message_is_the_answer(house: House, far: Far) -> None:
    await house.pin(far)
    assert await house.call(await house.desk(), "message at once") == Done("at once")


@pytest.mark.parametrize(
    ("word", "code", "cancelled"),
    [
        ("fail", "remote_failed", 0),
        ("reject", "remote_rejected", 0),
        ("ask", "remote_asks", 1),
        ("login", "remote_wants_login", 1),
    ],
)
async def test_an_end_without_a_result_has_a_name(house: House, far: Far, word: str, code: str, cancelled: int) -> None:
    await house.pin(far)
    said = await house.call(await house.desk(), f"{word} no\u202e budget")
    assert isinstance(said, Failed) and said.code == code and "no budget" in said.message
    assert len(far.agent.cancelled) == cancelled


async def test_a_write_that_the_agent_says_has_failed_is_uncertain_unless_declared_undone(
    house: House, far: Far
) -> None:
    await house.pin(far, effect="write")
    reply = await (await house.desk()).call("agent_echo", {"text": "fail half way"})
    assert reply.outcome == "uncertain" and reply.failure is not None and reply.failure.code == "remote_failed"
    await house.pin(far, effect="write", on_error="undone")
    reply = await (await house.desk()).call("agent_echo", {"text": "fail half way"}, call_id="c2")
    assert reply.outcome == "failed"


async def test_a_silent_agent_is_given_up_by_name_and_cancelled(house: House, far: Far) -> None:
    await house.pin(far, silence_ms=1_500)  # A busy machine is not silent for so long.
    said = await house.call(await house.desk(), "hang")
    assert isinstance(said, Failed) and said.code == "remote_silent"
    await until(lambda: len(far.agent.cancelled) == 1, "the agent was told")


async def test_a_call_whose_time_is_over_is_cancelled_at_the_agent(house: House, far: Far) -> None:
    await house.pin(far)
    said = await house.call(await house.desk(), "wait", timeout_s=0.5)
    assert isinstance(said, Failed) and said.code == "timeout" and not said.transient
    await until(lambda: len(far.agent.cancelled) == 1, "the agent was told")


@pytest.mark.parametrize("effect", ["read", "write"])
async def test_a_halt_reaches_the_agent_and_a_read_begins_anew_after_it(house: House, far: Far, effect: str) -> None:
    await house.pin(far, effect=effect)
    desk, cut = await house.desk(), asyncio.Event()
    call = asyncio.create_task(house.call(desk, "wait", cut=cut))
    await until(lambda: len(far.agent.begun) == 1, "it began")
    key = "acme.t1.c1"
    await until(lambda: named(house, key), "its task is on record")
    cut.set()
    said = await call
    assert isinstance(said, Failed) and said.code == "halted"
    await until(lambda: len(far.agent.cancelled) == 1, "the agent was told")
    far.agent.go.set()
    again = await house.call(desk, "wait for it")
    if effect == "read":
        assert again == Done("done: for it") and len(set(far.agent.begun)) == 2
    else:
        assert isinstance(again, Failed) and (again.code, again.effect) == ("remote_cancelled", "unknown")
        assert len(far.agent.begun) == 1


async def test_a_write_goes_on_while_a_halt_pauses_its_task_and_is_cancelled_by_one_that_ends_it(
    house: House, far: Far
) -> None:
    await house.pin(far, effect="write")
    desk = await house.desk()
    call = asyncio.create_task(desk.call("agent_echo", {"text": "wait"}))
    await until(lambda: named(house, "acme.t1.c1"), "its task is on record")
    desk.cut.set()
    done, _ = await asyncio.wait({call}, timeout=0.3)
    assert not done and not far.agent.cancelled
    desk.halt = Halt(scope="task", tenant="acme", name="t1", code="loop", reason="it loops", by="budget")
    desk.ending.set()
    reply = await call
    assert reply.outcome == "uncertain" and reply.failure is not None and "it loops" in reply.failure.message
    await until(lambda: len(far.agent.cancelled) == 1, "the agent was told")


async def test_a_call_that_is_cancelled_before_it_begins_is_never_sent(house: House, far: Far) -> None:
    await house.pin(far)
    desk = await house.desk()
    await house.parts[0].stop_call("agent_echo", "acme.t1.c1", True)
    said = await house.call(desk, "hello")
    assert isinstance(said, Failed) and (said.code, said.effect) == ("cancelled", "none") and not far.agent.begun


async def test_a_replica_cancels_what_another_one_follows(house: House, far: Far) -> None:
    await house.pin(far)
    desk, other = await house.desk(), await house.desk()
    call = asyncio.create_task(house.call(desk, "wait"))
    await until(lambda: named(house, "acme.t1.c1"), "its task is on record")
    assert other.doer is not desk.doer
    await house.parts[1].stop_call("agent_echo", "acme.t1.c1", True)
    said = await call
    assert isinstance(said, Failed) and said.code == "remote_cancelled" and len(far.agent.cancelled) == 1


async def test_inputs_of_earlier_steps_are_told_in_full(house: House, far: Far) -> None:
    await house.pin(far)
    desk = await house.desk()
    blobs = Blobs(MemoryBus(house.broker, "model_gateway"), "model_gateway")
    claim = await blobs.put("acme", "The claim is 40 EUR.", summary="")
    given = [{"step": "s0", "title": "Claim", "content": claim.model_dump(exclude={"summary"})}]
    reply = await desk.call("agent_echo", {"text": "hello", "inputs": given, "notes": ["be brief"]}, **OF_A_STEP)
    assert desk.text(reply) == "you said: hello\nbe brief\nResult of the step Claim:\nThe claim is 40 EUR., indeed"
    carried = await blobs.put("acme", "It is his.")
    given[0]["content"] = carried.model_dump()
    reply = await desk.call("agent_echo", {"text": "hello", "inputs": given}, call_id="c3", **OF_A_STEP)
    assert desk.text(reply).endswith("Result of the step Claim:\nIt is his., indeed")
    given[0]["content"] = claim.model_copy(update={"sha256": "0" * 64}).model_dump(exclude={"summary"})
    reply = await desk.call("agent_echo", {"text": "hello", "inputs": given}, call_id="c2", **OF_A_STEP)
    assert reply.failure is not None and reply.failure.code == "unreadable_input" and len(far.agent.begun) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"role": "worker"},
        {"delegated": ()},
        {"sender": "doors"},
        {"delegated": (COURIER.model_copy(update={"to": "worker"}),)},
    ],
    ids=["a model's step", "no delegation", "a program outside", "another's delegation"],
)
async def test_a_models_call_cannot_name_stored_content(house: House, far: Far, change: dict[str, Any]) -> None:
    await house.pin(far)
    desk = await house.desk()
    secret = await Blobs(MemoryBus(house.broker, "model_gateway"), "model_gateway").put(
        "acme", "Another task's answer."
    )
    given = [{"step": "s0", "content": secret.model_dump(exclude={"summary"})}]
    reply = await desk.call("agent_echo", {"text": "hello", "inputs": given}, **(OF_A_STEP | change))
    assert reply.failure is not None and reply.failure.code == "bad_arguments" and not far.agent.begun


async def test_inputs_that_do_not_fit_are_cut_aloud(house: House, far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_AGENT_INPUT_CHARS", 20)
    await house.pin(far)
    desk = await house.desk()
    short = {"standing": "degraded: an old list", "lacks": ["page 2", "page 3"]}
    given = [{"step": "s0", "text": "x" * 30, **short}, {"step": "s1", "title": "Claim", "text": "40 EUR"}]
    reply = await desk.call("agent_echo", {"text": "hello", "inputs": given}, **OF_A_STEP)
    head = "Result of the step s0 (degraded: an old list; incomplete, without page 2, page 3):"
    cut = f"{head}\n{'x' * 15}\n[left out here: 15 of 30 characters]"
    none = "Result of the step Claim:\n\n[left out here: 6 of 6 characters]"
    assert desk.text(reply) == f"you said: hello\n{cut}\n{none}, indeed"
    assert not reply.completeness.complete
    assert [one.detail.split(",")[0] for one in reply.completeness.omissions] == [
        "left out: the result of the step s0 beyond 15 of its 30 characters",
        "left out: the result of the step Claim beyond 0 of its 6 characters",
    ]


async def named(house: House, key: str) -> bool:
    row, _ = await house.parts[0]._tasks.find_task(key)
    return row is not None and bool(row.task)


@pytest.mark.parametrize("effect", ["read", "write"])
async def test_a_replica_that_takes_a_call_over_follows_the_task_that_was_begun(
    house: House, far: Far, effect: str
) -> None:
    await house.pin(far, effect=effect)
    first, second = await house.desk(), await house.desk()
    lost = asyncio.create_task(house.call(first, "wait and see"))
    await until(lambda: named(house, "acme.t1.c1"), "its task is on record")
    lost.cancel()  # Its replica died: nobody says that the call is stopped.
    await asyncio.wait({lost})
    taken = asyncio.create_task(house.call(second, "wait and see"))
    far.agent.go.set()
    assert await taken == Done("done: and see")
    assert len(far.agent.begun) == 1 and not far.agent.cancelled


async def test_a_message_whose_task_has_no_name_is_uncertain_of_a_write_and_repeated_of_a_read(
    house: House, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "RECORD_PATIENCE_S", 0.2)
    await house.pin(far, effect="write", silence_ms=300)
    desk = await house.desk()
    lost = asyncio.create_task(house.call(desk, "mute"))
    await until(lambda: len(far.agent.begun) == 1, "it was sent")
    lost.cancel()
    await asyncio.wait({lost})

    async def given_up() -> bool:
        said = await house.call(desk, "mute")
        assert isinstance(said, Failed) and said.effect == "unknown"
        return said.code == "connection_lost"

    await until(given_up, "nobody can be listening any more")
    assert len(far.agent.begun) == 1
    await house.pin(far, effect="read")
    assert await house.call(await house.desk(), "hello") == Done("you said: hello , indeed")
    assert len(far.agent.begun) == 2 and len(set(far.agent.begun)) == 1  # The same message.


async def test_a_write_that_is_delivered_again_while_its_sender_listens_goes_back_until_that_has_its_answer(
    house: House, far: Far
) -> None:
    await house.pin(far, effect="write", price_usd_micros=50_000)
    first, second = await house.desk(), await house.desk()
    sent = asyncio.create_task(first.call("agent_echo", {"text": "mute until then"}, deadline_ms=60_000))
    await until(lambda: len(far.agent.begun) == 1, "it was sent")
    with pytest.raises(HandBack):
        await second.call("agent_echo", {"text": "mute until then"}, deadline_ms=60_000)
    [given_back] = second.reservations
    assert given_back.settled is not None and given_back.settled.usage.cost_usd_micros == 0
    near = await second.call("agent_echo", {"text": "mute until then"}, deadline_ms=10_000)
    assert near.outcome == "uncertain" and near.failure is not None and near.failure.code == "begun_elsewhere"
    far.agent.go.set()
    assert (await sent).outcome == "succeeded" and len(far.agent.begun) == 1


@pytest.mark.parametrize("effect", ["read", "write"])
async def test_what_may_have_been_sent_is_uncertain_of_a_write_when_it_comes_again_after_its_deadline(
    house: House, far: Far, effect: str
) -> None:
    await house.pin(far, effect=effect)
    desk = await house.desk()
    lost = asyncio.create_task(house.call(desk, "mute"))
    await until(lambda: len(far.agent.begun) == 1, "it was sent")
    lost.cancel()  # Its replica died.
    await asyncio.wait({lost})
    late = await desk.call("agent_echo", {"text": "mute"}, deadline_ms=-1)
    assert late.outcome == ("uncertain" if effect == "write" else "refused")
    unsent = await desk.call("agent_echo", {"text": "mute"}, call_id="c2", deadline_ms=-1)
    assert unsent.outcome == "refused" and len(far.agent.begun) == 1


async def test_two_replicas_at_once_send_one_message(house: House, far: Far) -> None:
    await house.pin(far)
    desks = [await house.desk(), await house.desk()]
    calls = [asyncio.create_task(house.call(desk, "wait once")) for desk in desks]
    await until(lambda: len(far.agent.begun) >= 1, "one was sent")
    await until(lambda: any(one.done() for one in calls), "the other gave way")
    far.agent.go.set()
    said = [await one for one in calls]
    codes = sorted(one.code if isinstance(one, Failed) else "done" for one in said)
    assert codes == ["begun_elsewhere", "done"] and len(far.agent.begun) == 1


async def test_an_answer_above_the_bound_ends_by_name(house: House, far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.pin(far)
    desk = await house.desk()
    monkeypatch.setattr(bounds, "MAX_MCP_ANSWER_BYTES", 50_000)
    said = await house.call(desk, "big 100000")
    assert isinstance(said, Failed) and said.code == "output_too_large"
