"""The day's forecast: when the ceiling is reached, what midnight finds, and its drawings."""

from dataclasses import replace

from bulkhead_services.gateway.console.spend.forecast import (
    CHART_HEIGHT,
    DayForecast,
    draw_day,
    draw_spark,
    draw_sparks,
    find_ceiling,
)

NOON = DayForecast(
    spent=60,
    held=0,
    calls=6,
    failed_calls=0,
    burn=10,
    ceiling=100,
    elapsed_s=43_200,
    cost_parts=(0,) * 6 + (10,) * 6,
    call_parts=(1,) * 6 + (0,) * 6,
    burn_parts=(0,) * 11 + (10,),
)


def test_the_ceiling_is_reached_when_the_rate_of_the_last_hour_has_spent_what_is_left() -> None:
    assert (NOON.projected, NOON.reached_ms, NOON.percent, NOON.over) == (180, 4 * 3_600_000, 60, False)
    assert replace(NOON, ceiling=200).reached_ms is None, "not before midnight"
    assert replace(NOON, ceiling=60).over and replace(NOON, ceiling=60).reached_ms is None
    unlimited = replace(NOON, ceiling=None)
    assert (unlimited.over, unlimited.percent, unlimited.reached_ms) == (False, 0, None)


def test_the_chart_of_the_day_has_the_ceiling_and_the_projection_on_one_scale() -> None:
    chart = draw_day(NOON)
    assert [amount for _, amount in chart.labels] == [0, 100, 180]
    assert chart.ceiling_y == round(CHART_HEIGHT * (1 - 100 / 180), 1)
    assert chart.spent_path.endswith(f"L450.0 {CHART_HEIGHT * (1 - 60 / 180):.1f}")
    assert chart.projected_path.endswith("L900.0 0.0")
    far = draw_day(replace(NOON, ceiling=1_000))
    assert far.ceiling_y == 0 and [amount for _, amount in far.labels] == [0, 1_000]
    assert draw_day(replace(NOON, ceiling=None)).ceiling_y is None
    assert draw_day(DayForecast(0, 0, 0, 0, 0, 0, 1)).spent_path == f"M0.0 {float(CHART_HEIGHT)}", "nothing yet"


def test_each_figure_of_the_day_has_a_curve_flat_where_nothing_was() -> None:
    sparks = draw_sparks(NOON)
    assert {name: spark.most for name, spark in sparks.items() if spark} == {
        "cost": 10,
        "share": 60,
        "hour": 10,
        "calls": 1,
    }
    flat = draw_spark((0, 0))
    assert flat is not None and flat.path == "M0 32L0.0 30.0L240.0 30.0L240 32Z"
    assert draw_spark((5,)) is None


def test_the_lower_of_policy_and_limit_is_the_ceiling() -> None:
    row = {"target": "day", "limit": {"cost_usd_micros": 7}}
    policy = {"day": {"cost_usd_micros": 9}}
    assert find_ceiling({"limits": [row], "policy": policy}) == 7
    assert find_ceiling({"limits": [], "policy": policy}) == 9
    assert find_ceiling({"limits": [], "policy": None}) is None
