"""Start the tool_executor service."""

from bulkhead.runtime.context import Context
from bulkhead.runtime.main import main

from .app import build
from .core import ToolExecutor
from .processes import hide
from .settings import Settings
from .watchdog import Watchdog


def _watched(context: Context, settings: Settings) -> ToolExecutor:
    doer = build(context, settings, watchdog=Watchdog(settings.tool_blocks_s))
    if doer.has_plain_tools():
        hide()
    return doer


main("tool_executor", _watched, Settings)
