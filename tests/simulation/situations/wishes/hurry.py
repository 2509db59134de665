"""People who all act within one message's time: on a task that has just reached its ceiling, on one that is just
ending, and with one key at every gateway at once.

In: a draw. Out: a task whose money ends; at that very moment it is given more, a limit of its
person is lowered and raised again, its tenant is halted and let go on. A task that is cancelled as its last step ends,
and one that is submitted to all gateways together. Law: when nothing else goes wrong, who was given enough ends well;
all others are those of every run.
"""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bulkhead_contracts.budget import Limit, LimitsRequested
from bulkhead_contracts.plan import Plan
from tests.simulation.laws.reading import body, is_calm, said, wishes
from tests.simulation.mesh.people import task_of
from tests.simulation.scenario import Act, Scenario, Wish, scripted_step
from tests.simulation.situations.situation import Situation
from tests.simulation.situations.wishes import halting, topups

NAME, TENANT = "rush0", "demo"
ENDINGS = (
    "mesh.step.finished",
    "mesh.task.progressed",
    "mesh.task.ended",
    "mesh.model.call_replied",
    "mesh.step.proposed",
)
WITHIN_S = 0.02
RAISED_MICROS = 10_000_000
PATIENCE_S = 60.0


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """See the module."""
    calls = [["calculate", {"expression": f"{draw.randint(2, 99)} * {number}"}] for number in range(2, 7)]
    calls.insert(draw.randint(0, 4), ["counter_increment", {"name": f"{NAME}.kept", "amount": 1}])
    rush = _wish(draw, NAME, {"calls": calls, "serial": True}, draw.choice((300, 600, 900)))
    write = [["counter_increment", {"name": f"{name}.done", "amount": 1}] for name in ("last0", "twin0")]
    last = _wish(draw, "last0", {"calls": write[:1]}, 500_000)
    last = replace(last, cancel_at=draw.choice(ENDINGS), cancel_after_s=draw.uniform(0, WITHIN_S))
    twin = replace(_wish(draw, "twin0", {"calls": write[1:]}, 500_000), at_once=True)
    doings = ["topup/400000", f"limit/{draw.choice((1, 400))}", "halt", "resume"]
    if draw.random() < 0.5:
        doings[:2] = reversed(doings[:2])
    when = sorted(draw.uniform(0, WITHIN_S) for _ in doings)
    acts = [
        Act(f"rush{at}" if at else "hurry", "hurry", 0.0, f"{what}@{after_s:.4f}")
        for at, (what, after_s) in enumerate(zip(doings, when, strict=True))
    ]
    return replace(
        scenario,
        wishes=(*scenario.wishes, rush, last, twin),
        acts=(*scenario.acts, *acts),
        replicas={**scenario.replicas, "gateway": 3, "budget": draw.choice((1, 2))},
    )


def _wish(draw: random.Random, name: str, wants: dict[str, Any], micros: int) -> Wish:
    step = scripted_step("a", name, wants, tools=("calculate", "counter_increment"), acceptance="It is done.")
    return Wish(
        name=name,
        tenant=TENANT,
        plan=Plan(steps=(step,)),
        check=draw.random() < 0.3,
        cost_usd_micros=micros,
        submit_after_s=draw.uniform(0, 0.5),
    )


async def do(world: Any, act: Act) -> None:
    """So long after the task was halted at its ceiling."""
    what, _, after_s = act.what.partition("@")
    wish = next((one for one in world.scenario.wishes if one.name == NAME), None)
    if wish is None:
        return
    try:
        await asyncio.wait_for(world.net.moment(task_of(wish), "mesh.control.switched").wait(), PATIENCE_S)
    except TimeoutError:
        world.tell(f"{NAME} never came to its ceiling")
    await asyncio.sleep(float(after_s))
    kind, _, amount = what.partition("/")
    match kind:
        case "topup":
            await topups.do(world, replace(act, what=f"{NAME}/{amount}"))
        case "limit":
            for micros in (int(amount), RAISED_MICROS):
                await _limit(world, act, micros)
        case _:
            await halting.do(world, replace(act, name=kind, what=f"tenant/{TENANT}"))


async def _limit(world: Any, act: Act, micros: int) -> None:
    """What its person may spend in a day."""
    ask = LimitsRequested(requester=topups.ADA, target="user/ann", limit=Limit(cost_usd_micros=micros))
    await topups.ask_budget(world, ask, "limits", f"{act.name}/{micros}")
    world.tell(f"user/ann may spend {micros}")


def complain(record: Any) -> Iterator[str]:
    """See the module."""
    given = any(act.what.startswith("topup/") for act in record.scenario.acts if act.situation == "hurry")
    if not is_calm(record) or not given:
        return
    ends = {task: body(found[0]) for task, found in said(record, "INBOX_GATEWAY", "mesh.task.ended").items()}
    for wish, task in wishes(record):
        if wish.name == NAME and task in ends and ends[task]["status"] != "succeeded":
            yield f"{NAME} was given enough, and ended as {ends[task]['status']}: {ends[task]['failure']}"


SITUATION = Situation("hurry", 0.03, add, do, complain)
