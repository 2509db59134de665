"""The windows of every lineage that the loop detectors look at: of each agent, of all acts, all texts and all calls.

In: acts. Out: trips, each once until something new is done. Memory is a window per agent of a living lineage; the end
of the lineage frees it.
"""

import re
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from bulkhead.health.events import Act
from bulkhead.health.findings import Trip, trip_of
from bulkhead.health.loops import detectors as loops_detectors
from bulkhead.health.loops.steps import MAX_STEP_CHARS, Finding, Step, Window
from bulkhead.health.text import normalize, result_status
from bulkhead.health.thresholds import LoopThresholds

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
Key = TypeVar("Key")
Value = TypeVar("Value")

MAX_LINEAGES = 100_000
MAX_ADDRESSES = 2_048
"""Ids that results of one lineage gave; beyond it the oldest are forgotten."""
MAX_SEEN = 1_024
PARALLEL = 16
"""Acts among which the twin of a call of the same turn is looked for."""
POLLED_PART = 0.8
"""Part of the time that a long poll was asked to wait, at least, for which it has waited."""
ALL = "lineage"
"""The view beside those of the agents."""


class Lineages:
    """Every living lineage."""

    def __init__(self, named: LoopThresholds) -> None:
        self._named = named
        self._lineages: OrderedDict[str, _Lineage] = OrderedDict()

    def take(self, act: Act) -> list[Trip]:
        """Trips of an act: the agent's own loops, then the lineage's."""
        lineage = self._lineages.get(act.lineage)
        if lineage is None:
            lineage = self._lineages[act.lineage] = _Lineage(self._named)
            _bound(self._lineages, MAX_LINEAGES)
        else:
            self._lineages.move_to_end(act.lineage)
        return lineage.take(act)

    def end(self, name: str) -> None:
        """Forget a lineage."""
        self._lineages.pop(name, None)

    def held(self, name: str) -> int:
        """Number of acts that are held of a lineage, at most."""
        lineage = self._lineages.get(name)
        return 0 if lineage is None else lineage.held()

    def __len__(self) -> int:
        return len(self._lineages)


