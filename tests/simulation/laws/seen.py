"""What was seen stays seen: whatever a tool or the library told a step stands in its evidence and provenance, and what
the gateway shows of a task is what was said of it.

In: a Record. Out: complaints.
"""

from collections.abc import Iterator
from typing import Any

from bulkhead.bus.port import StoredMessage
from tests.simulation.laws.reading import body, said, type_of
from tests.simulation.laws.record import Record

REPLIES = ("mesh.tool.call_replied", "mesh.retrieval.replied")
RESULTS = ("mesh.step.proposed", "mesh.step.finished")
MOST_LABELS = 256
MOST_EVIDENCE = 128
Attempt = tuple[str, str, int]
"""Task, step, attempt."""


def complain(record: Record) -> Iterator[str]:
    """See the module."""
    yield from _evidence(record)
    yield from _views(record)


def _evidence(record: Record) -> Iterator[str]:
    """Of attempts that came to a result."""
    replanned = {task for task, found in said(record, "INBOX_GATEWAY", "mesh.plan.adopted").items() if len(found) > 1}
    places = {one.headers.get("ce-id", ""): one.sequence for one in record.stored("INBOX_WORKER")}
    told = _told(record)
    for inbox in ("CHECKER", "PLANNER"):
        for task, found in said(record, f"INBOX_{inbox}", *RESULTS).items():
            for one in found:
                result = body(one)
                # Of several plans a step's attempts cannot be told apart here.
                if task in replanned or one.headers.get("ce-source") != "worker" or result.get("failure"):
                    continue
                step = (result.get("step") or {}).get("id") or result["step_id"]
                until = places.get(one.headers.get("ce-causeid", ""), 0)
                yield from _lost(f"{task} {step}", result, told.get((task, step, result["attempt"]), []), until)


def _lost(whose: str, result: dict[str, Any], told: list[tuple[int, set[str]]], until: int) -> Iterator[str]:
    seen = {digest for sequence, digests in told if sequence <= until for digest in digests}
    labels = result["result"].get("provenance", [])
    if len(labels) < MOST_LABELS and (lost := seen - {label["sha256"] for label in labels}):
        yield f"{whose}: its provenance forgets {sorted(lost)}"
    if "evidence" not in result or len(result["evidence"]) >= MOST_EVIDENCE:
        return
    if lost := seen - {one["content"]["sha256"] for one in result["evidence"]}:
        yield f"{whose}: its evidence forgets {sorted(lost)}"


def _told(record: Record) -> dict[Attempt, list[tuple[int, set[str]]]]:
    """What the first answer to each call of an attempt brought: its place in the worker's inbox, and digests."""
    asked: dict[str, tuple[str, int, str]] = {}
    for inbox in ("TOOL_EXECUTOR", "RAG"):
        for one in record.stored(f"INBOX_{inbox}"):
            if type_of(one).startswith(("mesh.tool.call_requested.", "mesh.retrieval.requested.")):
                call = body(one)
                asked[one.headers["ce-id"]] = (call["step_id"], call["attempt"], call["call_id"])
    found: dict[Attempt, list[tuple[int, set[str]]]] = {}
    answered: set[tuple[str, str, int, str]] = set()
    for task, replies in said(record, "INBOX_WORKER", *REPLIES).items():
        for one in replies:
            if one.headers.get("ce-causeid", "") not in asked:
                continue
            step, attempt, call_id = asked[one.headers["ce-causeid"]]
            if (task, step, attempt, call_id) not in answered:
                answered.add((task, step, attempt, call_id))
                found.setdefault((task, step, attempt), []).append((one.sequence, _digests(one)))
    return found


def _digests(one: StoredMessage) -> set[str]:
    reply = body(one)
    content = [reply["content"]] if reply.get("content") else [each["content"] for each in reply.get("passages", ())]
    return {each["sha256"] for each in content}


def _views(record: Record) -> Iterator[str]:
    """An ended task looks ended: nothing runs in it, and its status, failure and spending are those of its end."""
    ends = said(record, "INBOX_GATEWAY", "mesh.task.ended")
    refused = said(record, "INBOX_GATEWAY", "mesh.task.rejected")
    for task, view in record.views.items():
        if task in refused and task not in ends and view["status"] != "rejected":
            yield f"{task} was rejected, and the gateway shows it as {view['status']}"
        if task not in ends:
            continue
        end = body(ends[task][0])
        if view["status"] != end["status"]:
            yield f"{task} ended as {end['status']}, and the gateway shows it as {view['status']}"
        if running := [step["step_id"] for step in view["steps"] if step["status"] == "running"]:
            yield f"{task} ended, and the gateway shows {', '.join(running)} as running"
        if (view["failure"] or {}).get("code") != (end["failure"] or {}).get("code"):
            yield f"{task} failed with {end['failure']}, and the gateway shows {view['failure']}"
        if view["usage"] != end["usage"]:
            yield f"{task} used {end['usage']}, and the gateway shows {view['usage']}"
