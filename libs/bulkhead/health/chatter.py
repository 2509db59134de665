"""The chatter detector: messages between agents against work, per lineage, pair and group of agents.

In: acts. Out: findings. A pair is a group of two; a group is a strongly connected part of the graph of senders and
receivers, so that a triangle counts even where no pair says much. Work by any member resets a group's count. A message
to several agents (acts with one id) counts once, and so do their answers to it.
"""

import re
from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.deadlock.scc import components
from bulkhead.health.events import Act
from bulkhead.health.findings import Finding, Level, finding_of
from bulkhead.health.text import normalize, result_status
from bulkhead.health.thresholds import ChatterThresholds

MAX_LINEAGES = 100_000
MAX_AGENTS = 256
MAX_HEARD = 256
"""Texts of one lineage that are remembered."""
MAX_PHRASES = 2_048
MAX_PHRASED_CHARS = 400
_NUMBER = re.compile(r"\d+")


class Chatter:
    """Every living lineage's balance of talk and work."""

    def __init__(self, named: ChatterThresholds) -> None:
        self._named = named
        self._lineages = BoundedDict[str, _Balance](MAX_LINEAGES)

    def take(self, act: Act) -> list[Finding]:
        """Fold one act."""
        balance = self._lineages.get(act.lineage)
        if balance is None:
            balance = self._lineages[act.lineage] = _Balance(self._named)
        return balance.take(act)

    def end(self, lineage: str) -> None:
        """Forget a lineage."""
        self._lineages.pop(lineage, None)

    def __len__(self) -> int:
        return len(self._lineages)


def is_productive(act: Act) -> bool:
    """Whether an act is work: a call with a result, unless the trace says otherwise. A message to another agent is
    talk."""
    if act.productive is not None:
        return act.productive
    return not act.to and not act.error and not act.says


def is_coordination(act: Act) -> bool:
    """Whether an act is talk: a message to another agent."""
    return bool(act.to) and act.to != act.agent and not act.productive


@dataclass(slots=True)
class _Message:
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
class _Group:
    """Talk inside a group since one of it last did work."""

    messages: "OrderedDict[str, None]" = field(default_factory=OrderedDict)
    stale: float = 0.0
    telling: int = 0

    def add(self, message: _Message) -> None:
        """One message, however many of the group it reaches."""
        if message.id not in self.messages:
            self.messages[message.id] = None
            self.stale += message.stale
            self.telling += message.telling


