"""Garbage over HTTP, over the bus and from the model: a clear refusal or an honest answer, and nothing lost."""

import asyncio
import json
from typing import Any

import pytest

from bulkhead.bus.port import PublishRefused
from bulkhead.client import Refused
from bulkhead.journal import history
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import LimitsChanged
from bulkhead_contracts.control import CallDeferred, CallResumed
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
from bulkhead_contracts.step import StepAssigned
from bulkhead_infra.demo.corpus import generate_demo
from tests.e2e.fixtures.outsider import headers, raw
from tests.e2e.fixtures.world import World, until, verdict

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "t22"
DEMO = generate_demo(22)
MANY = 1_000
STREAMED = '"stream": ?true'


def step(name: str, instruction: str, *inputs: str, tools: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "id": name,
        "title": name,
        "instruction": instruction,
        "tools": list(tools),
        "inputs": list(inputs),
        "acceptance": "Says something.",
        "kind": "agent",
    }


@pytest.mark.parametrize(
    "name, content, media",
    [
        ("empty.txt", b"", "text/plain"),
        ("blank.md", b" \n\t\n", "text/markdown"),
        ("binary.txt", bytes(range(256)) * 64, "text/plain"),
        ("image.png", b"\x89PNG\r\n\x1a\n" + bytes(200), "image/png"),
        ("broken.pdf", b"%PDF-1.7\nnothing follows", "application/pdf"),
        ("big.txt", b"a " * 2_500_000, "text/plain"),
    ],
)
async def test_a_document_that_cannot_be_read_is_refused(world: World, name: str, content: bytes, media: str) -> None:
    with pytest.raises(Refused) as caught:
        await world.client("t21").add_document(content, name, media)
    assert caught.value.status in (413, 415, 422) and caught.value.code and caught.value.hint, caught.value.problem


async def test_plans_that_cannot_run_end_with_a_reason(world: World) -> None:
    cyclic = {"steps": [step("a", "x", "b"), step("b", "y", "a")]}
    unknown = {"steps": [step("a", "x", "nowhere")]}
    for plan, told in ((cyclic, "wait for each other"), (unknown, "which is no step")):
        document = await world.finish(await world.submit(TENANT, "x", plan=plan))
        failure = document["failure"]
        assert (document["status"], failure["code"]) == ("failed", "plan_rejected"), document
        assert told in failure["message"] and failure["hint"], failure
        assert document["usage"]["model_calls"] == 0


async def test_a_plan_with_a_tool_that_is_not_granted_is_refused_at_once(world: World) -> None:
    with pytest.raises(Refused) as caught:
        await world.submit(TENANT, "x", plan={"steps": [step("a", "x", tools=("rm_rf",))]})
    assert (caught.value.status, caught.value.code) == (422, "tools_not_granted")
    assert "rm_rf" in str(caught.value) and "calculate" in caught.value.hint


# Over the bus


async def test_constraints_of_a_submission_hold_or_are_refused_by_name(world: World) -> None:
    count = step("a", "Use counter_increment with name=bounded amount=7.", tools=("counter_increment",))
    bounded = {"plan": {"steps": [count]}, "check": False}
    for most, counted in (("6", 0), ("7", 7)):
        constraints = (f"counter_increment /amount range 1..{most}",)
        await world.finish(await world.submit(TENANT, "Count.", constraints=constraints, **bounded))
        assert world.counter.count("bounded") == counted
    document = await world.finish(await world.submit(TENANT, "Count.", constraints=("pay /amount range 1",), **bounded))
    assert (document["status"], document["failure"]["code"]) == ("rejected", "bad_constraint"), document


