"""Public IP addresses: the only ones to which content from outside may lead this service.

In: a host, or its addresses. Out: its addresses; the first that is not public. An address inside another (IPv4 in IPv6,
6to4, Teredo, NAT64) is judged by the inner one.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable


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
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    return ip.is_global and not ip.is_multicast


async def resolve_host(host: str, port: int) -> tuple[str, ...]:
    """IP addresses of a host; none when there is no such host."""
    try:
        entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in entries))
