"""Evaluations over a real broker, under the rights that the policy renders: asked for, reported, and moved upon."""

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import PublishRefused
from bulkhead.client import Mesh, Refused
from bulkhead.evaluation.statement import load_key, make_key, sign_statement
from bulkhead_contracts import subjects
from bulkhead_contracts.evaluation import EvaluationPredicate, EvaluationStatement
from bulkhead_infra.local.supervisor import LocalMesh
from tests.e2e.fixtures.world import write_tenants

SERVICES = ("signer", "budget", "registry", "gateway")


def sign_result(evaluation: dict, key: Path, **changes) -> str:
    digests = {f"prompts/{name}": sha256 for name, sha256 in evaluation["prompts"].items()}
    rows = [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in digests.items()]
    fields = {"evaluation": evaluation["number"], "case_set": "answers", "release": evaluation["release"]}
    fields["tenant"] = evaluation["tenant"]
    counts = {"cases": 1, "runs": 1, "expected_runs": 1, "passed": 1, "made_unix_ms": time.time_ns() // 1_000_000}
    predicate = EvaluationPredicate(**fields | counts | changes)
    return sign_statement(EvaluationStatement(subject=rows, predicate=predicate), load_key(key))


async def refusal(work) -> str:
    with pytest.raises(Refused) as refused:
        await work
    return refused.value.code


@pytest.mark.slow
async def test_a_label_moves_on_a_statement_of_a_named_key_alone(tmp_path: Path) -> None:
    key, stranger = tmp_path / "key.pem", tmp_path / "stranger.pem"
    make_key(stranger)
    gate = {"sets": {"answers": None}, "keys": [make_key(key)]}
    tenants = write_tenants(tmp_path / "tenants.yaml", demo={"gates": {"production": gate}})
    async with LocalMesh(tmp_path / "mesh", services=SERVICES, durability="process", tenants=tenants) as mesh:
        keys = [mesh.add_api_key("demo", name, role) for name, role in (("pia", "prompt_editor"), ("eve", "evaluator"))]
        async with Mesh(mesh.url, keys[0]) as pia, Mesh(mesh.url, keys[1]) as eve:
            await pia.publish_prompt("worker.step", {"text": "Answer.", "variables": []}, "ours", "support")
            changes = [{"prompt": "worker.step", "number": 1}]
            assert (
                await refusal(pia.move_label("production", 0, "go", {"changes": changes})) == "gate_statement_missing"
            )
            assert await refusal(pia.move_label("trial", 0, "go", {"changes": changes})) == "reserved_label"
            request = ("production", changes, "try it")
            asked = await pia.request_evaluation(*request, case_set="answers", idempotency_key="k")
            assert asked == await pia.request_evaluation(*request, case_set="answers", idempotency_key="k")
            evaluation = asked["evaluation"]
            assert (evaluation["number"], evaluation["release"]) == (1, "trial.1")
            other = (await pia.request_evaluation(*request, case_set="answers"))["evaluation"]
            assert await refusal(eve.request_evaluation(*request)) == "forbidden"

            assert await refusal(eve.report_evaluation(1, sign_result(evaluation, stranger))) == "bad_statement"
            assert await refusal(eve.report_evaluation(1, sign_result(other, key))) == "other_evaluation"
            foreign = sign_result(evaluation, key, tenant="other")
            assert await refusal(eve.report_evaluation(1, foreign)) == "other_evaluation"
            assert await refusal(pia.report_evaluation(1, sign_result(evaluation, key))) == "forbidden"
            envelope = sign_result(evaluation, key)
            await eve.report_evaluation(1, envelope)
            assert (await eve.report_evaluation(1, envelope))["report"]["passed"] == 1
            assert await refusal(eve.report_evaluation(1, sign_result(evaluation, key, passed=0))) == "already_reported"
            document = await pia.evaluation(1)
            assert document["report"]["envelope"] == envelope and document["statement"]["predicate"]["passed"] == 1
            release = await pia.move_label("production", 0, "go", {"changes": changes, "percent": 10})
            assert release["gate"][0].startswith("answers#1@")
            assert [row["release"] for row in await listed(pia)] == ["trial.2", "trial.1"]
            # A key that is named no more makes nothing stand.
            write_tenants(tenants, demo={"gates": {"production": gate | {"keys": ["f" * 64]}}})
            assert (
                await refusal(pia.move_label("production", 1, "go", {"end_canary": "promote"}))
                == "gate_statement_missing"
            )
        bus = await JetStreamBus.connect(
            mesh.nats_url, service="gateway", nkey_seed=mesh.nkey_seed("gateway"), name="t"
        )
        with pytest.raises(PublishRefused):
            await bus.publish(subjects.evaluation_report_subject("demo", 2), json.dumps({}).encode(), {}, "forged")
        await bus.close()


@pytest.mark.slow
async def test_what_cannot_be_evaluated_is_reported_as_such(tmp_path: Path) -> None:
    gate = {"sets": {"answers": None}, "keys": [make_key(tmp_path / "key.pem")]}
    tenants = write_tenants(tmp_path / "tenants.yaml", demo={"gates": {"production": gate}})
    sets = tmp_path / "sets"
    sets.mkdir()
    row = {"name": "a", "input": "x", "checks": [{"python": "broken.py:check"}]}
    (sets / "answers.jsonl").write_text(json.dumps(row))
    (sets / "broken.py").write_text("def check(")
    async with LocalMesh(tmp_path / "mesh", services=SERVICES, durability="process", tenants=tenants) as mesh:
        keys = [mesh.add_api_key("demo", name, role) for name, role in (("pia", "prompt_editor"), ("eve", "evaluator"))]
        async with Mesh(mesh.url, keys[0]) as pia:
            changes = [{"prompt": "worker.step", "number": 0}]
            for case_set in ("answers", *[""] * 21):
                await pia.request_evaluation("production", changes, "try it", case_set=case_set)
            options = ["--sets", str(sets), "--key", str(tmp_path / "key.pem"), "--once", "--data", str(tmp_path)]
            command = [sys.executable, "-m", "bulkhead_cli.main", "eval", "serve", *options]
            process = await asyncio.create_subprocess_exec(*command, "--url", mesh.url, "--api-key", keys[1])
            assert await process.wait() == 0
            predicate = (await pia.evaluation(1))["statement"]["predicate"]
    assert predicate["runs"] == 0 and "could not be evaluated" in predicate["problems"][0]


async def listed(mesh: Mesh) -> list[dict]:
    return [row["evaluation"] for row in (await mesh.evaluations())["evaluations"]]
