"""Agents wait for each other: leases taken in opposite order, rings of asks, holders that say nothing more, queues.

In: a draw. Out: tasks of a squad, in a run that is watched. Laws, of every run: whoever got a
lease has given it back or lost it by the end; and when nothing else goes wrong each of these tasks ends well, however
its inboxes lag: every deadlock is broken.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from bulkhead_contracts.plan import Plan, PlanStep
from tests.simulation.laws.reading import body, is_calm, of, said, task_of, wishes
from tests.simulation.laws.record import Record
from tests.simulation.scenario import Act, Scenario, Wish, scripted_step
from tests.simulation.situations.situation import Situation

TENANT = "squad"
TOOLS = ("calculate", "counter_increment", "ask_steps", "answer_step", "acquire_lease", "release_lease")
RESOURCES = ("crm:account:42", "erp:order:7", "mail:list:1")
CALL = tuple[str, dict[str, Any]]
QUEUES = 0.35
"""Runs in which, beside that, some more want one thing, one after the other."""
KINDS = ("crossed", "crossed", "ring", "any", "expiry", "overdue", "star")


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """See the module."""
    kind = draw.choice(KINDS)
    made = {"crossed": _crossed, "ring": _ring, "any": _any, "expiry": _expiry, "overdue": _overdue, "star": _star}[
        kind
    ](draw)
    if draw.random() < QUEUES:
        made += _queue(draw)
    watch = Act("watch", "watched", 0.0)
    acts = scenario.acts if any(one.situation == "watched" for one in scenario.acts) else (*scenario.acts, watch)
    return replace(scenario, wishes=(*scenario.wishes, *made), acts=acts)


def _crossed(draw: random.Random) -> list[Wish]:
    """Tasks that take the same leases in different orders; sometimes three, in a circle."""
    names = RESOURCES[: draw.choice((2, 2, 3))]
    return [
        _task(draw, f"lease{at}", [_taking(draw, f"lease{at}", (names[at], names[(at + 1) % len(names)]))])
        for at in range(len(names))
    ]


def _star(draw: random.Random) -> list[Wish]:
    """Two circles through one task, which waits for both in one turn."""
    one, two, three = RESOURCES
    middle = [("acquire_lease", {"resource": one}), ("calculate", {"expression": "1 * 1"})]
    both = [("acquire_lease", {"resource": two}), ("acquire_lease", {"resource": three})]
    hub = _step("a", "hub0", {"calls": [*middle, *both], "pace_s": draw.uniform(0, 0.3)})
    others = [_task(draw, f"rim{at}", [_taking(draw, f"rim{at}", (name, one))]) for at, name in enumerate((two, three))]
    return [_task(draw, "hub0", [hub]), *others]


def _ring(draw: random.Random) -> list[Wish]:
    """Steps of one task, each of which asks the next one and waits; all but one are answered by results."""
    size = draw.choice((2, 3, 3, 4))
    names = [f"s{at}" for at in range(size)]
    question = {"question": "Is it so?"} if draw.random() < 0.4 else {}
    steps = [
        _step(
            name,
            "ring0",
            {
                "serial": True,
                "pace_s": draw.uniform(0, 0.3),
                "calls": [
                    ("calculate", {"expression": f"{at} * 7"}),
                    ("ask_steps", {"steps": [names[(at + 1) % size]], **question}),
                ],
            },
        )
        for at, name in enumerate(names)
    ]
    return [_task(draw, "ring0", steps)]


def _any(draw: random.Random) -> list[Wish]:
    """A way out of a ring: one of them asks whoever answers first."""
    steps = [
        _step("s0", "either0", {"calls": [("ask_steps", {"steps": ["s1", "s2"], "mode": "any"})]}),
        _step("s1", "either0", {"calls": [("ask_steps", {"steps": ["s0"]})], "pace_s": draw.uniform(0, 0.3)}),
        _step("s2", "either0", {"calls": [("calculate", {"expression": "6 * 7"})], "pace_s": draw.uniform(0, 0.3)}),
    ]
    return [_task(draw, "either0", steps)]


def _expiry(draw: random.Random) -> list[Wish]:
    """A holder that thinks for longer than it may hold; the other one goes on when the lease is over."""
    name = RESOURCES[0]
    slow = [("acquire_lease", {"resource": name, "ttl_s": 2}), ("calculate", {"expression": "1 * 2"})]
    quick = [("acquire_lease", {"resource": name}), ("release_lease", {"resource": name})]
    return [
        _task(draw, "slow0", [_step("a", "slow0", {"calls": slow, "serial": True, "pace_s": 4.0})]),
        _task(draw, "quick0", [_step("a", "quick0", {"calls": quick, "serial": True})], after_s=1.0),
    ]


def _overdue(draw: random.Random) -> list[Wish]:
    """One loses its lease while it thinks, and then wants what the other one holds, who has got the lost one: it is no
    circle, but for whoever hears late of the end of the lease."""
    (one, two), pace_s = RESOURCES[:2], draw.uniform(0.15, 0.3)
    first = [("acquire_lease", {"resource": one, "ttl_s": 1}), ("acquire_lease", {"resource": two})]
    second = [
        ("acquire_lease", {"resource": two}),
        ("acquire_lease", {"resource": one}),
        ("calculate", {"expression": "2 * 3"}),
    ]
    return [
        _task(draw, "loses0", [_step("a", "loses0", {"calls": first, "serial": True, "pace_s": 0.4})]),
        _task(draw, "gets0", [_step("a", "gets0", {"calls": second, "serial": True, "pace_s": pace_s})], after_s=0.2),
    ]


def _queue(draw: random.Random) -> list[Wish]:
    """Several tasks want the same thing at once, and nothing else: each has it in its turn."""
    return [_task(draw, f"queue{at}", [_taking(draw, f"queue{at}", ("desk:1",))]) for at in range(draw.choice((3, 4)))]


def _taking(draw: random.Random, task: str, resources: Sequence[str]) -> PlanStep:
    calls: list[CALL] = []
    for name in resources:
        calls += [("acquire_lease", {"resource": name}), ("calculate", {"expression": f"{draw.randint(1, 99)} * 3"})]
    if draw.random() < 0.5:
        calls += [("release_lease", {"resource": name}) for name in resources]
    return _step("a", task, {"calls": calls, "serial": True, "pace_s": draw.uniform(0, 0.3)})


def _step(name: str, task: str, wants: dict[str, Any]) -> PlanStep:
    return scripted_step(name, task, wants, tools=TOOLS)


def _task(draw: random.Random, name: str, steps: Sequence[PlanStep], after_s: float = 0.0) -> Wish:
    return Wish(
        name=name,
        tenant=TENANT,
        plan=Plan(steps=tuple(steps)),
        check=draw.random() < 0.3,
        submit_after_s=after_s + draw.uniform(0, 0.4),
        cancel_after_s=draw.uniform(0.5, 4) if draw.random() < 0.1 else None,
    )


def complain(record: Record) -> Iterator[str]:
    """See the module."""
    yield from _given_back(record)
    yield from _refused(record)
    yield from _ended_well(record)


def _given_back(record: Record) -> Iterator[str]:
    """At the end of a run everybody has had the time to say so."""
    over = {body(one)["lease_id"] for one in of(record, "INBOX_PLANNER", "mesh.lease.release_requested")}
    over |= {body(one)["lease_id"] for one in of(record, "INBOX_WORKER", "mesh.lease.ended")}
    for one in of(record, "INBOX_WORKER", "mesh.lease.granted"):
        if body(one)["lease_id"] not in over and record.idle:
            yield f"{task_of(one.subject)} was granted {body(one)['resource']} and neither gave it back nor lost it"


def _refused(record: Record) -> Iterator[str]:
    """A lease whose wait was refused before it was granted is never kept; a refusal tells its circle."""
    for task, refusals in said(record, "INBOX_WORKER", "mesh.agent.wait_refused").items():
        for one in refusals:
            if len(body(one)["cycle"]) < 2:
                yield f"{task}: a wait was refused for a circle of {body(one)['cycle']}"
            if not record.scenario.watched:
                yield f"{task}: a wait was refused though nobody watched"


def _ended_well(record: Record) -> Iterator[str]:
    if not is_calm(record):
        return
    ends = {task: body(each[0]) for task, each in said(record, "INBOX_GATEWAY", "mesh.task.ended").items()}
    for wish, task in wishes(record):
        if wish.tenant == TENANT and wish.cancel_after_s is None and task in ends:
            end = ends[task]
            if end["status"] != "succeeded":
                failure = end["failure"] or {}
                yield f"{wish.name} waited and did not end well: {end['status']}: {failure.get('message', '')[:300]}"


SITUATION = Situation("waits", 0.04, add, None, complain)
