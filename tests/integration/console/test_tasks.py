"""The list of tasks over the whole mesh in one process: tabs with numbers, views, true costs, acts on several tasks."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx

from tests.integration.console.browsing import browsing, form
from tests.integration.console.test_live import held
from tests.replay.stage import APPROVER, OPERATOR, OTHER_OPERATOR, Stage, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

STEPS = [{"id": "a", "title": "A", "instruction": "Find it.", "tools": [], "inputs": [], "acceptance": "It is found."}]


async def answered(on: Stage, objective: str, **options: Any) -> str:
    """A task that has ended well."""
    on.model.will(plan({"id": "a"}), a=[says("Here is a.")])
    task: str = (await on.run(objective, **options))["task_id"]
    return task


async def page_of(client: httpx.AsyncClient, query: str = "") -> str:
    page = await client.get(f"/tasks{query}")
    assert page.status_code == 200, page.text
    return page.text


def tabs_of(page: str) -> dict[str, str]:
    """Numbers by tab."""
    [nav] = re.findall(r'<nav class="tabs".*?</nav>', page, re.S)
    return dict(re.findall(r'<a href="[^"]*"[^>]*>([^<]+?) <span class="count">([^<]+)</span>', nav))


def listed(page: str) -> list[str]:
    """Ids in their order."""
    return re.findall(r'id="to-(\w+)"', page)


async def test_the_list_counts_filters_and_orders(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        first = await answered(on, "Find the fare.", feature="refunds")
        on.model.will(
            plan({"id": "a", "tools": ["counter_increment"]}),
            a=[use(call("counter_increment", name="n", amount=1)), says("Here is a.")],
        )
        second = (await on.run("Count it."))["task_id"]
        page = await page_of(client)
        assert listed(page) == [second, first]
        assert tabs_of(page) == {
            "All": "2",
            "Running": "0",
            "Needs a person": "0",
            "Succeeded": "2",
            "Not answered": "0",
            "Failed": "0",
        }
        assert "Here is a." in page and "$0.00<" not in page and 'value="counter_increment"' in page
        assert listed(await page_of(client, "?tool=counter_increment&time=today")) == [second]
        assert listed(await page_of(client, "?sort=cost"))[0] == second, "two calls cost more than one"
        assert listed(await page_of(client, "?feature=refunds&status=succeeded")) == [first]
        assert listed(await page_of(client, "?min_s=0.001&to=2000-01-01T00:00")) == []
        assert "No task fits" in await page_of(client, "?min_usd=9")
        refused = await client.get("/tasks?min_usd=much")
        assert refused.status_code == 422 and "send a whole number" in refused.text
        async with browsing(on, OTHER_OPERATOR) as other:
            assert "There is no task yet" in await page_of(other)


async def test_a_running_task_shows_what_it_has_spent_and_holds(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client, held(on) as (task, _):
        running = "?status=requested,queued,running"
        async with asyncio.timeout(
            20
        ):  # Until its plan was drafted, which has cost something, and its step is at work.
            while " held<" not in (page := await page_of(client, running)) or '"number">$0.00<' in page:
                await asyncio.sleep(0.05)
        assert listed(page) == [task.id]


async def test_a_view_is_kept_for_its_person_and_forgotten(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        saved = await client.post(
            "/tasks/views", data={"name": "<My> view", "query": "sort=cost&evil=1", "act": "save"}
        )
        assert str(saved.url).endswith("/tasks?sort=cost") and "&lt;My&gt; view" in saved.text
        assert "&lt;My&gt; view" in (await client.get("/search?q=my")).text
        for key, data in client.cookies.items():
            assert key.startswith("bulkhead_") and "<My>" not in data
        assert "&lt;My&gt; view" not in (await client.get("/tasks", headers={"HX-Request": "true"})).text
        gone = await client.post("/tasks/views", data={"name": "<My> view", "query": "", "act": "forget"})
        assert "&lt;My&gt; view" not in gone.text


async def test_chosen_tasks_are_retried_forked_and_cancelled_each_with_its_own_result(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client, on.client(OPERATOR) as olga:
        planned = await answered(on, "Find it out.", plan={"steps": STEPS})
        drafted = await answered(on, "Find it, too.", feature="fares")
        chosen = {f"task-{task}": task for task in (planned, drafted, "none")}
        fields = form(await page_of(client), 'id="bulk"') | chosen | {"reason": "again"}
        done = {}
        for act in ("retry", "fork"):
            on.model.will(plan({"id": "a"}), a=[says("Here is a.")])
            answers = [await client.post("/tasks/acts", data=fields | {"act": act}) for _ in range(2)]
            assert "2 of 3 tasks done" in answers[0].text and "there is no task &#39;none&#39;" in answers[0].text
            done[act] = re.findall(r'<a href="/tasks/(\w+)">The new task', answers[0].text)
            assert done[act] == re.findall(r'<a href="/tasks/(\w+)">The new task', answers[1].text), "once each"
            for task in done[act]:
                assert (await olga.task(task).result(30)).status == "succeeded"
        shown = [await olga.task(task).show() for task in (*done["retry"], *done["fork"])]
        assert [task["fork_of"] for task in shown] == [planned, drafted] * 2
        assert [task["objective"] for task in shown] == ["Find it out.", "Find it, too."] * 2
        assert [task["feature"] for task in shown] == ["", "fares"] * 2
        async with held(on) as (task, _):
            fields = fields | {f"task-{task.id}": task.id, "act": "cancel"}
            page = (await client.post("/tasks/acts", data=fields)).text
            assert "1 of 4 tasks done" in page and "cancel stored" in page and page.count("refused</span>") == 3
        nothing = await client.post("/tasks/acts", data={"act": "cancel", "reason": "x"})
        assert nothing.status_code == 422 and "no task was chosen" in nothing.text


async def test_only_those_who_may_act_choose_tasks(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, APPROVER) as bob, browsing(on, OPERATOR) as olga:
        await answered(on, "Find it.")
        assert 'id="bulk"' not in (page := await page_of(bob)) and "type=checkbox" not in page
        news = (await olga.get("/tasks", headers={"HX-Request": "true"})).text
        assert "<form" not in news.partition('id="rows"')[2].partition("</section>")[0], "news go to others too"


async def test_a_success_that_lacks_something_has_one_colour_in_every_room(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        on.model.will(plan({"id": "a"}), a=[says("Here is a.")])
        task = (await on.run("Find it unchecked.", check=False))["task_id"]
        for path in ("/", "/tasks", f"/tasks/{task}", "/search?q=unchecked"):
            page = (await client.get(path)).text
            assert '<span class="state succeeded degraded">succeeded</span>' in page, path
            assert 'class="state succeeded"' not in page, path
        page = (await client.get("/tasks?feature=none")).text
        assert "Succeeded" in tabs_of(page), "with the filters that show none, too"
