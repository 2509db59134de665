"""What a mark says of a task: all of its messages, also those that the journal has before the one that begins it."""

from bulkhead.bus.port import Stored
from bulkhead.health.thresholds import DEFAULT
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.task import TaskEnded, TaskLimits, TaskSubmitted
from bulkhead_contracts.tool import ToolCallReplied
from bulkhead_contracts.types import Body
from bulkhead_services.budget.watch.fold import Lived, Watching

REF = ContentRef(author="gateway", sha256="0" * 64, size_bytes=1)
BEGINS = TaskSubmitted(objective=REF, limits=TaskLimits(), submitted_unix_ms=1)
REPLY = ToolCallReplied(call_id="c1", step_id="s1", outcome="succeeded", content=REF)


def test_it_counts_what_came_before_the_task_began_and_forgets_it_with_the_task() -> None:
    watching = Watching(DEFAULT)

    def say(sequence: int, body: Body, way: str, task: str = "t1") -> None:
        headers = {"ce-type": body.ce_type(), "ce-id": f"m{sequence}"}
        watching.take(Stored(f"mesh.{way}.3.acme.{task}", headers, body.encode(), sequence, 1))

    say(4, REPLY, "tool_executor.worker")
    say(5, REPLY, "tool_executor.worker", "t2")
    say(6, REPLY, "tool_executor.worker")
    assert watching.mark().living == {}
    say(9, BEGINS, "gateway.planner")
    assert watching.mark().living == {"acme/t1": Lived(4, 3, 9)}
    say(12, REPLY, "tool_executor.worker")
    say(13, BEGINS, "gateway.planner", "t2")
    assert watching.mark().living == {"acme/t1": Lived(4, 4, 12), "acme/t2": Lived(5, 2, 13)}
    say(14, TaskEnded(status="succeeded"), "planner.gateway")
    assert list(watching.mark().living) == ["acme/t2"]
