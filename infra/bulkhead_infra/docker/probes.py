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

from bulkhead.runtime.process.container_probe import MARKS, STAY, ask, exchange, stay

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
WHO = "BULKHEAD_BROKER"
"""As infra/bulkhead_infra/nats/configuration.py has it: set for a broker of a cluster."""
DATA = "/bulkhead/data"
SERVER_PID = 1
UNHEALTHY_S = 8.0
MIN_FREE_BYTES = 256 * 1024**2
"""As `bulkhead up` does: with less it would only fill the disk again."""
LOOKS, EVERY_S, WITHIN_S = 10, 3.0, 3.0


def broker(
    url: str = HEALTH_URL, marks: str = MARKS, pid: int = SERVER_PID, *, in_cluster: bool | None = None
) -> tuple[bool, str]:
    """Whether it is healthy, and what it said. Unhealthy for UNHEALTHY_S after it was healthy, with room on the disk:
    told to end. in_cluster: as the environment says, when nobody does."""
    healthy, said = ask(url)
    was_healthy, since = f"{marks}/was-healthy", f"{marks}/unhealthy-since"
    if healthy:
        _touch(was_healthy)
        if os.path.exists(since):
            os.unlink(since)
        return True, said
    # While it starts it may read a large store for minutes: that is no reason to begin anew.
    if not os.path.exists(was_healthy):
        return False, said
    if WHO in os.environ if in_cluster is None else in_cluster:
        # Without a majority, or behind the others: to begin anew would only take longer. Its disk is another matter.
        stores, _ = ask(url + STORES)
        if stores:
            if os.path.exists(since):
                os.unlink(since)
            return False, said
    if not os.path.exists(since):
        _touch(since)
    if time.time() - os.stat(since).st_mtime < UNHEALTHY_S:
        return False, said
    room = os.statvfs(DATA if os.path.exists(DATA) else marks)
    free = room.f_bavail * room.f_frsize
    if free < MIN_FREE_BYTES:
        return False, f"{said}\nonly {free // 1024**2} MiB are free where its store lies: free some, then it restarts"
    os.kill(pid, _signal.SIGTERM)
    return False, f"{said}\nit does not recover by itself and is restarted"


def redis(place: str = REDIS, configuration: str = REDIS_CONFIGURATION) -> tuple[bool, str]:
    """Whether it answers, with its password, and what."""
    try:
        with open(configuration, encoding="utf-8") as file:
            lines = [line.split() for line in file]
    except OSError as error:
        return False, f"{configuration} cannot be read: {error.strerror}; `provision-keys` writes it"
    password = next((words[1] for words in lines if words[:1] == ["requirepass"] and len(words) == 2), "")
    try:
        # The server closes too, so the length of the answers need not be known. A sentinel has no QUIT since Redis 7.2.
        answers = exchange(place, f"AUTH {password}\r\nPING\r\n", half_close=True)
    except OSError as error:
        return False, f"it does not answer: {error}"
    return answers == b"+OK\r\n+PONG\r\n", answers.decode("utf-8", "replace").strip()


def sentinel() -> tuple[bool, str]:
    """Whether it answers. It speaks as Redis does, and has its password."""
    return redis(SENTINEL)


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


WHICH: "dict[str, Callable[[], tuple[bool, str]]]" = {"nats": broker, "redis": redis, "sentinel": sentinel}


def main(arguments: list[str]) -> int:
    which = [one for one in arguments if one != STAY]
    look = WHICH.get(which[0]) if len(which) == 1 else None
    if look is None:
        print(f"write one of {', '.join(WHICH)}", file=sys.stderr)
        return 2
    healthy, said = stay(look, LOOKS, EVERY_S, WITHIN_S) if STAY in arguments else look()
    print(said)
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
