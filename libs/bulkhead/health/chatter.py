"""Talk against work: coordination messages and tokens, per lineage, per pair and per group of agents.

In: acts. Out: trips. A pair is a group of two; a group is a strongly connected part of who talks to whom, so that a
triangle, in which no pair says much, counts as what it is. Work by anyone of a group sets its count back. What is said
to several at once (acts with one id) is one message, whoever of them it reaches, and their answers to it count as one.
"""

import re
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from bulkhead.health.deadlock.scc import components
from bulkhead.health.events import Act
from bulkhead.health.findings import Level, Trip, trip_of
from bulkhead.health.loops import acts
from bulkhead.health.text import normalize
from bulkhead.health.thresholds import ChatterThresholds

MAX_LINEAGES = 100_000
MAX_AGENTS = 256
MAX_HEARD = 256
"""Texts of one lineage that are remembered."""
_NUMBER = re.compile(r"\d+")
_COURTESY = re.compile(
    r"good ?-?bye|\bbye\b|farewell|take care|see you|talk (?:to you )?(?:soon|later)|until next time|stay well|cheers|"
    r"(?:have|enjoy) (?:a|an|your|the) (?:\w+ ){0,2}(?:day|evening|night|weekend|time|trip|one)|you too|likewise|"
    r"(?:it was |always )?(?:great|lovely|nice|good|a pleasure)\b(?: (?:talking|speaking|working|meeting|chatting))?|"
    r"(?:many )?thank(?:s| you)(?: (?:so|very) much| again)?|you(?:'re| are) (?:very |most )?welcome|"
    r"no problem|my pleasure|"
    r"noted|acknowledged|understood|got it|roger|copy that|will do|standing by|all (?:clear|good|set|well)|sounds good|"
    r"ready when|i wait for|looking forward|i look forward|congratulations|well done|agreed|same here|perfect|"
    r"tschüss|auf wiedersehen|danke|gerne|adi[oó]s|gracias|au revoir|merci",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^.!?;\n]+")
MAX_COURTEOUS_CHARS = 160
MAX_COURTEOUS_WORDS = 8
MAX_PHRASES = 2_048
MAX_PHRASED_CHARS = 400


class Chatter:
    """Every living lineage's balance of talk and work."""

    def __init__(self, named: ChatterThresholds) -> None:
        self._named = named
        self._lineages: OrderedDict[str, _Balance] = OrderedDict()

    def take(self, act: Act) -> list[Trip]:
        """Fold one act."""
        found = self._lineages.get(act.lineage)
        if found is None:
            found = self._lineages[act.lineage] = _Balance(self._named)
            while len(self._lineages) > MAX_LINEAGES:
                self._lineages.popitem(last=False)
        return found.take(act)

    def end(self, lineage: str) -> None:
        """Forget a lineage."""
        self._lineages.pop(lineage, None)

    def __len__(self) -> int:
        return len(self._lineages)


def is_productive(act: Act) -> bool:
    """Work: a call that came to something, unless the trace says otherwise; what is said to another agent is talk."""
    if act.productive is not None:
        return act.productive
    return not act.to and not act.error and not act.says


def is_coordination(act: Act) -> bool:
    """Talk: what is said to another agent."""
    return bool(act.to) and act.to != act.agent and not act.productive


def courtesy(text: str) -> int:
    """2 where each sentence of a short text thanks, agrees or takes leave, 1 where one does not, else 0."""
    if not text or len(text) > MAX_COURTEOUS_CHARS or "?" in text or _NUMBER.search(text):
        return 0
    sentences = [one for one in _SENTENCE.findall(text) if one.strip()]
    others = sum(_COURTESY.search(one) is None for one in sentences)
    if not sentences or others > 1 or others == len(sentences):
        return 0
    return 2 - others if all(len(one.split()) <= MAX_COURTEOUS_WORDS for one in sentences) else 0


