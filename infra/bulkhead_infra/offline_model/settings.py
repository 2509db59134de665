"""Command line of the offline model. Enters: argv. Leaves: frozen `Settings`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Settings of a running server; every limit carries its unit in its name."""

    port: int = 0
    host: str = "127.0.0.1"
    token_delay_ms: float = 2.0
    context_tokens: int = 128_000
    admin: bool = False
    log_level: str = "warning"


def parse_settings(argv: Sequence[str] | None = None) -> Settings:
    """Settings from the command line; argparse exits with code 2 and a usage line on bad input."""
    parser = argparse.ArgumentParser(prog="python -m bulkhead_infra.offline_model", description=__doc__)
    defaults = Settings()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default=defaults.host)
    parser.add_argument("--token-delay-ms", type=float, default=defaults.token_delay_ms)
    parser.add_argument("--context-tokens", type=int, default=defaults.context_tokens)
    parser.add_argument("--admin", action="store_true", help="serve /admin/faults and /admin/requests")
    parser.add_argument("--log-level", default=defaults.log_level)
    return Settings(**vars(parser.parse_args(argv)))
