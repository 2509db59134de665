"""Where Docker is absent, or no daemon answers: one line that says so and what to do, before anything is built."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead_infra.docker import images


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    """What this machine has is remembered for the whole run: here another machine is played."""
    images.docker_client.cache_clear()
    yield
    images.docker_client.cache_clear()


def test_docker_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images.shutil, "which", lambda *_, **__: None)
    assert images.unavailable_reason() == "docker is not installed: on Debian, apt-get install docker.io docker-compose"


def test_a_daemon_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tmp_path / "docker"
    client.write_text('#!/bin/sh\ncase "$1" in version) echo 20.10.24;; *) echo "Cannot connect" >&2; exit 1;; esac\n')
    client.chmod(0o755)
    monkeypatch.setattr(images.shutil, "which", lambda *_, **__: str(client))
    assert images.unavailable_reason() == (
        "no Docker daemon answers (Cannot connect): start dockerd, or let this user use it (group docker)"
    )
