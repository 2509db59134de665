"""The room of spending over the whole mesh in one process: sums, bars, limits and who changed them."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from bulkhead_services.gateway.console.api import ApiRefused, ConsoleApi, Json, Query
from bulkhead_services.gateway.console.spend.room import CHART_HEIGHT, draw_bars, label_times, to_csv
from tests.integration.console.browsing import browsing, form
from tests.replay.stage import OPERATOR, OTHER_OPERATOR, plan, stage
from tests.unit.services.model_gateway.scripted_provider import says, usage

HOSTILE = "<script>alert(1)</script>"


async def test_an_operator_sees_what_is_spent_and_sets_a_limit_that_holds_under_his_name(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        on.model.will(plan({"id": "a"}), a=[says("Here is a.")])
        assert (await on.run(feature="search"))["status"] == "succeeded"
        page = (await client.get("/spend?by=feature&since=1h")).text
        assert '<td class="main">search</td>' in page and 'class="chart"' in page and "<title>" in page
        assert "No limit was changed in the last 31 days" in page
        [row] = (await client.get("/spend.json?by=user")).json()["rows"]
        [named, total] = csv.DictReader(io.StringIO((await client.get("/spend.csv?by=user")).text))
        assert total["row"] == "total" and total["spent_calls"] == named["spent_calls"]
        assert named["name"] == row["name"] == "ann" and int(named["spent_calls"]) == row["spent"]["calls"] > 0
        given = form(page, 'name="tokens"') | {"target": "feature/search", "cost_usd_micros": "0.5", "tokens": "9000"}
        done = await client.post("/spend/limits", data=given)
        assert done.status_code == 200 and "$0.50, 9,000 tokens" in done.text and "<td>olga</td>" in done.text
        late = await client.post("/spend/limits", data=given | {"key": "other", "tokens": "1"})
        assert late.status_code == 409 and "revision" in late.text, "made of what somebody else has changed since"
        wrong = await client.post("/spend/limits", data=given | {"tokens": HOSTILE})
        assert wrong.status_code == 422 and "<script>alert" not in wrong.text
        again = form(done.text, 'name="tokens"') | {
            "target": "feature/search",
            "wall_ms": "90",
            "cost_usd_micros": "none",
        }
        kept = await client.post("/spend/limits", data=again)
        assert '<td class="main">feature/search</td><td>9,000 tokens, 1 min 30 s of calls</td>' in kept.text
        empty = await client.post("/spend/limits", data=form(kept.text, 'name="tokens"') | {"target": "feature/search"})
        assert empty.status_code == 422 and "no ceiling was named" in empty.text
        removed = form(kept.text, 'value="yes"') | {"target": "feature/search"}
        gone = (await client.post("/spend/limits", data=removed)).text
        assert "<td>no limit</td>" in gone and '<tr><td class="main">feature/search' not in gone
        async with browsing(on, OTHER_OPERATOR) as other:
            page = (await other.get("/spend?by=feature&since=1h")).text
            assert "No call was admitted in that time" in page and ">search<" not in page and "olga" not in page


async def test_a_dear_call_and_the_ceiling_of_the_day_are_named(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        on.model.will(plan({"id": "a"}), a=[says("Here is a.")])
        for _ in range(2):
            assert (await on.run())["status"] == "succeeded"
        on.model.will(plan({"id": "a"}), a=[says("Here is a.", told=usage(prompt=900_000, completion=9))])
        task = (await on.run())["task_id"]
        page = (await client.get("/spend/outliers?since=1h")).text
        assert "Model call <strong>" in page and f'href="/tasks/{task}/calls/' in page and "times the median" in page
        async with on.client(OPERATOR) as olga:
            await olga.change_limit("day", {"cost_usd_micros": 200_000})
        today = (await client.get("/spend/today")).text
        assert "At the rate of the last hour" in today and 'class="ceiling"' in today and "ceiling of the day" in today
        async with browsing(on, OTHER_OPERATOR) as other:
            assert task not in (await other.get("/spend/outliers?since=1h")).text


async def test_who_may_not_see_spending_sees_limits_and_changes_none(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, "bk_ann_of_demo") as ann:
        page = (await ann.get("/spend")).text
        assert "may not see what is spent" in page and "Limits" in page and "/spend/limits" not in page
        assert (await ann.post("/spend/limits", data={"target": "day", "tokens": "1"})).status_code == 403
        assert (await ann.get("/spend.json")).status_code == 403


def test_bars_have_one_scale_and_what_cost_little_is_seen() -> None:
    found = draw_bars([0, 1, 1_000_000], 0, 300)
    assert [one.height for one in found] == [0, 1, CHART_HEIGHT] and [one.from_unix_ms for one in found] == [
        0,
        100,
        200,
    ]
    assert draw_bars([], 0, 1) == [] and draw_bars([0, 0], 0, 2)[1].height == 0


def test_the_chart_has_hours_within_a_day_and_dates_beyond() -> None:
    assert [text for _, text in label_times(0, 5 * 3_600_000)] == [f"{hour:02}:00" for hour in range(6)]
    assert [text for _, text in label_times(0, 5 * 86_400_000)][-1] == "06 Jan"


def test_a_name_is_no_formula_in_a_spreadsheet() -> None:
    amounts = {"cost_usd_micros": 1, "tokens": 2, "calls": 3}
    sums = {"spent": amounts, "held": amounts}
    spent = {"rows": [{"name": "=cmd|' /C calc'!A0"} | sums], "rest": sums, "rest_rows": 0, "total": sums}
    [_, row, _] = csv.reader(io.StringIO(to_csv(spent)))
    assert row == ["name", "'=cmd|' /C calc'!A0", *["1", "2", "3"] * 2]


def test_a_spreadsheet_has_the_sum_of_names_that_are_not_listed_and_of_all() -> None:
    def sums(cost: int) -> dict[str, Any]:
        return {kind: {"cost_usd_micros": cost, "tokens": 0, "calls": 0} for kind in ("spent", "held")}

    spent = {"rows": [{"name": "a"} | sums(7)], "rest": sums(5), "rest_rows": 3, "total": sums(12)}
    rows = list(csv.DictReader(io.StringIO(to_csv(spent))))
    assert [(one["row"], one["name"], one["spent_cost_usd_micros"]) for one in rows] == [
        ("name", "a", "7"),
        ("rest", "3 others", "5"),
        ("total", "", "12"),
    ]


async def test_a_refused_part_is_told_and_asked_for_again_and_nothing_is_drawn_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ConsoleApi.get

    async def refuse_sums(api: ConsoleApi, token: str, path: str, query: Query | None = None) -> Json:
        if path == "/v1/spend" and (query or {}).get("since") in ("3600s", "24h"):
            raise ApiRefused(429, {"title": "Too many reads", "detail": "another sum is being read"})
        return await read(api, token, path, query)

    async with stage(tmp_path) as on, browsing(on, OPERATOR) as client:
        monkeypatch.setattr(ConsoleApi, "get", refuse_sums)
        for address, claims in {
            "/spend/today": ("At the rate", "At the last hour", "<svg"),
            "/overview/spending": ("$0.00", '<svg class="spark'),
            "/models": ("No model was called", "closed"),
            "/spend": ("No call was admitted", "Spent in"),
        }.items():
            page = (await client.get(address)).text
            assert "Too many reads" in page and 'hx-trigger="every 5s"' in page, address
            main = page.split("<main", 1)[1]
            assert not [claim for claim in claims if claim in main], address
        assert 'name="since"' in page, "a refused read leaves its filters"
