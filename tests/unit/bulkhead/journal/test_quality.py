"""Quality, cost and latency out of messages: each attempt counts once, for the model that wrote its answer."""

import random

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.journal import quality
from bulkhead.journal.quality import QualityReport
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanStep
from bulkhead_contracts.result import ContentRef, Label, Result, Usage
from bulkhead_contracts.retrieval import RetrievalReplied
from bulkhead_contracts.session import SessionSummary, TurnTaken
from bulkhead_contracts.step import StepFinished
from bulkhead_contracts.task import TaskEnded, TaskLimits, TaskRequested
from bulkhead_contracts.types import Body
from bulkhead_contracts.verdict import VerdictReached

NOW, SHA = 1_795_231_204_272, "a" * 64
CHEAP, DEAR = "x/cheap", "x/dear"


def result(model: str) -> Result:
    """As the worker proposes it, with the model gateway's label beside one of a passage."""
    labels = [Label(sha256="b" * 64, kind="passage", source="d.md", observed_by="rag")]
    labels += [Label(sha256=SHA, kind="model_reply", source=model, observed_by="model_gateway")]
    return Result(content=ContentRef(author="model_gateway", sha256=SHA, size_bytes=1), provenance=tuple(labels))


def verdict(model: str, attempt: int, accepted: bool, cost: int, score: float | None = None) -> VerdictReached:
    usage = Usage(cost_usd_micros=cost)
    said = {"step_id": "s", "attempt": attempt, "plan_version": 1, "accepted": accepted}
    return VerdictReached(**said, score=score, result=result(model), usage=usage)


def message(task: str, body: Body, at: int = NOW) -> ReceivedMessage:
    return ReceivedMessage(None, body, "demo", task, "x", 1, at, receiver="y")  # type: ignore[arg-type]


def request(feature: str) -> TaskRequested:
    return TaskRequested(objective="o", limits=TaskLimits(), feature=feature)


