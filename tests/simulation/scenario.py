"""What people want in a run: tasks of several tenants with plans of many shapes, some cancelled, poor, hurried or vile.

In: a seed. Out: values. What a step should do stands in its instruction as `SIM{...}`, which the scripted model of
outside.py reads; the services see only text.
"""

import json
import random
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bulkhead_contracts import catalog
from bulkhead_contracts.plan import Plan, PlanStep

WRITES = ("counter_increment", "counter_increment_unkeyed")
START_MS = 1_800_000_000_000
MIDNIGHT_MS = 1_800_057_600_000 - 20_000
"""20 s before a day (UTC) ends: two days' accounts in one run."""


@dataclass(frozen=True, slots=True)
class Fork:
    """A task that takes results over from an ended one. keep: `all` that was accepted but the last step and what is
    `changed`; `edited`: names a step that it changed itself, which must be refused. soon: does not wait for the end."""

    of: str
    keep: Literal["all", "edited"] = "all"
    soon: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """One task. At most one of cancel_after_s and poison is set; both may be left out.

    objective: without one, to see to the name.
    via: `http`, or the outside publisher (`pub_...`) that says it, in the first form of the contract when `old_form`.
    expects: how it must be rejected (a code), whatever goes wrong; "" for no rejection. cancel_at: the kind of message
    about it at which it is cancelled, some moments later. at_once: it is submitted to every gateway at the same time.
    """

    name: str
    tenant: str
    submit_after_s: float
    objective: str = ""
    plan: Plan | None = None
    check: bool = False
    cost_usd_micros: int = 500_000
    deadline_ms: int = 120_000
    cancel_after_s: float | None = None
    repeats: int = 0
    poison: bool = False
    via: str = "http"
    old_form: bool = False
    fork: Fork | None = None
    expects: str = ""
    cancel_at: str = ""
    at_once: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "objective", self.objective or f"See to {self.name}.")


@dataclass(frozen=True, slots=True)
class Act:
    """Something else that happens at some time: what, tells the situation that brought it (see situations)."""

    name: str
    situation: str
    at_s: float
    what: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run's input. replicas: how many of each service. logic: the version that new tasks start with; roll_after_s:
    when replicas that know only that one are replaced, one by one, by such that know the newest, too.
    acts: what people and broken programs do beside submitting tasks."""

    seed: int
    wishes: tuple[Wish, ...]
    replicas: dict[str, int] = field(default_factory=dict)
    start_ms: int = START_MS
    shards: int = 1
    lease_ms: int = 600_000
    ack_wait_ms: int = 3_000
    logic: int = 1
    newest: int = 1
    roll_after_s: float | None = None
    acts: tuple[Act, ...] = ()

    def only(self, names: frozenset[str]) -> "Scenario":
        """Of the wishes and acts those with these names. A halt that stays is lifted as well: without its end the tasks
        that it holds back fail rightly."""
        kept = names | {"resume"} if "halt" in names else names
        return replace(
            self,
            wishes=tuple(wish for wish in self.wishes if wish.name in kept),
            acts=tuple(act for act in self.acts if act.name in kept),
        )

    @property
    def watched(self) -> bool:
        """Whether budget watches the journal in this run: an act, so that a schedule that names what it keeps tells."""
        return any(one.situation == "watched" for one in self.acts)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all wishes and acts."""
        return (*(wish.name for wish in self.wishes), *(act.name for act in self.acts))


FIRST = ("gateway", "signer")
IDLE = ("doors",)
"""Not started: no wish is an outside agent's, and a service more would be another schedule of each seed."""
SERVICES = (*FIRST, *(name for name in catalog.SERVICES if name not in (*FIRST, *IDLE)))
"""In this order a seed draws what happens to services: another order is another schedule of each seed."""


def scenario(seed: int, tasks: int | None = None) -> Scenario:
    """The input of one seed; `tasks` overrules how many there are."""
    draw = random.Random(f"scenario/{seed}")
    count = tasks or draw.choice((1, 1, 1, 2, 2, 3))
    flood = tasks is None and draw.random() < 0.03
    wishes = tuple(_wish(draw, number, flood) for number in range(8 if flood else count))
    many = draw.random() < 0.5
    return Scenario(
        seed=seed,
        wishes=wishes,
        replicas={name: draw.choice((1, 2, 3)) if many else 1 for name in SERVICES},
        start_ms=MIDNIGHT_MS if draw.random() < 0.05 else START_MS,
        shards=draw.choice((1, 1, 2)),
        lease_ms=draw.choice((600_000, 600_000, 5_000)),
    )


