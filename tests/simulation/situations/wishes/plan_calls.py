"""A plan that makes its calls itself, and may ask a person between them, while services come and go.

In: a draw. Out: a wish of a read, perhaps a question, and a write that has a field of the question's step or of none.
Laws, of every run: no model is asked, the write is made once at most, and never where the person was asked and had not
granted it; when nothing goes wrong the task ends as the person said.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bulkhead_contracts.plan import ApprovalQuestion, Plan, PlanStep, StepCall
from tests.simulation.laws.reading import body, is_calm, of, said, task_of, wishes
from tests.simulation.scenario import Act, Scenario, Wish
from tests.simulation.situations.situation import Situation
from tests.simulation.situations.wishes import approvals

NAME = "plain0"
QUESTION = f"Count {NAME}?"
COUNTED = f"{NAME}.c.0"
EXPIRES_S = 20


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """One wish, one person, and sometimes a replica that goes meanwhile."""
    asks = draw.random() < 0.7
    wish = Wish(
        name=NAME,
        tenant=draw.choice(("demo", "acme")),
        plan=Plan(steps=tuple(_steps(draw, asks=asks))),
        check=draw.random() < 0.5,
        deadline_ms=30_000,
        submit_after_s=draw.uniform(0, 1),
    )
    decision = draw.choice(("granted", "granted", "granted", "denied", "never", "granted denied"))
    answers = {QUESTION: [decision, draw.choice((0.0, draw.uniform(0, 5), draw.uniform(5, 15)))]}
    acts = [Act("person1", "plan_calls", 0.0, json.dumps(answers))]
    for number in range(draw.choice((0, 0, 1, 2))):
        how = f"{draw.choice(('restart', 'crash'))}/{draw.choice(approvals.AWAY)}"
        acts.append(Act(f"gone{number}", "plan_calls", draw.uniform(0.2, 15), how))
    return replace(scenario, wishes=(*scenario.wishes, wish), acts=(*scenario.acts, *acts))


def _steps(draw: random.Random, *, asks: bool) -> Iterator[PlanStep]:
    reads = StepCall(tool="calculate", arguments_json=json.dumps({"expression": f"{draw.randint(2, 99)} * 7"}))
    yield PlanStep(id="a", title=f"{NAME} a", instruction="", kind="noop", call=reads)
    if asks:
        question = ApprovalQuestion(text=QUESTION, expires_ms=EXPIRES_S * 1_000)
        yield PlanStep(id="b", title=f"{NAME} b", instruction="", kind="noop", inputs=("a",), question=question)
    yield PlanStep(id="n", title=f"{NAME} n", instruction=COUNTED, kind="noop")
    writes = StepCall(tool="counter_increment", arguments_json=json.dumps({"name": {"$from": "n"}, "amount": 1}))
    inputs = ("b" if asks else "a", "n")
    yield PlanStep(id="c", title=f"{NAME} c", instruction="", kind="noop", inputs=inputs, call=writes)


async def do(world: Any, act: Act) -> None:
    """A replica goes; or the person says his word."""
    if act.name == "person1":
        await approvals.answer_questions(world, NAME, json.loads(act.what))
    else:
        await approvals.take_away(world, act)


def complain(record: Any) -> Iterator[str]:
    """See the module."""
    if any(call.whose == NAME for call in record.model.made):
        yield f"a model was asked for {NAME}"
    if record.counter.counts.get(COUNTED, 0) > 1:
        yield f"{COUNTED} was counted twice"
    for wish, task in wishes(record):
        if wish.name != NAME:
            continue
        outcomes = [
            body(one) for one in of(record, "INBOX_GATEWAY", "mesh.approval.ended") if task_of(one.subject) == task
        ]
        granted = [end["ended_unix_ms"] for end in outcomes if end["outcome"] == "granted"]
        asks = any(step.question for step in (wish.plan.steps if wish.plan else ()))
        for call in record.counter.made:
            at_unix_ms = record.scenario.start_ms + call.since_s * 1_000
            if call.whose == NAME and asks and at_unix_ms < min(granted, default=2**60):
                yield f"{NAME} called the counter at {call.since_s:.1f} s, and nobody had granted it"
        if is_calm(record):
            yield from _calm(record, task, may_write=bool(granted) or not asks)


def _calm(record: Any, task: str, *, may_write: bool) -> Iterator[str]:
    for one in said(record, "INBOX_GATEWAY", "mesh.task.ended").get(task, []):
        end = body(one)
        code = (end["failure"] or {}).get("code", "")
        if may_write and (end["status"] != "succeeded" or record.counter.counts.get(COUNTED) != 1):
            yield f"{NAME} ended as {end['status']} ({end['failure']}), though nothing was in its way"
        if not may_write and (end["status"] != "failed" or code not in ("approval_denied", "approval_expired")):
            yield f"{NAME} ended as {end['status']} ({code}), though nobody granted it"


SITUATION = Situation("plan_calls", 0.06, add, do, complain)
