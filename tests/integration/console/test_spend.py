"""The room of spending over the whole mesh in one process: sums, bars, limits and who changed them."""

import csv
import io
from pathlib import Path

from bulkhead_services.gateway.console.spend import CHART_HEIGHT, bars, table
from tests.integration.console.browsing import browsing, form
from tests.replay.stage import OPERATOR, plan, stage
from tests.unit.services.model_gateway.scripted_provider import says

HOSTILE = "<script>alert(1)</script>"


async def test_an_operator_sees_what_is_spent_and_sets_a_limit_that_holds_under_his_name(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        on.model.will(plan({"id": "a"}), a=[says("Here is a.")])
        assert (await on.run(feature="search"))["status"] == "succeeded"
        page = (await client.get("/spend?by=feature&since=1h")).text
        assert '<td class="main">search</td>' in page and 'class="chart"' in page and "<title>" in page
        assert "Nobody has in the last 31 days" in page
        [row] = (await client.get("/spend.json?by=user")).json()["rows"]
        [named] = csv.DictReader(io.StringIO((await client.get("/spend.csv?by=user")).text))
        assert named["name"] == row["name"] == "ann" and int(named["spent_calls"]) == row["spent"]["calls"] > 0
        given = form(page, 'name="target"') | {"target": "feature/search", "cost_usd_micros": "0.5", "tokens": "9000"}
        done = await client.post("/spend/limits", data=given)
        assert done.status_code == 200 and "$0.50, 9,000 tokens" in done.text and "<td>olga</td>" in done.text
        late = await client.post("/spend/limits", data=given | {"key": "other", "tokens": "1"})
        assert late.status_code == 409 and "revision" in late.text, "made of what somebody else has changed since"
        wrong = await client.post("/spend/limits", data=given | {"tokens": HOSTILE})
        assert wrong.status_code == 422 and "<script>alert" not in wrong.text
        removed = form(done.text, 'name="target"') | {"target": "feature/search"}
        assert "<td>no limit</td>" in (await client.post("/spend/limits", data=removed)).text


async def test_who_may_not_see_spending_sees_limits_and_changes_none(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, "bk_ann_of_demo") as ann:
        page = (await ann.get("/spend")).text
        assert "may not see what is spent" in page and "Limits" in page and "/spend/limits" not in page
        assert (await ann.post("/spend/limits", data={"target": "day", "tokens": "1"})).status_code == 403
        assert (await ann.get("/spend.json")).status_code == 403


def test_bars_have_one_scale_and_what_cost_little_is_seen() -> None:
    found = bars([0, 1, 1_000_000], 0, 300)
    assert [one.height for one in found] == [0, 1, CHART_HEIGHT] and [one.from_unix_ms for one in found] == [
        0,
        100,
        200,
    ]
    assert bars([], 0, 1) == [] and bars([0, 0], 0, 2)[1].height == 0


def test_a_name_is_no_formula_in_a_spreadsheet() -> None:
    amounts = {"cost_usd_micros": 1, "tokens": 2, "calls": 3}
    [_, row] = csv.reader(io.StringIO(table([{"name": "=cmd|' /C calc'!A0", "spent": amounts, "held": amounts}])))
    assert row[0] == "'=cmd|' /C calc'!A0" and row[1:] == ["1", "2", "3"] * 2
