"""Authentication: an API key or a JWT becomes a RequesterClaim, or a 401 that says why.

In: request headers. Out: tenant, person, role. API keys are stored as SHA-256 digests; a key carries 256 random
bits, so a plain digest is enough (nothing to guess). JWTs are checked against a JWKS by an asymmetric algorithm.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import httpx
import jwt
from pydantic import Field, ValidationError
from starlette.requests import Request

from bulkhead.telemetry.log import Log
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.types import Contract, Name, Sha256, Token
from bulkhead_services.gateway.problems import forbidden, unauthorized, unavailable
from bulkhead_services.gateway.settings import Settings

log = Log("gateway.auth")
KEY_PREFIX = "bk_"
MAX_CREDENTIAL_CHARS = 8_192
MAX_API_KEYS = 10_000
MAX_JWKS_BYTES = 256 * 1024
JWKS_TIMEOUT_S = 5.0
JWKS_MIN_AGE_S = 30.0
JWKS_MAX_AGE_S = 3_600.0
HOW = "send `Authorization: Bearer <API key or JWT>` or `X-API-Key: <API key>`"


class ApiKey(Contract):
    """One row of the key file: the digest of a key, and its owner."""

    sha256: Sha256
    tenant: Token
    person: Name
    role: Literal["submitter", "approver", "operator", "auditor"]


class ApiKeyFile(Contract):
    """The key file."""

    keys: Annotated[tuple[ApiKey, ...], Field(max_length=MAX_API_KEYS)] = ()


class ApiKeys:
    """The key file, read again when it changes; a file that cannot be read keeps the last good one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._rows: tuple[ApiKey, ...] = ()

    def load(self) -> None:
        """Read the file if it changed. Raises ValueError when there is none to fall back on."""
        if self._path is None:
            return
        try:
            stat = self._path.stat()
            if (stat.st_mtime_ns, stat.st_size) == self._seen:
                return
            self._rows = ApiKeyFile.model_validate_json(self._path.read_bytes()).keys
            self._seen = (stat.st_mtime_ns, stat.st_size)
        except (OSError, ValidationError) as error:
            if self._seen is None:
                raise ValueError(
                    f"cannot read API keys from {self._path}: {error}; "
                    'it must hold {"keys": [{"sha256", "tenant", "person", "role"}]}'
                ) from error
            log.error("api_keys_unreadable", path=str(self._path), reason=str(error))

    def find(self, key: str) -> RequesterClaim | None:
        """The owner of a key. Compares with every row, so that the time reveals nothing."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        owners = [row for row in self._rows if hmac.compare_digest(row.sha256, digest)]
        if not owners:
            return None
        found = owners[-1]
        return RequesterClaim(tenant=found.tenant, person=found.person, role=found.role, via="api_key")


class Jwks:
    """The keys that sign JWTs, from a file or a URL; an unknown key id makes it look again, not too often."""

    def __init__(self, file: Path | None, url: str) -> None:
        self._file, self._url = file, url
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at = -JWKS_MAX_AGE_S

    @property
    def configured(self) -> bool:
        """Whether JWTs are accepted at all."""
        return self._file is not None or bool(self._url)

    async def key(self, kid: str) -> jwt.PyJWK | None:
        """The key with this id. Raises Problem(503) when the set cannot be had and none is known."""
        age = time.monotonic() - self._read_at
        if age > JWKS_MAX_AGE_S or (kid not in self._keys and age > JWKS_MIN_AGE_S):
            await self._load()
        return self._keys.get(kid)

    async def _load(self) -> None:
        self._read_at = time.monotonic()
        try:
            found = json.loads(await self._fetch())
            self._keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(found).keys if key.key_id}
        except (OSError, ValueError, httpx.HTTPError, jwt.PyJWTError) as error:
            log.error("jwks_unreadable", reason=str(error))
            if not self._keys:
                self._read_at = -JWKS_MAX_AGE_S
                what = "the key set that verifies tokens cannot be read"
                raise unavailable(what, "use an API key, or ask the operator to check the JWKS setting") from error

    async def _fetch(self) -> bytes:
        if self._file is not None:
            return self._file.read_bytes()
        async with httpx.AsyncClient(timeout=JWKS_TIMEOUT_S) as client:
            answer = await client.get(self._url)
            answer.raise_for_status()
            if len(answer.content) > MAX_JWKS_BYTES:
                raise ValueError("the JWKS is too large")
            return answer.content


class Authenticator:
    """Turns a request's credentials into a claim."""

    def __init__(self, settings: Settings) -> None:
        self._keys = ApiKeys(settings.api_keys_file)
        self._jwks = Jwks(settings.jwt_jwks_file, settings.jwt_jwks_url)
        self._settings = settings

    def load(self) -> None:
        """Read the key file once at start, so that a wrong one stops the start. Raises ValueError."""
        self._keys.load()
        if self._jwks.configured and not self._settings.jwt_issuer:
            raise ValueError("BULKHEAD_JWT_ISSUER is required with a JWKS: tokens of any issuer would pass otherwise")

    async def claim(self, headers: Mapping[str, str]) -> RequesterClaim:
        """The caller. Raises Problem (401, 503)."""
        credential = _credential(headers)
        if credential.count(".") == 2 and not credential.startswith(KEY_PREFIX):
            return await self._of_token(credential)
        self._keys.load()
        claim = self._keys.find(credential)
        if claim is None:
            hint = "check the key; `bulkhead up` writes one to credentials.json in its data directory"
            raise unauthorized("this API key is not known", hint)
        return claim

    async def allowed(self, request: Request, roles: frozenset[str], action: str, needed: str) -> RequesterClaim:
        """The caller, if it has one of these roles. Raises Problem (401, 403, 503)."""
        claim = await self.claim(request.headers)
        if claim.role not in roles:
            raise forbidden(claim.role, action, needed)
        return claim

    async def _of_token(self, token: str) -> RequesterClaim:
        if not self._jwks.configured:
            raise unauthorized("this mesh accepts no JWTs", "use an API key, or configure a JWKS")
        settings = self._settings
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = await self._jwks.key(kid) if isinstance(kid, str) else None
            if key is None:
                raise unauthorized("the token is signed with a key that is not in the JWKS", "get a new token")
            claims = jwt.decode(
                token,
                key,
                algorithms=list(settings.jwt_algorithms),
                audience=settings.jwt_audience,
                issuer=settings.jwt_issuer,
                leeway=settings.jwt_leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            given = {"tenant": claims.get("tenant"), "person": claims["sub"], "role": claims.get("role")}
            return RequesterClaim.model_validate(given | {"via": "jwt"})
        except jwt.ExpiredSignatureError as error:
            raise unauthorized("the token has expired", "get a new one") from error
        except jwt.PyJWTError as error:
            raise unauthorized(f"the token is not valid: {error}", "get a token for this mesh") from error
        except ValidationError as error:
            field = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
            claim = "sub" if field == "person" else field
            hint = "tokens need tenant, sub and role (submitter, approver, operator, auditor)"
            raise unauthorized(f"the token's claim {claim} is missing or does not fit", hint) from error


def _credential(headers: Mapping[str, str]) -> str:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    credential = value.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
    if not credential:
        raise unauthorized("the request carries no credentials", HOW)
    if len(credential) > MAX_CREDENTIAL_CHARS:
        raise unauthorized(f"the credential is longer than {MAX_CREDENTIAL_CHARS} characters", HOW)
    return credential
