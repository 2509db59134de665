"""Credentials of one call. Enters: names that its tool declares, who calls. Leaves: their values, or why there is none.

Files are read anew for each call; what Vault and token endpoints said is kept for its time, bounded, by caller. Values
stand in no log, no error and no message.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

import httpx

from bulkhead.bounded_dict import BoundedDict
from bulkhead.telemetry.log import Log
from bulkhead.tools.api import Failed
from bulkhead_services.tool_executor.credentials.references import Credential, Exchange, Vault

log = Log("credentials")

MAX_CACHED = 1_024
MAX_SECRET_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 256 * 1024
READ_TIMEOUT_S = 10.0
"""For all credentials of a call together."""
RENEW_AHEAD_S = 30.0
"""A token that ends sooner is asked for anew; of one that lasts less than a minute, half its time counts."""
DEFAULT_LIFETIME_S = 60.0
_USER = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_@.+-]{0,127}")
_TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name
_ERROR_CODE = re.compile(r"[a-z_]{1,40}")
FetchedSecret = tuple[str, float]
"""A value, and for how many seconds it may be used again."""


class _CredentialMissing(Exception):
    """It cannot be had. reason: without any secret. transient: it may be there in a moment."""

    def __init__(self, reason: str, *, transient: bool = False) -> None:
        super().__init__(reason)
        self.transient = transient


class CredentialStore:
    """All that the operator configured."""

    def __init__(
        self,
        references: dict[str, Credential],
        vault: Vault | None,
        http: httpx.AsyncClient,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._references, self._vault, self._http, self._clock = references, vault, http, clock
        self._cached = BoundedDict[tuple[str, ...], tuple[str, float]](MAX_CACHED)
        self._under_way: dict[tuple[str, ...], asyncio.Task[FetchedSecret]] = {}

    async def read_credentials(self, names: tuple[str, ...], tenant: str, user: str) -> dict[str, str] | Failed:
        """Their values by name, of this caller and of no other."""
        values: dict[str, str] = {}
        for name in names:
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    values[name] = await self._read_credential(name, tenant, user)
            except (_CredentialMissing, TimeoutError) as error:
                reason = str(error) or f"it was not there within {READ_TIMEOUT_S:.0f} s"
                transient = not isinstance(error, _CredentialMissing) or error.transient
                log.error("credential_missing", credential=name, tenant=tenant, reason=reason)
                message = f"the credential {name} of tenant {tenant} cannot be had"
                hint = "an operator must look: the log of tool_executor says why (credential_missing)"
                return Failed("no_credential", message, hint, transient=transient)
        return values

    def forget_cached(self, names: tuple[str, ...], tenant: str, user: str) -> None:
        """Forget what was kept of these: the other side took one of them no more."""
        for key in [key for key in self._cached if key[1:3] == (tenant, user) and key[0] in names]:
            del self._cached[key]

    async def _read_credential(self, name: str, tenant: str, user: str) -> str:
        reference = self._references.get(name)
        if reference is None:
            raise _CredentialMissing(f"BULKHEAD_TOOL_CREDENTIALS has no {name}")
        if reference.tenants and tenant not in reference.tenants:
            raise _CredentialMissing("its `tenants` do not name this one")
        if "{user}" in reference.path_template and not _USER.fullmatch(user):
            raise _CredentialMissing("the name of the user cannot stand in a path")
        place = reference.path_template.format(tenant=tenant, user=user)
        if reference.file:
            secret = await asyncio.to_thread(_read_secret, place)
        else:
            place_key = (name, tenant, user, "vault", place, reference.field)
            secret = await self._read_cached(place_key, lambda: self._read_vault(place, reference.field))
        exchange = reference.exchange
        if exchange is None:
            return secret
        # By the digest of what is exchanged: a changed secret is exchanged at once.
        key = (name, tenant, user, "token", hashlib.sha256(secret.encode()).hexdigest())
        return await self._read_cached(key, lambda: self._exchange_secret(exchange, secret))

    async def _read_cached(self, key: tuple[str, ...], fetch: Callable[[], Coroutine[Any, Any, FetchedSecret]]) -> str:
        cached = self._cached.get_refreshed(key)
        if cached is not None and cached[1] > self._clock():
            return cached[0]
        # One request for all calls that wait for the same.
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(fetch())
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        value, lasts_s = await asyncio.shield(task)
        if lasts_s > 0:
            self._cached[key] = value, self._clock() + lasts_s
        return value

    async def _read_vault(self, path: str, field: str) -> FetchedSecret:
        if self._vault is None:
            raise _CredentialMissing("it lies in Vault, and BULKHEAD_VAULT names none")
        headers = {"X-Vault-Token": await asyncio.to_thread(_read_secret, self._vault.token_file)}
        if self._vault.namespace:
            headers["X-Vault-Namespace"] = self._vault.namespace
        url = f"{self._vault.address}/v1/{quote(path.lstrip('/'), safe='/@')}"
        status, answer = await self._request_json("Vault", self._http.build_request("GET", url, headers=headers))
        if status != httpx.codes.OK:
            raise _CredentialMissing(f"Vault answered {status} for {path}", transient=status >= 500 or status == 429)
        secret: Any = answer
        for part in ("data", "data", field):
            secret = secret.get(part) if isinstance(secret, dict) else None
        if not isinstance(secret, str) or not secret:
            raise _CredentialMissing(f"{path} in Vault has no field {field} that is a text (KV version 2)")
        return secret, self._vault.cache_s

    async def _exchange_secret(self, exchange: Exchange, secret: str) -> FetchedSecret:
        form = {"scope": exchange.scope, "audience": exchange.audience, "resource": exchange.resource}
        client = ""
        if exchange.grant == "client_credentials":
            form["grant_type"], client = "client_credentials", secret
        else:
            form |= {"grant_type": _TOKEN_EXCHANGE, "subject_token": secret}
            form["subject_token_type"] = exchange.subject_token_type
            if exchange.client_secret_file:
                client = await asyncio.to_thread(_read_secret, exchange.client_secret_file)
            else:
                form["client_id"] = exchange.client_id
        # RFC 6749, 2.3.1: both are form-encoded before they are joined.
        basic = httpx.BasicAuth(quote(exchange.client_id, safe=""), quote(client, safe="")) if client else None
        request = self._http.build_request("POST", exchange.url, data={k: v for k, v in form.items() if v})
        if basic is not None:
            request = next(basic.auth_flow(request))
        status, answer = await self._request_json("the token endpoint", request)
        content = answer if isinstance(answer, dict) else {}
        token, lasts_s = content.get("access_token"), content.get("expires_in", DEFAULT_LIFETIME_S)
        if status != httpx.codes.OK or not isinstance(token, str) or not token:
            code = content.get("error")
            detail = f" ({code})" if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else ""
            raise _CredentialMissing(
                f"the token endpoint answered {status}{detail}", transient=status >= 500 or status == 429
            )
        lasts_s = float(lasts_s) if isinstance(lasts_s, int | float) and lasts_s > 0 else 0.0
        return token, max(lasts_s - RENEW_AHEAD_S, lasts_s / 2)

    async def _request_json(self, server_name: str, request: httpx.Request) -> tuple[int, Any]:
        """Status and JSON of an answer; None where it is none."""
        try:
            response = await self._http.send(request, stream=True)
            try:
                body = b""
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > MAX_ANSWER_BYTES:
                        raise _CredentialMissing(f"{server_name} answered with more than {MAX_ANSWER_BYTES} bytes")
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise _CredentialMissing(f"{server_name} did not answer: {type(error).__name__}", transient=True) from None
        content = None
        with suppress(ValueError, RecursionError):
            content = json.loads(body)
        return response.status_code, content


def _read_secret(path: str) -> str:
    """The text of a file, without the line end that editors add. Raises _CredentialMissing."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_SECRET_BYTES + 1)
        secret = raw.decode().rstrip("\r\n")
    except OSError as error:
        raise _CredentialMissing(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _CredentialMissing(f"{path} is not UTF-8 text") from None
    if not secret or len(raw) > MAX_SECRET_BYTES:
        raise _CredentialMissing(f"{path} is empty, or longer than {MAX_SECRET_BYTES} bytes")
    return secret
