"""Figures of coverage: by package from a report, on the page, and what is said when they do not agree."""

from tests.coverage_table import TOTAL, floor_percent, percents_of_page


def test_the_page_shows_a_figure_that_the_floor_is_near() -> None:
    total = percents_of_page()[TOTAL]
    assert 0 <= total - floor_percent() < 3
