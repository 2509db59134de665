"""Each law can complain: a run in which all is well is falsified in one place, and the law says so.

A law that no falsified run breaks would hold in every schedule and show nothing.
"""

import copy
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead_contracts import subjects
from tests.simulation import world
from tests.simulation.laws import oracle
from tests.simulation.laws.reading import of, type_of, wishes
from tests.simulation.laws.record import Record
from tests.simulation.mesh.outside import Call
from tests.simulation.situations.wishes import events, maps, plan_calls

from .scenario import Act
from .schedule import Schedule, judge

CALM, PUBLISHED = 6, "publishers"
_ids = itertools.count(1)


@pytest.fixture(scope="module")
def runs():
    world.quiet_logs()
    with world.Folder() as folder:
        found = {}

        def run(seed: int) -> Record:
            if seed not in found:
                found[seed] = judge(Schedule(seed, frozenset()), folder)
                assert found[seed].complaints == ()
            mine = copy.copy(found[seed].record)
            # What is falsified in one test is whole in the next.
            for name in ("read", "purged", "views", "remembered", "sayings", "halts", "gone", "acts", "held"):
                setattr(mine, name, copy.deepcopy(getattr(mine, name)))
            mine.counter, mine.model = copy.copy(mine.counter), copy.copy(mine.model)
            mine.counter.counts, mine.model.made = dict(mine.counter.counts), list(mine.model.made)
            return mine

        yield run


def one(record: Record) -> tuple[Any, str]:
    """A wish and its task."""
    return next(wishes(record))


def say(record: Record, sender: str, to: str, kind: str, task: str = "", **body: Any) -> None:
    """Store a message more."""
    task = task or one(record)[1]
    head = {"ce-type": kind, "ce-id": f"false-{next(_ids)}", "ce-source": sender, "ce-causeid": "nothing"}
    stored = StoredMessage(
        subjects.mesh_subject(sender, to, "demo", task), head, json.dumps(body).encode(), 10**6, 10**13
    )
    record.purged.setdefault(f"INBOX_{to.upper()}", []).append(stored)
    record.read.clear()


def change(record: Record, inbox: str, kind: str, with_: Callable[[dict], dict | None]) -> None:
    """Every message of a type says something else, or was never said."""
    of(record, inbox, kind)
    found = []
    for stored in record.read[inbox]:
        body = with_(json.loads(stored.body)) if type_of(stored).startswith(f"{kind}.v") else json.loads(stored.body)
        if body is not None:
            found.append(replace(stored, body=json.dumps(body).encode()))
    record.read[inbox] = found


def never(body: dict) -> None:
    return None


def said_otherwise(record: Record, who: tuple[str, ...], kinds: tuple[str, ...] = ("mesh.",)) -> None:
    saying = next(
        one for one in record.sayings if one.who.startswith(who) and one.headers.get("ce-type", "").startswith(kinds)
    )
    record.sayings.append(replace(saying, body=saying.body.replace(b"{", b"{ ", 1)))


def stored_otherwise(record: Record) -> None:
    stored = next(one for one in record.stored("INBOX_WORKER") if one.headers["ce-source"] == "planner")
    record.purged.setdefault("INBOX_WORKER", []).append(replace(stored, body=stored.body + b" "))


def without_sources(end: dict) -> dict:
    return {**end, "result": {**end["result"], "provenance": []}} if end["result"] else end


def halted(record: Record, scope: str, name: str, **more: Any) -> None:
    """It was halted at once, and somebody calls long after."""
    wish, _ = one(record)
    entry = {"active": True, "pauses": False, "name": name, "by": "ada", "code": "halted", **more}
    record.halts.append(
        StoredMessage(f"$KV.CONTROL.{scope}.demo.{name}", {}, json.dumps(entry).encode(), 1, record.scenario.start_ms)
    )
    record.ended_at_s = 500.0
    record.model.made.append(Call("model", wish.name, 400.0, 401.0))


def given_enough(record: Record) -> None:
    """It had reached its ceiling, was topped up, and failed."""
    wish, task = one(record)
    record.scenario = replace(
        record.scenario, wishes=(replace(wish, name="rush0"),), acts=(Act("rush0", "hurry", 0.0, "topup/400000@0"),)
    )
    record.tasks = {"rush0": task}
    change(record, "INBOX_GATEWAY", "mesh.task.ended", lambda end: {**end, "status": "failed"})


def mapped_twice(record: Record) -> None:
    """A map of one item was run, which was counted twice."""
    _, task = one(record)
    scenario = maps.add(random.Random(1), replace(record.scenario, wishes=()))
    record.scenario, record.tasks = scenario, {maps.NAME: task}
    [wish] = scenario.wishes
    assert wish.plan is not None
    record.counter.counts.update(dict.fromkeys(json.loads(wish.plan.steps[0].instruction), 2))


