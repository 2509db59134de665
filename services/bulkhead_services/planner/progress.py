"""Progress of a task that one decision tells the gateway, as one message where it fits. Pure.

In: the outputs of a decision. Out: the same facts in the same order, several of them as one `Progressed`, or
the last steps' ends in the task's end: each stored message costs an fsync.
"""

from collections.abc import Sequence
from typing import TypeVar

from bulkhead.flow import Output, Send
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import PlanAdopted, PlanRejected
from bulkhead_contracts.task import Progressed, StepEnded, StepStarted, TaskAccepted, TaskEnded
from bulkhead_contracts.types import Body

ORDER: tuple[type[Body], ...] = (TaskAccepted, PlanRejected, PlanAdopted, StepEnded, StepStarted, TaskEnded)
PLACES = {kind: at for at, kind in enumerate(ORDER)}
"""The order in which one message tells them; of the ends and beginnings of steps it takes several."""
SEVERAL = frozenset({StepEnded, StepStarted})
MAX_BYTES = bounds.MAX_MESSAGE_BYTES // 2
"""Facts that are larger than this together go apart: they might not fit."""
B = TypeVar("B", bound=Body)


def merge_progress(outputs: Sequence[Output]) -> tuple[Output, ...]:
    """The outputs, with each run of facts that one message can tell in order put into one.

    It stands at the run's last: what is to be done goes out before it is told.
    """
    merged_outputs: list[Output] = []
    run: list[tuple[int, Body]] = []
    for output in outputs:
        if isinstance(output, Send) and output.to == "gateway" and type(output.body) in PLACES:
            if run and not _can_follow(run[-1][1], output.body):
                _merge_run(merged_outputs, run)
                run = []
            run.append((len(merged_outputs), output.body))
        merged_outputs.append(output)
    _merge_run(merged_outputs, run)
    return tuple(merged_outputs)


def _merge_run(kept: list[Output], run: Sequence[tuple[int, Body]]) -> None:
    """Put a run, whose facts stand at these places, into one message at the last of them, if it fits."""
    if len(run) < 2:
        return
    together = _combine_facts([body for _, body in run])
    if together is None:
        return _merge_run(kept, run[:-1])
    if len(together.encode()) > MAX_BYTES:
        return
    *earlier, (last, _) = run
    kept[last] = Send("gateway", together)
    for index, _ in reversed(earlier):
        del kept[index]


def _can_follow(before: Body, after: Body) -> bool:
    """True when `after` can stand in the same message: its place comes later, or it is another of several."""
    places = PLACES[type(before)], PLACES[type(after)]
    return places[0] < places[1] or (places[0] == places[1] and type(after) in SEVERAL)


def _combine_facts(run: Sequence[Body]) -> Progressed | TaskEnded | None:
    """One message for all of them. A task's end takes the ends of steps alone: None where there is more."""
    *before, last = run
    if isinstance(last, TaskEnded):
        steps = tuple(body for body in before if isinstance(body, StepEnded))
        return last.model_copy(update={"ended_steps": steps}) if len(steps) == len(before) else None
    return Progressed(
        accepted=_last_of(run, TaskAccepted),
        rejected=_last_of(run, PlanRejected),
        adopted=_last_of(run, PlanAdopted),
        ended=tuple(body for body in run if isinstance(body, StepEnded)),
        started=tuple(body for body in run if isinstance(body, StepStarted)),
    )


def _last_of(run: Sequence[Body], kind: type[B]) -> B | None:
    return next((body for body in reversed(run) if isinstance(body, kind)), None)
