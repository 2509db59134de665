"""Composition root of the worker: its inbox is folded by the decision logic of each task's version."""

from collections.abc import Mapping
from typing import Any

from bulkhead.flow import Decider
from bulkhead.runtime.context import Context
from bulkhead_services.worker.core import Worker
from bulkhead_services.worker.logic4 import WorkerV4
from bulkhead_services.worker.logic5 import WorkerV5
from bulkhead_services.worker.settings import Settings

SERVICE = "worker"
LOGICS: Mapping[int, Decider[Any]] = {1: Worker(), 2: Worker(), 3: Worker(), 4: WorkerV4(), 5: WorkerV5()}
"""A version is the whole mesh's: where a service decides as before, it stands under each of their numbers."""


def build(context: Context, settings: Settings) -> Mapping[int, Decider[Any]]:
    """Decision logic by version; the two newest are kept."""
    return LOGICS
