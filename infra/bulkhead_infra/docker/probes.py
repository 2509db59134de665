"""Health checks of brokers, Redis and sentinels: `python -m bulkhead_infra.docker.probes nats|redis|sentinel [--stay]`.

In: which of them this container is. Out: exit code 0 when it is healthy, 1 otherwise, with what it said. A broker that
was healthy and does not become so again (after a full disk) is told to end: Docker starts what ended again; not one
of a cluster that only waits for the others. --stay:
who is healthy is watched for half a minute by one process; bulkhead/runtime/process/container_probe.py says why, and
why so little is imported.
"""

import os
import sys
import time

from bulkhead.runtime.process.container_probe import MARKS, STAY, exchange_text, keep_probing, probe_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
else:
    import _signal

HEALTH_URL = "http://127.0.0.1:8222/healthz"
REDIS, SENTINEL = "127.0.0.1:6379", "127.0.0.1:26379"
REDIS_CONFIGURATION = "/bulkhead/identity/redis.conf"
STORES = "?js-enabled-only=true"
BROKER_NAME_VARIABLE = "BULKHEAD_BROKER"
"""As infra/bulkhead_infra/nats/configuration.py has it: set for a broker of a cluster."""
DATA = "/bulkhead/data"
SERVER_PID = 1
UNHEALTHY_S = 8.0
MIN_FREE_BYTES = 256 * 1024**2
"""As `bulkhead up` does: with less it would only fill the disk again."""
LOOKS, EVERY_S, WITHIN_S = 10, 3.0, 3.0


def probe_broker(
    url: str = HEALTH_URL, marks: str = MARKS, pid: int = SERVER_PID, *, in_cluster: bool | None = None
) -> tuple[bool, str]:
    """Health of the broker, and what it said. Unhealthy for UNHEALTHY_S after it was healthy, with room on the
    disk: told to end. in_cluster: as the environment says, when nobody does.
    """
    healthy, detail = probe_url(url)
    was_healthy, since = f"{marks}/was-healthy", f"{marks}/unhealthy-since"
    if healthy:
        _touch_file(was_healthy)
        if os.path.exists(since):
            os.unlink(since)
        return True, detail
    # While it starts it may read a large store for minutes: that is no reason to begin anew.
    if not os.path.exists(was_healthy):
        return False, detail
    if BROKER_NAME_VARIABLE in os.environ if in_cluster is None else in_cluster:
        # Without a majority, or behind the others: to begin anew would only take longer. Its disk is another matter.
        stores, _ = probe_url(url + STORES)
        if stores:
            if os.path.exists(since):
                os.unlink(since)
            return False, detail
    if not os.path.exists(since):
        _touch_file(since)
    if time.time() - os.stat(since).st_mtime < UNHEALTHY_S:
        return False, detail
    room = os.statvfs(DATA if os.path.exists(DATA) else marks)
    free = room.f_bavail * room.f_frsize
    if free < MIN_FREE_BYTES:
        return False, f"{detail}\nonly {free // 1024**2} MiB are free where its store lies: free some, then it restarts"
    os.kill(pid, _signal.SIGTERM)
    return False, f"{detail}\nit does not recover by itself and is restarted"


def probe_redis(place: str = REDIS, configuration: str = REDIS_CONFIGURATION) -> tuple[bool, str]:
    """Health of Redis: it answers, with its password, and what."""
    try:
        with open(configuration, encoding="utf-8") as file:
            lines = [line.split() for line in file]
    except OSError as error:
        return False, f"{configuration} cannot be read: {error.strerror}; `provision-keys` writes it"
    password = next((words[1] for words in lines if words[:1] == ["requirepass"] and len(words) == 2), "")
    try:
        # The server closes too, so the length of the answers need not be known. A sentinel has no QUIT since Redis 7.2.
        answers = exchange_text(place, f"AUTH {password}\r\nPING\r\n", half_close=True)
    except OSError as error:
        return False, f"it does not answer: {error}"
    return answers == b"+OK\r\n+PONG\r\n", answers.decode("utf-8", "replace").strip()


def probe_sentinel() -> tuple[bool, str]:
    """Health of a sentinel: it answers. It speaks as Redis does, and has its password."""
    return probe_redis(SENTINEL)


def _touch_file(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


PROBES: "dict[str, Callable[[], tuple[bool, str]]]" = {
    "nats": probe_broker,
    "redis": probe_redis,
    "sentinel": probe_sentinel,
}


def main(arguments: list[str]) -> int:
    which = [argument for argument in arguments if argument != STAY]
    look = PROBES.get(which[0]) if len(which) == 1 else None
    if look is None:
        print(f"write one of {', '.join(PROBES)}", file=sys.stderr)
        return 2
    healthy, detail = keep_probing(look, LOOKS, EVERY_S, WITHIN_S) if STAY in arguments else look()
    print(detail)
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
