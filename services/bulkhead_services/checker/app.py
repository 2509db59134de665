"""Composition root of the checker: its inbox is folded by the decision logic of each task's version."""

from collections.abc import Mapping
from typing import Any

from bulkhead.flow import Decider
from bulkhead.runtime.context import Context
from bulkhead_services.checker.core import Checker
from bulkhead_services.checker.logic4 import CheckerV4
from bulkhead_services.checker.logic5 import CheckerV5
from bulkhead_services.checker.settings import Settings

SERVICE = "checker"
LOGICS: Mapping[int, Decider[Any]] = {1: Checker(), 2: Checker(), 3: Checker(), 4: CheckerV4(), 5: CheckerV5()}
"""A version is the whole mesh's: where a service decides as before, it stands under each of their numbers."""


def build(context: Context, settings: Settings) -> Mapping[int, Decider[Any]]:
    """Decision logic by version; the two newest are kept."""
    return LOGICS
