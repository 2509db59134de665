"""The world outside: keys, faults, gates, over real HTTP."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from bulkhead.testing.fake_world import FakeWorld, FakeWorldEffects


@pytest.fixture
def outside() -> Iterator[FakeWorld]:
    with FakeWorld() as found:
        yield found


@pytest.fixture
def effects(outside: FakeWorld) -> FakeWorldEffects:
    return FakeWorldEffects(outside, f"http://127.0.0.1:{outside.port}")


def post(effects: FakeWorldEffects, effect: str = "refund", key: str = "k1", **body: object) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return httpx.post(f"{effects.url}/{effect}", json=body or {"order": 1}, headers=headers, timeout=5)


def test_a_key_is_done_once_and_answers_the_same(effects: FakeWorldEffects) -> None:
    first, second = post(effects).json(), post(effects).json()
    assert (first["repeat"], second["repeat"]) == (False, True) and first["id"] == second["id"]
    assert effects.exactly_once("refund", order=1).key == "k1" and len(effects.arrivals("refund")) == 2
    assert post(effects, order=2).status_code == 422 and effects.never("refund", order=2)


def test_without_a_key_every_request_counts(effects: FakeWorldEffects) -> None:
    post(effects, key="")
    post(effects, key="")
    with pytest.raises(AssertionError, match=r"it has happened twice\n  refund .*under key \(none\): done\n"):
        effects.exactly_once("refund")


def test_another_test_s_effects_are_not_seen(outside: FakeWorld, effects: FakeWorldEffects) -> None:
    post(effects)
    with pytest.raises(AssertionError, match="it has not happened\nnothing else came"):
        FakeWorldEffects(outside, effects.url).exactly_once("refund")


@pytest.mark.parametrize(
    ("mode", "done"), [("drop_before", 0), ("drop_after", 1), ("error_before", 0), ("error_after", 1)]
)
def test_misbehaviour_happens_once_to_that_effect(effects: FakeWorldEffects, mode: str, done: int) -> None:
    effects.misbehave("refund", mode)  # type: ignore[arg-type]
    assert post(effects, "look").status_code == 200
    if mode.startswith("drop"):
        with pytest.raises(httpx.HTTPError):
            post(effects)
    else:
        assert post(effects).status_code == 503
    assert len(effects.done("refund")) == done
    assert post(effects).status_code == 200 and effects.exactly_once("refund")


def test_an_unknown_mode_is_told(effects: FakeWorldEffects) -> None:
    with pytest.raises(ValueError, match="there are drop_before, drop_after"):
        effects.misbehave("refund", "explode")  # type: ignore[arg-type]


def test_what_is_held_waits(effects: FakeWorldEffects) -> None:
    with effects.held("refund") as refund:
        sending = threading.Thread(target=post, args=(effects,))
        sending.start()
        refund.wait(5)
        assert effects.never("refund")
    sending.join(5)
    assert effects.exactly_once("refund")


def test_what_does_not_come_is_told(effects: FakeWorldEffects) -> None:
    with effects.held("refund") as refund, pytest.raises(AssertionError, match=r"held\('refund'\): none came within"):
        refund.wait(0.01)


@pytest.mark.parametrize(("content", "status"), [(b"{", 400), (b"[1]", 400), (b" " * 70_000, 413)])
def test_what_is_no_effect_is_refused(effects: FakeWorldEffects, content: bytes, status: int) -> None:
    assert httpx.post(f"{effects.url}/refund", content=content, timeout=5).status_code == status
    assert effects.never("refund")
