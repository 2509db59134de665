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
from bulkhead.health.events import Act, Event, LineageEnded, ModelIdentified, WorkOpened
from bulkhead.health.sources import journal_waits
from bulkhead.health.sources.contract_bounds import is_within_bounds
from bulkhead.health.sources.journal_messages import Body, JournalMessage, header_value, may_speak
from bulkhead.health.sources.journal_outside import OutsideRuns
from bulkhead_contracts import budget, model, peer, plan, retrieval, step, subjects, task, tool, verdict
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
PASSING = frozenset({"breaker_open", "busy", "deadline_exceeded", "unavailable"})
"""Codes of calls that were not made, for reasons that pass: the same request again is made then."""
DEFERRED_TIMES = 8
"""A decider waits up to so many times as long as it was told, the oftener it was put off."""
_READ = "\0read"
"""When a body that waits for its other half was said."""

_ROLE = "\0role"
"""The role of who asks, in a body that outlives its lineage."""
KEPT = ("call_id", "step_id", "attempt", "tool", "outcome", "failure", "duration_ms")
"""Of a half whose lineage has ended: what tells how the call ended."""

LEAST_OVERRUN = {"tokens": 1_000, "cost_usd_micros": 10_000}
"""Beyond twice the reservation and so much above it, a call of a model failed."""
_DONE: Mapping[str, object] = {}
"""Stands for a call whose act was told."""

Text = Callable[[str], str | None]
"""The text of a content by its sha256, when it can be had."""