def _wish(draw: random.Random, number: int, flood: bool) -> Wish:
    name, tenant = f"w{number}", "demo" if flood else draw.choice(("demo", "demo", "acme"))
    steps = steps_of(draw, name)
    sim = json.dumps({"plan": [one.model_dump(mode="json") for one in steps]})
    trouble, drafted = draw.random(), draw.random() < 0.35
    return Wish(
        name=name,
        tenant=tenant,
        objective=f"See to {name}. SIM{sim}" if drafted and draw.random() < 0.4 else "",
        plan=None if drafted else Plan(steps=steps),
        check=draw.random() < (0.6 if drafted else 0.5),
        cost_usd_micros=draw.choice((500_000,) * 6 + (300, 900, 2_500)),
        deadline_ms=draw.choice((120_000,) * 5 + (3_000, 12_000)),
        submit_after_s=draw.uniform(0, 2),
        cancel_after_s=draw.uniform(0.01, 2) if trouble < 0.12 else None,
        repeats=draw.choice((0, 0, 0, 1, 2)),
        poison=0.12 <= trouble < 0.2,
    )


def steps_of(draw: random.Random, name: str) -> tuple[PlanStep, ...]:
    """A chain, a fan with a join, or one step alone."""
    shape = draw.choice(("one", "one", "chain", "fan", "diamond"))
    names = {"one": ["a"], "chain": ["a", "b"], "fan": ["a", "b", "z"], "diamond": ["a", "b", "c", "z"]}[shape]
    shapes: dict[str, dict[str, tuple[str, ...]]] = {
        "one": {},
        "chain": {"b": ("a",)},
        "fan": {"z": ("a", "b")},
        "diamond": {"b": ("a",), "c": ("a",), "z": ("b", "c")},
    }
    inputs = shapes[shape]
    return tuple(_step(draw, name, step, inputs.get(step, ())) for step in names)


def _step(draw: random.Random, task: str, name: str, inputs: tuple[str, ...]) -> PlanStep:
    if draw.random() < 0.2:
        return PlanStep(
            id=name,
            title=name,
            instruction=f"Note {task}.{name}.",
            kind="noop",
            inputs=inputs,
            acceptance="It is noted.",
        )
    calls: list[list[object]] = []
    for number in range(draw.choice((0, 1, 1, 2))):
        tool = draw.choice(
            (
                "counter_increment",
                "counter_increment",
                "calculate",
                "search_documents",
                "counter_increment_unkeyed",
                "date_add",
            )
        )
        by_tool: dict[str, dict[str, object]] = {
            "counter_increment": {"name": f"{task}.{name}.{number}", "amount": 1},
            "counter_increment_unkeyed": {"name": f"{task}.{name}.{number}.bare", "amount": 1},
            "calculate": {"expression": f"{draw.randint(2, 99)} * {draw.randint(2, 99)}"},
            "search_documents": {"query": "harbour fees"},
            "date_add": {"date": "2026-01-31", "days": draw.randint(1, 400)},
        }
        calls.append([tool, by_tool[tool]])
    wants: dict[str, object] = {"calls": calls, "serial": draw.random() < 0.3}
    if draw.random() < 0.12:
        wants["reject"] = 1
    if draw.random() < 0.05:
        wants["reject"] = 9
    return scripted_step(name, task, wants, tools=tuple(dict.fromkeys(str(tool) for tool, _ in calls)), inputs=inputs)


def scripted_step(name: str, task: str, wants: dict[str, Any], **fields: Any) -> PlanStep:
    """A step that does what `wants` tells the scripted model."""
    script = f"Do your part of {task}. SIM{json.dumps(wants)}"
    rest: dict[str, Any] = {"title": f"{task} {name}", "acceptance": "The result says what was done.", **fields}
    return PlanStep(id=name, instruction=script, **rest)
