"""A source of events: a mesh's own journal, which tells of acts, waits and outstanding work.

In: stored messages (subject, headers, body), in journal order. Out: events. Bodies are read without their models, and
only those that a detector asks about: the watcher keeps up with the stream. What cannot be read is none of its
business; the receivers reject it.

Acts are tool calls, retrievals and what steps say to each other; to ask for nothing but a result says nothing. What a
model answers is none: a text ends an attempt, and attempts and provider calls are counted and capped by the mesh
itself. (Of outside agents: see `journal_outside`.) An agent is one attempt of a step: the next one begins anew, with
what the checker said, and may ask the same.
Between two inboxes there is no order: a reply may be read before its request.
"""

from collections.abc import Callable, Iterator, Mapping

from pydantic_core import from_json

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.events import Act, Ended, Event, Identified, Opened
from bulkhead.health.sources import journal_waits
from bulkhead.health.sources.contract_bounds import within
from bulkhead.health.sources.journal_messages import Body, Message, header, speaks
from bulkhead.health.sources.journal_outside import Outside
from bulkhead_contracts import budget, model, peer, plan, retrieval, step, task, tool, verdict
from bulkhead_contracts.control import CallDeferred

MAX_LINEAGES = 100_000
MAX_LATE = 10_000
"""Calls that were under way when their lineage ended."""
MAX_CALLS = 1_024
"""Of one lineage: requests without their reply, and the reverse."""
PLANNING = "planning"
OUTAGES = frozenset(
    {
        "rate_limited",
        "provider_error",
        "timeout",
        "truncated_stream",
        "error_body",
        "malformed_json",
        "unreachable",
        "http_status",
        "bad_answer",
        "store_busy",
        "store_damaged",
        "store_failed",
        "store_full",
    }
)
"""Codes of failures that tell about what was called; the others tell about what was asked of it."""
HELD_BACK = frozenset(
    {"breaker_open", "halted", "refused_by_budget", "budget_busy", "expired", "deadline_exceeded", "task_ended"}
)
"""Codes of calls that did not go out: they tell neither about what was called nor about who called it."""
DEFERRED_TIMES = 8
"""A decider waits up to so many times as long as it was told, the oftener it was put off."""
_READ = "\0read"
"""When a body that waits for its other half was said."""

_ROLE = "\0role"
"""The role of who asks, in a body that outlives its lineage."""
KEPT = ("call_id", "step_id", "attempt", "tool", "outcome", "failure", "duration_ms")
"""Of a half whose lineage has ended: what tells how the call ended."""

_DONE: Mapping[str, object] = {}
"""Stands for a call whose act was told."""

Text = Callable[[str], str | None]
"""The text of a content by its sha256, when it can be had."""


