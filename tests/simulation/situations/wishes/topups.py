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
from dataclasses import replace
from typing import Any

from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.bus.port import BusUnavailable
from bulkhead.runtime.errors import RpcRefused
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts.budget import Limit, TopUpReplied, TopUpRequested
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.task import RequesterClaim
from tests.simulation.laws.reading import body, is_calm, of, said, task_of, wishes
from tests.simulation.laws.stops import AT_LAST_S, AT_ONCE_S, LATE
from tests.simulation.scenario import Act, Scenario, Wish, scripted_step
from tests.simulation.situations.situation import Situation

TENANT, NAME = "demo", "dear"
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
        requester=RequesterClaim(tenant=TENANT, person="ada", role="operator", via="api_key"),
        task=task,
        add=Limit(cost_usd_micros=int(more)),
        until_unix_ms=world.net.clock.now_ms() + 4_200_000,
        reason="worth it",
    )
    publisher = Publisher("gateway", MemoryBus(world.net, "gateway"), b"gateway", world.net.clock.now_ms)
    while True:
        try:
            reply = await publisher.request("budget", ask, tenant=TENANT, task=task, index=f"topup/{act.what}")
        except (BusUnavailable, RpcRefused):
            await asyncio.sleep(AGAIN_S)
            continue
        assert isinstance(reply, TopUpReplied)
        if reply.failure is None:
            break
        await asyncio.sleep(AGAIN_S)
    world.tell(f"topped up {act.what}: {reply.added.cost_usd_micros}, resumed {reply.resumed}")


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
    for task, since_s, until_s in _spans(record):
        what = f"{names.get(task)} was halted at its ceiling from {since_s:.1f} to {until_s:.1f} s"
        for call in (*record.model.made, *record.counter.made):
            if call.whose != names.get(task):
                continue
            if since_s + grace_s < call.since_s < until_s:
                yield f"{what}; it called the {call.what} at {call.since_s:.1f} s"
            speaks_s = record.ended_at_s if call.until_s is None else call.until_s
            if call.what == "model" and call.since_s < since_s and since_s + grace_s < min(speaks_s, until_s):
                yield f"{what}; a model spoke to it until {speaks_s:.1f} s"


def _spans(record: Any) -> Iterator[tuple[str, float, float]]:
    """Which task was held back from when to when; what ended is the law of laws/stops.py."""
    since: dict[str, float] = {}
    for one in record.halts:
        if not one.subject.startswith("$KV.CONTROL.task."):
            continue
        entry, at_s = body(one), (one.time_unix_ms - record.scenario.start_ms) / 1000
        task = task_of(one.subject)
        if entry["active"] and entry["pauses"]:
            since.setdefault(task, at_s)
        elif (began := since.pop(task, None)) is not None:
            yield task, began, at_s
    yield from ((task, began, record.ended_at_s) for task, began in since.items())


SITUATION = Situation("topups", 0.06, add, do, complain)
