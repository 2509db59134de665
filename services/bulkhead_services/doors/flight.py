"""One model call in flight at this replica: its answer as it comes, its outcome, and those who follow it.

In: live pieces, the outcome. Out: for each follower the answer from its beginning, in pieces, each character once. Live
pieces are lossy, and another attempt of the provider begins its parts at offset 0 again: what was told to a follower
cannot be taken back, so that an answer which does not go on from there ends in a Refusal.
"""

import asyncio
import contextlib
import io
import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from bulkhead_contracts import bounds
from bulkhead_contracts.model import TEXT, AnswerPart, TextDelta
from bulkhead_services.doors.port import Answered, Piece, Refusal, Standing

MAX_PARTS = 2 * bounds.MAX_ADOPTED_CALLS
"""More of them are left to the record."""
MAX_CHARS = 2 * bounds.MAX_MODEL_ANSWER_BYTES


class Flight:
    """A call. told: whether a follower has been given any of it. stored: whether it was sent; False when that failed,
    which its outcome tells. warning: what its agent is told beside. changed: called when its first follower has come,
    and when the last one has gone before its end. abandoned: its provider was told that nobody follows it."""

    def __init__(
        self, call_id: str, warning: str = "", changed: Callable[["Flight"], None] = lambda flight: None
    ) -> None:
        self.call_id, self.warning, self._changed = call_id, warning, changed
        self.followers = 0
        self.told = self.abandoned = False
        self.stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.outcome: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self.outcome.add_done_callback(_seen)
        self._pieces: list[Piece] = []
        self._parts: dict[AnswerPart, _Text] = {}
        self._chars = 0
        self._writing = 0
        """Grows when a part begins anew."""
        self._wake = asyncio.Event()

    def hear(self, delta: TextDelta) -> None:
        """A live piece. What follows a gap is left to the record."""
        text, known = delta.piece, self._parts.get(delta.part)
        if self.outcome.done() or not text or (known is None and len(self._parts) >= MAX_PARTS):
            return
        known = known or _Text(delta.part)
        if delta.offset > known.chars:
            return
        before = known.read(delta.offset, len(text))
        if text.startswith(before):
            text = text[len(before) :]  # Behind what is repeated.
        else:
            self._begin_anew(known, delta.offset)
        if text and self._chars + len(text) <= MAX_CHARS:
            self._parts[known.part] = known
            known.add(text)
            self._pieces.append(Piece(known.part, text))
            self._chars += len(text)
            self._notify()

    def _begin_anew(self, known: "_Text", offset: int) -> None:
        """What was heard of a part behind an offset is written again."""
        self._pieces = [piece for piece in self._pieces if piece.part != known.part]
        if offset:
            self._pieces.append(Piece(known.part, known.read(0, offset)))
        self._writing, self._chars = self._writing + 1, self._chars - known.chars + offset
        known.cut(offset)

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
        """What was heard of its text."""
        return known.read() if (known := self._parts.get(TEXT)) is not None else ""

    def _notify(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()

    async def follow(self) -> AsyncIterator[Piece]:
        """The answer from its beginning, in pieces as they come. Raises Refusal."""
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

    def _reaches(self, chars: Counter[AnswerPart]) -> bool:
        """Whether so much of each part has been written."""
        return all(part in self._parts and self._parts[part].chars >= most for part, most in chars.items())

    async def _follow(self) -> AsyncIterator[Piece]:
        given, at, writing, refused = list[Piece](), 0, self._writing, -1
        chars = Counter[AnswerPart]()
        while not self.outcome.done():
            wake, new = self._wake, list[Piece]()
            if writing == self._writing:
                new, at = _runs(self._pieces[at:]), len(self._pieces)
            elif refused != self._writing and self._reaches(chars):
                rest = _rest(_joined(self._pieces).items(), given)
                if rest is None:
                    refused = self._writing  # Nothing that is added changes that.
                else:
                    new, at, writing = rest, len(self._pieces), self._writing
            for piece in new:
                self.told = True
                given.append(piece)
                chars[piece.part] += len(piece.text)
                yield piece
            if not new:
                await wake.wait()
        rest = _rest(self.outcome.result().parts, given)
        if rest is None:
            what = "the answer began anew in other words after a part of it was sent"
            raise Refusal(502, "stream_cut", what, "the answer is on record: send the request again to get it")
        for piece in rest:
            yield piece


class _Text:
    """What was heard of a part."""

    def __init__(self, part: AnswerPart) -> None:
        self.part, self.chars, self._buffer = part, 0, io.StringIO()

    def read(self, start: int = 0, chars: int = -1) -> str:
        """So much of it from there on; -1: all."""
        self._buffer.seek(start)
        return self._buffer.read(chars)

    def cut(self, chars: int) -> None:
        """Keep so much of it."""
        self._buffer.truncate(chars)
        self.chars = chars

    def add(self, text: str) -> None:
        """Write on at its end."""
        self._buffer.seek(self.chars)
        self.chars += self._buffer.write(text)


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

    def pieces(self) -> AsyncIterator[Piece]:
        """Live pieces as they come, until the answer is there. Raises Refusal."""
        return self._flight.follow()

    async def answer(self) -> Answered:
        """The answer. Raises Refusal."""
        return await self._flight.wait()


def _joined(pieces: Iterable[Piece]) -> dict[AnswerPart, str]:
    """Each part, as far as the pieces tell it."""
    said = defaultdict[AnswerPart, list[str]](list)
    for part, text in pieces:
        said[part].append(text)
    return {part: "".join(texts) for part, texts in said.items()}


def _runs(pieces: Iterable[Piece]) -> list[Piece]:
    """The same, with neighbours of one part joined."""
    runs = (
        (part, "".join(piece.text for piece in run)) for part, run in itertools.groupby(pieces, lambda one: one.part)
    )
    return [Piece(part, text) for part, text in runs]


def _rest(whole: Iterable[tuple[AnswerPart, str]], given: Iterable[Piece]) -> list[Piece] | None:
    """What is left to tell of parts; None where they do not go on from what was given. A part may be empty."""
    told, rest = _joined(given), list[Piece]()
    for part, text in whole:
        said = told.pop(part, None)
        if said is not None and not text.startswith(said):
            return None
        if said is None or said != text:
            rest.append(Piece(part, text[len(said or "") :]))
    return None if told else rest


def _seen(outcome: asyncio.Future[Answered]) -> None:
    """Fetch the error: its asker may have gone."""
    if not outcome.cancelled():
        outcome.exception()
