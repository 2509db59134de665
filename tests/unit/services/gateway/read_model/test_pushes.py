"""Push notifications of one task: one post at a time for each receiver, in order, and never one too many."""

from typing import Any

from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import bounds
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.push import PushConfigDeleted, PushConfigSet, PushEnded
from bulkhead_contracts.task import TaskAccepted, TaskEnded, TaskPaused, TaskRequested
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.read_model.pushes import PushPost, PushStop, TaskPushes
from bulkhead_services.gateway.read_model.task_view import TaskView, fold_message

NOON = 1_795_262_400_000
ACCEPTED, DONE = TaskAccepted(deadline_unix_ms=NOON), TaskEnded(status="succeeded")


class Task:
    """A task's messages, one after the other."""

    def __init__(self) -> None:
        self.view, self.pushes, self.sequence = TaskView(), TaskPushes(), 0
        self.say(TaskRequested(objective="x"))

    def say(self, body: Body) -> list[tuple[Any, ...]]:
        """What a message makes due."""
        self.sequence += 1
        head = Envelope("e" * 32, body.ce_type(), "gateway", NOON)
        message = ReceivedMessage(head, body, "acme", "t1", "gateway", self.sequence, NOON, 1)
        before, self.view = self.view, fold_message(self.view, message)
        self.pushes.apply_message(message, before, self.view)
        return [shown(one) for one in self.pushes.due_at(self.sequence)]

    def set(self, name: str = "a", url: str = "https://x.example/") -> list[tuple[Any, ...]]:
        return self.say(PushConfigSet(config_id=name, url=url, person="ann"))

    def ended(self, setting: int, update: int, outcome: Any = "delivered", name: str = "a") -> list[tuple[Any, ...]]:
        return self.say(PushEnded(config_id=name, setting=setting, update=update, outcome=outcome, reason="why"))


def shown(due: PushPost | PushStop) -> tuple[Any, ...]:
    if isinstance(due, PushStop):
        return ("stop", due.config_id, due.setting)
    return (due.config.body.config_id, due.config.setting, due.update.sequence, due.update.status)


def test_the_next_post_is_due_when_the_one_before_has_ended_and_not_before():
    task = Task()
    assert task.set() == [("a", 2, 2, "requested")], "how it stands is told at once"
    assert task.say(ACCEPTED) == [] and task.say(DONE) == [] and task.pushes.count_waiting("a") == 3
    assert task.ended(2, 2) == [("a", 2, 3, "running")]
    assert task.ended(2, 2) == [], "told twice"
    assert task.ended(2, 3) == [("a", 2, 4, "succeeded")]
    assert task.ended(2, 4) == [] and task.pushes.count_waiting("a") == 0
    assert task.pushes.due_at(2) and task.pushes.due_at(7), "whoever handles a message again finds the same"


def test_a_receiver_that_has_all_is_told_the_next_state_by_its_message_and_the_same_state_once():
    task = Task()
    task.set()
    task.ended(2, 2)
    assert task.say(ACCEPTED) == [("a", 2, 4, "running")]
    assert task.say(ACCEPTED) == [] and task.pushes.count_waiting("a") == 1
    task.ended(2, 4)
    held = TaskPaused(code="halted", reason="look at it first")
    assert task.say(held) == [("a", 2, 7, "paused")]


def test_each_receiver_goes_on_by_itself_and_one_that_was_given_up_is_told_nothing_more():
    task = Task()
    task.set("a")
    task.set("b")
    assert task.ended(2, 2, "given_up") == [] and task.pushes.given_up == {"a": "why"}
    task.ended(3, 3, name="b")
    assert task.say(DONE) == [("b", 3, 6, "succeeded")]
    assert task.set("a") == [("stop", "a", 2), ("a", 7, 7, "succeeded")], "set anew, it begins anew"
    assert not task.pushes.given_up


def test_what_is_deleted_or_set_anew_is_stopped_and_its_late_end_counts_for_nothing():
    task = Task()
    task.set()
    assert task.say(PushConfigDeleted(config_id="a")) == [("stop", "a", 2)]
    assert task.say(PushConfigDeleted(config_id="a")) == [] and task.say(ACCEPTED) == []
    assert task.ended(2, 2) == []
    assert task.set() == [("a", 7, 7, "running")]
    assert task.ended(2, 2) == [] and task.pushes.count_waiting("a") == 1


def test_configs_settings_and_waiting_posts_have_bounds():
    task = Task()
    for number in range(bounds.MAX_PUSH_CONFIGS + 1):
        task.set(f"c{number}")
    assert len(task.pushes.configs) == bounds.MAX_PUSH_CONFIGS
    for number in range(bounds.MAX_PUSH_SETTINGS):
        task.set("c0", f"https://x.example/{number}")
    assert task.pushes.settings == bounds.MAX_PUSH_SETTINGS
    for number in range(2 * bounds.MAX_PUSH_WAITING):
        task.say(TaskPaused(code="halted", reason=f"r{number}"))
    task.say(DONE)
    assert task.pushes.count_waiting("c1") == bounds.MAX_PUSH_WAITING
    setting, update = task.pushes.configs["c1"].setting, task.pushes.configs["c1"].setting
    told = []
    while found := task.ended(setting, update, name="c1"):
        [(_, _, update, status)] = found
        told.append(status)
    assert told[-1] == "succeeded", "the newest is never left out"
