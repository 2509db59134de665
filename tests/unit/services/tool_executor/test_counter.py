"""The tests' own counter: counts once per key, survives its kill, says what it did."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from bulkhead.testing.counter import CounterServer


def increment(url: str, name: str = "a", key: str = "", amount: int = 1) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return httpx.post(f"{url}/increment", json={"name": name, "amount": amount}, headers=headers, trust_env=False)


def test_keys_count_once_and_repeats_are_told_apart(tmp_path: Path) -> None:
    with CounterServer(tmp_path / "f") as counter:
        assert increment(counter.url, key="k").json() == {"name": "a", "value": 1, "repeat": False}
        assert increment(counter.url).json()["value"] == 2
        assert increment(counter.url, key="k").json() == {"name": "a", "value": 1, "repeat": True}
        assert increment(counter.url, key="k", amount=5).status_code == 422
        found = httpx.get(f"{counter.url}/counts", trust_env=False).json()
    assert found == {"counts": {"a": 2}, "increments": 2, "repeats": 1}


def test_counts_survive_kill_9_and_a_torn_line(tmp_path: Path) -> None:
    file = tmp_path / "f"

    def start() -> tuple[subprocess.Popen[str], str]:
        child = subprocess.Popen(
            [sys.executable, "-m", "bulkhead.testing.counter", "--port", "0", "--file", str(file)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        return child, child.stdout.readline().strip()

    child, url = start()
    try:
        increment(url, key="k")
        increment(url, name="b", amount=3)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    with file.open("a") as torn:
        torn.write('{"name": "a", "amo')
    child, url = start()
    try:
        assert increment(url, key="k").json()["repeat"] is True
        assert httpx.get(f"{url}/counts", trust_env=False).json() == {
            "counts": {"a": 1, "b": 3},
            "increments": 2,
            "repeats": 1,
        }
    finally:
        child.kill()
        child.wait()
    assert [json.loads(line)["name"] for line in file.read_text().splitlines()] == ["a", "b", "a"]


def test_garbage_is_refused_in_words(tmp_path: Path) -> None:
    with CounterServer(tmp_path / "f") as counter:
        assert httpx.post(f"{counter.url}/increment", content=b"{", trust_env=False).status_code == 400
        assert httpx.post(f"{counter.url}/misbehave", json={"mode": "dance"}, trust_env=False).status_code == 400
        assert httpx.get(f"{counter.url}/", trust_env=False).status_code == 404
        assert counter.counts()["increments"] == 0
