"""Agent cards: signed by a key of the doors, checked by the official client; skills by role of the tenant."""

from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from a2a.client import A2ACardResolver
from a2a.client.card_resolver import parse_agent_card
from a2a.client.client import ClientConfig
from a2a.client.client_factory import ClientFactory
from a2a.compat.v0_3.types import AgentCard as CardBefore
from a2a.types import AgentCard, GetExtendedAgentCardRequest
from a2a.utils.signing import InvalidSignaturesError, NoSignatureError, create_signature_verifier
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.protobuf.json_format import ParseDict

from bulkhead_services.doors.a2a.card import VERSIONS
from bulkhead_services.doors.a2a.routes import CARD, A2aRoutes
from bulkhead_services.doors.app import build
from bulkhead_services.doors.http.gateway_pool import GatewayPool
from bulkhead_services.doors.http.routes import DoorsHttp
from bulkhead_services.doors.settings import Settings
from tests.integration.doors.desk import KEY, Keys, ScriptedDesk

URL = "https://doors.example"
KINDS = {"ec": lambda: ec.generate_private_key(ec.SECP256R1()), "ed": ed25519.Ed25519PrivateKey.generate}
ALGORITHMS = ["ES256", "EdDSA"]


def key_file(folder: Path, kind: str) -> Path:
    path = folder / "card.pem"
    path.write_bytes(KINDS[kind]().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def door(**more: Any) -> httpx.AsyncClient:
    """HTTP to an agent door without a mesh."""
    settings = Settings(http_port=0, nats_url="nats://127.0.0.1:1", gateway_url="http://127.0.0.1:1", **more)

    async def ready() -> str:
        return ""

    http = DoorsHttp(settings, Keys(), ScriptedDesk(), ready)
    http.more = [*A2aRoutes(settings, http, GatewayPool(settings.gateway_url)).build_routes()]
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(http.build_app()), base_url=URL, headers=headers)


async def verifier(http: httpx.AsyncClient) -> Any:
    """Checks by the keys that the doors publish, and by no others."""
    published = (await http.get("/.well-known/jwks.json")).json()
    found = {one.key_id: one for one in jwt.PyJWKSet.from_dict(published).keys}

    def key(kid: str | None, jku: str | None) -> jwt.PyJWK:
        assert jku == f"{URL}/.well-known/jwks.json"
        return found[kid]

    return create_signature_verifier(key, ALGORITHMS)


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_both_cards_are_signed_and_the_official_client_takes_them(tmp_path, kind):
    async with door(public_url=URL, card_key_file=key_file(tmp_path, kind)) as http:
        verify = await verifier(http)
        card = await A2ACardResolver(http, URL).get_agent_card(signature_verifier=verify)
        assert len(card.signatures) == 1 and {one.url for one in card.supported_interfaces} == {f"{URL}/a2a"}
        client = ClientFactory(ClientConfig(httpx_client=http)).create(card)
        extended = await client.get_extended_agent_card(GetExtendedAgentCardRequest(), signature_verifier=verify)
        assert extended.signatures and "At most" in extended.skills[0].description


async def test_a_card_has_the_names_of_the_version_that_its_client_names_and_no_others():
    async with door(public_url=URL) as http:
        card = {version: (await http.get(CARD, headers={"A2A-Version": version})).json() for version in VERSIONS}
        both = (await http.get(CARD)).json()
        patched = (await http.get(CARD, params={"A2A-Version": "1.0.1"})).json()
    ParseDict(card["1.0"], AgentCard(), ignore_unknown_fields=False)
    assert CardBefore.model_validate(card["0.3"]).url and "supportedInterfaces" not in card["0.3"]
    assert {"url", "supportedInterfaces"} <= both.keys() and "url" not in card["1.0"] and patched == card["1.0"]
    assert CardBefore.model_validate(both).url == f"{URL}/a2a", "who says no version speaks 0.3"
    assert {row.protocol_version for row in parse_agent_card(both).supported_interfaces} == set(VERSIONS)


async def test_a_card_that_was_changed_on_its_way_or_bears_no_signature_is_refused(tmp_path):
    async with door(public_url=URL, card_key_file=key_file(tmp_path, "ec")) as http:
        verify = await verifier(http)
        card = await A2ACardResolver(http, URL).get_agent_card()
    changed = AgentCard.FromString(card.SerializeToString())
    changed.supported_interfaces[0].url = "https://evil.example/a2a"
    with pytest.raises(InvalidSignaturesError):
        verify(changed)
    async with door(public_url=URL) as http:
        with pytest.raises(NoSignatureError):
            verify(await A2ACardResolver(http, URL).get_agent_card())
        assert (await http.get("/.well-known/jwks.json")).status_code == 404


async def test_a_signed_card_names_the_address_of_the_settings_and_its_tag_stands(tmp_path):
    async with door(public_url=URL, card_key_file=key_file(tmp_path, "ec")) as http:
        first = await http.get("/.well-known/agent-card.json", headers={"Host": "6.6.6.6"})
        assert first.status_code == 200 and "6.6.6.6" not in first.text
        again = await http.get("/.well-known/agent-card.json", headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304


async def test_keys_that_cannot_sign_stop_the_start_with_a_way_out(tmp_path):
    path = tmp_path / "key.pem"
    other = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for raw in (b"", b"no key", other):
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=r"BULKHEAD_CARD_KEY_FILE.*openssl genpkey"):
            door(public_url=URL, card_key_file=path)
    with pytest.raises(ValueError, match="BULKHEAD_PUBLIC_URL"):
        build(None, Settings(nats_url="nats://127.0.0.1:1", card_key_file=path))  # type: ignore[arg-type]


async def test_an_extended_card_has_a_skill_for_each_role_of_the_tenant(tmp_path):
    tenants = tmp_path / "tenants.yaml"
    rows = "delegated_roles: {desk: {to: worker, identity: d}, books: {to: worker, identity: b}}"
    tenants.write_text(f"tenants:\n  acme:\n    tools: []\n    {rows}\n  other: {{tools: []}}\n")
    async with door(tenants_file=tenants, public_url=URL) as http:
        card = (await http.get("/a2a/extendedAgentCard", headers={"A2A-Version": "1.0"})).json()
    assert [skill["id"] for skill in card["skills"]] == ["task", "role.books", "role.desk"], card


@pytest.mark.parametrize("path", ["/a2a", "/a2a/message:send"])
async def test_a_body_that_programs_may_read_differently_is_refused(path: str) -> None:
    async with door(public_url=URL) as http:
        headers = {"Content-Type": "application/json", "A2A-Version": "1.0"}
        refused = await http.post(path, content=b'{"message": {"messageId": "a", "messageId": "b"}}', headers=headers)
    assert refused.status_code == 400 and "holds the key 'messageId' twice" in refused.json()["error"]["message"]
