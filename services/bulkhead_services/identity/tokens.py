"""Projected service-account tokens: verified by the key set, each gives its claims or a refusal that says what
to do.

In: a token as the client sent it. Out: TokenClaims, or a LoginRefusal. RS256 and ES256 alone: what a token's
header says chooses among these and no more.
"""

from typing import Any

import jwt

from bulkhead_services.identity.core import LoginRefusal, TokenClaims, bounded_word
from bulkhead_services.identity.key_set import KeySet, KeySetUnavailable
from bulkhead_services.identity.settings import Settings

ALGORITHMS = ("RS256", "ES256")
MAX_TOKEN_CHARS = 3_500
OWN = "mount the projected token of this pod's service account, and set BULKHEAD_NATS_TOKEN_FILE"
_REFUSALS: dict[type[jwt.PyJWTError], tuple[str, str, str]] = {
    jwt.ExpiredSignatureError: (
        "token_expired",
        "the token has expired",
        "show the one that the file holds now; an old file means that the kubelet does not renew it",
    ),
    jwt.ImmatureSignatureError: (
        "token_not_yet_valid",
        "the token is not valid yet",
        "set the clocks of all nodes by NTP",
    ),
    jwt.InvalidAudienceError: (
        "wrong_audience",
        "the token is made for another audience",
        "set `audience` of the projected token to BULKHEAD_TOKEN_AUDIENCE of identity",
    ),
    jwt.InvalidIssuerError: (
        "wrong_issuer",
        "the token is of another issuer",
        "set BULKHEAD_TOKEN_ISSUER of identity to this cluster's (kubectl get --raw /.well-known/openid-configuration)",
    ),
    jwt.InvalidSignatureError: ("bad_signature", "the token's signature is wrong", OWN),
    jwt.InvalidAlgorithmError: (
        "algorithm_refused",
        f"the token is not signed by {' or '.join(ALGORITHMS)}, as its key is for",
        OWN,
    ),
    jwt.MissingRequiredClaimError: ("claim_missing", "the token lacks one of exp, iat, iss, aud, sub", OWN),
}


class LoginTokenVerifier:
    """Verifies tokens."""

    def __init__(self, settings: Settings, keys: KeySet) -> None:
        self._settings, self._keys = settings, keys

    async def verify_token(self, token: str) -> TokenClaims | LoginRefusal:
        """Claims of a token, or why it counts for nothing."""
        if not token:
            return LoginRefusal("no_token", "the client showed no token", OWN)
        if len(token) > MAX_TOKEN_CHARS:
            return LoginRefusal("token_malformed", f"the token has more than {MAX_TOKEN_CHARS} characters", OWN)
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise jwt.InvalidAlgorithmError
            kid = header.get("kid")
            key = await self._keys.find_key(kid) if isinstance(kid, str) else None
            if key is None:
                hint = "wait until identity has read the key set again, or mount a token of this cluster"
                return LoginRefusal(
                    "unknown_key", "the token is signed with a key that is not in the cluster's set", hint
                )
            return self._claims_of(jwt.decode(token, key, **self._decode_options()))
        except KeySetUnavailable as error:
            hint = "mend BULKHEAD_KEY_SET_URL or _FILE of identity, its CA or its right to read the set"
            return LoginRefusal("keys_unavailable", str(error), hint)
        except jwt.PyJWTError as error:
            refusal_words = next((row for kind, row in _REFUSALS.items() if isinstance(error, kind)), None)
            return LoginRefusal(*(refusal_words or ("token_malformed", "the token cannot be read as a JWT", OWN)))

    def _decode_options(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "algorithms": list(ALGORITHMS),
            "audience": settings.token_audience,
            "issuer": settings.token_issuer,
            "options": {"require": ["exp", "iat", "iss", "aud", "sub"]},
            "leeway": settings.token_leeway_s,
        }

    def _claims_of(self, claims: dict[str, Any]) -> TokenClaims:
        of_cluster = claims.get("kubernetes.io")
        pod = of_cluster.get("pod") if isinstance(of_cluster, dict) else None
        name = pod.get("name") if isinstance(pod, dict) else None
        return TokenClaims(
            subject=bounded_word(claims["sub"]),
            issued_s=int(claims["iat"]),
            expires_s=int(claims["exp"]),
            token_id=bounded_word(claims.get("jti")),
            pod=bounded_word(name),
        )