def fold(messages: list[ReceivedMessage]) -> QualityReport:
    """In any order, and half of it twice."""
    chance, found = random.Random(7), QualityReport()
    messages = messages + chance.sample(messages, len(messages) // 2)
    chance.shuffle(messages)
    for one in messages:
        found.fold_message(one)
    return found


def test_a_cheap_model_whose_accepted_answers_are_dear_does_not_pay() -> None:
    messages = [message("t", request("f"))]
    messages += [message("t", verdict(CHEAP, n, n == 0, cost=100, score=0.5)) for n in range(10)]
    messages += [message("t", verdict(DEAR, 10 + n, n > 0, cost=300, score=0.9)) for n in range(6)]
    failed = StepFinished(step_id="s", attempt=99, plan_version=1, result=Result(), usage=Usage(cost_usd_micros=7))
    found = fold([*messages, message("t", failed), message("other", verdict(DEAR, 1, False, cost=9))]).as_json({})
    rows = {row["model"]: row for row in found["models"]}
    assert list(rows) == [CHEAP, DEAR, quality.NO_ANSWER]
    figures = ("answers", "accepted_share", "score", "answers_usd_micros", "per_accepted_usd_micros")
    assert [rows[CHEAP][name] for name in figures] == [10, 0.1, 0.5, 1_000, 1_000]
    assert [rows[DEAR][name] for name in figures] == [6, 0.8333, 0.9, 1_800, 360]
    assert rows[quality.NO_ANSWER]["answers_usd_micros"] == 7
    ((told),) = found["does_not_pay"]
    assert (told["model"], told["dearer"]) == (CHEAP, DEAR)
    assert "an answer costs $0.0001 and an accepted one costs $0.001 (1 of 10 accepted)" in told["what"]


def test_a_cheap_model_that_pays_and_one_that_said_little_are_not_named() -> None:
    messages = [message("t", request("f"))]
    messages += [message("t", verdict(CHEAP, n, n > 2, cost=100)) for n in range(6)]
    messages += [message("t", verdict(DEAR, 10 + n, True, cost=300)) for n in range(6)]
    messages += [message("t", verdict("x/new", 20 + n, False, cost=1)) for n in range(quality.MIN_ANSWERS - 1)]
    assert fold(messages).as_json({})["does_not_pay"] == []


def test_latency_of_a_feature_stands_beside_its_cost_and_its_target() -> None:
    messages = []
    for number in range(20):
        took, usage = 1_000 * (number + 1), Usage(cost_usd_micros=50, estimated_usd_micros=5)
        status = "failed" if number == 0 else "succeeded"
        end = TaskEnded(status=status, usage=usage)
        messages += [message(f"t{number}", request("search")), message(f"t{number}", end, NOW + took)]
    slow = TaskEnded(status="cancelled", usage=Usage(cost_usd_micros=1))
    messages += [message("c", request("search")), message("c", slow, NOW + 10**6), message("old", slow)]
    messages += [message("t3", verdict(CHEAP, 1, True, cost=9, score=1.0))]
    found = fold(messages).as_json({"search": 18_000, "never": 5})
    row, never = found["features"]
    assert (row["tasks"], row["succeeded"], row["p50_ms"], row["p95_ms"]) == (21, 19, 10_000, 19_000)
    assert (row["target_ms"], row["missed"]) == (18_000, True)
    assert (row["cost_usd_micros"], row["estimated_usd_micros"], row["per_task_usd_micros"]) == (1_001, 100, 48)
    assert (row["accepted"], row["score"]) == (1, 1.0)
    assert (never["feature"], never["p95_ms"], never["missed"]) == ("never", None, None)
    assert fold(messages).as_json({"search": 19_000})["features"][0]["missed"] is False


async def test_it_is_read_from_the_inboxes_since_a_time_and_of_a_tenant() -> None:
    broker = MemoryBroker.for_mesh()

    async def say(sender: str, to: str, task: str, body: Body, tenant: str = "demo") -> None:
        publisher = Publisher(sender, MemoryBus(broker, sender), b"k", broker.clock.now_ms)
        await publisher.send(to, body, tenant=tenant, task=task, cause="c", index=body.TYPE)

    for tenant in ("demo", "else"):
        await say("gateway", "gateway", "t", request("f"), tenant)
        await say("checker", "planner", "t", verdict(CHEAP, 1, True, cost=9), tenant)
        await say("planner", "gateway", "t", TaskEnded(status="succeeded"), tenant)
    bus, now = MemoryBus(broker, "operator"), broker.clock.now_ms()
    for since, tenant, tasks in ((now - 60_000, "*", 2), (now - 60_000, "demo", 1), (now + 60_000, "*", 0)):
        found = await quality.read_quality(bus, since, tenant)
        assert (sum(row.tasks for row in found.figures_by_feature().values()), len(found.attempts)) == (tasks, tasks)


def test_second_attempts_are_told_by_what_they_keep() -> None:
    step = PlanStep(id="s", title="", instruction="Do it.", retry="fresh")
    found = fold(
        [
            *(message(task, request("f")) for task in ("t1", "t2")),
            message("t1", PlanAdopted(plan=Plan(steps=(step,)))),
            *(message("t1", verdict(CHEAP, attempt, attempt == 3, 10 * attempt)) for attempt in (1, 2, 3)),
            message("t2", verdict(CHEAP, 1, False, 5)),
            message("t2", verdict(CHEAP, 2, True, 7)),
        ]
    )
    figures = ("retry", "answers", "accepted", "answers_usd_micros")
    rows = [tuple(row[name] for name in figures) for row in found.as_json({})["retries"]]
    assert rows == [("fresh", 2, 1, 50), ("with_feedback", 1, 1, 7)]


def test_what_was_asked_ahead_is_told_with_what_of_it_was_wasted() -> None:
    def reply(step: str, **changes: object) -> RetrievalReplied:
        usage = Usage(cost_usd_micros=7)
        return RetrievalReplied(call_id=step, step_id=step, outcome="found", usage=usage, **changes)  # type: ignore[arg-type]

    steps = {"t1": ("used", "wasted"), "t2": ("used",), "runs": ("wasted",)}
    messages = [message(task, reply(step, asked_ahead=True)) for task, names in steps.items() for step in names]
    messages += [message(task, reply("used", saved_ms=saved)) for task, saved in (("t1", 300), ("t2", 0))]
    messages += [message("t1", reply("plain"))]
    messages += [message(task, request("f")) for task in steps]
    messages += [message(task, TaskEnded(status="succeeded")) for task in ("t1", "t2", "old")]
    assert fold(messages).as_json({})["ahead"] == {
        "asked": 3,
        "used": 2,
        "wasted": 1,
        "cost_usd_micros": 21,
        "wasted_usd_micros": 7,
        "saved_ms": 300,
    }


def turn(number: int, memory_tokens: int, whole_tokens: int, summary: SessionSummary | None = None) -> TurnTaken:
    fields = {"number": number, "task": f"t{number}", "text": "x", "person": "ann", "taken_unix_ms": NOW}
    return TurnTaken(**fields, memory_tokens=memory_tokens, whole_tokens=whole_tokens, summary=summary)


def test_conversations_show_their_first_turn_beside_the_last_and_what_summaries_cost_and_saved() -> None:
    made = SessionSummary(task="sum", through=2, tokens=300, cost_usd_micros=30)
    turns = [turn(1, 0, 0), turn(2, 50, 50, SessionSummary(task="v", through=1, tokens=5, used=False))]
    turns += [turn(3, 40, 100, made), turn(4, 1, 900)]
    messages = [message("s", body) for body in turns]
    for number in (1, 2, 3):
        usage = Usage(input_tokens=10 * number, output_tokens=1, cost_usd_micros=number, model_calls=2)
        messages += [message(f"t{number}", request("chat"))]
        messages += [message(f"t{number}", TaskEnded(status="succeeded", usage=usage))]
    [row] = fold([*messages, message("t4", request("chat"))]).as_json({})["sessions"]
    assert row == {
        "feature": "chat",
        "sessions": 1,
        "turns": 3,
        "first_turn": {"tokens": 11, "cost_usd_micros": 1},
        "last_turn": {"tokens": 31, "cost_usd_micros": 3},
        "summaries": {"made": 1, "in_vain": 1, "tokens": 305, "cost_usd_micros": 30, "saved_tokens": 120},
    }, "two model calls read each turn's memory; turn 4 goes on"
