"""Loops of outside agents are seen in what their model calls tell, and honest agents are left alone."""

import itertools
import json
import random
from typing import Any

import pytest

from bulkhead.health.events import Act
from bulkhead.health.findings import HealthFinding
from bulkhead.health.sources.journal import PASSING, JournalReader
from bulkhead.health.sources.journal_messages import JournalMessage
from bulkhead.health.sources.journal_outside import OutsideRuns
from bulkhead.health.sources.outside_acts import acts_of, thread_of
from bulkhead.health.watch import Watch
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.model import Conversation, ModelCallReplied, ModelCallRequested, ToolCall
from bulkhead_contracts.result import ContentRef, Failure, digest_of
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested

RUN = "doors-1"
Messages = list[dict[str, Any]]
Said = tuple[str, str, Any, str, int]
"""Sender, receiver, body, id, time."""


def ref(text: str) -> ContentRef:
    return ContentRef(author="doors", sha256=digest_of(text), size_bytes=len(text))


class Agent:
    """An outside agent, as doors and the model gateway tell of it."""

    numbers = itertools.count()

    def __init__(self, task: str = "fix it", gap_ms: int = 700) -> None:
        self.messages: Messages = [{"role": "user", "content": task}]
        self.said: list[Said] = []
        self.now, self.gap_ms = 1_000_000_000_000, gap_ms

    def ask(
        self, answer: str = "", call: ToolCall | None = None, messages: Messages | None = None, note: str = ""
    ) -> None:
        """One model call, and its answer. note: a message of the mesh."""
        sent, call_id = messages or self.messages, f"m{next(self.numbers)}"
        made, usual = acts_of(sent), bounds.MAX_CALLS_PER_TURN
        refs = tuple(ref(json.dumps(row)) for row in sent)
        talk = Conversation(messages=refs, acts=made[:usual], more_acts=made[usual:], thread=thread_of(sent))
        if note:
            talk = talk.model_copy(update={"messages": (*talk.messages, ref(note)), "notes": 1})
        shared: dict[str, Any] = {"call_id": call_id, "step_id": "agent", "prompt_id": "adopted@1"}
        self._say("doors", "model_gateway", ModelCallRequested(**shared, deadline_unix_ms=1, conversation=talk))
        more: dict[str, Any] = {"tool_calls": (call,)} if call is not None else {}
        if answer:
            more["content"] = ref(answer)
        self._say("model_gateway", "doors", ModelCallReplied(**shared, outcome="answered", **more))

    def _say(self, sender: str, receiver: str, body: Any) -> None:
        self.now += self.gap_ms
        self.said.append((sender, receiver, body, f"id{next(self.numbers)}", self.now))

    def call(self, tool: str, arguments: str, result: str, *, keep: int = 0) -> None:
        """The model asks for a tool, and the next call brings its result. keep: newest messages that are remembered."""
        made = ToolCall(id=f"call{next(self.numbers)}", name=tool, arguments_json=arguments)
        self.ask(call=made)
        function = {"name": tool, "arguments": arguments}
        self.messages += [
            {"role": "assistant", "tool_calls": [{"id": made.id, "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": made.id, "content": result},
        ]
        if keep:
            self.messages[1:] = self.messages[1:][-keep:]


def judged(said: list[Said]) -> list[HealthFinding]:
    journal, watch, found = JournalReader(), Watch(), []
    for sender, receiver, body, name, at in said:
        headers = {"ce-type": body.ce_type(), "ce-id": name, "ce-actor": "ann"}
        subject = subjects.mesh_subject(sender, receiver, "demo", RUN)
        for event in journal.read(subject, headers, body.model_dump_json().encode(), at):
            found += [one for one in watch.fold_event(event) if isinstance(one, HealthFinding)]
    assert journal.unreadable == 0
    return found


def levels(said: list[Said]) -> list[str]:
    return [one.level for one in judged(said)]


@pytest.mark.parametrize("keep", [0, 2])
def test_the_same_tool_call_with_the_same_result_is_warned_of_then_stopped(keep: int) -> None:
    agent = Agent()
    for _ in range(5):
        agent.call("lookup", '{"q": "x"}', "nothing new", keep=keep)
    warned, stopped = judged(agent.said)
    assert (warned.level, stopped.level) == ("warn", "stop") and stopped.detector == "loop.repeat"
    assert warned.what == "agent/1 called lookup with the same arguments and got the same result 3 times in a row"
    assert set(stopped.evidence) <= {name for _, _, _, name, _ in agent.said}


@pytest.mark.parametrize("written", ["{}", json.dumps({"text": "\x01é" * 5_000})])
def test_each_of_sixty_four_calls_at_once_is_an_act_and_all_fit_in_a_message(written: str) -> None:
    agent, numbers = Agent(), range(bounds.MAX_ADOPTED_CALLS + 1)
    functions = [{"name": f"tool{number}", "arguments": written[:1_999]} for number in numbers]
    called = [{"id": f"c{number}", "type": "function", "function": functions[number]} for number in numbers]
    answers = [{"role": "tool", "tool_call_id": f"c{number}", "content": f"found {number}"} for number in numbers]
    agent.ask("hm", messages=[*agent.messages, {"role": "assistant", "tool_calls": called}, *answers])
    [(sender, receiver, body, name, at), _] = agent.said
    assert len(body.encode()) < bounds.MAX_MESSAGE_BYTES
    subject, headers = subjects.mesh_subject(sender, receiver, "demo", RUN), {"ce-type": body.ce_type(), "ce-id": name}
    acts = list(JournalReader().read(subject, headers | {"ce-actor": "ann"}, body.model_dump_json().encode(), at))
    assert [act.action for act in acts if isinstance(act, Act)] == [f"tool{number}" for number in numbers[:-1]]


def test_the_same_conversation_with_new_ids_of_its_calls_is_a_loop() -> None:
    agent = Agent()
    for number in range(5):
        function = {"name": "lookup", "arguments": "{}"}
        asks = {"role": "assistant", "tool_calls": [{"id": f"c{number}", "type": "function", "function": function}]}
        answers = {"role": "tool", "tool_call_id": f"c{number}", "content": "same"}
        agent.ask("hm", messages=[*agent.messages, asks, answers])
    assert levels(agent.said) == ["warn", "stop"]


def test_the_same_question_with_the_same_answer_is_warned_of_and_stopped_late() -> None:
    agent = Agent()
    for number in range(19):
        agent.ask("go on", note="you go round in circles" if number == 8 else "")
    assert levels(agent.said) == ["warn"], "a person may run a program again"
    agent.ask("go on")
    assert levels(agent.said) == ["warn", "stop"]


def test_a_failing_tool_is_a_loop_whatever_it_is_asked() -> None:
    agent = Agent()
    for number in range(9):
        agent.call("fetch", json.dumps({"page": f"p{number} of {'abcdefghi'[number]}"}), "Error: no such host")
    assert levels(agent.said) == ["warn", "stop"]


def test_a_repeat_of_a_message_or_of_a_call_is_no_act() -> None:
    agent = Agent()
    agent.call("lookup", "{}", "same")
    agent.call("lookup", "{}", "same")
    requests = [row for row in agent.said if row[0] == "doors"]
    again = [(*row[:3], f"{row[3]}-again", row[4] + 1) for row in requests]
    assert levels([*agent.said, *agent.said, *again, *again]) == []


def test_the_verdict_is_the_same_when_replies_are_read_before_or_long_after_their_requests() -> None:
    agent = Agent()
    for _ in range(5):
        agent.call("lookup", "{}", "same")
    for _ in range(20):
        agent.ask("go on", messages=[{"role": "user", "content": "go on"}])
    asked, answered = ([row for row in agent.said if row[0] == sender] for sender in ("doors", "model_gateway"))
    assert levels([*answered, *asked]) == levels([*asked, *answered]) == ["warn", "stop", "warn", "stop"]


def honest_poll(agent: Agent) -> None:
    for number in range(30):
        agent.call("job_status", '{"job": 7}', f"running, {number} of 40 parts are done")


def honest_variety(agent: Agent) -> None:
    for number in range(20):
        agent.call("lookup", json.dumps({"word": f"{number} {'abcdefghijklmnopqrst'[number] * 5}"}), f"text {number}")


def honest_chat(agent: Agent) -> None:
    for turn in range(100):
        agent.ask(f"answer {turn}")
        agent.messages += [{"role": "assistant", "content": f"answer {turn}"}, {"role": "user", "content": "go on"}]


def honest_same_program_again(agent: Agent) -> None:
    for _ in range(5):
        agent.messages = agent.messages[:1]
        for tool in ("list_files", "read_file", "run_tests"):
            agent.call(tool, "{}", f"what {tool} says, at some length and always alike")
        agent.ask("done")


def honest_samples(agent: Agent) -> None:
    for number in range(30):
        agent.ask(f"a guess {number}")


def honest_workers_with_tasks_of_their_own(agent: Agent) -> None:
    for number in range(8):
        agent.messages = [{"role": "user", "content": f"chapter {number}"}]
        agent.call("read_rules", "{}", "the rules of the house, for everybody")
    agent.ask("done")


@pytest.mark.parametrize(
    "work",
    [
        honest_poll,
        honest_variety,
        honest_chat,
        honest_same_program_again,
        honest_samples,
        honest_workers_with_tasks_of_their_own,
    ],
)
def test_an_honest_agent_is_left_alone(work: Any) -> None:
    agent = Agent()
    work(agent)
    assert levels(agent.said) == []


def test_the_same_program_many_times_at_once_is_left_alone() -> None:
    runs = []
    for _ in range(6):
        agent = Agent()
        for tool in ("list_files", "read_file"):
            agent.call(tool, "{}", f"what {tool} says, at some length and always alike")
        agent.ask("done")
        runs.append(agent.said)
    draw = random.Random(7)
    together = sorted((row for said in runs for row in said), key=lambda row: (row[4], draw.random()))
    assert levels(together) == []


def test_a_tool_that_the_mesh_calls_counts_there() -> None:
    outside, agent = OutsideRuns(), Agent()
    place = ("tool_executor", "demo", f"demo/{RUN}", "mesh.tool.call_requested", "doors", "t1", 1)
    outside.record_mesh_tool(JournalMessage(*place, {"call_id": "t1", "tool": "lookup"}))
    agent.call("mcp__mesh__lookup", "{}", "same")
    agent.call("grep", "{}", "same")
    agent.ask("done")
    asked = [(body, name, at) for sender, _, body, name, at in agent.said if sender == "doors"]
    acts = []
    for body, name, at in asked:
        message = JournalMessage(
            "model_gateway", "demo", f"demo/{RUN}", body.TYPE, "doors", name, at, body.model_dump()
        )
        acts += [act.action for act in outside.on_call_requested(message)]
    assert acts == ["grep"]


def asked_of_the_mesh(times: int, gap_ms: int, code: str) -> list[str]:
    """Levels of what is found when an agent asks a tool of the mesh for the same, and it fails."""
    agent = Agent(gap_ms=gap_ms)
    for number in range(times):
        ids: dict[str, Any] = {"call_id": f"t{number}", "step_id": "agent"}
        request = ToolCallRequested(**ids, attempt=1, tool="lookup", arguments_json="{}", deadline_unix_ms=1)
        agent._say("doors", "tool_executor", request)
        failure = Failure.from_text(code, "no replica can be used")
        agent._say("tool_executor", "doors", ToolCallReplied(**ids, outcome="failed", failure=failure))
    return levels(agent.said)


@pytest.mark.parametrize("code", sorted(PASSING))
def test_who_asks_early_again_for_a_call_that_was_not_made_waits_and_is_no_loop(code: str) -> None:
    assert asked_of_the_mesh(40, 1_500, code) == []
    assert asked_of_the_mesh(20, 10, code) == []
    assert asked_of_the_mesh(30, 10, code) == ["warn", "stop"], "but not for ever"


def test_who_asks_again_for_a_call_that_was_made_and_failed_is_a_loop() -> None:
    assert asked_of_the_mesh(4, 1_500, "tool_failed") == ["warn", "stop"]
