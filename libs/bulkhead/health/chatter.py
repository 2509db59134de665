"""The chatter detector: messages between agents against work, per lineage, pair and group of agents.

In: acts. Out: findings. A pair is a group of two; a group is a strongly connected part of the graph of senders and
receivers, so that a triangle counts even where no pair says much. Work by any member resets a group's count. A message
to several agents (acts with one id) counts once, and so do their answers to it.
"""

import re
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.deadlock.scc import cyclic_components
from bulkhead.health.events import Act
from bulkhead.health.findings import HealthFinding, Level, shown_by
from bulkhead.health.per_lineage import LineageFolds
from bulkhead.health.text import normalize, result_status
from bulkhead.health.thresholds import ChatterThresholds

MAX_AGENTS = 256
MAX_HEARD = 256
"""Texts of one lineage that are remembered."""
MAX_PHRASES = 2_048
MAX_PHRASED_CHARS = 400
_NUMBER = re.compile(r"\d+")


def is_productive(act: Act) -> bool:
    """Check whether an act is work: a call with a result, unless the trace says otherwise. A message to
    another agent is talk.
    """
    if act.productive is not None:
        return act.productive
    return not act.to and not act.error and not act.says


def is_coordination(act: Act) -> bool:
    """Check whether an act is talk: a message to another agent."""
    return bool(act.to) and act.to != act.agent and not act.productive


@dataclass(slots=True)
class _PeerMessage:
    """A message to one or several agents. stale: how far it repeats earlier ones; telling: it has new content; excused:
    it reports work. answered: whether an answer to it was counted (shared by its receivers). counts: it is counted."""

    id: str = ""
    to: str = ""
    stale: float = 0.0
    telling: bool = False
    excused: bool = False
    counts: bool = False
    told: bool = False
    answers: list[bool] | None = None
    answered: list[bool] = field(default_factory=lambda: [False])


@dataclass(slots=True)
class _GroupTalk:
    """Talk inside a group since one of it last did work."""

    messages: "OrderedDict[str, None]" = field(default_factory=OrderedDict)
    stale: float = 0.0
    telling: int = 0

    def add_message(self, message: _PeerMessage) -> None:
        """One message, however many of the group it reaches."""
        if message.id not in self.messages:
            self.messages[message.id] = None
            self.stale += message.stale
            self.telling += message.telling


