"""Whatever lies in the journal, the watcher's fold goes on, and a mark says all of a task."""

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead.health.thresholds import DEFAULT
from bulkhead_contracts import catalog
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.task import TaskEnded, TaskLimits, TaskSubmitted
from bulkhead_contracts.tool import ToolCallReplied
from bulkhead_contracts.types import Body
from bulkhead_services.budget.watch.fold import TaskSpan, WatchFold
from tests.paths import EXAMPLES

SAMPLES = {path.name.removesuffix(".json"): json.loads(path.read_text()) for path in EXAMPLES.glob("*.json")}
SENDERS = ("planner", "worker", "budget", "gateway", "tool_executor", "model_gateway", "operator")
STRANGE = (
    None,
    0,
    -1,
    10**30,
    10**400,
    float("inf"),
    float("nan"),
    1e308,
    "",
    "x" * 300,
    [],
    {},
    [[]],
    True,
    "\u0000",
    1.5,
)
UNREADABLE = (b"", b"{", b"\xff", b"null", b"[" * 50)
SUBJECTS = ("mesh.{by}.worker.7.acme.t{task}.-", "mesh.{by}.worker.t{task}", "mesh.{by}.worker.x.acme.t{task}.-.more")
"""Beside the right one; the shortest that an inbox takes is of four tokens."""
MESSAGES = 4_000


def spoiled(draw: random.Random, value: Any) -> Any:
    """A value in which something is missing, or something else."""
    if isinstance(value, dict) and value and draw.random() < 0.8:
        name = draw.choice(list(value))
        rest = {key: one for key, one in value.items() if key != name}
        return rest if draw.random() < 0.2 else rest | {name: spoiled(draw, value[name])}
    if isinstance(value, list) and value and draw.random() < 0.7:
        place = draw.randrange(len(value))
        return [*value[:place], spoiled(draw, value[place]), *value[place + 1 :]]
    return draw.choice(STRANGE)


def hostile(draw: random.Random, sequence: int) -> StoredMessage:
    kind, body = draw.choice(list(SAMPLES.items()))
    for _ in range(draw.randrange(3)):
        body = spoiled(draw, body)
    raw = draw.choice(UNREADABLE) if draw.random() < 0.1 else json.dumps(body).encode()
    # Mostly of who may say it there: what others say is not looked at.
    by, to = draw.choice(catalog.BY_TYPE[kind.rpartition(".v")[0]].edges)
    by, subject = "pub_x" if by == catalog.PUBLISHER else by, f"mesh.{{by}}.{to}.0.acme.t{{task}}.-"
    if draw.random() < 0.2:
        by, subject = draw.choice(SENDERS), draw.choice(SUBJECTS)
    headers: Mapping[str, str] = {} if draw.random() < 0.02 else {"ce-type": kind, "ce-id": f"i{sequence}"}
    return StoredMessage(
        subject.format(by=by, task=draw.randrange(5)), headers, raw, sequence, 1_790_000_000_000 + sequence
    )


@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_anybody_says_ends_the_fold(seed: int) -> None:
    draw, fold = random.Random(seed), WatchFold(DEFAULT)
    for sequence in range(1, MESSAGES + 1):
        fold.fold_message(hostile(draw, sequence))
    assert fold.folded == MESSAGES
    assert fold.notices.due_notices(1_790_000_000_000), "examples as they are lay among them, and were understood"


REF = ContentRef(author="gateway", sha256="0" * 64, size_bytes=1)
BEGINS = TaskSubmitted(objective=REF, limits=TaskLimits(), submitted_unix_ms=1)
REPLY = ToolCallReplied(call_id="c1", step_id="s1", outcome="succeeded", content=REF)


def test_it_counts_what_came_before_the_task_began_and_forgets_it_with_the_task() -> None:
    watching = WatchFold(DEFAULT)

    def say(sequence: int, body: Body, way: str, task: str = "t1") -> None:
        headers = {"ce-type": body.ce_type(), "ce-id": f"m{sequence}"}
        watching.fold_message(StoredMessage(f"mesh.{way}.3.acme.{task}.-", headers, body.encode(), sequence, 1))

    say(4, REPLY, "tool_executor.worker")
    say(5, REPLY, "tool_executor.worker", "t2")
    say(6, REPLY, "tool_executor.worker")
    assert watching.make_mark().living == {}
    say(9, BEGINS, "gateway.planner")
    assert watching.make_mark().living == {"acme/t1": TaskSpan(4, 3, 9)}
    say(12, REPLY, "tool_executor.worker")
    say(13, BEGINS, "gateway.planner", "t2")
    assert watching.make_mark().living == {"acme/t1": TaskSpan(4, 4, 12), "acme/t2": TaskSpan(5, 2, 13)}
    say(14, TaskEnded(status="succeeded"), "planner.gateway")
    assert list(watching.make_mark().living) == ["acme/t2"]
