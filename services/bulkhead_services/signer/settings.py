"""Knobs of signer. Enters: the environment (BULKHEAD_*). Leaves: one checked value."""

import importlib.util
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from bulkhead.callers.tokens import TokenSettings


def _tenants_file() -> Path:
    """The mesh's own tenants file, found without an import: it is data of bulkhead_infra, wherever that is
    installed."""
    spec = importlib.util.find_spec("bulkhead_infra")
    places = (spec.submodule_search_locations if spec is not None else None) or ["."]
    return Path(places[0]) / "identity" / "tenants.yaml"


TENANTS_FILE = _tenants_file()


def _names_only(given: Any) -> Any:
    return tuple(given) if isinstance(given, dict) else given


class Settings(TokenSettings):
    """tenants_file: what each tenant may have at most; read once, at start.

    max_age_ms, max_ahead_ms: how far a request's time may lie behind or before the signer's clock.
    http_allow_hosts, counter_url, run_python, run_wasm, packs, mcp_file, agents_file: as tool_executor has them; a tool
    whose settings are missing is not granted.
    tool_settings: a JSON list of the names; of tool_executor's object no more than these is kept.
    jwt_*: as the gateway has them. With a key set here, who asks by a token has to show it to the signer, too.
    """

    tenants_file: Path = TENANTS_FILE
    max_age_ms: int = Field(default=600_000, ge=1_000)
    max_ahead_ms: int = Field(default=60_000, ge=0)
    http_allow_hosts: tuple[str, ...] = ()
    counter_url: str = ""
    run_python: bool = False
    run_wasm: bool = False
    packs: tuple[str, ...] = ()
    mcp_file: Path | None = None
    agents_file: Path | None = None
    tool_settings: Annotated[tuple[str, ...], BeforeValidator(_names_only)] = ()

    def configured(self) -> frozenset[str]:
        """Names of the settings that tools may require and that are set."""
        values = {"http_allow_hosts": self.http_allow_hosts, "counter_url": self.counter_url}
        code = {"run_python": self.run_python, "run_wasm": self.run_wasm}
        return frozenset(name for name, value in (values | code).items() if value) | frozenset(self.tool_settings)
