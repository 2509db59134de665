"""Quality of ended tasks: what counts, by which name, in which part of the time."""

from typing import Any

from bulkhead.gateway_api.ratings import RatingCounts
from bulkhead.gateway_api.tasks import TaskSummary
from bulkhead_services.gateway.read_model.ratings.quality import measure_quality


def task(number: int, **changes: Any) -> TaskSummary:
    fields = {
        "task_id": f"t{number}",
        "status": "succeeded",
        "objective": "x",
        "created_unix_ms": 0,
        "updated_unix_ms": 1_000 + number,
        "person": "ann",
        "cost_usd_micros": 100,
        "standing": "ok",
        "answered": "yes",
        "feature": "claims",
        "models": ("m1",),
        "citations": 2,
    }
    return TaskSummary.model_validate(fields | changes)


def test_only_whole_answers_are_good_and_only_what_ended_by_itself_counts() -> None:
    counted = [
        task(1),
        task(2, standing="degraded"),
        task(3, answered="no", citations=0),
        task(4, status="failed", standing=None, answered="no"),
    ]
    left_out = [
        task(5, status="cancelled"),
        task(6, status="running"),
        task(7, status="rejected"),
        task(8, kind="adopted", answered="unknown"),
        task(9, feature="eval"),
    ]
    total = measure_quality([*counted, *left_out], "feature", 0, 10_000).total
    assert (total.ended, total.good, total.refused, total.answers, total.citations) == (4, 1, 1, 3, 4)
    assert (total.cost_usd_micros, total.per_good_usd_micros) == (400, 400)
    assert total.good_share is not None and total.good_share.low < 0.25 < total.good_share.high
    assert total.rated is None and total.judged is None


def test_rows_stand_for_features_releases_or_models_and_a_task_counts_for_each_of_its_models() -> None:
    tasks = [
        task(1, models=("m1", "m2"), release="production.3"),
        task(2, release="production.3.canary"),
        task(3, models=(), feature=""),
    ]
    names = {
        by: {row.name: row.ended for row in measure_quality(tasks, by, 0, 10_000).rows}  # type: ignore[arg-type]
        for by in ("feature", "prompt", "model")
    }
    assert names == {
        "feature": {"claims": 2, "(no feature)": 1},
        "prompt": {"production.3": 1, "production.3.canary": 1, "(shipped prompts)": 1},
        "model": {"m1": 2, "m2": 1, "(no model)": 1},
    }


def test_a_part_of_the_time_has_what_ended_in_it_with_its_ratings() -> None:
    good, bad = RatingCounts(good=3, bad=1, judged_bad=1), RatingCounts(bad=2)
    tasks = [task(0, updated_unix_ms=1_000, ratings=good), task(1, updated_unix_ms=1_999, ratings=bad)]
    page = measure_quality(
        [*tasks, task(2, updated_unix_ms=2_000), task(3, updated_unix_ms=999)], "feature", 1_000, 2_000, 4
    )
    assert [part.ended for part in page.slices] == [1, 0, 0, 1]
    assert [part.from_unix_ms for part in page.slices] == [1_000, 1_250, 1_500, 1_750]
    assert page.slices[0].rated is not None and page.slices[0].rated.value == 0.75
    assert page.total.rated is not None and (page.total.rated.value, page.total.ratings.bad) == (0.5, 3)
    assert page.total.judged is not None and page.total.judged.value == 0.0
