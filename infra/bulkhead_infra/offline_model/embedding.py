"""Embeddings by hashing words. Enters: texts. Leaves: unit vectors; words in common make them close, no more."""

import base64
import hashlib
import math
import struct
from collections.abc import Sequence

from bulkhead_infra.offline_model.language.text import STOP, stem, words

DIMENSIONS = 256


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """A hashed bag of stems, signed, square-rooted and scaled to length 1. An empty text is the first axis."""
    counts: dict[str, int] = {}
    content = [word for word in words(text) if word.lower() not in STOP]
    for word in content or words(text):
        counts[stem(word)] = counts.get(stem(word), 0) + 1
    vector = [0.0] * dimensions
    for word, count in sorted(counts.items()):
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        place = int.from_bytes(digest[:4], "big") % dimensions
        vector[place] += math.sqrt(count) * (1 if digest[4] & 1 else -1)
    length = math.sqrt(sum(value * value for value in vector))
    if not length:
        return [1.0] + [0.0] * (dimensions - 1)
    return [round(value / length, 7) for value in vector]


def as_base64(vector: Sequence[float]) -> str:
    """Little-endian float32 in base64: what the official client asks for by default."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