async def test_garbage_on_the_bus_is_kept_with_its_reason_and_nothing_stops(world: World) -> None:
    body = json.dumps({"objective": "x"}).encode()
    sent = {
        "bus-nohead": ({}, body, "bad_envelope"),
        "bus-binary": (headers("bus-binary"), bytes(range(256)), "malformed_body"),
        "bus-long": (headers("bus-long"), b'{"objective": "' + b"x" * 400_000 + b'"}', "malformed_body"),
        "bus-type": (headers("bus-type") | {"ce-type": "mesh.task.ended.v1"}, b"{}", "not_in_catalog"),
        "bus-minus": (headers("bus-minus"), b'{"objective": "x", "limits": {"tokens": -5}}', "malformed_body"),
    }
    for task, (head, content, _) in sent.items():
        await raw(world, task, head, content)
    wanted = {task: code for task, (_, _, code) in sent.items()}
    seen: dict[str, str] = {}

    async def buried() -> bool:
        seen.update({one["subject"].rpartition(".")[2]: one["code"] for one in await world.letters()})
        return wanted.items() <= seen.items()

    try:
        await until(buried, "all of it lies with the dead letters")
    except AssertionError:
        raise AssertionError({task: (code, seen.get(task)) for task, code in wanted.items()}) from None
    assert (await world.finish(await world.submit("demo", "Say something.")))["status"] == "succeeded"


@pytest.mark.parametrize("size", [600_000, 1_048_576])
async def test_an_oversize_message_is_refused_by_the_broker(world: World, size: int) -> None:
    body = b'{"objective": "' + b"x" * size + b'"}'
    with pytest.raises(PublishRefused, match="size exceeds"):
        await raw(world, f"bus-{size}", headers(f"bus-{size}"), body)


async def test_an_unknown_version_from_outside_is_kept_with_the_dead_letters(world: World) -> None:
    """Waiting, it would hold a place in the durable's window: an outsider could fill that."""
    await raw(world, "from-tomorrow", headers("from-tomorrow", version=9), b'{"of": "tomorrow"}')

    async def buried() -> list[dict[str, Any]]:
        return [one for one in await world.letters() if one["subject"].endswith(".from-tomorrow")]

    [letter] = await until(buried, "it lies with the dead letters")
    assert letter["code"] == "unknown_version" and "upgrade" in letter["reason"] and "tomorrow" in letter["body"]
    document = await world.client("demo").task("from-tomorrow").show()
    assert (document["status"], document["failure"]["code"]) == ("rejected", "unknown_version")


async def test_an_unknown_version_of_a_service_waits_and_is_not_lost(world: World) -> None:
    """Handed back for an upgraded replica: no dead letter, still in the inbox; others are served meanwhile."""
    subject = subjects.mesh_subject("gateway", "planner", "demo", "from-tomorrow")
    head = headers("from-tomorrow", source="gateway") | {"ce-type": "mesh.task.submitted.v9"}
    async with world.bus("gateway") as bus:
        await bus.publish(subject, b'{"of": "tomorrow"}', head, "from-tomorrow")
    log = world.mesh.directory / "logs" / "planner-0.log"

    async def handed_back() -> bool:
        return log.read_text().count("waits_for_upgrade") >= 2

    await until(handed_back, "the planner handed it back, twice")
    assert (await world.finish(await world.submit("demo", "Say something.")))["status"] == "succeeded"
    assert not [one for one in await world.letters() if one["subject"] == subject]
    async with world.bus() as bus:
        assert [one.body for one in await bus.read("INBOX_PLANNER", subject)] == [b'{"of": "tomorrow"}']


# From the model


MENDED = {
    "429": {"retry_after_s": 0.2},
    "500": {},
    "503": {},
    "error_200": {},
    "malformed_json": {},
    "cut_stream": {"abrupt": True},
    "context_overflow": {},
    "missing_usage": {"times": MANY},
    "malformed_arguments": {},
    "wrong_arguments": {},
    "invented_tool": {},
    "bad_plan_cyclic": {},
    "bad_plan_huge": {},
    "bad_plan_no_acceptance": {},
    "judge_reject": {},
    "stall": {"streamed": True},
    "timeout": {"streamed": True},
}
"""One such fault, and the task ends with the right answer."""

NAMED = {
    "429": "rate_limited",
    "500": "step_failed",
    "503": "step_failed",
    "error_200": "step_failed",
    "malformed_json": "step_failed",
    "cut_stream": "step_failed",
    "context_overflow": "step_failed",
    "malformed_arguments": "step_failed",
    "wrong_arguments": "step_failed|loop_stopped",
    "invented_tool": "step_failed",
    "runaway": "loop_stopped",
}
"""Such faults without end, and the task ends with this failure."""


