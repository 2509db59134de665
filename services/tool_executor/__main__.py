"""Start the tool_executor service."""

from bulkhead.runtime.context import Context
from bulkhead.runtime.main import main

from .app import build
from .core import ToolExecutor
from .settings import Settings
from .watchdog import Watchdog


def _watched(context: Context, settings: Settings) -> ToolExecutor:
    return build(context, settings, watchdog=Watchdog(settings.tool_blocks_s))


main("tool_executor", _watched, Settings)