class Journal:
    """Joins requests and replies of living lineages."""

    def __init__(self, text: Text | None = None) -> None:
        self._text = text
        self._calls = BoundedDict[str, BoundedDict[str, Body]](MAX_LINEAGES)
        self._late = BoundedDict[tuple[str, str], Body](MAX_LATE)
        self._waits = journal_waits.Waits()
        self._outside = Outside()
        self._steps = BoundedDict[str, dict[str, tuple[str, str]]](MAX_LINEAGES)
        """Of a living lineage's steps: the newest attempt as an agent, and its role."""
        self.unreadable = 0

    def read(self, subject: str, headers: Mapping[str, str], body: bytes, time_unix_ms: int) -> list[Event]:
        """The events of one message; [] for most types."""
        kind = header(headers, "ce-type").rpartition(".v")[0]
        handler, waits = _HANDLERS.get(kind), journal_waits.HANDLERS.get(kind)
        if handler is None and waits is None:
            return []
        parts = subject.split(".")
        if not speaks(subject, kind):
            self.unreadable += 1
            return []
        try:
            found = from_json(body)
            if not isinstance(found, dict) or not within(found):
                raise ValueError("no message of the mesh")
            name, actor = header(headers, "ce-id"), header(headers, "ce-actor")
            head = (parts[2], parts[4], f"{parts[4]}/{parts[5]}", kind, parts[1], name)
            message = Message(*head, time_unix_ms, found, actor)
            events = list(handler(self, message)) if handler is not None else []
            if waits is not None:
                events += waits(self._waits, message)
            return events
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, ArithmeticError):
            self.unreadable += 1
            return []

    # One handler per type

    def _submitted(self, message: Message) -> Iterator[Event]:
        yield message.opened(PLANNING, "plan")

    def _planned(self, message: Message) -> Iterator[Event]:
        if message.kind != task.Progressed.TYPE or message.body.get("adopted"):
            yield message.closed(PLANNING)

    def _ended(self, message: Message) -> Iterator[Event]:
        if message.receiver != "gateway":
            return
        self._outlive(message.lineage)
        self._waits.end(message.lineage)
        self._outside.end(message.lineage)
        self._steps.pop(message.lineage, None)
        yield Ended(message.id, message.lineage, message.time_unix_ms)

    def _outlive(self, lineage: str) -> None:
        """A lineage ends, and its calls go on: how they end is about the tool. What was asked is kept no longer."""
        for call_id, body in self._calls.pop(lineage, {}).items():
            if body is not _DONE:
                kept = {name: body[name] for name in KEPT if name in body}
                self._late[lineage, call_id] = {**kept, _ROLE: self._role(lineage, body)}

    def _role(self, lineage: str, request: Body) -> str:
        return self._steps.get(lineage, {}).get(str(request.get("step_id")), ("", ""))[1]

    def _assigned(self, message: Message) -> Iterator[Event]:
        body, step = message.body, message.body["step"]
        role = f"{message.receiver}.{step.get('role', 'step')}"  # type: ignore[attr-defined]
        self._steps.setdefault(message.lineage, {})[str(step["id"])] = (f"{step['id']}/{body['attempt']}", role)  # type: ignore[index]
        yield message.opened(_step_key(step["id"], body), "step")  # type: ignore[index]
        yield message.closed(PLANNING)

    def _step_over(self, message: Message) -> Iterator[Event]:
        yield message.closed(_step_key(message.body["step_id"], message.body))

    def _requested(self, message: Message) -> Iterator[Event]:
        yield message.opened(f"call:{message.body['call_id']}", "call")
        if message.sender == "planner":
            yield message.closed(PLANNING)
        if message.kind == model.ModelCallRequested.TYPE:
            yield from self._outside.requested(message)
            return
        if message.kind == tool.ToolCallRequested.TYPE:
            self._outside.serves(message)
        yield from self._join(message)

    def _replied(self, message: Message) -> Iterator[Event]:
        body = message.body
        yield message.closed(f"call:{body['call_id']}")
        if message.kind != model.ModelCallReplied.TYPE:
            yield from self._join(message)
            return
        yield from self._outside.replied(message)
        if body.get("model") and body["outcome"] != "refused" and _code(body) not in HELD_BACK:
            agent, failed = str(body.get("step_id") or message.receiver), _code(body) in OUTAGES
            yield message.served(agent, "model", str(body["model"]), failed, latency_ms=_int(body.get("duration_ms")))
        if body.get("pinned") and body["outcome"] == "answered":
            provider, pinned, told = (str(body.get(name) or "") for name in ("provider", "pinned", "model"))
            words, at = (provider, pinned, told, str(body.get("fingerprint") or "")), message.time_unix_ms
            yield Identified(message.id, message.lineage, message.tenant, *words, at)

    def _overran(self, message: Message) -> Iterator[Event]:
        """More was used than was reserved: that call of the model failed, although it answered."""
        body = message.body
        if body["service"] == "model_gateway":
            yield message.served("", "model", str(body["resource"]), True, counted=True, why=str(body["what"]))

    def _asked(self, message: Message) -> Iterator[Event]:
        """A step's questions to other steps; the planner only forwards them."""
        body = message.body
        if message.sender == "worker" and body.get("question"):
            for target in body["targets"]:  # type: ignore[attr-defined]
                yield self._talk(message, body["step_id"], target, body["question"])

    def _answered(self, message: Message) -> Iterator[Event]:
        if message.sender == "worker":
            yield self._talk(message, message.body["target"], message.body["step_id"], message.body.get("text"))

    def _talk(self, message: Message, by: object, to: object, text: object) -> Act:
        steps = self._steps.get(message.lineage, {})
        (one, role), (other, _) = (steps.get(str(name), (f"{name}/1", "")) for name in (by, to))
        # The receiver counts: one question to four siblings is no repetition.
        said = {"to": other, "text": str(text or "")}
        return message.act(one, "say", said, says=True, to=other, productive=False, role=role, actor=message.actor)

    def _deferred(self, message: Message) -> Iterator[Event]:
        body = message.body
        until = message.time_unix_ms + _int(body.get("after_ms")) * DEFERRED_TIMES
        yield Opened(message.id, message.lineage, "", "timer", message.time_unix_ms, message.tenant, until)
        yield message.closed(f"call:{body['call_id']}")

    def _join(self, message: Message) -> Iterator[Event]:
        """The act, once both its request and its reply were read; of an ended lineage only how the call ended."""
        late = (message.lineage, str(message.body["call_id"]))
        if late in self._late:
            yield from self._join_late(message, late)
            return
        calls = self._calls.get(message.lineage)
        if calls is None:
            calls = self._calls[message.lineage] = BoundedDict(MAX_CALLS)
        call_id = late[1]
        asks = message.kind.endswith("requested")
        other = calls.get(call_id)
        if other is _DONE:
            return  # A repeat, by a doer that died or a decider that asked again.
        if other is None or ("outcome" in other) != asks:
            calls[call_id] = {**message.body, _READ: message.time_unix_ms}
            return
        calls[call_id] = _DONE
        request, reply = (message.body, other) if asks else (other, message.body)
        yield from self._act(message, request, reply)

    def _join_late(self, message: Message, late: tuple[str, str]) -> Iterator[Event]:
        asks, other = message.kind.endswith("requested"), self._late[late]
        if ("outcome" in other) == asks:
            del self._late[late]
            request, reply = (message.body, other) if asks else (other, message.body)
            yield from self._served(message, request, reply, str(other[_ROLE]))

    def _act(self, message: Message, request: Body, reply: Body) -> Iterator[Event]:
        error = reply["outcome"] not in ("succeeded", "found")
        failure = reply.get("failure")
        result: object = None
        if isinstance(failure, dict):
            result = f"{failure.get('code')}: {failure.get('message')}"
        if "tool" in request:
            arguments = request["arguments_json"]
            result = result or self._content(reply.get("content"))
        else:
            arguments = {"query": request["query"], "k": request.get("k")}
            passages = reply.get("passages") or ()
            result = result or [self._content(one.get("content")) for one in passages]  # type: ignore[attr-defined]
        yield from self._served(message, request, reply, self._role(message.lineage, request))
        usage = reply.get("usage")
        spent = _int(usage.get("input_tokens")) + _int(usage.get("output_tokens")) if isinstance(usage, dict) else 0
        since, productive = _int(request.get(_READ)), not error
        more = {"error": error, "tokens": spent, "since_unix_ms": since, "productive": productive}
        yield message.act(_agent(request), _action(request), arguments, result=result, **more)

    def _served(self, message: Message, request: Body, reply: Body, role: str) -> Iterator[Event]:
        code, refused = _code(reply), reply["outcome"] == "refused"
        if code in HELD_BACK:
            return
        yield message.served(
            _agent(request),
            "tool",
            "" if refused else _action(request),
            code in OUTAGES,
            latency_ms=_int(reply.get("duration_ms")),
            role=role,
            error=reply["outcome"] not in ("succeeded", "found"),
        )

    def _content(self, content: object) -> str:
        """The text behind a reference, or its digest."""
        if not isinstance(content, dict):
            return ""
        digest = str(content.get("sha256"))
        found = self._text(digest) if self._text is not None else None
        return digest if found is None else found


