"""Calls that wait for a person, who grants, denies, says both or never answers, while services come and go.

In: a draw. Out: a wish with less time than its people take, the person, sometimes a replica that goes meanwhile. Laws,
of every run: nothing is done before somebody granted it, nor what nobody granted; a question ends once; when nothing
goes wrong the task outlives its people's thinking, and says what was not done and why.
"""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bulkhead.policy.ruling import CallProposal, CallRuling
from bulkhead_contracts import subjects
from bulkhead_contracts.approval import DecideRequested
from bulkhead_contracts.plan import ASK_PERSON, Plan, PlanStep
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.problems import Problem
from tests.open_policy import permitted
from tests.simulation.laws.reading import body, is_calm, of, said, task_of, wishes
from tests.simulation.mesh.chaos import KILLED, Fault
from tests.simulation.mesh.people import NoGateway
from tests.simulation.mesh.people import task_of as task_of_wish
from tests.simulation.scenario import SERVICES, Act, Scenario, Wish, scripted_step
from tests.simulation.situations.situation import Situation

NAME = "allow0"
TTL_S = 60
"""So long people may take, in every run."""
OWN_S = 30
"""The task's own time."""
LOOK_S = 0.5
GIVE_UP_S = 300.0
AWAY = (*SERVICES, "gateway", "gateway", "tool_executor", "planner", "worker")


def rule(proposal: CallProposal) -> CallRuling:
    """Of every run: this task's writes and questions are asked about, all else is permitted."""
    if proposal.tool.name == ASK_PERSON:
        return CallRuling("ask", "question", "0" * 64, "medium", reasons=("the plan asks a person",))
    if proposal.tool.effect == "read" or not str(proposal.arguments.get("name", "")).startswith(f"{NAME}."):
        return permitted(proposal)
    return CallRuling("ask", "writes-ask", "0" * 64, "high", reasons=("writes are asked about",))


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """One or two steps with one or two writes each."""
    names = [f"{NAME}.{step}.{number}" for step in "ab" for number in range(draw.choice((1, 2)))]
    steps = tuple(_step(draw, step, names) for step in "ab"[: draw.choice((1, 2))])
    wish = Wish(
        name=NAME,
        tenant=draw.choice(("demo", "acme")),
        plan=Plan(steps=steps),
        check=draw.random() < 0.3,
        deadline_ms=OWN_S * 1_000,
        submit_after_s=draw.uniform(0, 1),
        cancel_after_s=draw.uniform(2, 30) if draw.random() < 0.1 else None,
    )
    answers = {name: [_decision(draw), draw.choice((0.0, draw.uniform(0, 5), draw.uniform(10, 40)))] for name in names}
    acts = [Act("person0", "approvals", 0.0, json.dumps(answers))]
    for number in range(draw.choice((0, 0, 1, 2))):
        how = f"{draw.choice(('restart', 'crash'))}/{draw.choice(AWAY)}"
        acts.append(Act(f"away{number}", "approvals", draw.uniform(0.5, 25), how))
    return replace(scenario, wishes=(*scenario.wishes, wish), acts=(*scenario.acts, *acts))


def _decision(draw: random.Random) -> str:
    return draw.choice(("granted", "granted", "granted", "denied", "never", "granted denied", "denied granted"))


def _step(draw: random.Random, step: str, names: list[str]) -> PlanStep:
    mine = [name for name in names if name.split(".")[1] == step]
    twins = [*mine, mine[0]] if draw.random() < 0.2 else mine
    calls = [["counter_increment", {"name": name, "amount": 1}] for name in twins]
    serial = draw.random() < 0.4 and twins == mine
    inputs, tools = ("a",) if step == "b" and draw.random() < 0.5 else (), ("counter_increment",)
    wants = {"calls": calls, "serial": serial}
    return scripted_step(step, NAME, wants, tools=tools, inputs=inputs, acceptance="It is done.")


async def do(world: Any, act: Act) -> None:
    """A replica goes; or the person looks again and again, and says his word until it is taken."""
    if act.name == "person0":
        await answer_questions(world, NAME, json.loads(act.what))
    else:
        await take_away(world, act)


async def take_away(world: Any, act: Act) -> None:
    """A replica goes while a person thinks."""
    how, service = act.what.split("/")
    if how == "restart":
        await world.restart(service)
    else:
        world.chaos.fired.append(Fault(KILLED, f"{service}-0 by {act.name}", 1))
        world.crash(f"{service}-0", "while a person thinks")


