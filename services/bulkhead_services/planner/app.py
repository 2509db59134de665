"""Composition root of the planner: its inbox is folded by the decision logic of each task's version."""

from collections.abc import Mapping
from typing import Any

from bulkhead.flow import Decider
from bulkhead.runtime.context import Context
from bulkhead_services.planner.core import Planner
from bulkhead_services.planner.logic2 import PlannerV2
from bulkhead_services.planner.logic3 import PlannerV3
from bulkhead_services.planner.logic4 import PlannerV4
from bulkhead_services.planner.logic5 import PlannerV5
from bulkhead_services.planner.settings import Settings

SERVICE = "planner"
LOGICS: Mapping[int, Decider[Any]] = {1: Planner(), 2: PlannerV2(), 3: PlannerV3(), 4: PlannerV4(), 5: PlannerV5()}
"""A version is the whole mesh's: where a service decides as before, it stands under each of their numbers."""


def build(context: Context, settings: Settings) -> Mapping[int, Decider[Any]]:
    """Decision logic by version; the two newest are kept."""
    return LOGICS
