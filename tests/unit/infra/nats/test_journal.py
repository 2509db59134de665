"""What a look at the journal sees among the newest numbers of an inbox, where counts alone would agree."""

import time

from bulkhead.bus.port import StoredMessage
from bulkhead_infra.nats.journal import JournalComparison
from bulkhead_infra.nats.stream_reads import StreamReads

SUBJECT = "mesh.planner.worker.1.demo.t.-"


def message(number: int, name: str, source: int | None = None, age_s: float = 0.0) -> StoredMessage:
    headers = {"ce-id": name} | ({"Nats-Stream-Source": f"INBOX_WORKER {source} > > >"} if source is not None else {})
    return StoredMessage(SUBJECT, headers, b"{}", number, int((time.time() - age_s) * 1000))


class Streams:
    """Answers reads as the operator's connection does, from lists."""

    def __init__(self, **streams: list[StoredMessage]) -> None:
        self.streams = streams

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        return self.streams[stream][-1] if self.streams[stream] else None

    async def read(self, stream: str, subject: str, after: int = 0, limit: int = 256) -> list[StoredMessage]:
        return [one for one in self.streams[stream] if one.sequence > after][:limit]


async def fault(inbox: list[StoredMessage], journal: list[StoredMessage]) -> str:
    streams = Streams(INBOX_WORKER=inbox, JOURNAL=journal)
    return await JournalComparison(StreamReads(streams, None))._find_difference("worker")  # type: ignore[arg-type]


async def test_one_read_twice_does_not_stand_in_for_one_not_read() -> None:
    inbox = [message(number, f"m{number}") for number in range(1, 6)]
    journal = [message(at, f"m{number}", number) for at, number in enumerate((1, 2, 2, 4, 5), start=1)]
    assert await fault(inbox, journal) == "it lacks number 3 of INBOX_WORKER, and has read past it"


async def test_whole_copies_are_left_alone() -> None:
    inbox = [message(number, f"m{number}") for number in range(1, 6)]
    journal = [message(at, f"m{number}", number) for at, number in enumerate((1, 2, 3, 4, 5), start=8)]
    assert await fault(inbox, journal) == ""


async def test_what_was_said_after_the_inbox_was_read_is_no_gap() -> None:
    inbox = [message(number, f"m{number}") for number in (1, 2, 4)]
    journal = [message(at, f"m{number}", number) for at, number in enumerate((1, 2, 4, 5, 7), start=1)]
    assert await fault(inbox, journal) == ""


async def test_what_is_old_enough_to_have_been_purged_is_no_gap() -> None:
    inbox = [message(1, "m1"), message(2, "m2", age_s=90 * 86_400), message(3, "m3")]
    assert await fault(inbox, [message(1, "m1", 1), message(2, "m3", 3)]) == ""
