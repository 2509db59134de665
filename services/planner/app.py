"""Composition root of the planner: its inbox is folded by the decision logic of each task's version."""

from collections.abc import Mapping
from typing import Any

from bulkhead.flow import Decider
from bulkhead.runtime.context import Context
from services.planner.core import Planner
from services.planner.logic2 import PlannerV2
from services.planner.settings import Settings

SERVICE = "planner"
LOGICS: Mapping[int, Decider[Any]] = {1: Planner(), 2: PlannerV2()}
"""A version is the whole mesh's: where a service decides as before, it stands under both numbers."""


def build(context: Context, settings: Settings) -> Mapping[int, Decider[Any]]:
    """Decision logic by version; the two newest are kept."""
    return LOGICS
