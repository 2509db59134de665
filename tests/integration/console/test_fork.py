"""The form of a fork over the whole mesh in one process: side effects that it names, and rules that pass on to it."""

from pathlib import Path

from tests.integration.console.browsing import browsing, form
from tests.replay.stage import OPERATOR, Stage, call, plan, stage, use
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
        assert (
            "<dt>Runs again</dt><dd><ul><li>B</li></ul></dd>" in later
            and "<dt>Taken over</dt><dd><ul><li>A</li></ul></dd>" in later
        )
        assert "No step that runs again has written anything" in later
        page = (await client.get(f"/tasks/{task}/fork?step=a")).text
        assert "<dd><ul><li>A</li><li>B</li></ul></dd>" in page and "<dt>Taken over</dt><dd>nothing</dd>" in page
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


async def test_a_task_with_an_unresolved_write_is_run_again_only_after_a_person_has_settled_it(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as olga:
        on.counter.misbehave("error_before", 1_000)
        counts(on)
        task = (await on.run("Count it."))["task_id"]
        here = f"/tasks/{task}"
        page = (await olga.get(here)).text
        assert f'action="{here}/retry"' not in page and "Retry is offered once a person has said so" in page
        refused = await olga.post(f"{here}/retry", data={"key": "k1"})
        assert refused.status_code == 409 and "nobody knows whether this was done: counter_increment in" in refused.text
        for act in ("retry", "fork"):
            chosen = {"key": "k2", "act": act, "reason": "again", f"task-{task}": task}
            done = (await olga.post("/tasks/acts", data=chosen)).text
            assert "0 of 1 task done" in done and f'href="{here}"' in done and "counter_increment in" in done
        for code in ("uncertain effect", "uncertain_effect"):
            page_of_code = (await olga.get("/tasks", params={"code": code})).text
            assert f'id="to-{task}"' in page_of_code and '"uncertain_effect">uncertain effect<' in page_of_code
        on.counter.clear_faults()
        settled = form(page, "Note that it was not done") | {"reason": "the counter stands at 0"}
        write = page.partition(f"{here}/writes/")[2].partition('"')[0]
        await olga.post(f"{here}/writes/{write}", data=settled)
        page = (await olga.get(here)).text
        assert "was not done, says olga" in page and "the counter stands at 0" in page
        counts(on)
        again = await olga.post(f"{here}/retry", data=form(page, f"{here}/retry"))
        async with on.client(OPERATOR) as mesh:
            end = await mesh.task(again.url.path.rpartition("/")[2]).wait_until_ended(30)
        assert end["status"] == "succeeded" and on.counter.counts()["counts"] == {"kept": 2}
