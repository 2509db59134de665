"""The process of a decider. In: its name and its decision logic by version. Out: exit codes as of any other service.

A decider has the settings that every service has, and no code of its own that touches the runtime.
"""

from collections.abc import Mapping
from typing import Any

from bulkhead.flow import Decider
from bulkhead.runtime.process.main import main
from bulkhead.runtime.settings import ServiceSettings


def start_decider(service: str, logics: Mapping[int, Decider[Any]]) -> None:
    """Run until a signal; never returns."""
    main(service, lambda context, settings: logics, ServiceSettings)
