"""Callers' own tokens (JWTs): verified against a key set, each is a claim of who asks, or a refusal with its
reason.

In: settings, tokens. Out: a RequesterClaim; Unauthenticated, CallerKeysUnavailable. The gateway verifies a
token when it comes; the signer verifies the same token once more, so that a compromised gateway cannot
ask in the name of who sent none.
"""

import json
import time
from pathlib import Path

import httpx
import jwt
from pydantic import Field, ValidationError, field_validator

from bulkhead.callers.api_keys import PEOPLE_ONLY
from bulkhead.runtime.settings import ServiceSettings
from bulkhead.telemetry.log import Log
from bulkhead_contracts.task import CALLER_ROLES, RequesterClaim

log = Log("callers.tokens")
SYMMETRIC = ("HS256", "HS384", "HS512", "NONE")
MAX_JWKS_BYTES = 256 * 1024
JWKS_TIMEOUT_S = 5.0
JWKS_MIN_AGE_S = 30.0
JWKS_MAX_AGE_S = 3_600.0


class TokenSettings(ServiceSettings):
    """jwt_*: which tokens of callers are accepted; gateway and signer need the same."""

    jwt_jwks_file: Path | None = None
    jwt_jwks_url: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = "bulkhead"
    jwt_algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    jwt_leeway_s: int = Field(default=30, ge=0, le=300)

    @field_validator("jwt_algorithms")
    @classmethod
    def _check_asymmetric(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        # With a shared secret (or none) whoever can verify a token can also make one.
        weak = [name for name in value if name.upper() in SYMMETRIC]
        if weak:
            raise ValueError(f"{', '.join(weak)}: only asymmetric algorithms; for example RS256, ES256, EdDSA")
        return value


class Unauthenticated(Exception):
    """A credential that names nobody here, or none at all; hint: what the caller does."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class CallerKeysUnavailable(Exception):
    """The key set cannot be read, and none is known."""


class CallerTokens:
    """Verifies tokens. An unknown key id makes it look at the key set again, not too often."""

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at = -JWKS_MAX_AGE_S

    @property
    def is_configured(self) -> bool:
        """True if tokens are accepted at all."""
        return self._settings.jwt_jwks_file is not None or bool(self._settings.jwt_jwks_url)

    def check_settings(self) -> None:
        """Raises ValueError for settings that would let tokens of anybody pass."""
        if self.is_configured and not self._settings.jwt_issuer:
            raise ValueError("BULKHEAD_JWT_ISSUER is required with a JWKS: tokens of any issuer would pass otherwise")

    async def claim_of_token(self, token: str) -> RequesterClaim:
        """Claim that the token makes. Raises Unauthenticated, CallerKeysUnavailable."""
        settings = self._settings
        if not self.is_configured:
            raise Unauthenticated("this mesh accepts no JWTs", "use an API key, or configure a JWKS")
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = await self._find_key(kid) if isinstance(kid, str) else None
            if key is None:
                raise Unauthenticated("the token is signed with a key that is not in the JWKS", "get a new token")
            claims = jwt.decode(
                token,
                key,
                algorithms=list(settings.jwt_algorithms),
                audience=settings.jwt_audience,
                issuer=settings.jwt_issuer,
                leeway=settings.jwt_leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            # RFC 8693: somebody acts for the subject, whatever the claim says of it.
            claim_fields = {"person": claims["sub"], "via": "jwt", "agent": "act" in claims}
            claim = RequesterClaim.model_validate(
                claim_fields | {name: claims.get(name) for name in ("tenant", "role")}
            )
            if claim.agent and claim.role in PEOPLE_ONLY:
                message = f"the token lets an agent act (claim act) as {claim.role}, which people alone may be"
                raise Unauthenticated(message, "get a token for a submitter or an auditor")
            return claim
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated("the token has expired", "get a new one") from error
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the token is not valid: {error}", "get a token for this mesh") from error
        except ValidationError as error:
            field = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
            claim_name = "sub" if field == "person" else field
            hint = f"tokens need tenant, sub and role ({', '.join(CALLER_ROLES)})"
            raise Unauthenticated(f"the token's claim {claim_name} is missing or does not fit", hint) from error

    async def _find_key(self, kid: str) -> jwt.PyJWK | None:
        age = time.monotonic() - self._read_at
        if age > JWKS_MAX_AGE_S or (kid not in self._keys and age > JWKS_MIN_AGE_S):
            await self._load_keys()
        return self._keys.get(kid)

    async def _load_keys(self) -> None:
        self._read_at = time.monotonic()
        try:
            key_set = json.loads(await self._fetch_key_set())
            self._keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(key_set).keys if key.key_id}
        except (OSError, ValueError, httpx.HTTPError, jwt.PyJWTError) as error:
            log.error("jwks_unreadable", reason=str(error))
            if not self._keys:
                self._read_at = -JWKS_MAX_AGE_S
                raise CallerKeysUnavailable("the key set that verifies tokens cannot be read") from error

    async def _fetch_key_set(self) -> bytes:
        if self._settings.jwt_jwks_file is not None:
            return self._settings.jwt_jwks_file.read_bytes()
        async with httpx.AsyncClient(timeout=JWKS_TIMEOUT_S) as client:
            answer = await client.get(self._settings.jwt_jwks_url)
            answer.raise_for_status()
            if len(answer.content) > MAX_JWKS_BYTES:
                raise ValueError("the JWKS is too large")
            return answer.content
