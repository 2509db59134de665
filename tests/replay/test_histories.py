"""Recorded histories: today's logic must say, byte for byte, what was said when they were recorded."""

from pathlib import Path

import pytest

from bulkhead.runtime.replay import replay
from services.checker.app import LOGICS as CHECKER
from services.planner.app import LOGICS as PLANNER
from services.worker.app import LOGICS as WORKER
from tests.replay import history

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.jsonl"))
LOGICS = {"planner": PLANNER, "worker": WORKER, "checker": CHECKER}


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_recorded_history_replays(path):
    journal, texts = history.load(path)

    async def fetch(ref):
        return texts[ref.sha256]

    report = await replay(journal, LOGICS, fetch)
    assert report.divergences == []
    assert report.ended and report.compared >= 5


def test_there_are_histories_of_several_shapes():
    assert len(HISTORIES) >= 5
