"""What must hold after every run, whatever went wrong in it. Shares no code with the services: it reads raw JSON.

In: a Record. Out: complaints, one line each; none when all is well.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Set
from typing import Any

from bulkhead_contracts import catalog
from tests.simulation.laws import answered, money, seen, stops, taking, trips, waits, work
from tests.simulation.laws.reading import body as _body
from tests.simulation.laws.reading import is_stray
from tests.simulation.laws.reading import of as _of
from tests.simulation.laws.reading import task_of as _task
from tests.simulation.laws.reading import type_of as _type
from tests.simulation.laws.reading import wishes as _wishes
from tests.simulation.laws.record import Record
from tests.simulation.scenario import SERVICES
from tests.simulation.situations import SITUATIONS
from tests.simulation.situations.wishes.flows import skipped_steps
from tests.simulation.world import GIVE_UP_AFTER_S

Law = Callable[[Record], Iterator[str]]

DECIDERS, DOERS = catalog.DECIDERS, catalog.DOERS
ANSWERS = ("mesh.model.call_replied.", "mesh.tool.call_replied.", "mesh.retrieval.replied.")
OPENINGS = {"planner": "mesh.task.submitted.", "worker": "mesh.step.assigned.", "checker": "mesh.step.proposed."}
UNSTABLE = (
    "traceparent",
    "Nats-Msg-Id",
    "Nats-Expected-Last-Subject-Sequence",
    "Nats-Expected-Last-Subject-Sequence-Subject",
)
"""Headers that may differ between two sayings of one thing."""


def complaints(record: Record) -> list[str]:
    """All that is wrong."""
    return [f"{name}: {one}" for name, law in LAWS.items() for one in law(record)]


# Everything comes to an end


def _quiet(record: Record) -> Iterator[str]:
    if record.unheard:
        yield f"still asking after {GIVE_UP_AFTER_S:.0f} s: {', '.join(record.unheard)}"
    if not record.idle:
        waiting = [
            f"{durable.config.name}: {len(durable.pending)} handed out, "
            f"{durable.stream.last_sequence - durable.cursor} left"
            for durable in record.broker._durables.values()
            if durable.pending or durable.cursor < durable.stream.last_sequence
        ]
        yield f"not quiet after {GIVE_UP_AFTER_S:.0f} s: {'; '.join(waiting) or 'a task has not ended'}"


def _ends(record: Record) -> Iterator[str]:
    """Every accepted task ends once, with a reason that a person can act on."""
    ends = defaultdict(list)
    for kind in ("mesh.task.ended", "mesh.task.rejected"):
        for one in _of(record, "INBOX_GATEWAY", kind):
            ends[_task(one.subject)].append(one)
    for wish, task in _wishes(record):
        said = {one.headers["ce-id"]: _body(one) for one in ends[task]}
        if len(said) != 1:
            yield f"{wish.name} ended {len(said)} times"
            continue
        body = next(iter(said.values()))
        failure = body.get("failure") or body
        if body.get("status") != "succeeded" and not (failure.get("code") and failure.get("message")):
            yield f"{wish.name} ended without a reason: {body}"
        if body.get("status") == "succeeded" and (body.get("result") or {}).get("standing") not in ("ok", "degraded"):
            yield f"{wish.name} succeeded with a result that stands as {body.get('result')}"
        if body.get("status") == "succeeded" and record.poisons == 0 and body["steps_done"] != body["steps_total"]:
            yield f"{wish.name} succeeded with {body['steps_done']} of {body['steps_total']} steps"


# What happened outside


def _effects(record: Record) -> Iterator[str]:
    """Each write once at most; exactly once when the task succeeded by the plan that was given."""
    sibling_forks = _forks_that_counted(record)
    for name, count in record.counter.counts.items():
        if count > max(1, sibling_forks.get(name, 1)):
            yield f"{name} was counted {count} times"
    ended = {_task(one.subject): _body(one) for one in _of(record, "INBOX_GATEWAY", "mesh.task.ended")}
    for wish, task in _wishes(record):
        end = ended.get(task)
        if wish.plan is None or end is None or (end["status"], end["plan_versions"]) != ("succeeded", 1):
            continue
        if end["result"]["standing"] != "ok" or not end["result"]["completeness"]["complete"]:
            continue  # It says itself that something failed.
        skipped = skipped_steps(record).get(task, ())
        for step in wish.plan.steps:
            if step.id in skipped:
                continue
            at = step.instruction.find("SIM{")
            for tool, arguments in json.loads(step.instruction[at + 3 :])["calls"] if at >= 0 else ():
                if tool == "counter_increment" and record.counter.counts.get(arguments["name"]) != 1:
                    yield f"{wish.name} succeeded, but {arguments['name']} was not counted"


def _forks_that_counted(record: Record) -> dict[str, int]:
    """Number of forks of one task that asked for an unkeyed write, where that task never came to it: each is a task of
    its own, and none can know of the others' writes."""
    forked = {task: wish.fork.of for wish, task in _wishes(record) if wish.fork is not None}
    askers = defaultdict[str, set[str]](set)
    for message in _of(record, "INBOX_TOOL_EXECUTOR", "mesh.tool.call_requested"):
        request = _body(message)
        if request["tool"] == "counter_increment_unkeyed":
            askers[json.loads(request["arguments_json"]).get("name", "")].add(_task(message.subject))
    return {name: len(tasks) for name, tasks in askers.items() if len({forked.get(task, task) for task in tasks}) == 1}


