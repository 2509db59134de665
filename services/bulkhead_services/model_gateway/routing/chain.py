"""The models of a call in order: chain, hedge, escalation. Enters: a route and attempts. Leaves: who answered, and why.

Each model of the chain has a share of the call's time, and what it leaves goes to those after it. A hedge asks a second
model while the first is silent: the one that speaks first goes on, and the other is cut and paid for.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bulkhead.runtime.errors import NotDone
from bulkhead_contracts import bounds
from bulkhead_services.model_gateway.attempts import Attempts, Model, Outcome
from bulkhead_services.model_gateway.context.render import Source
from bulkhead_services.model_gateway.prompts import Style
from bulkhead_services.model_gateway.providers.port import Fault
from bulkhead_services.model_gateway.routing.policies import Policies, listed, nothing_left, what_to_do

FAIR = 1.2
"""Of its even share of the time that is left; the last model has all of it."""
Role = Literal["first", "fallback", "hedge", "escalation"]


@dataclass(frozen=True, slots=True)
class Route:
    """The models of a tier. escalation: asked first from a step's second attempt on. prompts: the variant."""

    primary: Model
    fallbacks: tuple[Model, ...] = ()
    hedge_after_ms: int | None = None
    escalation: tuple[Model, ...] = ()
    prompts: Style = "full"

    def models(self, attempt: int) -> tuple[Model, ...]:
        """In the order in which they are asked in this attempt at a step."""
        return (*(self.escalation if attempt > 1 else ()), self.primary, *self.fallbacks)


@dataclass(frozen=True, slots=True)
class Reached:
    """How a call ended: the outcome, the model that it came from, and why it is degraded ("" when it is not)."""

    outcome: Outcome
    model: Model
    role: Role = "first"
    degraded: str = ""


@dataclass(frozen=True, slots=True)
class _Run:
    """One model's end; `ended` is what it was refused or put off with, in place of an outcome."""

    model: Model
    outcome: Outcome | None
    ended: NotDone | None = None
    hedge: bool = False

    @property
    def fault(self) -> Fault | None:
        """Why it gave no answer, where it was asked."""
        said = self.outcome.said if self.outcome else None
        return said if isinstance(said, Fault) else None


