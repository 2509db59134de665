"""Forks: a task again from one step on, as a new one: what is taken over, whose authority, what is not done twice."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bulkhead.client.errors import Refused
from bulkhead.grants import unverified_claims
from bulkhead.runtime.consume import inbound
from bulkhead_cli.replay.replay import replay_history
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanStep
from bulkhead_contracts.result import Result
from bulkhead_contracts.task import StepEnded, StepStarted, TaskRequested, TaskSubmitted
from bulkhead_services.gateway import forks
from bulkhead_services.gateway.intake import own_words
from tests.replay.scenes import said_of
from tests.replay.stage import FACT_TIMEOUT_S, TENANT, Stage, call, plan, silent, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

ROWS = ({"id": "a"}, {"id": "b", "inputs": ["a"]}, {"id": "c", "inputs": ["b"]})


@pytest.fixture
async def on(tmp_path):
    async with stage(tmp_path) as found, asyncio.timeout(FACT_TIMEOUT_S):
        yield found


def steps(*rows, **changes):
    """The rows as steps of a submitted plan; changes: by id."""
    return {
        "steps": [
            {
                "title": one["id"].upper(),
                "instruction": f"Do {one['id']}.",
                "acceptance": "It is done.",
                **one,
                **changes.get(one["id"], {}),
            }
            for one in rows
        ]
    }


async def chain(on: Stage, first_result: str = "A holds.") -> str:
    """An ended task of three steps, one after the other."""
    said = {"a": [says(first_result)], "b": [says("B holds.")], "c": [says("C holds."), says("Here is C anew.")]}
    on.model.will(plan(*ROWS), **said)
    ended = await on.run()
    assert ended["status"] == "succeeded"
    return ended["task_id"]


async def fork(on: Stage, task: str, *taken: str, rows=ROWS, key: str = "bk_ann_of_demo", changes=None):
    return await on.run("Find it out.", key, plan=steps(*rows, **(changes or {})), fork={"task": task, "steps": taken})


async def test_what_is_taken_over_is_neither_run_nor_paid_again(on):
    old = await chain(on)
    asked = len(on.model.asked)
    new = await fork(on, old, "a", "b", changes={"c": {"instruction": "Do c otherwise."}})
    assert (new["status"], new["answer"]) == ("succeeded", "Here is C anew.")
    assert [one[:2] for one in on.model.asked[asked:]] == [("work", "c"), ("judge", "c")]
    assert "Do c otherwise." in on.model.asked[asked][2]["messages"][1]["content"]
    assert "B holds" in on.model.asked[asked][2]["messages"][1]["content"]
    assert new["usage"]["model_calls"] == 2 and new["steps_done"] == 3
    assert [(one["step_id"], one["status"], one["attempts"]) for one in new["steps"]] == [
        ("a", "accepted", 0),
        ("b", "accepted", 0),
        ("c", "accepted", 1),
    ]
    assert new["steps"][0]["reasons"] == [f"taken over from task {old}"]


async def test_a_fork_replays_on_its_own_and_says_where_its_inputs_come_from(on):
    old = await chain(on)
    new = await fork(on, old, "a", "b")
    history = await on.history(new["task_id"])
    assert {one.task for one in history.messages} == {new["task_id"]}
    report = await replay_history(history)
    assert report.divergences == [] and report.ended
    [submitted] = [
        TaskSubmitted.model_validate_json(one.body)
        for one in history.messages
        if one.headers["ce-type"] == TaskSubmitted.ce_type()
    ]
    verifier = on.mesh.context("planner").verifier
    for one in submitted.given:
        label = one.result.provenance[0]
        assert (label.source, label.kind, label.trust) == (f"task {old} step {one.step_id}", "step_result", "untrusted")
        assert verifier.verify_label(label, TENANT, new["task_id"]), (
            "signed by the gateway, which read the planner's own word"
        )
        before = one.result.provenance[1:]
        assert before and all(verifier.verify_label(seen, TENANT, new["task_id"]) for seen in before), (
            "and what it rests on"
        )
    assert any(one.kind == "step_result" and old in one.source for one in _result(new).provenance)


def _result(document):
    return StepEnded.model_validate(
        {"step_id": "x", "attempt": 1, "plan_version": 1, "outcome": "accepted", "result": document["result"]}
    ).result


async def test_a_fork_has_a_grant_of_its_own_for_the_one_who_asks(on):
    old = await chain(on)
    new = await fork(on, old, "a", "b")
    [one] = await on.mesh.messages("INBOX_PLANNER", subjects.mesh_subject("gateway", "planner", TENANT, new["task_id"]))
    grant = unverified_claims(one.headers["bulkhead-grant"])["grant"]
    assert (grant["task"], grant["actor"], grant["origin"]) == (new["task_id"], "ann", old)


@pytest.mark.parametrize(
    ("taken", "changes", "code"),
    [
        (("a", "z"), {}, "fork_no_result"),
        (("a", "b"), {"b": {"instruction": "Do b otherwise."}}, "fork_changed_step"),
        (("b",), {}, "plan_rejected"),
    ],
)
async def test_what_does_not_fit_is_refused_and_nothing_runs(on, taken, changes, code):
    old = await chain(on)
    asked = len(on.model.asked)
    new = await fork(on, old, *taken, changes=changes)
    assert new["failure"]["code"] == code and new["failure"]["hint"] and len(on.model.asked) == asked


@pytest.mark.slow
async def test_only_an_ended_task_of_the_own_tenant_can_be_forked(on):
    old = await chain(on)
    with pytest.raises(Refused, match="there is no task"):
        await fork(on, old, "a", key="bk_eve_of_acme")
    on.model.will(plan(*ROWS), a=[says("A holds.")], b=[silent])
    async with on.client() as client:
        running = await client.submit("Still at it.")
        while not await said_of(on, running.id, StepEnded):
            await asyncio.sleep(0.01)
        early = await fork(on, running.id, "a")
        assert (early["status"], early["failure"]["code"]) == ("rejected", "fork_not_ended")
        await running.cancel()
        await running.wait_until_ended()


async def test_a_follower_that_lags_behind_the_end_refuses_nothing(on, monkeypatch):
    """Found by the simulation: whoever had seen the end was told, for good, that the task had not ended."""
    old, read, looks = await chain(on), forks._read_earlier_task, []

    async def lagging(context, tenant, task):
        past = await read(context, tenant, task)
        looks.append(past.ended)
        past.ended = past.ended and len(looks) > 2
        return past

    monkeypatch.setattr(forks, "_read_earlier_task", lagging)
    new = await fork(on, old, "a", "b")
    assert new["status"] == "succeeded" and len(looks) >= 3


async def test_a_follower_that_lags_behind_a_content_refuses_nothing(on, monkeypatch):
    """Found by the simulation: one stale look, and a result that is there was called expired for good."""
    old, look, looks = await chain(on), forks._is_there, []

    async def lagging(context, tenant, ref):
        looks.append(ref)
        return len(looks) > 1 and await look(context, tenant, ref)

    monkeypatch.setattr(forks, "_is_there", lagging)
    new = await fork(on, old, "a", "b")
    assert new["status"] == "succeeded" and len(looks) >= 3


async def test_what_was_refused_stays_refused_when_its_ack_was_lost(on, monkeypatch):
    """Found by the simulation: delivered again after the earlier task's end the request was taken, and ended twice."""
    old, read, ends = await chain(on), forks._read_earlier_task, []

    async def not_ended(context, tenant, task):
        past = await read(context, tenant, task)
        past.ended = past.ended and bool(ends)
        return past

    monkeypatch.setattr(forks, "_read_earlier_task", not_ended)
    new = await fork(on, old, "a", "b")
    assert (new["status"], new["failure"]["code"]) == ("rejected", "fork_not_ended")
    ends.append(old)
    subject = subjects.mesh_subject("gateway", "gateway", TENANT, new["task_id"])
    stored = (await on.mesh.messages("INBOX_GATEWAY", subject))[0]
    found = inbound.read_message(stored, "gateway")
    again = replace(found, attempts=2)
    await on.mesh.running["gateway", "0"].service.component.handle_message(again)
    assert not await on.mesh.messages(
        "INBOX_PLANNER", subjects.mesh_subject("gateway", "planner", TENANT, new["task_id"])
    )


