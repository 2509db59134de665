"""Sessions of people in a browser: sealed tokens that every replica of the gateway opens, and nobody else.

In: the digest of an API key, the time. Out: a token, and the digest again until the token expires. A token holds no
key: it is worth nothing once its key has left the key file, or its session has ended (`SessionEnds`).
"""

import base64
import binascii
import hashlib
import secrets
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PREFIX = "bs_"
_NONCE_BYTES = 12
_BODY = struct.Struct(">Q32s")


@dataclass(frozen=True, slots=True)
class OpenedToken:
    """Content of a token. session: stands in the place of a task, of its end."""

    session: str
    digest: str


class Sessions:
    """key: of the gateway alone, the same in all of its replicas. lasts_s: how long a session is good for."""

    def __init__(self, key: bytes, lasts_s: int) -> None:
        self.lasts_s = lasts_s
        self._box = AESGCM(hashlib.blake2b(key, digest_size=32, person=b"bulkhead-session").digest())

    def seal_token(self, digest: str, now_unix_ms: int) -> str:
        """A token for the owner of the API key with this SHA-256 digest (hexadecimal)."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        body = _BODY.pack(now_unix_ms + self.lasts_s * 1_000, bytes.fromhex(digest))
        raw = nonce + self._box.encrypt(nonce, body, None)
        return PREFIX + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    def open_token(self, token: str, now_unix_ms: int) -> OpenedToken | None:
        """Content of a token; None when it has expired or is none of ours."""
        try:
            text = token.removeprefix(PREFIX)
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            expires, digest = _BODY.unpack(self._box.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], None))
        except (ValueError, binascii.Error, struct.error, InvalidTag):
            return None
        # By the nonce: the same token can be spelled in several ways.
        return OpenedToken(f"session-{raw[:_NONCE_BYTES].hex()}", digest.hex()) if now_unix_ms < expires else None
