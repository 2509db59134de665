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
