"""The wait edges in a mesh's journal: asks, leases, and the inputs that a plan makes steps wait for.

In: messages of these types, in journal order. Out: edges that open and close, and what is known of who waits. A step is
one party whatever attempt of it runs, a resource is another: it is held up by who holds it.

| message                           | edge                                                                            |
| --------------------------------- | ------------------------------------------------------------------------------- |
| plan adopted                      | a step waits for all of its inputs, until it is assigned or another plan is     |
|                                   | adopted; nobody can refuse that                                                 |
| AnswerRequested of a worker       | the step waits for those whom it asks, all or any                               |
| AnswerGiven, by whomever          | of those one has answered, or never will                                        |
| LeaseRequested, LeaseQueued       | the step waits for the resource                                                 |
| LeaseGranted                      | no longer; the resource waits for the step                                      |
| release, LeaseEnded, LeaseRefused | both are over                                                                   |
| WaitRefused                       | the wait is over                                                                |
| StepProposed, -Finished, -Cancel  | that attempt waits for nothing any more, and keeps nothing                      |

What closes an edge is the word of who can go on, not that of who hands it on: the planner may lag behind. Between two
inboxes there is no order: what was closed stays closed, and what an attempt wants that is over does not open.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.deadlock.waits import Mode
from bulkhead.health.events import Event, Known, WaitClosed
from bulkhead.health.sources.journal_messages import Body, Message
from bulkhead_contracts import agent, lease, model, peer, plan, step, task

MAX_LINEAGES = 100_000
MAX_OPEN = 1_024
"""Waits and leases of one lineage whose attempts are remembered."""
Attempt = tuple[int, int]
"""Plan version and attempt: the later one is the greater."""


def step_name(lineage: str, step_id: object) -> str:
    """The party that a step is."""
    return f"{lineage}/{step_id}"


def resource_name(tenant: str, resource: object) -> str:
    """The party that a resource is: no step is called so."""
    return f"lease:{tenant}:{resource}"


def shown(party: str) -> str:
    """A party as people know it: `task/step`, or the resource."""
    if party.startswith("lease:"):
        return party.split(":", 2)[2]
    return party.split("/", 1)[-1]


@dataclass(slots=True)
class _Asks:
    """Of one lineage: what is open, with its step and attempt, and the last attempt of each step that is over; the
    newest plan, and the waits that it made."""

    open: BoundedDict[str, tuple[str, Attempt]] = field(default_factory=partial(BoundedDict, MAX_OPEN))
    over: dict[str, Attempt] = field(default_factory=dict)
    plan: int = 0
    planned: dict[str, None] = field(default_factory=dict)


class Waits:
    """The open waits of living lineages, each with its attempt."""

    def __init__(self) -> None:
        self._asks = BoundedDict[str, _Asks](MAX_LINEAGES)

    def end(self, lineage: str) -> None:
        """The lineage is over."""
        self._asks.pop(lineage, None)

    # Plans and attempts

    def planned(self, message: Message) -> Iterator[Event]:
        """A plan runs: its steps wait for their inputs; those of the plan before no longer do."""
        adopted = message.body if message.kind == plan.PlanAdopted.TYPE else message.body.get("adopted")
        found = adopted.get("plan") if isinstance(adopted, dict) else None
        if not isinstance(found, dict):
            return
        mine, version = self._of(message.lineage), int(found["version"])
        if version < mine.plan:
            return
        if version > mine.plan:
            for key in mine.planned:
                yield message.answers(key)
            mine.plan, mine.planned = version, {}
        for one in found.get("steps", ()):
            if one.get("inputs"):
                key = f"plan/{message.lineage}/{version}/{one['id']}"
                mine.planned[key] = None
                inputs = tuple(step_name(message.lineage, name) for name in one["inputs"])
                party = step_name(message.lineage, one["id"])
                yield message.waits(key, message.lineage, party, inputs, resource=True)

    def assigned(self, message: Message) -> Iterator[Event]:
        """A step waits for its inputs no longer; what it waits for from now on can be refused."""
        body = message.body
        name = body["step"]["id"]  # type: ignore[index]
        yield message.answers(f"plan/{message.lineage}/{body['plan_version']}/{name}")
        yield Known(message.id, message.lineage, step_name(message.lineage, name), message.time_unix_ms)

    def spent(self, message: Message) -> Iterator[Event]:
        """The cost of a call, added to its step: the party that has spent least becomes the victim."""
        usage = message.body.get("usage")
        if isinstance(usage, dict) and message.body.get("step_id") and message.receiver == "worker":
            cost = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
            name = step_name(message.lineage, message.body["step_id"])
            yield Known(message.id, message.lineage, name, message.time_unix_ms, int(cost))

    def over(self, message: Message) -> Iterator[Event]:
        """An attempt is over: it waits for nothing, and gives back what it holds as soon as it hears of it."""
        body = message.body
        found = self._of(message.lineage)
        proposed = body.get("step")
        name = str(proposed["id"] if isinstance(proposed, dict) else body["step_id"])
        attempt = _attempt(body)
        found.over[name] = max(attempt, found.over.get(name, (0, 0)))
        for key, (whose, when) in list(found.open.items()):
            if whose == name and when <= attempt:
                del found.open[key]
                yield message.answers(key)

    # Peers

    def asked(self, message: Message) -> Iterator[Event]:
        """A step waits for others. What the planner hands on is the same ask."""
        if message.sender != "worker":
            return
        body, lineage = message.body, message.lineage
        key = f"ask/{lineage}/{body['ask_id']}"
        if not self._opens(lineage, key, body):
            return
        targets = tuple(step_name(lineage, one) for one in body["targets"])  # type: ignore[attr-defined]
        mode: Mode = "any" if body.get("mode") == "any" else "all"
        yield message.waits(key, lineage, step_name(lineage, body["step_id"]), targets, mode=mode)

    def answered(self, message: Message) -> Iterator[Event]:
        """A target of an ask has answered, or never will."""
        body = message.body
        target = step_name(message.lineage, body["target"])
        gone = message.sender == "planner" and body.get("outcome") == "refused"
        yield message.answers(f"ask/{message.lineage}/{body['ask_id']}", target, gone=gone)

    # Leases

    def wanted(self, message: Message) -> Iterator[Event]:
        """A step waits for a resource, by its own message or by that of the resource's fold."""
        body = message.body
        lineage = f"{message.tenant}/{body['task']}" if "task" in body else message.lineage
        key = _lease("want", lineage, body)
        if self._opens(lineage, key, body):
            resource = resource_name(message.tenant, body["resource"])
            yield message.waits(key, lineage, step_name(lineage, body["step_id"]), (resource,))

    def granted(self, message: Message) -> Iterator[Event]:
        """It has it: from now on the resource is held up by that step."""
        body, lineage = message.body, message.lineage
        yield message.answers(_lease("want", lineage, body))
        key = _lease("held", lineage, body)
        if self._opens(lineage, key, body):
            holder, until = step_name(lineage, body["step_id"]), int(body["expires_unix_ms"])  # type: ignore[call-overload]
            resource = resource_name(message.tenant, body["resource"])
            yield message.waits(key, lineage, resource, (holder,), resource=True, until_unix_ms=until)

    def given_back(self, message: Message) -> Iterator[Event]:
        """The holder's own word is enough: the next one will have it. Another's names a lease that it does not hold."""
        body = message.body
        yield from self._lease_closed(message, f"{message.tenant}/{body['task']}")

    def lease_over(self, message: Message) -> Iterator[Event]:
        """Expired, given back or refused. A release that was refused ended nothing."""
        if message.kind != lease.LeaseRefused.TYPE or not message.body.get("call_id"):
            yield from self._lease_closed(message, message.lineage)

    def _lease_closed(self, message: Message, lineage: str) -> Iterator[Event]:
        found = self._asks.get(lineage)
        for what in ("want", "held"):
            key = _lease(what, lineage, message.body)
            if found is not None:
                found.open.pop(key, None)
            yield WaitClosed(message.id, lineage, key, time_unix_ms=message.time_unix_ms)

    # What the watcher itself has done

    def refused(self, message: Message) -> Iterator[Event]:
        """The wait gives way."""
        body, lineage = message.body, message.lineage
        yield message.answers(f"ask/{lineage}/{body['wait_id']}")
        yield message.answers(_lease("want", lineage, {**body, "lease_id": body["wait_id"]}))

    def _opens(self, lineage: str, key: str, body: Body) -> bool:
        """Whether a wait begins: not when its attempt is known to be over."""
        found = self._of(lineage)
        name, attempt = str(body["step_id"]), _attempt(body)
        if found.over.get(name, (0, 0)) >= attempt:
            return False
        found.open[key] = name, attempt
        return True

    def _of(self, lineage: str) -> _Asks:
        return self._asks.setdefault(lineage, _Asks())


