"""Ids of MCP sessions: each names, signed, whose it is, so that any replica knows its own without keeping one.

In: a caller. Out: an id that no other tenant or person can use, and that nobody makes up.
"""

import hashlib
import hmac
import secrets

from bulkhead_contracts.task import RequesterClaim

NONCE_CHARS = 32


class SessionIds:
    """message_key: of the service, which all its replicas have."""

    def __init__(self, message_key: bytes) -> None:
        self._key = hashlib.blake2b(message_key, digest_size=32, person=b"bulkhead-mcp").digest()

    def new_session_id(self, claim: RequesterClaim) -> str:
        """An id for a session of this caller."""
        nonce = secrets.token_hex(NONCE_CHARS // 2)
        return nonce + self._session_mac(claim, nonce)

    def belongs_to(self, session: str, claim: RequesterClaim) -> bool:
        """True when it was given to this caller."""
        nonce, mac = session[:NONCE_CHARS], session[NONCE_CHARS:]
        return hmac.compare_digest(mac.encode("utf-8", "replace"), self._session_mac(claim, nonce).encode())

    def _session_mac(self, claim: RequesterClaim, nonce: str) -> str:
        content = "\0".join((claim.tenant, claim.person, nonce)).encode("utf-8", "replace")
        return hashlib.blake2b(content, digest_size=16, key=self._key).hexdigest()
