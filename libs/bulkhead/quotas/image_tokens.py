"""Tokens of an image by its size in pixels and its model's public rule. Pure.

Enters: a data URL, a model's name. Leaves: width and height as its header tells them (nothing is decoded), and the most
tokens that the vendor counts; the dearest rule where the model is not known.
"""

import base64
import binascii
import math
import re
from collections.abc import Callable
from typing import NamedTuple

_DATA_URL = re.compile(r"data:image/(?:png|jpe?g|gif|webp);base64,([A-Za-z0-9+/]+={0,2})", re.I)
_HEAD_CHARS = 64
"""Of Base64: the headers of all formats but JPEG lie within."""
_SIZED_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG's markers of a frame, which tell its size."""
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xDA)})
MAX_SIDE_PX = 65_535


class PixelSize(NamedTuple):
    """Size of an image in pixels."""

    width: int
    height: int


def size_of_data_url(url: str) -> PixelSize | None:
    """Size of the PNG, JPEG, GIF or WebP that stands in this URL; None of anything else."""
    matched = _DATA_URL.fullmatch(url)
    if matched is None:
        return None
    text = matched[1]
    head = _decode_base64(text[:_HEAD_CHARS])
    size = _jpeg_size(_decode_base64(text)) if head.startswith(b"\xff\xd8") else _size_in_head(head)
    return size if size is not None and all(0 < side <= MAX_SIDE_PX for side in size) else None


def most_image_tokens(model: str, size: PixelSize) -> int:
    """The most tokens that an image of this size is counted as."""
    name = model.lower()
    for pattern, count_tokens in _RULES:
        if pattern.search(name):
            return count_tokens(size)
    return max(count_tokens(size) for count_tokens in (_DEAREST_TILES, _dearest_patches, _gemini_tokens))


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text[: len(text) // 4 * 4])
    except binascii.Error:
        return b""


def _size_in_head(head: bytes) -> PixelSize | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR" and len(head) >= 24:
        return PixelSize(int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"))
    if head[:6] in (b"GIF87a", b"GIF89a") and len(head) >= 10:
        return PixelSize(int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little"))
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP" or len(head) < 30:
        return None
    match head[12:16]:
        case b"VP8X":
            width, height = int.from_bytes(head[24:27], "little"), int.from_bytes(head[27:30], "little")
            return PixelSize(width + 1, height + 1)
        case b"VP8L" if head[20] == 0x2F:
            bits = int.from_bytes(head[21:25], "little")
            return PixelSize((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        case b"VP8 " if head[23:26] == b"\x9d\x01\x2a":
            width, height = int.from_bytes(head[26:28], "little"), int.from_bytes(head[28:30], "little")
            return PixelSize(width & 0x3FFF, height & 0x3FFF)
    return None


def _jpeg_size(data: bytes) -> PixelSize | None:
    """The size that the first frame tells."""
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF or marker in _BARE_MARKERS:
            place += 1 if marker == 0xFF else 2
            continue
        if marker in _SIZED_FRAMES:
            height, width = (int.from_bytes(data[start : start + 2], "big") for start in (place + 5, place + 7))
            return PixelSize(width, height)
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if length < 2:
            return None
        place += 2 + length
    return None


def _tile_rule(base: int, per_tile: int) -> Callable[[PixelSize], int]:
    """OpenAI's: fitted into 2,048 px, then its short side into 768 px, in tiles of 512 px."""

    def count_tokens(size: PixelSize) -> int:
        long_side, short_side = max(size), min(size)
        scale = min(1.0, 2_048 / long_side)
        scale *= min(1.0, 768 / (short_side * scale))
        return base + per_tile * math.prod(math.ceil(max(1, round(side * scale)) / 512) for side in size)

    return count_tokens


def _patch_rule(factor: float, most: int, side_px: int = 32) -> Callable[[PixelSize], int]:
    """Patches of so many pixels a side, of which at most so many count, each as so many tokens."""

    def count_tokens(size: PixelSize) -> int:
        return math.ceil(factor * min(most, math.prod(math.ceil(side / side_px) for side in size)))

    return count_tokens


def _claude_tokens(size: PixelSize) -> int:
    """Anthropic's: a token for 750 px, and some for its frame; the largest model scales to 4,784 tokens."""
    return min(4_784, math.ceil(size.width * size.height / 750)) + 16


def _gemini_tokens(size: PixelSize) -> int:
    """Google's: 258 tokens a tile of 256 to 768 px; later models count up to 2,240 tokens, whatever the size."""
    tile_px = min(768, max(256, min(size) // 1.5))
    tiles = 1 if max(size) <= 384 else math.prod(math.ceil(side / tile_px) for side in size)
    return max(2_240, 258 * tiles)


_DEAREST_TILES = _tile_rule(2_833, 5_667)
_dearest_patches = _patch_rule(1.2, 16_384, 28)
_RULES: tuple[tuple[re.Pattern[str], Callable[[PixelSize], int]], ...] = (
    (re.compile(r"gpt-4o-mini"), _DEAREST_TILES),
    (re.compile(r"gpt-(?:4\.1|5)-(?:mini|nano)|o4-mini"), _patch_rule(2.46, 1_536)),
    (re.compile(r"gpt-4o|gpt-4\.1|gpt-4\.5|gpt-4-turbo|(?:^|[/:])o[13](?:$|-)"), _tile_rule(85, 170)),
    (re.compile(r"gpt-5(?:$|-chat|-\d{4})"), _tile_rule(85, 170)),
    (re.compile(r"gpt-5"), _patch_rule(2.46, 10_000)),
    (re.compile(r"claude"), _claude_tokens),
    (re.compile(r"gemini"), _gemini_tokens),
    (re.compile(r"qwen|qwq"), _dearest_patches),
)
"""Public rules of vendors, the first that fits a model's name. Sizes and factors as of 2026-11."""
