"""Sizes of images in pixels, as no decoder shows them larger. Pure.

Enters: a data URL. Leaves: the greatest width and height that any part of the file tells; nothing is decoded. Decoders
differ in which part they believe: a second header, a frame beyond the screen, a canvas smaller than its picture.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import NamedTuple

_DATA_URL = re.compile(r"data:image/(?:png|jpe?g|gif|webp);base64,([A-Za-z0-9+/]+={0,2})", re.I)
_SIZED_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG's markers of a frame, which tell its size."""
_BARE_MARKERS = frozenset(range(0xD0, 0xDA))
_FIRST_SEGMENT = 0xC0
_START_OF_SCAN = 0xDA
MAX_SIDE_PX = 65_535
MAX_BLOCKS = 100_000
"""Blocks that are looked at: a real image of some MiB has fewer; more would hold up everybody."""


class PixelSize(NamedTuple):
    """Size of an image in pixels."""

    width: int
    height: int


class _UnfitBlocks(Exception):
    """The file is cut into more blocks than are looked at, or into what only some decoders read."""


def size_of_data_url(url: str) -> PixelSize | None:
    """Size of the PNG, JPEG, GIF or WebP that stands in this URL; None of anything else."""
    matched = _DATA_URL.fullmatch(url)
    if matched is None:
        return None
    try:
        sizes = list(_told_sizes(_decode_base64(matched[1])))
    except _UnfitBlocks:
        return None
    if not sizes or any(side <= 0 for side in sizes[0]):
        return None
    size = PixelSize(max(size.width for size in sizes), max(size.height for size in sizes))
    return size if max(size) <= MAX_SIDE_PX else None


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text[: len(text) // 4 * 4])
    except binascii.Error:
        return b""


def _told_sizes(data: bytes) -> Iterator[PixelSize]:
    """Every size that the file tells, its header's first."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg_sizes(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_sizes(data)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _gif_sizes(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_sizes(data)
    return iter(())


def _count_blocks() -> Iterator[int]:
    """The numbers of a file's blocks. Raises _UnfitBlocks."""
    yield from range(MAX_BLOCKS)
    raise _UnfitBlocks


def _png_sizes(data: bytes) -> Iterator[PixelSize]:
    """Those of all headers: some decoders believe the last."""
    place = 8
    for number in _count_blocks():
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if len(kind) < 4 or (number == 0 and kind != b"IHDR"):
            return
        if kind == b"IHDR" and len(data) >= place + 16:
            yield PixelSize(
                int.from_bytes(data[place + 8 : place + 12], "big"),
                int.from_bytes(data[place + 12 : place + 16], "big"),
            )
        place += length + 12


def _gif_sizes(data: bytes) -> Iterator[PixelSize]:
    """The screen's, and how far each frame reaches."""
    if len(data) < 10:
        return
    yield PixelSize(_little(data, 6), _little(data, 8))
    place, blocks = 13 + _color_table_bytes(data[10:11]), _count_blocks()
    for _ in blocks:
        match data[place : place + 1]:
            case b"!":
                place += 2
            case b"," if len(data) >= place + 10:
                yield PixelSize(
                    _little(data, place + 1) + _little(data, place + 5),
                    _little(data, place + 3) + _little(data, place + 7),
                )
                place += 11 + _color_table_bytes(data[place + 9 : place + 10])
            case b";" | b"":
                return
            case _:
                raise _UnfitBlocks
        for _ in blocks:
            length = data[place] if place < len(data) else 0
            place += length + 1
            if not length:
                break


def _color_table_bytes(flags: bytes) -> int:
    """Bytes of the colour table that follows these flags."""
    return 3 * 2 ** ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _webp_sizes(data: bytes) -> Iterator[PixelSize]:
    """The canvas, and every picture on it."""
    place = 12
    for _ in _count_blocks():
        kind, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        body = data[place + 8 : place + 24]
        match kind:
            case b"VP8X" if len(body) >= 10:
                yield PixelSize(_little(body, 4, 3) + 1, _little(body, 7, 3) + 1)
            case b"ANMF" if len(body) >= 16:
                yield PixelSize(
                    2 * _little(body, 0, 3) + _little(body, 6, 3) + 1, 2 * _little(body, 3, 3) + _little(body, 9, 3) + 1
                )
                length = 16  # The frame's own parts stand in it, and are looked at next.
            case b"VP8L" if len(body) >= 5 and body[0] == 0x2F:
                bits = _little(body, 1, 4)
                yield PixelSize((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
            case b"VP8 " if len(body) >= 10 and body[3:6] == b"\x9d\x01\x2a":
                yield PixelSize(_little(body, 6) & 0x3FFF, _little(body, 8) & 0x3FFF)
        if len(kind) < 4:
            return
        place += 8 + length + length % 2


def _jpeg_sizes(data: bytes) -> Iterator[PixelSize]:
    """Those of all frames before the picture's data. Decoders pass over what stands between two markers, and over
    markers of no segment, each in its own way."""
    place = 2
    for _ in _count_blocks():
        marker = data[place + 1] if data[place : place + 1] == b"\xff" and place + 1 < len(data) else 0
        if marker == 0xFF:
            place += 1
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _START_OF_SCAN:
            return
        if marker < _FIRST_SEGMENT or marker in _BARE_MARKERS or length < 2:
            raise _UnfitBlocks
        if marker in _SIZED_FRAMES and place + 9 <= len(data):
            height, width = (int.from_bytes(data[start : start + 2], "big") for start in (place + 5, place + 7))
            yield PixelSize(width, height)
        place += 2 + length


def _little(data: bytes, place: int, length: int = 2) -> int:
    return int.from_bytes(data[place : place + length], "little")