class JournalReader:
    """Joins requests and replies of living lineages."""

    def __init__(self, text: Text | None = None) -> None:
        self._text = text
        self._calls = BoundedDict[str, BoundedDict[str, Body]](MAX_LINEAGES)
        self._late = BoundedDict[tuple[str, str], Body](MAX_LATE)
        self._waits = journal_waits.JournalWaits()
        self._outside = OutsideRuns()
        self._steps = BoundedDict[str, dict[str, tuple[str, str]]](MAX_LINEAGES)
        """Of a living lineage's steps: the newest attempt as an agent, and its role."""
        self.unreadable = 0

    def read(self, subject: str, headers: Mapping[str, str], body: bytes, time_unix_ms: int) -> list[Event]:
        """The events of one message; [] for most types."""
        kind = header_value(headers, "ce-type").rpartition(".v")[0]
        handler, waits = _HANDLERS.get(kind), journal_waits.HANDLERS.get(kind)
        if handler is None and waits is None:
            return []
        parts = subject.split(".")
        if not may_speak(subject, kind):
            self.unreadable += 1
            return []
        try:
            fields = from_json(body)
            if not isinstance(fields, dict) or not is_within_bounds(fields):
                raise ValueError("no message of the mesh")
            name, actor = header_value(headers, "ce-id"), header_value(headers, "ce-actor")
            head = (parts[2], parts[4], f"{parts[4]}/{parts[5]}", kind, parts[1], name)
            message = JournalMessage(*head, time_unix_ms, fields, actor)
            events = list(handler(self, message)) if handler is not None else []
            if waits is not None:
                events += waits(self._waits, message)
            return events
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, ArithmeticError):
            self.unreadable += 1
            return []

    # One handler per type

    def _on_task_submitted(self, message: JournalMessage) -> Iterator[Event]:
        yield message.work_opened(PLANNING, "plan")

    def _on_plan_adopted(self, message: JournalMessage) -> Iterator[Event]:
        if message.kind != task.Progressed.TYPE or message.body.get("adopted"):
            yield message.work_closed(PLANNING)
        started = message.body.get("started")
        for row in started if isinstance(started, list) else ():
            yield from self._wait_begun(message, row)

    def _on_planner_waits(self, message: JournalMessage) -> Iterator[Event]:
        """A step that waits for a time begins, or a task waits for a person: nobody works on it until then."""
        yield from self._wait_begun(message, message.body)

    def _wait_begun(self, message: JournalMessage, body: Body) -> Iterator[Event]:
        if until := _int_or_zero(body.get("until_unix_ms")):
            yield WorkOpened(message.id, message.lineage, "", "timer", message.time_unix_ms, message.tenant, until)

    def _on_task_ended(self, message: JournalMessage) -> Iterator[Event]:
        if message.receiver != "gateway":
            return
        self._keep_late_calls(message.lineage)
        self._waits.end_lineage(message.lineage)
        self._outside.end_run(message.lineage)
        self._steps.pop(message.lineage, None)
        yield LineageEnded(message.id, message.lineage, message.time_unix_ms)

    def _keep_late_calls(self, lineage: str) -> None:
        """A lineage ends, and its calls go on: how they end is about the tool. What was asked is kept no longer."""
        for call_id, body in self._calls.pop(lineage, {}).items():
            if body is not _DONE:
                outcome_fields = {name: body[name] for name in KEPT if name in body}
                self._late[lineage, call_id] = {**outcome_fields, _ROLE: self._role_of(lineage, body)}

    def _role_of(self, lineage: str, request: Body) -> str:
        return self._steps.get(lineage, {}).get(str(request.get("step_id")), ("", ""))[1]

    def _on_step_assigned(self, message: JournalMessage) -> Iterator[Event]:
        body, step = message.body, message.body["step"]
        role = f"{message.receiver}.{step.get('role', 'step')}"  # type: ignore[attr-defined]
        self._steps.setdefault(message.lineage, {})[str(step["id"])] = (f"{step['id']}/{body['attempt']}", role)  # type: ignore[index]
        yield message.work_opened(_step_key(step["id"], body), "step")  # type: ignore[index]
        yield message.work_closed(PLANNING)

    def _on_step_finished(self, message: JournalMessage) -> Iterator[Event]:
        yield message.work_closed(_step_key(message.body["step_id"], message.body))

    def _on_call_requested(self, message: JournalMessage) -> Iterator[Event]:
        yield message.work_opened(f"call:{message.body['call_id']}", "call")
        if message.sender == "planner":
            yield message.work_closed(PLANNING)
        if message.kind == model.ModelCallRequested.TYPE:
            yield from self._outside.on_call_requested(message)
            return
        if message.kind == tool.ToolCallRequested.TYPE:
            self._outside.record_mesh_tool(message)
        if not message.body.get("asked_ahead"):  # It is no act of the step, which has not begun.
            yield from self._join_halves(message)

    def _on_call_replied(self, message: JournalMessage) -> Iterator[Event]:
        body = message.body
        yield message.work_closed(f"call:{body['call_id']}")
        if message.kind != model.ModelCallReplied.TYPE:
            if not body.get("asked_ahead"):
                yield from self._join_halves(message)
            return
        yield from self._outside.on_call_replied(message)
        if body.get("model") and body["outcome"] != "refused" and _failure_code(body) not in HELD_BACK:
            agent, failed = str(body.get("step_id") or message.receiver), _failure_code(body) in OUTAGES
            yield message.call_ended(
                agent, "model", str(body["model"]), failed, latency_ms=_int_or_zero(body.get("duration_ms"))
            )
        if body.get("pinned") and body["outcome"] == "answered":
            provider, pinned, told_model = (str(body.get(name) or "") for name in ("provider", "pinned", "model"))
            words, replied_unix_ms = (
                (provider, pinned, told_model, str(body.get("fingerprint") or "")),
                message.time_unix_ms,
            )
            yield ModelIdentified(message.id, message.lineage, message.tenant, *words, replied_unix_ms)

    def _on_overran(self, message: JournalMessage) -> Iterator[Event]:
        """Far more was used than was reserved: that call of the model failed, although it answered."""
        body = message.body
        if body["service"] == "model_gateway" and any(
            _unit_of(body, "used", unit) - reserved > max(reserved, least)
            for unit, least in LEAST_OVERRUN.items()
            for reserved in [_unit_of(body, "reserved", unit)]
        ):
            yield message.call_ended("", "model", str(body["resource"]), True, counted=True, why=str(body["what"]))

    def _on_answer_requested(self, message: JournalMessage) -> Iterator[Event]:
        """A step's questions to other steps; the planner only forwards them."""
        body = message.body
        if message.sender == "worker" and body.get("question"):
            for target in body["targets"]:  # type: ignore[attr-defined]
                yield self._talk_act(message, body["step_id"], target, body["question"])

    def _on_answer_given(self, message: JournalMessage) -> Iterator[Event]:
        if message.sender == "worker":
            yield self._talk_act(message, message.body["target"], message.body["step_id"], message.body.get("text"))

    def _talk_act(self, message: JournalMessage, by: object, to: object, text: object) -> Act:
        steps = self._steps.get(message.lineage, {})
        (speaker, role), (listener, _) = (steps.get(str(name), (f"{name}/1", "")) for name in (by, to))
        # The receiver counts: one question to four siblings is no repetition.
        arguments = {"to": listener, "text": str(text or "")}
        return message.act_event(
            speaker, "say", arguments, says=True, to=listener, productive=False, role=role, actor=message.actor
        )

    def _on_call_deferred(self, message: JournalMessage) -> Iterator[Event]:
        body = message.body
        until = message.time_unix_ms + _int_or_zero(body.get("after_ms")) * DEFERRED_TIMES
        yield WorkOpened(message.id, message.lineage, "", "timer", message.time_unix_ms, message.tenant, until)
        yield message.work_closed(f"call:{body['call_id']}")

    def _join_halves(self, message: JournalMessage) -> Iterator[Event]:
        """The act, once both its request and its reply were read; of an ended lineage only how the call ended."""
        late = (message.lineage, str(message.body["call_id"]))
        if late in self._late:
            yield from self._join_late_half(message, late)
            return
        calls = self._calls.get(message.lineage)
        if calls is None:
            calls = self._calls[message.lineage] = BoundedDict(MAX_CALLS)
        call_id = late[1]
        asks = message.kind.endswith("requested")
        other_half = calls.get(call_id)
        if other_half is _DONE:
            return  # A repeat, by a doer that died or a decider that asked again.
        if other_half is None or ("outcome" in other_half) != asks:
            calls[call_id] = {**message.body, _READ: message.time_unix_ms}
            return
        calls[call_id] = _DONE
        request, reply = (message.body, other_half) if asks else (other_half, message.body)
        yield from self._act_events(message, request, reply)

    def _join_late_half(self, message: JournalMessage, late: tuple[str, str]) -> Iterator[Event]:
        asks, other_half = message.kind.endswith("requested"), self._late[late]
        if ("outcome" in other_half) == asks:
            del self._late[late]
            request, reply = (message.body, other_half) if asks else (other_half, message.body)
            yield from self._call_ended(message, request, reply, str(other_half[_ROLE]))

    def _act_events(self, message: JournalMessage, request: Body, reply: Body) -> Iterator[Event]:
        error = reply["outcome"] not in ("succeeded", "found")
        failure = reply.get("failure")
        result: object = None
        if isinstance(failure, dict):
            result = f"{failure.get('code')}: {failure.get('message')}"
        if "tool" in request:
            arguments = request["arguments_json"]
            result = result or self._content_text(reply.get("content"))
        else:
            arguments = {"query": request["query"], "k": request.get("k")}
            passages = reply.get("passages") or ()
            result = result or [self._content_text(passage.get("content")) for passage in passages]  # type: ignore[attr-defined]
        yield from self._call_ended(message, request, reply, self._role_of(message.lineage, request))
        usage = reply.get("usage")
        spent = (
            _int_or_zero(usage.get("input_tokens")) + _int_or_zero(usage.get("output_tokens"))
            if isinstance(usage, dict)
            else 0
        )
        act_fields = {
            "error": error,
            "tokens": spent,
            "since_unix_ms": _int_or_zero(request.get(_READ)),
            "productive": not error,
            "unmade": subjects.is_of_doors(message.lineage.rpartition("/")[2]) and _was_put_off(reply),
        }
        yield message.act_event(_agent_name(request), _action_name(request), arguments, result=result, **act_fields)

    def _call_ended(self, message: JournalMessage, request: Body, reply: Body, role: str) -> Iterator[Event]:
        code, refused = _failure_code(reply), reply["outcome"] == "refused"
        if code in HELD_BACK:
            return
        yield message.call_ended(
            _agent_name(request),
            "tool",
            "" if refused else _action_name(request),
            code in OUTAGES,
            latency_ms=_int_or_zero(reply.get("duration_ms")),
            role=role,
            error=reply["outcome"] not in ("succeeded", "found"),
        )

    def _content_text(self, content: object) -> str:
        """The text behind a reference, or its digest."""
        if not isinstance(content, dict):
            return ""
        digest = str(content.get("sha256"))
        text = self._text(digest) if self._text is not None else None
        return digest if text is None else text


