"""What the whole suite ends with says what its lanes have shown."""

import pytest

from tests.__main__ import NOTHING_COLLECTED, verdict


@pytest.mark.parametrize(("lanes", "ends"), [
    ([0, 0, 0], 0),
    ([0, NOTHING_COLLECTED, 0], 0),
    ([0, 1, 0], 1),
    ([0, 2, 1], 2),
    # Killed, by whoever wanted its memory: it has shown nothing, and says no failure either.
    ([0, 0, -9], 137),
    ([0, -15, 1], 143),
])
def test_a_lane_that_did_not_end_well_is_no_success(lanes: list[int], ends: int) -> None:
    assert verdict(lanes) == ends