@dataclass(slots=True)
class _TalkBalance:
    """The balance of one lineage. recent: a window of acts: (coordination?, count, tokens, id, telling?). message: what
    was said last. asked: whether what was put to several was answered, by who may answer it, and whom."""

    thresholds: ChatterThresholds
    recent: deque[tuple[bool, int, int, str, bool]] = field(init=False)
    talks: dict[str, dict[str, None]] = field(default_factory=dict)
    groups: list[frozenset[str]] | None = None
    inside: dict[frozenset[str], _GroupTalk] = field(default_factory=dict)
    reported: set[tuple[str, str, Level]] = field(default_factory=set)
    earned: set[str] = field(default_factory=set)
    heard: BoundedDict[Hashable, None] = field(default_factory=partial(BoundedDict, MAX_HEARD))
    known_phrases: BoundedDict[Hashable, None] = field(default_factory=partial(BoundedDict, MAX_PHRASES))
    roles: dict[str, str] = field(default_factory=dict)
    message: _PeerMessage = field(default_factory=_PeerMessage)
    asked: BoundedDict[tuple[str, str], list[bool]] = field(default_factory=partial(BoundedDict, MAX_HEARD))

    def __post_init__(self) -> None:
        self.recent = deque(maxlen=self.thresholds.window)

    def fold_act(self, act: Act) -> list[HealthFinding]:
        if not is_coordination(act):
            if is_productive(act):
                self.recent.append((False, 1, act.tokens, act.id, False))
                self._record_work(act.agent)
            return []
        if act.id == self.message.id:
            self._add_receiver(act)
            return self._judge_message(act, self.message)
        if act.role and (act.agent in self.roles or len(self.roles) < MAX_AGENTS):
            self.roles[act.agent] = act.role
        content = act.arguments.get("text") if isinstance(act.arguments, dict) else act.arguments
        text = content if isinstance(content, str) else ""
        is_repeat = bool(text) and not _add_if_new(
            self.heard, normalize.digest_text(normalize.canonical_speech(text).casefold())
        )
        before = self.message
        answers_stale = before.stale == 1 and before.to == act.agent and result_status.reports_no_result(text)
        stale = 1.0 if is_repeat else self.thresholds.excuse_part if answers_stale else 0.0
        # The first message after an agent's own work reports its result.
        self.message = _PeerMessage(
            act.id,
            act.to,
            stale,
            not stale and self._has_new_content(text),
            act.agent in self.earned,
            answers=self.asked.pop((act.agent, act.to), None),
        )
        self.earned.discard(act.agent)
        return self._judge_message(act, self.message)

    def _add_receiver(self, act: Act) -> None:
        """The message reaches one more; each of those may answer it."""
        for to in (self.message.to, act.to):
            self.asked[to, act.agent] = self.message.answered

    def _judge_message(self, act: Act, message: _PeerMessage) -> list[HealthFinding]:
        if self._is_first(act) or message.excused:
            return []
        if not message.told:
            message.told = message.counts = True
            if message.answers is not None:
                message.counts, message.answers[0] = not message.answers[0], True
            telling = message.telling and message.counts
            self.recent.append((True, int(message.counts), act.tokens, act.id, telling))
        findings = [self._judge_lineage(act), self._judge_group(act, message) if message.counts else None]
        return [finding for finding in findings if finding is not None]

    def _is_first(self, act: Act) -> bool:
        """Check whether it is the agent's first message to this one: a hand-over, no chatter."""
        heard = self.talks.setdefault(act.agent, {}) if len(self.talks) < MAX_AGENTS else {}
        first = act.to not in heard and len(heard) < MAX_AGENTS
        if first:
            heard[act.to] = None
            self.groups = None
        return first

    def _has_new_content(self, text: str) -> bool:
        """Check whether most of its phrases are new to the lineage; other numbers make no new phrase."""
        unnumbered = _NUMBER.sub("#", text[:MAX_PHRASED_CHARS])
        phrases = normalize.phrases_of(unnumbered) if unnumbered else frozenset()
        new = sum([_add_if_new(self.known_phrases, phrase) for phrase in phrases])
        return new > self.thresholds.telling_part * len(phrases)

    def _stop_factor(self, telling: int, messages: int) -> int:
        return self.thresholds.telling_factor if telling > self.thresholds.telling_part * messages else 1

    def _record_work(self, agent: str) -> None:
        if len(self.earned) < MAX_AGENTS:
            self.earned.add(agent)
        for group in [names for names in self.inside if agent in names]:
            del self.inside[group]
        self.reported = {report for report in self.reported if report[0] != "group"}
        if self.reported:
            work, talk, _, _ = self._window_sums()
            if talk < self.thresholds.warn_ratio * work:
                self.reported.clear()

    def _window_sums(self) -> tuple[int, int, int, int]:
        """Acts of work and messages of the window, and the tokens of each."""
        work = talk = work_tokens = talk_tokens = 0
        for coordination, number, tokens, _, _ in self.recent:
            if coordination:
                talk, talk_tokens = talk + number, talk_tokens + tokens
            else:
                work, work_tokens = work + number, work_tokens + tokens
        return work, talk, work_tokens, talk_tokens

    def _judge_lineage(self, act: Act) -> HealthFinding | None:
        thresholds, (work, talk, work_tokens, tokens) = self.thresholds, self._window_sums()
        most = thresholds.stop_messages * self._stop_factor(sum(telling for *_, telling in self.recent), talk)

        def exceeds_limit(messages: int, ratio: float, most_tokens: int) -> bool:
            return (talk >= messages and talk >= ratio * work) or (
                tokens >= most_tokens and tokens >= ratio * work_tokens
            )

        level: Level = "stop" if exceeds_limit(most, thresholds.stop_ratio, thresholds.stop_tokens) else "warn"
        if level == "warn" and not exceeds_limit(
            thresholds.warn_messages, thresholds.warn_ratio, thresholds.warn_tokens
        ):
            return None
        if self._already_reported("task", "", level):
            return None
        agents = tuple(sorted(self.talks))[:MAX_AGENTS]
        description = f"{talk} messages ({tokens:,} tokens) between agents against {work} acts of work"
        evidence = tuple(name for coordination, _, _, name, _ in self.recent if coordination)
        facts = {"talk": talk, "work": work, "talk_tokens": tokens, "work_tokens": work_tokens}
        return shown_by(act, "chatter.task", level, agents, description, evidence, {**facts, **self._roles_of(agents)})

    def _judge_group(self, act: Act, message: _PeerMessage) -> HealthFinding | None:
        if self.groups is None:
            self._rebuild_groups()
        group = next((names for names in self.groups or () if act.agent in names and act.to in names), None)
        if group is None:
            return None
        inside = self.inside.setdefault(group, _GroupTalk())
        inside.add_message(message)
        count, stale, thresholds = len(inside.messages), inside.stale, self.thresholds
        most = thresholds.group_stop_messages * self._stop_factor(inside.telling, count)
        nothing_new = stale >= thresholds.stale_stop_messages and stale >= thresholds.stale_stop_part * count
        level: Level = "stop" if count >= most or nothing_new else "warn"
        agents = tuple(sorted(group))
        if count < thresholds.group_warn_messages or self._already_reported("group", "\0".join(agents), level):
            return None
        description = f"{count} messages between {', '.join(agents[:8])} since one of them last did any work"
        if stale:
            description += f"; {stale:.0f} of them had been said before"
        facts = {"talk": count, "agents": len(agents), "said_before": round(stale)}
        kind = "chatter.pair" if len(group) == 2 else "chatter.group"
        return shown_by(
            act, kind, level, agents, description, tuple(inside.messages), {**facts, **self._roles_of(agents)}
        )

    def _rebuild_groups(self) -> None:
        """Find the groups anew; a group that grew keeps the counts of its parts."""
        parts_of = cyclic_components(list(self.talks), lambda agent: self.talks.get(agent, ()))
        self.groups = [frozenset(names) for names in parts_of]
        for group in self.groups:
            parts = [self.inside.pop(names) for names in list(self.inside) if names < group]
            if parts:
                messages = OrderedDict((name, None) for part in parts for name in part.messages)
                stale, telling = sum(part.stale for part in parts), sum(part.telling for part in parts)
                self.inside[group] = _GroupTalk(messages, stale, telling)

    def _roles_of(self, agents: Iterable[str]) -> dict[str, list[str]]:
        return {"roles": sorted({self.roles[agent] for agent in agents if agent in self.roles})}

    def _already_reported(self, kind: str, who: str, level: Level) -> bool:
        if (kind, who, level) in self.reported or (kind, who, "stop") in self.reported:
            return True
        self.reported.add((kind, who, level))
        return False


def _add_if_new(known: BoundedDict[Hashable, None], what: Hashable) -> bool:
    """Add something; whether it is new."""
    if what in known:
        return False
    known[what] = None
    return True


class ChatterDetector(LineageFolds[_TalkBalance]):
    """Every living lineage's balance of talk and work."""

    def __init__(self, thresholds: ChatterThresholds) -> None:
        super().__init__(partial(_TalkBalance, thresholds))
