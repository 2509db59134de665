"""Composition root of tool_executor: calls come in, `core.ToolExecutor` answers, `effects.Workbench` acts."""

import httpx

from bulkhead.runtime.context import Context
from infra.tools import rows

from .core import SERVICE, ToolExecutor
from .effects import Workbench
from .registry import load
from .settings import Settings

__all__ = ["SERVICE", "build"]


def build(
    context: Context, settings: Settings, transport: httpx.AsyncBaseTransport | None = None
) -> ToolExecutor:
    """The doer. `transport` stands in for the network. Raises ValueError when a declared tool has no function."""
    return ToolExecutor(load(settings.configured(), rows(settings.packs)), Workbench(settings, transport))
