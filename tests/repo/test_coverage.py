"""Figures of coverage: by package from a report, on the page, and what is said when they do not agree."""

from typing import Any

import pytest

from tests.coverage_table import TOTAL, as_table, complaints, floor_percent, percent_by_package, percents_of_page


def _summary(covered: int, countable: int) -> dict[str, Any]:
    half = {"covered_branches": 0, "num_branches": 0}
    return {"summary": {"covered_lines": covered, "num_statements": countable, **half}}


def test_files_count_by_their_size_in_their_package() -> None:
    files = {
        "libs/bulkhead/a.py": _summary(1, 1),
        "libs/bulkhead/inner/b.py": _summary(1, 3),
        "contracts/bulkhead_contracts/c.py": _summary(0, 4),
        "libs/bulkhead/__init__.py": _summary(0, 0),
    }
    measured = percent_by_package({"files": files})
    assert measured == {"bulkhead": 50.0, "bulkhead_contracts": 0.0, TOTAL: 25.0}
    assert as_table(measured).splitlines()[-2:] == ["| `bulkhead_contracts` | 0.0 % |", "| all of it | 25.0 % |"]


@pytest.mark.parametrize(
    ("total", "package", "said"),
    [(80.0, 70.0, []), (80.9, 69.1, []), (78.9, 70.0, ["is 78.9 %", "all of it"]), (80.0, 72.0, ["of bulkhead:"])],
)
def test_a_fall_below_the_floor_and_an_old_page_are_told(total: float, package: float, said: list[str]) -> None:
    told = complaints({TOTAL: total, "bulkhead": package}, {TOTAL: 80.0, "bulkhead": 70.0}, floor=79.0)
    assert len(told) == len(said) and all(part in sentence for part, sentence in zip(said, told, strict=True))


def test_the_page_shows_a_figure_that_the_floor_is_near() -> None:
    total = percents_of_page()[TOTAL]
    assert 0 <= total - floor_percent() < 3
