"""What every run would work out anew from the same bytes is worked out once per process: a fifth of a run's time.

In: nothing. Out: yaml and jwt that remember. Nothing that a run decides is remembered, only what files and tokens
say; a token that does not verify is verified again.
"""

import functools
import gc
from typing import Any

import jwt
import yaml

_COLLECT_EVERY = 10
"""Runs. A run leaves cycles behind (tasks, frames): collecting them while it runs costs more than their memory."""


def remember() -> None:
    """Call before the first run; again does nothing."""
    if getattr(yaml.safe_load, "remembers", False):
        return
    yaml.safe_load = _by_text(yaml.safe_load)
    # The functions of the module, which grants uses, are methods of its one instance.
    jwt.decode = _by_token(jwt.decode)
    jwt.get_unverified_header = functools.lru_cache(1_024)(jwt.get_unverified_header)
    gc.disable()


def tidy(runs: int) -> None:
    """After every run: what it left is collected now and then."""
    if not gc.isenabled() and runs % _COLLECT_EVERY == 0:
        gc.collect()


def _by_text(load: Any) -> Any:
    known = functools.lru_cache(256)(load)

    @functools.wraps(load)
    def remembered(stream: Any) -> Any:
        return known(stream) if isinstance(stream, str) else load(stream)

    remembered.remembers = True  # type: ignore[attr-defined]
    return remembered


def _by_token(decode: Any) -> Any:
    """Every replica has key objects of its own; the bytes are the same."""
    known: dict[tuple[str, bytes], Any] = {}

    @functools.wraps(decode)
    def remembered(token: str, key: Any = "", **options: Any) -> Any:
        if not hasattr(key, "public_bytes_raw"):
            return decode(token, key, **options)
        name = (token, key.public_bytes_raw())
        if name not in known:
            if len(known) > 1_024:
                known.clear()
            known[name] = decode(token, key, **options)
        return known[name]

    return remembered
