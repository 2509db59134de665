"""Composition root of the watch: the fold over the journal that finds loops, stalls, chatter and deadlocks.

In: the service's context and settings, the store that elects the one replica that tells, the live halt. Out: the
watcher, or None where it is switched off. The watch needs nothing else of budget.
"""

from collections.abc import Callable

from bulkhead.runtime.context import Context
from bulkhead_services.budget.ledger.store import Store
from bulkhead_services.budget.settings import Settings
from bulkhead_services.budget.watch.watcher import PublishHalt, Watcher


def open_watch(
    context: Context, settings: Settings, store: Store, halt: PublishHalt, lost: Callable[[str], None]
) -> Watcher | None:
    """lost: told that the ledger does not answer, so that it is verified."""
    if settings.watch == "off" or (settings.watch == "auto" and settings.in_memory):
        return None
    return Watcher(
        context.bus,
        context.publisher,
        store,
        context.clock,
        halt,
        lost=lost,
        holder=context.instance,
        interval_s=settings.watch_interval_s,
        halts=settings.watch_halts,
        thresholds=settings.thresholds,
        message_key=context.message_key,
    )
