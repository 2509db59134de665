"""URLs of push notifications that a tenant's policy allows. Pure.

In: a URL that a client has sent, and the policy. Out: its host and port, or why nothing is posted there. Where the name
leads is looked at when it is resolved, by whoever posts.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from bulkhead_contracts import bounds
from bulkhead_contracts.push_policy import PushPolicy

_NAME = re.compile(r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_PORTS = {"https": 443, "http": 80}


class PushUrlForbidden(ValueError):
    """Refusal to post to this URL; the message says why, and never quotes what may be secret in it."""


@dataclass(frozen=True, slots=True)
class PushTarget:
    """host: in small letters, without brackets. private: it may be private and plain http."""

    host: str
    port: int
    private: bool


def parse_push_url(url: str, policy: PushPolicy) -> PushTarget:
    """Target of a URL. Raises PushUrlForbidden."""
    if not policy.is_enabled:
        raise PushUrlForbidden("the tenant's row names no hosts that push notifications may go to")
    if len(url) > bounds.MAX_PUSH_URL_CHARS:
        raise PushUrlForbidden(f"the URL has {len(url):,} characters, of {bounds.MAX_PUSH_URL_CHARS:,} allowed")
    if not url.isascii() or not url.isprintable() or any(char in ' \\"<>^`{|}' for char in url):
        raise PushUrlForbidden(
            "the URL holds blanks, backslashes or other characters that a URL has only percent-encoded"
        )
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip(".").lower(), parts.port
    except ValueError:
        raise PushUrlForbidden("the URL's host or port is none") from None
    if parts.scheme not in _PORTS or not host:
        raise PushUrlForbidden("the URL is no https URL with a host")
    if "@" in parts.netloc:
        raise PushUrlForbidden("the URL holds a user name or password; use the token")
    if parts.fragment:
        raise PushUrlForbidden("the URL holds a fragment")
    port = _PORTS[parts.scheme] if port is None else port
    host_and_port = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if host_and_port in {private_host.lower() for private_host in policy.private_hosts}:
        return PushTarget(host, port, True)
    if parts.scheme != "https":
        raise PushUrlForbidden("the URL is plain http; only https is posted to")
    if _is_address(host):
        raise PushUrlForbidden("the URL's host is an IP address; use its name")
    if not _NAME.fullmatch(host):
        raise PushUrlForbidden("the URL's host is no host name")
    if not any(_pattern_allows(pattern, host, port) for pattern in policy.hosts):
        raise PushUrlForbidden(f"{host_and_port} is none of the hosts that this tenant's push notifications may go to")
    return PushTarget(host, port, False)


def _pattern_allows(pattern: str, host: str, port: int) -> bool:
    name, _, port_text = pattern.lower().partition(":")
    if port != int(port_text or 443):
        return False
    if name == "*":
        return "." in host
    return host.endswith(name[1:]) and len(host) >= len(name) if name.startswith("*.") else host == name


def _is_address(host: str) -> bool:
    """Also in the forms that resolvers take for one: 127.1, 0x7f000001, 2130706433."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return re.fullmatch(r"[0-9]+|0x[0-9a-f]*", host.rpartition(".")[2]) is not None
    return True
