"""External services that a mesh uses instead of its own: broker, Redis.

In: addresses. Out: whether they can be used, said before anything is started. Their accounts, memory and disks are
their owner's: `bulkhead render accounts` writes what the broker must include, `bulkhead doctor` looks at both.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from bulkhead_infra.nats.stream_sizes import StoreTooSmall, stream_bounds
from bulkhead_infra.processes.child import StartFailed

MAX_REPLICAS = 5
BROKER_SCHEMES, REDIS_SCHEMES = ("nats", "tls"), ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
SENTINELS = "+sentinel://"


@dataclass(frozen=True, slots=True)
class ExternalServices:
    """ "" where the mesh runs its own. nats_monitor_url: http address of the broker's monitoring port, for doctor.

    replicas: copies of each stream; more than one needs a cluster of at least so many brokers. store_gib: disk for the
    broker's streams; 0 where nobody says, as it was before.
    """

    nats_url: str = ""
    nats_monitor_url: str = ""
    redis_url: str = ""
    replicas: int = 1
    store_gib: int = 0

    def check_options(self) -> None:
        """Raises StartFailed for what cannot be an address."""
        for url, schemes, option in (
            (self.nats_url, BROKER_SCHEMES, "--nats"),
            (self.redis_url, REDIS_SCHEMES, "--redis"),
            (self.nats_monitor_url, ("http", "https"), "--nats-monitor"),
        ):
            for address in _split_addresses(url):
                if not _is_address(address, schemes):
                    raise StartFailed(f"{option}: this is not an address; write it as {schemes[0]}://HOST:PORT")
        try:
            stream_bounds([], self.store_gib)
        except StoreTooSmall as error:
            raise StartFailed(f"--store-gib: {error}") from error
        if not 1 <= self.replicas <= MAX_REPLICAS:
            raise StartFailed(f"--replicas {self.replicas}: write 1 to {MAX_REPLICAS}, at most one per broker")
        if self.replicas > 1 and not self.nats_url:
            raise StartFailed("--replicas needs a cluster of brokers: name it with --nats")


def _split_addresses(url: str) -> list[str]:
    """Every address in it; sentinels of a Redis stand in one address, with what they watch at its end."""
    head, sentinels, tail = url.partition(SENTINELS)
    if not sentinels:
        return url.split(",") if url else []
    hosts, _, name = tail.rpartition("@")[2].partition("/")
    return [f"{head}{sentinels}{host if name else ''}" for host in hosts.split(",")]


def _is_address(url: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname or parts.path) and parts.port != 0
    except ValueError:
        return False
