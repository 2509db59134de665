"""What planted bugs showed to be untested: an answer of several messages of which one was lost on the way."""

import pytest

from bulkhead.bus import wire
from bulkhead.bus.port import BusUnavailable


def answer(sequence: int, before: int) -> tuple[dict[str, str], bytes]:
    """As the server answers a batched direct get; each message names the one before it."""
    return {
        "Nats-Stream": "INBOX_WORKER",
        "Nats-Subject": "mesh.planner.worker.1.demo.t1",
        "Nats-Sequence": str(sequence),
        "Nats-Last-Sequence": str(before),
        "Nats-Time-Stamp": "2027-01-15T08:00:00.123456789Z",
    }, b"{}"


def end(before: int) -> tuple[dict[str, str], bytes]:
    return {"Status": "204", "Description": "EOB", "Nats-Last-Sequence": str(before)}, b""


def test_a_whole_answer_is_a_page():
    page = wire.read_page([answer(4, 0), answer(7, 4), answer(9, 7), end(9)], "INBOX_WORKER")
    assert [one.sequence for one in page] == [4, 7, 9]


@pytest.mark.parametrize(
    "answers",
    [[answer(4, 0), answer(9, 7), end(9)], [answer(4, 0), answer(7, 4), end(9)]],
    ids=["in the middle", "at the end"],
)
def test_an_answer_with_a_hole_is_none(answers):
    with pytest.raises(BusUnavailable, match="hole after"):
        wire.read_page(answers, "INBOX_WORKER")
