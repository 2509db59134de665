"""Amounts as people read them."""

import pytest

from bulkhead.text import amounts


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [
        (999, "999 ms"),
        (1_500, "1.5 s"),
        (90_000, "1 min 30 s"),
        (3_599_400, "59 min 59 s"),
        (3_599_600, "1 h 0 min"),
        (7_500_000, "2 h 5 min"),
        (200 * 3_600_000, "200 h 0 min"),
    ],
)
def test_a_duration_has_the_units_of_its_size(milliseconds: int, said: str) -> None:
    assert amounts.format_duration(milliseconds) == said


def test_money_in_a_column_has_its_point_in_one_place_and_a_figure_three_digits() -> None:
    columns = [amounts.format_usd_column(micros) for micros in (740, 721, 12_345_678, 0)]
    assert columns[:2] == ["$0.000740", "$0.000721"] and len({text[::-1].index(".") for text in columns}) == 1
    shorts = [amounts.format_usd_short(micros) for micros in (66_512, 9_815, 740, 3, 999_999, 1_234_560_000, 0)]
    assert shorts == ["$0.0665", "$0.00982", "$0.000740", "$0.000003", "$1.000", "$1,234.56", "$0.00"]
