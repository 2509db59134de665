"""The hosts that a request may name.

In: the heads Host and Origin. Out: nothing, or a DoorRefusal (421, 403). A page in somebody's browser
reaches a server of that machine's network under a name of its own (DNS rebinding): a name that nobody
gave to the doors is turned away.
"""

import ipaddress
import re
from urllib.parse import urlsplit

from starlette.requests import Request

from bulkhead_contracts import bounds
from bulkhead_services.doors.forms.fields import unfit_field
from bulkhead_services.doors.port import DoorRefusal
from bulkhead_services.doors.settings import Settings

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_NETLOC = re.compile(r"(?:([A-Za-z0-9._\-]{1,253})|\[([0-9A-Fa-f:.]{2,45})\])(?::[0-9]{1,5})?")


class AllowedHosts:
    """The names that clients may come under: those of the settings, addresses, and names without a dot, which no one
    outside can make. Where the settings have none and the doors listen beyond this machine, any: they stand behind a
    proxy whose names they do not know."""

    def __init__(self, settings: Settings) -> None:
        self._public_url = settings.public_url
        named = (*settings.allowed_hosts, *([_host_of(settings.public_url)] if settings.public_url else []))
        self._named = frozenset(name.lower() for name in named)
        self._any = not self._named and settings.http_host not in LOOPBACK

    def check_host(self, request: Request) -> str:
        """Scheme and host for a client: those of the settings, or under which it has come. Raises DoorRefusal."""
        host = request.headers.get("host", "")
        if not (matched := _NETLOC.fullmatch(host)):
            raise unfit_field("Host", "is no host", "send the one that you call")
        name = (matched[1] or matched[2]).lower().rstrip(".")
        if not (self._any or name in self._named or "." not in name or _is_address(name)):
            message = f"the host {name[: bounds.MAX_NAME_CHARS]!r} is none of this mesh"
            raise DoorRefusal(421, "unknown_host", message, "the operator names it in BULKHEAD_ALLOWED_HOSTS of doors")
        return self._public_url or f"{request.url.scheme}://{host}"

    def check_origin(self, request: Request) -> None:
        """A page of this machine, or of a host that the settings name. Raises DoorRefusal for another one's."""
        if (origin := request.headers.get("origin")) is None:
            return
        name = _host_of(origin)
        if name not in LOOPBACK and name not in self._named:
            message, hint = (
                "requests of foreign web pages are not taken",
                "call without an Origin, or from another page",
            )
            raise DoorRefusal(403, "foreign_origin", message, hint)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _host_of(origin: str) -> str:
    try:
        return (urlsplit(origin).hostname or "").lower()
    except ValueError:
        return ""
