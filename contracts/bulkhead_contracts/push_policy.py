"""Hosts to which a tenant's push notifications may go: `push` in its row of the tenants file. Never on the
wire.
"""

from typing import Annotated

from pydantic import Field

from bulkhead_contracts import bounds

from .types import Contract

Host = Annotated[str, Field(pattern=r"^(\*|(\*\.)?[A-Za-z0-9_.-]{1,253})(:[0-9]{1,5})?$")]
ExactHost = Annotated[str, Field(pattern=r"^([A-Za-z0-9_.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):[0-9]{1,5}$")]


class PushPolicy(Contract, extra="forbid"):
    """Without hosts there are no push notifications.

    hosts: `hooks.example.org` is port 443 of that host, `hooks.example.org:8443` that port alone, `*.example.org` every
    host below it, `*` every public host. private_hosts: `host:port` that may besides be private, loopback and plain
    http; nothing else may.
    """

    hosts: Annotated[tuple[Host, ...], Field(max_length=bounds.MAX_PUSH_HOSTS)] = ()
    private_hosts: Annotated[tuple[ExactHost, ...], Field(max_length=bounds.MAX_PUSH_HOSTS)] = ()

    @property
    def is_enabled(self) -> bool:
        """True if there are any."""
        return bool(self.hosts or self.private_hosts)
