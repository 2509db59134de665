"""The form of a fork over the whole mesh in one process: side effects that it names, and rules that pass on to it."""

from pathlib import Path

from tests.integration.console.browsing import browsing, form
from tests.replay.stage import Stage, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

ANN = "bk_ann_of_demo"
COUNTS = {"id": "a", "tools": ["counter_increment"]}
STEPS = [{"id": "a", "title": "A", "instruction": "Find it.", "tools": [], "inputs": [], "acceptance": "It is found."}]


def counts(on: Stage) -> None:
    """Scripts of a task whose first step writes, and whose second rests on it."""
    on.model.will(
        plan(COUNTS, {"id": "b", "inputs": ["a"]}),
        a=[use(call("counter_increment", name="kept", amount=2)), says("Here is a.")],
        b=[says("Here is b.")],
    )


async def test_a_fork_names_the_writes_of_steps_that_run_again_and_repeats_none_by_its_key(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, ANN) as client:
        counts(on)
        task = (await on.run("Count it.", replan="none"))["task_id"]
        later = (await client.get(f"/tasks/{task}/fork?step=b")).text
        assert "Runs again: b. Taken over: a." in later and "No step that runs again has written anything" in later
        page = (await client.get(f"/tasks/{task}/fork?step=a")).text
        assert "Runs again: a, b. Taken over: nothing." in page
        written = '<strong>counter_increment</strong> in a <code>{"name": "kept", "amount": 2}</code>: done'
        assert written in page.replace("&#34;", '"')
        counts(on)
        given = form(page, 'name="instruction"') | {"objective": "Count it.", "instruction": "Do a."}
        made = await client.post(f"/tasks/{task}/fork", data=given)
        async with on.client(ANN) as ann:
            fork = ann.task(made.url.path.rpartition("/")[2])
            assert fork.id != task and (await fork.wait_until_ended(30))["status"] == "succeeded"
            assert (await fork.show())["replan"] == "none", "what the request said passes on"
        assert on.counter.counts()["counts"] == {"kept": 2}


async def test_a_task_that_was_held_back_is_forked_by_nobody_into_one_that_streams(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, ANN) as client, on.client(ANN) as ann:
        on.model.will(plan({"id": "a"}), a=[says("Here is a.")])
        past = await on.run("Find it out.", delivery="held", plan={"steps": STEPS})
        assert past["status"] == "succeeded"
        assert (await ann.task(past["task_id"]).show())["delivery"] == "held"
        page = await client.get(f"/tasks/{past['task_id']}/fork")
        assert page.status_code == 409 and "kept back" in page.text
        fork = await ann.submit("Find it out.", plan={"steps": STEPS}, fork={"task": past["task_id"], "steps": []})
        end = await fork.wait_until_ended(30)
        assert (end["status"], end["failure"]["code"]) == ("rejected", "fork_not_checked")
        assert "would be delivered `held`" in end["failure"]["message"]
