"""The target of a halt, as the command line names it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bulkhead_contracts.control import HaltScope


@dataclass(frozen=True, slots=True)
class RequestedHaltTarget:
    """Target of a halt. tenant: "" for all tenants."""

    scope: "HaltScope"
    name: str
    tenant: str = ""

    def __str__(self) -> str:
        whose = f" of tenant {self.tenant}" if self.tenant and self.scope not in ("task", "tenant") else ""
        return f"{self.scope} {self.name}{whose}"
