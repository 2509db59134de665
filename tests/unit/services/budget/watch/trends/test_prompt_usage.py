"""A version of a prompt that uses half more than the one before is told once a day and tenant."""

from bulkhead.bus.port import StoredMessage
from bulkhead.health.thresholds import DEFAULT
from bulkhead.journal.prompt_usage import MIN_ACCEPTED
from bulkhead_contracts import subjects
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.result import Result, Usage
from bulkhead_contracts.task import TaskEnded
from bulkhead_contracts.types import Body
from bulkhead_contracts.verdict import VerdictReached
from bulkhead_services.budget.watch.fold import WatchFold
from tests.samples import sample

NOW, DAY_MS = 1_795_000_000_000, 24 * 3_600_000


class Fold:
    def __init__(self) -> None:
        self.watching, self.numbers = WatchFold(DEFAULT), 0

    def say(self, sender: str, receiver: str, task: str, body: Body, tenant: str, at: int) -> None:
        self.numbers += 1
        headers = {"ce-type": body.ce_type(), "ce-id": f"m{self.numbers}"}
        subject = subjects.mesh_subject(sender, receiver, tenant, task)
        self.watching.fold_message(StoredMessage(subject, headers, body.encode(), self.numbers, at))

    def task(self, prompt: str, tokens: int, tenant: str = "acme", at: int = NOW) -> None:
        name = f"t{self.numbers}"
        usage = Usage(input_tokens=tokens)
        reply = ModelCallReplied(call_id="c", step_id="a", outcome="answered", prompt_id=prompt, usage=usage)
        verdict = sample(VerdictReached, step_id="a", accepted=True, result=Result())
        self.say("model_gateway", "worker", name, reply, tenant, at)
        self.say("checker", "planner", name, verdict, tenant, at)
        self.say("planner", "gateway", name, TaskEnded(status="succeeded"), tenant, at)

    def told(self) -> list[tuple[str, str]]:
        due = self.watching.due.values()
        return [(finding.tenant, finding.agents[0]) for finding in due if finding.detector == "prompt_usage"]


def test_it_is_told_once_a_day_and_tenant() -> None:
    fold = Fold()
    for _ in range(MIN_ACCEPTED):
        fold.task("worker.step@r1", 100)
        fold.task("worker.step@r2", 150, tenant="else")
    for _ in range(MIN_ACCEPTED):
        assert fold.told() == []
        fold.task("worker.step@r2", 160)
    assert fold.told() == [("acme", "worker.step@r2")], "another tenant's version of the same number is another"
    fold.task("worker.step@r2", 160)
    assert len(fold.told()) == 1
    fold.task("worker.step@r2", 160, at=NOW + DAY_MS)
    assert len(fold.told()) == 2
