"""The signer sees the caller's own token: the gateway alone asks in the name of nobody who has one."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bulkhead.runtime.context import Context, unix_ms
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts.grant import GrantReplied, GrantRequested, VouchReplied, VouchRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.signer.app import build
from bulkhead_services.signer.settings import Settings

ISSUER, KEY, STRANGER = "https://id.example", Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
LIMITS = {"task": {"cost_usd_micros": 600_000, "tokens": 600_000, "deadline_ms": 200_000}}
TENANT = LIMITS | {"tools": ["calculate"], "day": {"cost_usd_micros": 5_000_000, "tokens": 10_000_000}}
GRACE = {"tenant": "acme", "person": "grace", "role": "submitter", "via": "jwt"}


def token(key: Ed25519PrivateKey = KEY, **changes: Any) -> str:
    claims = {"iss": ISSUER, "aud": "bulkhead", "sub": "grace", "tenant": "acme", "role": "submitter"}
    return jwt.encode({"exp": time.time() + 60, **claims, **changes}, key, "EdDSA", headers={"kid": "ed"})


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[MemoryMesh]:
    raw = jwt.get_algorithm_by_name("EdDSA").to_jwk(KEY.public_key(), as_dict=True)
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [raw | {"kid": "ed", "alg": "EdDSA"}]}))
    rows = {"acme": TENANT, "strict": TENANT | {"callers": ["jwt"]}}
    (tmp_path / "tenants.yaml").write_text(yaml.safe_dump({"tenants": rows}))
    keys: dict[str, Any] = {"jwt_jwks_file": tmp_path / "jwks.json", "jwt_issuer": ISSUER}

    def make(context: Context) -> Any:
        return build(context, Settings(tenants_file=tmp_path / "tenants.yaml", data_dir=tmp_path, **keys))

    async with MemoryMesh({"signer": make}) as found:
        yield found


async def ask(mesh: MemoryMesh, credential: str, task: str = "t1", **more: Any) -> GrantReplied:
    requester = RequesterClaim(**(GRACE | more.pop("requester", {})))
    body = GrantRequested(requester=requester, requested_unix_ms=unix_ms(), credential=credential, **more)
    place = {"tenant": requester.tenant, "task": task}
    index = f"{credential}/{task}/{more}"
    reply = await mesh.context("gateway").publisher.request("signer", body, **place, index=index)
    assert isinstance(reply, GrantReplied)
    return reply


async def vouch(mesh: MemoryMesh, credential: str, task: str = "t1", **who: Any) -> VouchReplied:
    requester = RequesterClaim(**(GRACE | who))
    body = VouchRequested(requester=requester, requested_unix_ms=unix_ms(), credential=credential)
    place = {"tenant": requester.tenant, "task": task}
    reply = await mesh.context("gateway").publisher.request("signer", body, **place, index=f"{credential}/{task}/{who}")
    assert isinstance(reply, VouchReplied)
    return reply


async def test_doors_has_a_token_vouched_for_a_task_of_its_own_alone(mesh: MemoryMesh) -> None:
    body = VouchRequested(requester=RequesterClaim(**GRACE), requested_unix_ms=unix_ms(), credential=token())
    publisher, replies = mesh.context("doors").publisher, {}
    for task in ("doors-1", "t1"):
        replies[task] = await publisher.request("signer", body, tenant="acme", task=task, index=task)
    assert (await ask(mesh, replies["doors-1"].voucher, task="doors-1")).granted
    assert replies["t1"].failure.code == "foreign_id" and not replies["t1"].voucher


async def test_a_token_gives_a_voucher_and_the_voucher_the_grant_of_its_task(mesh: MemoryMesh) -> None:
    voucher = (await vouch(mesh, token())).voucher
    assert voucher and token() not in voucher
    granted = await ask(mesh, voucher)
    assert granted.granted and granted.token
    assert (await ask(mesh, voucher, task="t2")).code == "foreign_credential"
    other = await ask(mesh, voucher, requester={"person": "ada"})
    assert (other.granted, other.code) == (False, "foreign_credential")
    assert (await vouch(mesh, "", via="api_key")).voucher == "", "an API key stays a claim of the gateway"


WRONG = {
    "": "no_credential",
    "stranger": "bad_credential",
    "late": "bad_credential",
    "other": "foreign_credential",
    "above": "foreign_credential",
}


@pytest.mark.parametrize(("which", "code"), WRONG.items())
async def test_a_gateway_asks_in_no_name_whose_token_it_has_not(mesh: MemoryMesh, which: str, code: str) -> None:
    tokens = {
        "": "",
        "stranger": token(STRANGER),
        "late": token(exp=time.time() - 60),
        "other": token(sub="ada"),
        "above": token(role="operator"),
    }
    failure = (await vouch(mesh, tokens[which])).failure
    assert failure is not None and (failure.code, bool(failure.hint)) == (code, True)
    assert (await ask(mesh, tokens[which], purpose="ingest")).code == code
    assert (await ask(mesh, token(), purpose="ingest")).granted


async def test_a_task_needs_the_signers_own_word(mesh: MemoryMesh) -> None:
    assert (await ask(mesh, "")).code == "no_credential"
    assert (await ask(mesh, token())).code == "no_credential", "a token is no word about this task"
    grant = (await ask(mesh, "", requester={"via": "api_key"})).token
    assert grant, "API keys stay claims of the gateway"
    assert (await ask(mesh, grant)).code == "no_credential"


async def test_a_tenant_may_take_tokens_alone(mesh: MemoryMesh) -> None:
    refused = await ask(mesh, "", requester={"tenant": "strict", "via": "api_key"})
    assert (refused.granted, refused.code) == (False, "caller_not_taken") and "callers" in refused.hint
    assert (await vouch(mesh, token(tenant="strict"), tenant="strict")).voucher
