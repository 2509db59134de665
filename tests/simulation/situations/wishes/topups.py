"""Tasks that reach their ceiling in the middle and are given more: too little first, then enough; the same wish twice.

In: a draw. Out: tasks whose money ends, and operators who top them up. Laws, of every run: while
a task is halted at its ceiling none of its calls begins and no model goes on speaking to it; when nothing else goes
wrong, whoever is given enough ends well, no step of it was tried twice, and nothing was asked twice. That the raised
ceiling holds, effects come once and money is conserved say the laws of every run.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.bus.port import BusUnavailable
from bulkhead.runtime.errors import RpcRefused
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts.budget import Limit, TopUpRequested
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Body
from tests.simulation.laws.reading import body, is_calm, of, said, wishes
from tests.simulation.laws.stops import AT_LAST_S, AT_ONCE_S, LATE, calls_in_a_pause, pauses_of
from tests.simulation.scenario import Act, Scenario, Wish, scripted_step
from tests.simulation.situations.situation import Situation

TENANT, NAME = "demo", "dear"
ADA = RequesterClaim(tenant=TENANT, person="ada", role="operator", via="api_key")
ENOUGH_MICROS = 400_000
AGAIN_S = 0.5


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """One or two of them."""
    made, acts = [], []
    for number in range(draw.choice((1, 2))):
        name = f"{NAME}{number}"
        made.append(_task(draw, name))
        first = draw.uniform(2, 8)
        for at_s, more in ((first, draw.choice((30, 200))), (first + draw.uniform(1, 20), ENOUGH_MICROS)):
            acts.append(Act("topup", "topups", at_s, f"{name}/{more}"))
    return replace(scenario, wishes=(*scenario.wishes, *made), acts=(*scenario.acts, *acts))


def _task(draw: random.Random, name: str) -> Wish:
    calls = [["calculate", {"expression": f"{draw.randint(2, 99)} * {number}"}] for number in range(2, 7)]
    calls.insert(draw.randint(0, 4), ["counter_increment", {"name": f"{name}-kept", "amount": 1}])
    wants, tools = (
        {"calls": calls, "serial": True, "pace_s": draw.choice((0, 0.25))},
        ("calculate", "counter_increment"),
    )
    steps = (
        scripted_step("a", name, wants, acceptance="It is done.", tools=tools),
        PlanStep(id="b", title=f"{name} b", instruction=f"Sum {name} up.", acceptance="It is done.", inputs=("a",)),
    )
    return Wish(
        name=name,
        tenant=TENANT,
        plan=Plan(steps=steps),
        check=draw.random() < 0.5,
        cost_usd_micros=draw.choice((300, 600, 900, 1_500)),
        submit_after_s=draw.uniform(0, 0.5),
    )


async def do(world: Any, act: Act) -> None:
    """As the gateway asks for an operator, until there is an answer: heard twice it counts once."""
    name, _, more = act.what.partition("/")
    while (task := world.record.tasks.get(name)) is None:
        await asyncio.sleep(AGAIN_S)
    ask = TopUpRequested(
        requester=ADA,
        task=task,
        add=Limit(cost_usd_micros=int(more)),
        until_unix_ms=world.net.clock.now_ms() + 4_200_000,
        reason="worth it",
    )
    reply = await ask_budget(world, ask, task, f"topup/{act.what}")
    world.tell(f"topped up {act.what}: {reply.added.cost_usd_micros}, resumed {reply.resumed}")


async def ask_budget(world: Any, body: Body, task: str, index: str) -> Any:
    """Its answer to the gateway, which asks until it agrees."""
    publisher = Publisher("gateway", MemoryBus(world.net, "gateway"), b"gateway", world.net.clock.now_ms)
    while True:
        with suppress(BusUnavailable, RpcRefused):
            reply: Any = await publisher.request("budget", body, tenant=TENANT, task=task, index=index)
            if reply.failure is None:
                return reply
        await asyncio.sleep(AGAIN_S)


def complain(record: Any) -> Iterator[str]:
    """See the module."""
    yield from _silent(record)
    topped = {act.what.partition("/")[0] for act in record.scenario.acts if act.situation == "topups"}
    if not topped:
        return
    yield from _counted(record)
    if not is_calm(record):
        return
    ends = {task: body(found[0]) for task, found in said(record, "INBOX_GATEWAY", "mesh.task.ended").items()}
    for wish, task in wishes(record):
        if wish.name not in topped or task not in ends:
            continue
        if ends[task]["status"] != "succeeded":
            yield f"{wish.name} was given enough, and ended as {ends[task]['status']}: {ends[task]['failure']}"
        for kind in ("mesh.step.assigned", "mesh.model.call_replied", "mesh.tool.call_replied"):
            found = said(record, "INBOX_WORKER", kind).get(task, [])
            names = Counter(body(one).get("call_id") or body(one)["step"]["id"] for one in found)
            if twice := [name for name, count in names.items() if count > 1]:
                yield f"{wish.name}: {kind} came twice for {twice}"


def _counted(record: Any) -> Iterator[str]:
    """Of each wish the amount was added once, however often it was heard."""
    wanted: Counter[str] = Counter()
    for act in record.scenario.acts:
        if act.situation == "topups":
            name, _, more = act.what.partition("/")
            wanted[record.tasks.get(name, name)] += int(more)
    facts = [body(one) for one in of(record, "INBOX_JOURNAL", "mesh.budget.limits_changed")]
    added = {one["task"]: one["add"]["cost_usd_micros"] for fact in facts for one in fact["top_ups"]}
    for task, most in wanted.items():
        if added.get(task, 0) != most and len(record.acts) == len(record.scenario.acts):
            yield f"{task} was topped up with {added.get(task, 0)} where {most} were meant"


def _silent(record: Any) -> Iterator[str]:
    grace_s = AT_LAST_S if any(fault.kind in LATE for fault in record.chaos.fired) else AT_ONCE_S
    names = {task: wish.name for wish, task in wishes(record)}
    for task, since_s, until_s in pauses_of(record, "task"):
        what = f"{names.get(task)} was halted at its ceiling from {since_s:.1f} to {until_s:.1f} s"
        calls = calls_in_a_pause(record, {names.get(task, "")}, since_s, until_s, grace_s)
        yield from (f"{what}; {call}" for call in calls)


SITUATION = Situation("topups", 0.06, add, do, complain)
