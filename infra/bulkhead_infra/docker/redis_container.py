"""The program of Redis's containers: Redis or Valkey, on the provisioner's configuration. probes.py asks it.

    (nothing)       the one Redis of a mesh
    server NAME     one of two: master, or replica of the one that the sentinels name; without them `redis` is master
    sentinel        one of three that watch the two and make the replica the master when the master is gone

In: /bulkhead/identity/redis.conf (it holds the password), /bulkhead/data. Out: this very process becomes the server.
Its content is a cache, rebuilt from the journal: files that a power cut has torn are removed before the start.
"""

import hashlib
import os
import socket
import sys
import time
from pathlib import Path

from bulkhead_infra.processes.redis_program import PROGRAMS, redis_program
from bulkhead_infra.processes.torn_file import empty_folder, torn_files

CONFIGURATION = Path("/bulkhead/identity/redis.conf")
DATA = Path("/bulkhead/data")
SERVERS_VARIABLE = "BULKHEAD_REDIS_SERVERS"
"""The environment variable with the two servers' host names, where those last and addresses do not: in Kubernetes.
Servers and sentinels then know each other by name."""
SERVERS = tuple(os.environ.get(SERVERS_VARIABLE, "redis,redis-2").split(","))
"""The first is the master of a mesh that starts."""
SENTINELS = "sentinel"
PORT, SENTINEL_PORT = 6379, 26379
WATCHED_PAIR = "mesh"
"""Name of the pair at the sentinels."""
SENTINEL_FILE = Path("/tmp/sentinel.conf")  # noqa: S108 - the container's own; a sentinel writes what it learns into it
DOWN_AFTER_MS, FAILOVER_TIMEOUT_MS = 3_000, 10_000
ASK_TIMEOUT_S, RESOLVE_WITHIN_S = 1.0, 20.0


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["sentinel"], *(["server", name] for name in SERVERS)):
        print(f"write nothing, `server NAME` (one of {', '.join(SERVERS)}) or `sentinel`", file=sys.stderr)
        return 2
    try:
        words = [line.split() for line in CONFIGURATION.read_text().splitlines()]
    except OSError as error:
        print(
            f"{CONFIGURATION} cannot be read: {error.strerror}; `provision-keys` writes it, and must have ended "
            "before Redis starts; is its volume mounted here?",
            file=sys.stderr,
        )
        return 2
    password = next((line[1] for line in words if line[:1] == ["requirepass"] and len(line) > 1), "")
    server = redis_program(os.environ.get("PATH", os.defpath))
    if server is None:
        print(
            f"this image has no {' or '.join(PROGRAMS)}: build it again (infra/bulkhead_infra/docker/images.py)",
            file=sys.stderr,
        )
        return 2
    program = str(server)
    if arguments == ["sentinel"]:
        return become_sentinel(program, password)
    if not os.access(DATA, os.W_OK):
        problem = f"{DATA} cannot be written by user {os.getuid()}: give the volume to it (chown), or mount another"
        print(problem, file=sys.stderr)
        return 2
    if torn_files(DATA):
        print("its files were torn by a power cut; it starts empty", file=sys.stderr)
        empty_folder(DATA)
    master = master_for(arguments[1], password) if arguments else ""
    follow = ["--replicaof", master, str(PORT)] if master else []
    if arguments and SERVERS_VARIABLE in os.environ:
        follow += ["--replica-announce-ip", arguments[1]]
    os.execv(program, [program, str(CONFIGURATION), *follow])  # noqa: S606 - no shell is wanted


def master_for(name: str, password: str) -> str:
    """The master that this one follows; "" when it is the master itself."""
    named = named_master(password)
    if named == name or named in resolve_addresses(socket.gethostname()):
        return ""
    return named or ("" if name == SERVERS[0] else SERVERS[0])


def named_master(password: str) -> str:
    """The address that a sentinel names as the master's; "" where none answers."""
    for address in resolve_addresses(SENTINELS):
        try:
            with socket.create_connection((address, SENTINEL_PORT), ASK_TIMEOUT_S) as connection:
                request = f"AUTH {password}\r\nSENTINEL get-master-addr-by-name {WATCHED_PAIR}\r\n"
                connection.sendall(request.encode())
                connection.shutdown(socket.SHUT_WR)  # It then closes, too: a sentinel has no QUIT since Redis 7.2.
                reply = b""
                while chunk := connection.recv(4096):
                    reply += chunk
        except OSError:
            continue  # It is away: there are others.
        lines = reply.decode("utf-8", "replace").split("\r\n")
        if lines[:2] == ["+OK", "*2"] and len(lines) > 3:
            return lines[3]
    return ""


def resolve_addresses(name: str) -> list[str]:
    """Addresses of all containers of this name; [] while there is none."""
    try:
        return socket.gethostbyname_ex(name)[2]
    except OSError:
        return []


def become_sentinel(program: str, password: str) -> int:
    """Become a sentinel. It begins with the master that another one names, else with the first of the two that runs;
    all that it learns it learns again after its next start."""
    deadline = time.monotonic() + RESOLVE_WITHIN_S
    by_name = SERVERS_VARIABLE in os.environ
    while not any(candidates := [named_master(password), *_reachable_servers(by_name=by_name)]):
        if time.monotonic() > deadline:
            problem = f"neither {' nor '.join(SERVERS)} has an address: are they on this network, and do they run?"
            print(problem, file=sys.stderr)
            return 1
        time.sleep(ASK_TIMEOUT_S)
    SENTINEL_FILE.touch(mode=0o600)
    host = socket.gethostname() if by_name else ""
    SENTINEL_FILE.write_text(sentinel_configuration(next(filter(None, candidates)), password, host))
    os.execv(program, [program, str(SENTINEL_FILE), "--sentinel"])  # noqa: S606 - no shell is wanted


def _reachable_servers(*, by_name: bool) -> list[str]:
    """Servers that have an address, by name or by that."""
    return [name if by_name else address for name in SERVERS for address in resolve_addresses(name)]


def sentinel_configuration(master: str, password: str, host: str = "") -> str:
    """Two of three must agree that a master is gone. host: its own, where names last and addresses do not; its id lasts
    as its name does, since the majority that agrees on a new master counts ids that are gone, too."""
    names = ""
    if host:
        myid = hashlib.sha1(host.encode(), usedforsecurity=False).hexdigest()
        names = f"sentinel myid {myid}\nsentinel resolve-hostnames yes\nsentinel announce-hostnames yes\n"
    return f"""\
port {SENTINEL_PORT}
bind 0.0.0.0
dir /tmp
requirepass {password}
sentinel sentinel-pass {password}
{names}sentinel monitor {WATCHED_PAIR} {master} {PORT} 2
sentinel auth-pass {WATCHED_PAIR} {password}
sentinel down-after-milliseconds {WATCHED_PAIR} {DOWN_AFTER_MS}
sentinel failover-timeout {WATCHED_PAIR} {FAILOVER_TIMEOUT_MS}
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
