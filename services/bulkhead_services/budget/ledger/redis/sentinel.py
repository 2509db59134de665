"""The address of the master Redis, asked of its sentinels.

In: an address. `redis+sentinel://:PASSWORD@HOST:PORT,HOST:PORT/NAME/DB` (or `rediss+sentinel`, by TLS): sentinels,
their name for the Redis that they watch, its database (0 when left out). Redis and the sentinels share the password.
Out: the master's address as the first sentinel that answers gives it; any other address unchanged. Raises what Redis
raises.
"""

from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

SUFFIX = "+sentinel"
PORT = 26379


def is_sentinel_url(url: str) -> bool:
    """True if an address names sentinels."""
    return urlsplit(url).scheme.endswith(SUFFIX)


def server_url(url: str, host: str, port: int) -> str:
    """The address of one server among those that an address of sentinels stands for. Raises ValueError."""
    parts = urlsplit(url)
    user, at_sign, _ = parts.netloc.rpartition("@")
    name, _, database = parts.path.strip("/").partition("/")
    if not name:
        raise ValueError("an address of sentinels ends with what they call the master: ...@HOST:PORT/NAME")
    return f"{parts.scheme.removesuffix(SUFFIX)}://{user}{at_sign}{host}:{port}/{database or 0}"


async def master_url(url: str, timeout_s: float) -> str:
    """See the module. Raises RedisError, ValueError for an address that names no master."""
    return server_url(url, *await master_address(url, timeout_s)) if is_sentinel_url(url) else url


async def master_address(url: str, timeout_s: float) -> tuple[str, int]:
    """Host and port of the master, of an address of sentinels. Raises RedisError, ValueError."""
    parts, reason = urlsplit(url), "no sentinel is named"
    name = parts.path.strip("/").partition("/")[0]
    for place in parts.netloc.rpartition("@")[2].split(","):
        host, _, port = place.partition(":")
        client = Redis.from_url(
            server_url(url, host, int(port or PORT)),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            decode_responses=True,
        )
        try:
            address = await client.sentinel_get_master_addr_by_name(name, return_responses=True)
        except (RedisConnectionError, OSError, TimeoutError) as error:
            reason = f"{place}: {error or 'no answer'}"
            continue
        finally:
            await client.aclose()
        if isinstance(address, tuple):
            return str(address[0]), address[1]
        reason = f"{place} watches no {name}"
    raise RedisConnectionError(f"no sentinel names the master ({reason})")
