"""Halts by people where nothing else goes wrong: the law about them holds, and a doer that is deaf breaks it."""

import pytest

from .schedule import Schedule, judge

SEEDS = (1, 11, 17)
"""Each has a tenant halted in the middle of a task that takes long; 11 and 17 in the middle of a model's answer."""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.slow
def test_what_is_halted_is_silent_and_goes_on_to_its_end(folder, seed: int) -> None:
    verdict = judge(Schedule(seed, faults=frozenset()), folder)
    assert {"halt", "resume"} <= set(verdict.record.acts), "nobody was halted"
    assert verdict.complaints == ()