# Deciders


def _one_word(record: Record) -> Iterator[str]:
    """Whoever handles a message, however often: deciders say the same, byte for byte, under the same id."""
    first: dict[tuple[str, str], Any] = {}
    for one in record.sayings:
        who = one.who.rpartition("-")[0]
        if who not in DECIDERS or "ce-id" not in one.headers or _is(one.headers, "mesh.control.message_rejected"):
            continue
        if one.headers.get("ce-causeid", "").startswith("poison-"):
            continue  # Said by the shell, of what no decider could read: its time is that of the look.
        said = (one.subject, {k: v for k, v in one.headers.items() if k not in UNSTABLE}, one.body)
        before = first.setdefault((who, one.headers["ce-id"]), said)
        if before != said:
            differs = "subject" if before[0] != said[0] else "headers" if before[1] != said[1] else "body"
            yield f"{one.who} said {one.headers['ce-type']} {one.headers['ce-id']} twice with another {differs}"


def _answers(record: Record) -> Iterator[str]:
    """What a doer has answered stands: of two replicas that handle a request, the first one's answer is the answer."""
    first: dict[tuple[str, str], bytes] = {}
    for one in record.sayings:
        who = one.who.rpartition("-")[0]
        if who not in DOERS or one.overtaken or not one.headers.get("ce-type", "").startswith(ANSWERS):
            continue
        answer = one.body
        if b"refused" in answer and (body := json.loads(answer)).get("outcome") == "refused":
            # Nothing was done. Two requests for one call may each find the other's refusal, and be refused anew, in
            # other words: first by the ceiling, then by the halt that followed.
            answer = json.dumps([body["call_id"], "refused"]).encode()
        if first.setdefault((who, one.headers["ce-id"]), answer) != answer:
            yield f"{one.who} answered {one.headers['ce-causeid']} twice, differently ({one.headers['ce-type']})"


def _memories(record: Record) -> Iterator[str]:
    """What a replica remembers of a task is what the task's inbox says."""
    for who, task, remembered, fresh in record.remembered:
        if remembered != fresh:
            yield f"{who} remembers {task} otherwise than its inbox has it"


def _is(headers: dict[str, str], kind: str) -> bool:
    return headers.get("ce-type", "").startswith(kind)


def _inboxes(record: Record) -> Iterator[str]:
    """What an inbox holds twice is the same thing twice; a service speaks only under its own name."""
    for inbox in (*SERVICES, "journal"):
        if inbox in catalog.WITHOUT_INBOX:
            continue
        seen: dict[tuple[str, str], bytes] = {}
        for one in record.stored(f"INBOX_{inbox.upper()}"):
            source = one.headers.get("ce-source", "")
            if is_stray(one):
                continue
            if one.subject.split(".")[1] != source:
                yield f"{one.subject} says that it comes from {source}"
            if source in DECIDERS:
                key = (source, one.headers["ce-id"])
                if seen.setdefault(key, one.body) != one.body:
                    yield f"the inbox of {inbox} holds two different messages under {key}"