class _Balance:
    """The balance of one lineage. `_recent` is a window of acts: (coordination?, count, tokens, id, telling?)."""

    __slots__ = (
        "_asked",
        "_earned",
        "_groups",
        "_heard",
        "_inside",
        "_message",
        "_named",
        "_phrases",
        "_recent",
        "_roles",
        "_talks",
        "_told",
    )

    def __init__(self, named: ChatterThresholds) -> None:
        self._named = named
        self._recent: deque[tuple[bool, int, int, str, bool]] = deque(maxlen=named.window)
        self._talks: dict[str, dict[str, None]] = {}
        self._groups: list[frozenset[str]] | None = None
        self._inside: dict[frozenset[str], _Group] = {}
        self._told: set[tuple[str, str, Level]] = set()
        self._earned: set[str] = set()
        self._heard = BoundedDict[Hashable, None](MAX_HEARD)
        self._phrases = BoundedDict[Hashable, None](MAX_PHRASES)
        self._roles: dict[str, str] = {}
        self._message = _Message()
        """The message that was said last."""
        self._asked = BoundedDict[tuple[str, str], list[bool]](MAX_HEARD)
        """Whether what was put to several was answered, by who may answer it, and whom."""

    def take(self, act: Act) -> list[Finding]:
        if not is_coordination(act):
            if is_productive(act):
                self._recent.append((False, 1, act.tokens, act.id, False))
                self._worked(act.agent)
            return []
        if act.id == self._message.id:
            self._put_to_several(act)
            return self._said_to(act, self._message)
        if act.role and (act.agent in self._roles or len(self._roles) < MAX_AGENTS):
            self._roles[act.agent] = act.role
        said = act.arguments.get("text") if isinstance(act.arguments, dict) else act.arguments
        text = said if isinstance(said, str) else ""
        known = bool(text) and not _remember(self._heard, normalize.digest(normalize.said(text).casefold()))
        before = self._message
        answers_stale = before.stale == 1 and before.to == act.agent and result_status.vain(text)
        stale = 1.0 if known else self._named.excuse_part if answers_stale else 0.0
        # The first message after an agent's own work reports its result.
        self._message = _Message(
            act.id,
            act.to,
            stale,
            not stale and self._tells_something(text),
            act.agent in self._earned,
            answers=self._asked.pop((act.agent, act.to), None),
        )
        self._earned.discard(act.agent)
        return self._said_to(act, self._message)

    def _put_to_several(self, act: Act) -> None:
        """The message reaches one more; each of those may answer it."""
        for to in (self._message.to, act.to):
            self._asked[to, act.agent] = self._message.answered

    def _said_to(self, act: Act, message: _Message) -> list[Finding]:
        if self._is_first(act) or message.excused:
            return []
        if not message.told:
            message.told = message.counts = True
            if message.answers is not None:
                message.counts, message.answers[0] = not message.answers[0], True
            telling = message.telling and message.counts
            self._recent.append((True, int(message.counts), act.tokens, act.id, telling))
        found = [self._whole(act), self._group(act, message) if message.counts else None]
        return [trip for trip in found if trip is not None]

    def _is_first(self, act: Act) -> bool:
        """Whether it is the agent's first message to this one: a hand-over, which is no chatter."""
        heard = self._talks.setdefault(act.agent, {}) if len(self._talks) < MAX_AGENTS else {}
        first = act.to not in heard and len(heard) < MAX_AGENTS
        if first:
            heard[act.to] = None
            self._groups = None
        return first

    def _tells_something(self, text: str) -> bool:
        """Whether most of its phrases are new to the lineage; other numbers make no new phrase."""
        said = _NUMBER.sub("#", text[:MAX_PHRASED_CHARS])
        phrases = normalize.phrases(said) if said else frozenset()
        new = sum([_remember(self._phrases, phrase) for phrase in phrases])
        return new > self._named.telling_part * len(phrases)

    def _patience(self, telling: int, messages: int) -> int:
        return self._named.telling_factor if telling > self._named.telling_part * messages else 1

    def _worked(self, agent: str) -> None:
        if len(self._earned) < MAX_AGENTS:
            self._earned.add(agent)
        for group in [names for names in self._inside if agent in names]:
            del self._inside[group]
        self._told = {told for told in self._told if told[0] != "group"}
        if self._told:
            work, talk, _, _ = self._sums()
            if talk < self._named.warn_ratio * work:
                self._told.clear()

    def _sums(self) -> tuple[int, int, int, int]:
        """Acts of work and messages of the window, and the tokens of each."""
        work = talk = work_tokens = talk_tokens = 0
        for coordination, number, tokens, _, _ in self._recent:
            if coordination:
                talk, talk_tokens = talk + number, talk_tokens + tokens
            else:
                work, work_tokens = work + number, work_tokens + tokens
        return work, talk, work_tokens, talk_tokens

    def _whole(self, act: Act) -> Finding | None:
        named, (work, talk, work_tokens, tokens) = self._named, self._sums()
        most = named.stop_messages * self._patience(sum(telling for *_, telling in self._recent), talk)
        level: Level | None = None
        if (talk >= most and talk >= named.stop_ratio * work) or (
            tokens >= named.stop_tokens and tokens >= named.stop_ratio * work_tokens
        ):
            level = "stop"
        elif (talk >= named.warn_messages and talk >= named.warn_ratio * work) or (
            tokens >= named.warn_tokens and tokens >= named.warn_ratio * work_tokens
        ):
            level = "warn"
        if level is None or self._known("task", "", level):
            return None
        agents = tuple(sorted(self._talks))[:MAX_AGENTS]
        what = f"{talk} messages ({tokens:,} tokens) between agents against {work} acts of work"
        evidence = tuple(name for coordination, _, _, name, _ in self._recent if coordination)
        facts = {"talk": talk, "work": work, "talk_tokens": tokens, "work_tokens": work_tokens}
        return self._trip(act, "chatter.task", level, agents, what, evidence, facts)

    def _group(self, act: Act, message: _Message) -> Finding | None:
        if self._groups is None:
            self._regroup()
        group = next((names for names in self._groups or () if act.agent in names and act.to in names), None)
        if group is None:
            return None
        inside = self._inside.setdefault(group, _Group())
        inside.add(message)
        count, stale, named = len(inside.messages), inside.stale, self._named
        most = named.group_stop_messages * self._patience(inside.telling, count)
        nothing_new = stale >= named.stale_stop_messages and stale >= named.stale_stop_part * count
        level: Level = "stop" if count >= most or nothing_new else "warn"
        agents = tuple(sorted(group))
        if count < named.group_warn_messages or self._known("group", "\0".join(agents), level):
            return None
        what = f"{count} messages between {', '.join(agents[:8])} since one of them last did any work"
        if stale:
            what += f"; {stale:.0f} of them had been said before"
        facts = {"talk": count, "agents": len(agents), "said_before": round(stale)}
        kind = "chatter.pair" if len(group) == 2 else "chatter.group"
        return self._trip(act, kind, level, agents, what, tuple(inside.messages), facts)

    def _regroup(self) -> None:
        """Find the groups anew; a group that grew keeps the counts of its parts."""
        parts_of = components(list(self._talks), lambda agent: self._talks.get(agent, ()))
        self._groups = [frozenset(names) for names in parts_of]
        for group in self._groups:
            parts = [self._inside.pop(names) for names in list(self._inside) if names < group]
            if parts:
                messages = OrderedDict((name, None) for part in parts for name in part.messages)
                stale, telling = sum(part.stale for part in parts), sum(part.telling for part in parts)
                self._inside[group] = _Group(messages, stale, telling)

    def _trip(
        self,
        act: Act,
        detector: str,
        level: Level,
        agents: tuple[str, ...],
        what: str,
        evidence: tuple[str, ...],
        facts: Mapping[str, object],
    ) -> Finding:
        roles = sorted({self._roles[agent] for agent in agents if agent in self._roles})
        return finding_of(
            detector,
            level,
            act.tenant,
            act.lineage,
            agents,
            what,
            evidence,
            act.time_unix_ms,
            act.id,
            {**facts, "roles": roles},
        )

    def _known(self, kind: str, who: str, level: Level) -> bool:
        if (kind, who, level) in self._told or (kind, who, "stop") in self._told:
            return True
        self._told.add((kind, who, level))
        return False


def _remember(known: BoundedDict[Hashable, None], what: Hashable) -> bool:
    """Add something; whether it is new."""
    if what in known:
        return False
    known[what] = None
    return True
