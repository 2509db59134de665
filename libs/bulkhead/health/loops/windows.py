"""Runs the loop detectors over every lineage: one window per agent, per group of agents that talk, and for the whole.

In: acts. Out: trips, each once until something new is done. Memory is a window per agent of a living lineage; the end
of the lineage frees it.
"""

from collections import OrderedDict, deque
from collections.abc import Container, Iterable

from bulkhead.health.deadlock.scc import components
from bulkhead.health.events import Act
from bulkhead.health.findings import Trip, trip_of
from bulkhead.health.loops import acts, counters, detectors, registry, value_flow
from bulkhead.health.loops.call_identity import Empty, LongCalls, plainer
from bulkhead.health.loops.detectors import Finding, Step, Window
from bulkhead.health.text import normalize, result_status
from bulkhead.health.thresholds import LoopThresholds

MAX_LINEAGES = 100_000
MAX_ADDRESSES = 2_048
"""Ids that results of one lineage gave; beyond it the oldest are forgotten."""
MAX_SEEN = 1_024
MAX_HEARD = 16
"""Ids of one result that are told from where they came; more of them are a list, and each item is another one."""
PARALLEL = 16
"""So many acts back the twin of a call of the same turn is looked for."""
NOTHING = 0

KINDS = {
    "error": "soft",
    "monologue": "soft",
    "paraphrase": "soft",
    "beyond": "pages",
    "respawn": "respawn",
    "stuffing": "stuffing",
    "fruitless": "fruitless",
    "down": "down",
    "counting": "counting",
    "versions": "versions",
    "automatic": "automatic",
    "undone": "undone",
    "unmoved": "unmoved",
    "again": "again",
}
"""Families that are told again after something else than a new result, or (those made of new ones) never."""


class Lineages:
    """Every living lineage."""

    def __init__(self, named: LoopThresholds) -> None:
        self._named = named
        self._lineages: OrderedDict[str, _Lineage] = OrderedDict()

    def take(self, act: Act) -> list[Trip]:
        """What an act trips, in order: the agent's own loops, its group's, the lineage's."""
        lineage = self._lineages.get(act.lineage)
        if lineage is None:
            lineage = self._lineages[act.lineage] = _Lineage(self._named)
            while len(self._lineages) > MAX_LINEAGES:
                self._lineages.popitem(last=False)
        else:
            self._lineages.move_to_end(act.lineage)
        return lineage.take(act)

    def end(self, name: str) -> None:
        """Forget a lineage."""
        self._lineages.pop(name, None)

    def held(self, name: str) -> int:
        """How many acts are held of a lineage, at most."""
        lineage = self._lineages.get(name)
        return 0 if lineage is None else lineage.held()

    def __len__(self) -> int:
        return len(self._lineages)