def _honest(record: Record) -> Iterator[str]:
    """What an answer was built on and lacked stands in it: omissions, standing and provenance are never dropped."""
    for one in _of(record, "INBOX_GATEWAY", "mesh.task.ended"):
        end = _body(one)
        result = end.get("result")
        if end["status"] != "succeeded" or result is None:
            continue
        task, worst = _task(one.subject), 0
        omitted: set[str] = set()
        steps: dict[str, dict[str, Any]] = {}
        plans = [each["plan"] for each in _told(record, task, "mesh.plan.adopted")]
        for body in _told(record, task, "mesh.task.step_ended"):
            current = body["plan_version"] == end["plan_versions"]
            if body["outcome"] == "accepted" and current:
                steps[body["step_id"]] = body["result"]
        # What a fork took over stands under a label of its own: what that was made of nobody of this task has read.
        taken = {
            name
            for name, part in steps.items()
            if ("step_result", (part["content"] or {}).get("sha256"))
            in {(label["kind"], label["sha256"]) for label in part["provenance"]}
        }
        # One without a content has none.
        taken |= {
            name
            for request in _told(record, task, "mesh.task.requested")
            for name in (request.get("fork") or {}).get("steps", ())
            if name in steps and steps[name]["content"] is None
        }
        needed = _feeding(plans[-1], taken) if plans else set(steps)
        sources: set[str] = set()
        for name, part in steps.items():
            if name not in needed:
                continue
            worst = max(worst, ("ok", "degraded", "failed").index(part["standing"]))
            omitted |= {json.dumps(omission, sort_keys=True) for omission in part["completeness"]["omissions"]}
            sources |= {label["sha256"] for label in part["provenance"]}
        kept = {json.dumps(omission, sort_keys=True) for omission in result["completeness"]["omissions"]}
        if not omitted <= kept and len(kept) < 64:
            yield f"{task}: the answer hides {sorted(omitted - kept)[:3]}"
        if omitted and result["completeness"]["complete"]:
            yield f"{task}: the answer calls itself complete"
        if ("ok", "degraded", "failed").index(result["standing"]) < worst:
            yield f"{task}: the answer stands better than what it was built on"
        if not sources <= {label["sha256"] for label in result["provenance"]} and len(result["provenance"]) < 256:
            yield f"{task}: the answer forgets sources"


def _told(record: Record, task: str, kind: str) -> list[dict[str, Any]]:
    """What the gateway was told of a task under this type, in order."""
    return [_body(one) for one in _of(record, "INBOX_GATEWAY", kind) if _task(one.subject) == task]


def _feeding(plan: dict[str, Any], taken: Set[str]) -> set[str]:
    """The final step and everything that feeds it, as far as what was taken over."""
    inputs = {step["id"]: step["inputs"] for step in plan["steps"]}
    fed = {name for names in inputs.values() for name in names}
    found, todo = set(), [name for name in inputs if name not in fed]
    while todo:
        name = todo.pop()
        found.add(name)
        todo += [one for one in inputs.get(name, ()) if one not in found and name not in taken]
    return found


def _dead_letters(record: Record) -> Iterator[str]:
    """Each says why, each is told in the inbox that skips it, and there are no more than were deserved."""
    letters = record.stored("DEAD_LETTERS")
    for one in letters:
        if not (one.headers.get("bulkhead-dead-code") and one.headers.get("bulkhead-dead-reason")):
            yield f"dead letter {one.sequence} does not say why"
        service = one.headers.get("bulkhead-dead-service", "")
        if one.headers.get("bulkhead-dead-code") == "bad_subject":
            continue  # Its task cannot be told, so no inbox can say it.
        facts = _of(record, f"INBOX_{service.upper()}", "mesh.control.message_rejected")
        if not any(str(_body(fact)["sequence"]) == one.headers.get("bulkhead-dead-sequence") for fact in facts):
            yield f"dead letter {one.sequence} has no fact in the inbox of {service}"
        if one.headers.get("bulkhead-original-ce-id", "").startswith("poison-"):
            continue
        opened = any(
            _type(other).startswith(OPENINGS.get(service, "-")) and _task(other.subject) == _task(one.subject)
            for other in record.stored(f"INBOX_{service.upper()}")
        )
        if one.headers.get("bulkhead-dead-code") != "not_opened" or opened:
            yield f"undeserved dead letter: {service}: {one.headers.get('bulkhead-dead-reason')}"


LAWS: dict[str, Law] = {
    "quiet": _quiet,
    "ends": _ends,
    "effects": _effects,
    "money": money.complain,
    "one_word": _one_word,
    "answers": _answers,
    "memories": _memories,
    "inboxes": _inboxes,
    "honest": _honest,
    "dead_letters": _dead_letters,
    "work": work.complain,
    "seen": seen.complain,
    "taken": taking.complain,
    "stops": stops.complain,
    "trips": trips.complain,
    "waiting": waits.complain,
    "answered": answered.complain,
    **{one.name: one.complain for one in SITUATIONS if one.complain is not None},
}
"""By name, which a complaint begins with."""
