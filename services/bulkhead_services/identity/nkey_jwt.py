"""JWTs as nats-server signs and reads them: `ed25519-nkey`, the issuer's nkey in `iss`.

In: claims and a key pair; or the broker's question. Out: a JWT; checked claims, or InvalidBrokerQuestion.
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


class InvalidBrokerQuestion(ValueError):
    """Bytes on the callout's subject that are no question of a broker."""


def encode_jwt(claims: dict[str, Any], pair: nkeys.KeyPair) -> str:
    """A signed JWT; its `jti` is a digest of the claims, as everywhere in NATS."""
    digest = hashlib.new("sha512_256", json.dumps(claims, sort_keys=True).encode()).digest()
    named = {**claims, "jti": base64.b32encode(digest).decode().rstrip("=")}
    text = f"{_encode_part(HEADER)}.{_encode_part(named)}"
    return f"{text}.{_encode_base64(pair.sign(text.encode()))}"


def verify_question(text: bytes, now_s: int) -> dict[str, Any]:
    """The claims of a broker's question, signed by the server that it names and not over. Raises
    InvalidBrokerQuestion.
    """
    if len(text) > MAX_QUESTION_BYTES:
        raise InvalidBrokerQuestion("too long")
    try:
        signed, _, signature = text.decode().rpartition(".")
        head, _, body = signed.partition(".")
        header, claims = json.loads(_decode_base64(head)), json.loads(_decode_base64(body))
        if header.get("alg") != HEADER["alg"]:
            raise InvalidBrokerQuestion("another algorithm than ed25519-nkey")
        server = claims["nats"]["server_id"]["id"]
        if claims["aud"] != QUESTION_AUDIENCE or claims["nats"]["type"] != QUESTION_TYPE or claims["iss"] != server:
            raise InvalidBrokerQuestion("no authorization request of the server that it names")
        VerifyKey(_server_key(server)).verify(signed.encode(), _decode_base64(signature))
        if not now_s - 60 <= int(claims["exp"]):
            raise InvalidBrokerQuestion("it is long over")
    except (ValueError, KeyError, TypeError, AttributeError, CryptoError) as error:
        raise InvalidBrokerQuestion(f"it cannot be read: {error}") from error
    assert isinstance(claims, dict)
    return claims


def _server_key(nkey: str) -> bytes:
    raw = base64.b32decode(nkey.encode() + b"=" * (-len(nkey) % 8))
    if raw[:1] != bytes((nkeys.PREFIX_BYTE_SERVER,)) or bytes(nkeys.crc16_checksum(bytearray(raw[:-2]))) != raw[-2:]:
        raise InvalidBrokerQuestion("no server's nkey")
    return raw[1:-2]


def _encode_part(value: dict[str, Any]) -> str:
    return _encode_base64(json.dumps(value, separators=(",", ":")).encode())


def _encode_base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode_base64(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise InvalidBrokerQuestion("no base64") from error
