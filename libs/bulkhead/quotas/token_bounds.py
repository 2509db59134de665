"""Upper bounds of a text's tokens, whatever its letters: what is reserved. Pure.

Enters: a text and a model's name. Leaves: tokens. Of GPT models the vocabularies are public, and the count is exact. Of
others it is bounded by three things: the rates of usual text; the count of a GPT vocabulary with a margin; and, the
more a GPT vocabulary makes of the text than of usual text in its script, the text's bytes. No tokenizer that falls back
to bytes makes more than those.
"""

import math
import re
from unicodedata import normalize

import toktok

from bulkhead.quotas.token_estimates import TextMeasure, TokenCounter, family_of

_NEWER, _OLDER = "o200k_base", "cl100k_base"
_VOCABULARIES = (
    (re.compile(r"(^|[/:.])(gpt-(4o|4\.[1-9]|[5-9]|oss)|chatgpt-|o[1-9])"), _NEWER),
    (re.compile(r"(^|[/:.])(gpt-(4|3\.5|35)(?![.\d])|text-embedding-(3|ada-002))"), _OLDER),
)
_ESCAPES = (
    *(("\\\\", "\0"), ('\\"', '"'), ("\\n", "\n"), ("\\r", "\r"), ("\\t", "\t"), ("\\f", "\f"), ("\\b", "\b")),
    ("\0", "\\"),
)
"""Escapes of JSON with what they are read as; NUL, which JSON has no room for, keeps the place of a backslash."""
WINDOW_CHARS = 1_024
"""A text is judged in pieces of this length, so that usual text beside unusual text hides none of it."""
MARGIN = 1.5
"""Tokens of another vocabulary for one of GPT's newer one, in text that both know. The measured ones stay below; and
vendors tell of new tokenizers that make up to 1.35 times the tokens of their older ones."""
_DENSE, _DENSE_ASCII = 0.4, 0.5
"""Tokens a byte, above which GPT's vocabulary does not know a text: then it counts by its bytes. So it does where most
of it are blanks and signs, in runs that not all vocabularies have; indentation aside."""


def vocabulary_of(model: str) -> str:
    """The vocabulary that a model's texts are counted by exactly; "" where it is not public."""
    name = model.lower()
    return next((vocabulary for pattern, vocabulary in _VOCABULARIES if pattern.search(name)), "")


def load_vocabulary(model: str) -> None:
    """Load the vocabulary that bounds a model's texts: it takes half a second, and 65 MB."""
    bound_tokens(model, "")


def tokens_to_reserve(counter: TokenCounter, data: bytes, *, is_json: bool = False) -> int:
    """Tokens to reserve: by what providers counted of usual text, and never less than what this text may have. is_json:
    the provider reads the strings of a body.
    """
    text = data.decode("utf-8", "replace")
    return max(counter.estimate_by_counts(data), bound_tokens(counter.model, _read_escapes(text) if is_json else text))


def _read_escapes(body: str) -> str:
    r"""A body with its strings as they are read: written, `\right` in it is one word, read, a line's end and five
    letters."""
    for escape, character in _ESCAPES:
        body = body.replace(escape, character)
    return body


def bound_tokens(model: str, text: str) -> int:
    """Tokens that a model counts of a text, at most. A megabyte takes up to half a second, most of it outside the
    interpreter's lock."""
    if vocabulary := vocabulary_of(model):
        (exact,) = toktok.batch_count([text], vocabulary, threads=1)
        return int(exact)
    family = family_of(model)
    windows = [_longer_form(text[start : start + WINDOW_CHARS]) for start in range(0, len(text), WINDOW_CHARS)]
    counts = toktok.batch_count(windows, _NEWER, threads=1)
    return math.ceil(sum(_bound_window(family, window, count) for window, count in zip(windows, counts, strict=True)))


def _longer_form(text: str) -> str:
    """The text as some tokenizers normalise it first, where that makes it longer: one sign may become 18 letters."""
    if text.isascii():
        return text
    normalized = normalize("NFKC", text)
    return max(text, normalized, key=lambda form: len(form.encode("utf-8", "replace")))


def _bound_window(family: str, text: str, count: int) -> float:
    data = text.encode("utf-8", "replace")
    most = len(data) + 1.0
    if count > len(data) * (_DENSE_ASCII if data.isascii() else _DENSE):
        return most
    measure = TextMeasure.of_text(data)
    usual = measure.weigh(family, "gpt")
    # What is rare in one vocabulary is rarer in one with fewer words: hence the square.
    rarity = count / measure.weigh("gpt")
    indentation = len(data) - len(data.replace(b"    ", b" "))
    unlettered, length = measure.unlettered - indentation, len(data) - indentation
    return min(most, max(usual, usual * rarity**2, count * MARGIN, length if 2 * unlettered > length else 0))
