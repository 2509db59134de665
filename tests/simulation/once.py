"""What every replica would work out anew from the same bytes is worked out once: a third of a run's time.

In: nothing. Out: yaml, jwt, keys, tables and readers of messages that remember. Nothing that a run decides is
remembered, only what files, tokens and stored messages say: values that nobody changes. What is refused is read again.
"""

import functools
import gc
from pathlib import Path
from typing import Any

import httpx
import jwt
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from starlette import routing

from bulkhead import grants
from bulkhead.bus.port import Stored
from bulkhead.runtime.consume import inbound
from bulkhead_contracts import catalog
from bulkhead_services.budget.ledger import checkpoint
from bulkhead_services.gateway.admission import quotas
from bulkhead_services.model_gateway import app as model_gateway
from bulkhead_services.tool_executor import app as tool_executor

TENANTS = Path(__file__).with_name("tenants.yaml")
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
    jwt.api_jws.PyJWS._load = functools.lru_cache(256)(jwt.api_jws.PyJWS._load)  # type: ignore[method-assign]
    grants.Ed25519PrivateKey = _Private  # type: ignore[attr-defined]
    grants.Ed25519PublicKey = _Public  # type: ignore[attr-defined]
    model_gateway.Prices = functools.cache(model_gateway.Prices)  # type: ignore[assignment,misc]
    model_gateway.Prompts = functools.cache(model_gateway.Prompts)  # type: ignore[assignment,misc]
    tool_executor.load = _by_rows(tool_executor.load)  # type: ignore[attr-defined]
    routing.compile_path = functools.lru_cache(256)(routing.compile_path)  # type: ignore[assignment]
    httpx._urls.urlparse = functools.lru_cache(256)(httpx._urls.urlparse)  # type: ignore[attr-defined]
    # A verified token says the same to all.
    grants.Verifier._parse = staticmethod(_by_token_and_kind(grants.Verifier._parse))  # type: ignore[method-assign]
    quotas._stamp = _of_own_file(quotas._stamp)  # type: ignore[assignment]
    # Of a checkpoint most rows are those of the one before.
    checkpoint.LedgerSettled = functools.lru_cache(16_384)(checkpoint.LedgerSettled)  # type: ignore[assignment,misc]
    checkpoint.LedgerBalance = functools.lru_cache(1_024)(checkpoint.LedgerBalance)  # type: ignore[assignment,misc]
    catalog.decode = functools.lru_cache(8_192)(catalog.decode)  # type: ignore[assignment]
    inbound.read = _by_message(inbound.read)  # type: ignore[assignment]
    # What is there by now stays; what runs leave is collected between them.
    gc.collect()
    gc.freeze()
    gc.disable()


class _Private:
    """Keys by their seed, as grants makes them."""

    from_private_bytes = staticmethod(functools.lru_cache(64)(Ed25519PrivateKey.from_private_bytes))
    generate = staticmethod(Ed25519PrivateKey.generate)


class _Public:
    """The same, of those that verify."""

    from_public_bytes = staticmethod(functools.lru_cache(64)(Ed25519PublicKey.from_public_bytes))


_READ: dict[tuple[int, str], tuple[Stored, inbound.Inbound]] = {}


def _by_message(read: Any) -> Any:
    """A stored message is one object for all who read it. It is kept beside what it says, so that no other one gets
    its address."""

    @functools.wraps(read)
    def remembered(stored: Stored, service: str) -> inbound.Inbound:
        name = (id(stored), service)
        found = _READ.get(name)
        if found is None:
            found = _READ[name] = stored, read(stored, service)
        return found[1]

    return remembered


def forget() -> None:
    """After every run: its messages."""
    _READ.clear()


def tidy(runs: int) -> None:
    """After every run: what it left is collected now and then."""
    if not gc.isenabled() and runs % _COLLECT_EVERY == 0:
        gc.collect()


def _by_token_and_kind(parse: Any) -> Any:
    """What has been verified is under its token, and refused again where it does not fit."""
    known: dict[tuple[Any, str, str], Any] = {}

    @functools.wraps(parse)
    def remembered(kind: Any, token: str, claims: dict[str, object], issuer: str) -> Any:
        name = (kind, token, issuer)
        if name not in known:
            if len(known) > 1_024:
                known.clear()
            known[name] = parse(kind, token, claims, issuer)
        return known[name]

    return remembered


def _of_own_file(stamp: Any) -> Any:
    """The runs' own tenants' file does not change. Other tests of this process change theirs."""
    own = functools.lru_cache(1)(stamp)
    return functools.wraps(stamp)(lambda path: own(path) if path == TENANTS else stamp(path))


def _by_rows(load: Any) -> Any:
    """What is declared is read once, and so is one object."""
    known: dict[tuple[Any, int], tuple[Any, Any]] = {}

    @functools.wraps(load)
    def remembered(configured: Any, declared: Any) -> Any:
        name = (configured, id(declared))
        if name not in known:
            known[name] = declared, load(configured, declared)
        return known[name][1]

    return remembered


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
