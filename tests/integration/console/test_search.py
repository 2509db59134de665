"""Search over everything, as a page: what it finds, and in whose name."""

import re
from pathlib import Path

from tests.integration.console.browsing import browsing
from tests.replay.stage import OPERATOR, OTHER_OPERATOR, plan, stage
from tests.unit.services.model_gateway.scripted_provider import says


async def test_words_find_rooms_views_tasks_and_names(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        on.model.will(plan({"id": "a"}), a=[says("Here is a.")])
        task = (await on.run("Find the <b>fare</b>.", feature="refunds"))["task_id"]

        async def links_of(words: str) -> list[str]:
            page = await client.get("/search", params={"q": words})
            assert page.status_code == 200 and "<b>fare" not in page.text
            results = page.text.partition('id="results"')[2].partition("</section>")[0]
            return re.findall(r'<li><a href="([^"]+)"', results)

        assert await links_of(task) == await links_of(f" {task} ")
        assert (await links_of("FARE find"))[0] == f"/tasks/{task}"
        assert f"/tasks/{task}" in await links_of(task[:10])
        assert "/tasks?feature=refunds" in await links_of("refund")
        assert "/tasks?model=offline-rules-1" in await links_of("offline")
        assert "/tasks?person=ann" in await links_of("ann")
        assert {"/spend"} <= set(await links_of("spend")) and "/approvals" in await links_of("")
        assert "/tasks?time=today&amp;sort=cost" in await links_of("expensive")
        assert "/runbooks#bulkheadbreakeropen" in await links_of("breaker")
        assert "/new-task" in await links_of("new task")
        assert await links_of("nothing has this") == ["/new-task?objective=nothing+has+this"]
        async with browsing(on, OTHER_OPERATOR) as other:
            assert task not in (await other.get("/search?q=fare")).text
