"""Windows of acts for the loop detectors: per agent, and for the whole lineage.

In: acts. Out: findings, each once until something new is done. Memory is a window per agent of a living lineage; the
end of the lineage frees it.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.events import Act
from bulkhead.health.findings import HealthFinding, shown_by
from bulkhead.health.loops import detectors as loops_detectors
from bulkhead.health.loops.steps import MAX_STEP_CHARS, Loop, LoopStep, Window
from bulkhead.health.per_lineage import LineageFolds
from bulkhead.health.text import normalize, result_status
from bulkhead.health.thresholds import LoopThresholds

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")

MAX_ADDRESSES = 2_048
"""Ids that results of one lineage gave; beyond it the oldest are forgotten."""
MAX_SEEN = 1_024
PARALLEL = 16
"""Acts among which the twin of a call of the same turn is looked for."""
POLLED_PART = 0.8
"""Part of the time that a long poll was asked to wait, at least, for which it has waited."""
ALL = "lineage"
"""The view beside those of the agents."""


@dataclass(slots=True)
class _LoopWindows:
    """The windows of one lineage. seen: acts with their results, by digest: when last, and how often. news: when each
    agent last did something new; changes: when that was more than a look, and its words. addresses: ids that results
    gave. shown: results of each call, by their form without numbers."""

    thresholds: LoopThresholds
    count: int = 0
    waited: set[str] = field(default_factory=set)
    told: set[tuple[str, str, str]] = field(default_factory=set)
    seen: BoundedDict[int, tuple[int, int]] = field(default_factory=partial(BoundedDict, MAX_SEEN))
    shown: BoundedDict[int, set[int]] = field(default_factory=partial(BoundedDict, MAX_SEEN))
    addresses: BoundedDict[str, None] = field(default_factory=partial(BoundedDict, MAX_ADDRESSES))
    all: deque[LoopStep] = field(init=False)
    agents: BoundedDict[str, deque[LoopStep]] = field(init=False)
    news: BoundedDict[str, int] = field(init=False)
    changes: BoundedDict[str, tuple[int, frozenset[str]]] = field(init=False)

    def __post_init__(self) -> None:
        self.all, most = deque(maxlen=self.thresholds.window_acts), self.thresholds.max_agents
        self.agents, self.news, self.changes = BoundedDict(most), BoundedDict(most), BoundedDict(most)

    def held_acts(self) -> int:
        """Number of acts that are held, at most: each agent's, and all, as many as a window has."""
        return min(self.count, (1 + len(self.agents)) * self.thresholds.window_acts)

    def fold_act(self, act: Act) -> list[HealthFinding]:
        """Fold one act."""
        if not act.says and not act.error and result_status.keeps_thought(act.action):
            act = replace(act, says=True, arguments=normalize.thought_text(act.arguments), result=None)
        step = self._build_step(act)
        if not act.says:
            if result_status.waiting_kind(act.action, step.text) == "only" and step.state != "over":
                self.waited.add(act.agent)
                return []
            if result_status.is_sign_of_life(act.action) and not act.error:
                return []
        self.waited.discard(act.agent)
        if act.since_unix_ms and self._is_parallel_twin(step, act.since_unix_ms):
            return []
        if act.unmade and self._is_early_retry(step):
            return []
        new = self._is_new(step)
        self._agent_window(act.agent).append(step)
        self.all.append(step)
        if act.to and act.to != act.agent:
            # A message to an agent may be the answer to its own question.
            self._agent_window(act.to).append(step)
        if new and not step.says:
            # Earlier findings are over; an error in new words is the same error.
            keep = {"error"} if step.error else set[str]()
            self.told = {report for report in self.told if report[0] not in (act.agent, ALL) or report[1] in keep}
        findings = [self._report_loop(act, view, loop) for view, loop in self._find_loops(step, new)]
        return [finding for finding in findings if finding is not None]

    def _find_loops(self, step: LoopStep, new: bool) -> Iterator[tuple[str, Loop]]:
        own_steps = list(self.agents[step.agent])
        if step.says:
            if not step.to and (loop := loops_detectors.find_monologue(own_steps, self.thresholds)) is not None:
                yield step.agent, loop
        else:
            # An agent's own words change nothing between its calls.
            own_steps = [earlier for earlier in own_steps if not (earlier.says and earlier.agent == step.agent)]
            calls = [earlier for earlier in own_steps if not earlier.says]
            if step.error and (loop := self._find_repeated_error(step, calls)) is not None:
                yield step.agent, loop
            if len(step.text) >= self.thresholds.product_chars and not step.reads:
                own_steps = calls  # The same work handed in again, whatever the answers were.
        if new:
            return
        views: list[tuple[str, Window]] = [(step.agent, own_steps)]
        if len(self.agents) > 1:
            # A ring that talks is a loop even beside an agent that works, and the other way round.
            kind = [earlier for earlier in self.all if earlier.says is step.says]
            views += [(ALL, list(self.all)), (ALL, kind)]
        for view, window in views:
            loop = self._find_exact_loop(window)
            # Loops of several agents are reported for all of them together, not for the last one.
            if loop is not None and (len(loop.agents) == 1) == (view == step.agent):
                yield view, loop

    def _find_repeated_error(self, step: LoopStep, calls: Window) -> Loop | None:
        loop = loops_detectors.find_repeated_error(calls, self.thresholds)
        if loop is None or loop.rounds >= self.thresholds.error_stop:
            return loop
        # Where another agent mends the checked thing, the agent may try as long as with other arguments.
        return None if self._is_prompted(step, calls[-2].index) else loop

    def _find_exact_loop(self, window: Window) -> Loop | None:
        """A loop that stops, or else one that warns: a warning must not hide a stop."""
        candidates = (
            loops_detectors.find_cycle(window, self.thresholds),
            loops_detectors.find_stagnation(window, self.thresholds),
        )
        loops = [loop for loop in candidates if loop is not None]
        return next((loop for loop in loops if loop.level == "stop"), loops[0] if loops else None)

    def _report_loop(self, act: Act, view: str, loop: Loop) -> HealthFinding | None:
        """A finding, unless this view already has one of this family at this level."""
        kind = loop.family if loop.family in ("error", "monologue") else "exact"
        if (view, kind, loop.level) in self.told or (view, kind, "stop") in self.told:
            return None
        self.told.add((view, kind, loop.level))
        view_name = view if view == ALL else f"agent {view}"
        facts = {"view": view_name, "period": loop.period, "rounds": loop.rounds}
        evidence = tuple(step.id for step in loop.part)
        return shown_by(act, f"loop.{loop.family}", loop.level, loop.agents, loop.what, evidence, facts)

    # News

    def _is_new(self, step: LoopStep) -> bool:
        """Check whether the act with its result is new to the lineage, or others have changed something relevant
        since it was last seen.
        """
        last, times = self.seen.get(step.same, (0, 0))
        self.seen[step.same] = (step.index, times + 1)
        if not last and not (step.says or step.error):
            self.news[step.agent] = step.index
            if not step.reads:
                self.changes[step.agent] = (step.index, _named_values(step))
        # The second time proves nothing, for in the first round of a loop everything is new.
        if times > 1 and self._is_prompted(step, last, times):
            step.same ^= normalize.digest_text(str(step.index))
            return True
        return not last

    def _is_prompted(self, step: LoopStep, last: int, times: int = 0) -> bool:
        """Check whether another agent has since done something that this act may be about.

        A message: anything new by its receiver. A check, a hand-over and a call that names nothing: anything
        new. Any other call, and not for ever: a change, where its agent only looks, or a change of something
        that it names.
        """
        if step.says:
            return self.news.get(step.to, 0) > last
        bare = step.text in ("", "{}") and step.length < self.thresholds.informative_chars and not step.error
        if bare or result_status.follows_others_work(step.action, step.text):
            return any(index > last for agent, index in self.news.items() if agent != step.agent)
        if step.error or times >= self.thresholds.prompted_most:
            return False
        own_calls = [
            earlier.call
            for earlier in self.agents.get(step.agent, ())
            if earlier.index > last and earlier.agent == step.agent
        ]
        looking = step.reads or not (result_status.is_mutating(step.action) or set(own_calls) - {step.call})
        changes = [words for agent, (index, words) in self.changes.items() if index > last and agent != step.agent]
        return any(looking or words & _named_values(step) for words in changes)

    def _is_parallel_twin(self, step: LoopStep, since_unix_ms: int) -> bool:
        """Check whether the same was asked before, and not yet answered when this was asked: calls of one turn."""
        lately = list(self.agents.get(step.agent, ()))[-PARALLEL:]
        return any(earlier.same == step.same and earlier.time_unix_ms > since_unix_ms for earlier in lately)

    def _is_early_retry(self, step: LoopStep) -> bool:
        """Check whether a call that was not made is asked for again sooner than it could help; not for ever."""
        earlier_steps = reversed(self.agents.get(step.agent, ()))
        last = next((earlier for earlier in earlier_steps if earlier.call == step.call), None)
        if last is None or not last.error or step.time_unix_ms - last.time_unix_ms >= self.thresholds.look_gap_ms:
            return False
        last.early += 1
        step.early = last.early
        return step.early < self.thresholds.patient_stop

    # Steps

    def _agent_window(self, agent: str) -> deque[LoopStep]:
        window = self.agents.get_refreshed(agent)
        if window is None:
            window = self.agents[agent] = deque(maxlen=self.thresholds.window_acts)
        return window

    def _build_step(self, act: Act) -> LoopStep:
        self.count += 1
        answer = "" if act.result is None else normalize.canonical_result(act.result, self.addresses)
        text = (
            normalize.canonical_speech(act.arguments)
            if act.says and isinstance(act.arguments, str)
            else normalize.canonical_call(
                act.arguments, self.addresses, hands_over=result_status.hands_over(act.action)
            )
        )
        call = normalize.digest_text(f"{act.agent}\0{act.action}\0{act.to}\0{text}")
        # An error with another number in it is the same error.
        result_text = _NUMBER.sub("#", answer) if act.error else answer
        result = normalize.digest_text(f"{act.error}\0{result_text}") if act.result is not None or act.error else 0
        step = LoopStep(
            act.id,
            act.agent,
            act.action,
            call ^ (result >> 1),
            call,
            result,
            self.count,
            act.time_unix_ms,
            error=act.error,
            says=act.says,
            to=act.to,
            text=text[:MAX_STEP_CHARS],
            answer=answer[:MAX_STEP_CHARS],
            length=len(answer),
            waited=act.agent in self.waited,
            work=act.says and act.productive is True,
            begins=act.begins,
        )
        if not act.says:
            step.state = "passing" if act.unmade else result_status.state_of(answer, act.error, text)
            step.reads, step.watches = result_status.only_reads(act.action, text), result_status.is_watching(act.action)
            step.waited = (
                step.waited or bool(result_status.waiting_kind(act.action, text)) or self._is_long_poll(act, text)
            )
            step.shown = self._figures_shown(step)
            screen = isinstance(act.result, str) and "\n" in act.result.strip()
            short = len(answer) <= self.thresholds.blind_chars and not act.error and not screen
            step.blind = (short and result_status.moves_on(act.action, text)) or (
                len(answer) < self.thresholds.informative_chars and result_status.did_many(answer)
            )
        return step

    def _is_long_poll(self, act: Act, text: str) -> bool:
        """Check whether the call itself waited, as its arguments asked it to: a long poll."""
        wait_ms, window = result_status.asked_to_wait_ms(text), self.agents.get(act.agent)
        before_ms = act.since_unix_ms or (window[-1].time_unix_ms if window else 0)
        least_ms = max(POLLED_PART * wait_ms, self.thresholds.poll_gap_ms)
        return wait_ms > 0 and before_ms > 0 and act.time_unix_ms - before_ms >= least_ms

    def _figures_shown(self, step: LoopStep) -> int:
        """Number of results of a look, up to `lively`, that differ in numbers alone: of a gauge several."""
        if (
            step.error
            or step.length >= self.thresholds.informative_chars
            or result_status.follows_others_work(step.action, step.text)
        ):
            return 0
        results = self.shown.setdefault(step.call ^ normalize.digest_text(_NUMBER.sub("#", step.answer)), set())
        if len(results) < self.thresholds.lively:
            results.add(step.result)
        return len(results)


def _named_values(step: LoopStep) -> frozenset[str]:
    """Values that a call names."""
    return frozenset(
        value for value in step.text.replace(":", " ").split('"') if len(value) > 2 and value.strip(" ,{}[]")
    )


class LoopDetector(LineageFolds[_LoopWindows]):
    """Every living lineage: the agent's own loops, then the lineage's."""

    def __init__(self, thresholds: LoopThresholds) -> None:
        super().__init__(partial(_LoopWindows, thresholds))

    def held_acts(self, name: str) -> int:
        """Number of acts that are held of a lineage, at most."""
        lineage = self._lineages.get(name)
        return 0 if lineage is None else lineage.held_acts()
