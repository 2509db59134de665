"""A call that policy asks about waits for a person, over restarts: the whole mesh, the model scripted."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bulkhead.client import Mesh, Refused, Task
from bulkhead.gateway_api.approvals import ApprovalDocument
from bulkhead.journal.rows import describe_body
from bulkhead.policy.ruling import CallProposal, CallRuling, TaintFinding
from bulkhead_contracts import catalog
from bulkhead_contracts.approval import ApprovalDecided, ApprovalEnded, ApprovalGrant, ApprovalRequested
from bulkhead_contracts.tool import ToolCallReplied, WriteDoubted
from tests.replay.scenes import paused, uncertain_write
from tests.replay.stage import APPROVER, OPERATOR, TENANT, Stage, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

POLICY = "c" * 64


def asks(proposal: CallProposal) -> CallRuling:
    """Writes are asked about."""
    if proposal.tool.effect == "read":
        return CallRuling("permit", "reads", POLICY)
    found = TaintFinding("/name", str(proposal.arguments["name"]), ("model",), "it stands nowhere in the task")
    return CallRuling("ask", "writes-ask", POLICY, "high", reasons=("writes are asked about",), findings=(found,))


@asynccontextmanager
async def writing(
    folder: Path, deadline_s: float = 120, **settings: Any
) -> AsyncIterator[tuple[Stage, Mesh, Mesh, Task]]:
    """A task whose only step counts, and waits for that; its asker and an approver."""
    async with stage(folder, rule=asks, executor=settings) as on, on.client() as ann, on.client(APPROVER) as bob:
        on.model.will(
            plan({"id": "a", "tools": ["counter_increment"]}),
            a=[use(call("counter_increment", name="kept", amount=2)), says("Here is a.")],
        )
        yield on, ann, bob, await ann.submit("Count it.", deadline_s=deadline_s)


async def waiting(mesh: Mesh) -> ApprovalDocument:
    """The one approval that waits, when it does."""
    async with asyncio.timeout(20):
        while not (found := (await mesh.approvals()).approvals):
            await asyncio.sleep(0.02)
    [row] = found
    return row


async def replies(on: Stage, task: Task) -> list[ToolCallReplied]:
    stored = await on.mesh.messages("INBOX_WORKER", f"mesh.tool_executor.worker.*.{TENANT}.{task.id}.*")
    found = [catalog.decode_body(one.ce_type, one.body) for one in stored]
    return [one for one in found if isinstance(one, ToolCallReplied)]


async def test_a_call_waits_over_restarts_of_everything_and_is_made_once_when_granted(tmp_path: Path) -> None:
    async with writing(tmp_path) as (on, _, _, task):
        await paused(task)
        await on.restart("tool_executor", "worker", "planner", "gateway", "signer", "budget", "checker")
        async with on.client(APPROVER) as bob, on.client() as ann:
            row = await waiting(bob)
            asked = row.request
            assert asked.arguments_json == '{"amount":2,"name":"kept"}' and asked.asked_for == "ann"
            assert asked.preview == 'counter_increment\n  name: "kept"\n  amount: 2'
            assert (asked.risk, asked.rule, asked.values[0].pointer) == ("high", "writes-ask", "/name")
            document = await ann.task(task.id).show()
            assert document["status"] == "paused" and row.approval_id in document["pause"]["reason"]
            assert on.counter.counts()["increments"] == 0
            done = await bob.grant(row, "seen on the invoice")
            assert done.end and (done.state, done.end.person, done.end.role) == ("granted", "bob", "approver")
            assert (await ann.task(task.id).wait_until_ended(30))["status"] == "succeeded"
            with pytest.raises(Refused) as again:
                await bob.deny(row, "too late")
            assert again.value.code == "not_waiting"
        assert on.counter.counts()["counts"] == {"kept": 2}
        [reply] = await replies(on, task)
        assert (reply.rule, reply.policy_sha256, reply.approval_id) == ("writes-ask", POLICY, row.approval_id)
        journal = [one.ce_type for one in await on.mesh.messages("JOURNAL")]
        assert journal.count(ApprovalEnded.ce_type()) == 1 and ApprovalRequested.ce_type() in journal


async def test_a_denial_goes_back_to_the_agent_and_nothing_is_done(tmp_path: Path) -> None:
    async with writing(tmp_path) as (on, _, bob, task):
        row = await waiting(bob)
        await bob.deny(row, "not this vendor")
        document = await task.wait_until_ended(30)
        [reply] = await replies(on, task)
        assert reply.outcome == "refused" and reply.failure is not None and reply.failure.code == "approval_denied"
        assert "bob denied counter_increment: not this vendor" in reply.failure.message
        assert on.counter.counts()["increments"] == 0 and document["standing"] == "degraded"
        result = document["result"]
        assert result["standing_reason"] == "bob denied counter_increment: not this vendor", "nothing has failed"
        [lack] = result["completeness"]["omissions"]
        assert (lack["refused"], lack["what"]) == (True, "call of counter_increment")


async def test_of_two_who_decide_at_once_the_second_hears_who_was_first(tmp_path: Path) -> None:
    async with writing(tmp_path) as (on, _, bob, task), on.client(OPERATOR) as olga:
        row = await waiting(bob)
        answers = await asyncio.gather(bob.grant(row, "yes"), olga.deny(row, "no"), return_exceptions=True)
        await task.wait_until_ended(30)
        [row] = (await bob.approvals("all")).approvals
        [refusal] = [answer for answer in answers if isinstance(answer, Refused)]
        [accepted] = [answer for answer in answers if isinstance(answer, ApprovalDocument)]
        assert (refusal.code, accepted.state) == ("not_waiting", row.state)
        assert row.end and f"it was {row.state} by {row.end.person}" in str(refusal)


async def test_a_denied_call_is_not_asked_about_again_under_another_id(tmp_path: Path) -> None:
    async with stage(tmp_path, rule=asks) as on, on.client() as ann, on.client(APPROVER) as bob:
        again = [use(call("counter_increment", number, name="kept", amount=2)) for number in (1, 2)]
        other = use(call("counter_increment", 3, name="other"))
        on.model.will(plan({"id": "a", "tools": ["counter_increment"]}), a=[*again, other, says("It was denied.")])
        task = await ann.submit("Count it.")
        row = await waiting(bob)
        await bob.deny(row, "no")
        row = await waiting(bob)
        assert row.request.arguments_json == '{"name":"other"}', "another argument is another question"
        await bob.deny(row, "no")
        await task.wait_until_ended(30)
        assert len((await bob.approvals("all")).approvals) == 2
        codes = [reply.failure.code for reply in await replies(on, task) if reply.failure is not None]
        assert codes == ["approval_denied"] * 3


async def two_wait(mesh: Mesh) -> tuple[ApprovalDocument, ...]:
    async with asyncio.timeout(20):
        while len(rows := (await mesh.approvals()).approvals) < 2:
            await asyncio.sleep(0.02)
    return rows


async def test_calls_of_one_turn_are_asked_about_together_and_twins_of_a_turn_once(tmp_path: Path) -> None:
    async with stage(tmp_path, rule=asks) as on, on.client() as ann, on.client(APPROVER) as bob:
        several = use(*(call("counter_increment", number, name=name) for number, name in enumerate("aab", 1)))
        on.model.will(plan({"id": "a", "tools": ["counter_increment"]}), a=[several, says("Both are counted.")])
        task = await ann.submit("Count it.")
        for row in await two_wait(bob):
            await bob.grant(row, "yes")
        assert (await task.wait_until_ended(60))["standing"] == "ok"
        assert on.counter.counts()["counts"] == {"a": 1, "b": 1} and len((await bob.approvals("all")).approvals) == 2


async def test_a_denial_holds_for_the_same_call_that_waits_beside_it(tmp_path: Path) -> None:
    async with stage(tmp_path, rule=asks) as on, on.client() as ann, on.client(APPROVER) as bob:
        steps = [{"id": name, "tools": ["counter_increment"]} for name in "ab"]
        each = [use(call("counter_increment", name="kept")), says("It was denied.")]
        on.model.will(plan(*steps, {"id": "c", "inputs": ["a", "b"]}), a=[*each], b=[*each], c=[says("It was denied.")])
        task = await ann.submit("Count it.")
        rows = await two_wait(bob)
        await bob.deny(rows[0], "no")
        await bob.grant(rows[1], "by mistake")
        await task.wait_until_ended(60)
        assert on.counter.counts()["increments"] == 0


async def test_a_call_that_nobody_decides_about_is_refused_when_its_time_is_over(tmp_path: Path) -> None:
    async with writing(tmp_path, approval_ttl_s=1) as (on, _, bob, task):
        await task.wait_until_ended(30)
        [reply] = await replies(on, task)
        assert reply.failure is not None and reply.failure.code == "approval_expired"
        [row] = (await bob.approvals("all")).approvals
        assert row.state == "expired" and row.end and row.end.reason == "nobody decided in time"
        assert on.counter.counts()["increments"] == 0


async def test_a_task_does_not_die_of_its_deadline_while_people_think(tmp_path: Path) -> None:
    async with writing(tmp_path, deadline_s=3) as (on, ann, bob, task):
        row = await waiting(bob)
        at_first = row.request.expires_unix_ms
        await paused(task)
        before = await ann.task(task.id).show()
        assert before["pause"]["until_unix_ms"] == at_first and before["deadline_unix_ms"] > at_first
        await on.restart("planner", "worker", "gateway")
        await asyncio.sleep(4)
        async with on.client() as ann, on.client(APPROVER) as bob:
            await bob.grant(row, "yes")
            document = await ann.task(task.id).wait_until_ended(30)
        assert document["status"] == "succeeded" and on.counter.counts()["counts"] == {"kept": 2}
        waited = document["deadline_unix_ms"] - document["created_unix_ms"] - 3_000
        assert 4_000 <= waited < 30_000, "its deadline moved by the time that it waited"


async def test_who_is_never_answered_has_its_own_time_left_to_say_so(tmp_path: Path) -> None:
    async with writing(tmp_path, deadline_s=3, approval_ttl_s=4) as (on, _, _, task):
        document = await task.wait_until_ended(30)
        assert (document["status"], document["standing"]) == ("succeeded", "degraded")
        [reply] = await replies(on, task)
        assert reply.failure is not None and reply.failure.code == "approval_expired"


async def test_who_may_not_decide_does_not(tmp_path: Path) -> None:
    async with writing(tmp_path) as (on, ann, bob, task):
        row = await waiting(bob)
        name, digest = row.approval_id, row.request.arguments_sha256
        for who, sha256, code in ((ann, digest, "forbidden"), (bob, "0" * 64, "other_arguments")):
            with pytest.raises(Refused) as refused:
                await who.decide(name, sha256, "granted", "yes")
            assert refused.value.code == code
        async with on.client("bk_eve_of_acme") as eve:
            assert (await eve.approvals("all")).approvals == ()
        await forge(on, task, name, digest)
        # What was forged lies before this in the inbox, and was read first.
        await bob.decide(name, digest, "denied", "it was forged")
        await task.wait_until_ended(30)
        assert (await bob.approvals("denied")).approvals and on.counter.counts()["increments"] == 0


async def test_an_uncertain_write_of_a_task_is_listed_and_a_person_says_what_became_of_it(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, on.client() as ann, on.client(APPROVER) as bob:
        assert (await bob.writes())["writes"] == []
        task = await uncertain_write(on)
        [row] = (await bob.writes())["writes"]
        assert row["task_id"] == task and row["write"]["tool"] == "counter_increment_unkeyed"
        assert [row] == (await ann.writes(task=task))["writes"] and (await ann.writes(task="other"))["writes"] == []
        [shown] = (await ann.task(task).show())["uncertain_writes"]
        assert (shown["write_id"], shown["key"]) == (row["write_id"], row["write"]["key"])
        with pytest.raises(Refused, match="approver or operator"):
            await ann.resolve_write(row["write_id"], False, "I asked for it")
        done = await bob.resolve_write(row["write_id"], False, "nothing there")
        assert (done["state"], done["resolution"]["reason"]) == ("not_happened", "nothing there")
        first, second = await replies(on, ann.task(task))
        assert (first.outcome, second.outcome) == ("uncertain", "failed") and second.resolution is not None
        assert "bob: it did not happen: nothing there" in describe_body(second)
        assert (await ann.task(task).show())["status"] == "failed", "a task that has ended stays as it ended"


async def test_who_asked_for_a_write_that_wants_four_eyes_is_told_to_have_another_say_it(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, on.client(APPROVER) as bob:
        doubt = WriteDoubted(
            write_id="w1",
            call_id="c1",
            step_id="s1",
            tool="refund",
            arguments_json="{}",
            key="k",
            asked_unix_ms=1,
            asked_for="bob",
            four_eyes=True,
        )
        await on.mesh.context("tool_executor").publisher.send("gateway", doubt, tenant=TENANT, task="t1", index="w1")
        with pytest.raises(Refused) as refused:
            await bob.resolve_write("w1", True, "I saw it")
        assert (refused.value.status, refused.value.code) == (403, "four_eyes")


async def forge(on: Stage, task: Task, approval_id: str, digest: str) -> None:
    """Words that the gateway signs itself, for another task, and for other arguments."""
    gateway, own = on.mesh.context("gateway"), on.mesh.context("signer").signer
    word = ApprovalGrant(
        tenant=TENANT,
        task=task.id,
        approval_id=approval_id,
        arguments_sha256=digest,
        decision="granted",
        person="bob",
        role="approver",
        via="api_key",
        decided_unix_ms=gateway.clock(),
    )
    foreign = own.sign_approval(word.model_copy(update={"task": "another"}))
    other = own.sign_approval(word.model_copy(update={"arguments_sha256": "0" * 64}))
    for number, token in enumerate((gateway.signer.sign_approval(word), foreign, other)):
        body = ApprovalDecided(approval_id=approval_id, token=token)
        await gateway.publisher.send("tool_executor", body, tenant=TENANT, task=task.id, index=f"forged/{number}")


async def test_every_look_at_the_arguments_of_a_call_is_on_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bulkhead")
    async with writing(tmp_path) as (_, ann, bob, task):
        name = (await waiting(bob)).approval_id
        caplog.clear()
        await ann.approvals("denied")
        await bob.approvals()
        await ann.get(f"/v1/approvals/{name}")
    looks = [str(one.__dict__) for one in caplog.records if one.getMessage() == "content_read"]
    assert len(looks) == 2, "none at an empty list"
    assert "'bob'" in looks[0] and "arguments of 1 approval" in looks[0]
    assert "'ann'" in looks[1] and name in looks[1] and task.id in looks[1]