async def test_a_result_that_the_judge_never_accepts_stands_degraded(world: World) -> None:
    await world.ingest(TENANT, DEMO)
    await world.arm("judge_reject", "neveraccepted", times=MANY)
    document = await world.finish(await world.submit(TENANT, f"The file is neveraccepted. {DEMO.objective}"), 90)
    await world.disarm()
    result = document["result"]
    assert (document["status"], result["standing"]) == ("succeeded", "degraded"), document
    assert "did not accept" in result["standing_reason"]


@pytest.mark.timeout(400)
async def test_one_fault_of_the_model_is_mended(world: World) -> None:
    await world.ingest(TENANT, DEMO)
    slots = asyncio.Semaphore(6)

    async def one(fault: str, how: dict[str, Any]) -> str:
        how = dict(how)
        mark = f"mended{fault.replace('_', '')}x"
        # Anchored: a search that begins anew at each character would hold up the model's only thread for minutes.
        pattern = rf"(?s)\A(?=.*{mark})" + (f"(?=.*{STREAMED})" if how.pop("streamed", False) else "")
        async with slots:
            await world.arm(fault, pattern=pattern, **how)
            task = await world.submit(TENANT, f"The file is {mark}. {DEMO.objective}", deadline_s=60)
            document = await world.finish(task, 90)
        if document["status"] != "succeeded":
            return f"{fault}, {task.id}: {document['status']}: {document['failure']}"
        found = verdict(DEMO, document)
        return "" if found.ok else f"{fault}, {task.id}: {found.differences}; {document['answer']}"

    problems = await asyncio.gather(*(one(fault, how) for fault, how in MENDED.items()))
    taken = {one["fault"] for one in (await world.model.get("/admin/faults")).json()["armed"] if one["taken"]}
    await world.disarm()
    assert [problem for problem in problems if problem] == []
    assert taken >= set(MENDED), set(MENDED) - taken


@pytest.mark.timeout(400)
async def test_faults_without_end_end_in_a_named_failure(world: World) -> None:
    await world.ingest(TENANT, DEMO)
    slots = asyncio.Semaphore(6)

    async def one(fault: str, code: str) -> str:
        mark = f"named{fault.replace('_', '')}x"
        async with slots:
            await world.arm(fault, mark, times=MANY, retry_after_s=0.1)
            task = await world.submit(TENANT, f"The file is {mark}. {DEMO.objective}", deadline_s=60)
            document = await world.finish(task, 90)
        failure = document["failure"] or {}
        # The same wrong call again and again ends at the step's cap or as a loop, whichever is seen first.
        ends = [("halted" if one == "loop_stopped" else "failed", one) for one in code.split("|")]
        if (document["status"], failure.get("code")) not in ends or not failure.get("message"):
            return f"{fault}, {task.id}: wanted {code}, it is {document['status']}: {failure} {document['answer']}"
        return ""

    problems = await asyncio.gather(*(one(fault, code) for fault, code in NAMED.items()))
    await world.disarm()
    assert [problem for problem in problems if problem] == []


async def test_an_endless_answer_is_cut_and_says_so(world: World) -> None:
    await world.ingest(TENANT, DEMO)
    await world.arm("long_answer", pattern=rf"(?s)\A(?=.*endlessly)(?=.*{STREAMED})")
    document = await world.finish(await world.submit(TENANT, "Tell endlessly of it.", check=False))
    await world.disarm()
    completeness = document["result"]["completeness"]
    assert document["status"] == "succeeded" and completeness["complete"] is False, document
    assert completeness["omissions"][0]["reason"] == "truncated", completeness


