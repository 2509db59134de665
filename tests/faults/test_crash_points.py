"""Every service dies at every one of its crash points, one at a time, and nobody can tell from the result.

The list is the runtime's own (`crashing.POINTS`); a point that a task never passes fails, so that the list is true.
"""

import re
from pathlib import Path

import pytest

from bulkhead.runtime import crashing
from bulkhead_contracts import catalog
from tests.faults.fixtures.errand import Errand, nothing_waits
from tests.faults.fixtures.standing import Standing

SOURCES = Path(crashing.__file__).parent
PASSES = re.compile(r'crashing\.passes\("(\w+)"\)')
NTH = {
    ("budget", "before_publish"): 3, ("budget", "after_publish"): 3,
    ("budget", "after_receive"): 2, ("budget", "before_ack"): 2, ("budget", "after_ack"): 2,
}  # fmt: skip
"""While it builds its ledger budget publishes two marks and hears one of them; a task makes it pass once more."""
MORE = [
    # The first publish of the gateway stores a request, the second passes it on with its authority.
    ("gateway", "before_publish", 2), ("gateway", "after_publish", 2),
    # In the middle of building the ledger.
    ("budget", "after_publish", 1),
]  # fmt: skip
CASES = [*((name, point, NTH.get((name, point), 1)) for name, has in crashing.POINTS.items() for point in has), *MORE]
STAYS_HELD = {(name, point) for name in ("model_gateway", "tool_executor") for point in ("after_reserve", "after_act")}
"""Who has reserved and dies before the record settles nothing: the lease ends what he held."""
DIES_WITHIN_S = 10.0


def test_the_list_is_whole() -> None:
    in_code = {point for path in SOURCES.glob("*.py") for point in PASSES.findall(path.read_text())}
    assert in_code == set(crashing.MEANING)
    assert set(crashing.POINTS) == set(catalog.SERVICES)
    assert {point for points in crashing.POINTS.values() for point in points} == in_code


@pytest.mark.parametrize(
    "text, said",
    [
        ("walker:after_publish:1", "there is no service 'walker'"),
        ("worker:after_lunch:1", "worker has no crash point 'after_lunch'; it has after_receive"),
        ("signer:before_ack", "signer has no crash point 'before_ack'"),
        ("worker:after_publish:0", "'0' is no number of times"),
        ("worker:after_publish:x", "'x' is no number of times"),
        ("worker", "worker has no crash point ''"),
    ],
)
def test_what_is_no_point_is_refused(text: str, said: str) -> None:
    with pytest.raises(crashing.UnknownPoint, match=re.escape(said)):
        crashing.parse(text)


def test_nothing_is_armed_by_default() -> None:
    assert crashing.parse("") is None and crashing._armed is None
    crashing.arm("planner", "worker:after_publish:1")
    assert crashing._armed is None, "another service's point"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("service, point, nth", CASES, ids=[f"{s}-{p}-{n}" for s, p, n in CASES])
async def test_a_crash_changes_nothing(standing: Standing, service: str, point: str, nth: int) -> None:
    before = standing.crashes(service, point)
    pid = await standing.arm(service, point, nth)
    claims = point == "after_claim"
    errand = Errand(standing, tool="counter_increment_unkeyed" if claims else "counter_increment")
    # A gateway may die of the task before, whose last facts come late.
    await errand.submit_until_taken()
    if claims:
        await _is_uncertain(errand)
    else:
        document = await errand.ends_rightly()
    if not await standing.died(service, pid, DIES_WITHIN_S):
        await standing.disarm(service)
        pytest.fail(f"a task passes no point {service}:{point} {nth} time(s): the list is not true")
    assert standing.crashes(service, point) == before + 1
    await nothing_waits(standing)
    if not claims:
        await errand.adds_up(document, held=int((service, point) in STAYS_HELD))
        await errand.said_once()


async def _is_uncertain(errand: Errand) -> None:
    """Claimed, and nobody knows whether it was done: it is not done again, and a person is told."""
    assert errand.task is not None
    document = await errand.world.finish(errand.task)
    assert (document["status"], document["failure"]["code"]) == ("failed", "uncertain_effect"), document
    assert "person" in document["failure"]["hint"], document["failure"]
    assert errand.counted() == 0
