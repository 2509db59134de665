"""Composition root of tool_executor: calls come in, `core.ToolExecutor` answers, `effects.Workbench` acts; notices
come in, `webhooks` posts them.
"""

import httpx

from bulkhead.runtime.context import Context
from bulkhead_contracts.budget import NoticeRequested
from infra.tools import rows

from .core import SERVICE, ToolExecutor
from .effects import Workbench
from .registry import load
from .settings import Settings
from .watchdog import Watchdog
from .webhooks import Webhooks

__all__ = ["SERVICE", "build"]


def build(
    context: Context, settings: Settings, transport: httpx.AsyncBaseTransport | None = None,
    watchdog: Watchdog | None = None,
) -> ToolExecutor:
    """The doer. `transport` stands in for the network. Raises ValueError when a declared tool has no function."""
    bench = Workbench(settings, transport, watchdog)
    webhooks = Webhooks(settings, bench, context.clock)
    return ToolExecutor(load(settings.configured(), rows(settings.packs)), bench, {NoticeRequested: webhooks.take})