async def test_a_failed_dependency_shows_in_the_final_answer(world: World) -> None:
    """By way of two steps: the first one's tool fails, the second composes."""
    plan = {
        "steps": [
            step("s1", 'Use calculate with expression="1/0".', tools=("calculate",)),
            step("s2", "Compose the final answer from the results of the earlier steps.", "s1"),
        ]
    }
    document = await world.finish(await world.submit(TENANT, "What is 1/0?", plan=plan, check=False))
    assert document["status"] == "succeeded", document
    result = document["result"]
    assert result["standing"] == "degraded" and "calculate" in result["standing_reason"], result
    [omission] = result["completeness"]["omissions"]
    assert omission["reason"] == "failed_part" and "calculate" in omission["what"] and "zero" in omission["detail"]


async def test_a_tool_that_the_model_cannot_call_shows_in_the_final_answer(world: World) -> None:
    """The calls never leave the mesh; what they would have told is missing all the same."""
    question = "How many clumsydays are between 2026-01-01 and 2026-02-01?"
    plan = {"steps": [step("s1", question, tools=("date_difference",))]}
    await world.arm("malformed_arguments", "clumsydays", times=3)
    document = await world.finish(await world.submit(TENANT, "How many?", plan=plan, check=False))
    await world.disarm()
    result = document["result"]
    assert result["standing"] == "degraded" and result["completeness"]["complete"] is False, document
    assert "date_difference" in result["completeness"]["omissions"][0]["what"], result


async def test_a_ceiling_cuts_the_stream_in_flight_and_a_top_up_lets_the_task_go_on(world: World) -> None:
    """s1 streams slowly; what s3 would cost at most does not fit any more: the task waits, and the stream of s1 is cut.

    Topped up it goes on: s2 is not done again, the call of s1 is asked anew, s3 is made.
    """
    plan = {
        "steps": [
            step("s1", "Tell the slowpart."),
            step("s2", "Tell the longpart."),
            step("s3", "Tell the dearpart. " + "It is long. " * 600, "s2"),
            step("s4", "Join them.", "s1", "s3"),
        ]
    }
    limit = 8_000
    await world.arm("long_answer", pattern=r"(?s)slowpart", delay_ms=50)
    await world.arm("long_answer", pattern=r"(?s)longpart")
    task = await world.submit(TENANT, "Tell.", plan=plan, check=False, limit_tokens=limit)

    async def paused() -> dict[str, Any] | None:
        document = await task.show()
        assert document["status"] in ("requested", "running", "paused"), document
        return document if document["status"] == "paused" else None

    document = await until(paused, "the task is halted at its ceiling", 30)
    await world.disarm()
    assert f"bulkhead topup {task.id} --tokens" in document["pause"]["reason"], document["pause"]

    async def why() -> bool:
        """The journal, which it reads, may lag behind the halt."""
        reasons = json.loads((await world.command("why", task.id, "--json"))[1])["reasons"]
        return any("limit 8,000 tokens" in one["what"] and "`topup`" in one["todo"] for one in reasons)

    await until(why, "`bulkhead why` says which limit it was, and what to do", 30)

    async def cut() -> bool:
        return any(one["fault"] == "long_answer" and one["client_cut"] for one in await world.model_requests())

    await until(cut, "the provider saw its stream cut", 10)
    await settled_under(world, task, limit)

    key = world.mesh.add_api_key(TENANT, "the-boss", "operator")
    code, said, _ = await world.command(
        "topup",
        task.id,
        "--tokens",
        "90000",
        "--reason",
        "it is worth it",
        "--json",
        "--url",
        world.mesh.url,
        "--api-key",
        key,
    )
    assert code == 0 and json.loads(said)["resumed"] and json.loads(said)["added"]["tokens"] == 90_000, said
    document = await world.finish(task, 30)
    assert document["status"] == "succeeded" and document["pause"] is None, document
    found = await world.history(task)
    topped = next(one.body.changed_unix_ms for one in await limits_changed(world) if one.body.topped_up)
    woken = [one for one in found if isinstance(one.body, CallResumed)]
    assert woken, "who was held back was woken"
    print(f"woken {min(one.at_unix_ms for one in woken) - topped} ms after the top-up")
    begun = [one.body.step.id for one in found if isinstance(one.body, StepAssigned)]
    assert sorted(begun) == ["s1", "s2", "s3", "s4"], "no step was done again"
    answered = [one.body.call_id for one in found if isinstance(one.body, ModelCallReplied)]
    assert len(answered) == len(set(answered)) == 4, "each call was answered once"
    paid = await settled_under(world, task, limit + 90_000)
    assert document["usage"]["input_tokens"] + document["usage"]["output_tokens"] == paid, "the cost told is exact"