def _unit_of(body: Body, amount: str, unit: str) -> int:
    sums = body.get(amount)
    return _int_or_zero(sums.get(unit)) if isinstance(sums, dict) else 0


def _agent_name(request: Body) -> str:
    return f"{request.get('step_id')}/{request.get('attempt', 1)}"


def _action_name(request: Body) -> str:
    return str(request["tool"]) if "tool" in request else "search_documents"


def _step_key(step_id: object, body: Body) -> str:
    return f"step:{step_id}/{body['attempt']}/{body['plan_version']}"


def _failure_code(reply: Body) -> str:
    failure = reply.get("failure")
    return str(failure.get("code")) if isinstance(failure, dict) else ""


def _was_put_off(reply: Body) -> bool:
    return reply["outcome"] in ("refused", "failed") and _failure_code(reply) in PASSING


def _int_or_zero(value: object) -> int:
    return value if isinstance(value, int) else 0


_HANDLERS: dict[str, Callable[[JournalReader, JournalMessage], Iterator[Event]]] = {
    task.TaskSubmitted.TYPE: JournalReader._on_task_submitted,
    task.TaskEnded.TYPE: JournalReader._on_task_ended,
    plan.PlanAdopted.TYPE: JournalReader._on_plan_adopted,
    task.Progressed.TYPE: JournalReader._on_plan_adopted,
    task.StepStarted.TYPE: JournalReader._on_planner_waits,
    task.TaskPaused.TYPE: JournalReader._on_planner_waits,
    step.StepAssigned.TYPE: JournalReader._on_step_assigned,
    step.StepFinished.TYPE: JournalReader._on_step_finished,
    verdict.VerdictReached.TYPE: JournalReader._on_step_finished,
    model.ModelCallRequested.TYPE: JournalReader._on_call_requested,
    model.ModelCallReplied.TYPE: JournalReader._on_call_replied,
    tool.ToolCallRequested.TYPE: JournalReader._on_call_requested,
    tool.ToolCallReplied.TYPE: JournalReader._on_call_replied,
    retrieval.RetrievalRequested.TYPE: JournalReader._on_call_requested,
    retrieval.RetrievalReplied.TYPE: JournalReader._on_call_replied,
    CallDeferred.TYPE: JournalReader._on_call_deferred,
    budget.Overran.TYPE: JournalReader._on_overran,
    peer.AnswerRequested.TYPE: JournalReader._on_answer_requested,
    peer.AnswerGiven.TYPE: JournalReader._on_answer_given,
}