async def test_a_fork_without_a_plan_is_refused(on):
    old = await chain(on)
    new = await on.run(fork={"task": old, "steps": ["a"]})
    assert new["failure"]["code"] == "fork_without_plan"


async def test_results_whose_content_is_gone_are_refused(on):
    long_text = " ".join(f"A holds {number} times." for number in range(20))
    old = await chain(on, long_text)
    blobs = on.mesh.broker._streams[subjects.BLOBS_STREAM]
    for stored in blobs.read("blob.checker.>", 0, 1000):
        if stored.body.startswith(b"A holds"):
            blobs.delete(stored.sequence)
    new = await fork(on, old, "a", "b")
    assert (new["status"], new["failure"]["code"]) == ("rejected", "fork_content_gone")
    again = await fork(on, old)
    assert again["status"] == "succeeded", "from the first step on nothing of the old contents is needed"


# Side effects

WRITES = ({"id": "a"}, {"id": "b", "inputs": ["a"], "tools": ["counter_increment"]}, {"id": "c", "inputs": ["b"]})


async def counted(on: Stage, tool: str = "counter_increment") -> str:
    """An ended task whose second step has written once."""
    rows = [{**one, "tools": [tool]} if one.get("tools") else one for one in WRITES]
    on.model.will(
        plan(*rows),
        a=[says("A holds.")],
        c=[says("C holds.")],
        b=[use(call(tool, name="orders")), says("It is counted.")],
    )
    ended = await on.run()
    assert ended["status"] == "succeeded" and on.counter.counts()["counts"] == {"orders": 1}
    return ended["task_id"]