async def test_what_a_runaway_cost_by_the_providers_own_log_is_under_its_ceiling(world: World) -> None:
    """A model that calls a tool again and again: the first call that does not fit is put off at once, with words, and
    the provider hears of no other."""
    limit = 3_500
    await world.arm("runaway", "runsafar", times=MANY)
    plan = {"steps": [step("s1", "What is 17 * 23? It runsafar.", tools=("calculate",))]}
    task = await world.submit(TENANT, "What is it?", plan=plan, check=False, limit_tokens=limit)

    async def put_off() -> list[Any]:
        return [one for one in await world.history(task) if isinstance(one.body, CallDeferred)]

    deferred = (await until(put_off, "a call is put off at the ceiling", 30))[0]
    assert deferred.body.paused and "limit 3,500 tokens" in deferred.body.reason, deferred.body
    asked = [one for one in await world.history(task) if isinstance(one.body, ModelCallRequested)]
    assert deferred.cause == asked[-1].id, "the call that did not fit was answered at once, and it was the last"
    paid = await settled_under(world, task, limit)
    told = [one["usage"]["total_tokens"] for one in await world.model_requests() if one["fault"] == "runaway"]
    mine = told[-(len(asked) - 1) :]
    assert len(mine) == len(asked) - 1 >= 1 and sum(mine) == paid <= limit, (told, paid)
    await task.cancel()
    assert (await world.finish(task, 30))["status"] == "cancelled"
    await world.disarm()


async def limits_changed(world: World) -> list[Any]:
    async with world.bus() as bus:
        stored = await bus.read("INBOX_JOURNAL", subjects.mesh_subject("budget", "journal", "limits", TENANT))
    return [one for one in history.build_entries(stored) if isinstance(one.body, LimitsChanged)]


async def settled_under(world: World, task: Any, limit: int) -> int:
    """The tokens that were paid, when nothing is open any more and everything adds up."""
    money = await world.money(TENANT, task)

    async def adds_up() -> bool:
        nonlocal money
        money = await world.money(TENANT, task)
        assert money.spent[0] <= limit
        return not money.problems() and not money.open

    try:
        await until(adds_up, "everything is settled", 10)
    except AssertionError:
        raise AssertionError(f"{money.problems()}; {money}") from None
    return int(money.spent[0])


# A context that is too small, a provider that is out


async def test_an_oversized_context_and_a_fallback_show_in_the_final_answer(world: World) -> None:
    settings = {"BULKHEAD_CONTEXT_TOKENS": "4400", "BULKHEAD_FALLBACK_MODEL": "offline-rules-1"}
    text = " ".join(f"The harbour fee of berth {one} is {one} crowns and is due at noon." for one in range(400))
    async with world.differently("model_gateway", **settings):
        await world.client().add_document(text.encode(), "harbour.txt", "text/plain")

        async def ask(berth: int) -> dict[str, Any]:
            question = f"What is the harbour fee of berth {berth}?"
            compose = step("s2", "Compose the final answer from the results of the earlier steps.", "s1")
            plan = {"steps": [step("s1", question, tools=("search_documents",)), compose]}
            document = await world.finish(await world.submit("demo", question, plan=plan, check=False))
            assert document["status"] == "succeeded", document["failure"]
            found: dict[str, Any] = document["result"]
            return found

        completeness = (await ask(17))["completeness"]
        assert completeness["complete"] is False, completeness
        assert {one["reason"] for one in completeness["omissions"]} <= {"pruned", "truncated"}, completeness
        await world.arm("500", "berth 18", times=4)
        result = await ask(18)
        await world.disarm()
        assert result["standing"] == "degraded" and result["standing_reason"], result