async def answer_questions(world: Any, name: str, answers: dict[str, Any]) -> None:
    """A person looks again and again, and says his word until it is taken. answers: by what is asked about."""
    wish = next((one for one in world.scenario.wishes if one.name == name), None)
    if wish is None:
        return  # A schedule that is being shrunk.
    since: dict[str, float] = {}
    began = asyncio.get_running_loop().time()
    while not _over(world, wish) and asyncio.get_running_loop().time() < began + GIVE_UP_S:
        try:
            await _look(world, wish, answers, since)
        except (Problem, NoGateway):
            pass
        except Exception as error:
            world.tell(f"nothing was decided: {error!r}")
        await asyncio.sleep(LOOK_S)


async def _look(world: Any, wish: Wish, answers: dict[str, Any], since: dict[str, float]) -> None:
    decisions = world.gateway()._decisions
    bob = RequesterClaim(tenant=wish.tenant, person="bob", role="approver", via="api_key")
    for row in await decisions._index.list_rows(wish.tenant):
        now, asked = asyncio.get_running_loop().time(), row.request
        words, after_s = answers.get(_subject(asked.arguments_json), ("never", 0.0))
        if words == "never" or row.ended is not None or now < since.setdefault(asked.approval_id, now) + after_s:
            continue
        for word in words.split():
            told = DecideRequested(
                approval_id=asked.approval_id, arguments_sha256=asked.arguments_sha256, decision=word, reason="so it is"
            )
            await decisions.send_decision(bob, asked.approval_id, told)
            world.tell(f"bob says {word} to {asked.arguments_json}")


def _over(world: Any, wish: Wish) -> bool:
    mine = subjects.task_filter("gateway", wish.tenant, task_of_wish(wish))
    stored = world.record.stored("INBOX_GATEWAY", mine)
    return any(one.headers.get("ce-type", "").startswith(("mesh.task.ended", "mesh.task.rejected")) for one in stored)


def complain(record: Any) -> Iterator[str]:
    """See the module."""
    asked = {body(one)["approval_id"]: one for one in of(record, "INBOX_GATEWAY", "mesh.approval.requested")}
    outcomes: dict[str, set[str]] = defaultdict(set)
    granted: dict[str, int] = {}
    for one in of(record, "INBOX_GATEWAY", "mesh.approval.ended"):
        end = body(one)
        outcomes[end["approval_id"]].add(end["outcome"])
        if end["outcome"] == "granted" and end["approval_id"] in asked:
            granted[_name(asked[end["approval_id"]])] = end["ended_unix_ms"]
    for approval, found in outcomes.items():
        if len(found) > 1 or approval not in asked:
            yield f"approval {approval} ended as {' and '.join(sorted(found))}"
    for name in record.counter.counts:
        if name.startswith(f"{NAME}.") and name not in granted:
            yield f"{name} was counted, and nobody had granted it"
    first = min(granted.values(), default=0)
    for call in record.counter.made:
        if call.whose == NAME and record.scenario.start_ms + call.since_s * 1_000 < first:
            yield f"{NAME} called the counter at {call.since_s:.1f} s, before anybody had granted it"
    for wish, task in wishes(record):
        if wish.name == NAME and wish.cancel_after_s is None and is_calm(record):
            yield from _calm(
                record, task, {_name(one) for one in asked.values() if task_of(one.subject) == task} - {*granted}
            )


def _name(asked: Any) -> str:
    return _subject(body(asked)["arguments_json"])


def _subject(arguments_json: str) -> str:
    """What is asked about: a counter, or a question."""
    arguments = json.loads(arguments_json)
    return str(arguments.get("name") or arguments["question"])


def _calm(record: Any, task: str, without: set[str]) -> Iterator[str]:
    """Nothing went wrong: it outlives its deadline, and says what it was made without."""
    ends = said(record, "INBOX_GATEWAY", "mesh.task.ended").get(task, [])
    for one in ends:
        end = body(one)
        if end["status"] != "succeeded":
            yield f"{NAME} ended as {end['status']} while people were asked: {end['failure']}"
            continue
        result = end["result"]
        told = any(word in result["standing_reason"] for word in ("denied", "nobody approved"))
        if told != bool(without) or (without and result["standing"] != "degraded"):
            yield f"{NAME} is {result['standing']} ({result['standing_reason']!r}), without {sorted(without)}"


SITUATION = Situation("approvals", 0.05, add, do, complain)
