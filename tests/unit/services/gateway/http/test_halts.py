"""Halts and breakers over HTTP: who may, what is answered, and what a tenant sees of others."""

import json

import httpx
import pytest
from pydantic import ValidationError

from bulkhead.bus.port import StoredMessage
from bulkhead.client import Mesh, Refused
from bulkhead_cli.halts.halts import reset_breaker
from bulkhead_cli.output import CommandError
from bulkhead_contracts import subjects
from bulkhead_contracts.control import Breaker, Halt
from bulkhead_services.gateway.http.schemas import TopUpSubmission
from tests.unit.services.gateway.harness import AUDITOR, AUTH, FOREIGN, OPERATOR, SUBMITTER

TOOL = {"scope": "tool", "name": "http_get", "reason": "the site is under attack"}


@pytest.fixture
async def http(mesh):
    transport = httpx.ASGITransport(app=mesh.gateways[0].app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=AUTH) as client:
        yield client


async def test_an_operator_halts_and_resumes(http) -> None:
    halted = await http.post("/v1/halts", json=TOOL)
    assert halted.status_code == 200 and halted.json()["active"] and halted.json()["by"] == "acme/ada"
    assert (await http.post("/v1/halts", json=TOOL)).json() == halted.json(), "repeating is harmless"
    resumed = await http.post("/v1/resumes", json=TOOL | {"reason": "it is over"})
    assert resumed.status_code == 200 and not resumed.json()["active"]
    again = await http.post("/v1/resumes", json=TOOL)
    assert (again.status_code, again.json()["code"]) == (409, "not_halted") and "bulkhead halts" in again.json()["hint"]


async def test_under_its_key_it_counts_once_whatever_others_did_since(http) -> None:
    one, two = {"Idempotency-Key": "k1"}, {"Idempotency-Key": "k2"}
    halted = await http.post("/v1/halts", json=TOOL, headers=one)
    resumed = await http.post("/v1/resumes", json=TOOL, headers=two)
    assert (await http.post("/v1/resumes", json=TOOL, headers=two)).json() == resumed.json(), "no 409: it was this one"
    late = await http.post("/v1/halts", json=TOOL, headers=one)
    assert (late.status_code, late.json()["active"]) == (200, False) and halted.json()["active"], "it halts only once"
    for path, body in (("/v1/halts", TOOL | {"reason": "another one"}), ("/v1/resumes", TOOL)):
        other = await http.post(path, json=body, headers=one)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_reused"), other.text
    assert (await http.post("/v1/halts", json=TOOL | {"name": "calculate"}, headers=one)).json()["active"]


async def test_who_is_no_operator_may_look_and_not_touch(http) -> None:
    auditor = {"Authorization": f"Bearer {AUDITOR}"}
    for path in ("/v1/halts", "/v1/resumes"):
        refused = await http.post(path, json=TOOL, headers=auditor)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (await http.get("/v1/halts", headers=auditor)).json() == {"halts": []}
    assert (await http.get("/v1/breakers", headers=auditor)).json() == {"breakers": []}
    assert (await http.get("/v1/halts", headers={"Authorization": ""})).status_code == 401


@pytest.mark.parametrize("path", ["/v1/mesh", "/v1/coordination"])
async def test_a_submitter_sees_neither_the_load_nor_what_hangs_together(http, path) -> None:
    refused = await http.get(path, headers={"Authorization": f"Bearer {SUBMITTER}"})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_the_waits_of_a_moment_are_asked_for_by_its_unix_milliseconds(http) -> None:
    assert (await http.get("/v1/coordination?at=1795704240000")).status_code == 200
    for moment in ("10000000000000001", "1" * 17, "-1", "now"):
        refused = await http.get(f"/v1/coordination?at={moment}")
        assert (refused.status_code, refused.json()["title"]) == (422, "at does not fit"), moment


@pytest.mark.parametrize(
    "change", [{"scope": "city"}, {"reason": ""}, {"reason": " \n "}, {"reason": 7}, {"name": ""}, {"force": True}]
)
async def test_what_does_not_fit_is_named(http, change) -> None:
    answer = await http.post("/v1/halts", json=TOOL | change)
    assert answer.status_code == 422 and next(iter(change)) in answer.json()["detail"]


async def test_a_reason_is_one_line_and_forges_no_other(http) -> None:
    forged = TOOL | {"reason": "gone\r\ntool search  since 2026-11-21, by operator:root:\u2028all is well "}
    halted = await http.post("/v1/halts", json=forged)
    assert halted.json()["reason"] == "gone tool search since 2026-11-21, by operator:root: all is well"


def test_the_reason_of_a_top_up_is_one_line_and_says_something() -> None:
    body = '{"add": {"tokens": 1}, "reason": "%s"}'
    found = TopUpSubmission.model_validate_json(body % "worth\\n ended\\u2028 it has succeeded")
    assert found.reason == "worth ended it has succeeded"
    with pytest.raises(ValidationError, match="reason"):
        TopUpSubmission.model_validate_json(body % " \\n ")


async def test_budget_away_is_told_and_nothing_is_claimed(mesh, http) -> None:
    mesh.bus.signer_down = True
    answer = await http.post("/v1/halts", json=TOOL)
    assert answer.status_code == 503 and "budget" in answer.json()["detail"] and "/v1/halts" in answer.json()["hint"]


