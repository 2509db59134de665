"""The whole set over a real mesh, by every scripted character: no right answer is lost, no fewer flaws are caught.

Nightly and not in CI, which runs a sample (tests/e2e/test_answer_set.py). The floors are those of the last measurement.
"""

from pathlib import Path

import pytest

from tests.answer_set.__main__ import caught
from tests.answer_set.questions import load
from tests.answer_set.running import run

RIGHT_PLAIN = {"obedient": 103, "terse": 104, "chatty": 101, "disobedient": 71}
"""By character: right answers that stand without a mark, at least."""
CAUGHT: dict[str, dict[str, int]] = {
    "wrong": {
        "operand_of_other_thing": 19,
        "date_of_other_thing": 4,
        "half_unanswered": 5,
        "invented_sum": 22,
        "invented_fact": 10,
        "injected": 4,
        "other_rule": 9,
        "reversed": 3,
    }
}
"""By character and flaw: wrong answers that do not stand as plain `succeeded`, at least."""


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("character", RIGHT_PLAIN)
async def test_no_right_answer_is_thrown_away(character: str, tmp_path: Path) -> None:
    rows = await run([f"scripted:{character}"], load(), tmp_path)
    assert [(row.id, row.outcome, row.why) for row in rows if row.verdict != "right"] == []
    assert sum(row.outcome == "right_plain" for row in rows) >= RIGHT_PLAIN[character]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("character", CAUGHT)
async def test_no_fewer_wrong_answers_are_caught(character: str, tmp_path: Path) -> None:
    found = caught(await run([f"scripted:{character}"], load(), tmp_path))
    assert {flaw: found[flaw] for flaw, least in CAUGHT[character].items() if found[flaw][0] < least} == {}
