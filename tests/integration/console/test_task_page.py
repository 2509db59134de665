"""The page of a task over the whole mesh in one process: who may do what there, and where it leads."""

from pathlib import Path

import pytest

from bulkhead_services.gateway.console.task import page as task_page
from tests.integration.console.browsing import browsing
from tests.integration.memory_mesh.test_approvals import waiting, writing
from tests.replay.stage import APPROVER, OPERATOR

CANCEL = "Cancel the task"


async def test_each_role_has_its_own_acts_and_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_page, "MAX_BARS", 1)
    async with (
        writing(tmp_path) as (on, _, bob, task),
        browsing(on, APPROVER) as decides,
        browsing(on, "bk_ann_of_demo") as ann,
        browsing(on, OPERATOR) as olga,
    ):
        row = await waiting(bob)
        here, approval = f"/tasks/{task.id}", f'href="/approvals/{row.approval_id}"'
        page = (await decides.get(here)).text
        assert f"{approval}>Decide" in page and CANCEL not in page and "Who waits for whom" not in page
        page = (await ann.get(here)).text
        assert f"{approval}>What is asked" in page and CANCEL in page and "/fork" not in page
        page = (await olga.get(here)).text
        assert CANCEL in page and f'hx-get="{here}/waits"' in page
        assert "the watch is switched off" in (await olga.get(f"{here}/waits")).text
        assert "may not see how tasks hang together" in (await decides.get(f"{here}/waits")).text
        assert f"{here}/fork?step=" not in (await olga.get(f"{here}/story")).text, "it has not ended"
        await bob.grant(row, "seen")
        assert (await task.wait_until_ended(30))["status"] == "succeeded"
        story = (await olga.get(f"{here}/story")).text
        step = row.request.step_id
        assert f'href="{here}/fork?step={step}"' in story and "The first 1 of " in story
        assert f'<option value="{step}" selected>' in (await olga.get(f"{here}/fork?step={step}")).text
        assert f"{here}/fork?step=" not in (await decides.get(f"{here}/story")).text
        monkeypatch.setattr(task_page, "MAX_BARS", 200)
        assert "calls are drawn" not in (await olga.get(f"{here}/story")).text
        async with browsing(on, "bk_eve_of_acme") as eve:
            assert (await eve.get(f"{here}/waits")).status_code == 404
