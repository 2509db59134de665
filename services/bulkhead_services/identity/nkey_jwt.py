"""JWTs as nats-server signs and reads them: `ed25519-nkey`, the issuer's nkey in `iss`.

In: claims and a key pair; or the broker's question. Out: a JWT; checked claims, or NotFromTheBroker.
"""

import base64
import binascii
import hashlib
import json
from typing import Any

import nkeys
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
QUESTION_AUDIENCE = "nats-authorization-request"
QUESTION_TYPE = "authorization_request"
MAX_QUESTION_BYTES = 64 * 1024


class NotFromTheBroker(ValueError):
    """Bytes on the callout's subject that are no question of a broker."""


def encode(claims: dict[str, Any], pair: nkeys.KeyPair) -> str:
    """A signed JWT; its `jti` is a digest of the claims, as everywhere in NATS."""
    digest = hashlib.new("sha512_256", json.dumps(claims, sort_keys=True).encode()).digest()
    named = {**claims, "jti": base64.b32encode(digest).decode().rstrip("=")}
    text = f"{_part(HEADER)}.{_part(named)}"
    return f"{text}.{_base64(pair.sign(text.encode()))}"


def question(text: bytes, now_s: int) -> dict[str, Any]:
    """The claims of a broker's question, signed by the server that it names and not over. Raises NotFromTheBroker."""
    if len(text) > MAX_QUESTION_BYTES:
        raise NotFromTheBroker("too long")
    try:
        signed, _, signature = text.decode().rpartition(".")
        head, _, body = signed.partition(".")
        header, claims = json.loads(_bytes(head)), json.loads(_bytes(body))
        if header.get("alg") != HEADER["alg"]:
            raise NotFromTheBroker("another algorithm than ed25519-nkey")
        server = claims["nats"]["server_id"]["id"]
        if claims["aud"] != QUESTION_AUDIENCE or claims["nats"]["type"] != QUESTION_TYPE or claims["iss"] != server:
            raise NotFromTheBroker("no authorization request of the server that it names")
        VerifyKey(_server_key(server)).verify(signed.encode(), _bytes(signature))
        if not now_s - 60 <= int(claims["exp"]):
            raise NotFromTheBroker("it is long over")
    except (ValueError, KeyError, TypeError, AttributeError, CryptoError) as error:
        raise NotFromTheBroker(f"it cannot be read: {error}") from error
    assert isinstance(claims, dict)
    return claims


def _server_key(nkey: str) -> bytes:
    raw = base64.b32decode(nkey.encode() + b"=" * (-len(nkey) % 8))
    if raw[:1] != bytes((nkeys.PREFIX_BYTE_SERVER,)) or bytes(nkeys.crc16_checksum(bytearray(raw[:-2]))) != raw[-2:]:
        raise NotFromTheBroker("no server's nkey")
    return raw[1:-2]


def _part(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise NotFromTheBroker("no base64") from error
