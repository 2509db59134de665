"""Composition root of the checker: its inbox is folded by the decision logic of each task's version."""

from collections.abc import Mapping
from typing import Any

from bulkhead.flow import Decider
from bulkhead.runtime.process.start import start_decider
from bulkhead_services.checker.core import Checker

SERVICE = "checker"
LOGICS: Mapping[int, Decider[Any]] = {1: Checker()}
"""A version is the whole mesh's: every decider has each of its numbers."""

if __name__ == "__main__":
    start_decider(SERVICE, LOGICS)
