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
from bulkhead.health.deadlock.waits import WaitMode
from bulkhead.health.events import Event, PartyFacts, WaitClosed
from bulkhead.health.sources.journal_messages import Body, JournalMessage
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


def party_label(party: str) -> str:
    """A party as people know it: `task/step`, or the resource."""
    if party.startswith("lease:"):
        return party.split(":", 2)[2]
    return party.split("/", 1)[-1]


@dataclass(slots=True)
class _LineageWaits:
    """Waits of one lineage: what is open, with its step and attempt, and the last attempt of each step that is
    over; the newest plan, and the waits that it made.
    """

    open: BoundedDict[str, tuple[str, Attempt]] = field(default_factory=partial(BoundedDict, MAX_OPEN))
    over: dict[str, Attempt] = field(default_factory=dict)
    plan: int = 0
    planned: dict[str, None] = field(default_factory=dict)


class JournalWaits:
    """The open waits of living lineages, each with its attempt."""

    def __init__(self) -> None:
        self._asks = BoundedDict[str, _LineageWaits](MAX_LINEAGES)

    def end_lineage(self, lineage: str) -> None:
        """The lineage is over."""
        self._asks.pop(lineage, None)

    # Plans and attempts

    def on_plan_adopted(self, message: JournalMessage) -> Iterator[Event]:
        """A plan runs: its steps wait for their inputs; those of the plan before no longer do."""
        adopted = message.body if message.kind == plan.PlanAdopted.TYPE else message.body.get("adopted")
        adopted_plan = adopted.get("plan") if isinstance(adopted, dict) else None
        if not isinstance(adopted_plan, dict):
            return
        lineage_waits, version = self._waits_of_lineage(message.lineage), int(adopted_plan["version"])
        if version < lineage_waits.plan:
            return
        if version > lineage_waits.plan:
            for key in lineage_waits.planned:
                yield message.wait_closed(key)
            lineage_waits.plan, lineage_waits.planned = version, {}
        for planned_step in adopted_plan.get("steps", ()):
            if planned_step.get("inputs"):
                key = f"plan/{message.lineage}/{version}/{planned_step['id']}"
                lineage_waits.planned[key] = None
                inputs = tuple(step_name(message.lineage, name) for name in planned_step["inputs"])
                party = step_name(message.lineage, planned_step["id"])
                yield message.wait_opened(key, message.lineage, party, inputs, resource=True)

    def on_step_assigned(self, message: JournalMessage) -> Iterator[Event]:
        """A step waits for its inputs no longer; what it waits for from now on can be refused."""
        body = message.body
        name = body["step"]["id"]  # type: ignore[index]
        yield message.wait_closed(f"plan/{message.lineage}/{body['plan_version']}/{name}")
        yield PartyFacts(message.id, message.lineage, step_name(message.lineage, name), message.time_unix_ms)

    def on_call_replied(self, message: JournalMessage) -> Iterator[Event]:
        """The cost of a call, added to its step: the party that has spent least becomes the victim."""
        usage = message.body.get("usage")
        if isinstance(usage, dict) and message.body.get("step_id") and message.receiver == "worker":
            cost = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
            name = step_name(message.lineage, message.body["step_id"])
            yield PartyFacts(message.id, message.lineage, name, message.time_unix_ms, int(cost))

    def on_attempt_over(self, message: JournalMessage) -> Iterator[Event]:
        """An attempt is over: it waits for nothing, and gives back what it holds as soon as it hears of it."""
        body = message.body
        lineage_waits = self._waits_of_lineage(message.lineage)
        proposed = body.get("step")
        name = str(proposed["id"] if isinstance(proposed, dict) else body["step_id"])
        attempt = _attempt_of(body)
        lineage_waits.over[name] = max(attempt, lineage_waits.over.get(name, (0, 0)))
        for key, (whose, when) in list(lineage_waits.open.items()):
            if whose == name and when <= attempt:
                del lineage_waits.open[key]
                yield message.wait_closed(key)

    # Peers

    def on_answer_requested(self, message: JournalMessage) -> Iterator[Event]:
        """A step waits for others. What the planner hands on is the same ask."""
        if message.sender != "worker":
            return
        body, lineage = message.body, message.lineage
        key = f"ask/{lineage}/{body['ask_id']}"
        if not self._open_unless_over(lineage, key, body):
            return
        targets = tuple(step_name(lineage, step_id) for step_id in body["targets"])  # type: ignore[attr-defined]
        mode: WaitMode = "any" if body.get("mode") == "any" else "all"
        yield message.wait_opened(key, lineage, step_name(lineage, body["step_id"]), targets, mode=mode)

    def on_answer_given(self, message: JournalMessage) -> Iterator[Event]:
        """A target of an ask has answered, or never will."""
        body = message.body
        target = step_name(message.lineage, body["target"])
        never_answers = message.sender == "planner" and body.get("outcome") == "refused"
        yield message.wait_closed(f"ask/{message.lineage}/{body['ask_id']}", target, gone=never_answers)

    # Leases

    def on_lease_wanted(self, message: JournalMessage) -> Iterator[Event]:
        """A step waits for a resource, by its own message or by that of the resource's fold."""
        body = message.body
        lineage = f"{message.tenant}/{body['task']}" if "task" in body else message.lineage
        key = _lease_key("want", lineage, body)
        if self._open_unless_over(lineage, key, body):
            resource = resource_name(message.tenant, body["resource"])
            yield message.wait_opened(key, lineage, step_name(lineage, body["step_id"]), (resource,))

    def on_lease_granted(self, message: JournalMessage) -> Iterator[Event]:
        """It has it: from now on the resource is held up by that step."""
        body, lineage = message.body, message.lineage
        yield message.wait_closed(_lease_key("want", lineage, body))
        key = _lease_key("held", lineage, body)
        if self._open_unless_over(lineage, key, body):
            holder, until = step_name(lineage, body["step_id"]), int(body["expires_unix_ms"])  # type: ignore[call-overload]
            resource = resource_name(message.tenant, body["resource"])
            yield message.wait_opened(key, lineage, resource, (holder,), resource=True, until_unix_ms=until)

    def on_lease_given_back(self, message: JournalMessage) -> Iterator[Event]:
        """The holder's own word is enough: the next one will have it. Another's names a lease that it does not hold."""
        body = message.body
        yield from self._lease_closed(message, f"{message.tenant}/{body['task']}")

    def on_lease_over(self, message: JournalMessage) -> Iterator[Event]:
        """Expired, given back or refused. A release that was refused ended nothing."""
        if message.kind != lease.LeaseRefused.TYPE or not message.body.get("call_id"):
            yield from self._lease_closed(message, message.lineage)

    def _lease_closed(self, message: JournalMessage, lineage: str) -> Iterator[Event]:
        lineage_waits = self._asks.get(lineage)
        for prefix in ("want", "held"):
            key = _lease_key(prefix, lineage, message.body)
            if lineage_waits is not None:
                lineage_waits.open.pop(key, None)
            yield WaitClosed(message.id, lineage, key, time_unix_ms=message.time_unix_ms)

    # What the watcher itself has done

    def on_wait_refused(self, message: JournalMessage) -> Iterator[Event]:
        """The wait gives way."""
        body, lineage = message.body, message.lineage
        yield message.wait_closed(f"ask/{lineage}/{body['wait_id']}")
        yield message.wait_closed(_lease_key("want", lineage, {**body, "lease_id": body["wait_id"]}))

    def _open_unless_over(self, lineage: str, key: str, body: Body) -> bool:
        """Record a wait, and tell whether it begins: not when its attempt is known to be over."""
        lineage_waits = self._waits_of_lineage(lineage)
        name, attempt = str(body["step_id"]), _attempt_of(body)
        if lineage_waits.over.get(name, (0, 0)) >= attempt:
            return False
        lineage_waits.open[key] = name, attempt
        return True

    def _waits_of_lineage(self, lineage: str) -> _LineageWaits:
        return self._asks.setdefault(lineage, _LineageWaits())


