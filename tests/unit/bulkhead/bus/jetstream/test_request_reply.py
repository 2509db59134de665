"""What belongs to an answer, and what came after it."""

import asyncio

from nats.aio.client import Client
from nats.aio.msg import Msg

from bulkhead.bus.jetstream.request_reply import _Question


def message(body: bytes, status: str = "") -> Msg:
    return Msg(Client(), subject="s", data=body, headers={"Status": status} if status else None)


async def test_a_second_answer_to_one_question_is_no_part_of_the_first() -> None:
    """It comes before the one who asked has run: under load, as it was seen."""
    question = _Question(asyncio.get_running_loop().create_future(), many=False)
    first = message(b"1")
    question.take(first)
    question.take(message(b"2"))
    assert await question.done == [first]


async def test_an_answer_of_many_ends_with_its_status() -> None:
    question = _Question(asyncio.get_running_loop().create_future(), many=True)
    parts = [message(b"1"), message(b"2"), message(b"", "204")]
    for part in [*parts, message(b"late")]:
        question.take(part)
    assert await question.done == parts
