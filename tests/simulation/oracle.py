"""What must hold after every run, whatever went wrong in it. Shares no code with the services: it reads raw JSON.

In: a Record. Out: complaints, one line each; none when all is well.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from bulkhead.bus.port import Stored

from .scenario import SERVICES, Wish
from .world import GIVE_UP_AFTER_S, Record

DECIDERS = ("planner", "worker", "checker")
DOERS = ("model_gateway", "rag", "tool_executor")
ANSWERS = ("mesh.model.call_replied.", "mesh.tool.call_replied.", "mesh.retrieval.replied.")
OPENINGS = {"planner": "mesh.task.submitted.", "worker": "mesh.step.assigned.", "checker": "mesh.step.proposed."}
UNSTABLE = ("traceparent", "Nats-Msg-Id", "Nats-Expected-Last-Subject-Sequence")
"""Headers that may differ between two sayings of one thing."""


def complaints(record: Record) -> list[str]:
    """All that is wrong."""
    found: list[str] = []
    for look in (_quiet, _ends, _effects, _money, _one_word, _answers, _memories, _inboxes, _honest, _dead_letters):
        found += [f"{look.__name__.strip('_')}: {one}" for one in look(record)]
    return found


def _body(stored: Stored) -> dict[str, Any]:
    return json.loads(stored.body)


def _type(stored: Stored) -> str:
    return stored.headers.get("ce-type", "")


def _task(subject: str) -> str:
    return subject.rpartition(".")[2]


def _of(record: Record, stream: str, kind: str) -> list[Stored]:
    return [one for one in record.stored(stream) if _type(one).startswith(kind + ".v")]


def _wishes(record: Record) -> Iterator[tuple[Wish, str]]:
    for wish in record.scenario.wishes:
        if wish.name in record.tasks:
            yield wish, record.tasks[wish.name]


# Everything comes to an end


def _quiet(record: Record) -> Iterator[str]:
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
    for name, count in record.counter.counts.items():
        if count > 1:
            yield f"{name} was counted {count} times"
    ended = {_task(one.subject): _body(one) for one in _of(record, "INBOX_GATEWAY", "mesh.task.ended")}
    for wish, task in _wishes(record):
        end = ended.get(task)
        if wish.plan is None or end is None or (end["status"], end["plan_versions"]) != ("succeeded", 1):
            continue
        if end["result"]["standing"] != "ok" or not end["result"]["completeness"]["complete"]:
            continue  # It says itself that something failed.
        for step in wish.plan.steps:
            at = step.instruction.find("SIM{")
            for tool, arguments in json.loads(step.instruction[at + 3 :])["calls"] if at >= 0 else ():
                if tool == "counter_increment" and record.counter.counts.get(arguments["name"]) != 1:
                    yield f"{wish.name} succeeded, but {arguments['name']} was not counted"


# Money


def _money(record: Record) -> Iterator[str]:
    """Reserved = settled + still open, per scope; the ledger says the same; no ceiling is exceeded; nothing is free."""
    reserved: dict[tuple[str, str], dict[str, Any]] = {}
    for one in _of(record, "INBOX_JOURNAL", "mesh.budget.reserved"):
        body = _body(one)
        key = (body["service"], body["reservation_id"])
        first = reserved.setdefault(key, body)
        if first != body:
            yield f"reservation {key} stands twice with different terms"
    settled: dict[tuple[str, str], dict[str, Any]] = {}
    for one in _of(record, "INBOX_BUDGET", "mesh.budget.settled"):
        body = _body(one)
        key = (one.headers["ce-source"], body["reservation_id"])
        if key not in reserved:
            yield f"{key} was settled and never reserved"
        first = settled.setdefault(key, body)
        if first != body:
            yield f"{key} was settled twice, differently: {first['usage']} and {body['usage']}"
    total: Counter[tuple[str, str]] = Counter()
    unanswered: Counter[tuple[str, str]] = Counter()
    ceilings: dict[tuple[str, str], int] = {}
    for key, fact in reserved.items():
        ask = fact["amount"]
        charge = {"tokens": ask["tokens"], "cost_usd_micros": ask["cost_usd_micros"]}
        done = settled.get(key)
        if done is not None and not done["estimated"]:
            usage = done["usage"]
            charge = {"tokens": usage["input_tokens"] + usage["output_tokens"],
                      "cost_usd_micros": usage["cost_usd_micros"]}  # fmt: skip
            if charge["tokens"] and not charge["cost_usd_micros"]:
                yield f"{key} used {charge['tokens']} tokens for nothing: the scripted model has a price"
            if any(charge[unit] > ask[unit] for unit in charge):
                yield f"{key} used more than was reserved: {charge} of {ask}"
        for scope in fact["scopes"]:
            for unit in charge:
                total[(scope["scope"], unit)] += charge[unit]
                unanswered[(scope["scope"], unit)] += charge[unit] if done is None else 0
                ceilings[(scope["scope"], unit)] = scope[unit]
    for name, spent in total.items():
        if spent > ceilings[name]:
            yield f"{name} spent {spent} of {ceilings[name]}"
    yield from _ledger(record, total, unanswered)
    calls = sum(fact["amount"]["model_calls"] for fact in reserved.values())
    if record.model.calls > calls:
        yield f"the provider was called {record.model.calls} times under {calls} reservations"
    tokens = sum(spent for (scope, unit), spent in total.items() if unit == "tokens" and scope.startswith("task:"))
    if record.model.tokens > tokens:
        yield f"the provider's {record.model.tokens} tokens were charged as {tokens}"


def _ledger(
    record: Record, total: Counter[tuple[str, str]], unanswered: Counter[tuple[str, str]]
) -> Iterator[str]:
    """The ledger that stands, if one does, is what the facts add up to.

    A fact whose writer died before it answered may come after the rebuild that forgot its reservation: nothing was
    ever done under it, so it may be missing.
    """
    redis = record.redis
    if not redis.stands.endswith(f" server-{redis.server}"):
        return
    for (scope, unit), spent in total.items():
        balance = redis.ledger.balances.get(scope)
        held = getattr(balance.reserved, unit) + getattr(balance.spent, unit) if balance else 0
        if not spent - unanswered[(scope, unit)] <= held <= spent:
            yield f"the ledger has {held} {unit} for {scope}, the facts {spent}"


# Deciders


def _one_word(record: Record) -> Iterator[str]:
    """Whoever handles a message, however often: deciders say the same, byte for byte, under the same id."""
    first: dict[tuple[str, str], Any] = {}
    for one in record.sayings:
        who = one.who.rpartition("-")[0]
        if who not in DECIDERS or "ce-id" not in one.headers or _is(one.headers, "mesh.control.message_rejected"):
            continue
        said = (one.subject, {k: v for k, v in one.headers.items() if k not in UNSTABLE}, one.body)
        before = first.setdefault((who, one.headers["ce-id"]), said)
        if before != said:
            differs = "subject" if before[0] != said[0] else "headers" if before[1] != said[1] else "body"
            yield f"{one.who} said {one.headers['ce-type']} {one.headers['ce-id']} twice with another {differs}"


def _answers(record: Record) -> Iterator[str]:
    """What a doer has answered stands: a request that is handled again is answered the same, from the record."""
    first: dict[tuple[str, str], bytes] = {}
    for one in record.sayings:
        who = one.who.rpartition("-")[0]
        if who not in DOERS or not one.headers.get("ce-type", "").startswith(ANSWERS):
            continue
        if first.setdefault((who, one.headers["ce-id"]), one.body) != one.body:
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
        if inbox == "signer":
            continue
        seen: dict[tuple[str, str], bytes] = {}
        for one in record.stored(f"INBOX_{inbox.upper()}"):
            source = one.headers.get("ce-source", "")
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
        plans = [_body(each)["plan"] for each in _of(record, "INBOX_GATEWAY", "mesh.plan.adopted")
                 if _task(each.subject) == task]  # fmt: skip
        for each in _of(record, "INBOX_GATEWAY", "mesh.task.step_ended"):
            body = _body(each)
            current = body["plan_version"] == end["plan_versions"]
            if _task(each.subject) == task and body["outcome"] == "accepted" and current:
                steps[body["step_id"]] = body["result"]
        needed = _feeding(plans[-1]) if plans else set(steps)
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


def _feeding(plan: dict[str, Any]) -> set[str]:
    """The final step and everything that feeds it."""
    inputs = {step["id"]: step["inputs"] for step in plan["steps"]}
    fed = {name for names in inputs.values() for name in names}
    found, todo = set(), [name for name in inputs if name not in fed]
    while todo:
        name = todo.pop()
        found.add(name)
        todo += [one for one in inputs.get(name, ()) if one not in found]
    return found


def _dead_letters(record: Record) -> Iterator[str]:
    """Each says why, each is told in the inbox that skips it, and there are no more than were deserved."""
    letters = record.stored("DEAD_LETTERS")
    for one in letters:
        if not (one.headers.get("bulkhead-dead-code") and one.headers.get("bulkhead-dead-reason")):
            yield f"dead letter {one.sequence} does not say why"
        service = one.headers.get("bulkhead-dead-service", "")
        facts = _of(record, f"INBOX_{service.upper()}", "mesh.control.message_rejected")
        if not any(str(_body(fact)["sequence"]) == one.headers.get("bulkhead-dead-sequence") for fact in facts):
            yield f"dead letter {one.sequence} has no fact in the inbox of {service}"
        if one.headers.get("bulkhead-original-ce-id", "").startswith("poison-"):
            continue
        opened = any(_type(other).startswith(OPENINGS.get(service, "-")) and _task(other.subject) == _task(one.subject)
                     for other in record.stored(f"INBOX_{service.upper()}"))  # fmt: skip
        if one.headers.get("bulkhead-dead-code") != "not_opened" or opened:
            yield f"undeserved dead letter: {service}: {one.headers.get('bulkhead-dead-reason')}"
