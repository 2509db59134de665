"""Programs outside that publish straight onto the bus: in either form of the contract, and as whom they are not.

In: a draw. Out: wishes that come by a publisher. Law: whoever the gateway's policy names stands behind a task, whatever
the message says; a publisher that nobody knows, or that speaks for another tenant, starts nothing.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tests.simulation.laws import reading
from tests.simulation.mesh.people import PUBLISHERS, ROBOT
from tests.simulation.scenario import Scenario, Wish, steps_of
from tests.simulation.situations.situation import Situation


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """One or two, known or not."""
    wishes = []
    for number in range(draw.choice((1, 1, 2))):
        kind = draw.choice(("known", "known", "old", "old", "stranger", "foreign"))
        via = draw.choice(tuple(PUBLISHERS))
        tenant = {"pub_demo": "acme", "pub_acme": "demo"}[via] if kind == "foreign" else PUBLISHERS[via]
        name = f"pub{number}"
        steps = steps_of(draw, name)
        sim = json.dumps({"plan": [one.model_dump(mode="json") for one in steps]})
        wishes.append(
            Wish(
                name=name,
                tenant=tenant,
                objective=f"See to {name}. SIM{sim}",
                check=True,
                submit_after_s=draw.uniform(0, 2),
                cancel_after_s=draw.uniform(0.01, 2) if draw.random() < 0.1 else None,
                repeats=draw.choice((0, 0, 1)),
                via="pub_stranger" if kind == "stranger" else via,
                old_form=kind == "old",
                expects={"stranger": "unknown_publisher", "foreign": "foreign_tenant"}.get(kind, ""),
            )
        )
    return replace(scenario, wishes=(*scenario.wishes, *wishes))


def complain(record: Any) -> Iterator[str]:
    """Who stands behind what was published."""
    submitted = reading.said(record, "INBOX_PLANNER", "mesh.task.submitted")
    for wish, task in reading.wishes(record):
        if wish.via == "http":
            continue
        for one in submitted.get(task, ()):
            actor = one.headers.get("ce-actor")
            if wish.expects:
                yield f"{wish.name} of {wish.via} was passed on"
            elif actor != ROBOT:
                yield f"{wish.name} of {wish.via} runs for {actor}, not for whom the policy names"
            limits = reading.body(one)["limits"]
            asked = (wish.cost_usd_micros, wish.deadline_ms)
            if (limits["cost_usd_micros"], limits["deadline_ms"]) != asked:
                yield f"{wish.name} asked for {asked}, and runs with {limits}"


SITUATION = Situation("publishers", 0.06, add, complain=complain)
