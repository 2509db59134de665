"""Bodies count by what they take while they are handled, not by their bytes alone."""

import json
from dataclasses import dataclass

import pytest
from starlette.requests import Request

from bulkhead.http_server.bodies import BodyReader, BodyRefused
from bulkhead_contracts import bounds
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.doors.forms.strict_json import VALUE_BYTES, read_object, weigh_values
from bulkhead_services.doors.port import DoorRefusal

CLAIM = RequesterClaim(tenant="acme", person="alice", role="submitter", via="api_key")
MANY_PARTS = json.dumps({"parts": [{"type": "text", "text": "ab"}] * 20_000}).encode()


@dataclass
class Limits:
    body_timeout_s: float = 5.0
    body_min_bytes_per_s: int = 1
    max_body_bytes_held: int = 64_000_000
    max_body_bytes_held_per_tenant: int = 48_000_000
    max_body_bytes_held_per_person: int = 32_000_000


def request_of(body: bytes) -> Request:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


async def test_a_second_body_of_very_many_values_is_refused_while_the_first_is_handled() -> None:
    reader = BodyReader(Limits())
    async with reader.read(request_of(MANY_PARTS), CLAIM, 10**7, weigh=weigh_values) as body:
        assert body == MANY_PARTS and reader.held > 60_000 * VALUE_BYTES
        with pytest.raises(BodyRefused, match="more than"):
            async with reader.read(request_of(MANY_PARTS), CLAIM, 10**7, weigh=weigh_values):
                pass
    assert reader.held == 0
    async with reader.read(request_of(MANY_PARTS), CLAIM, 10**7, weigh=weigh_values):
        pass


async def test_one_body_fits_however_much_it_weighs() -> None:
    reader = BodyReader(Limits())
    async with reader.read(request_of(b"x" * 1_000), CLAIM, 10**7, weigh=lambda raw: 10**12):
        assert reader.held == Limits.max_body_bytes_held_per_person


def test_words_with_marks_are_one_value() -> None:
    assert weigh_values(json.dumps({"text": "a, b, [c], {d} " * 100_000}).encode()) < 10 * VALUE_BYTES


def test_what_is_refused_for_its_values_weighs_nothing() -> None:
    body = b'{"a":[' + b"{}," * (bounds.MAX_ASKED_VALUES + 1) + b"{}]}"
    assert weigh_values(body) == 0
    with pytest.raises(DoorRefusal, match="values"):
        read_object(body)


@pytest.mark.parametrize(("text", "times"), [("x", 0), ("é", 2), ("\U0001f600", 4)])
def test_a_wide_character_makes_all_of_its_text_wide(text: str, times: int) -> None:
    body = json.dumps({"text": "x" * 100_000 + text}, ensure_ascii=False).encode()
    assert times * 100_000 <= weigh_values(body) <= times * 100_100 + 10 * VALUE_BYTES
