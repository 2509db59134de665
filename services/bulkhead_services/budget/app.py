"""Composition root of budget: asks and settlements come in, `core` is what is decided, `effects` acts."""

from bulkhead.runtime.context import Context
from bulkhead_services.budget.effects import Budget
from bulkhead_services.budget.ledger.memory_store import MemoryStore
from bulkhead_services.budget.ledger.redis_store import RedisStore
from bulkhead_services.budget.ledger.store import Store
from bulkhead_services.budget.settings import Settings

SERVICE = "budget"


def build(context: Context, settings: Settings) -> Budget:
    """The edge; nothing is opened before `start`."""
    return Budget(context, settings, open_store(settings))


def open_store(settings: Settings) -> Store:
    """Where this budget keeps its ledger."""
    if settings.in_memory:
        return MemoryStore(lease_ms=settings.lease_ms)
    return RedisStore(
        settings.redis_url.get_secret_value(),
        prefix=settings.redis_prefix,
        lease_ms=settings.lease_ms,
        keep_ms=settings.keep_ms,
        timeout_s=settings.redis_timeout_s,
        connections=settings.redis_connections,
        settled_keep_ms=settings.settled_keep_minutes * 60_000,
    )