class Chain:
    """One call and the models that may answer it."""

    def __init__(self, attempts: Attempts, source: Source, now_unix_ms: Callable[[], int]) -> None:
        self._attempts, self._source, self._now = attempts, source, now_unix_ms
        self._deadline = source.request.deadline_unix_ms

    async def ask(self, route: Route, policies: Policies, tenant: str) -> Reached:
        """Ask until one answers, or none can. Raises Refused, Deferred."""
        request = self._source.request
        models = route.models(request.attempt)
        against = {one: policies.objection(tenant, one.provider.name, one.terms) for one in models}
        allowed = [one for one in models if not against[one]]
        left_out = [f"{_name(one)} ({why})" for one, why in against.items() if why]
        if not allowed:
            return Reached(Outcome(nothing_left(tenant, request.tier, left_out)), models[0])
        reached = await self._ask(allowed, route.hedge_after_ms)
        first = allowed[0]
        if reached.role == "first" and request.attempt > 1 and first in route.escalation:
            reached = replace(reached, role="escalation")
        said = reached.outcome.said
        if isinstance(said, Fault) and left_out and said.outage and not said.refused:
            told = f"{said.message[:1_400]}. The policy of tenant {tenant} leaves out {listed(left_out)}"
            hint = f"try again when it is back; or {what_to_do(tenant)}"
            said = replace(said, message=told, hint="; ".join(filter(None, (said.hint, hint))))
            reached = replace(reached, outcome=replace(reached.outcome, said=said))
        return reached

    async def _ask(self, models: Sequence[Model], hedge_after_ms: int | None) -> Reached:
        # Those that failed again and again wait behind the others, until a trial succeeds.
        usable = {one: one.provider.usable(one.name) for one in models}
        left = sorted(models, key=lambda one: not usable[one])
        passed = [one for one in models if not usable[one]]
        failed = list[_Run]()
        while left:
            model = left.pop(0)
            if not failed and hedge_after_ms:
                runs = await self._hedged(model, left, hedge_after_ms)
            else:
                until = self._until(len(left))
                outcome = await self._attempts.run(model, self._source, until, others=bool(left))
                runs = [_Run(model, outcome)]
            for run in runs:
                if run.ended is not None:
                    raise run.ended
                assert run.outcome is not None
                if run.fault is None:
                    return _answered(run, failed, models[0], hedge_after_ms, passed)
                failed.append(run)
                left = [one for one in left if one is not run.model]
            if not (failed[-1].fault and failed[-1].fault.outage):
                break
        return self._nobody(failed)

    def _until(self, others: int) -> int:
        """End of the share of the model that is asked now, with so many after it."""
        if not others:
            return self._deadline
        now = self._now()
        return now + int((self._deadline - now) * FAIR / (others + 1))

    async def _hedged(self, first: Model, left: Sequence[Model], after_ms: int) -> list[_Run]:
        """The ends of the first model and of its hedge: one that answered comes last, one that was cut not at all."""
        second = left[0] if left else first
        voice, tried = _Voice(), set[str]()
        runs: dict[asyncio.Task[Outcome], _Run] = {}

        def begin(model: Model, until: int, tried: set[str], *, hedge: bool) -> None:
            task = asyncio.create_task(
                self._attempts.run(model, self._source, until, lambda: voice.takes(task), tried, others=bool(left))
            )
            runs[task] = _Run(model, None, hedge=hedge)

        heard = asyncio.create_task(voice.heard.wait())
        ends: list[_Run] = []
        try:
            begin(first, self._until(len(left)), tried, hedge=False)
            await asyncio.wait({*runs, heard}, timeout=after_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
            if not heard.done() and not any(task.done() for task in runs):
                # The same model is asked at another deployment.
                begin(second, self._until(max(0, len(left) - 1)), set(tried), hedge=True)
            while runs:
                await asyncio.wait({*runs, *(() if heard.done() else (heard,))}, return_when=asyncio.FIRST_COMPLETED)
                for task in [one for one in runs if one.done()]:
                    ends.append(_ended(task, runs.pop(task)))
                    if ends[-1].outcome is not None and ends[-1].fault is None:
                        return [one for one in ends if one.ended is None]
                if voice.of is not None:
                    await _cut([task for task in runs if task is not voice.of])
                    runs = {task: run for task, run in runs.items() if task is voice.of}
        finally:
            await _cut([*runs, heard])
        told = [one for one in ends if one.ended is None]
        # The first was put off, and its hedge failed: the call is put off. A hedge that may not be is no loss.
        return told if told and not any(one.ended and not one.hedge for one in ends) else sorted(ends, key=_is_hedge)

    def _nobody(self, failed: Sequence[_Run]) -> Reached:
        """The end of a call that no model answered; each is named once."""
        asked = [one for one in failed if one.fault and (not one.fault.refused or one.fault.code == "halted")]
        last = (asked or failed)[-1] if len(asked) != 1 else asked[0]
        if not asked:
            last = failed[0]
        assert last.outcome is not None and last.fault is not None
        calls = self._attempts.spent.attempts
        if len(asked) < 2:
            return Reached(_counted(last.outcome, last.fault, calls), last.model, "fallback" if last.hedge else "first")
        room = max(80, (bounds.MAX_REASON_CHARS - 200) // len(asked) - 80)
        rows = "; ".join(f"{_name(one.model)}: {_said(one)[:room]}" for one in asked)
        message = f"no answer from {len(asked)} models in {calls} calls: {rows}"
        hints = dict.fromkeys(one.fault.hint for one in asked if one.fault and one.fault.hint)
        said = replace(last.fault, message=message, hint="; ".join(hints))
        return Reached(replace(last.outcome, said=said), last.model, "fallback")


class _Voice:
    """The run that speaks first; pieces of any other are not heard."""

    def __init__(self) -> None:
        self.of: asyncio.Task[Outcome] | None = None
        self.heard = asyncio.Event()

    def takes(self, task: asyncio.Task[Outcome]) -> bool:
        """Whether a piece of this run is heard."""
        if self.of is None:
            self.of = task
            self.heard.set()
        return self.of is task


async def _cut(tasks: Sequence[asyncio.Task[Outcome] | asyncio.Task[Literal[True]]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _ended(task: asyncio.Task[Outcome], run: _Run) -> _Run:
    try:
        return replace(run, outcome=task.result())
    except NotDone as error:
        return replace(run, ended=error)


def _is_hedge(run: _Run) -> bool:
    return run.hedge


def _answered(
    run: _Run, failed: Sequence[_Run], first: Model, hedge_after_ms: int | None, passed: Sequence[Model]
) -> Reached:
    assert run.outcome is not None
    if run.model is first:
        return Reached(run.outcome, run.model, "hedge" if run.hedge else "first")
    if run.hedge and not failed and not passed:
        silent = f"{first.name} had said nothing after {hedge_after_ms} ms"
        same = run.model.name == first.name
        return Reached(run.outcome, run.model, "hedge", "" if same else f"{run.model.name} answered: {silent}")
    out = [(one.model, one.fault.code) for one in failed if one.fault]
    out += [(one, "ejected after failures") for one in passed if one is not run.model]
    # The same model at another provider is told by both.
    named = _name if any(one.name == run.model.name for one, _ in out) else _short_name
    reason = f"{named(run.model)} answered in place of {', '.join(f'{named(one)} ({why})' for one, why in out)}"
    return Reached(run.outcome, run.model, "fallback", reason[: bounds.MAX_SUMMARY_CHARS])


def _counted(outcome: Outcome, fault: Fault, calls: int) -> Outcome:
    """The same end, with the number of calls where it took several."""
    if calls < 2:
        return outcome
    return replace(outcome, said=replace(fault, message=f"{fault.message} (in {calls} calls)"))


def _short_name(model: Model) -> str:
    return model.name


def _name(model: Model) -> str:
    return f"{model.name} at {model.provider.name}"


def _said(run: _Run) -> str:
    """Its fault, without the provider's name, which stands before it."""
    assert run.fault is not None
    return run.fault.message.removeprefix(f"{run.model.provider.name}: ")
