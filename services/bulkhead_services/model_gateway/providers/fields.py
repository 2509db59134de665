"""Fields of providers' JSON, each of which is checked, bounded, or counted as missing."""

import json
import re
from collections import Counter
from typing import Any

from bulkhead_contracts import bounds
from bulkhead_contracts.result import Usage

_OUTPUT_CLASSES = ("output_tokens", "reasoning_tokens", "output_audio_tokens", "output_image_tokens")
SURROGATE = re.compile(r"[\ud800-\udfff]")


def read_object(text: str | bytes) -> dict[str, Any] | None:
    """A JSON object; None of anything else."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def usage_of(
    prompt: int | None,
    completion: int | None,
    cached: int | None,
    thought: int | None = 0,
    total: int | None = 0,
    **classes: int | None,
) -> Usage | None:
    """Token counts as a provider reports them, each by itself: one that is missing or makes no sense is 0; None when
    input and output are. Each figure counts: parts that are more than their whole stand beside it, and what a total has
    beyond the prompt is output.

    prompt: all input tokens. cached: those of them that were read from the provider's cache. thought: those of the
    completion that are no part of the answer. classes: other parts of both, by the names of Usage; one that makes no
    sense counts as the rest does.
    """
    prompt, completion, cached, thought, total = (count or 0 for count in (prompt, completion, cached, thought, total))
    parts = Counter({name: value or 0 for name, value in classes.items()})
    if prompt:
        prompt = _add_beside(prompt, cached + parts["cache_write_tokens"])
        prompt = _add_beside(prompt, parts["input_audio_tokens"] + parts["input_image_tokens"])
    completion = max(completion, total - prompt)
    completion = _add_beside(completion, thought + parts["output_audio_tokens"] + parts["output_image_tokens"])
    if not prompt and not completion:
        return None

    def bounded(name: str, most: int) -> int:
        return min(parts[name], most)

    cached, thought = min(cached, prompt), min(thought, completion)
    written, audio = bounded("cache_write_tokens", prompt - cached), bounded("input_audio_tokens", prompt)
    output_audio = bounded("output_audio_tokens", completion - thought)
    return Usage(
        model_calls=1,
        input_tokens=prompt,
        output_tokens=completion,
        cached_input_tokens=cached,
        reasoning_tokens=thought,
        cache_write_tokens=written,
        cache_write_1h_tokens=bounded("cache_write_1h_tokens", written),
        input_audio_tokens=audio,
        cached_audio_tokens=bounded("cached_audio_tokens", min(cached, audio)),
        input_image_tokens=bounded("input_image_tokens", prompt - audio),
        output_audio_tokens=output_audio,
        output_image_tokens=bounded("output_image_tokens", completion - thought - output_audio),
    )


def _add_beside(whole: int, part: int) -> int:
    """The whole, with a part that cannot be in it: it is larger."""
    return min(whole + part if part > whole else whole, bounds.MAX_TOKENS)


def join_usage(of_input: Usage, of_output: Usage) -> Usage:
    """The input of one usage and the output of another."""
    return of_input.model_copy(update={name: getattr(of_output, name) for name in _OUTPUT_CLASSES})


def larger_usage(first: Usage, later: Usage) -> Usage:
    """The larger input and the larger output of two; the later one's where both are the same."""
    return join_usage(
        max(later, first, key=lambda usage: usage.input_tokens),
        max(later, first, key=lambda usage: usage.output_tokens),
    )


def mapping_of(value: object) -> dict[str, Any]:
    """An object, or an empty one."""
    return value if isinstance(value, dict) else {}


def rows_of(value: object) -> list[dict[str, Any]]:
    """The objects of a list, a thousand at most."""
    return [row for row in value[:1_000] if isinstance(row, dict)] if isinstance(value, list) else []


def plain_text(value: object) -> str:
    """A string, or the text of a list of text parts; "" of anything else."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return "".join(plain_text(row.get("text")) for row in rows_of(value))


def replace_surrogates(text: str) -> str:
    """The text without half characters, which no encoding takes."""
    return text.encode("utf-8", "replace").decode() if SURROGATE.search(text) else text


def generated_bytes(event: dict[str, Any]) -> int:
    """Size of what a model wrote in one event of a stream, by the names that providers' APIs give it; in a delta all
    counts that is not known to be no words of the model. Events that say again what came in pieces (OpenAI's `*.done`)
    count nothing."""
    if plain_text(event.get("type")).endswith((".done", ".completed")):
        return 0
    return _written_size(event, is_generated=False)


_WRITTEN = frozenset(
    {"text", "content", "delta", "refusal", "reasoning", "reasoning_content", "thinking", "arguments", "partial_json"}
    | {"args", "name"}
)
_DELTAS = frozenset({"delta", "parts"})
"""What a model wrote, in whatever fields; but for those below."""
_NOT_WRITTEN = frozenset(
    {"type", "role", "id", "format", "language", "mimeType", "stop_reason", "stop_sequence", "container"}
    | {"citation", "citations", "annotations", "signature", "thoughtSignature", "thought_signature"}
)


def _written_size(value: object, is_generated: bool, in_delta: bool = False) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace")) if is_generated else 0
    if isinstance(value, dict):
        return sum(
            _written_size(inner, in_delta or name in _WRITTEN, in_delta or name in _DELTAS)
            for name, inner in value.items()
            if name not in _NOT_WRITTEN
        )
    rows = value[:1_000] if isinstance(value, list) else []
    return sum(_written_size(inner, is_generated, in_delta) for inner in rows)


def short_text(value: object) -> str:
    """A string of the length of a summary; "" of anything else."""
    return replace_surrogates(value)[: bounds.MAX_SUMMARY_CHARS] if isinstance(value, str) else ""
