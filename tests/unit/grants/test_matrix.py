"""Grants x requests: each token that gives no authority for a request is refused, and by name."""

import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bulkhead.grants import GrantRefused, Signer, Verifier, key_file, new_signing_seed, public_of, unverified_claims
from bulkhead_contracts import bounds
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.provenance import Flow
from tests.samples import sample

SERVICES = ("signer", "planner", "worker")
SEEDS = {name: new_signing_seed() for name in SERVICES}
SIGNERS = {name: Signer(name, seed) for name, seed in SEEDS.items()}
LATER = 1_000_000
FLOW = Flow(tool="add", argument="/a", step_id="s0", from_tool="look", field="/n")


def top(**more: object) -> TaskGrant:
    return sample(TaskGrant, **{"tools": ("add", "look"), "expires_unix_ms": LATER, **more})


def step(**more: object) -> StepGrant:
    given = {"tenant": "demo", "task": "t1", "step_id": "s", "attempt": 1, "plan_version": 1, "tools": ("add",)}
    return StepGrant.model_validate({**given, "expires_unix_ms": LATER, **more})


def task_token(by: str = "signer", **more: object) -> str:
    return SIGNERS[by].sign_grant(top(**more))


def token(by: str = "planner", parent: str | None = None, **more: object) -> str:
    return SIGNERS[by].sign_grant(step(**more), parent=task_token() if parent is None else parent)


def reparented(parent: str) -> str:
    """A step grant whose parent was exchanged by who holds the planner's key, but not its digest."""
    claims = {**unverified_claims(token()), "parent": parent}
    return jwt.encode(claims, _key("planner"), algorithm="EdDSA", headers={"kid": "planner"})


def _key(service: str) -> Ed25519PrivateKey:
    return SIGNERS[service]._key


def unsigned() -> str:
    return jwt.encode(unverified_claims(task_token()), "", algorithm="none", headers={"kid": "signer"})


def refusal(
    grant: str, *, tenant: str = "demo", task: str = "t1", now: int = 0, verifier: Verifier | None = None
) -> str:
    verifier = verifier or Verifier({name: public_of(seed) for name, seed in SEEDS.items()})
    codes = []
    for _ in range(2):  # What is remembered of a token must not differ from what is seen first.
        try:
            verifier.verify_authority(grant, tenant=tenant, task=task, now_unix_ms=now)
            codes.append("")
        except GrantRefused as error:
            codes.append(error.code)
            assert str(error)
    assert len(set(codes)) == 1
    return codes[0]


GOOD = token(flows=(FLOW,))
MATRIX = {
    "a task's": (task_token(), {}, ""),
    "a step's": (GOOD, {}, ""),
    "none": ("", {}, "no_grant"),
    "too long": ("x" * (bounds.MAX_GRANT_TOKEN_BYTES + 1), {}, "no_grant"),
    "no token": ("x.y.z", {}, "bad_signature"),
    "unsigned": (unsigned(), {}, "bad_signature"),
    "cut": (GOOD[:-8], {}, "bad_signature"),
    "of four parts": (f"{GOOD}.x", {}, "bad_signature"),
    "no base64 in its signature": (f"{GOOD[:-1]}!", {}, "bad_signature"),
    "a list for its head": (f"W10.{GOOD.partition('.')[2]}", {}, "bad_signature"),
    "a head that nests for ever": (f"{'W1tb' * 500}.e30.x", {}, "bad_signature"),
    "claims of another": (
        ".".join([*GOOD.split(".")[:1], *token().split(".")[1:2], GOOD.split(".")[2]]),
        {},
        "bad_signature",
    ),
    "replayed in another task": (GOOD, {"task": "t2"}, "foreign"),
    "replayed in another tenant": (GOOD, {"tenant": "acme"}, "foreign"),
    "foreign task's step": (token(task="t2"), {}, "foreign"),
    "foreign task's parent": (token(parent=task_token(task="t2")), {}, "foreign"),
    "foreign tenant's parent": (token(parent=task_token(tenant="acme")), {}, "foreign"),
    "widened by a tool": (token(tools=("add", "pay")), {}, "widened"),
    "expired": (GOOD, {"now": LATER}, "expired"),
    "step expired": (token(expires_unix_ms=5), {"now": 6}, "expired"),
    "parent expired": (token(parent=task_token(expires_unix_ms=5)), {"now": 6}, "expired"),
    "reordered: a step's as a task's": (token(parent=GOOD), {}, "wrong_issuer"),
    "reordered: signers exchanged": (
        SIGNERS["signer"].sign_grant(step(), parent=task_token("planner")),
        {},
        "wrong_issuer",
    ),
    "no parent": (SIGNERS["planner"].sign_grant(step()), {}, "no_parent"),
    "other parent, of the same tools": (reparented(task_token(actor="eve")), {}, "other_parent"),
    "a worker's own task": (task_token("worker"), {}, "wrong_issuer"),
    "a worker's own step": (token("worker"), {}, "wrong_issuer"),
    "of nobody": (Signer("nobody", new_signing_seed()).sign_grant(top()), {}, "unknown_issuer"),
    "of another mesh": (Signer("signer", new_signing_seed()).sign_grant(top()), {}, "bad_signature"),
}


@pytest.mark.parametrize("name", MATRIX)
def test_grants_by_requests(name):
    grant, request, code = MATRIX[name]
    assert refusal(grant, **request) == code  # type: ignore[arg-type]


def test_an_authority_tells_the_flows_of_its_step_and_the_constraints_of_both():
    parent = task_token(constraints=("add /a range 0..9",))
    grant = token(parent=parent, flows=(FLOW,), constraints=("add /a range 0..5",))
    found = Verifier({name: public_of(seed) for name, seed in SEEDS.items()}).verify_authority(
        grant, tenant="demo", task="t1", now_unix_ms=0
    )
    assert found.step is not None and found.step.flows == (FLOW,)
    assert found.constraints == ("add /a range 0..9", "add /a range 0..5"), "none of a task's is lost in a step"


def test_a_key_is_rotated_without_a_gap_and_the_old_one_ends_when_it_is_taken_out(tmp_path, monkeypatch):
    monkeypatch.setattr(key_file, "LOOK_EVERY_S", 0.0)
    path, keys = tmp_path / "public.json", {name: public_of(seed) for name, seed in SEEDS.items()}
    write(path, keys)
    verifier, seed = Verifier.from_file(path), new_signing_seed()
    second = Signer("signer", seed, "signer#2").sign_grant(top())
    old = token()
    assert refusal(old, verifier=verifier) == "" and refusal(second, verifier=verifier) == "unknown_issuer"
    write(path, {**keys, "signer#2": public_of(seed)})
    assert refusal(old, verifier=verifier) == "" == refusal(second, verifier=verifier)
    assert refusal(token(parent=second), verifier=verifier) == ""
    write(path, {**{name: key for name, key in keys.items() if name != "signer"}, "signer#2": public_of(seed)})
    assert refusal(old, verifier=verifier) == "unknown_issuer", "also where it was verified before"
    assert refusal(second, verifier=verifier) == ""
    path.write_text("{")
    assert refusal(second, verifier=verifier) == "", "a torn file takes no key away"


def write(path, keys) -> None:
    path.write_text(json.dumps(keys))
