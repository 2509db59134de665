"""The models of a call in order: chain, hedge, escalation. Enters: a route and attempts. Leaves: who answered, and why.

Each model of the chain has a share of the call's time, and what it leaves goes to those after it. A hedge asks a second
model while the first is silent: the one that speaks first goes on, and the other is cut and paid for.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bulkhead.prompts.files import Style
from bulkhead.runtime.errors import NotDone
from bulkhead_contracts import bounds
from bulkhead_services.model_gateway.attempts import Model, ModelAttempts, ModelOutcome
from bulkhead_services.model_gateway.context.render import RenderSource
from bulkhead_services.model_gateway.providers.port import ProviderFault
from bulkhead_services.model_gateway.routing.policies import (
    TenantDataPolicies,
    list_left_out,
    no_model_left_fault,
    policy_advice,
)

SHARE_FACTOR = 1.2
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

    @property
    def most_context_tokens(self) -> int:
        """The largest context of its models."""
        return max(model.context_tokens for model in self.models_for(2))

    def models_for(self, attempt: int) -> tuple[Model, ...]:
        """In the order in which they are asked in this attempt at a step."""
        return (*(self.escalation if attempt > 1 else ()), self.primary, *self.fallbacks)


@dataclass(frozen=True, slots=True)
class ChainResult:
    """End of a call: the outcome, the model that it came from, and why it is degraded ("" when it is not)."""

    outcome: ModelOutcome
    model: Model
    role: Role = "first"
    degraded_reason: str = ""


@dataclass(frozen=True, slots=True)
class _ModelRun:
    """One model's end; `not_done`: its refusal or postponement, in place of an outcome."""

    model: Model
    outcome: ModelOutcome | None
    not_done: NotDone | None = None
    hedge: bool = False

    @property
    def fault(self) -> ProviderFault | None:
        """Why it gave no answer, where it was asked."""
        result = self.outcome.result if self.outcome else None
        return result if isinstance(result, ProviderFault) else None