async def test_an_unchanged_write_goes_out_under_its_old_key_and_is_not_done_again(on):
    old = await counted(on)
    on.model.steps["b"] = [use(call("counter_increment", name="orders")), says("It is counted.")]
    new = await fork(on, old, "a", rows=WRITES, changes={"b": {"instruction": "Count it, and say so."}})
    assert new["status"] == "succeeded"
    assert on.counter.counts() == {"counts": {"orders": 1}, "increments": 1, "repeats": 1}
    on.model.steps["b"] = [use(call("counter_increment", name="orders")), says("It is counted.")]
    assert (await fork(on, new["task_id"], "a", rows=WRITES))["status"] == "succeeded"
    assert on.counter.counts() == {"counts": {"orders": 1}, "increments": 1, "repeats": 2}, "also by a fork of a fork"


async def test_a_changed_write_is_a_new_one(on):
    old = await counted(on)
    on.model.steps["b"] = [use(call("counter_increment", name="orders", amount=5)), says("It is counted.")]
    assert (await fork(on, old, "a", rows=WRITES))["status"] == "succeeded"
    assert on.counter.counts()["counts"] == {"orders": 6}


@pytest.mark.slow
async def test_what_another_fork_has_written_is_not_written_again(on):
    """The line of forks has one set of keys: step, tool and arguments make one write, whichever of them asks."""
    old = await counted(on)
    for _ in range(2):
        on.model.steps["b"] = [use(call("counter_increment", name="orders", amount=5)), says("It is counted.")]
        assert (await fork(on, old, "a", rows=WRITES))["status"] == "succeeded"
    assert on.counter.counts() == {"counts": {"orders": 6}, "increments": 2, "repeats": 1}
    on.model.steps["b"] = [use(call("counter_increment", name="orders", amount=7)), says("It is counted.")]
    assert (await fork(on, old, "a", rows=WRITES))["status"] == "succeeded"
    assert on.counter.counts()["counts"] == {"orders": 13}


