"""Public IP addresses: the only ones to which content from outside may lead this service.

In: a host, or its addresses. Out: its addresses; the first that is not public. An address inside another (IPv4 in IPv6,
6to4, Teredo, NAT64) is judged by the inner one; what the standard library takes for global and nobody routes is not.
"""

import ipaddress
from collections.abc import Iterable

from bulkhead.bus.jetstream.dns_cache import HostLookup, HostUnknown

LOOKUP_TIMEOUT_S = 10.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNROUTED = tuple(map(ipaddress.ip_network, ("::/96", "64:ff9b:1::/48", "fec0::/10")))
"""IPv4-compatible, NAT64 of one network, site-local: RFC 4291, 8215, 3879."""


def first_non_public(addresses: Iterable[str]) -> str:
    """The first that is not public, or "": a public address beside a private one must not pass the check."""
    return next((address for address in addresses if not is_public(address)), "")


def is_public(address: str) -> bool:
    """True where anybody on the internet may be."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if any(ip in network for network in _UNROUTED):
            return False
    return ip.is_global and not ip.is_multicast


async def resolve_addresses(lookup: HostLookup, host: str, port: int) -> tuple[str, ...]:
    """IP addresses of a host; none when there is no such host."""
    try:
        return tuple(dict.fromkeys(await lookup.resolve_host(host, port, LOOKUP_TIMEOUT_S)))
    except HostUnknown:
        return ()
