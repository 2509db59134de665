"""What steps say to each other, as the journal has it: a triangle that only talks is stopped, who works is not."""

import itertools

import pytest

from bulkhead.health.deadlock.evidence import SuspectedDeadlock
from bulkhead.health.findings import HealthFinding
from bulkhead.health.sources.journal import JournalReader
from bulkhead.health.thresholds import DEFAULT
from bulkhead.health.watch import Watch
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.plan import PlanStep
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.retrieval import RetrievalReplied, RetrievalRequested
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested

REF = ContentRef(author="gateway", sha256="0" * 64, size_bytes=1)
WORDS = ("harbour", "tariff", "crane", "ledger", "pilot", "storm", "anchor", "cargo", "winch", "berth", "tide", "rope")


class Talk:
    """A task of five steps, its journal and its watch, which may be that of other tasks, too."""

    def __init__(self, task: str = "t1", watch: Watch | None = None, tenant: str = "acme", actor: str = "ada") -> None:
        self.journal, self.watch, self.numbers = JournalReader(), watch or Watch(DEFAULT), itertools.count(1)
        self.task, self.tenant, self.actor = task, tenant, actor
        for name in "abcde":
            step = PlanStep(id=name, title="t", instruction="i")
            self.say(
                StepAssigned(step=step, attempt=2, plan_version=1, objective=REF, deadline_unix_ms=1),
                "planner",
                "worker",
            )

    def say(self, body: object, sender: str = "worker", to: str = "planner") -> list[HealthFinding]:
        number = next(self.numbers)
        headers = {"ce-type": body.ce_type(), "ce-id": f"{self.task}-m{number}", "ce-actor": self.actor}  # type: ignore[attr-defined]
        subject = f"mesh.{sender}.{to}.1.{self.tenant}.{self.task}.-"
        events = self.journal.read(subject, headers, body.encode(), number * 700)  # type: ignore[attr-defined]
        found = [
            trip for event in events for trip in self.watch.fold_event(event) if not isinstance(trip, SuspectedDeadlock)
        ]
        return found + self.watch.pass_time(number * 700)

    def ask(self, by: str, *targets: str, question: str = "") -> list[HealthFinding]:
        """And as the planner hands it on."""
        name = f"ask{next(self.numbers)}"
        body = AnswerRequested(
            ask_id=name, step_id=by, attempt=2, plan_version=1, targets=targets, question=question, deadline_unix_ms=1
        )
        found = self.say(body) + self.say(body, "planner", "worker")
        for target in targets:
            answer = AnswerGiven(ask_id=name, step_id=by, target=target, outcome="answered", text=self.words())
            found += self.say(answer) + self.say(answer, "planner", "worker")
        return found

    def words(self) -> str:
        number = next(self.numbers)
        return " ".join(WORDS[(number * step + step) % len(WORDS)] + str(number) for step in range(1, 9))

    def work(self, by: str) -> list[HealthFinding]:
        name = f"call{next(self.numbers)}"
        asked = ToolCallRequested(
            call_id=name, step_id=by, attempt=2, tool="look", arguments_json=f'{{"q":"{name}"}}', deadline_unix_ms=1
        )
        content = ContentRef(author="tool_executor", sha256=f"{next(self.numbers):064x}", size_bytes=1)
        said = ToolCallReplied(call_id=name, step_id=by, outcome="succeeded", content=content)
        return self.say(asked, to="tool_executor") + self.say(said, "tool_executor", "worker")


def test_a_triangle_that_only_talks_is_warned_of_and_then_stopped() -> None:
    talk, trips = Talk(), []
    for _ in range(12):
        for by, to in (("a", "b"), ("b", "c"), ("c", "a")):
            trips += talk.ask(by, to, question=talk.words())
    levels = [trip.level for trip in trips if trip.detector == "chatter.group"]
    assert levels[0] == "warn" and "stop" in levels
    (stop,) = [trip for trip in trips if trip.detector == "chatter.group" and trip.level == "stop"]
    assert stop.agents == ("a/2", "b/2", "c/2") and len(stop.evidence) > 20


