"""Messages that must not be taken, and messages that come before their task: from services with a bug.

In: a draw. Out: acts that store them. Law: each that cannot be taken becomes a dead letter with its own reason, once;
what is only early waits, and is no dead letter.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bulkhead_contracts import bounds, subjects
from tests.simulation.laws import reading
from tests.simulation.mesh.people import task_of
from tests.simulation.scenario import Act, Scenario, Wish
from tests.simulation.situations.situation import Situation

STRAYS = {
    "forged_source": ("worker", "planner", "mesh.step.finished.v1", "checker"),
    "not_in_catalog": ("pub_demo", "gateway", "mesh.task.ended.v1", "pub_demo"),
    "malformed_body": ("model_gateway", "worker", "mesh.model.call_replied.v1", "model_gateway"),
    "bad_subject": ("worker", "checker", "mesh.step.proposed.v1", "worker"),
    "bad_envelope": ("checker", "planner", "mesh.verdict.reached.v1", ""),
    "unknown_version": ("pub_demo", "gateway", "mesh.task.requested.v9", "pub_demo"),
    "malformed_request": ("pub_demo", "gateway", "mesh.task.requested.v1", "pub_demo"),
    "malformed_opening": ("gateway", "planner", "mesh.task.submitted.v1", "gateway"),
}
"""What it is -> sender, receiver, type, and the sender that its envelope names."""
CODES = {"malformed_request": "malformed_body", "malformed_opening": "malformed_body"}
EARLY = ("early_cancel", "early_finish")
TIME = "2027-01-15T08:00:00.000Z"


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """One to three strays, or one that is early for a task of its own."""
    if draw.random() < 0.4:
        what = draw.choice(EARLY)
        wish = Wish(name="early0", tenant="demo", submit_after_s=7 + draw.uniform(0, 2))
        before_s = draw.choice((draw.uniform(0.1, 1), draw.uniform(3, 6)))
        act = Act("stray-early", "strays", wish.submit_after_s - before_s, what)
        return replace(scenario, wishes=(*scenario.wishes, wish), acts=(*scenario.acts, act))
    acts = tuple(
        Act(f"stray-{number}", "strays", draw.uniform(0, 4), draw.choice(tuple(STRAYS)))
        for number in range(draw.choice((1, 2, 3)))
    )
    return replace(scenario, acts=(*scenario.acts, *acts))


async def do(world: Any, act: Act) -> None:
    """Store it."""
    if act.what in EARLY:
        _early(world, act)
        return
    sender, receiver, kind, source = STRAYS[act.what]
    subject = subjects.mesh_subject(sender, receiver, "demo", _task(act))
    if act.what == "bad_subject":
        wrong = (subjects.partition_of(_task(act)) + 1) % bounds.PARTITIONS
        subject = f"mesh.{sender}.{receiver}.{wrong}.demo.{_task(act)}.-"
    body = b'{"broken": ' if act.what.startswith("malformed") else b"{}"
    world.net.store(subject, _headers(f"poison-{act.name}", kind, source), body)


def _headers(name: str, kind: str, source: str) -> dict[str, str]:
    head = {"ce-id": name, "ce-type": kind, "ce-source": source, "ce-specversion": "1.0", "ce-time": TIME}
    return {key: value for key, value in {**head, "Nats-Msg-Id": name}.items() if value}


def _task(act: Act) -> str:
    return f"t-{act.name}"


def _early(world: Any, act: Act) -> None:
    """A true message, of another sender than the one that opens the task, and faster."""
    wish = next((one for one in world.scenario.wishes if one.name == "early0"), None)
    if wish is None:
        return
    task = task_of(wish)
    kind, sender = "mesh.task.cancel_requested.v1", "gateway"
    body: dict[str, object] = {"reason": "enough"}
    if act.what == "early_finish":
        body = {"step_id": "a", "attempt": 1, "plan_version": 1, "result": {"summary": "a lie"}}
        kind, sender = "mesh.step.finished.v1", "worker"
    subject = subjects.mesh_subject(sender, "planner", wish.tenant, task)
    world.net.store(subject, _headers(f"early-{act.name}", kind, sender), json.dumps(body).encode())


def complain(record: Any) -> Iterator[str]:
    """Each in its place."""
    letters = record.stored("DEAD_LETTERS")
    for act in record.scenario.acts:
        if act.situation != "strays" or act.what in EARLY or act.name not in record.acts:
            continue
        mine = [one for one in letters if one.headers.get("bulkhead-original-ce-id") == f"poison-{act.name}"]
        codes = {one.headers["bulkhead-dead-code"] for one in mine}
        if codes != {CODES.get(act.what, act.what)}:
            yield f"{act.name} ({act.what}) became {sorted(codes) or 'no dead letter'}"
        if act.what == "malformed_opening":
            ends = reading.said(record, "INBOX_GATEWAY", "mesh.task.ended").get(_task(act), [])
            if [reading.body(one)["status"] for one in ends] != ["failed"]:
                yield f"{act.name}: a task whose opening cannot be read did not end as failed"


SITUATION = Situation("strays", 0.06, add, do, complain)