def _agent(request: Body) -> str:
    return f"{request.get('step_id')}/{request.get('attempt', 1)}"


def _action(request: Body) -> str:
    return str(request["tool"]) if "tool" in request else "search_documents"


def _step_key(step_id: object, body: Body) -> str:
    return f"step:{step_id}/{body['attempt']}/{body['plan_version']}"


def _code(reply: Body) -> str:
    failure = reply.get("failure")
    return str(failure.get("code")) if isinstance(failure, dict) else ""


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


_HANDLERS: dict[str, Callable[[Journal, Message], Iterator[Event]]] = {
    task.TaskSubmitted.TYPE: Journal._submitted,
    task.TaskEnded.TYPE: Journal._ended,
    plan.PlanAdopted.TYPE: Journal._planned,
    task.Progressed.TYPE: Journal._planned,
    step.StepAssigned.TYPE: Journal._assigned,
    step.StepFinished.TYPE: Journal._step_over,
    verdict.VerdictReached.TYPE: Journal._step_over,
    model.ModelCallRequested.TYPE: Journal._requested,
    model.ModelCallReplied.TYPE: Journal._replied,
    tool.ToolCallRequested.TYPE: Journal._requested,
    tool.ToolCallReplied.TYPE: Journal._replied,
    retrieval.RetrievalRequested.TYPE: Journal._requested,
    retrieval.RetrievalReplied.TYPE: Journal._replied,
    CallDeferred.TYPE: Journal._deferred,
    budget.Overran.TYPE: Journal._overran,
    peer.AnswerRequested.TYPE: Journal._asked,
    peer.AnswerGiven.TYPE: Journal._answered,
}
