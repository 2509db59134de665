"""API keys and JWTs: who passes, who does not, and what they are told."""

import json
import time

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from pydantic import ValidationError

from bulkhead_contracts.task import TaskRequested
from bulkhead_services.gateway.settings import Settings
from tests.unit.services.gateway.harness import OPERATOR, make_mesh

ISSUER = "https://id.example"
GOOD = {"iss": ISSUER, "aud": "bulkhead", "sub": "grace", "tenant": "acme", "role": "auditor"}
ED = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
STRANGER = ed25519.Ed25519PrivateKey.generate()


def jwk(key, kid, algorithm):
    raw = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return raw | {"kid": kid, "alg": algorithm, "use": "sig"}


def token(changes=None, key=ED, kid="ed", algorithm="EdDSA", **more):
    claims = {"exp": time.time() + 60, **GOOD, **(changes or {}), **more}
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, key, algorithm, headers={"kid": kid})


@pytest.fixture
async def http(tmp_path):
    mesh = make_mesh(tmp_path)
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps({"keys": [jwk(ED, "ed", "EdDSA"), jwk(RSA, "rsa", "RS256")]}))
    gateway = mesh.gateway(jwt_jwks_file=jwks, jwt_issuer=ISSUER)
    await gateway.attach_inbox()
    transport = httpx.ASGITransport(app=gateway.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        client.folder, client.mesh = tmp_path, mesh
        yield client
    await gateway.stop()


async def ask(http, credential):
    return await http.get("/v1/tasks", headers={"Authorization": f"Bearer {credential}"})


async def test_tokens_of_the_issuer_pass(http):
    assert (await ask(http, token())).status_code == 200
    assert (await ask(http, token(key=RSA, kid="rsa", algorithm="RS256"))).status_code == 200
    answer = await http.post(
        "/v1/tasks", json={"objective": "x"}, headers={"Authorization": f"Bearer {token()}", "Idempotency-Key": "k"}
    )
    assert answer.status_code == 403  # An auditor.
    answer = await http.post(
        "/v1/tasks",
        json={"objective": "x"},
        headers={"Authorization": f"Bearer {token(role='submitter')}", "Idempotency-Key": "k"},
    )
    assert answer.status_code == 202


async def test_a_token_that_an_agent_acts_with_writes_a_models_words(http):
    acting = token(role="submitter", act={"sub": "robot"})
    headers = {"Authorization": f"Bearer {acting}", "Idempotency-Key": "k"}
    assert (await http.post("/v1/tasks", json={"objective": "x"}, headers=headers)).status_code == 202
    [stored] = http.mesh.sent("gateway")
    asked = TaskRequested.model_validate_json(stored.body)
    assert asked.requester.agent and asked.written_by == "model"


@pytest.mark.parametrize("role", ["operator", "approver"])
async def test_no_agent_acts_as_who_decides(http, role):
    response = await ask(http, token(role=role, act={}))
    assert response.status_code == 401 and "people alone" in response.text


async def test_the_token_goes_to_the_signer_and_the_signers_word_with_the_request(http):
    told = token(role="submitter")
    headers = {"Authorization": f"Bearer {told}", "Idempotency-Key": "k"}
    assert (await http.post("/v1/tasks", json={"objective": "x"}, headers=headers)).status_code == 202
    [vouched] = http.mesh.bus.vouched
    assert vouched.credential == told and vouched.requester.person == "grace" and told not in repr(vouched)
    await http.mesh.pump()
    [asked] = http.mesh.bus.asked
    assert asked.credential == "signed.voucher"
    answer = await http.post("/v1/documents?name=a.md", content=b"x", headers=headers)
    assert answer.status_code == 202 and http.mesh.bus.asked[-1].credential == told
    assert not [one for _, one in http.mesh.bus.stored if told.encode() in one.body or told in str(one.headers)]


@pytest.mark.parametrize(
    "bad",
    [
        lambda: token(exp=time.time() - 60),
        lambda: token(exp=None),
        lambda: token(iss="https://evil.example"),
        lambda: token(iss=None),
        lambda: token(aud="another"),
        lambda: token(aud=None),
        lambda: token(sub=None),
        lambda: token(tenant=None),
        lambda: token(tenant="a.b"),
        lambda: token(tenant=["acme"]),
        lambda: token(role="root"),
        lambda: token(role=None),
        lambda: token(sub="x" * 65),
        lambda: token(key=STRANGER),
        lambda: token(key=STRANGER, kid="unknown"),
        lambda: token(nbf=time.time() + 600),
        lambda: token(key="s" * 64, algorithm="HS256"),
        lambda: token(key="", algorithm="none"),
        lambda: token(key=RSA, kid="ed", algorithm="RS256"),
        lambda: token()[:-4] + "AAAA",
        lambda: "a.b.c",
        lambda: "..",
        lambda: "x" * 9000,
        lambda: "bk_unknown",
        lambda: "bk_a.b.c",
        lambda: "",
    ],
)  # No ids: those of functions differ between workers.
async def test_everything_else_is_401_and_told_why(http, bad):
    credential = bad()
    answer = await ask(http, credential)
    assert len(credential) < 4 or credential not in answer.text, "the credential is not repeated"
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["hint"] and answer.json()["detail"]


async def test_a_key_works_in_both_headers_and_none_is_401(http):
    assert (await ask(http, OPERATOR)).status_code == 200
    assert (await http.get("/v1/tasks", headers={"X-API-Key": OPERATOR})).status_code == 200
    assert (await http.get("/v1/tasks", headers={"X-API-Key": OPERATOR[:-1]})).status_code == 401
    assert (await http.get("/v1/tasks")).status_code == 401


async def test_the_key_file_is_read_again_and_a_broken_one_changes_nothing(http):
    path = http.folder / "keys.json"
    rows = json.loads(path.read_text())["keys"]
    path.write_text("{broken")
    assert (await ask(http, OPERATOR)).status_code == 200
    path.write_text(json.dumps({"keys": rows[1:]}))
    assert (await ask(http, OPERATOR)).status_code == 401


async def test_a_key_file_that_cannot_be_read_stops_the_start(tmp_path):
    gateway = make_mesh(tmp_path).gateway(api_keys_file=tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"none\.json"):
        await gateway.start()


async def test_a_jwks_needs_an_issuer(tmp_path):
    gateway = make_mesh(tmp_path).gateway(jwt_jwks_url="http://127.0.0.1:9/jwks")
    with pytest.raises(ValueError, match="BULKHEAD_JWT_ISSUER"):
        await gateway.start()


async def test_a_jwks_that_cannot_be_had_is_503(tmp_path):
    gateway = make_mesh(tmp_path).gateway(jwt_jwks_url="http://127.0.0.1:9/jwks", jwt_issuer=ISSUER)
    await gateway.attach_inbox()
    transport = httpx.ASGITransport(app=gateway.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        assert (await ask(client, token())).status_code == 503
    await gateway.stop()


@pytest.mark.parametrize("algorithms", [("HS256",), ("none",), ("RS256", "hs512")])
def test_symmetric_algorithms_are_refused(algorithms):
    with pytest.raises(ValidationError, match="only asymmetric"):
        Settings(jwt_algorithms=algorithms)


@pytest.mark.parametrize("name", ["X-API-Key", "Authorization", "Idempotency-Key"])
async def test_a_header_about_the_caller_is_there_once(http, name):
    headers = [("X-API-Key", OPERATOR), ("Idempotency-Key", "k")]
    answer = await http.post("/v1/tasks", json={"objective": "x"}, headers=[*headers, (name, "one"), (name, "two")])
    assert (answer.status_code, answer.json()["code"]) == (400, "repeated_header")
    assert name.lower() in answer.json()["detail"].lower()


@pytest.mark.parametrize(
    "body", ['{"objective": "x", "objective": "y"}', '{"objective": "x", "limits": {"tokens": 1, "tokens": 2}}']
)
async def test_a_key_of_a_body_is_there_once(http, body):
    headers = {"X-API-Key": OPERATOR, "Idempotency-Key": "k"}
    answer = await http.post("/v1/tasks", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "repeated_key")


async def test_a_fork_of_what_is_not_there_is_refused_at_once(http):
    plan = {"steps": [{"id": "a", "title": "a", "instruction": "a", "kind": "noop"}]}
    body = {"objective": "x", "plan": plan, "fork": {"task": "of-another-tenant", "steps": ["a"]}}
    answer = await http.post("/v1/tasks", json=body, headers={"X-API-Key": OPERATOR, "Idempotency-Key": "k"})
    assert answer.status_code == 404, answer.text
    assert "of-another-tenant" in answer.json()["detail"]


async def test_a_turn_that_the_signer_does_not_vouch_for_is_not_stored(http):
    headers = {"Authorization": f"Bearer {token(role='submitter')}", "Idempotency-Key": "k"}
    path = f"/v1/sessions/{(await http.post('/v1/sessions', json={}, headers=headers)).json()['session_id']}"
    http.mesh.bus.signer_down = True
    assert (await http.post(f"{path}/turns", json={"text": "Hello"}, headers=headers)).status_code == 503
    assert (await http.get(path, headers=headers)).json()["turn_count"] == 0
    http.mesh.bus.signer_down = False
    assert (await http.post(f"{path}/turns", json={"text": "Hello"}, headers=headers)).status_code == 202
