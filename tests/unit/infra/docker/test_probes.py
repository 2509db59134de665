"""The health checks of containers: what they take for healthy, how they stay, and that they cost next to nothing."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bulkhead.runtime.process import container_probe
from bulkhead_infra.docker import probes
from bulkhead_infra.docker.image_contents import ROOT
from bulkhead_infra.render import compose
from tests.redis_server import EphemeralRedis

WELL, NOT_YET = b"HTTP/1.1 200 OK\r\n\r\n{}", b"HTTP/1.1 503 NO\r\n\r\nunavailable"
DEAR = {"socket", "enum", "re", "pathlib", "collections", "typing", "json", "asyncio", "importlib.util", "site"}
"""Each of these, or what it imports, takes longer than a probe may."""


@contextmanager
def answering() -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives each answer once, in order."""
    answers: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                connection, _ = server.accept()
                with connection:
                    if not connection.recv(1024):
                        return
                    connection.sendall(answers.pop(0))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/healthz", answers
        finally:
            socket.create_connection(server.getsockname()).close()
            thread.join()


@pytest.mark.parametrize(
    "answer, code", [(b"HTTP/1.1 200 OK\r\n\r\n{}", 0), (b"HTTP/1.1 503 NO\r\n\r\nstarting", 1), (b"", 1), (b"200", 1)]
)
def test_a_probe_takes_a_200_and_nothing_else(answer: bytes, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with answering() as (url, answers):
        answers.append(answer)
        assert container_probe.main([url]) == code
    assert code == 0 or answer[-8:].decode() in capsys.readouterr().out


def test_a_probe_of_nobody_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert container_probe.main(["http://127.0.0.1:1/readyz"]) == 1
    assert "does not answer" in capsys.readouterr().out


def test_a_service_whose_loop_hangs_is_not_healthy() -> None:
    """Its port is open and connections are made, by the kernel: nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/readyz"
        assert container_probe.probe_url(url, timeout_s=0.05) == (False, f"{url} does not answer: timed out")


def test_who_is_healthy_is_watched_and_every_change_is_told_at_once(tmp_path: Path) -> None:
    with answering() as (url, answers):

        def look(*come: bytes) -> tuple[bool, int]:
            """Whether it is said to be healthy, and how many answers nobody waited for."""
            answers[:] = come
            healthy, _ = container_probe.keep_probing(
                lambda: container_probe.probe_url(url), looks=3, every_s=0, marks=str(tmp_path)
            )
            return healthy, len(answers)

        assert look(NOT_YET, WELL) == (False, 1)
        assert look(WELL, WELL) == (True, 1), "the first yes is what others wait for"
        assert look(WELL, WELL, WELL, WELL) == (True, 0), "one process for as long as all is well"
        assert look(WELL, WELL, NOT_YET, WELL) == (False, 1)
        assert look(WELL, WELL) == (True, 1), "it is well again, and that is told"


def test_after_a_pause_the_first_probe_tells_at_once(tmp_path: Path) -> None:
    """To Docker the container is unhealthy until a probe ends. It was paused while one stayed, or between two."""
    looks, mark = 0, tmp_path / container_probe.TOLD

    def look() -> tuple[bool, str]:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt
        return True, "well"

    assert container_probe.keep_probing(look, looks=9, every_s=0, marks=str(tmp_path))[0] and looks == 1
    with pytest.raises(KeyboardInterrupt):
        container_probe.keep_probing(look, looks=9, every_s=0, marks=str(tmp_path))
    assert container_probe.keep_probing(look, looks=9, every_s=0, marks=str(tmp_path))[0] and looks == 4
    then = time.time() - container_probe.WITHIN_S
    os.utime(mark, (then, then))
    assert container_probe.keep_probing(look, looks=9, every_s=0, marks=str(tmp_path))[0] and looks == 5
    assert container_probe.keep_probing(look, looks=9, every_s=0, marks=str(tmp_path))[0] and looks == 15


def test_without_room_for_a_mark_every_probe_is_a_short_one(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "missing")
    for _ in range(2):
        assert container_probe.keep_probing(lambda: (True, "well"), looks=9, every_s=60, marks=nowhere) == (
            True,
            "well",
        )


def test_a_stay_ends_before_docker_loses_patience() -> None:
    """However slowly each answer comes, as long as it comes."""
    image = (ROOT / "infra/bulkhead_infra/docker/service.Dockerfile").read_text()
    found = dict.fromkeys(["service"], re.findall(r"HEALTHCHECK --interval=(\d+)s --timeout=(\d+)s", image)[0])
    stays = r"infra\.docker\.probes, (\w+), --stay\]\n +interval: (\d+)s\n +timeout: (\d+)s"
    found |= {name: times for name, *times in re.findall(stays, compose.files()[compose.FILE])}
    assert set(found) == {"service", "nats", "redis"}
    for name, (interval, timeout) in found.items():
        how = container_probe if name == "service" else probes
        assert int(interval) + 2 <= how.WITHIN_S
        assert int(timeout) > (how.LOOKS + 1) * container_probe.TIMEOUT_S + how.LOOKS * how.EVERY_S


@pytest.mark.parametrize("module", ["bulkhead.runtime.process.container_probe", "bulkhead_infra.docker.probes"])
def test_a_probe_imports_next_to_nothing(module: str) -> None:
    """It runs in every container all the time: what it imports was most of what an idle mesh used."""
    code = f"import sys, {module}; print(*sys.modules)"
    path = os.pathsep.join(str(ROOT / one) for one in ("", "libs", "contracts", "services", "infra", "cli"))
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": path},
        timeout=60,
    )
    assert module in done.stdout.split() and not DEAR & set(done.stdout.split())


def test_a_broker_that_was_healthy_and_stays_unhealthy_is_told_to_end(tmp_path: Path) -> None:
    """Once it was: while it starts, it may read its store for as long as that takes."""
    waits = "import signal; signal.pause()"
    with subprocess.Popen([sys.executable, "-c", waits]) as server, answering() as (url, answers):

        def look(answer: bytes) -> bool:
            answers.append(answer)
            healthy, said = probes.probe_broker(url, str(tmp_path), server.pid)
            heard.append(said)
            return healthy

        def unhealthy_for(seconds: float) -> None:
            then = time.time() - seconds
            os.utime(tmp_path / "unhealthy-since", (then, then))

        heard: list[str] = []
        assert not look(NOT_YET) and not (tmp_path / "unhealthy-since").exists(), "it has just started"
        assert look(WELL)
        assert not look(NOT_YET)
        assert look(WELL) and not (tmp_path / "unhealthy-since").exists(), "it has recovered"
        assert not look(NOT_YET) and server.poll() is None
        unhealthy_for(probes.UNHEALTHY_S + 1)
        assert not look(NOT_YET) and server.wait(30) == -signal.SIGTERM
    assert heard[-1] == "unavailable\nit does not recover by itself and is restarted"


def test_redis_is_asked_with_its_password(tmp_path: Path) -> None:
    configuration = tmp_path / "redis.conf"
    server = EphemeralRedis(tmp_path)
    place = f"127.0.0.1:{server.port}"
    server.start()
    try:
        container_probe.exchange_text(place, "CONFIG SET requirepass secret\r\nQUIT\r\n")
        configuration.write_text("bind 0.0.0.0\nrequirepass secret\n")
        assert probes.probe_redis(place, str(configuration)) == (True, "+OK\r\n+PONG")
        configuration.write_text("bind 0.0.0.0\nrequirepass another\n")
        healthy, said = probes.probe_redis(place, str(configuration))
        assert not healthy and said.startswith("-WRONGPASS")
    finally:
        server.stop()
    assert probes.probe_redis(place, str(configuration))[1].startswith("it does not answer")
    assert "cannot be read" in probes.probe_redis(place, str(tmp_path / "missing"))[1]


def test_only_who_is_known_can_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert probes.main(["postgres"]) == 2 and probes.main(["--stay"]) == 2
    assert "write one of nats, redis" in capsys.readouterr().err