def _attempt_of(body: Body) -> Attempt:
    return int(body["plan_version"]), int(body["attempt"])  # type: ignore[call-overload]


def _lease_key(what: str, lineage: str, body: Body) -> str:
    return f"{what}/{lineage}/{body['step_id']}/{body['lease_id']}"


def wait_of(key: str) -> tuple[str, str, str] | None:
    """Tenant, task and the id that a refusal names, of the key of a wait that can be refused; None of any other."""
    kind, _, path = key.partition("/")
    parts = path.split("/")
    if kind == "ask" and len(parts) == 3:
        return parts[0], parts[1], parts[2]
    if kind == "want" and len(parts) == 4:
        return parts[0], parts[1], parts[3]
    return None


def step_of(party: str) -> str:
    """The step's id, of a party that is a step."""
    return party.rsplit("/", 1)[-1]


HANDLERS = {
    plan.PlanAdopted.TYPE: JournalWaits.on_plan_adopted,
    task.Progressed.TYPE: JournalWaits.on_plan_adopted,
    step.StepAssigned.TYPE: JournalWaits.on_step_assigned,
    step.StepProposed.TYPE: JournalWaits.on_attempt_over,
    step.StepFinished.TYPE: JournalWaits.on_attempt_over,
    step.StepCancelRequested.TYPE: JournalWaits.on_attempt_over,
    model.ModelCallReplied.TYPE: JournalWaits.on_call_replied,
    peer.AnswerRequested.TYPE: JournalWaits.on_answer_requested,
    peer.AnswerGiven.TYPE: JournalWaits.on_answer_given,
    lease.LeaseRequested.TYPE: JournalWaits.on_lease_wanted,
    lease.LeaseQueued.TYPE: JournalWaits.on_lease_wanted,
    lease.LeaseGranted.TYPE: JournalWaits.on_lease_granted,
    lease.LeaseReleaseRequested.TYPE: JournalWaits.on_lease_given_back,
    lease.LeaseEnded.TYPE: JournalWaits.on_lease_over,
    lease.LeaseRefused.TYPE: JournalWaits.on_lease_over,
    agent.WaitRefused.TYPE: JournalWaits.on_wait_refused,
}
