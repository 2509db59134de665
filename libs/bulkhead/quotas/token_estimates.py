"""Tokens of a model's input: an estimate by family and script, corrected live by the provider's own counts.

Enters: what is sent, and what the provider says it counted. Leaves: tokens of usual text, on the safe side. The rates
are measured on samples in 25 languages and 13 kinds of text (tests/unit/bulkhead/token_counts.json) and stand above
every count there. What text of any kind may cost says `token_bounds`.
"""

import hashlib
import math
import re
import threading
from collections import deque
from dataclasses import dataclass

from bulkhead.bounded_dict import BoundedDict

_CLASSES = (
    b"abcdefghijklmnopqrstuvwxyz",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    b"0123456789",
    b" \t\r\n",
    bytes(code for code in range(128) if not (chr(code).isalnum() or chr(code) in " \t\r\n")),  # Signs, controls
    bytes(range(0xC2, 0xCC)),  # Latin letters with marks
    bytes(range(0xCC, 0xD0)),  # Greek
    bytes(range(0xD0, 0xD4)),  # Cyrillic
    bytes(range(0xD4, 0xE0)),  # Armenian, Hebrew, Arabic
    b"\xe0",  # Scripts of India, Thai, Lao
    b"\xe1",  # Georgian, Ethiopic, Khmer, Vietnamese
    b"\xe2",  # Punctuation, currencies, mathematics
    bytes(range(0xE3, 0xEA)),  # Chinese, Japanese
    bytes(range(0xEA, 0xEE)),  # Korean
    bytes(range(0xEE, 0xF8)),  # Emoji, and what is rare
)
"""Characters by their UTF-8 byte, the first one where there are several: bytes that follow count in none."""
_ASCII = 5
"""So many of the classes are ASCII."""
_BLANKS = 3
"""Place of the class of blanks; that of signs follows."""
_RATES: dict[str, tuple[float, ...]] = {
    "gpt": (0.27, 0.26, 0.73, 0.53, 0.66, 0.29, 0.32, 0.32, 0.29, 0.43, 2.16, 2.19, 0.88, 0.60, 1.18),
    "gpt_4": (0.28, 0.32, 0.71, 0.50, 0.68, 1.50, 1.00, 0.64, 1.06, 1.42, 2.88, 1.92, 1.36, 1.13, 2.31),
    # Its vocabulary is not public any more: an older one's, and a fifth on top.
    "claude": (0.38, 0.30, 0.84, 0.74, 0.86, 3.27, 1.54, 0.76, 1.34, 2.52, 3.72, 1.17, 1.47, 1.48, 2.98),
    "gemini": (0.27, 0.12, 1.47, 0.53, 0.64, 0.27, 0.40, 0.31, 0.35, 0.59, 1.13, 1.47, 0.79, 0.73, 0.63),
    "mistral": (0.35, 0.30, 1.29, 0.50, 0.65, 1.59, 1.12, 0.39, 1.16, 1.29, 2.87, 2.09, 1.23, 1.35, 2.96),
    "llama": (0.26, 0.33, 0.73, 0.57, 0.64, 1.66, 0.36, 0.30, 1.04, 1.42, 2.86, 1.72, 0.93, 0.60, 2.17),
    "qwen": (0.28, 0.20, 1.29, 0.50, 0.56, 1.53, 0.97, 0.54, 0.60, 1.17, 1.42, 1.31, 0.77, 0.82, 1.33),
    "any": (0.34, 0.28, 1.28, 0.57, 0.68, 2.99, 1.29, 0.87, 1.25, 2.15, 3.11, 1.62, 1.97, 2.64, 3.11),
}
"""Tokens per character of each class. `any`: the most that any of the measured tokenizers makes of it."""
_FAMILIES = (
    (re.compile(r"gpt-4(?![.o]|-?turbo-?o)|gpt-3|gpt-35"), "gpt_4"),
    (re.compile(r"gpt-|chatgpt|(^|[/:])o[1-9]"), "gpt"),
    (re.compile(r"claude"), "claude"),
    (re.compile(r"gemini|gemma"), "gemini"),
    (re.compile(r"mi[sx]tral|ministral|magistral|codestral|devstral|pixtral"), "mistral"),
    (re.compile(r"llama-?[3-9]"), "llama"),
    (re.compile(r"qwen|qwq"), "qwen"),
)
IMAGE_TOKENS = 2_000
"""Of an image where a context is filled: more than most providers count. What is reserved goes by its size."""
LONG_WORD, SCANNED_BYTES = 24, 256 * 1024
_LONG_WORDS = re.compile(rb"[A-Za-z0-9+/_=-]{%d,}" % LONG_WORD)
LONG_RATE = 0.5
"""On top, per character of a word that is so long (keys, digests, Base64): no tokenizer knows such words."""
WEIGHT = 0.2
"""Of the newest count in the average: more of it, and one count that is wrong would refuse what fits."""
RECENT_COUNTS = 32
"""Counts that reservations go by. The largest of them is not believed until another confirms it, and none for ever."""
MAX_TENANTS = 1_000
STEPS = (0.5, 0.65, 0.8, 1.0, 1.25, 1.6, 2.0, 2.5, 3.0)
"""Factors that prompts are cut by. They are few, so that the same request is seldom cut differently later."""
LEAST_FACTOR, MOST_FACTOR = STEPS[0], STEPS[-1]
LEAST_BYTES = 1_000
"""Below that a provider's own additions (for tools, for turns) are more than what is counted."""


