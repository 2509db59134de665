"""Tokens that let nobody in, at a real broker; each refusal is a fact with its code, and no token stands anywhere."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.eventually import until
from tests.integration.identity.world import AUDIENCE, Issuer, World, running, signed

pytestmark = pytest.mark.asyncio(loop_scope="module")
Make = Callable[[Issuer], str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    async with running(tmp_path_factory.mktemp("identity")) as found:
        yield found


def _of(service: str = "worker", **changes) -> Make:
    return lambda issuer: issuer.token(service, **changes)


def _part(value: dict) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _unsigned(issuer: Issuer) -> str:
    return f"{_part({'alg': 'none', 'typ': 'JWT', 'kid': 'first'})}.{_part(issuer.claims('worker'))}."


def _public_key_as_secret(issuer: Issuer) -> str:
    text = f"{_part({'alg': 'HS256', 'typ': 'JWT', 'kid': 'first'})}.{_part(issuer.claims('worker'))}"
    public = issuer.keys["first"].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    mac = hmac.new(pem, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _own_key(issuer: Issuer, kid: str = "first") -> str:
    return signed(issuer.claims("worker"), rsa.generate_private_key(65537, 2048), kid)


def _key_in_the_header(issuer: Issuer) -> str:
    own = rsa.generate_private_key(65537, 2048)
    brought = jwt.algorithms.RSAAlgorithm.to_jwk(own.public_key(), as_dict=True)
    header = {"kid": "first", "jwk": brought, "jku": "https://evil.invalid/keys", "x5u": "https://evil.invalid/cert"}
    return jwt.encode(issuer.claims("worker"), own, "RS256", header)


def _altered(issuer: Issuer) -> str:
    head, _, signature = issuer.token("worker").split(".")
    return f"{head}.{_part(issuer.claims('budget'))}.{signature}"


TOKENS: dict[str, tuple[str, Make]] = {
    "no token": ("no_token", lambda issuer: ""),
    "garbage": ("token_malformed", lambda issuer: "a.b.c"),
    "too long": ("token_malformed", lambda issuer: "x" * 3_501),
    "a kid that is no text": ("token_malformed", lambda issuer: f"{_part({'alg': 'RS256', 'kid': 7})}.e30.AA"),
    "unknown service account": ("unknown_subject", _of("stranger")),
    "another namespace": ("unknown_subject", _of(sub="system:serviceaccount:evil:worker")),
    "a person": ("unknown_subject", _of(sub="worker")),
    "identity itself": ("unknown_subject", _of("identity")),
    "a service's name in the mesh": ("unknown_subject", _of(sub="system:serviceaccount:bulkhead:model_gateway")),
    "another audience": ("wrong_audience", _of(aud=["https://kubernetes.default.svc"])),
    "no audience": ("claim_missing", _of(aud=None)),
    "a longer audience": ("wrong_audience", _of(aud=f"{AUDIENCE}-2")),
    "another issuer": ("wrong_issuer", _of(iss="https://evil.invalid")),
    "no issuer": ("claim_missing", _of(iss=None)),
    "expired": ("token_expired", _of(lasts_s=-60)),
    "expired within the leeway": ("token_expired", _of(lasts_s=-3)),
    "no end": ("claim_missing", _of(exp=None)),
    "not yet valid": ("token_not_yet_valid", lambda issuer: issuer.token("worker", nbf=int(time.time()) + 600)),
    "made to last for ever": ("token_lasts_too_long", _of(lasts_s=10 * 86_400)),
    "another's key under a known id": ("bad_signature", _own_key),
    "another's key under its own id": ("unknown_key", lambda issuer: _own_key(issuer, "mine")),
    "a key that it brings itself": ("bad_signature", _key_in_the_header),
    "claims of another": ("bad_signature", _altered),
    "alg none": ("algorithm_refused", _unsigned),
    "HS256 with the public key as secret": ("algorithm_refused", _public_key_as_secret),
    "RS512": (
        "algorithm_refused",
        lambda issuer: jwt.encode(issuer.claims("worker"), issuer.keys["first"], "RS512", {"kid": "first"}),
    ),
    "ES256 under the id of an RSA key": (
        "algorithm_refused",
        lambda issuer: signed(issuer.claims("worker"), ec.generate_private_key(ec.SECP256R1()), "first"),
    ),
}


@pytest.mark.parametrize("what", TOKENS)
async def test_a_token_that_is_not_good_lets_nobody_in(world: World, what: str):
    code, make = TOKENS[what]
    token = make(world.issuer)
    before = world.broker_log().count("Auth callout service returned an error")
    assert await world.refused(token)
    # The broker tells each; identity tells a kind once in ten seconds, and then how many more there were.
    said = await until(lambda: world.broker_log().split("Auth callout service returned an error")[before + 1 :])
    assert said[0].startswith(f": {code}: ")


async def test_each_refusal_is_a_fact_with_its_hint_and_without_the_token(world: World):
    await world.refused(world.issuer.token("stranger"))
    codes = {code for code, _ in TOKENS.values()}
    facts = await until(lambda: _with(world, codes), "facts of all codes", timeout_s=30, every_s=0.5)
    assert all(not one["granted"] and ";" in one["reason"] for one in facts if one["code"] in codes)
    text = json.dumps(facts)
    # Three parts that begin as every JWT does: none stands in any fact, and none in any log.
    assert "eyJ" not in text
    assert all("eyJ" not in path.read_text(errors="replace") for path in world.folder.glob("**/*.log"))


async def _with(world: World, codes: set[str]):
    found = await world.facts()
    return found if codes <= {one["code"] for one in found} else None


async def test_who_asks_for_another_service_is_refused(world: World):
    """A worker's token, with the user name of another: by nats-py it cannot even be said together."""
    token = world.issuer.token("worker")
    said = await world.raw_login({"auth_token": token, "user": "budget", "name": "budget-0"})
    assert "authorization violation" in said.lower()
    assert "PONG" in await world.raw_login({"auth_token": token, "user": "worker", "name": "budget-0"})


async def test_the_name_of_a_client_chooses_nothing(world: World):
    async with world.client(world.issuer.token("worker"), "budget", name="budget-0") as client:
        [mine] = [one for one in await world.connections() if one.get("name") == "budget-0"]
        assert (mine["account"], mine["authorized_user"]) == ("SVC_WORKER", "worker")
        assert "eyJ" not in json.dumps(mine), "the monitoring port must not show the token"
        denied: list[str] = []
        client._error_cb = lambda error: _note(denied, error)
        await client.subscribe("_INBOX_budget.>")
        await client.subscribe("rpc.*.budget.>", queue="budget")
        await client.publish("mesh.budget.planner.3.demo.t1.-", b"{}")
        await client.flush()
        await client.flush()
        assert len(denied) == 3 and all("permissions violation" in one.lower() for one in denied)


async def _note(found: list[str], error: Exception) -> None:
    found.append(str(error))


async def test_an_nkey_of_a_service_is_worth_nothing_here(world: World):
    for options in ({"user": "worker", "password": "worker"}, {"nkeys_seed_str": _stranger()}):
        with pytest.raises(Exception, match=r"(?i)authorization violation"):
            await world.connect("", **options)


def _stranger() -> str:
    import nkeys

    return nkeys.encode_seed(b"\x07" * 32, nkeys.PREFIX_BYTE_USER).decode()
