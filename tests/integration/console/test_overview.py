"""The overview over the whole mesh in one process: needs of a person, the day's ceiling, nothing of another tenant."""

from pathlib import Path

from tests.integration.console.browsing import browsing
from tests.replay.stage import OPERATOR, OTHER_OPERATOR, plan, stage
from tests.unit.services.model_gateway.scripted_provider import says


async def test_an_operator_sees_own_tasks_halts_and_a_ceiling_that_is_reached(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client, on.client(OPERATOR) as olga:
        on.model.will(plan({"id": "a"}), a=[says("Here is a.")])
        task = (await on.run("Find the needle."))["task_id"]
        assert "ceiling of the day is reached" not in (await client.get("/overview/spending")).text
        await olga.halt("tool", "calculate", "look at this first")
        await olga.change_limit("day", {"cost_usd_micros": 0})
        page = (await client.get("/")).text
        assert f'href="/tasks/{task}"' in page and "look at this first" in page
        assert 'href="/runbooks#bulkheadtaskstuck"' in page
        spent = (await client.get("/overview/spending")).text
        assert "The ceiling of the day is reached" in spent and 'href="/runbooks#bulkheaddayceilingburn"' in spent
        async with browsing(on, OTHER_OPERATOR) as other:
            seen = (await other.get("/")).text
            assert "The mesh is empty" in seen and "needle" not in seen and "look at this first" not in seen
            spent = (await other.get("/overview/spending")).text
            assert "is reached" not in spent and "<dt>Spent today (UTC)</dt><dd>$0.00</dd>" in spent
