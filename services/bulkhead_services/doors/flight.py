"""One model call in flight at this replica: its text as it comes, its outcome, and those who follow it.

In: live pieces of text, the outcome. Out: for each follower the text from its beginning, in pieces, each character
once. Live text is lossy, and another attempt of the provider begins at offset 0 again: what was told to a follower
cannot be taken back, so that an answer which does not go on from there ends in a Refusal.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

from bulkhead_contracts import bounds
from bulkhead_contracts.model import TextDelta
from bulkhead_services.doors.port import Answered, Refusal, Standing


class Flight:
    """A call. told: whether a follower has been given text. stored: whether it was sent; False when that failed, which
    its outcome tells. warning: what its agent is told beside. changed: called when its first follower has come, and
    when the last one has gone before its end. abandoned: its provider was told that nobody follows it."""

    def __init__(
        self, call_id: str, warning: str = "", changed: Callable[["Flight"], None] = lambda flight: None
    ) -> None:
        self.call_id, self.warning, self._changed = call_id, warning, changed
        self.followers = 0
        self.told = self.abandoned = False
        self.stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.outcome: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self.outcome.add_done_callback(_seen)
        self.pieces: list[str] = []
        self.chars = 0
        self.writing = 0
        """Grows when the text begins anew."""
        self._wake = asyncio.Event()

    def hear(self, delta: TextDelta) -> None:
        """A live piece. What follows a gap is left to the record."""
        if self.outcome.done() or delta.offset > self.chars or not delta.text:
            return
        if delta.offset < self.chars:
            whole = "".join(self.pieces)
            if whole.startswith(delta.text, delta.offset):
                return  # A repeat.
            self.pieces, self.writing = [whole[: delta.offset]], self.writing + 1
            self.chars = delta.offset
        if self.chars + len(delta.text) <= bounds.MAX_MODEL_ANSWER_BYTES:
            self.pieces.append(delta.text)
            self.chars += len(delta.text)
            self._notify()

    def end(self, outcome: Answered | Refusal) -> None:
        """The answer, or why there is none; the first one counts."""
        if self.outcome.done():
            return
        if isinstance(outcome, Answered):
            self.outcome.set_result(outcome)
        else:
            self.outcome.set_exception(outcome)
        self._notify()

    @property
    def text(self) -> str:
        """What was heard of it."""
        return "".join(self.pieces)

    def _notify(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()

    async def follow(self) -> AsyncIterator[str]:
        """The text from its beginning, in pieces as they come. Raises Refusal."""
        with self._followed():
            async for piece in self._follow():
                yield piece

    async def wait(self) -> Answered:
        """The answer. Raises Refusal."""
        with self._followed():
            return await asyncio.shield(self.outcome)

    @contextlib.contextmanager
    def _followed(self) -> Iterator[None]:
        self.followers += 1
        if self.followers == 1:
            self._changed(self)
        try:
            yield
        finally:
            self.followers -= 1
            if not self.followers and not self.outcome.done():
                self._changed(self)

    async def _follow(self) -> AsyncIterator[str]:
        given, at, writing = list[str](), 0, self.writing
        while not self.outcome.done():
            wake, piece = self._wake, ""
            if writing == self.writing:
                piece, at = "".join(self.pieces[at:]), len(self.pieces)
            elif (text := self.text).startswith(told := "".join(given)):
                piece, at, writing = text[len(told) :], len(self.pieces), self.writing
            if piece:
                self.told = True
                given.append(piece)
                yield piece
            else:
                await wake.wait()
        answered, told = self.outcome.result(), "".join(given)
        if not answered.text.startswith(told):
            what = "the answer began anew in other words after a part of it was sent"
            raise Refusal(502, "stream_cut", what, "the answer is on record: send the request again to get it")
        if rest := answered.text[len(told) :]:
            yield rest


class FollowedCall:
    """A call as its asker has it. standing: computes it anew, so that an answer's own cost is in it."""

    def __init__(self, flight: Flight, standing: Callable[[], Standing], kept_as: str = "") -> None:
        self._flight, self._standing, self._kept_as = flight, standing, kept_as

    @property
    def call_id(self) -> str:
        """Its id; the same for the same request."""
        return self._flight.call_id

    @property
    def kept_as(self) -> str:
        """The id by which a later request goes on from it; "" where it is not kept."""
        return self._kept_as

    @property
    def standing(self) -> Standing:
        """The run's spending, as far as it is known now."""
        return self._standing()

    def text(self) -> AsyncIterator[str]:
        """Live pieces as they come, until the answer is there. Raises Refusal."""
        return self._flight.follow()

    async def answer(self) -> Answered:
        """The answer. Raises Refusal."""
        return await self._flight.wait()


def _seen(outcome: asyncio.Future[Answered]) -> None:
    """Fetch the error: its asker may have gone."""
    if not outcome.cancelled():
        outcome.exception()
