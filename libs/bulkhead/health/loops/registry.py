"""What is asked about a call: every detector of calls as one row, with the view that it looks at, when it is worth
asking, and what excuses what it finds.

In: `Seen`, a call and what is around it. Out: findings, each with the view that it is told of. To add a detector, write
it as a function over a window (`loops`, `futile`, `outcomes`, `undone`), and its row here. The order counts: the first
rows are always asked, the others only where nothing was found before them.
"""

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from bulkhead.health.loops import counters, detectors, outcomes, undone_writes
from bulkhead.health.loops.detectors import Finding, Step, Window
from bulkhead.health.text import result_status
from bulkhead.health.thresholds import LoopThresholds

MIN_CLAIMS = 8
"""Nine calls are three agents three times round."""
_ROUNDS_BACK = 24

Detector = Callable[[Window, LoopThresholds], Finding | None]
EXACT: tuple[Detector, ...] = (detectors.repeat, detectors.cycle, detectors.stagnation)
"""Of every view, when something was done that had been done before with the same result."""


@dataclass(slots=True)
class Seen:
    """A call and what is around it.

    calls: the agent's window without its own words, which changed nothing; acts: the lineage's. known: done before with
    the same result; again: something like it was, by whomever; often: the call was made before, whatever came of it.
    agents: how many there are. claims: how many calls in a row were the one before, made by somebody else.

    prompted: whether others did new work since an act (by its index) that a step is about. changed: whether anybody but
    these agents has changed something since an act.
    """

    step: Step
    named: LoopThresholds
    calls: Window
    acts: Iterable[Step]
    known: bool
    again: bool
    often: bool
    agents: int
    claims: int
    prompted: Callable[[Step, int], bool]
    changed: Callable[[Container[str], int], bool]
    _every: list[Step] | None = field(default=None, repr=False)
    _mute: list[Step] | None = field(default=None, repr=False)

    @property
    def every(self) -> list[Step]:
        """All acts of the lineage."""
        if self._every is None:
            self._every = list(self.acts)
        return self._every

    @property
    def mute(self) -> list[Step]:
        """The agent's calls, and nothing that was said."""
        if self._mute is None:
            self._mute = [one for one in self.calls if not one.says]
        return self._mute


Shown = Literal["agent", "lineage", "by_number"]


class View(NamedTuple):
    """What a detector looks at. name: what its finding is told of; by_number: of the agent if it is one, else of the
    lineage. alone: whether it must be one agent's (True), several agents' (False), or anybody's (None)."""

    name: Shown
    window: Callable[[Seen], Window]
    alone: bool | None = None

    def tells(self, finding: Finding) -> bool:
        """Whether a finding is this view's to tell: loops of several are told of them together."""
        return self.alone is None or self.alone is (len(finding.agents) == 1)

    def shown(self, seen: Seen, finding: Finding) -> str:
        """The name of the view, as trips have it."""
        alone = self.name == "agent" or (self.name == "by_number" and len(finding.agents) == 1)
        return f"agent {seen.step.agent}" if alone else "lineage"


def _all_calls(seen: Seen) -> Window:
    return [one for one in seen.every if not one.says]


CALLS = View("agent", lambda seen: seen.calls)
OWN_CALLS = CALLS._replace(alone=True)
MUTE = View("agent", lambda seen: seen.mute)
OWN_MUTE = MUTE._replace(alone=True)
LATE_MUTE = View("agent", lambda seen: [one for one in seen.calls[-_ROUNDS_BACK:] if not one.says])
OWN_OF_ALL = View("agent", _all_calls, alone=True)
ALL = View("lineage", lambda seen: seen.every)
SQUAD = ALL._replace(alone=False)
SQUAD_CALLS = View("lineage", _all_calls, alone=False)
WHOEVER = View("by_number", lambda seen: seen.every)


def _never(_seen: Seen, _window: Window, _finding: Finding) -> bool:
    return False


class Question(NamedTuple):
    """One row. worth: whether it could find anything at all; finds: the detector; excused: what it finds is none."""

    worth: Callable[[Seen], bool]
    views: tuple[View, ...]
    finds: Callable[[Seen, Window], Finding | None]
    excused: Callable[[Seen, Window, Finding], bool] = _never

    def answers(self, seen: Seen) -> Iterator[tuple[str, Finding]]:
        """What it finds, of each of its views."""
        for view in self.views:
            window = view.window(seen)
            finding = self.finds(seen, window)
            if finding is not None and view.tells(finding) and not self.excused(seen, window, finding):
                yield view.shown(seen, finding), finding


def strongest(window: Window, named: LoopThresholds) -> Finding | None:
    """The first of the exact ones that stops, or else warns: a warning must not hide that another one would stop."""
    warning = None
    for one in EXACT:
        found = one(window, named)
        if found is not None and found.level == "stop":
            return found
        warning = warning or found
    return warning


