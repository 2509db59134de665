"""The agent card. In: the address under which a client has come, and a tenant's tools. Out: the card.

The public card says how to come in; who has come in is shown the tools and ceilings of his tenant. A private key of the
doors signs both (A2A 1.0, section 8.4: JWS over the canonical card); its public key is a key set (RFC 7517) that the
signatures name.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from a2a.compat.v0_3.conversions import to_compat_agent_card
from a2a.server.request_handlers.response_helpers import agent_card_to_dict
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    APIKeySecurityScheme,
    HTTPAuthSecurityScheme,
    SecurityRequirement,
    SecurityScheme,
    StringList,
)
from a2a.utils.signing import ProtectedHeader, create_agent_card_signer
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from google.protobuf.json_format import MessageToDict
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from bulkhead_contracts.task import TaskLimits

PATH = "/a2a"
OUTPUT_MODES = ("text/plain", "application/json")
VERSIONS = ("1.0", "0.3")
BINDINGS = ("JSONRPC", "HTTP+JSON")
SKILL, TASK, ROLE, WORKFLOW = "skill", "task", "role.", "workflow."
"""Name of a message's metadata in which it asks for a skill; the skill of every tenant; beginning of a role's, and of a
published workflow's."""
KEYS_PATH = "/.well-known/jwks.json"
HINT = "make one by `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`"


def public_card(address: str, push: bool = False) -> AgentCard:
    """The card that everybody may read. address: scheme and host, without a path. push: whether any tenant has push
    notifications."""
    interfaces = [
        AgentInterface(url=address + PATH, protocol_binding=binding, protocol_version=version)
        for version in VERSIONS
        for binding in BINDINGS
    ]
    return AgentCard(
        name="Bulkhead",
        description="Agents that plan a task, work on it within ceilings of money, tokens and time, check the answer "
        "and cite its sources.",
        version="1",
        supported_interfaces=interfaces,
        capabilities=AgentCapabilities(streaming=True, push_notifications=push, extended_agent_card=True),
        security_schemes={
            "bearer": SecurityScheme(
                http_auth_security_scheme=HTTPAuthSecurityScheme(
                    scheme="bearer", description="An API key of the mesh, or a JWT."
                )
            ),
            "apiKey": SecurityScheme(api_key_security_scheme=APIKeySecurityScheme(location="header", name="X-API-Key")),
        },
        security_requirements=[SecurityRequirement(schemes={name: StringList()}) for name in ("bearer", "apiKey")],
        default_input_modes=["text/plain"],
        default_output_modes=list(OUTPUT_MODES),
        skills=[
            _task_skill("Says in plain words what is to be done; the answer is text with its citations.", ["task"])
        ],
    )


def extended_card(
    address: str,
    tools: Sequence[str] | None,
    roles: Sequence[str],
    most: TaskLimits,
    push: bool = False,
    workflows: Iterable[Mapping[str, Any]] = (),
) -> AgentCard:
    """The card for one tenant. tools: None where no policy names them. roles: those that a message may ask for. most:
    ceilings of one of its tasks. push: whether it has push notifications. workflows: rows of published ones."""
    card = public_card(address, push)
    named = ", ".join(tools) if tools else "none" if tools is not None else "those that the mesh allows"
    usd, minutes = most.cost_usd_micros / 1_000_000, most.deadline_ms / 60_000
    ceilings = f"At most {usd:g} USD, {most.tokens:,} tokens and {minutes:g} minutes for one task."
    description = f"Works on what a text says, with tools: {named}. {ceilings}"
    del card.skills[:]
    card.skills.append(_task_skill(description, ["task", *(tools or ())]))
    card.skills.extend(map(_role_skill, roles))
    card.skills.extend(map(_workflow_skill, workflows))
    return card


def card_document(agent_card: AgentCard, version: str) -> dict[str, Any]:
    """The card as JSON, with the names of one version of the protocol. A client that says none speaks 0.3 (A2A 1.0,
    section 3.6.2); it gets the names of both, for the official 1.0 clients look for a card without saying theirs.
    """
    if version == VERSIONS[0]:
        document: dict[str, Any] = MessageToDict(agent_card)
        return document
    if version == VERSIONS[1]:
        return to_compat_agent_card(agent_card).model_dump(mode="json", exclude_none=True)
    return agent_card_to_dict(agent_card)


def _task_skill(description: str, tags: Iterable[str]) -> AgentSkill:
    example = "Which of our suppliers raised prices this year, and by how much?"
    return AgentSkill(id=TASK, name="Carry out a task", description=description, tags=list(tags), examples=[example])


def _role_skill(role: str) -> AgentSkill:
    name = ROLE + role
    description = f"One step, carried out by {role} and checked: send `{SKILL}: {name}` in the message's metadata."
    return AgentSkill(id=name, name=f"Ask {role}", description=description, tags=["role", role])


def _workflow_skill(row: Mapping[str, Any]) -> AgentSkill:
    name = WORKFLOW + row["workflow"]
    how = f"Send `{SKILL}: {name}` in the message's metadata, and the values of its parameters as a JSON object."
    description = f"{row['description']} {how}".strip()
    return AgentSkill(id=name, name=f"Run {row['workflow']}", description=description, tags=["workflow"])


class CardSigner:
    """The key that signs cards. address: of the doors, as their cards name it."""

    def __init__(self, path: Path, address: str) -> None:
        """Raises ValueError for a file that holds no such key."""
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"BULKHEAD_CARD_KEY_FILE: {path} holds no private key in PEM ({error}); {HINT}") from error
        self._public: dict[str, Any]
        if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
            algorithm, self._public = "ES256", ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        elif isinstance(key, Ed25519PrivateKey):
            algorithm, self._public = "EdDSA", OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
        else:
            raise ValueError(f"BULKHEAD_CARD_KEY_FILE: {path} holds a key of another kind; {HINT}, or one of Ed25519")
        kid = _key_thumbprint(self._public)
        self._public |= {"kid": kid, "alg": algorithm, "use": "sig"}
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        header = ProtectedHeader(kid=kid, alg=algorithm, jku=address + KEYS_PATH, typ="JOSE")
        self._sign = create_agent_card_signer(pem, header)

    def sign_card(self, card: AgentCard) -> AgentCard:
        """The card, with a signature."""
        return self._sign(card)

    def public_keys(self) -> dict[str, Any]:
        """The key set by which the signatures are checked."""
        return {"keys": [self._public]}


def _key_thumbprint(public: dict[str, Any]) -> str:
    """The key's name (RFC 7638)."""
    members = {name: public[name] for name in ("crv", "kty", "x", "y") if name in public}
    digest = hashlib.sha256(json.dumps(members, sort_keys=True, separators=(",", ":")).encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