def stored(mesh, subject: str, body: Halt | Breaker) -> None:
    mesh.bus.stored.append(
        ("KV_CONTROL", StoredMessage(subject, {}, body.model_dump_json().encode(), len(mesh.bus.stored) + 1, 1))
    )


async def test_a_tenant_sees_what_concerns_it_and_nothing_of_others(mesh, http) -> None:
    plain = {"code": "x", "reason": "r", "by": "operator:root", "pauses": True}
    entries = (
        ("tool", "", "a"),
        ("tool", "acme", "b"),
        ("tool", "other", "c"),
        ("tenant", "", "acme"),
        ("tenant", "", "other"),
        ("task", "acme", "t1"),
        ("task", "other", "t2"),
    )
    for scope, tenant, name in entries:
        stored(mesh, subjects.halt_key(scope, tenant, name), Halt(scope=scope, tenant=tenant, name=name, **plain))
    for scope, tenant, name in (("tool", "acme", "b"), ("tool", "other", "c"), ("tenant", "", "other")):
        stored(
            mesh,
            subjects.breaker_key(scope, tenant, name),
            Breaker(scope=scope, tenant=tenant, name=name, phase="open"),
        )
    seen = {(one["scope"], one["name"]) for one in (await http.get("/v1/halts")).json()["halts"]}
    assert seen == {("tool", "a"), ("tool", "b"), ("tenant", "acme"), ("task", "t1")}
    assert [one["name"] for one in (await http.get("/v1/breakers")).json()["breakers"]] == ["b"]
    foreign = {"Authorization": f"Bearer {FOREIGN}"}
    assert "acme" not in json.dumps((await http.get("/v1/halts", headers=foreign)).json())


OPENED = {"scope": "tool", "tenant": "acme", "name": "http_get", "phase": "open", "reason": "7 of 10 calls failed"}
RESET = {"scope": "tool", "name": "http_get", "reason": "it answers\nagain"}


async def test_an_operator_resets_a_breaker_of_the_tenant_that_others_opened(mesh, http) -> None:
    key = subjects.breaker_key("tool", "acme", "http_get")
    stored(mesh, key, Breaker(**OPENED, actors=("ada", "eve")))
    mine = await http.post("/v1/resets", json=RESET)
    assert (mine.status_code, mine.json()["code"]) == (403, "tripped_it") and "operator" in mine.json()["hint"]
    stored(mesh, key, Breaker(**OPENED, actors=("eve",)))
    done = await http.post("/v1/resets", json=RESET)
    assert done.status_code == 200 and (done.json()["phase"], done.json()["by"]) == ("closed", "acme/ada")
    foreign = await http.post("/v1/resets", json=RESET, headers={"Authorization": f"Bearer {FOREIGN}"})
    assert foreign.status_code in (403, 409) and "7 of 10" not in foreign.text, "another tenant's is not even told"
    auditor = await http.post("/v1/resets", json=RESET, headers={"Authorization": f"Bearer {AUDITOR}"})
    assert (auditor.status_code, auditor.json()["code"]) == (403, "forbidden")
    stored(mesh, key, Breaker(**OPENED | {"phase": "closed"}))
    closed = await http.post("/v1/resets", json=RESET)
    assert (closed.status_code, closed.json()["code"]) == (409, "not_open")


@pytest.mark.parametrize(
    "change",
    [
        {"scope": "task"},
        {"scope": "feature"},
        {"reason": " "},
        {"name": ""},
        {"by": "operator:root"},
        {"tenant": "other"},
    ],
)
async def test_a_reset_that_does_not_fit_is_named(http, change) -> None:
    answer = await http.post("/v1/resets", json=RESET | change)
    assert answer.status_code == 422 and next(iter(change)) in answer.json()["detail"]


async def test_a_reset_without_budget_claims_nothing(mesh, http) -> None:
    mesh.bus.signer_down = True
    answer = await http.post("/v1/resets", json=RESET)
    assert answer.status_code == 503 and "/v1/breakers" in answer.json()["hint"]


class Remote:
    """A gateway, as the command line finds it by --url and --api-key."""

    def __init__(self, mesh) -> None:
        self._app = mesh.gateways[0].app

    def mesh_client(self) -> Mesh:
        return Mesh("http://gateway", api_key=OPERATOR, transport=httpx.ASGITransport(app=self._app))


async def test_the_command_resets_over_http_and_tells_what_the_gateway_tells(mesh, tmp_path, capsys) -> None:
    key, remote = subjects.breaker_key("tool", "acme", "http_get"), Remote(mesh)
    stored(mesh, key, Breaker(**OPENED, actors=("ada",)))
    with pytest.raises(Refused) as refused:
        await reset_breaker(tmp_path, remote, "tool:http_get", "", "mended", as_json=True)  # type: ignore[arg-type]
    assert refused.value.code == "tripped_it"
    stored(mesh, key, Breaker(**OPENED))
    await reset_breaker(tmp_path, remote, "tool:http_get", "", "mended", as_json=True)  # type: ignore[arg-type]
    told = json.loads(capsys.readouterr().out)
    assert (told["phase"], told["by"], told["name"]) == ("closed", "acme/ada", "http_get")
    with pytest.raises(CommandError, match="is not needed"):
        await reset_breaker(tmp_path, remote, "tool:http_get", "other", "mended", as_json=True)  # type: ignore[arg-type]