@pytest.mark.slow
async def test_a_write_without_idempotency_is_refused_unless_the_plan_avoids_it(on):
    old = await counted(on, "counter_increment_unkeyed")
    rows = [{**one, "tools": ["counter_increment_unkeyed"]} if one.get("tools") else one for one in WRITES]
    new = await fork(on, old, "a", rows=rows)
    assert (new["status"], new["failure"]["code"]) == ("rejected", "fork_repeats_effect")
    assert "counter_increment_unkeyed" in new["failure"]["message"]
    assert (await fork(on, old, "a", "b", rows=rows))["status"] == "succeeded", "b is not run again"
    on.model.steps["b"] = [says("It was counted before.")]
    without = await fork(on, old, "a", rows=rows, changes={"b": {"tools": []}})
    assert without["status"] == "succeeded"
    assert on.counter.counts()["increments"] == 1


UNKEYED = [{**one, "tools": ["counter_increment_unkeyed"]} if one.get("tools") else one for one in WRITES]


async def test_a_fork_of_a_fork_repeats_nothing_that_cannot_be_undone(on):
    """The middle task took the writing step over: only the first one's record says that it may have written."""
    old = await counted(on, "counter_increment_unkeyed")
    middle = await fork(on, old, "a", "b", rows=UNKEYED)
    assert middle["status"] == "succeeded"
    on.model.steps["b"] = [use(call("counter_increment_unkeyed", name="orders")), says("It is counted.")]
    last = await fork(on, middle["task_id"], "a", rows=UNKEYED)
    assert (last["status"], last["failure"]["code"]) == ("rejected", "fork_repeats_effect")
    # One that has used a tool itself hides nothing of what the first one used.
    on.model.steps["c"] = [use(call("calculate", expression="1 + 1")), says("C holds.")]
    rows = [*UNKEYED[:2], {**UNKEYED[2], "tools": ["calculate"]}]
    middle = await fork(on, old, "a", "b", rows=rows)
    assert middle["status"] == "succeeded" and middle["usage"]["tool_calls"] == 1
    last = await fork(on, middle["task_id"], "a", rows=rows)
    assert (last["status"], last["failure"]["code"]) == ("rejected", "fork_repeats_effect")
    assert on.counter.counts()["counts"] == {"orders": 1}


async def test_a_fork_whose_line_was_purged_is_refused(on):
    """Nobody can tell any more under which key the first task wrote."""
    first = await counted(on)
    on.model.steps["b"] = [use(call("counter_increment", name="orders")), says("It is counted.")]
    second = (await fork(on, first, "a", rows=WRITES))["task_id"]
    inbox = on.mesh.broker.get_stream("INBOX_GATEWAY")
    for one in inbox.read(subjects.task_filter("gateway", TENANT, first), 0, 1000):
        inbox.delete(one.sequence)
    third = await fork(on, second, "a", rows=WRITES)
    assert (third["status"], third["failure"]["code"]) == ("rejected", "fork_ancestor_gone")
    assert on.counter.counts()["counts"] == {"orders": 1}


async def test_a_line_of_forks_is_bounded(on, monkeypatch):
    monkeypatch.setattr(forks, "MAX_ANCESTORS", 2)
    first = await chain(on)
    second = await fork(on, first, "a", "b", "c")
    third = await fork(on, second["task_id"], "a", "b", "c")
    assert third["status"] == second["status"] == "succeeded"
    fourth = await fork(on, third["task_id"], "a", "b", "c")
    assert (fourth["status"], fourth["failure"]["code"]) == ("rejected", "fork_too_deep")


async def test_a_fork_that_no_message_can_carry_is_refused(on, monkeypatch):
    assert forks.too_large(bounds.MAX_MESSAGE_BYTES, None) is None
    old = await chain(on)
    monkeypatch.setattr(forks, "bounds", SimpleNamespace(MAX_MESSAGE_BYTES=1_000))
    new = await fork(on, old, "a", "b")
    assert (new["status"], new["failure"]["code"]) == ("rejected", "fork_too_large")
    assert "1000 fit" in new["failure"]["message"] and "fewer steps" in new["failure"]["hint"]


