"""Places of credentials: what the operator configures. It names places and never a secret itself."""

import re
from string import Formatter
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PLACES = frozenset({"tenant", "user"})
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1")


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    _ = parts.port  # Raises ValueError where it is none.
    inside = parts.scheme == "http" and _LOOPBACK.fullmatch(parts.hostname or "")
    if not parts.hostname or parts.username is not None or not (parts.scheme == "https" or inside):
        raise ValueError("must be an https URL without credentials (http on this machine alone): secrets go there")
    return url.rstrip("/")


class Exchange(BaseModel):
    """The credential is sent to `url` for a token that lasts shortly, and the tool gets that one.

    token_exchange: RFC 8693, the credential is the subject token. client_credentials: RFC 6749, it is the client's
    secret. client_secret_file: of the executor itself as a client of an exchange.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(max_length=2000)
    grant: Literal["token_exchange", "client_credentials"] = "token_exchange"
    client_id: str = Field(default="", max_length=500)
    client_secret_file: str = Field(default="", max_length=1000)
    scope: str = Field(default="", max_length=1000)
    audience: str = Field(default="", max_length=1000)
    resource: str = Field(default="", max_length=1000)
    subject_token_type: str = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name

    _url = field_validator("url")(_check_url)

    @model_validator(mode="after")
    def _has_a_client(self) -> Self:
        if not self.client_id and (self.grant == "client_credentials" or self.client_secret_file):
            raise ValueError("client_id is missing")
        return self


class Credential(BaseModel):
    """One credential: the file that holds it, or its path in Vault (KV version 2, as `secret/data/{tenant}/github`) and
    the field there. `{tenant}` and `{user}` stand for who calls; without `{tenant}`, `tenants` says who may have it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(default="", max_length=1000)
    vault: str = Field(default="", max_length=1000)
    field: str = Field(default="value", min_length=1, max_length=200)
    tenants: tuple[str, ...] = ()
    exchange: Exchange | None = None

    @property
    def path_template(self) -> str:
        """The path, with its placeholders."""
        return self.file or self.vault

    @model_validator(mode="after")
    def _is_of_somebody(self) -> Self:
        if bool(self.file) == bool(self.vault):
            raise ValueError("needs either `file` or `vault`")
        named = {name for _, name, _, _ in Formatter().parse(self.path_template) if name is not None}
        if not named <= PLACES:
            raise ValueError(f"{self.path_template!r} has placeholders other than {{tenant}} and {{user}}")
        if "tenant" not in named and not self.tenants:
            raise ValueError("is the same for every tenant: write {tenant} in its path, or name its `tenants`")
        return self


class Vault(BaseModel):
    """HashiCorp Vault's HTTP API, or one that speaks as it does. token_file: read at each request, so that an agent may
    renew it. cache_s: so long a secret that was read is used again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = Field(max_length=2000)
    token_file: str = Field(min_length=1, max_length=1000)
    namespace: str = Field(default="", max_length=500)
    cache_s: float = Field(default=60.0, ge=0, le=3_600)

    _address = field_validator("address")(_check_url)
