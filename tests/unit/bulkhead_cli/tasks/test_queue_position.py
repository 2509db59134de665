"""What people read of a task that waits for a place."""

from bulkhead.client import TaskEvent
from bulkhead_cli.tasks import answer
from bulkhead_cli.tasks.follow import TaskProgress

QUEUED = {
    "request": 7,
    "person": "ada",
    "ahead": 212,
    "full": "tenant",
    "running": 64,
    "limit": 64,
    "until_unix_ms": 5,
    "task_id": "t",
    "time_unix_ms": 1_000,
}


def test_why_it_does_not_begin_yet():
    assert answer.queue_line(QUEUED) == ("waits to run, behind 212 others: 64 of 64 tasks of your tenant are running")
    assert answer.queue_line(QUEUED | {"ahead": 1, "full": "mesh", "running": 256, "limit": 256}) == (
        "waits to run, behind 1 other: 256 of 256 tasks of the whole mesh are running"
    )
    assert answer.queue_line(QUEUED | {"ahead": 0}).startswith("waits to run: 64")


def test_a_watcher_sees_it_wait_and_begin():
    progress = TaskProgress()
    said = [
        str(line)
        for name in ("task.queued", "task.released")
        for line in progress.render_event(TaskEvent(name, QUEUED, ""))
    ]
    assert "behind 212 others" in said[0] and "it is its turn" in said[1]
