"""The answer of a model call as it comes, for all who follow it.

In: live pieces, the outcome. Out: for each follower the answer from its beginning, in pieces, each character once. Live
pieces are lossy, and another attempt of the provider begins its parts at offset 0 again: what a follower was given
cannot be taken back, so that an answer which does not go on from there ends in a DoorRefusal.
"""

import asyncio
import io
import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable

from bulkhead_contracts import bounds
from bulkhead_contracts.model import TEXT, AnswerPart, TextDelta
from bulkhead_services.doors.port import AnswerPiece, DoorRefusal, ModelCallAnswer

MAX_PARTS = 2 * bounds.MAX_ADOPTED_CALLS
"""More of them are left to the record."""
MAX_CHARS = 2 * bounds.MAX_MODEL_ANSWER_BYTES


class AnswerText:
    """The pieces of an answer that were heard. outcome: the whole answer, or its refusal. was_given: a follower has
    some of it."""

    def __init__(self, outcome: asyncio.Future[ModelCallAnswer]) -> None:
        self._outcome = outcome
        outcome.add_done_callback(lambda _: self._wake_followers())
        self.was_given = False
        self._pieces: list[AnswerPiece] = []
        self._parts: dict[AnswerPart, _PartText] = {}
        self._chars = 0
        self._writing = 0
        """Grows when a part begins anew."""
        self._wake = asyncio.Event()

    def on_text_delta(self, delta: TextDelta) -> None:
        """A live piece. What follows a gap is left to the record."""
        text, part_text = delta.piece, self._parts.get(delta.part)
        if self._outcome.done() or not text or (part_text is None and len(self._parts) >= MAX_PARTS):
            return
        part_text = part_text or _PartText(delta.part)
        if delta.offset > part_text.chars:
            return
        before = part_text.read_text(delta.offset, len(text))
        if text.startswith(before):
            text = text[len(before) :]  # Behind what is repeated.
        else:
            self._restart_part(part_text, delta.offset)
        if text and self._chars + len(text) <= MAX_CHARS:
            self._parts[part_text.part] = part_text
            part_text.append_text(text)
            self._pieces.append(AnswerPiece(part_text.part, text))
            self._chars += len(text)
            self._wake_followers()

    def _restart_part(self, part_text: "_PartText", offset: int) -> None:
        """Drop the text of a part behind an offset: it is written again."""
        self._pieces = [piece for piece in self._pieces if piece.part != part_text.part]
        if offset:
            self._pieces.append(AnswerPiece(part_text.part, part_text.read_text(0, offset)))
        self._writing, self._chars = self._writing + 1, self._chars - part_text.chars + offset
        part_text.truncate_to(offset)

    @property
    def heard_text(self) -> str:
        """The part of its text that was heard."""
        return part_text.read_text() if (part_text := self._parts.get(TEXT)) is not None else ""

    def _wake_followers(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()

    def _has_written(self, chars: Counter[AnswerPart]) -> bool:
        """True when so many characters of each part have been written."""
        return all(part in self._parts and self._parts[part].chars >= most for part, most in chars.items())

    async def follow_pieces(self) -> AsyncIterator[AnswerPiece]:
        """The answer from its beginning, in pieces as they come. Raises DoorRefusal."""
        sent, position, writing, refused = list[AnswerPiece](), 0, self._writing, -1
        chars = Counter[AnswerPart]()
        while not self._outcome.done():
            wake, new = self._wake, list[AnswerPiece]()
            if writing == self._writing:
                new, position = _merge_neighbours(self._pieces[position:]), len(self._pieces)
            elif refused != self._writing and self._has_written(chars):
                remaining = _remaining_pieces(_join_by_part(self._pieces).items(), sent)
                if remaining is None:
                    refused = self._writing  # Nothing that is added changes that.
                else:
                    new, position, writing = remaining, len(self._pieces), self._writing
            for piece in new:
                self.was_given = True
                sent.append(piece)
                chars[piece.part] += len(piece.text)
                yield piece
            if not new:
                await wake.wait()
        remaining = _remaining_pieces(self._outcome.result().parts, sent)
        if remaining is None:
            message = "the answer began anew in other words after a part of it was sent"
            raise DoorRefusal(502, "stream_cut", message, "the answer is on record: send the request again to get it")
        for piece in remaining:
            yield piece


class _PartText:
    """Text of one part, as far as it was heard."""

    def __init__(self, part: AnswerPart) -> None:
        self.part, self.chars, self._buffer = part, 0, io.StringIO()

    def read_text(self, start: int = 0, chars: int = -1) -> str:
        """Read up to `chars` characters from offset `start`; -1 reads all."""
        self._buffer.seek(start)
        return self._buffer.read(chars)

    def truncate_to(self, chars: int) -> None:
        """Keep its first `chars` characters."""
        self._buffer.truncate(chars)
        self.chars = chars

    def append_text(self, text: str) -> None:
        """Append to its end."""
        self._buffer.seek(self.chars)
        self.chars += self._buffer.write(text)


def _join_by_part(pieces: Iterable[AnswerPiece]) -> dict[AnswerPart, str]:
    """Each part, as far as the pieces tell it."""
    texts_by_part = defaultdict[AnswerPart, list[str]](list)
    for part, text in pieces:
        texts_by_part[part].append(text)
    return {part: "".join(texts) for part, texts in texts_by_part.items()}


def _merge_neighbours(pieces: Iterable[AnswerPiece]) -> list[AnswerPiece]:
    """The same, with neighbours of one part joined."""
    runs = (
        (part, "".join(piece.text for piece in run))
        for part, run in itertools.groupby(pieces, lambda piece: piece.part)
    )
    return [AnswerPiece(part, text) for part, text in runs]


def _remaining_pieces(
    whole: Iterable[tuple[AnswerPart, str]], sent_pieces: Iterable[AnswerPiece]
) -> list[AnswerPiece] | None:
    """Pieces of parts that are left to send; None where they do not go on from what was given. A part may be
    empty.
    """
    sent_by_part, remaining = _join_by_part(sent_pieces), list[AnswerPiece]()
    for part, text in whole:
        sent_text = sent_by_part.pop(part, None)
        if sent_text is not None and not text.startswith(sent_text):
            return None
        if sent_text is None or sent_text != text:
            remaining.append(AnswerPiece(part, text[len(sent_text or "") :]))
    return None if sent_by_part else remaining