def _attempt(body: Body) -> Attempt:
    return int(body["plan_version"]), int(body["attempt"])  # type: ignore[call-overload]


def _lease(what: str, lineage: str, body: Body) -> str:
    return f"{what}/{lineage}/{body['step_id']}/{body['lease_id']}"


def wait_of(key: str) -> tuple[str, str, str] | None:
    """Tenant, task and the id that a refusal names, of the key of a wait that can be refused; None of any other."""
    kind, _, rest = key.partition("/")
    parts = rest.split("/")
    if kind == "ask" and len(parts) == 3:
        return parts[0], parts[1], parts[2]
    if kind == "want" and len(parts) == 4:
        return parts[0], parts[1], parts[3]
    return None


def step_of(party: str) -> str:
    """The step's id, of a party that is a step."""
    return party.rsplit("/", 1)[-1]


HANDLERS = {
    plan.PlanAdopted.TYPE: Waits.planned,
    task.Progressed.TYPE: Waits.planned,
    step.StepAssigned.TYPE: Waits.assigned,
    step.StepProposed.TYPE: Waits.over,
    step.StepFinished.TYPE: Waits.over,
    step.StepCancelRequested.TYPE: Waits.over,
    model.ModelCallReplied.TYPE: Waits.spent,
    peer.AnswerRequested.TYPE: Waits.asked,
    peer.AnswerGiven.TYPE: Waits.answered,
    lease.LeaseRequested.TYPE: Waits.wanted,
    lease.LeaseQueued.TYPE: Waits.wanted,
    lease.LeaseGranted.TYPE: Waits.granted,
    lease.LeaseReleaseRequested.TYPE: Waits.given_back,
    lease.LeaseEnded.TYPE: Waits.lease_over,
    lease.LeaseRefused.TYPE: Waits.lease_over,
    agent.WaitRefused.TYPE: Waits.refused,
}
