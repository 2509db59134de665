"""The page of a task over the whole mesh in one process: what an auditor sees of it, and acts by role."""

import re
from pathlib import Path

from tests.integration.console.browsing import browsing
from tests.replay.stage import APPROVER, AUDITOR, OPERATOR, call, plan, stage, use
from tests.unit.services.model_gateway.scripted_provider import says

PLANTED = ("planted-in-a-draft", "planted-in-arguments")


async def test_an_auditor_sees_what_happened_and_none_of_the_texts_on_the_way(tmp_path: Path) -> None:
    draft, argument = PLANTED
    async with stage(tmp_path) as on:
        on.model.will(
            plan({"id": "a", "tools": ["counter_increment"]}, {"id": "b", "inputs": ["a"]}),
            a=[use(call("counter_increment", name=argument, amount=2)), says(f"It is {draft}.")],
            b=[says("Here is b.")],
        )
        here = f"/tasks/{(await on.run('Count it.'))['task_id']}"
        pages = {}
        for key in (OPERATOR, AUDITOR):
            async with browsing(on, key) as client:
                found = [(await client.get(f"{here}{path}")).text for path in ("?find=worker", "/messages")]
                calls = dict.fromkeys(re.findall(rf'href="({here}\?at=call\.[^"]+)"', found[1]))
                assert len(calls) >= 4 and "counter_increment" in found[1]
                found += [(await client.get(f"{path}&as=json")).text for path in calls]
                found += [(await client.get(f"{here}/pane?at=step.1.{step}")).text for step in "ab"]
                pages[key] = "\n".join([*found, *[(await client.get(path)).text for path in calls]])
        assert all(planted in pages[OPERATOR] for planted in PLANTED)
        assert not [planted for planted in PLANTED if planted in pages[AUDITOR]]
        assert "Texts are left out" in pages[AUDITOR] and "/export" not in pages[AUDITOR]


async def test_acts_and_exports_are_offered_to_those_who_may(tmp_path: Path) -> None:
    async with stage(tmp_path) as on:
        on.model.will(plan({"id": "a"}), a=[says("Here is a.")])
        task = (await on.run(key=OPERATOR))["task_id"]
        for key, forks, exports in (
            (OPERATOR, True, True),
            ("bk_ann_of_demo", True, False),
            (APPROVER, False, False),
            (AUDITOR, False, False),
        ):
            async with browsing(on, key) as client:
                page = (await client.get(f"/tasks/{task}")).text
                assert ("/fork" in page, "/retry" in page, "/export" in page) == (forks, forks, exports), key
                assert (await client.get(f"/tasks/{task}/export")).status_code == (200 if exports else 403), key