def asked(seen: Seen) -> list[tuple[str, Finding]]:
    """What is found of a call, each with the view that it is told of."""
    found = [one for question in ALWAYS if question.worth(seen) for one in question.answers(seen)]
    for question in OTHERWISE:
        if found:
            break
        if question.worth(seen):
            found += question.answers(seen)
    return found


def _by(detector: Detector) -> Callable[[Seen, Window], Finding | None]:
    """A detector that needs nothing but its window."""
    return lambda seen, window: detector(window, seen.named)


# When it is worth asking


def _product(seen: Seen) -> bool:
    """Whether the arguments are a piece of work."""
    return len(seen.step.text) >= seen.named.product_chars


def _often_or_in_vain(seen: Seen) -> bool:
    """Whether the call was made often, or its action often enough for rounds of it and something failed lately."""
    if seen.often:
        return True
    often = sum(one.action == seen.step.action for one in seen.calls[-_ROUNDS_BACK:])
    return often >= seen.named.counting_warn_rounds and any(
        counters.fails(one) for one in seen.calls[-counters.MAX_PERIOD :]
    )


def _written_again(seen: Seen) -> bool:
    return seen.often or (_product(seen) and counters.is_version(seen.step.text))


def _only_talk_between(seen: Seen) -> bool:
    """Whether nothing but talk lies between this call and the one before, which had the same outcome."""
    if seen.agents < 2:
        return False
    before = next((one for one in seen.every[-2::-1] if not one.says), None)
    return (
        before is not None
        and before is not seen.every[-2]
        and (outcomes.outcome(before) == outcomes.outcome(seen.step))
    )


def _handed(seen: Seen) -> bool:
    """Whether the task is handed on, by what the call is called or to whom the answer before had named."""
    named = seen.agents >= seen.named.down_warn and counters.is_handed(seen.every, seen.step)
    return named or result_status.delegates(seen.step.action)


def _looks_again(seen: Seen) -> bool:
    """Whether an action that only looks was done again and again."""
    step, least = seen.step, seen.named.counting_stop_rounds
    if step.error or not result_status.reads(step.action, step.text):
        return False
    return sum(one.action == step.action for one in seen.calls[-_ROUNDS_BACK:]) >= least and not _handed(seen)


# What needs more than its window, and what excuses it


def _failures(seen: Seen, calls: Window) -> Finding | None:
    mended = [one for one in calls if one is seen.step or not result_status.notes(one.action)]
    finding = detectors.failing(mended, seen.named)
    if finding is None or finding.level == "warn":
        finding = detectors.errors(calls, seen.named) or finding
    return finding


def _mends(seen: Seen, calls: Window, finding: Finding) -> bool:
    """Somebody else mends what is checked: he may try for as long as one who tries around by himself."""
    return finding.rounds < seen.named.error_stop and seen.prompted(seen.step, calls[-2].index)


def _prompted(seen: Seen, calls: Window, finding: Finding) -> bool:
    """Others did new work during the last round."""
    return seen.prompted(seen.step, calls[-1 - finding.period].index)


def _changed(seen: Seen, calls: Window, finding: Finding) -> bool:
    """Somebody else changed something during the last round."""
    return seen.changed(finding.agents, calls[-1 - finding.period].index)


ALWAYS = (
    Question(lambda seen: seen.known, (OWN_CALLS,), _by(strongest)),
    Question(lambda seen: seen.known and _product(seen), (OWN_OF_ALL,), _by(detectors.product)),
    Question(lambda seen: seen.agents > 1, (SQUAD,), _by(detectors.passed)),
    Question(lambda seen: seen.agents > 1 and seen.claims >= MIN_CLAIMS, (ALL,), _by(counters.claimed_round)),
    Question(lambda seen: seen.agents > 1 and seen.again, (ALL,), _by(detectors.respawned)),
    Question(lambda seen: seen.step.error, (CALLS,), _failures, _mends),
    Question(_product, (CALLS,), _by(detectors.stuffing)),
    Question(lambda seen: bool(seen.step.page), (CALLS,), _by(detectors.beyond)),
)
OTHERWISE = (
    Question(
        _often_or_in_vain, (MUTE,), lambda seen, calls: counters.counting(calls, seen.named, seen.every), _prompted
    ),
    Question(lambda seen: seen.often, (OWN_MUTE, SQUAD_CALLS), _by(counters.acknowledged), _changed),
    Question(_written_again, (WHOEVER,), _by(undone_writes.undone)),
    Question(_only_talk_between, (ALL,), _by(outcomes.unmoved)),
    Question(
        lambda seen: len(seen.step.text) >= seen.named.informative_chars and not seen.step.error,
        (LATE_MUTE,),
        _by(outcomes.asked_again),
    ),
    Question(_handed, (ALL,), _by(counters.handed_down)),
    Question(_looks_again, (CALLS,), lambda seen, calls: outcomes.fruitless(calls, seen.named, seen.every), _changed),
    Question(_product, (MUTE,), _by(counters.versions)),
)
"""Asked one after the other, until one finds something."""
