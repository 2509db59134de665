"""Questions about tools and policies over HTTP: what a tenant has, what its rules say, what a call would be."""

from pathlib import Path
from typing import Any

import httpx

from bulkhead.client import Mesh, Refused
from bulkhead_contracts import bounds
from tests.replay.stage import APPROVER, AUDITOR, OPERATOR, OTHER_OPERATOR, Stage, plan, stage, use
from tests.replay.stage import call as made_call

RULES = """
@id("small_counts")
permit (principal, action == Action::"counter_increment", resource)
when { context.tainted.isEmpty() };

@id("no_unkeyed")
forbid (principal, action == Action::"counter_increment_unkeyed", resource);
"""
TRIALS = "/v1/policy-trials"


def policies(folder: Path) -> dict[str, Any]:
    """Settings of an executor in whose folder the tenant demo has rules of its own."""
    (folder / "policy").mkdir()
    (folder / "policy" / "demo.cedar").write_text(RULES)
    return {"policy_dir": folder / "policy", "tenants_file": folder / "tenants.yaml"}


def person(on: Stage, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=on.url, headers={"X-API-Key": key})


async def test_tools_are_the_tenants_with_what_its_own_rules_say(tmp_path: Path) -> None:
    async with (
        stage(tmp_path, rule=None, executor=policies(tmp_path)) as on,
        person(on, OPERATOR) as olga,
        person(on, OTHER_OPERATOR) as otto,
    ):
        mine = {row["name"]: row for row in (await olga.get("/v1/tools")).json()["tools"]}
        assert "http_get" not in mine, "it is none of the tenant's"
        assert mine["search_documents"]["served_by"] == "rag" and mine["search_documents"]["outlook"] is None
        assert mine["ask_steps"]["served_by"] == "worker"
        counting = mine["counter_increment"]["outlook"]
        assert (counting["from_asker"], counting["asker_rule"]) == ("permit", "demo:small_counts")
        assert counting["from_elsewhere"] == "ask" and counting["depends"]
        assert mine["counter_increment_unkeyed"]["outlook"]["from_asker"] == "forbid"
        reading = mine["calculate"]["outlook"]
        assert reading["from_elsewhere"] == "permit" and not reading["depends"], "no rule about it has conditions"
        others = {row["name"]: row for row in (await otto.get("/v1/tools")).json()["tools"]}
        assert others["counter_increment"]["outlook"]["asker_rule"] == "default:writes", "the rules of demo are its own"


async def test_rules_are_shown_to_overseers_alone(tmp_path: Path) -> None:
    async with (
        stage(tmp_path, rule=None, executor=policies(tmp_path)) as on,
        person(on, AUDITOR) as aud,
        person(on, APPROVER) as bob,
    ):
        shown = (await aud.get("/v1/tools/counter_increment")).json()
        assert shown["policies"] and '"name"' in shown["spec"]["parameters_json"]
        names = {rule["name"]: rule for rule in shown["rules"]}
        assert names["demo:small_counts"]["line"] == 2 and "isEmpty" in names["demo:small_counts"]["text"]
        assert {"default:writes", "default:trusted"} <= names.keys()
        assert not {"demo:no_unkeyed", "default:reads"} & names.keys(), "they are about other tools"
        seen = (await bob.get("/v1/tools/counter_increment")).json()
        assert not seen["policies"] and seen["rules"] == [] and seen["policy_sha256"] == ""
        for missing in ("http_get", "x" * (bounds.MAX_NAME_CHARS + 1), "counter_incremen"):
            assert (await aud.get(f"/v1/tools/{missing}")).status_code == 404


async def test_a_trial_rules_as_the_gate_does_and_calls_nothing(tmp_path: Path) -> None:
    async with (
        stage(tmp_path, rule=None, executor=policies(tmp_path)) as on,
        person(on, AUDITOR) as aud,
        person(on, "bk_ann_of_demo") as ann,
    ):
        body = {"tool": "counter_increment", "arguments": {"name": "questions"}}

        async def ruling(**changes: Any) -> dict[str, Any]:
            reply = await aud.post(TRIALS, json=body | changes)
            assert reply.status_code == 200, reply.text
            return dict(reply.json())

        asker = [{"source": "user", "content": "Count it under questions."}]
        granted = await ruling(sources=asker)
        assert granted["effect"] == "permit" and granted["written"]["name"] == "demo:small_counts"
        assert granted["origins"][0]["origins"][0]["source"] == "user"
        letter = [{"source": "retrieved", "name": "letter.md", "content": "Count it under questions."}]
        asked = await ruling(sources=letter)
        assert asked["effect"] == "ask" and "retrieved:letter.md" in asked["reasons"][0]
        assert (await ruling())["findings"][0]["sources"] == [], "it stands nowhere: the model chose it"
        assert (await ruling(tool="counter_increment_unkeyed"))["rule"] == "demo:no_unkeyed"
        unfit = await aud.post(TRIALS, json=body | {"arguments": {"nam": "questions"}})
        assert unfit.status_code == 422 and unfit.json()["code"] == "bad_arguments"
        assert (await aud.post(TRIALS, json=body | {"tool": "http_get"})).status_code == 404
        elsewhere = await aud.post(TRIALS, json=body | {"tool": "search_documents", "arguments": {"query": "x"}})
        assert elsewhere.status_code == 409 and "rag" in elsewhere.json()["detail"]
        assert (await ann.post(TRIALS, json=body)).status_code == 403
        assert on.counter.counts()["increments"] == 0, "nothing was called"

        on.model.will(
            plan({"id": "a", "tools": ["counter_increment"]}), a=[use(made_call("counter_increment", name="questions"))]
        )
        task = (await ann.post("/v1/tasks", json={"objective": "Count."}, headers={"Idempotency-Key": "k"})).json()[
            "task_id"
        ]
        async with Mesh(on.url, OPERATOR) as olga:
            async for event in olga.task(task).events():
                if event.name == "approval.requested":
                    break
            [waiting] = (await olga.approvals(task=task)).approvals
            assert waiting.request.rule == (await ruling())["rule"], "the trial says what the gate says"


async def test_the_client_has_a_method_for_it(tmp_path: Path) -> None:
    async with stage(tmp_path, rule=None, executor=policies(tmp_path)) as on, Mesh(on.url, OPERATOR) as olga:
        assert "calculate" in {tool.name for tool in (await olga.tools()).tools}
        trial = await olga.try_policy("calculate", {"expression": "2 + 3"})
        assert (trial.effect, trial.rule) == ("permit", "default:reads")
        try:
            await olga.try_policy("calculate", {})
        except Refused as refused:
            assert refused.code == "bad_arguments" and "expression" in str(refused)
        else:
            raise AssertionError("it does not fit its schema")