@dataclass(slots=True)
class _Message:
    """What is said, to one or to several. to: the first of them. stale: how far it was said before; telling: it says
    something new; excused: it tells of work. answered: whether an answer to it was counted; answers: the same of what
    was put to several, where this answers that. told: it stands in the window, where it `counts` as one or as none."""

    id: str = ""
    to: str = ""
    stale: float = 0.0
    telling: bool = False
    excused: bool = False
    answers: list[bool] | None = None
    answered: list[bool] = field(default_factory=lambda: [False])
    several: bool = False
    told: bool = False
    counts: bool = False


class _Balance:
    """One lineage. `_recent` is a window of acts: (coordination?, how many, tokens, id, does it tell anything?)."""

    __slots__ = (
        "_asked",
        "_courteous",
        "_earned",
        "_groups",
        "_heard",
        "_inside",
        "_message",
        "_named",
        "_phrases",
        "_recent",
        "_roles",
        "_stale",
        "_talks",
        "_telling",
        "_tells",
        "_tokens",
        "_told",
        "_work",
    )

    def __init__(self, named: ChatterThresholds) -> None:
        self._named = named
        self._recent: deque[tuple[bool, int, int, str, bool]] = deque(maxlen=named.window)
        self._work = [0, 0]
        self._tokens = [0, 0]
        self._talks: dict[str, dict[str, None]] = {}
        self._groups: list[frozenset[str]] | None = None
        self._inside: dict[frozenset[str], deque[str]] = {}
        self._told: set[tuple[str, str, Level]] = set()
        self._earned: set[str] = set()
        self._heard: OrderedDict[int, None] = OrderedDict()
        self._stale: dict[frozenset[str], float] = {}
        self._roles: dict[str, str] = {}
        self._phrases: OrderedDict[str, None] = OrderedDict()
        self._courteous: list[tuple[str, str, int]] = []
        """The last acts of the lineage, as far as they were nothing but courtesies: by whom, which, and how much."""
        self._telling = 0
        """How many messages of the window tell something: most of their phrases are new."""
        self._message = _Message()
        """What was said last."""
        self._asked: OrderedDict[tuple[str, str], list[bool]] = OrderedDict()
        """Whether what was put to several was answered, by who may answer it, and whom."""
        self._tells: dict[frozenset[str], int] = {}
        """As many of each group, since one of it last did work."""

    def take(self, act: Act) -> list[Trip]:
        coordination = is_coordination(act)
        if coordination and act.id == self._message.id:
            return self._said_to(act, self._put_to_several(act))
        if coordination and (polite := courtesy(acts.words(act))):
            self._courteous.append((act.agent, act.id, polite))
        else:
            self._courteous.clear()
        stale = float(coordination and self._is_stale(act))
        if coordination and not stale and self._excuses(act):
            stale = self._named.excuse_part
        telling = coordination and not stale and self._tells_something(act)
        if not coordination:
            if is_productive(act):
                self._count(act, False, 1, False)
                self._worked(act.agent)
            return []
        if act.role and (act.agent in self._roles or len(self._roles) < MAX_AGENTS):
            self._roles[act.agent] = act.role
        # The first word after work of one's own tells what came of it.
        excused = act.agent in self._earned
        self._earned.discard(act.agent)
        answers = self._asked.pop((act.agent, act.to), None)
        self._message = _Message(act.id, act.to, stale, telling, excused, answers)
        return self._said_to(act, self._message)

    def _excuses(self, act: Act) -> bool:
        """Whether it answers what had been said before, and says in whatever words that nothing came of it."""
        said = self._message
        return said.stale == 1 and said.to == act.agent and normalize.vain(acts.words(act))

    def _put_to_several(self, act: Act) -> _Message:
        """The message that reaches one more of those whom it is said to; each of them may answer it."""
        said = self._message
        for one in (said.to, act.to):
            self._asked[one, act.agent] = said.answered
        while len(self._asked) > MAX_HEARD:
            self._asked.popitem(last=False)
        said.several = True
        return said

    def _said_to(self, act: Act, said: _Message) -> list[Trip]:
        """What is said reaches one of those whom it is said to."""
        if self._is_first(act) or said.excused:
            return []
        if not said.told:
            said.told = said.counts = True
            if said.answers is not None:
                said.counts, said.answers[0] = not said.answers[0], True
            self._count(act, True, int(said.counts), said.telling)
        found = [self._polite(act), self._whole(act), self._group(act, said) if said.counts else None]
        return [trip for trip in found if trip is not None]

    def _count(self, act: Act, coordination: bool, messages: int, telling: bool) -> None:
        """Add an act to the window; `messages`: how many of its kind it is."""
        telling = telling and messages > 0
        if len(self._recent) == self._named.window:
            old, number, tokens, _, told = self._recent[0]
            self._work[old] -= number
            self._tokens[old] -= tokens
            self._telling -= told
        self._recent.append((coordination, messages, act.tokens, act.id, telling))
        self._telling += telling
        self._work[coordination] += messages
        self._tokens[coordination] += act.tokens

    def _polite(self, act: Act) -> Trip | None:
        """Courtesies in a row, several by each of a few: nobody asks or tells anything any more."""
        named, count = self._named, len(self._courteous)
        agents = tuple(sorted({agent for agent, _, _ in self._courteous}))
        if count < max(named.courtesies_warn, 2 * len(agents)):
            return None
        if sum(polite > 1 for _, _, polite in self._courteous) < named.courtesies_part * count:
            return None
        level: Level = "stop" if count >= max(named.courtesies_stop, 3 * len(agents)) else "warn"
        if len(agents) < 2 or self._known("group", "courtesy", level):
            return None
        what = f"{count} messages in a row in which {', '.join(agents[:8])} only thanked, agreed or took leave"
        return trip_of(
            "chatter.pair" if len(agents) == 2 else "chatter.group",
            level,
            act.tenant,
            act.lineage,
            agents,
            what,
            tuple(name for _, name, _ in self._courteous),
            act.time_unix_ms,
            act.id,
            {"talk": count, "agents": len(agents), "roles": self._roles_of(agents)},
        )

    def _is_first(self, act: Act) -> bool:
        """Whether it is the first word to somebody: that hands something on."""
        heard = self._talks.setdefault(act.agent, {}) if len(self._talks) < MAX_AGENTS else {}
        first = act.to not in heard and len(heard) < MAX_AGENTS
        if first:
            heard[act.to] = None
            self._groups = None
        return first

    def _is_stale(self, act: Act) -> bool:
        """Whether somebody of the lineage has said the same before, to whomever."""
        said = act.arguments.get("text") if isinstance(act.arguments, dict) else act.arguments
        if not isinstance(said, str):
            return False
        name = normalize.digest(normalize.said(said).casefold())
        known = name in self._heard
        self._heard[name] = None
        if len(self._heard) > MAX_HEARD:
            self._heard.popitem(last=False)
        return known

    def _tells_something(self, act: Act) -> bool:
        """Whether most of its phrases were said by nobody before; other numbers make no other phrase."""
        said = _NUMBER.sub("#", acts.words(act)[:MAX_PHRASED_CHARS])
        found = normalize.phrases(said) if said else frozenset()
        new = [one for one in found if one not in self._phrases]
        for one in new:
            self._phrases[one] = None
        while len(self._phrases) > MAX_PHRASES:
            self._phrases.popitem(last=False)
        return len(new) > self._named.telling_part * len(found)

    def _patience(self, telling: int, messages: int) -> int:
        return self._named.telling_factor if telling > self._named.telling_part * messages else 1

    def _worked(self, agent: str) -> None:
        if len(self._earned) < MAX_AGENTS:
            self._earned.add(agent)
        for group in [one for one in self._inside if agent in one]:
            del self._inside[group]
            self._stale.pop(group, None)
            self._tells.pop(group, None)
        self._told = {one for one in self._told if one[0] != "group"}
        if self._work[False] and self._work[True] < self._named.warn_ratio * self._work[False]:
            self._told.clear()

    def _whole(self, act: Act) -> Trip | None:
        named, (work, talk), tokens = self._named, self._work, self._tokens[True]
        level: Level | None = None
        most = named.stop_messages * self._patience(self._telling, talk)
        if (talk >= most and talk >= named.stop_ratio * work) or (
            tokens >= named.stop_tokens and tokens >= named.stop_ratio * self._tokens[False]
        ):
            level = "stop"
        elif (talk >= named.warn_messages and talk >= named.warn_ratio * work) or (
            tokens >= named.warn_tokens and tokens >= named.warn_ratio * self._tokens[False]
        ):
            level = "warn"
        if level is None or self._known("task", "", level):
            return None
        agents = tuple(sorted(self._talks))[:MAX_AGENTS]
        what = f"{talk} messages ({tokens:,} tokens) between agents against {work} acts of work"
        evidence = tuple(name for coordination, _, _, name, _ in self._recent if coordination)
        return trip_of(
            "chatter.task",
            level,
            act.tenant,
            act.lineage,
            agents,
            what,
            evidence,
            act.time_unix_ms,
            act.id,
            {
                "talk": talk,
                "work": work,
                "talk_tokens": tokens,
                "work_tokens": self._tokens[False],
                "roles": self._roles_of(agents),
            },
        )

    def _group(self, act: Act, said: _Message) -> Trip | None:
        if self._groups is None:
            found = components(list(self._talks), lambda one: self._talks.get(one, ()))
            self._groups = [frozenset(one) for one in found]
            # A group that grew takes along what was said inside its parts.
            for group in self._groups:
                parts = [one for one in self._inside if one < group]
                if parts:
                    joined = [name for one in parts for name in self._inside.pop(one)]
                    self._inside[group] = deque(joined, maxlen=self._named.window)
                    self._stale[group] = sum(self._stale.pop(one, 0) for one in parts)
                    self._tells[group] = sum(self._tells.pop(one, 0) for one in parts)
        group = next((one for one in self._groups if act.agent in one and act.to in one), None)
        if group is None:
            return None
        inside = self._inside.setdefault(group, deque(maxlen=self._named.window))
        new = not said.several or act.id not in inside
        if new:
            inside.append(act.id)
        old = self._stale[group] = self._stale.get(group, 0) + new * said.stale
        told = self._tells[group] = self._tells.get(group, 0) + (new and said.telling)
        count, named = len(inside), self._named
        most = named.group_stop_messages * self._patience(told, count)
        nothing_new = old >= named.stale_stop_messages and old >= named.stale_stop_part * count
        level: Level | None = (
            "stop" if count >= most or nothing_new else ("warn" if count >= named.group_warn_messages else None)
        )
        agents = tuple(sorted(group))
        if level is None or self._known("group", "\0".join(agents), level):
            return None
        kind = "chatter.pair" if len(group) == 2 else "chatter.group"
        what = f"{count} messages between {', '.join(agents[:8])} since one of them last did any work"
        if old:
            what += f"; {old:.0f} of them had been said before"
        return trip_of(
            kind,
            level,
            act.tenant,
            act.lineage,
            agents,
            what,
            tuple(inside),
            act.time_unix_ms,
            act.id,
            {"talk": count, "agents": len(agents), "said_before": round(old), "roles": self._roles_of(agents)},
        )

    def _roles_of(self, agents: tuple[str, ...]) -> list[str]:
        """What is known of the roles in which they talk."""
        return sorted({self._roles[one] for one in agents if one in self._roles})

    def _known(self, kind: str, who: str, level: Level) -> bool:
        if (kind, who, level) in self._told or (kind, who, "stop") in self._told:
            return True
        self._told.add((kind, who, level))
        return False