def delivers_nothing(record: Record) -> None:
    """All is said to be answered, and a person reads nothing."""
    change(
        record,
        "INBOX_GATEWAY",
        "mesh.task.ended",
        lambda end: {**end, "result": {**(end["result"] or {}), "answered": "yes"}},
    )
    record.views[one(record)[1]].update(answer="")


FALSE: dict[str, Callable[[Record], None]] = {
    "quiet": lambda run: setattr(run, "idle", False),
    "ends": lambda run: change(run, "INBOX_GATEWAY", "mesh.task.ended", never),
    "effects": lambda run: run.counter.counts.update(written=2),
    "money": lambda run: say(
        run,
        "model_gateway",
        "budget",
        "mesh.budget.settled.v1",
        reservation_id="none",
        estimated=True,
        usage=dict.fromkeys(("cost_usd_micros", "model_calls", "tool_calls", "input_tokens", "output_tokens"), 0),
    ),
    "one_word": lambda run: said_otherwise(run, oracle.DECIDERS),
    "answers": lambda run: said_otherwise(run, oracle.DOERS, oracle.ANSWERS),
    "memories": lambda run: run.remembered.append(("planner-0", "t1", "one", "other")),
    "inboxes": stored_otherwise,
    "honest": lambda run: change(run, "INBOX_GATEWAY", "mesh.task.ended", without_sources),
    "dead_letters": lambda run: run.purged.update(DEAD_LETTERS=[StoredMessage("dead.planner", {}, b"", 1, 1)]),
    "work": lambda run: change(
        run,
        "INBOX_GATEWAY",
        "mesh.task.ended",
        lambda end: {**end, "status": "failed", "failure": {"code": "x", "message": "x"}},
    ),
    "answered": delivers_nothing,
    "seen": lambda run: run.views[one(run)[1]].update(status="running"),
    "taken": lambda run: change(run, "INBOX_GATEWAY", "mesh.task.step_started", never),
    "stops": lambda run: halted(run, "task", one(run)[1]),
    "trips": lambda run: say(
        run,
        "budget",
        "journal",
        "mesh.budget.tripped.v1",
        trip="x",
        detector="loop.repeat",
        halted=True,
        what="again",
        evidence=[],
    ),
    "waiting": lambda run: say(
        run, "budget", "worker", "mesh.agent.wait_refused.v1", trip="x", wait_id="w", cycle=["a", "b"]
    ),
    "waits": lambda run: say(
        run, "planner", "worker", "mesh.lease.granted.v1", lease_id="l", resource="desk:1", fencing_token=1
    ),
    "floods": lambda run: change(run, "INBOX_GATEWAY", "mesh.task.places_given", never),
    "publishers": lambda run: setattr(
        run,
        "scenario",
        replace(run.scenario, wishes=tuple(replace(wish, via="pub_demo") for wish in run.scenario.wishes)),
    ),
    "purges": lambda run: run.purged.setdefault("INBOX_GATEWAY", []).append(run.stored("INBOX_GATEWAY")[0]),
    "halting": lambda run: halted(run, "tenant", one(run)[0].tenant),
    "hurry": given_enough,
    "approvals": lambda run: run.counter.counts.update({"allow0.a.0": 1}),
    "flows": lambda run: change(
        run, "INBOX_GATEWAY", "mesh.task.step_ended", lambda end: {**end, "skipped": [end["step_id"]]}
    ),
    "maps": mapped_twice,
    "events": lambda run: run.counter.counts.update({events.COUNTED: 2}),
    "ahead": lambda run: say(run, "worker", "rag", "mesh.retrieval.requested.v1", step_id="s", asked_ahead=True),
    "plan_calls": lambda run: run.counter.counts.update({plan_calls.COUNTED: 2}),
    "topups": lambda run: halted(run, "task", one(run)[1], pauses=True),
    "strays": lambda run: (
        run.acts.append("stray0"),
        setattr(run, "scenario", replace(run.scenario, acts=(Act("stray0", "strays", 1.0, "unknown_type"),))),
    ),
}
"""By law, how a run is falsified."""


@pytest.mark.parametrize("law", sorted(oracle.LAWS))
def test_a_law_complains_of_a_run_that_breaks_it(law, runs):
    record = runs(CALM)
    assert not any(oracle.LAWS[law](record))
    FALSE[law](record)
    assert any(oracle.LAWS[law](record)), f"{law} holds whatever happens"
