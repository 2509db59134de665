"""Tokens of an image by its size in pixels and its model's public rule. Pure.

Enters: a size, a model's name. Leaves: the most tokens that the vendor counts; the dearest rule where the model is not
known.
"""

import math
import re
from collections.abc import Callable

from bulkhead.quotas.image_sizes import PixelSize


def most_image_tokens(model: str, size: PixelSize) -> int:
    """The most tokens that an image of this size is counted as."""
    name = model.lower()
    for pattern, count_tokens in _RULES:
        if pattern.search(name):
            return count_tokens(size)
    return max(count_tokens(size) for count_tokens in (_DEAREST_TILES, _dearest_patches, _gemini_tokens))


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
