"""What every replica would work out anew from the same bytes is worked out once: a third of a run's time.

In: nothing. Out: yaml, keys, tables and readers of messages that remember. Nothing that a run decides is
remembered, only what files, tokens and stored messages say: values that nobody changes. What is refused is read again.
"""

import functools
import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from starlette import routing

from bulkhead import grants
from bulkhead.bus.port import StoredMessage
from bulkhead.quotas import tenant_quotas as quotas
from bulkhead.runtime.consume import inbound
from bulkhead_contracts import catalog
from bulkhead_services.budget.ledger import checkpoint
from bulkhead_services.model_gateway import app as model_gateway
from bulkhead_services.tool_executor import app as tool_executor

TENANTS = Path(__file__).with_name("tenants.yaml")
_COLLECT_EVERY = 10
"""Runs. A run leaves cycles behind (tasks, frames): collecting them while it runs costs more than their memory."""


@functools.cache
def remember() -> None:
    """Call before the first run; again does nothing."""
    _replace(yaml, "safe_load", _by_text)
    _replace(grants, "Ed25519PrivateKey", lambda _: _Private)
    _replace(grants, "Ed25519PublicKey", lambda _: _Public)
    _replace(model_gateway, "PriceTable", functools.cache)
    _replace(model_gateway, "Prompts", functools.cache)
    _replace(tool_executor, "load_registry", _by_rows)
    _replace(routing, "compile_path", functools.lru_cache(256))
    _replace(httpx._urls, "urlparse", functools.lru_cache(256))
    # A verified token says the same to all.
    _replace(grants.Verifier, "_parse_grant", lambda parse: staticmethod(_by_token_and_kind(parse)))
    _replace(quotas, "_file_stamp", _of_own_file)
    # Of a checkpoint most rows are those of the one before.
    _replace(checkpoint, "LedgerSettled", functools.lru_cache(16_384))
    _replace(checkpoint, "LedgerBalance", functools.lru_cache(1_024))
    _replace(catalog, "decode_body", functools.lru_cache(8_192))
    _replace(inbound, "read_message", _by_message)
    # What is there by now stays; what runs leave is collected between them.
    gc.collect()
    gc.freeze()
    gc.disable()


def _replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    setattr(owner, name, wrap(getattr(owner, name)))


class _Private:
    """Keys by their seed, as grants makes them."""

    from_private_bytes = staticmethod(functools.lru_cache(64)(Ed25519PrivateKey.from_private_bytes))
    generate = staticmethod(Ed25519PrivateKey.generate)


class _Public:
    """The same, of those that verify."""

    from_public_bytes = staticmethod(functools.lru_cache(64)(Ed25519PublicKey.from_public_bytes))


_READ: dict[tuple[int, str], tuple[StoredMessage, inbound.ReceivedMessage]] = {}


def _by_message(read: Any) -> Any:
    """A stored message is one object for all who read it. It is kept beside what it says, so that no other one gets
    its address."""

    @functools.wraps(read)
    def remembered(stored: StoredMessage, service: str, **delivery: Any) -> inbound.ReceivedMessage:
        name = (id(stored), service)
        found = _READ.get(name)
        if found is None:
            found = _READ[name] = stored, read(stored, service)
        return replace(found[1], **delivery) if delivery else found[1]

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

    return remembered