class Chain:
    """One call and the models that may answer it."""

    def __init__(self, attempts: ModelAttempts, source: RenderSource, now_unix_ms: Callable[[], int]) -> None:
        self._attempts, self._source, self._now = attempts, source, now_unix_ms
        self._deadline = source.request.deadline_unix_ms

    async def ask_models(self, route: Route, policies: TenantDataPolicies, tenant: str) -> ChainResult:
        """Ask until one answers, or none can. Raises JobRefused, Deferred."""
        request = self._source.request
        models = route.models_for(request.attempt)
        objections = {model: policies.objection(tenant, model.provider.name, model.terms) for model in models}
        allowed = [model for model in models if not objections[model]]
        left_out = [f"{_full_name(model)} ({objection})" for model, objection in objections.items() if objection]
        if not allowed:
            return ChainResult(ModelOutcome(no_model_left_fault(tenant, request.tier, left_out)), models[0])
        chain_result = await self._ask_in_order(allowed, route.hedge_after_ms)
        first = allowed[0]
        if chain_result.role == "first" and request.attempt > 1 and first in route.escalation:
            chain_result = replace(chain_result, role="escalation")
        result = chain_result.outcome.result
        if isinstance(result, ProviderFault) and left_out and result.outage and not result.refused:
            message = f"{result.message[:1_400]}. The policy of tenant {tenant} leaves out {list_left_out(left_out)}"
            hint = f"try again when it is back; or {policy_advice(tenant)}"
            result = replace(result, message=message, hint="; ".join(filter(None, (result.hint, hint))))
            chain_result = replace(chain_result, outcome=replace(chain_result.outcome, result=result))
        return chain_result

    async def _ask_in_order(self, models: Sequence[Model], hedge_after_ms: int | None) -> ChainResult:
        # Those that failed again and again wait behind the others, until a trial succeeds.
        usable = {model: model.provider.is_usable(model.name) for model in models}
        remaining = sorted(models, key=lambda model: not usable[model])
        ejected_models = [model for model in models if not usable[model]]
        failed_runs = list[_ModelRun]()
        while remaining:
            model = remaining.pop(0)
            if not failed_runs and hedge_after_ms:
                runs = await self._run_hedged(model, remaining, hedge_after_ms)
            else:
                until_unix_ms = self._share_end(len(remaining))
                outcome = await self._attempts.ask_model(model, self._source, until_unix_ms, has_others=bool(remaining))
                runs = [_ModelRun(model, outcome)]
            for run in runs:
                if run.not_done is not None:
                    raise run.not_done
                assert run.outcome is not None
                if run.fault is None:
                    return _answered_result(run, failed_runs, models[0], hedge_after_ms, ejected_models)
                failed_runs.append(run)
                remaining = [model for model in remaining if model is not run.model]
            if not (failed_runs[-1].fault and failed_runs[-1].fault.outage):
                break
        return self._unanswered_result(failed_runs)

    def _share_end(self, later_models: int) -> int:
        """End of the share of the model that is asked now, with so many after it."""
        if not later_models:
            return self._deadline
        now_unix_ms = self._now()
        return now_unix_ms + int((self._deadline - now_unix_ms) * SHARE_FACTOR / (later_models + 1))

    async def _run_hedged(self, first: Model, later_models: Sequence[Model], after_ms: int) -> list[_ModelRun]:
        """The ends of the first model and of its hedge: one that answered comes last, one that was cut not at all."""
        second = later_models[0] if later_models else first
        first_speaker, tried = _FirstSpeaker(), set[str]()
        runs: dict[asyncio.Task[ModelOutcome], _ModelRun] = {}

        def begin_run(model: Model, until_unix_ms: int, tried: set[str], *, hedge: bool) -> None:
            task = asyncio.create_task(
                self._attempts.ask_model(
                    model,
                    self._source,
                    until_unix_ms,
                    lambda: first_speaker.may_speak(task),
                    tried,
                    has_others=bool(later_models),
                )
            )
            runs[task] = _ModelRun(model, None, hedge=hedge)

        first_speech = asyncio.create_task(first_speaker.spoke.wait())
        ended_runs: list[_ModelRun] = []
        try:
            begin_run(first, self._share_end(len(later_models)), tried, hedge=False)
            await asyncio.wait({*runs, first_speech}, timeout=after_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
            if not first_speech.done() and not any(task.done() for task in runs):
                # The same model is asked at another deployment.
                begin_run(second, self._share_end(max(0, len(later_models) - 1)), set(tried), hedge=True)
            while runs:
                await asyncio.wait(
                    {*runs, *(() if first_speech.done() else (first_speech,))}, return_when=asyncio.FIRST_COMPLETED
                )
                for task in [run_task for run_task in runs if run_task.done()]:
                    ended_runs.append(_finished_run(task, runs.pop(task)))
                    if ended_runs[-1].outcome is not None and ended_runs[-1].fault is None:
                        return [run for run in ended_runs if run.not_done is None]
                if first_speaker.task is not None:
                    await _cancel_tasks([task for task in runs if task is not first_speaker.task])
                    runs = {task: run for task, run in runs.items() if task is first_speaker.task}
        finally:
            await _cancel_tasks([*runs, first_speech])
        finished = [run for run in ended_runs if run.not_done is None]
        # The first was put off, and its hedge failed: the call is put off. A hedge that may not be is no loss.
        return (
            finished
            if finished and not any(run.not_done and not run.hedge for run in ended_runs)
            else sorted(ended_runs, key=lambda run: run.hedge)
        )

    def _unanswered_result(self, failed_runs: Sequence[_ModelRun]) -> ChainResult:
        """The end of a call that no model answered; each is named once."""
        asked_runs = [run for run in failed_runs if run.fault and (not run.fault.refused or run.fault.code == "halted")]
        last = asked_runs[-1] if asked_runs else failed_runs[0]
        assert last.outcome is not None and last.fault is not None
        calls = self._attempts.spending.attempts
        if len(asked_runs) < 2:
            return ChainResult(
                _with_call_count(last.outcome, last.fault, calls), last.model, "fallback" if last.hedge else "first"
            )
        room = max(80, (bounds.MAX_REASON_CHARS - 200) // len(asked_runs) - 80)
        rows = "; ".join(f"{_full_name(run.model)}: {_fault_text(run)[:room]}" for run in asked_runs)
        message = f"no answer from {len(asked_runs)} models in {calls} calls: {rows}"
        hints = dict.fromkeys(run.fault.hint for run in asked_runs if run.fault and run.fault.hint)
        fault = replace(last.fault, message=message, hint="; ".join(hints))
        return ChainResult(replace(last.outcome, result=fault), last.model, "fallback")


class _FirstSpeaker:
    """The run that speaks first; pieces of any other are not heard."""

    def __init__(self) -> None:
        self.task: asyncio.Task[ModelOutcome] | None = None
        self.spoke = asyncio.Event()

    def may_speak(self, task: asyncio.Task[ModelOutcome]) -> bool:
        """True when a piece of this run is heard."""
        if self.task is None:
            self.task = task
            self.spoke.set()
        return self.task is task


async def _cancel_tasks(tasks: Sequence[asyncio.Task[ModelOutcome] | asyncio.Task[Literal[True]]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _finished_run(task: asyncio.Task[ModelOutcome], run: _ModelRun) -> _ModelRun:
    try:
        return replace(run, outcome=task.result())
    except NotDone as error:
        return replace(run, not_done=error)


def _answered_result(
    run: _ModelRun,
    failed_runs: Sequence[_ModelRun],
    first: Model,
    hedge_after_ms: int | None,
    ejected_models: Sequence[Model],
) -> ChainResult:
    assert run.outcome is not None
    if run.model is first:
        return ChainResult(run.outcome, run.model, "hedge" if run.hedge else "first")
    if run.hedge and not failed_runs and not ejected_models:
        silence_text = f"{first.name} had said nothing after {hedge_after_ms} ms"
        is_same_model = run.model.name == first.name
        return ChainResult(
            run.outcome, run.model, "hedge", "" if is_same_model else f"{run.model.name} answered: {silence_text}"
        )
    failures = [(failed_run.model, failed_run.fault.code) for failed_run in failed_runs if failed_run.fault]
    failures += [(model, "ejected after failures") for model in ejected_models if model is not run.model]
    # The same model at another provider is told by both.
    is_ambiguous = any(model.name == run.model.name for model, _ in failures)
    name_of: Callable[[Model], str] = _full_name if is_ambiguous else lambda model: model.name
    reason = (
        f"{name_of(run.model)} answered in place of "
        f"{', '.join(f'{name_of(model)} ({code})' for model, code in failures)}"
    )
    return ChainResult(run.outcome, run.model, "fallback", reason[: bounds.MAX_SUMMARY_CHARS])


def _with_call_count(outcome: ModelOutcome, fault: ProviderFault, calls: int) -> ModelOutcome:
    """The same end, with the number of calls where it took several."""
    if calls < 2:
        return outcome
    return replace(outcome, result=replace(fault, message=f"{fault.message} (in {calls} calls)"))


def _full_name(model: Model) -> str:
    return f"{model.name} at {model.provider.name}"


def _fault_text(run: _ModelRun) -> str:
    """Its fault, without the provider's name, which stands before it."""
    assert run.fault is not None
    return run.fault.message.removeprefix(f"{run.model.provider.name}: ")
