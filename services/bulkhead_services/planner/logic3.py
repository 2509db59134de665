"""Decision logic 3 of the planner: logic 2, and what one decision tells of progress is one message.

In: as logic 2. Out: as logic 2, but several facts for the gateway go as one `Progressed`: each stored message costs an
fsync, and a step that ends while the next begins is told in one.
"""

from collections.abc import Sequence
from typing import Any

from bulkhead.flow import Decision, Message, Output, Send
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import PlanAdopted, PlanRejected
from bulkhead_contracts.task import Progressed, StepEnded, StepStarted, TaskAccepted
from bulkhead_contracts.types import Body
from bulkhead_services.planner.logic2 import PlannerV2
from bulkhead_services.planner.state import State

PLACES: dict[type[Body], int] = {TaskAccepted: 0, PlanRejected: 1, PlanAdopted: 2, StepEnded: 3, StepStarted: 4}
"""The order in which a `Progressed` tells them; the last two take several."""
SEVERAL = frozenset({StepEnded, StepStarted})
MAX_BYTES = bounds.MAX_MESSAGE_BYTES // 2
"""What is larger than this together goes apart: it might not fit."""


class PlannerV3(PlannerV2):
    """Decision logic, version 3."""

    def decide(self, state: State, message: Message) -> Decision[State]:
        """As logic 2, said in fewer messages."""
        decision = super().decide(state, message)
        return Decision(decision.state, merged(decision.outputs))


def merged(outputs: Sequence[Output]) -> tuple[Output, ...]:
    """The outputs, with each run of facts that a `Progressed` can tell in order put into one.

    It stands at the run's last: what is to be done goes out before it is told.
    """
    found: list[Output] = []
    run: list[tuple[int, Body]] = []
    for output in outputs:
        if isinstance(output, Send) and type(output.body) in PLACES:
            if run and not _follows(run[-1][1], output.body):
                _put(found, run)
                run = []
            run.append((len(found), output.body))
        found.append(output)
    _put(found, run)
    return tuple(found)


def _put(found: list[Output], run: Sequence[tuple[int, Body]]) -> None:
    """Put a run, whose facts stand at these places, into one message at the last of them, if it fits."""
    if len(run) < 2:
        return
    together = _together([body for _, body in run])
    if len(together.encode()) > MAX_BYTES:
        return
    *earlier, (last, _) = run
    found[last] = Send("gateway", together)
    for at, _ in reversed(earlier):
        del found[at]


def _follows(before: Body, after: Body) -> bool:
    """Whether `after` can stand in the same message: its place comes later, or it is another of several."""
    places = PLACES[type(before)], PLACES[type(after)]
    return places[0] < places[1] or (places[0] == places[1] and type(after) in SEVERAL)


def _together(run: Sequence[Body]) -> Progressed:
    one: dict[type[Body], Any] = {type(body): body for body in run if type(body) not in SEVERAL}
    return Progressed(
        accepted=one.get(TaskAccepted),
        rejected=one.get(PlanRejected),
        adopted=one.get(PlanAdopted),
        ended=tuple(body for body in run if isinstance(body, StepEnded)),
        started=tuple(body for body in run if isinstance(body, StepStarted)),
    )
