"""A sample of the set of answers over a real mesh: right answers without markers stand, wrong ones never stand plain.

The whole set, and every character, runs at night (tests/answer_set/whole_set.py).
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.answer_set.questions import load
from tests.answer_set.running import Row, run

pytestmark = [pytest.mark.nightly, pytest.mark.asyncio(loop_scope="session")]

SAMPLE = {
    *("firm-kiln-opening", "firm-mugs-weight", "firm-bowls-free", "firm-contract-notice"),
    *("home-wohnflaeche", "home-kuendigungsverzicht", "home-boiler-service", "home-nebenkosten-saldo"),
    *("parish-bracken-decided", "parish-upkeep-two", "parish-values-compared", "parish-school-rent"),
}
"""Questions of which every wrong answer is caught; docs/explanation/answers.md says how many of all are."""


async def test_right_answers_stand_and_wrong_ones_are_marked_or_refused(tmp_path: Path) -> None:
    questions = tuple(question for question in load() if question.id in SAMPLE)
    assert len(questions) == len(SAMPLE)
    rows = await run(["scripted:terse", "scripted:wrong"], questions, tmp_path)
    right, wrong = [row for row in rows if not row.flaw], [row for row in rows if row.flaw]
    assert len(right) == len(SAMPLE) < len(wrong)
    assert _told(row for row in right if row.verdict != "right") == []
    assert _told(row for row in wrong if row.outcome == "wrong_plain") == []


def _told(rows: Iterable[Row]) -> list[str]:
    return [f"{row.id} {row.flaw}: {row.outcome}: {row.said} -> {row.answer or row.why}" for row in rows]
