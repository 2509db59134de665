"""The cluster's key set (JWKS): fetched or read, kept, and looked at again for a key id that is not in it.

In: a file, or an https address with CA and bearer token. Out: public keys by id. A token can name any key id: the set
is asked for again at most once in RETRY_S, however many tokens come.
"""

import asyncio
import json
import ssl
from pathlib import Path

import httpx
import jwt

from bulkhead.telemetry.log import Log
from bulkhead_services.identity.settings import Settings

log = Log("key_set")

RETRY_S = 5.0
MAX_AGE_S = 600.0
"""So old a set is read again at the next token; the one before serves until there is a newer."""
FETCH_TIMEOUT_S = 3.0
"""For the whole answer: less than the broker waits for a login."""
MAX_BYTES = 256 * 1024
MAX_KEYS = 64
MIN_RSA_BITS = 2048


class KeySetUnavailable(Exception):
    """Failure to read any key set so far; the message says why."""


class KeySet:
    """The keys by their ids."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys: dict[str, jwt.PyJWK] = {}
        self._tried_at = self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self.read_problem = ""
        """Why it could not be read the last time; "" when it could."""

    @property
    def key_count(self) -> int:
        """Number of keys at hand."""
        return len(self._keys)

    async def find_key(self, kid: str) -> jwt.PyJWK | None:
        """The key of this id; None where there is none. Raises KeySetUnavailable."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._tried_at > RETRY_S and (kid not in self._keys or now_s - self._read_at > MAX_AGE_S):
            self._read_once()
        if self._reading is not None and not self._reading.done() and kid not in self._keys:
            # Those who come while it is read wait for the same answer, and not for one each.
            await asyncio.shield(self._reading)
        if not self._keys:
            raise KeySetUnavailable(self.read_problem or "it was not read yet")
        return self._keys.get(kid)

    async def read_keys(self) -> None:
        """Read the set, or wait for who does; what cannot be read leaves the one before."""
        await asyncio.shield(self._read_once())

    def _read_once(self) -> "asyncio.Task[None]":
        """One read at a time: an older answer never comes after a newer, nor do slow ones add up."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_and_keep())
        return self._reading

    async def _read_and_keep(self) -> None:
        self._tried_at = asyncio.get_running_loop().time()
        try:
            self._keys = _usable_keys(await self._read_content())
        except (OSError, ValueError, RecursionError, httpx.HTTPError, httpx.InvalidURL, jwt.PyJWTError) as error:
            self.read_problem = f"the key set cannot be read: {error or type(error).__name__}"
            log.error("key_set_unreadable", reason=self.read_problem, keys=len(self._keys), then="it is tried again")
            return
        if self.read_problem or self._read_at == float("-inf"):
            log.info("key_set_read", keys=len(self._keys))
        self.read_problem, self._read_at = "", self._tried_at

    async def _read_content(self) -> bytes:
        settings = self._settings
        if settings.key_set_file is not None:
            return _read_bounded(settings.key_set_file)
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                return await self._fetch_content()
        except (TimeoutError, httpx.TimeoutException) as error:
            raise ValueError(f"{settings.key_set_url} has not answered within {FETCH_TIMEOUT_S:g} s") from error

    async def _fetch_content(self) -> bytes:
        settings = self._settings
        tls = ssl.create_default_context(cafile=str(settings.key_set_ca_file) if settings.key_set_ca_file else None)
        headers = {"Accept": "application/jwk-set+json, application/json"}
        if settings.key_set_bearer_file is not None:
            # Read anew: Kubernetes exchanges it, too.
            headers["Authorization"] = f"Bearer {_read_bounded(settings.key_set_bearer_file).decode().strip()}"
        async with (
            httpx.AsyncClient(timeout=FETCH_TIMEOUT_S, verify=tls, trust_env=False) as client,
            client.stream("GET", settings.key_set_url, headers=headers) as answer,
        ):
            answer.raise_for_status()
            content = b""
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > MAX_BYTES:
                    raise ValueError(f"it has more than {MAX_BYTES} bytes")
            return content


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES} bytes")
    return content


def _usable_keys(content: bytes) -> dict[str, jwt.PyJWK]:
    """Public RSA and P-256 keys with an id, for signatures. Raises ValueError where there is none."""
    document = json.loads(content)
    rows = document.get("keys") if isinstance(document, dict) else None
    keys: dict[str, jwt.PyJWK] = {}
    for row in rows[:MAX_KEYS] if isinstance(rows, list) else ():
        if isinstance(row, dict) and (key := _usable_key(row)) is not None:
            keys[row["kid"]] = key
    if not keys:
        raise ValueError("it holds no RSA key (of 2,048 bits or more) and no P-256 key with an id")
    return keys


def _usable_key(row: dict[str, object]) -> jwt.PyJWK | None:
    """A key that may verify tokens; None for another kind. Only public ones are given away."""
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(row.get("kty")))
    named = isinstance(row.get("kid"), str) and row["kid"]
    if algorithm is None or not named or row.get("use", "sig") != "sig" or "d" in row:
        return None
    if row.get("alg", algorithm) != algorithm or (algorithm == "ES256" and row.get("crv") != "P-256"):
        return None
    try:
        key = jwt.PyJWK(row, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    return key if algorithm == "ES256" or key.key.key_size >= MIN_RSA_BITS else None