class _Lineage:
    """The windows of one lineage."""

    __slots__ = (
        "_acted",
        "_addresses",
        "_agents",
        "_all",
        "_call",
        "_calls",
        "_changes",
        "_claims",
        "_count",
        "_empty",
        "_groups",
        "_kins",
        "_looks",
        "_named",
        "_news",
        "_pages",
        "_repeats",
        "_seen",
        "_talks",
        "_told",
        "_waited",
        "_workers",
    )

    def __init__(self, named: LoopThresholds) -> None:
        self._named = named
        self._count = 0
        self._all: deque[Step] = deque(maxlen=named.window_acts)
        self._agents: OrderedDict[str, deque[Step]] = OrderedDict()
        self._seen: OrderedDict[int, tuple[int, int]] = OrderedDict()
        """What was done, by its digest: when last, and how often."""
        self._pages: dict[int, int] = {}
        """What stood on the last page, by the call without its number."""
        self._repeats: OrderedDict[int, int] = OrderedDict()
        """How often a call was made, whatever came of it."""
        self._news: dict[str, int] = {}
        """When an agent last did what nobody of the lineage had done before."""
        self._changes: dict[str, tuple[int, str]] = {}
        """When it last did so, and it was more than a look; and with what arguments."""
        self._acted: dict[str, int] = {}
        """When an agent last did more than look, new or not."""
        self._addresses: OrderedDict[str, None] = OrderedDict()
        self._empty = Empty()
        self._talks: dict[str, dict[str, None]] = {}
        self._groups: list[set[str]] | None = []
        self._looks = result_status.Looks()
        self._call: Step | None = None
        self._claims = 0
        """How many calls in a row were the one before, made by somebody else."""
        self._waited: set[str] = set()
        self._workers: set[str] = set()
        self._kins: OrderedDict[int, None] = OrderedDict()
        self._calls = LongCalls(self._named.max_agents)
        self._told: dict[tuple[str, str], set[tuple[str, str]]] = {}

    def held(self) -> int:
        """How many acts are held, at most: of each agent, and of all, as many as a window has."""
        return min(self._count, (1 + len(self._agents)) * self._named.window_acts)

    def take(self, act: Act) -> list[Trip]:
        """Fold one act."""
        act = acts.plain(act)
        if acts.is_pause(act):
            self._waited.add(act.agent)
            return []
        if acts.only_lives(act):
            return []
        step = self._step(act)
        if act.since_unix_ms and self._beside(step, act.since_unix_ms):
            return []
        last, times = self._seen.pop(step.same, (0, 0))
        self._seen[step.same] = (step.index, times + 1)
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        if not last and not act.says and not act.error and not self._only_counts(step):
            self._news[act.agent] = step.index
            if len(self._news) > self._named.max_agents:
                self._news.pop(next(iter(self._news)))
            if not result_status.reads(act.action, step.text):
                self._changes[act.agent] = (step.index, step.text)
                if len(self._changes) > self._named.max_agents:
                    self._changes.pop(next(iter(self._changes)))
        if times > 1 and self._prompted(step, last, times):
            # Again it is done to something new: no repetition of what was done to something else. The second time
            # proves nothing, for in the first round of a loop all is new.
            step.same, last = step.same ^ normalize.digest(str(step.index)), 0
        if not act.says and not result_status.reads(act.action, step.text) and not result_status.notes(act.action):
            self._acted[act.agent] = step.index
            if len(self._acted) > self._named.max_agents:
                self._acted.pop(next(iter(self._acted)))
        known = bool(last)
        own = self._window(act.agent)
        if not act.says:
            before = self._call
            same = before is not None and (before.action, before.text) == (step.action, step.text)
            self._claims = self._claims + 1 if same and before is not None and before.agent != step.agent else 0
            self._call = step
        own.append(step)
        self._all.append(step)
        if act.to and act.to != act.agent:
            # What an agent is told is what came of its own asking.
            self._window(act.to).append(step)
            self._talk(act.agent, act.to)
        found = self._detect(step, own, known)
        return [trip for view, finding in found if (trip := self._tell(act, view, finding)) is not None]

    def _detect(self, step: Step, own: deque[Step], known: bool) -> Iterable[tuple[str, Finding]]:
        window, again = list(own), self._again(step)
        if known:
            yield from self._done_before(step, window)
        elif not step.says:
            # New to the lineage: whatever was told before is over for the views that this act is in.
            for view in (f"agent {step.agent}", "lineage", "group"):
                self._told.pop((view, "exact"), None)
        if step.says:
            yield from self._of_words(step, window, again)
        else:
            yield from self._of_calls(step, window, known, again)
            if result_status.notes(step.action) and self._is_noted(step):
                yield from self._monologue(step, window)
        if not step.says or step.to:
            yield from self._nearly(step, window, known)

    def _done_before(self, step: Step, window: Window) -> Iterable[tuple[str, Finding]]:
        """What was done before with the same result: by the agent, by the whole lineage, by those who talk together."""
        agent = f"agent {step.agent}"
        views: list[tuple[str, Window]] = [(agent, window)]
        if len(self._agents) > 1:
            views.append(("lineage", list(self._all)))
            group = self._group_of(step.agent)
            if group is not None and len(group) < len(self._agents):
                views.append(("group", self._merged(group)))
        for view, part in views:
            finding = registry.strongest(part, self._named)
            # What others said stands in an agent's window as news; loops of several are told of them together, and
            # loops of one of its own window.
            if finding is not None and (view == agent) == (len(finding.agents) == 1):
                yield view, finding

    def _of_words(self, step: Step, window: Window, again: bool) -> Iterable[tuple[str, Finding]]:
        """What texts say: of the lineage, or, said to nobody, of their agent."""
        if again:
            every = list(self._all)
            for one in (detectors.respawned, counters.handed_round):
                if (finding := one(every, self._named)) is not None:
                    yield "lineage", finding
        if step.to:
            if (finding := counters.automatic(self._all, self._named)) is not None:
                yield "lineage", finding
            return
        yield from self._monologue(step, window)

    def _is_noted(self, step: Step) -> bool:
        """Whether a call writes down a piece of what is planned."""
        long = len(step.text) >= self._named.product_chars
        return long and not step.error and not result_status.reads(step.action, step.text)

    def _monologue(self, step: Step, window: Window) -> Iterable[tuple[str, Finding]]:
        step.fresh = normalize.phrases(step.text)
        if (finding := detectors.monologue(window, self._named)) is not None:
            yield f"agent {step.agent}", finding

    def _nearly(self, step: Step, window: Window, known: bool) -> Iterable[tuple[str, Finding]]:
        """What is nearly the same as what the agent did lately."""
        soft = (f"agent {step.agent}", "soft")
        if not known and self._may_be_near(step, window):
            told = self._told.get(soft, ())
            if ("paraphrase", "warn") not in told and (
                finding := detectors.paraphrase(window, self._named)
            ) is not None:
                yield soft[0], finding
        elif not step.error and not step.says:
            # A call that brought something new: what was said of errors and monologues is over.
            self._told.pop(soft, None)

    def _of_calls(self, step: Step, window: Window, known: bool, again: bool) -> list[tuple[str, Finding]]:
        """What an agent's calls say once its own words between them, which changed nothing, are left out."""
        if not step.page:
            self._told.pop((f"agent {step.agent}", "pages"), None)
        calls = [one for one in window if not (one.says and one.agent == step.agent and one.to not in self._workers)]
        return registry.asked(
            registry.Seen(
                step,
                self._named,
                calls,
                self._all,
                known,
                again,
                self._often(step),
                len(self._agents),
                self._claims,
                self._prompted,
                self._changed,
            )
        )

    def _changed(self, agents: Container[str], since: int) -> bool:
        """Whether anybody but these has changed something since an act."""
        return any(at > since for agent, (at, _) in self._changes.items() if agent not in agents)

    def _often(self, step: Step) -> bool:
        """Whether a call was made so often that its results may be compared without their numbers."""
        times = self._repeats.pop(step.call, 0) + 1
        self._repeats[step.call] = times
        if len(self._repeats) > MAX_SEEN:
            self._repeats.popitem(last=False)
        return times >= self._named.counting_warn_rounds

    def _again(self, step: Step) -> bool:
        """Whether something like it was done before, by whomever."""
        if not step.kin:
            return False
        again = step.kin in self._kins
        self._kins[step.kin] = None
        if len(self._kins) > self._named.window_acts:
            self._kins.popitem(last=False)
        return again

    def _may_be_near(self, step: Step, window: Window) -> bool:
        """Whether texts are worth comparing: the same action was done lately, with texts of about that length."""
        alike = [
            one
            for one in window[-1 - self._named.paraphrase_window : -1]
            if one.action == step.action
            and one.agent == step.agent
            and one.call != step.call
            and min(len(one.text), len(step.text)) * 2 >= max(len(one.text), len(step.text)) >= 12
            and (one.result == step.result or min(one.length, step.length) * 4 >= max(one.length, step.length) * 3)
        ]
        return len(alike) + 1 >= self._named.paraphrase_warn

    def _tell(self, act: Act, view: str, finding: Finding) -> Trip | None:
        """A trip, unless this view was told of this family at this level already."""
        kind = KINDS.get(finding.family, "exact")
        told = self._told.setdefault((view, kind), set())
        if (finding.family, finding.level) in told or (finding.family, "stop") in told:
            return None
        told.add((finding.family, finding.level))
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
            {"view": view, "period": finding.period, "rounds": finding.rounds},
        )

    def _prompted(self, step: Step, last: int, times: int = 0) -> bool:
        """Whether somebody else did new work since this was done before, and this is about that: he is the one that it
        is said to, or the control was handed to him, or it is a check, or names nothing. Whatever else is done (so
        many `times` already) may be about what others have changed, for some time."""
        if not self._news or (step.error and not result_status.checks(step.action, step.text)):
            return False
        if step.to:
            return self._news.get(step.to, 0) > last
        # It names nothing, and answers with a word: it is about whatever there is now.
        bare = step.text in ("", "{}") and step.length < self._named.informative_chars
        if step.says:
            return False
        if bare or normalize.hands_over(step.action) or result_status.checks(step.action, step.text):
            return any(at > last for agent, at in self._news.items() if agent != step.agent)
        if times >= self._named.prompted_most:
            return False
        changed = [text for agent, (at, text) in self._changes.items() if agent != step.agent and at > last]
        if not changed or result_status.remakes(step.action, step.text):
            return bool(changed)
        # Who acts himself sees what came of that, unless the others' changes are about the same thing.
        if self._acted.get(step.agent, 0) <= last and not result_status.mutates(step.action):
            return True
        named = counters.asked(step.text)
        return any(not named.isdisjoint(counters.asked(text)) for text in changed)

    def _only_counts(self, step: Step) -> bool:
        """Whether it is a call that was made before, and nothing but numbers and tokens of its result are new."""
        if step.call not in self._repeats or len(step.answer) >= detectors.MAX_STEP_CHARS:
            return False
        before = next((one for one in reversed(self._agents.get(step.agent, ())) if one.call == step.call), None)
        return (
            before is not None
            and step.length < detectors.MAX_STEP_CHARS
            and counters.bare(before) == counters.bare(step)
        )

    def _beside(self, step: Step, since_unix_ms: int) -> bool:
        """Whether the same was asked before this one, and not yet answered when this was asked: calls of one turn.

        Nobody has seen an answer and asked all the same.
        """
        lately = list(self._agents.get(step.agent, ()))[-PARALLEL:]
        return any(one.same == step.same and one.time_unix_ms > since_unix_ms for one in lately)

    # Windows

    def _window(self, agent: str) -> deque[Step]:
        found = self._agents.get(agent)
        if found is None:
            found = self._agents[agent] = deque(maxlen=self._named.window_acts)
            while len(self._agents) > self._named.max_agents:
                gone, _ = self._agents.popitem(last=False)
                self._talks.pop(gone, None)
                self._groups = None
        else:
            self._agents.move_to_end(agent)
        return found

    def _merged(self, group: set[str]) -> list[Step]:
        steps = {step.index: step for agent in group for step in self._agents.get(agent, ()) if step.agent in group}
        return [steps[index] for index in sorted(steps)][-self._named.window_acts :]

    def _talk(self, agent: str, to: str) -> None:
        heard = self._talks.setdefault(agent, {})
        if to not in heard:
            heard[to] = None
            self._groups = None

    def _group_of(self, agent: str) -> set[str] | None:
        if self._groups is None:
            self._groups = components(list(self._talks), lambda one: self._talks.get(one, ()))
        return next((group for group in self._groups if agent in group), None)

    # Steps

    def _step(self, act: Act) -> Step:
        self._count += 1
        heard: set[str] = set()
        answer = "" if act.result is None else normalize.result(act.result, heard.add)
        own = _Either(heard, self._addresses) if heard else self._addresses
        hands_over = normalize.hands_over(act.action)
        loose = (len(answer) >= self._named.informative_chars and not act.error) or hands_over
        asked = (
            normalize.said(act.arguments)
            if act.says and isinstance(act.arguments, str)
            else normalize.call(normalize.unlabelled(act.arguments) if hands_over else act.arguments, own, loose=loose)
        )
        call = normalize.digest(f"{act.agent}\0{act.action}\0{act.to}\0{asked}")
        result = normalize.digest(f"{act.error}\0{answer}") if act.result is not None or act.error else NOTHING
        if not act.says and not act.error and act.result is not None:
            if normalize.nothing(act.result):
                call = self._empty.wider(act, call)
            elif call not in self._repeats and len(answer) >= self._named.informative_chars:
                call = plainer(act, call, result, self._agents.get(act.agent, ()))
        waited = act.agent in self._waited or self._calls.lasted(act, self._named.poll_gap_ms) or acts.sleeps_first(act)
        self._waited.discard(act.agent)
        if not act.says:
            self._workers.add(act.agent)
            while len(self._workers) > self._named.max_agents:
                self._workers.pop()
        kin = 0
        if act.to or len(self._agents) > 1:
            kin = acts.kin(act, own, "" if hands_over else asked, answer, result, loose=loose)
        page = 0 if act.says or act.error or act.result is None else self._page(act, own, answer, result)
        look, shown = result_status.NO, 0
        if not act.says and not act.error and act.result is not None:
            look, shown = self._looks.take(act.agent, call, answer, result)
            if look < result_status.WATCHES and result_status.watches(act.action, answer):
                look = result_status.WATCHES
        for one in heard:
            self._addresses[one] = None
        while len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)
        return Step(
            id=act.id,
            agent=act.agent,
            action=act.action,
            same=call ^ (result >> 1),
            call=call,
            result=result,
            index=self._count,
            time_unix_ms=act.time_unix_ms,
            error=act.error,
            says=act.says,
            to=act.to,
            quiet=result_status.passing(answer)
            if act.error
            else result_status.unfinished(answer) and not value_flow.starts(act.action),
            waited=waited,
            look=look,
            shown=shown,
            blind=self._blind(act, asked, answer),
            lasting=act.error and result_status.lasting(answer),
            over=not act.says and result_status.over(answer, act.arguments),
            length=len(answer),
            text=asked[: detectors.MAX_STEP_CHARS],
            kin=kin,
            page=page,
            answer=answer[: detectors.MAX_STEP_CHARS],
            heard=frozenset(heard) if len(heard) <= MAX_HEARD else frozenset(),
            vain=act.says and normalize.vain(acts.words(act)),
            work=act.says and act.productive is True,
            what=normalize.digest(f"{act.action}\0{asked}") ^ (result >> 1),
        )

    def _blind(self, act: Act, asked: str, answer: str) -> bool:
        """Whether it moves on, and its answer tells nothing of what came of it."""
        if act.says or act.error or len(answer) >= self._named.informative_chars:
            return False
        if result_status.did_many(answer):
            return True
        if len(answer) > self._named.blind_chars:
            return False
        if isinstance(act.result, str) and "\n" in act.result.strip():
            return False  # A screen.
        return result_status.moves(act.action, asked) and not result_status.tells_of_failure(answer)

    def _page(self, act: Act, known: Container[str], answer: str, result: int) -> int:
        """A digest of a call for a page, without its number, when there was nothing on it, or what was on the last."""
        rest = normalize.paging(act.arguments)
        if rest is None:
            return 0
        page = normalize.digest(f"{act.agent}\0{act.action}\0{normalize.call(rest, known)}")
        if normalize.nothing(act.result):
            return page
        before = self._pages.pop(page, 0)
        self._pages[page] = result
        if len(self._pages) > self._named.max_agents:
            self._pages.pop(next(iter(self._pages)))
        return page ^ result if before == result and len(answer) >= self._named.informative_chars else 0


class _Either:
    """What is in one of two, without a copy of the larger one."""

    __slots__ = ("_large", "_small")

    def __init__(self, small: Container[str], large: Container[str]) -> None:
        self._small, self._large = small, large

    def __contains__(self, name: object) -> bool:
        return name in self._small or name in self._large
