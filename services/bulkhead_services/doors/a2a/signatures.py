"""Signatures of agent cards (A2A 1.0, section 8.4: JWS over the canonical card).

In: a private key of the doors, in PEM. Out: signed cards, and the public key as a key set (RFC 7517) that the
signatures name.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from a2a.types import AgentCard
from a2a.utils.signing import ProtectedHeader, create_agent_card_signer
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

PATH = "/.well-known/jwks.json"
HINT = "make one by `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`"


class CardSigner:
    """The key. address: of the doors, as their cards name it."""

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
        header = ProtectedHeader(kid=kid, alg=algorithm, jku=address + PATH, typ="JOSE")
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
