"""Money: reserved is settled or open, per scope, under every ceiling; usage times price is what is charged, everywhere.

In: a Record. Out: complaints.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from bulkhead.bus.port import StoredMessage
from bulkhead_contracts.result import Usage
from tests.simulation.laws.reading import body, is_calm, of, said, task_of
from tests.simulation.laws.record import Record
from tests.simulation.mesh.chaos import KILLED

HUNDREDTHS = {"input_tokens": 15, "output_tokens": 60}
"""What the scripted model costs, in hundredths of micro dollars per token: $0.15 and $0.60 per million."""
ENDS = frozenset({"crash_before", "crash_after", "cut_off", KILLED})
"""Faults of a replica after which nobody may know what it had reserved."""
CUT = frozenset({"halted", "hedged", "abandoned"})
"""Failures of calls that the gateway itself ends."""
NOTHING = Usage().model_dump()
Key = tuple[str, str]
"""Service and reservation."""
REPLIES = ("mesh.model.call_replied", "mesh.tool.call_replied", "mesh.retrieval.replied", "mesh.control.call_deferred")
ASKERS = ("INBOX_PLANNER", "INBOX_WORKER", "INBOX_CHECKER", "INBOX_DOORS")


def complain(record: Record) -> Iterator[str]:
    """Reserved = settled + still open, per scope, and open is only what somebody held who died; the ledger says the
    same; no ceiling is exceeded; nothing is free."""
    reserved: dict[Key, dict[str, Any]] = {}
    terms: dict[tuple[Key, str], dict[str, Any]] = {}
    for one in of(record, "INBOX_JOURNAL", "mesh.budget.reserved"):
        fact = body(one)
        key = (fact["service"], fact["reservation_id"])
        if terms.setdefault((key, one.headers["ce-causeid"]), fact) != fact:
            yield f"reservation {key} stands twice with different terms"
        reserved[key] = fact  # One of an earlier ledger may have come too late for it, and counts no more.
    tasks = {
        (body(one)["service"], body(one)["reservation_id"]): task_of(one.subject)
        for one in of(record, "INBOX_JOURNAL", "mesh.budget.reserved")
    }
    settled: dict[Key, dict[str, Any]] = {}
    charged: dict[str, Counter[str]] = {}
    for one, done in settlements(record):
        key = (one.headers["ce-source"], done["reservation_id"])
        if done["estimated"] or any(done["usage"].values()):
            # Who gives up asking settles with nothing, whatever came of it.
            if key not in reserved:
                yield f"{key} was settled and never reserved"
            elif key not in record.held:
                yield f"{key} was settled, and budget never said that it holds it"
            elif tasks[key] != task_of(one.subject):
                yield f"{key} of {tasks[key]} was used in {task_of(one.subject)}"
        if key not in settled:
            _add(charged.setdefault(task_of(one.subject), Counter()), done["usage"])
        first = settled.setdefault(key, done)
        if first != done:
            yield f"{key} was settled twice, differently: {first['usage']} and {done['usage']}"
    for key in settled:
        # Held ahead: used one after the other, so that of a dead doer's one alone may have been.
        stem, _, number = key[1].partition("-")
        used_before = (key[0], f"{stem}-{int(number) - 1}" if number > "1" else stem)
        if number and any(settled[key]["usage"].values()) and used_before not in settled:
            yield f"{key} was used, and not the one before it"
    yield from _scopes(record, reserved, settled)
    ended = {fault.event.partition(" ")[0].rpartition("-")[0] for fault in record.chaos.fired if fault.kind in ENDS}
    yield from (
        f"{key} is held, and nobody of {key[0]} died" for key in reserved if key not in settled and key[0] not in ended
    )
    yield from _prices(record, reserved, settled)
    yield from _told(record, charged)


def settlements(record: Record) -> Iterator[tuple[StoredMessage, dict[str, Any]]]:
    """What doers settled, by messages of their own and in their replies, as often as they told it."""
    told = [(one, [body(one)]) for one in of(record, "INBOX_BUDGET", "mesh.budget.settled")]
    told += [(one, body(one).get("settled", ())) for inbox in ASKERS for one in of(record, inbox, *REPLIES)]
    for one, rows in told:
        for row in rows:
            others = [
                {"reservation_id": unused, "call_id": unused, "usage": NOTHING} for unused in row.get("unused", ())
            ]
            yield from ((one, {**row, "unused": (), **other}) for other in ({}, *others))


def _scopes(record: Record, reserved: dict[Key, dict[str, Any]], settled: dict[Key, dict[str, Any]]) -> Iterator[str]:
    total: Counter[tuple[str, str]] = Counter()
    unanswered: Counter[tuple[str, str]] = Counter()
    unheard: Counter[tuple[str, str]] = Counter()
    overrun: Counter[tuple[str, str]] = Counter()
    ceilings: dict[tuple[str, str], int] = {}
    for key, fact in reserved.items():
        ask, done, over = fact["amount"], settled.get(key), dict[str, int]()
        charge = {"tokens": ask["tokens"], "cost_usd_micros": ask["cost_usd_micros"]}
        if done is not None and not done["estimated"]:
            usage = done["usage"]
            charge = {
                "tokens": usage["input_tokens"] + usage["output_tokens"],
                "cost_usd_micros": usage["cost_usd_micros"],
            }
            if any(charge[unit] > ask[unit] for unit in charge):
                over = {unit: max(0, charge[unit] - ask[unit]) for unit in charge}
                if (usage["input_tokens"], usage["output_tokens"]) not in record.model.surprising:
                    yield f"{key} used more than was reserved: {charge} of {ask}"
        for scope in fact["scopes"]:
            for unit in charge:
                total[(scope["scope"], unit)] += charge[unit]
                overrun[(scope["scope"], unit)] += over.get(unit, 0)
                unanswered[(scope["scope"], unit)] += charge[unit] if done is None else 0
                # Its writer gave up before it was stored, and said so: nobody will ever act on it.
                unheard[(scope["scope"], unit)] += charge[unit] if done is None and key not in record.held else 0
                # A top-up raises it; nobody lowers one here.
                name = (scope["scope"], unit)
                ceilings[name] = max(ceilings.get(name, 0), scope[unit])
    for name, spent in total.items():
        # What a provider tells beyond its reservation is charged; nothing more is admitted under it then.
        if spent - unheard[name] - overrun[name] > ceilings[name]:
            yield f"{name} spent {spent - unheard[name]} of {ceilings[name]}"
    yield from _ledger(record, total, unanswered)
    calls = sum(fact["amount"]["model_calls"] for fact in reserved.values())
    if record.model.calls > calls:
        yield f"the provider was called {record.model.calls} times under {calls} reservations"
    tokens = sum(spent for (scope, unit), spent in total.items() if unit == "tokens" and scope.startswith("task:"))
    if record.model.tokens > tokens:
        yield f"the provider's {record.model.tokens} tokens were charged as {tokens}"


def _prices(record: Record, reserved: dict[Key, dict[str, Any]], settled: dict[Key, dict[str, Any]]) -> Iterator[str]:
    """What a call is charged is its usage times the price, and its usage is what the provider told of one request."""
    used: Counter[tuple[int, int]] = Counter()
    for key, done in settled.items():
        usage = done["usage"]
        if key[0] != "model_gateway":
            # Vectors cost a micro dollar for a token; tools nothing.
            if usage["cost_usd_micros"] != (usage["input_tokens"] if key[0] == "rag" else 0):
                yield f"{key} is no model call and was charged {usage['cost_usd_micros']}"
            continue
        price = -(-sum(usage[unit] * rate for unit, rate in HUNDREDTHS.items()) // 100)
        ask = reserved[key]["amount"] if key in reserved else {"cost_usd_micros": -1, "tokens": -1}
        # Who ends in the middle of a call charges it whole, and cannot tell input from output.
        whole = done["estimated"] and usage["input_tokens"] == ask["tokens"] and not usage["output_tokens"]
        if usage["cost_usd_micros"] != price and not whole:
            yield f"{key} was charged {usage['cost_usd_micros']}; its usage costs {price}"
        if done["estimated"]:
            if usage["cost_usd_micros"] != ask["cost_usd_micros"]:
                yield f"{key} has no usage and was charged {usage['cost_usd_micros']} of {ask['cost_usd_micros']}"
        elif guess := usage.get("estimated_usd_micros"):
            if guess != usage["cost_usd_micros"] or guess > ask["cost_usd_micros"] or not usage["input_tokens"]:
                yield f"{key} is estimated as {usage}, and {ask} was reserved"
        elif usage["input_tokens"]:
            used[(usage["input_tokens"], usage["output_tokens"])] += 1
    if extra := used - Counter(record.model.told):
        yield f"usage was settled that no provider told: {dict(extra)}"
    if not any(fault.kind in ENDS and fault.event.startswith("model_gateway") for fault in record.chaos.fired):
        # Whoever cuts a call may do so as its last figures come.
        cut = sum(
            bool(done["usage"].get("estimated_usd_micros")) and done.get("failed") in CUT for done in settled.values()
        )
        if (lost := Counter(record.model.heard) - used).total() > cut:
            yield f"the provider told usage that was read to its end and never settled: {dict(lost)}"


def _told(record: Record, charged: dict[str, Counter[str]]) -> Iterator[str]:
    """What a task's end says it used was charged; all of it, when nothing went wrong and nothing came too late."""
    wasted = _wasted(record)
    tried_again = {
        task_of(one.subject)
        for one in of(record, "INBOX_GATEWAY", "mesh.task.step_ended")
        if body(one)["outcome"] != "accepted"
    }
    for task, ends in said(record, "INBOX_GATEWAY", "mesh.task.ended").items():
        end, paid = body(ends[0]), charged.get(task, Counter())
        told: Counter[str] = Counter()
        _add(told, end["usage"])
        if told["cost_usd_micros"] > paid["cost_usd_micros"] or told["tokens"] > paid["tokens"]:
            yield f"{task} says it used {dict(told)}, and {dict(paid)} was charged"
        if not is_calm(record) or end["status"] != "succeeded" or end["plan_versions"] != 1:
            continue
        _add(told, wasted.get(task, NOTHING))
        # A write of an earlier attempt is answered from its record, and told again.
        units = ("cost_usd_micros", "tokens", "model_calls", *(() if task in tried_again else ("tool_calls",)))
        if wrong := [unit for unit in units if told[unit] != paid[unit]]:
            yield f"{task} says it used {dict(told)}, and {dict(paid)} was charged ({', '.join(wrong)})"


def _wasted(record: Record) -> dict[str, dict[str, int]]:
    """What queries cost that were embedded ahead for steps that never used them: their tasks do not tell it."""
    replies = [(task_of(one.subject), body(one)) for one in of(record, "INBOX_WORKER", "mesh.retrieval.replied")]
    used = {(task, reply["step_id"]) for task, reply in replies if reply.get("saved_ms") is not None}
    wasted: dict[str, dict[str, int]] = {}
    for task, reply in replies:
        if reply.get("asked_ahead") and (task, reply["step_id"]) not in used:
            total = wasted.setdefault(task, dict(NOTHING))
            total.update({unit: total[unit] + reply["usage"].get(unit, 0) for unit in NOTHING})
    return wasted


def _add(total: Counter[str], usage: dict[str, int]) -> None:
    total.update({unit: usage[unit] for unit in ("cost_usd_micros", "model_calls", "tool_calls")})
    total["tokens"] += usage["input_tokens"] + usage["output_tokens"]


def _ledger(record: Record, total: Counter[tuple[str, str]], unanswered: Counter[tuple[str, str]]) -> Iterator[str]:
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
