"""Start the tool_executor service."""

from bulkhead.runtime.context import Context
from bulkhead.runtime.process.main import main
from bulkhead_services.tool_executor.app import build
from bulkhead_services.tool_executor.core import ToolExecutor
from bulkhead_services.tool_executor.process_pool import hide_from_tools
from bulkhead_services.tool_executor.settings import Settings
from bulkhead_services.tool_executor.watchdog import Watchdog


def _build_watched(context: Context, settings: Settings) -> ToolExecutor:
    doer = build(context, settings, watchdog=Watchdog(settings.tool_blocks_s))
    if doer.has_own_process_tools() or settings.mcp_file is not None:  # A server's process runs as the same user.
        hide_from_tools()
    return doer


main("tool_executor", _build_watched, Settings)