async def test_what_was_never_checked_is_not_taken_into_a_checked_task(on):
    on.model.will(a=[says("A holds.")], b=[says("B holds.")], c=[says("C holds.")])
    old = await on.run(plan=steps(*ROWS), check=False)
    taken = {"task": old["task_id"], "steps": ["a", "b", "c"]}
    new = await on.run("Find it out.", plan=steps(*ROWS), check=True, fork=taken)
    assert (new["status"], new["failure"]["code"]) == ("rejected", "fork_unchecked")


def test_the_order_in_which_the_planners_words_were_stored_changes_nothing():
    """They go out side by side: a step may be started before its own plan is adopted, and a plan adopted twice."""
    plan = Plan(steps=(PlanStep(id="b", title="b", instruction="x", tools=("counter_increment_unkeyed",)),))
    adopted, started = PlanAdopted(plan=plan), StepStarted(step_id="b", attempt=1, plan_version=1, title="b")
    ended = StepEnded(step_id="b", attempt=1, plan_version=1, outcome="accepted", result=Result(summary="done"))
    for order in ((adopted, started), (started, adopted), (adopted, started, adopted)):
        past = forks.EarlierTask()
        for said in order:
            past.apply_body(said, "planner")
        assert past.used_tools() == {"counter_increment_unkeyed": "b"}
        past.apply_body(ended.model_copy(update={"outcome": "failed", "result": None}), "planner")
        assert past.used_tools() == {"counter_increment_unkeyed": "b"}, "what failed may not know what it has done"
        past.apply_body(ended, "planner")
        assert past.used_tools() == {} and past.results["b"].summary == "done"


@pytest.mark.parametrize(("fields", "sender"), [({"written_by": "model"}, "gateway"), ({}, "pub_bot")])
def test_of_an_agents_task_no_text_is_a_persons_in_the_fork(fields, sender):
    step = PlanStep(id="b", title="Pay", instruction="Pay Ben.", tools=("pay",))
    request = TaskRequested(objective="Pay Ben 5 EUR.", plan=Plan(steps=(step,)), **fields)
    past = forks.EarlierTask()
    past.apply_body(request, sender)
    past.apply_body(PlanAdopted(plan=request.plan), "planner")
    drafted = past.drafted_digests({"pub_bot", "doors"})
    assert own_words(request, drafted) == ()
    assert [label.trust for label in own_words(request, drafted, by_model=True)] == ["untrusted"] * 2
    past = forks.EarlierTask()
    past.apply_body(TaskRequested(objective="Pay Ben 5 EUR.", plan=request.plan), "pub_shop")
    assert past.drafted_digests({"pub_bot"}) == frozenset()


async def test_what_an_agent_asked_for_is_no_persons_word_in_a_fork_of_a_fork(on):
    rows = steps(*ROWS)
    on.model.will(a=[says("A holds.")], b=[says("B holds.")], c=[says("C holds.")])
    first = await on.run("Find it out.", plan=rows, written_by="model", check=False)
    again = {"steps": ["a", "b", "c"]}
    second = await on.run("Find it out.", plan=rows, check=False, fork=again | {"task": first["task_id"]})
    third = await on.run("Find it out.", plan=rows, check=False, fork=again | {"task": second["task_id"]})
    trusts = []
    for task in (second, third):
        messages = await on.mesh.messages("INBOX_PLANNER", f"mesh.gateway.planner.*.{TENANT}.{task['task_id']}.*")
        [submitted] = [
            TaskSubmitted.model_validate_json(one.body)
            for one in messages
            if one.headers["ce-type"] == TaskSubmitted.ce_type()
        ]
        trusts.append({label.trust for label in submitted.labels if label.kind == "objective" and not label.source})
    assert trusts == [set(), set()]
