"""What cost, or took, ten times the median of its kind is an outlier."""

from bulkhead_services.budget.queries.outliers import CallAttempt, find_outliers


def attempt(number: int, *, cost: int = 10, took: int = 50, kind: str = "model_call", call: str = "") -> CallAttempt:
    return CallAttempt(kind, f"t{number}", "s", call or f"c{number}", "small-model", cost, took)  # type: ignore[arg-type]


USUAL = [attempt(number) for number in range(5)]


async def test_a_dear_call_is_named_with_its_step_and_task() -> None:
    found = await find_outliers([*USUAL, attempt(9, cost=100)], 9)
    assert [(row.kind, row.unit, row.task, row.amount, row.median) for row in found] == [
        ("task", "cost_usd_micros", "t9", 100, 10),
        ("step", "cost_usd_micros", "t9", 100, 10),
        ("model_call", "cost_usd_micros", "t9", 100, 10),
    ]
    call = found[-1]
    assert (call.step_id, call.call_id, call.resource) == ("s", "c9", "small-model")
    assert await find_outliers([*USUAL, attempt(9, cost=99)], 9) == ()


async def test_a_slow_call_is_one_by_its_time_and_attempts_at_a_call_count_together() -> None:
    slow = [attempt(9, took=300, call="c"), attempt(9, took=300, call="c")]
    by_kind = {row.kind: row for row in await find_outliers([*USUAL, *slow], 9)}
    assert by_kind["model_call"].unit == "wall_ms" and by_kind["model_call"].amount == 600
    quick = [attempt(number, took=3) for number in range(5)]
    assert await find_outliers([*quick, attempt(9, took=199)], 9) == (), "nobody waits for less"
    assert await find_outliers([*quick, attempt(9, took=200)], 9)


async def test_calls_of_tools_are_no_measure_of_calls_of_models() -> None:
    tools = [attempt(20 + number, took=900, kind="tool_call") for number in range(5)]
    kinds = {row.kind for row in await find_outliers([*USUAL, *USUAL, *tools], 99)}
    assert not kinds & {"model_call", "tool_call"}


async def test_too_few_of_a_kind_say_nothing_and_the_furthest_come_first() -> None:
    assert await find_outliers([*USUAL[:3], attempt(9, cost=1_000)], 9) == ()
    many = [*USUAL, *USUAL, attempt(8, cost=500), attempt(9, cost=5_000)]
    assert [row.amount for row in await find_outliers(many, 3)] == [5_000, 5_000, 5_000]
