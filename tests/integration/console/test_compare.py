"""A fork beside its origin, over the whole mesh in one process: what differs is said, and each sees what he may see."""

from pathlib import Path

from bulkhead_services.gateway.console.task.difference import compare_tasks
from tests.integration.console.browsing import browsing
from tests.replay.stage import APPROVER, OPERATOR, Stage, call, plan, stage, use
from tests.replay.test_fork import steps
from tests.unit.services.model_gateway.scripted_provider import says

HOSTILE = "<script>alert(1)</script>"
ROWS = ({"id": "a"}, {"id": "b", "inputs": ["a"], "tools": ["calculate"]})


async def forked(on: Stage) -> tuple[str, str]:
    """A task, and its fork whose last step calls a tool and says another thing beside the same."""
    anew = use(call("calculate", expression="2 + 3"))
    said = [says("B holds. It was so."), anew, says(f"B holds. {HOSTILE} is five.")]
    on.model.will(plan(*ROWS), a=[says("A holds.")], b=said)
    origin = (await on.run(tools=["calculate"]))["task_id"]
    made = await on.run("Find it out.", tools=["calculate"], plan=steps(*ROWS), fork={"task": origin, "steps": ["a"]})
    return origin, made["task_id"]


async def test_a_fork_stands_beside_its_origin_and_both_ways_lead_there(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as olga:
        origin, fork = await forked(on)
        async with on.client() as client:
            assert [one["task_id"] for one in (await client.get(f"/v1/tasks?fork_of={origin}"))["tasks"]] == [fork]
        page = (await olga.get(f"/tasks/{fork}")).text
        assert f'href="/tasks/{origin}"' in page and f'href="/tasks/{fork}/compare"' in page
        told = (await olga.get(f"/tasks/{fork}/compare")).text
        assert f'href="/tasks/{origin}"' in told and "its origin" in told
        assert "calculate succeeded: 1 time here, 0 times there" in told and "the result here is taken over" in told
        assert "the answers differ: 1 sentence only here, 1 sentence only there" in told
        assert "<p>B holds.</p>" in told and "It was so.</del>" in told
        assert HOSTILE not in told and "&lt;script&gt;alert(1)&lt;/script&gt; is five.</ins>" in told
        offered = (await olga.get(f"/tasks/{origin}/compare")).text
        assert f'href="/tasks/{origin}/compare?with={fork}"' in offered
        back = (await olga.get(f"/tasks/{origin}/compare?with={fork}")).text
        assert "a fork of this one" in back and "calculate succeeded: 0 times here, 1 time there" in back
        for wrong, status in ((origin, 422), ("../x", 422), ("no-such-task", 404)):
            assert (await olga.get(f"/tasks/{origin}/compare", params={"with": wrong})).status_code == status, wrong
        async with browsing(on, APPROVER) as bob:
            bare = (await bob.get(f"/tasks/{fork}/compare")).text
            assert "Texts are left out" in bare and "It was so" not in bare and "1 time here" in bare
        async with browsing(on, "bk_eve_of_acme") as eve:
            assert (await eve.get(f"/tasks/{fork}/compare?with={origin}")).status_code == 404
            mine = (await on.run(key="bk_eve_of_acme", plan=steps({"id": "a"})))["task_id"]
            assert (await eve.get(f"/tasks/{mine}/compare?with={origin}")).status_code == 404


def step(name, title="", **more):
    usage = {"input_tokens": 10, "output_tokens": 5, "cost_usd_micros": 100}
    row = {"step_id": name, "title": title, "outcome": "accepted", "standing": "ok", "attempts": 1, "calls": []}
    return row | {"usage": usage, "took_ms": 1000, "given": False, "plan_version": 1, "instruction": ""} | more


def story(*rows, answer=()):
    usage = {"input_tokens": 10, "output_tokens": 5, "cost_usd_micros": 100}
    sentences = [{"text": text} for text in answer]
    return {
        "steps": rows, "answer": sentences, "planning": [], "plans": [1], "usage": usage, "took_ms": 1000,
    }  # fmt: skip


def test_steps_are_matched_by_id_then_by_title_and_amounts_are_said():
    task = {"status": "succeeded", "standing": "ok", "answer": "A.", "answered": "yes", "duration_ms": 1200}
    dear = {"usage": {"input_tokens": 30, "output_tokens": 5, "cost_usd_micros": 350}, "took_ms": 4000, "attempts": 2}
    one = story(step("s1"), step("s2", "Sum", **dear), step("old", plan_version=0), answer=["A."])
    two = story(step("s1", outcome="rejected"), step("s9", "Sum"), step("s3", "More"), answer=["A."])
    other = task | {"status": "failed", "answer": "A", "answered": "no", "duration_ms": 1000}
    found = compare_tasks(task, other, one, two)
    assert [(pair.name, pair.this is None, pair.other is None) for pair in found.pairs] == [
        ("s1", False, False),
        ("Sum", False, False),
        ("More", True, False),
    ]
    assert found.pairs[0].said == ("this one is accepted, the other rejected",)
    assert found.pairs[1].said == ("1 attempt more", "20 tokens more", "$0.00025 more", "3.0 s longer")
    assert found.said == (
        "this one is succeeded, the other failed",
        "1 attempt more",
        "200 ms longer",
        "answered: yes here, no there",
        "1 step only there: More",
        "the answers say the same and differ in their sources or their form",
    )


def test_a_changed_instruction_is_told_word_by_word_and_a_degraded_result_by_its_word():
    task = {"status": "succeeded", "standing": "ok", "answer": None, "answered": "yes", "duration_ms": 9}
    one = story(step("s1", instruction="Search all fares of Graz.", standing="degraded"))
    two = story(step("s1", instruction="Search the fares of Graz."))
    found = compare_tasks(task, task, one, two)
    [pair] = found.pairs
    assert [(run.where, run.text) for run in pair.instruction] == [
        ("both", "Search"),
        ("other", "the"),
        ("this", "all"),
        ("both", "fares of Graz."),
    ]
    assert pair.said == ("another instruction", "degraded here, not degraded there")
    assert found.whole == ()