class _Lineage:
    """The windows of one lineage."""

    __slots__ = (
        "_addresses",
        "_agents",
        "_all",
        "_changes",
        "_count",
        "_named",
        "_news",
        "_seen",
        "_shown",
        "_told",
        "_waited",
    )

    def __init__(self, named: LoopThresholds) -> None:
        self._named = named
        self._count = 0
        self._all: deque[Step] = deque(maxlen=named.window_acts)
        self._agents: OrderedDict[str, deque[Step]] = OrderedDict()
        self._seen: OrderedDict[int, tuple[int, int]] = OrderedDict()
        """Acts with their results, by digest: when last, and how often."""
        self._news: OrderedDict[str, int] = OrderedDict()
        """When each agent last did something new."""
        self._changes: OrderedDict[str, tuple[int, frozenset[str]]] = OrderedDict()
        """When it was more than a look, and the words of it."""
        self._addresses: OrderedDict[str, None] = OrderedDict()
        self._shown: OrderedDict[int, set[int]] = OrderedDict()
        """Results of each call, by their form without numbers."""
        self._waited: set[str] = set()
        self._told: set[tuple[str, str, str]] = set()

    def held(self) -> int:
        """Number of acts that are held, at most: each agent's, and all, as many as a window has."""
        return min(self._count, (1 + len(self._agents)) * self._named.window_acts)

    def take(self, act: Act) -> list[Trip]:
        """Fold one act."""
        if not act.says and not act.error and result_status.thinks(act.action):
            act = replace(act, says=True, arguments=normalize.thought(act.arguments), result=None)
        step = self._step(act)
        if not act.says:
            if result_status.waits(act.action, step.text) == "only" and step.state != "over":
                self._waited.add(act.agent)
                return []
            if result_status.lives(act.action) and not act.error:
                return []
        self._waited.discard(act.agent)
        if act.since_unix_ms and self._beside(step, act.since_unix_ms):
            return []
        new = self._is_new(step)
        self._window(act.agent).append(step)
        self._all.append(step)
        if act.to and act.to != act.agent:
            # What an agent is told is the result of its own question.
            self._window(act.to).append(step)
        if new and not step.says:
            # What was told before is over; an error in new words is the same error.
            keep = {"error"} if step.error else set[str]()
            self._told = {told for told in self._told if told[0] not in (act.agent, ALL) or told[1] in keep}
        trips = [self._tell(act, view, finding) for view, finding in self._findings(step, new)]
        return [trip for trip in trips if trip is not None]

    def _findings(self, step: Step, new: bool) -> Iterator[tuple[str, Finding]]:
        own = list(self._agents[step.agent])
        if step.says:
            if not step.to and (finding := loops_detectors.monologue(own, self._named)) is not None:
                yield step.agent, finding
        else:
            # An agent's own words change nothing between its calls.
            own = [one for one in own if not (one.says and one.agent == step.agent)]
            calls = [one for one in own if not one.says]
            if step.error and (finding := self._repeated_error(step, calls)) is not None:
                yield step.agent, finding
            if len(step.text) >= self._named.product_chars and not step.reads:
                own = calls  # The same work handed in again, whatever others said of it.
        if new:
            return
        views: list[tuple[str, Window]] = [(step.agent, own)]
        if len(self._agents) > 1:
            # A ring that talks is a loop beside somebody who works, and one that works beside what is said.
            kind = [one for one in self._all if one.says is step.says]
            views += [(ALL, list(self._all)), (ALL, kind)]
        for view, window in views:
            finding = self._exact(window)
            # Loops of several agents are told of them together, not of the one that came last.
            if finding is not None and (len(finding.agents) == 1) == (view == step.agent):
                yield view, finding

    def _repeated_error(self, step: Step, calls: Window) -> Finding | None:
        finding = loops_detectors.repeated_error(calls, self._named)
        if finding is None or finding.rounds >= self._named.error_stop:
            return finding
        # Where somebody else mends what is checked, the agent may try for as long as with other arguments.
        return None if self._prompted(step, calls[-2].index) else finding

    def _exact(self, window: Window) -> Finding | None:
        """A finding that stops, or else one that warns: a warning must not hide a stop."""
        detectors: tuple[Callable[[Window, LoopThresholds], Finding | None], ...] = (
            loops_detectors.cycle,
            loops_detectors.stagnation,
        )
        findings = [finding for detector in detectors if (finding := detector(window, self._named)) is not None]
        return next((finding for finding in findings if finding.level == "stop"), findings[0] if findings else None)

    def _tell(self, act: Act, view: str, finding: Finding) -> Trip | None:
        """A trip, unless this view was told of this family at this level already."""
        kind = finding.family if finding.family in ("error", "monologue") else "exact"
        if (view, kind, finding.level) in self._told or (view, kind, "stop") in self._told:
            return None
        self._told.add((view, kind, finding.level))
        shown = view if view == ALL else f"agent {view}"
        facts = {"view": shown, "period": finding.period, "rounds": finding.rounds}
        return trip_of(
            f"loop.{finding.family}",
            finding.level,
            act.tenant,
            act.lineage,
            finding.agents,
            finding.what,
            finding.evidence,
            act.time_unix_ms,
            act.id,
            facts,
        )

    # News

    def _is_new(self, step: Step) -> bool:
        """Whether nobody did this with this result before; or others have changed something that it is about since."""
        last, times = self._seen.pop(step.same, (0, 0))
        self._seen[step.same] = (step.index, times + 1)
        _bound(self._seen, MAX_SEEN)
        if not last and not (step.says or step.error):
            _put(self._news, step.agent, step.index, self._named.max_agents)
            if not step.reads:
                _put(self._changes, step.agent, (step.index, _words(step)), self._named.max_agents)
        # The second time proves nothing, for in the first round of a loop everything is new.
        if times > 1 and self._prompted(step, last, times):
            step.same ^= normalize.digest(str(step.index))
            return True
        return not last

    def _prompted(self, step: Step, last: int, times: int = 0) -> bool:
        """Whether somebody else did something since that this may be about.

        For what is said: anything new by the one that it is said to. For a check, a hand-over and a call that names
        nothing: anything new. For whatever else, and not for ever: a change, where its agent only looks, or a change of
        what it names.
        """
        if step.says:
            return self._news.get(step.to, 0) > last
        bare = step.text in ("", "{}") and step.length < self._named.informative_chars and not step.error
        if bare or result_status.follows(step.action, step.text):
            return any(at > last for agent, at in self._news.items() if agent != step.agent)
        if step.error or times >= self._named.prompted_most:
            return False
        own = [one.call for one in self._agents.get(step.agent, ()) if one.index > last and one.agent == step.agent]
        looking = step.reads or not (result_status.mutates(step.action) or set(own) - {step.call})
        changes = [words for agent, (at, words) in self._changes.items() if at > last and agent != step.agent]
        return any(looking or words & _words(step) for words in changes)

    def _beside(self, step: Step, since_unix_ms: int) -> bool:
        """Whether the same was asked before, and not yet answered when this was asked: calls of one turn."""
        lately = list(self._agents.get(step.agent, ()))[-PARALLEL:]
        return any(one.same == step.same and one.time_unix_ms > since_unix_ms for one in lately)

    # Steps

    def _window(self, agent: str) -> deque[Step]:
        window = self._agents.get(agent)
        if window is None:
            window = self._agents[agent] = deque(maxlen=self._named.window_acts)
            _bound(self._agents, self._named.max_agents)
        else:
            self._agents.move_to_end(agent)
        return window

    def _step(self, act: Act) -> Step:
        self._count += 1
        answer = "" if act.result is None else normalize.result(act.result, self._give)
        _bound(self._addresses, MAX_ADDRESSES)
        text = (
            normalize.said(act.arguments)
            if act.says and isinstance(act.arguments, str)
            else normalize.call(act.arguments, self._addresses, hands_over=result_status.hands_over(act.action))
        )
        call = normalize.digest(f"{act.agent}\0{act.action}\0{act.to}\0{text}")
        # An error with another number in it is the same error.
        told = _NUMBER.sub("#", answer) if act.error else answer
        result = normalize.digest(f"{act.error}\0{told}") if act.result is not None or act.error else 0
        step = Step(
            act.id,
            act.agent,
            act.action,
            call ^ (result >> 1),
            call,
            result,
            self._count,
            act.time_unix_ms,
            error=act.error,
            says=act.says,
            to=act.to,
            text=text[:MAX_STEP_CHARS],
            answer=answer[:MAX_STEP_CHARS],
            length=len(answer),
            waited=act.agent in self._waited,
            work=act.says and act.productive is True,
        )
        if not act.says:
            step.state = result_status.state_of(answer, act.error, text)
            step.reads, step.watches = result_status.reads(act.action, text), result_status.watches(act.action)
            step.waited = step.waited or bool(result_status.waits(act.action, text)) or self._polled(act, text)
            step.shown = self._figures_shown(step)
            screen = isinstance(act.result, str) and "\n" in act.result.strip()
            short = len(answer) <= self._named.blind_chars and not act.error and not screen
            step.blind = (short and result_status.moves(act.action, text)) or (
                len(answer) < self._named.informative_chars and result_status.did_many(answer)
            )
        return step

    def _polled(self, act: Act, text: str) -> bool:
        """Whether the call itself waited, as its arguments asked it to: a long poll."""
        wait_ms, window = result_status.asked_to_wait_ms(text), self._agents.get(act.agent)
        before_ms = act.since_unix_ms or (window[-1].time_unix_ms if window else 0)
        least_ms = max(POLLED_PART * wait_ms, self._named.poll_gap_ms)
        return wait_ms > 0 and before_ms > 0 and act.time_unix_ms - before_ms >= least_ms

    def _give(self, name: str) -> None:
        self._addresses[name] = None

    def _figures_shown(self, step: Step) -> int:
        """Number of results of a look, up to `lively`, that differ in numbers alone: of a gauge several."""
        if step.error or step.length >= self._named.informative_chars or result_status.follows(step.action, step.text):
            return 0
        results = self._shown.setdefault(step.call ^ normalize.digest(_NUMBER.sub("#", step.answer)), set())
        if len(results) < self._named.lively:
            results.add(step.result)
        _bound(self._shown, MAX_SEEN)
        return len(results)


def _words(step: Step) -> frozenset[str]:
    """Values that a call names."""
    return frozenset(word for word in step.text.replace(":", " ").split('"') if len(word) > 2 and word.strip(" ,{}[]"))


def _put(mapping: OrderedDict[str, Value], key: str, value: Value, most: int) -> None:
    """The newest entry last, and no more than `most`."""
    mapping[key] = value
    mapping.move_to_end(key)
    _bound(mapping, most)


def _bound(mapping: OrderedDict[Key, Value], most: int) -> None:
    while len(mapping) > most:
        mapping.popitem(last=False)
