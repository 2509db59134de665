"""Blocks of a streamed answer, one after another. Pure.

In: pieces of its parts in any order. Out: the same in an order in which a block is whole before the next one begins:
clients act on a tool call when they see its end, and their SDKs keep the last piece of a signature alone.
"""

import json
from collections.abc import Iterator

from bulkhead_contracts.model import AnswerPart
from bulkhead_services.doors.port import AnswerPiece, DoorRefusal

_WHOLE = ("signature", "redacted", "block")
"""Kinds that are told in one piece."""
_Block = tuple[str, str]
"""Kind and id; a signature is of the block of its thoughts."""


class BlockOrder:
    """The order of one answer. go_on: kinds that may be taken up again after another block.

    Parts beside a tool call wait while it is not whole: until the answer's end when another one came before its own.
    """

    def __init__(self, *go_on: str) -> None:
        self._go_on = go_on
        self._open: _Block | None = None
        self._said: list[str] = []
        """Arguments of the open call."""
        self._sealed: dict[AnswerPart, str] = {}
        """Of the open block, what is told in one piece."""
        self._ended: set[_Block] = set()
        self._place = (0, "")
        """Of the last block of signed thoughts, whose order is signed too."""
        self._waiting: dict[_Block, dict[AnswerPart, list[str]]] = {}

    def add_piece(self, piece: AnswerPiece) -> list[AnswerPiece]:
        """Pieces that can be told now. Raises DoorRefusal where a block goes on that has ended."""
        part, block = piece.part, _block_of(piece.part)
        if block != self._open and (self._waiting or not self._may_end_block()):
            self._waiting.setdefault(block, {}).setdefault(part, []).append(piece.text)
            return []
        return list(self._emit_piece(block, piece))

    def drain_waiting(self) -> list[AnswerPiece]:
        """Pieces that are left at the answer's end. Raises DoorRefusal."""
        waiting, self._waiting = self._waiting, {}
        remaining = [
            piece
            for block, parts in waiting.items()
            for part, texts in parts.items()
            for piece in self._emit_piece(block, AnswerPiece(part, "".join(texts)))
        ]
        return [*remaining, *self._release_sealed()]

    def _may_end_block(self) -> bool:
        """True when the open block may end: all may but a call whose arguments are not whole."""
        if self._open is None or self._open[0] != "call":
            return True
        try:
            return isinstance(json.loads("".join(self._said)), dict)
        except (ValueError, RecursionError):
            return False

    def _emit_piece(self, block: _Block, piece: AnswerPiece) -> Iterator[AnswerPiece]:
        if block != self._open:
            yield from self._release_sealed()
            self._open_block(block)
        if piece.part.told_kind in _WHOLE:
            self._sealed[piece.part] = self._sealed.get(piece.part, "") + piece.text
            return
        if block[0] == "call":
            self._said.append(piece.text)
        yield piece

    def _release_sealed(self) -> list[AnswerPiece]:
        sealed, self._sealed = self._sealed, {}
        return [AnswerPiece(part, text) for part, text in sealed.items()]

    def _open_block(self, block: _Block) -> None:
        if self._open is not None:
            self._ended.add(self._open)
        reopened, late = block in self._ended and block[0] not in self._go_on, False
        if block[0] in ("thinking", "redacted"):
            late, self._place = (place := (len(block[1]), block[1])) < self._place, place
        if reopened or late:
            message = f"a part of the answer ({block[0]}) came after the end of its block, or of a later one"
            raise DoorRefusal(502, "stream_cut", message, "the answer is on record: send the request again to get it")
        self._open, self._said = block, []


def _block_of(part: AnswerPart) -> _Block:
    return ("thinking" if part.told_kind == "signature" else part.told_kind, part.id)
