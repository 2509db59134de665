"""Steps that wait for events from outside, which come early, late, twice or never, while services come and go.

In: a draw. Out: a wish of two waits for one name and key and a write behind them, and programs that tell events. Laws,
of every run: the write is made once at most, and only after two different events had come, one for each wait; when
nothing goes wrong it is made where they came in time, and else the task fails of the wait.
"""

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bulkhead_contracts.outside_event import EventPublished
from bulkhead_contracts.plan import AwaitedEvent, Plan, PlanStep, StepCall, TimedWait
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.problems import Problem
from tests.simulation.laws.reading import body, is_calm, of, said, wishes
from tests.simulation.mesh.people import PAUSE_S, NoGateway
from tests.simulation.scenario import Act, Scenario, Wish
from tests.simulation.situations.situation import Situation
from tests.simulation.situations.wishes import approvals

NAME = "event0"
COUNTED = f"{NAME}.z"
WAIT_S = 40
MUCH_LESS_S = 20
"""So long after the run's start an event is soon enough for every wait, also when a replica is away meanwhile."""
WAITS = ("first", "second")


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """One wish, up to three events of which some are told again, and sometimes a replica that goes meanwhile."""
    event = AwaitedEvent(name="order.paid", key=NAME, sources=("ann",))
    wait = TimedWait(duration_ms=WAIT_S * 1_000, event=event)
    first, second = (PlanStep(id=name, title=name, instruction="", kind="noop", wait=wait) for name in WAITS)
    call = StepCall(tool="counter_increment", arguments_json=json.dumps({"name": COUNTED, "amount": 1}))
    write = PlanStep(id="z", title="z", instruction="", kind="noop", inputs=("second",), call=call)
    wish = Wish(
        name=NAME,
        tenant=draw.choice(("demo", "acme")),
        plan=Plan(steps=(first, second.model_copy(update={"inputs": ("first",)}), write)),
        check=draw.random() < 0.5,
        deadline_ms=100_000,
        submit_after_s=draw.uniform(0, 3),
    )
    acts = []
    for number in range(draw.choice((0, 1, 2, 2, 3))):
        event_id, at_s = f"{NAME}-{number}", draw.choice((draw.uniform(0, 3), draw.uniform(3, 15)))
        acts.append(Act(f"told{number}", "events", at_s, f"ann/{event_id}"))
        if draw.random() < 0.5:
            acts.append(Act(f"again{number}", "events", at_s + draw.uniform(0, 5), f"ann/{event_id}"))
    if draw.random() < 0.5:
        acts.append(Act("lie", "events", draw.uniform(0, 10), f"mallory/{NAME}-9"))
    for number in range(draw.choice((0, 0, 1, 2))):
        how = f"{draw.choice(('restart', 'crash'))}/{draw.choice(approvals.AWAY)}"
        acts.append(Act(f"gone{number}", "events", draw.uniform(0.2, 15), how))
    return replace(scenario, wishes=(*scenario.wishes, wish), acts=(*scenario.acts, *acts))


async def do(world: Any, act: Act) -> None:
    """A replica goes; or a person tells an event, until it is taken."""
    person, _, event_id = act.what.partition("/")
    if act.name.startswith("gone"):
        await approvals.take_away(world, act)
        return
    tenant = next((wish.tenant for wish in world.scenario.wishes if wish.name == NAME), "demo")
    claim = RequesterClaim(tenant=tenant, person=person, role="submitter", via="api_key")
    event = EventPublished(name="order.paid", id=event_id, key=NAME, requester=claim)
    while True:
        try:
            await world.gateway()._outside.publish_event(claim, event)
            return
        except (Problem, NoGateway):
            await asyncio.sleep(PAUSE_S)


def complain(record: Any) -> Iterator[str]:
    """See the module."""
    if (counted := record.counter.counts.get(COUNTED, 0)) > 1:
        yield f"{COUNTED} was counted {counted} times"
    matches, ends = (
        said(record, stream, kind)
        for stream, kind in (("INBOX_PLANNER", "mesh.event.matched"), ("INBOX_GATEWAY", "mesh.task.ended"))
    )
    for wish, task in wishes(record):
        if wish.name != NAME:
            continue
        used = {body(one)["step_id"]: (body(one)["event"], body(one)["source"]) for one in matches.get(task, ())}
        if any(source != "ann" for _, source in used.values()):
            yield f"{task}: an event of another source ended a wait: {used}"
        if counted and (set(used) != set(WAITS) or len(set(used.values())) != len(WAITS)):
            yield f"{task} went on after {used}"
        for one in ends.get(task, ()):
            yield from _end(record, body(one))


def _end(record: Any, end: dict[str, Any]) -> Iterator[str]:
    """A wait is given up only where no event was there; when nothing goes wrong the task ends as its events let it."""
    reason = (end["failure"] or {}).get("message", "")
    told = {act.what for act in record.scenario.acts if act.situation == "events" and act.what.startswith("ann/")}
    known = {
        body(one)["event"]
        for one in of(record, "INBOX_PLANNER", "mesh.event.occurred")
        if body(one)["source"] == "ann" and one.time_unix_ms < record.scenario.start_ms + MUCH_LESS_S * 1_000
    }
    if len(known) >= len(WAITS) and "no event order.paid" in reason:
        yield f"{NAME} gave up its wait, and {len(known)} events were there: {reason}"
    if is_calm(record) and len(told) >= len(WAITS) and end["status"] != "succeeded":
        yield f"{NAME} ended as {end['status']} ({reason}), though {len(told)} events came"
    if len(told) < len(WAITS) and end["status"] == "succeeded":
        yield f"{NAME} succeeded after {len(told)} events"


SITUATION = Situation("events", 0.05, add, do, complain)
