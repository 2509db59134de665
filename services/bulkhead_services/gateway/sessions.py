"""Sessions of people in a browser, and links that begin one: sealed tokens that every replica of the gateway opens, and
nobody else.

In: the digest of an API key, the time. Out: a token, and the digest again until the token expires. A token holds no
key: it is worth nothing once its key has left the key file, or once it has ended (`SessionEnds`). Each is sealed for
its own use: a link's token opens no session, and a session's is no link.
"""

import base64
import binascii
import hashlib
import secrets
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PREFIX, LINK_PREFIX = "bs_", "bl_"
LINK_S = 600
"""A link lasts as long as it takes to read a screen and go to a browser."""
_NONCE_BYTES = 12
_LINK = b"login link"
"""Sealed with a link's token, so that it opens as none of a session."""
_BODY = struct.Struct(">Q32s")


@dataclass(frozen=True, slots=True)
class OpenedToken:
    """Content of a token. session: stands in the place of a task, of its end; a link's begins with `link-`."""

    session: str
    digest: str


class Sessions:
    """key: of the gateway alone, the same in all of its replicas. lasts_s: how long a session is good for."""

    def __init__(self, key: bytes, lasts_s: int) -> None:
        self.lasts_s = lasts_s
        self._box = AESGCM(hashlib.blake2b(key, digest_size=32, person=b"bulkhead-session").digest())

    def seal_token(self, digest: str, now_unix_ms: int) -> str:
        """A token for the owner of the API key with this SHA-256 digest (hexadecimal)."""
        return PREFIX + self._seal(digest, now_unix_ms + self.lasts_s * 1_000, None)

    def open_token(self, token: str, now_unix_ms: int) -> OpenedToken | None:
        """Content of a token; None when it has expired or is none of ours."""
        return self._open(token.removeprefix(PREFIX), now_unix_ms, None, "session")

    def seal_link(self, digest: str, expires_unix_ms: int) -> str:
        """The token of a link that signs this owner in, once."""
        return LINK_PREFIX + self._seal(digest, expires_unix_ms, _LINK)

    def open_link(self, token: str, now_unix_ms: int) -> OpenedToken | None:
        """Content of a link's token; None when it has expired or is none of ours."""
        return self._open(token.removeprefix(LINK_PREFIX), now_unix_ms, _LINK, "link")

    def _seal(self, digest: str, expires_unix_ms: int, use: bytes | None) -> str:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        raw = nonce + self._box.encrypt(nonce, _BODY.pack(expires_unix_ms, bytes.fromhex(digest)), use)
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    def _open(self, text: str, now_unix_ms: int, use: bytes | None, kind: str) -> OpenedToken | None:
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            body = self._box.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], use)
            expires, digest = _BODY.unpack(body)
        except (ValueError, binascii.Error, struct.error, InvalidTag):
            return None
        # By the nonce: the same token can be spelled in several ways.
        return OpenedToken(f"{kind}-{raw[:_NONCE_BYTES].hex()}", digest.hex()) if now_unix_ms < expires else None
