"""Evaluations as the registry keeps them: repeats, clocks, statements among many."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.evaluation.statement import load_key, make_key, sign_statement
from bulkhead.prompts.files import Prompts
from bulkhead.quotas.tenant_quotas import TenantQuotas
from bulkhead_contracts.approval import ApprovalGrant
from bulkhead_contracts.evaluation import (
    Evaluation,
    EvaluationPredicate,
    EvaluationReported,
    EvaluationRequested,
    EvaluationStatement,
)
from bulkhead_contracts.prompt import PromptContent, PromptPublishRequested, ReleaseChange, ReleaseMoveRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.registry.effects import PromptRegistry

CHANGES = (ReleaseChange(prompt="worker.step", number=1),)
HOUR_MS = 3_600_000


class Registry:
    """A registry on a bus in memory, whose clock the test moves."""

    def __init__(self, folder: Path) -> None:
        make_key(folder / "key.pem")
        self.key = load_key(folder / "key.pem")
        gate = f"{{sets: {{answers: null}}, keys: ['{self.key.public_key.keyval['public']}']}}"
        (folder / "tenants.yaml").write_text(f"tenants: {{demo: {{gates: {{production: {gate}}}}}}}")
        self.now_unix_ms, bus = 1_800_000_000_000, MemoryBus(MemoryBroker.for_mesh(), "registry")
        context: Any = SimpleNamespace(bus=bus, clock=lambda: self.now_unix_ms, message_key=b"k" * 32)
        self.edge = PromptRegistry(context, Prompts(), 600_000, TenantQuotas(folder / "tenants.yaml"), 200)

    def sign_word(self, act: Any, person: str) -> ApprovalGrant:
        word = {"kind": "prompt", "tenant": "demo", "task": act.act, "approval_id": act.act, "decision": "granted"}
        fields = {"arguments_sha256": act.act_sha256, "role": "prompt_editor", "via": "api_key", "reason": "go"}
        return ApprovalGrant(**word | fields, person=person, decided_unix_ms=self.now_unix_ms)

    async def publish(self) -> None:
        content = PromptContent(text="Answer.")
        act = PromptPublishRequested(act="p", prompt="worker.step", content=content, owner="o", note="n")
        await self.edge._store_version("demo", act, self.sign_word(act, "pia"))

    async def request(self, act: str, case_set: str = "answers") -> Evaluation:
        asked = EvaluationRequested(act=act, label="production", changes=CHANGES, case_set=case_set, reason="r")
        row = await self.edge._evaluations.store_request("demo", asked, self.sign_word(asked, "pia"))
        return row.evaluation

    async def report(self, evaluation: Evaluation, made_unix_ms: int) -> Any:
        rows = [{"name": f"prompts/{name}", "digest": {"sha256": sha}} for name, sha in evaluation.prompts.items()]
        counts = {"cases": 1, "runs": 1, "expected_runs": 1, "passed": 1, "made_unix_ms": made_unix_ms}
        facts = evaluation.model_dump(include={"tenant", "case_set", "release"}) | {"evaluation": evaluation.number}
        statement = EvaluationStatement(subject=rows, predicate=EvaluationPredicate(**facts | counts))
        eve = RequesterClaim(tenant="demo", person="eve", role="evaluator", via="api_key")
        envelope = sign_statement(statement, self.key)
        body = EvaluationReported(requester=eve, number=evaluation.number, envelope=envelope)
        message: Any = SimpleNamespace(body=body, tenant="demo")
        return await self.edge._evaluations.on_evaluation_reported(message)

    async def move(self) -> Any:
        act = ReleaseMoveRequested(act="m", label="production", after=0, changes=CHANGES, reason="go")
        return await self.edge._store_release("demo", act, self.sign_word(act, "max"))


@pytest.fixture
async def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path)
    await registry.publish()
    return registry


async def test_repeats_of_several_requests_make_nothing_new(registry):
    numbers = [(await registry.request(act)).number for act in ("a", "b", "a", "b")]
    assert numbers == [1, 2, 1, 2]


async def test_no_number_of_later_trials_hides_a_statement(registry):
    evaluation = await registry.request("a")
    assert (await registry.report(evaluation, registry.now_unix_ms)).failure is None
    for number in range(130):
        await registry.request(f"t{number}", case_set="")
    assert (await registry.move()).gate[0].startswith("answers#1@")


@pytest.mark.parametrize(
    ("ahead_ms", "is_kept"), [(-60_000, True), (60_000, True), (-HOUR_MS, False), (HOUR_MS, False)]
)
async def test_an_evaluators_clock_may_differ_by_minutes(registry, ahead_ms, is_kept):
    evaluation = await registry.request("a")
    reply = await registry.report(evaluation, registry.now_unix_ms + ahead_ms)
    assert (reply.failure is None) is is_kept and (is_kept or "clock" in reply.failure.hint)