def family_of(model: str) -> str:
    """The family whose rates a model has, by its name; `any` of one that is not known."""
    name = model.lower()
    return next((family for pattern, family in _FAMILIES if pattern.search(name)), "any")


@dataclass(frozen=True, slots=True)
class TextMeasure:
    """What the rates need of a text. long_words: characters in words of LONG_WORD and more."""

    by_class: tuple[int, ...]
    long_words: int

    @classmethod
    def of_text(cls, data: bytes) -> "TextMeasure":
        """The measure of a text in UTF-8."""
        size = len(data)
        classes = _CLASSES[:_ASCII] if data.isascii() else _CLASSES
        by_class = tuple(size - len(data.translate(None, class_bytes)) for class_bytes in classes)
        # In pieces: a scan holds the interpreter, and other threads have to answer meanwhile.
        long_words = sum(
            match.end() - match.start()
            for start in range(0, size, SCANNED_BYTES)
            for match in _LONG_WORDS.finditer(data, start, start + SCANNED_BYTES)
        )
        return cls(by_class, long_words)

    def weigh(self, *families: str) -> float:
        """Tokens by the highest rates of these families."""
        highest_rates = [max(column) for column in zip(*(_RATES[family] for family in families), strict=True)]
        by_rates: float = sum(rate * count for rate, count in zip(highest_rates, self.by_class, strict=False))
        return by_rates + LONG_RATE * self.long_words

    @property
    def unlettered(self) -> int:
        """Characters of ASCII that are blanks or signs."""
        return sum(self.by_class[_BLANKS:_ASCII])


_MEASURES = BoundedDict[bytes, TextMeasure](256)
"""By the digest of a text: each is counted to be fitted, to be reserved for, and to learn from."""
_MEASURES_LOCK = threading.Lock()
"""Long texts are counted in threads."""


def _measure_text(data: bytes) -> TextMeasure:
    digest = hashlib.blake2b(data, digest_size=16).digest()
    with _MEASURES_LOCK:
        measure = _MEASURES.get(digest)
    if measure is None:
        measure = TextMeasure.of_text(data)
        with _MEASURES_LOCK:
            _MEASURES[digest] = measure
    return measure


class TokenCounter:
    """Counts for one model and one tenant. Its providers' counts correct it while the process runs; it begins with the
    rates."""

    def __init__(self, model: str = "") -> None:
        self.model, self.family = model, family_of(model)
        self._average = 1.0
        self._recent_ratios = deque[float](maxlen=RECENT_COUNTS)

    def weight_of(self, data: bytes) -> float:
        """Tokens by the rates alone. Weights of two texts add up to that of both, but for long words at the seam."""
        return _measure_text(data).weigh(self.family)

    @property
    def factor(self) -> float:
        """Tokens per weight, as counted until now, rounded up to a step."""
        return next(step for step in STEPS if self._average <= step)

    def estimate(self, data: bytes) -> int:
        """Tokens, rounded up: what a context must have room for."""
        return math.ceil(self.weight_of(data) * self.factor)

    def estimate_by_counts(self, data: bytes) -> int:
        """Tokens by the average, and never less than by the highest recent count that was confirmed."""
        confirmed = sorted(self._recent_ratios)[-2:-1] or [0.0]
        return math.ceil(self.weight_of(data) * max(self._average, *confirmed))

    def learn_count(self, data: bytes, input_tokens: int) -> None:
        """Learn from what a provider counted."""
        if len(data) < LEAST_BYTES or input_tokens <= 0:
            return
        ratio = min(max(input_tokens / self.weight_of(data), LEAST_FACTOR), MOST_FACTOR)
        self._recent_ratios.append(ratio)
        self._average += WEIGHT * (ratio - self._average)


class TokenCounters:
    """Counters of one model, one for each tenant: what is counted for one says nothing of another's texts."""

    def __init__(self, model: str = "") -> None:
        self._model = model
        self._by_tenant = BoundedDict[str, TokenCounter](MAX_TENANTS)

    def of_tenant(self, tenant: str) -> TokenCounter:
        """The counter of a tenant, begun where it has none."""
        counter = self._by_tenant.get_refreshed(tenant)
        if counter is None:
            counter = self._by_tenant[tenant] = TokenCounter(self._model)
        return counter
