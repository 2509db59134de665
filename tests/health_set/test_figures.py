"""The detectors on runs that nobody tuned them to: no figure may fall below the one that was committed."""

import pytest

from tests.health_set import figures
from tests.health_set.__main__ import BEGIN, END, PAGE
from tests.health_set.everything import SETS
from tests.health_set.runs import stalls
from tests.health_set.runs.traces import Register


def test_the_page_shows_the_kept_figures() -> None:
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert shown == figures.page(figures.kept()), "run `python -m tests.health_set --write` and commit what it wrote"


@pytest.mark.parametrize("register", SETS, ids=lambda one: one.name)
@pytest.mark.slow
def test_no_figure_falls(register: Register) -> None:
    found, floor = figures.judged(register), figures.kept()[register.name]
    assert found["checksum"] == floor["checksum"], (
        f"the {register.name} set is another one than the figures are of: sets do not change once they were scored"
    )
    assert not figures.worse(found, floor)


def test_the_sets_are_large_enough() -> None:
    assert sum(figures.kept()[register.name]["honest_runs"] for register in SETS) >= 1_000
    assert sum(figures.kept()[register.name]["looping_runs"] for register in SETS) >= 300


def test_every_stall_is_told_and_no_wait_is() -> None:
    for name, task in stalls.tasks():
        early, late = stalls.tripped(task, figures.STALL_LATER_MS)
        assert not early, f"{name}: told while something was outstanding"
        assert late is task.stalled, name
