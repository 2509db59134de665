"""Acts of outside agents, as their model calls tell them: nobody here sees their tools.

In: model calls of doors and the replies to them. Out: acts. A request's conversation lists the tool calls
that were made since the model's last answer: each is an act. A request that lists none is a question;
with its answer it is an act of its own, so that the same conversation sent again and again is seen, too.
Texts stay where they are: results count by their digest.

An agent is a conversation by what people asked in it first: agents that share a run are kept apart, and
one whose memory is cut to its newest messages stays the same.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.events import Act
from bulkhead.health.sources.journal_messages import Body, JournalMessage
from bulkhead_contracts.subjects import DOORS

MAX_RUNS = 20_000
MAX_CALLS = 1_024
"""Of one run: model calls, tool calls that a model asked for, and conversations."""
MAX_TOOLS = 256
ASK = "ask_model"


@dataclass(slots=True)
class _OutsideRun:
    """told: model calls whose acts were told. asked, answered: halves of questions, the first with its agent and time.
    wanted: tool calls, and when a model asked for them. threads: conversations, numbered. served: tools that the mesh
    calls for the agent."""

    told: BoundedDict[str, None] = field(default_factory=partial(BoundedDict, MAX_CALLS))
    asked: BoundedDict[str, tuple[str, str, int]] = field(default_factory=partial(BoundedDict, MAX_CALLS))
    answered: BoundedDict[str, str] = field(default_factory=partial(BoundedDict, MAX_CALLS))
    wanted: BoundedDict[str, int] = field(default_factory=partial(BoundedDict, MAX_CALLS))
    threads: BoundedDict[str, int] = field(default_factory=partial(BoundedDict, MAX_CALLS))
    served: BoundedDict[str, None] = field(default_factory=partial(BoundedDict, MAX_TOOLS))
    count: int = 0


class OutsideRuns:
    """The runs of outside agents."""

    def __init__(self) -> None:
        self._runs = BoundedDict[str, _OutsideRun](MAX_RUNS)

    def end_run(self, lineage: str) -> None:
        """Forget a run."""
        self._runs.pop(lineage, None)

    def record_mesh_tool(self, message: JournalMessage) -> None:
        """A tool of the mesh is called: it has an act of its own."""
        if message.sender == DOORS:
            self._run_of(message.lineage).served[str(message.body["tool"])] = None

    def on_call_requested(self, message: JournalMessage) -> Iterator[Act]:
        """The acts of a model call's conversation."""
        talk = message.body.get("conversation")
        if message.sender != DOORS or not isinstance(talk, dict) or talk.get("embeds") is True:
            return  # Texts are embedded again and again by agents that do well.
        run, call_id = self._run_of(message.lineage), str(message.body["call_id"])
        if call_id in run.told or call_id in run.asked:
            return  # A repeat, by a replica that went on with it.
        agent, acts = (
            self._agent_name(run, message.body, talk),
            [row for row in (*(talk.get("acts") or ()), *(talk.get("more_acts") or ())) if isinstance(row, dict)],
        )
        if not acts:
            notes = talk.get("notes")
            own_messages = talk["messages"][: -notes if isinstance(notes, int) and notes > 0 else None]
            question_digest = _digest_of(message.body.get("tier"), *(ref["sha256"] for ref in own_messages))
            run.asked[call_id] = agent, question_digest, message.time_unix_ms
            yield from self._question_act(message, run, call_id)
            return
        run.told[call_id] = None
        for number, row in enumerate(acts):
            # Vendors' clients write a prefix before the name of a tool that they have of a server.
            if not any(_is_of_mesh(str(row["tool"]), tool) for tool in run.served):
                yield self._tool_act(message, run, agent, row, number)

    def on_call_replied(self, message: JournalMessage) -> Iterator[Act]:
        """The act of a question, once it is answered."""
        body = message.body
        if message.receiver != DOORS or body["outcome"] != "answered":
            return
        run, call_id = self._run_of(message.lineage), str(body["call_id"])
        calls = [row for row in body.get("tool_calls") or () if isinstance(row, dict)]  # type: ignore[attr-defined]
        for row in calls:
            run.wanted[str(row["id"])] = message.time_unix_ms
        if call_id not in run.told:
            content = body.get("content")
            text = content.get("sha256") if isinstance(content, dict) else ""
            run.answered[call_id] = _digest_of(text, *((row["name"], row["arguments_json"]) for row in calls))
            yield from self._question_act(message, run, call_id)

    def _question_act(self, message: JournalMessage, run: _OutsideRun, call_id: str) -> Iterator[Act]:
        if call_id not in run.asked or call_id not in run.answered:
            return
        (agent, question_digest, since), answer = run.asked.pop(call_id), run.answered.pop(call_id)
        run.told[call_id] = None
        yield message.act_event(agent, ASK, question_digest, result=answer, since_unix_ms=since, begins=True)

    def _tool_act(self, message: JournalMessage, run: _OutsideRun, agent: str, row: Body, number: int) -> Act:
        error, since = row.get("error") is True, run.wanted.get(str(row.get("call_id")), 0)
        act_fields = {
            "result": str(row["result_sha256"]),
            "error": error,
            "since_unix_ms": since,
            "productive": not error,
        }
        act = message.act_event(agent, str(row["tool"]), str(row["arguments_json"]), **act_fields)
        return replace(act, id=f"{act.id}.{number}") if number else act

    def _run_of(self, lineage: str) -> _OutsideRun:
        run = self._runs.get_refreshed(lineage)
        if run is None:
            run = self._runs[lineage] = _OutsideRun()
        return run

    def _agent_name(self, run: _OutsideRun, body: Body, talk: Body) -> str:
        thread = str(talk.get("thread", ""))
        if (number := run.threads.get_refreshed(thread)) is None:
            number = run.threads[thread] = run.count = run.count + 1
        return f"{body.get('step_id')}/{body.get('attempt', 1)}" + (f".{number}" if number > 1 else "")


def _digest_of(*parts: object) -> str:
    """Digest as long as a content's own, which no detector takes for an id that was made up."""
    return hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()


def _is_of_mesh(named: str, tool: str) -> bool:
    """Check whether a tool that an agent names is this one of the mesh; a prefix ends with a separator."""
    return named == tool or named.endswith(tuple(f"{mark}{tool}" for mark in "_./:-"))
