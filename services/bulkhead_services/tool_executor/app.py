"""Composition root of tool_executor: calls come in, `core.ToolExecutor` answers, `effects.Workbench` acts; notices
come in, `webhooks` posts them.
"""

import httpx

from bulkhead.runtime.context import Context
from bulkhead.tools.catalog import rows
from bulkhead_contracts.budget import NoticeRequested
from bulkhead_services.tool_executor.core import SERVICE, ToolExecutor
from bulkhead_services.tool_executor.effects import Workbench
from bulkhead_services.tool_executor.registry import load
from bulkhead_services.tool_executor.settings import Settings
from bulkhead_services.tool_executor.watchdog import Watchdog
from bulkhead_services.tool_executor.webhooks import Webhooks

__all__ = ["SERVICE", "build"]


def build(
    context: Context,
    settings: Settings,
    transport: httpx.AsyncBaseTransport | None = None,
    watchdog: Watchdog | None = None,
) -> ToolExecutor:
    """The doer. `transport` stands in for the network. Raises ValueError when a declared tool has no function."""
    bench = Workbench(settings, transport, watchdog)
    webhooks = Webhooks(settings, bench, context.clock)
    return ToolExecutor(load(settings.configured(), rows(settings.packs)), bench, {NoticeRequested: webhooks.take})
