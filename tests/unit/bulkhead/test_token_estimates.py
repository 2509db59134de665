"""Estimated tokens against counts of real tokenizers, and against what providers say."""

import json
from pathlib import Path

import pytest

from bulkhead.quotas.token_estimates import (
    LEAST_FACTOR,
    MOST_FACTOR,
    RECENT_COUNTS,
    TokenCounter,
    TokenCounters,
    family_of,
)

SAMPLES = json.loads((Path(__file__).parent / "token_counts.json").read_text())
"""Counted with bpe-openai 0.1.4 (o200k, cl100k), anthropic-tokenizer 0.1.0 (claude2), mistral-common 1.13.1, llama.cpp
(smollm2), and the published tokenizer files of Gemini, Llama 3 and Qwen 3."""
FAMILIES = {
    "gpt-4.1-mini-2025-04-14": ("o200k",),
    "gpt-4-0613": ("cl100k",),
    "claude-haiku-4-5-20251001": ("claude2",),
    "gemini-2.5-flash": ("gemini",),
    "mistral-small-2506": ("tekken", "mistral_v3"),
    "llama-3.3-70b": ("llama3",),
    "qwen3-8b": ("qwen3",),
    "SmolLM2-135M-Instruct": ("smollm2", "o200k", "cl100k", "claude2", "gemini", "tekken", "mistral_v3", "qwen3"),
}
UNNATURAL = {"random_letters": 0.6, "hex": 0.85, "punctuation": 0.85, "newlines": 0.85, "shouting": 0.85, "spaces": 0.8}
"""Short texts that are no language: the estimate may be below, by so much."""
USUAL = ("english", "english_handbook", "german", "french", "spanish", "chinese", "japanese", "json", "python", "csv")
TEXT = b"The request has to be made in writing at least four weeks before the first day. " * 20


@pytest.mark.parametrize("model", FAMILIES)
def test_the_estimate_is_on_the_safe_side_in_every_script(model):
    counter = TokenCounter(model)
    for name, row in SAMPLES.items():
        counted = max(row["counts"][one] for one in FAMILIES[model])
        weight = counter.weight_of(row["text"].encode())
        assert weight >= counted * UNNATURAL.get(name, 1.0), (name, weight, counted)


@pytest.mark.parametrize("model", FAMILIES)
def test_the_estimate_is_at_most_double_for_usual_text(model):
    counter = TokenCounter(model)
    most = 2.4 if "claude" in model else 2.0
    for name in USUAL:
        counted = max(SAMPLES[name]["counts"][one] for one in FAMILIES[model])
        assert counter.weight_of(SAMPLES[name]["text"].encode()) <= counted * most, name


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-4o-2024-08-06", "gpt"),
        ("gpt-4-0613", "gpt_4"),
        ("gpt-3.5-turbo-0125", "gpt_4"),
        ("o3-mini-2025-01-31", "gpt"),
        ("openai/gpt-5-2025-08-07", "gpt"),
        ("anthropic.claude-sonnet-4", "claude"),
        ("gemma-3-27b", "gemini"),
        ("mixtral-8x7b", "mistral"),
        ("meta-llama-3.1-8b", "llama"),
        ("llama-2-7b", "any"),
        ("offline-rules-1", "any"),
    ],
)
def test_a_family_is_known_by_the_models_name(model, family):
    assert family_of(model) == family


def test_weights_add_up():
    counter = TokenCounter()
    texts = [row["text"].encode() for row in SAMPLES.values()]
    assert counter.weight_of(b"\n".join(texts)) >= sum(map(counter.weight_of, texts))


def test_the_providers_counts_correct_the_estimate_slowly_downwards():
    counter = TokenCounter()
    before = counter.estimate(TEXT)
    for _ in range(3):
        counter.learn_count(TEXT, int(before * 0.6))
    between = counter.estimate(TEXT)
    for _ in range(40):
        counter.learn_count(TEXT, int(before * 0.6))
    assert before >= between > counter.estimate(TEXT) >= int(before * 0.6)


def test_a_count_above_the_estimate_is_reserved_by_once_another_confirms_it_and_is_forgotten():
    counter = TokenCounter()
    usual, estimated = counter.estimate_by_counts(TEXT), counter.estimate(TEXT)
    counted = int(estimated * 2.9)
    counter.learn_count(TEXT, counted)
    assert counter.estimate_by_counts(TEXT) <= usual * 1.4, "one count alone moves little"
    counter.learn_count(TEXT, counted)
    assert counter.estimate_by_counts(TEXT) >= counted
    for _ in range(RECENT_COUNTS - 2):
        counter.learn_count(TEXT, estimated)
    assert counter.estimate_by_counts(TEXT) >= counted
    for _ in range(2):
        counter.learn_count(TEXT, estimated)
    assert counter.estimate_by_counts(TEXT) <= usual * 1.01


def test_no_single_count_refuses_what_fitted():
    counter = TokenCounter()
    usual = counter.estimate(TEXT)
    counter.learn_count(TEXT, 10**9)
    assert counter.estimate(TEXT) <= usual * 1.6


def test_what_is_counted_for_one_tenant_moves_no_other():
    counters = TokenCounters("gpt-4.1")
    before = counters.of_tenant("acme").estimate_by_counts(TEXT)
    for _ in range(9):
        counters.of_tenant("demo").learn_count(TEXT, 10**9)
    assert counters.of_tenant("demo").estimate_by_counts(TEXT) > before
    assert counters.of_tenant("acme").estimate_by_counts(TEXT) == before


def test_absurd_counts_are_bounded_and_small_ones_are_no_measure():
    counter = TokenCounter()
    weight = counter.weight_of(TEXT)
    before = counter.estimate_by_counts(TEXT)
    counter.learn_count(b"hello", 300)
    assert counter.estimate_by_counts(TEXT) == before
    for _ in range(60):
        counter.learn_count(TEXT, 1)
    assert counter.estimate(TEXT) >= weight * LEAST_FACTOR
    counter.learn_count(TEXT, 10**9)
    assert counter.estimate_by_counts(TEXT) <= weight * MOST_FACTOR + 1
