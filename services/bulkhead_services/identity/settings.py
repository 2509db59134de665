"""Knobs of identity. Enters: the environment (BULKHEAD_*). Leaves: one checked value."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from bulkhead.runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """Which tokens let whom in. It runs in Kubernetes alone.

    token_issuer: `iss` of the cluster's tokens (its service-account issuer). token_audience: `aud` that they are made
    for. token_namespace: of the service accounts. token_max_s: a token that is made to last longer is refused.
    token_leeway_s: by how much the clocks of the cluster may differ.
    key_set_url: the cluster's key set, by https. key_set_ca_file, key_set_bearer_file: by whose certificate it is
    known, and the token that is shown there.
    key_set_file: the key set from a file instead.
    permissions_file: who may do what, rendered from the policy; `permissions.json` beside the keys where none is named.
    """

    token_issuer: str = ""
    token_audience: str = "bulkhead-bus"  # noqa: S105
    token_namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = "bulkhead"  # noqa: S105
    token_max_s: Annotated[int, Field(ge=10, le=7 * 86_400)] = 86_400
    token_leeway_s: Annotated[int, Field(ge=0, le=60)] = 10
    key_set_url: str = ""
    key_set_ca_file: Path | None = None
    key_set_bearer_file: Path | None = None
    key_set_file: Path | None = None
    permissions_file: Path | None = None

    def start_problems(self) -> list[str]:
        """Settings that would let tokens of anybody pass, or none."""
        problems = []
        if not self.token_issuer:
            problems.append("setting BULKHEAD_TOKEN_ISSUER is required: tokens of any issuer would pass otherwise")
        if bool(self.key_set_url) == (self.key_set_file is not None):
            problems.append("set one of BULKHEAD_KEY_SET_URL and BULKHEAD_KEY_SET_FILE: the keys that sign tokens")
        if self.key_set_url and not self.key_set_url.startswith("https://"):
            problems.append(
                "setting BULKHEAD_KEY_SET_URL must begin with https://: who alters the answer lets himself in"
            )
        return problems
