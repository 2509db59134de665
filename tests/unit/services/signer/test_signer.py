"""The signer holds every request to the tenant's policy, and signs the same request to the same token."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bulkhead.grants import GrantRefused
from bulkhead.runtime.context import Context
from bulkhead.testing.mesh import MemoryMesh
from bulkhead.tools import catalog, packs
from bulkhead_contracts import subjects
from bulkhead_contracts.approval import ApprovalGrant, SignatureRequested
from bulkhead_contracts.grant import GrantReplied, GrantRequested
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import RequesterClaim, TaskLimits
from bulkhead_infra.identity.policy import IdentityPolicyError as IdentityError
from bulkhead_infra.identity.policy import load_tenants
from bulkhead_services.signer.app import build
from bulkhead_services.signer.core import (
    GrantDecision,
    GrantPolicies,
    TenantsFileError,
    decide_approval,
    decide_grant,
    grantable_tools,
    policies_from,
)
from bulkhead_services.signer.settings import Settings

NOW = 1_790_000_000_000
DOCUMENT: dict[str, Any] = {
    "tenants": {
        "acme": {
            "tools": ["search_documents", "calculate", "counter_increment"],
            "document_scopes": ["default", "legal"],
            "task": {"cost_usd_micros": 600_000, "tokens": 600_000, "deadline_ms": 200_000},
            "day": {"cost_usd_micros": 5_000_000, "tokens": 10_000_000},
        },
        "quiet": {
            "task": {"cost_usd_micros": 600_000, "tokens": 600_000, "deadline_ms": 200_000},
            "day": {"cost_usd_micros": 1, "tokens": 1},
            "roles": {"submitter": False},
        },
    }
}


def policies(configured: tuple[str, ...] = ("counter_url",)) -> GrantPolicies:
    known = {row.spec.name: row.spec for row in catalog.tool_rows()}
    return policies_from(DOCUMENT, known, {spec.name: spec for spec in catalog.tool_specs(configured)})


def request(**changes: Any) -> GrantRequested:
    requester = {"tenant": "acme", "person": "ada", "role": "submitter", "via": "api_key"}
    requester |= changes.pop("requester", {})
    return GrantRequested(requester=RequesterClaim(**requester), requested_unix_ms=NOW, **changes)


def refused(asked: GrantRequested, *, tenant: str = "acme", now: int = NOW, **more: Any) -> Failure:
    found = decide_grant(policies(**more), asked, tenant, "t1", now)
    assert isinstance(found, Failure)
    assert found.hint
    return found


def test_doors_are_told_the_tools_that_are_there_and_are_not_the_workers_own() -> None:
    ada = RequesterClaim(tenant="acme", person="ada", role="submitter", via="api_key")
    found = policies(configured=())
    known = {row.spec.name: row.spec for row in catalog.tool_rows()}
    looped = replace(found, tools=known, built_in=frozenset({"search_documents"}))
    told = {spec.name for spec in grantable_tools(found, ada, "acme")}
    assert told == {"search_documents", "calculate"}  # The counter is not configured.
    assert {spec.name for spec in grantable_tools(looped, ada, "acme")} == {"calculate", "counter_increment"}
    auditor = ada.model_copy(update={"role": "auditor"})
    codes = {grantable_tools(found, *who).code for who in ((auditor, "acme"), (ada, "quiet"))}
    assert codes == {"role_may_not_submit", "foreign_tenant"}


def test_evaluators_submit_evaluations_that_change_nothing_and_nobody_else_votes() -> None:
    eva: dict[str, Any] = {"requester": {"person": "eva", "role": "evaluator"}}
    writing = policies()
    acme = writing.tenants["acme"].model_copy(update={"default_writes": ("counter_increment",)})
    writing = replace(writing, tenants={"acme": acme})
    for feature in ("eval", "online-judge"):
        granted = decide_grant(writing, request(**eva, feature=feature), "acme", "t1", NOW)
        assert isinstance(granted, GrantDecision) and granted.grant.tools == ("calculate", "search_documents")
    for wanted in ({}, {"feature": "claims"}, {"feature": "eval", "tools": ("counter_increment",)}):
        assert refused(request(**eva, **wanted)).code == "evaluations_alone"
    assert refused(request(**eva, feature="eval", plan_tools=("counter_increment",))).code == "evaluations_alone"
    assert refused(request(feature="online-judge")).code == "reserved_feature"
    assert isinstance(decide_grant(writing, request(feature="eval"), "acme", "t1", NOW), GrantDecision)


def test_a_role_that_nobody_plays_is_refused_with_those_that_somebody_does() -> None:
    failure = refused(request(worker_roles=("step", "wizard", "desk")))
    assert (failure.code, failure.message) == ("unknown_role", "no worker of this mesh plays the role desk, wizard")
    assert "may have the roles gate_judge, step;" in failure.hint and "did you mean" not in failure.hint
    assert refused(request(worker_roles=("stp",))).hint.endswith("; did you mean step?")
    known = {row.spec.name: row.spec for row in catalog.tool_rows()}
    with_desk = policies_from(DOCUMENT, known, known, worker_roles=frozenset({"desk"}))
    assert isinstance(decide_grant(with_desk, request(worker_roles=("step", "desk")), "acme", "t1", NOW), GrantDecision)


def test_roles_are_those_of_the_packs_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = tmp_path / "some_pack_of_mine" / "prompts"
    prompts.mkdir(parents=True)
    for name in ("worker.desk@1.md", "worker.desk@2.md", "worker.Bad@1.md", "checker.judge@9.md", "worker.night@1.txt"):
        (prompts / name).touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert packs.worker_roles(["some_pack_of_mine"]) == {"desk"}
    assert packs.worker_roles([]) == set()


def test_an_empty_request_gets_every_read_that_the_tenant_has_and_the_mesh_can_run() -> None:
    found = decide_grant(policies(), request(), "acme", "t1", NOW)
    assert isinstance(found, GrantDecision)
    grant = found.grant
    assert grant.tools == ("calculate", "search_documents")
    assert found.left_out == ("counter_increment",), "and hears what it could have had by naming it"
    assert [spec.name for spec in found.tools] == list(grant.tools)
    assert (grant.tenant, grant.task, grant.actor) == ("acme", "t1", "ada")
    assert grant.document_scopes == ("default", "legal")
    assert grant.limits == TaskLimits()
    assert (grant.day_cost_usd_micros, grant.day_tokens) == (5_000_000, 10_000_000)
    assert grant.expires_unix_ms == NOW + 120_000 + 24 * 3_600_000 + 600_000, "people may take a day"
    without = decide_grant(policies(configured=()), request(), "acme", "t1", NOW)
    assert isinstance(without, GrantDecision) and without.grant.tools == ("calculate", "search_documents")
    assert without.left_out == (), "what is not there is not left out"


def test_a_write_is_granted_where_the_request_its_plan_or_the_tenants_policy_names_it() -> None:
    named = request(tools=("counter_increment",))
    planned = request(plan_tools=("counter_increment", "http_get"))
    own = {**DOCUMENT["tenants"]["acme"], "default_writes": ["counter_increment"]}
    known = {row.spec.name: row.spec for row in catalog.tool_rows()}
    for asked, mesh in (
        (named, policies()),
        (planned, policies()),
        (request(), policies_from({"tenants": {"acme": own}}, known, known)),
    ):
        found = decide_grant(mesh, asked, "acme", "t1", NOW)
        assert isinstance(found, GrantDecision) and "counter_increment" in found.grant.tools and not found.left_out
        assert "http_get" not in found.grant.tools, "and no plan names what the tenant has not got"
    written = policies_from({"tenants": {"acme": own}}, known, known)
    trial = decide_grant(written, request(release="trial.7"), "acme", "t1", NOW)
    assert isinstance(trial, GrantDecision) and "counter_increment" in trial.left_out, "under no text that is evaluated"
    own["tools"] = ["calculate"]
    with pytest.raises(TenantsFileError, match="default_writes names counter_increment, which tools does not"):
        policies_from({"tenants": {"acme": own}}, known, known)


def test_a_grant_bears_the_tenants_constraints_on_the_tools_that_it_names() -> None:
    own = {
        **DOCUMENT["tenants"]["acme"],
        "constraints": ["calculate /expression range 0..9", "counter_increment /name equals 1", '* /x prefix "2"'],
    }
    known = {row.spec.name: row.spec for row in catalog.tool_rows()}
    found = decide_grant(policies_from({"tenants": {"acme": own}}, known, known), request(), "acme", "t1", NOW)
    assert isinstance(found, GrantDecision)
    assert found.grant.constraints == ("calculate /expression range 0..9", '* /x prefix "2"')


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("calculate /expression rang 0..9", r"constraints\[1\]: 'rang' is no test; write equals"),
        ("calculat /a range 0..9", r"constraints\[1\]: .* is on calculat, which is none of the tools"),
    ],
)
def test_a_constraint_that_cannot_be_read_is_named_when_the_file_is_read(text: str, told: str, tmp_path: Path) -> None:
    own = {**DOCUMENT["tenants"]["acme"], "constraints": ["* /x range 0..1", text]}
    known = {row.spec.name: row.spec for row in catalog.tool_rows()}
    with pytest.raises(TenantsFileError, match=f"acme: {told}"):
        policies_from({"tenants": {"acme": own}}, known, known)
    (tmp_path / "tenants.yaml").write_text(yaml.safe_dump({"tenants": {"acme": own}}))
    with pytest.raises(IdentityError, match=rf"tenants\.acme\.{told}"):
        load_tenants(tmp_path / "tenants.yaml")


def test_a_constraint_on_an_argument_that_its_tool_lacks_is_named() -> None:
    text, told = 'calculate /expresion prefix "1"', "calculate has no such argument; it has /expression"
    own = {**DOCUMENT["tenants"]["acme"], "constraints": [text]}
    known = {row.spec.name: row.spec for row in catalog.tool_rows()}
    with pytest.raises(TenantsFileError, match=rf"acme: constraints\[0\]: .* {told}"):
        policies_from({"tenants": {"acme": own}}, known, known)
    failure = refused(request(constraints=(text,)))
    assert failure.code == "bad_constraint" and told in failure.message


def test_a_requests_constraints_hold_beside_the_tenants() -> None:
    own = {**DOCUMENT["tenants"]["acme"], "constraints": ["calculate /expression range 0..9"]}
    known = {row.spec.name: row.spec for row in catalog.tool_rows()}
    found = policies_from({"tenants": {"acme": own}}, known, known)
    wider = request(
        constraints=("calculate /expression range 0..99", "* /b range 1..", " calculate /expression/b range 0..1")
    )
    granted = decide_grant(found, wider, "acme", "t1", NOW)
    assert isinstance(granted, GrantDecision)
    held = (
        "calculate /expression range 0..9",
        "calculate /expression range 0..99",
        "* /b range 1..",
        " calculate /expression/b range 0..1",
    )
    assert granted.grant.constraints == held, "one that is written with a space before it was left out"
    assert refused(request(constraints=("calculate /expression below /x/",))).code == "bad_constraint"
    beyond = refused(request(tools=("calculate",), constraints=("search_documents /k range 0..1",)))
    assert beyond.code == "bad_constraint" and "the tools of this task are calculate" in beyond.hint
    many = decide_grant(found, request(constraints=tuple(f"* /a range 0..{at}" for at in range(16))), "acme", "t1", NOW)
    assert isinstance(many, Failure) and many.code == "too_many_constraints"


def test_a_request_may_ask_for_less() -> None:
    found = decide_grant(policies(), request(tools=("calculate",), limits=TaskLimits(tokens=5)), "acme", "t1", NOW)
    assert isinstance(found, GrantDecision)
    assert found.grant.tools == ("calculate",) and found.grant.limits.tokens == 5


def test_a_grant_outlives_its_deadline_by_the_time_that_people_may_take() -> None:
    minute = {**DOCUMENT["tenants"]["acme"]["task"], "approval_wait_ms": 60_000}
    known = {row.spec.name: row.spec for row in catalog.tool_rows()}
    short = policies_from({"tenants": {"acme": {**DOCUMENT["tenants"]["acme"], "task": minute}}}, known, known)
    for asked, waits_ms in ((TaskLimits(), 60_000), (TaskLimits(approval_wait_ms=9_000), 9_000)):
        found = decide_grant(short, request(limits=asked), "acme", "t1", NOW)
        assert isinstance(found, GrantDecision) and found.grant.limits.approval_wait_ms == waits_ms
        assert found.grant.expires_unix_ms == NOW + 120_000 + waits_ms + 600_000
    nothing = decide_grant(short, request(purpose="ingest"), "acme", "t1", NOW)
    assert isinstance(nothing, GrantDecision) and nothing.grant.expires_unix_ms == NOW + 120_000 + 600_000


@pytest.mark.parametrize("field", ["cost_usd_micros", "tokens", "deadline_ms"])
def test_a_limit_above_the_tenants_is_refused_and_not_lowered(field: str) -> None:
    at_most = {"cost_usd_micros": 600_000, "tokens": 600_000, "deadline_ms": 200_000}[field]
    assert isinstance(
        decide_grant(policies(), request(limits=TaskLimits(**{field: at_most})), "acme", "t", NOW), GrantDecision
    )
    failure = refused(request(limits=TaskLimits(**{field: at_most + 1})))
    assert failure.code == "limit_above_policy" and str(at_most) in failure.hint


@pytest.mark.parametrize(
    ("field", "asked", "message", "hint"),
    [
        (
            "cost_usd_micros",
            100_000_000_000,
            "a cost limit of $100,000.00 is asked; a task of tenant acme may have $0.60 at most",
            "--limit-usd 0.60 or less",
        ),
        (
            "tokens",
            700_000,
            "700,000 tokens is asked; a task of tenant acme may have 600,000 tokens at most",
            "--limit-tokens 600000 or less",
        ),
        (
            "deadline_ms",
            3_600_000,
            "a deadline of 3600s is asked; a task of tenant acme may have 200s at most",
            "--deadline 200s or less",
        ),
    ],
)
def test_a_refused_limit_is_said_as_it_was_typed(field: str, asked: int, message: str, hint: str) -> None:
    failure = refused(request(limits=TaskLimits(**{field: asked})))
    assert message in failure.message and hint in failure.hint


def test_tools_beyond_the_tenant_or_the_mesh_are_refused() -> None:
    failure = refused(request(tools=("calculate", "http_get")))
    assert failure.code == "tools_not_granted" and "http_get" in failure.message and "calculate" in failure.hint
    assert "counter_increment" in failure.hint
    here = refused(request(tools=("calculat",)), configured=())
    assert "calculate" in here.hint and "counter_increment" not in here.hint, "what is not there helps nobody"
    assert here.hint.endswith("; did you mean calculate?") and "did you mean" not in failure.hint
    assert refused(request(tools=("counter_increment",)), configured=()).code == "tools_not_available"
    assert refused(request(purpose="ingest", tools=("calculate",))).code == "tools_not_granted"


def test_an_ingestion_fits_a_tenant_whose_ceilings_lie_below_what_a_task_gets_unasked() -> None:
    small = {**DOCUMENT["tenants"]["acme"], "task": {"cost_usd_micros": 1_000, "tokens": 50, "deadline_ms": 9_000}}
    known = {row.spec.name: row.spec for row in catalog.tool_rows()}
    policy = policies_from({"tenants": {"acme": small}}, known, known)
    found = decide_grant(policy, request(purpose="ingest"), "acme", "d", NOW)
    assert isinstance(found, GrantDecision)
    assert found.grant.limits == TaskLimits(cost_usd_micros=1_000, tokens=50, deadline_ms=9_000)


def test_an_ingestion_is_granted_no_tools() -> None:
    found = decide_grant(policies(), request(purpose="ingest"), "acme", "t1", NOW)
    assert isinstance(found, GrantDecision) and found.grant.tools == () and found.tools == ()


@pytest.mark.parametrize("role", ["approver", "auditor"])
def test_roles_that_may_not_submit(role: str) -> None:
    assert refused(request(requester={"role": role})).code == "role_may_not_submit"


def test_a_tenant_can_take_the_right_from_a_role() -> None:
    mine = {"tenant": "quiet"}
    assert refused(request(requester=mine), tenant="quiet").code == "role_may_not_submit"
    found = decide_grant(policies(), request(requester=mine | {"role": "operator"}), "quiet", "t", NOW)
    assert isinstance(found, GrantDecision) and found.grant.tools == ()


def test_tenants_are_kept_apart() -> None:
    assert refused(request(), tenant="quiet").code == "foreign_tenant"
    assert refused(request(requester={"tenant": "nobody"}), tenant="nobody").code == "unknown_tenant"


def test_the_requests_time_must_be_near() -> None:
    assert refused(request(), now=NOW + 600_001).code == "request_too_old"
    assert refused(request(), now=NOW - 60_001).code == "request_from_the_future"
    for now in (NOW + 600_000, NOW - 60_000):
        assert isinstance(decide_grant(policies(), request(), "acme", "t1", now), GrantDecision)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "tenants:"),
        ({"tenants": {"acme": {"day": {"cost_usd_micros": 1, "tokens": 1}}}}, "acme: task"),
        ({"tenants": {"acme": DOCUMENT["tenants"]["acme"] | {"tols": []}}}, "acme: tols"),
        ({"tenants": {"acme": DOCUMENT["tenants"]["acme"] | {"tools": ["rm_rf"]}}}, "rm_rf"),
        *(({"tenants": {name: DOCUMENT["tenants"]["acme"]}}, name) for name in sorted(subjects.RESERVED_TENANTS)),
    ],
)
def test_a_policy_that_cannot_be_used_says_where(document: Any, says: str) -> None:
    known = {row.spec.name: row.spec for row in catalog.tool_rows()}
    with pytest.raises(TenantsFileError, match=says):
        policies_from(document, known, known)


async def test_over_the_bus_the_token_verifies_and_repeats() -> None:
    def make(context: Context) -> Any:
        return build(context, Settings())

    async with MemoryMesh({"signer": make}) as mesh:
        await _started(mesh)
        gateway = mesh.context("gateway")
        body = request().model_copy(update={"requested_unix_ms": gateway.clock()})
        answers = [await _ask(gateway, body), await _ask(gateway, body)]
        assert answers[0].granted and answers[0].model_dump() == answers[1].model_dump()
        authority = gateway.verifier.verify_authority(
            answers[0].token, tenant="acme", task="t1", now_unix_ms=gateway.clock()
        )
        assert [spec.name for spec in answers[0].tools] == list(authority.task.tools)
        with pytest.raises(GrantRefused):
            gateway.verifier.verify_authority(answers[0].token, tenant="acme", task="t2", now_unix_ms=gateway.clock())
        no = await _ask(gateway, body.model_copy(update={"limits": TaskLimits(tokens=10**9)}))
        assert not no.granted and not no.token and no.code == "limit_above_policy" and no.hint


async def test_a_missing_tenants_file_says_what_to_set(tmp_path: Path) -> None:
    async with MemoryMesh({}) as mesh:
        signer = build(mesh.context("signer"), Settings(tenants_file=tmp_path / "none.yaml"))
        with pytest.raises(TenantsFileError, match="BULKHEAD_TENANTS_FILE"):
            await signer.start()
        assert not signer.is_ready()


async def _started(mesh: MemoryMesh) -> None:
    import asyncio

    component = mesh.running[("signer", "0")].service.component
    async with asyncio.timeout(5):
        while not component.is_ready():
            await asyncio.sleep(0)


async def _ask(gateway: Context, body: GrantRequested) -> GrantReplied:
    answer = await gateway.publisher.request("signer", body, tenant="acme", task="t1", index="grant")
    assert isinstance(answer, GrantReplied)
    return answer


def test_an_agent_approves_nothing_whatever_its_role() -> None:
    def decided(*, agent: bool) -> ApprovalGrant | Failure:
        person = RequesterClaim(tenant="acme", person="bob", role="approver", via="jwt", agent=agent)
        word = SignatureRequested(
            requester=person, approval_id="a1", arguments_sha256="0" * 64, decision="granted", requested_unix_ms=NOW
        )
        return decide_approval(policies(), word, "acme", "t1", NOW)

    assert isinstance(decided(agent=False), ApprovalGrant)
    refusal = decided(agent=True)
    assert isinstance(refusal, Failure) and refusal.code == "agent_may_not_approve"
