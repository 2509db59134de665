"""What planted bugs showed to be untested: numbers that every language must agree on, sums of what is missing."""

import pytest

from bulkhead_contracts import subjects
from bulkhead_contracts.result import Completeness, Omission, merge_completeness

LACKS = Completeness.missing(Omission(reason="pruned", what="two passages"))


@pytest.mark.parametrize(("task", "partition"), [("task-1", 3), ("t1", 9), ("a", 15)])
def test_a_tasks_partition_is_a_number_that_stands(task, partition):
    """Everybody who publishes reckons it: another program, another language, the next version, every process."""
    assert subjects.partition_of(task) == partition


@pytest.mark.parametrize("parts", [(LACKS, Completeness()), (Completeness(), LACKS), (LACKS,), (LACKS, LACKS)])
def test_what_is_missing_from_any_part_is_missing_from_the_whole(parts):
    assert merge_completeness(*parts) == LACKS
    assert merge_completeness(Completeness(), Completeness()).complete and merge_completeness().complete