def test_steps_that_ask_each_other_between_their_work_are_left_alone() -> None:
    talk, trips = Talk(), []
    for _ in range(12):
        for by, to in (("a", "b"), ("b", "c"), ("c", "a")):
            trips += talk.ask(by, to, question=talk.words()) + talk.work(by) + talk.work(to)
    assert [trip for trip in trips if trip.detector.startswith("chatter") or trip.level == "stop"] == []


def test_one_question_to_four_siblings_and_four_results_wanted_are_no_loop() -> None:
    talk = Talk()
    trips = talk.ask("a", "b", "c", "d", "e", question="Which berth is free?")
    trips += talk.ask("a", "b", "c", "d", "e")
    assert [trip for trip in trips if trip.level == "stop"] == []


def test_the_same_question_again_and_again_is_a_loop() -> None:
    talk, trips = Talk(), []
    for _ in range(8):
        body = AnswerRequested(
            ask_id=f"ask{next(talk.numbers)}",
            step_id="a",
            attempt=2,
            plan_version=1,
            targets=("b",),
            question="Which berth is free?",
            deadline_unix_ms=1,
        )
        trips += talk.say(body)
    assert any(trip.detector.startswith("loop") for trip in trips)


def put(talk: Talk, by: str, *targets: str) -> list[HealthFinding]:
    """A question that nobody answers."""
    return talk.say(
        AnswerRequested(
            ask_id=f"ask{next(talk.numbers)}",
            step_id=by,
            attempt=2,
            plan_version=1,
            targets=targets,
            question=talk.words(),
            deadline_unix_ms=1,
        )
    )


@pytest.mark.parametrize("answered", [False, True])
def test_a_triangle_that_always_asks_two_at_once_is_stopped(answered: bool) -> None:
    talk, trips = Talk(), []
    for _ in range(24):
        for by, to in (("a", "bc"), ("b", "ac"), ("c", "ab")):
            trips += talk.ask(by, *to, question=talk.words()) if answered else put(talk, by, *to)
    found = [trip for trip in trips if trip.detector == "chatter.group"]
    assert [trip.level for trip in found] == ["warn", "stop"]
    assert {trip.agents for trip in found} == {("a/2", "b/2", "c/2")}
    assert len(set(found[-1].evidence)) == len(found[-1].evidence) >= DEFAULT.chatter.group_stop_messages


def test_what_is_put_to_many_is_one_message_and_their_answers_are_one() -> None:
    talk, trips = Talk(), []
    for _ in range(6):
        trips += talk.ask("a", "b", "c", "d", "e", question=talk.words())
    assert [trip for trip in trips if trip.detector.startswith("chatter") or trip.level == "stop"] == []


def test_who_hands_out_work_to_many_and_collects_it_is_left_alone() -> None:
    talk, trips = Talk(), []
    for _ in range(12):
        trips += put(talk, "a", "b", "c", "d", "e")
        for name in "bcde":
            trips += talk.work(name)
            trips += talk.say(
                AnswerGiven(
                    ask_id=f"ask{next(talk.numbers)}", step_id="a", target=name, outcome="answered", text=talk.words()
                )
            )
        trips += talk.work("a")
    assert [trip for trip in trips if trip.detector.startswith("chatter") or trip.level == "stop"] == []


@pytest.mark.parametrize("asked_ahead", [True, False])
def test_a_query_that_is_embedded_ahead_is_no_act_of_its_step(asked_ahead: bool) -> None:
    """A step that searches for the same eight times is in a loop; what was asked before it began says nothing of it."""
    talk, found = Talk(), []
    for number in range(8):
        call = {"call_id": f"c{number}", "step_id": "a", "asked_ahead": asked_ahead}
        found += talk.say(RetrievalRequested(**call, attempt=2, query="fees", deadline_unix_ms=1), "worker", "rag")
        found += talk.say(RetrievalReplied(**call, outcome="found"), "rag", "worker")
    assert bool(found) is not asked_ahead
