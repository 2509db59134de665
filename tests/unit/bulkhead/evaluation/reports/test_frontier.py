"""The frontier of candidates, and the proposal from it."""

from bulkhead.evaluation.reports.frontier import FrontierPoint, find_dominators, propose_candidate

LARGE = FrontierPoint("large", 0.97, 0.92, 3_000, 9_000)
SMALL = FrontierPoint("small", 0.90, 0.80, 1_000, 1_000)
TWIN = FrontierPoint("twin", 0.90, 0.80, 1_000, 1_000)
SLOW = FrontierPoint("slow", 0.90, 0.80, 2_000, 1_000)
POOR = FrontierPoint("poor", 0.50, 0.30, 3_000, 9_000)


def test_who_is_beaten_names_all_that_beat_it_and_equals_stay() -> None:
    assert find_dominators([LARGE, SMALL, TWIN, SLOW, POOR]) == {
        "large": [],
        "small": [],
        "twin": [],
        "slow": ["small", "twin"],
        "poor": ["large", "small", "twin", "slow"],
    }
    assert find_dominators([]) == {}


def test_the_cheapest_whose_lower_bound_reaches_the_gate_is_proposed() -> None:
    rows = [LARGE, SMALL, POOR]
    assert propose_candidate(rows, 0.80) == SMALL, "the bound itself suffices"
    assert propose_candidate(rows, 0.81) == LARGE, "what was measured does not"
    assert propose_candidate(rows, 0.93) is None and propose_candidate([], 0) is None


def test_one_that_is_beaten_is_not_proposed_and_of_equally_cheap_ones_the_better_is() -> None:
    better = FrontierPoint("better", 0.95, 0.85, 1_500, 1_000)
    assert propose_candidate([SLOW, SMALL], 0.5) == SMALL
    assert propose_candidate([SMALL, better], 0.5) == better
