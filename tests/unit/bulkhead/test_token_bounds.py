"""Bounds of tokens against counts of real vocabularies: no text costs more than is reserved, usual text little less."""

import base64
import json
import random
import statistics
import string
import time
import unicodedata

import pytest
import toktok

from bulkhead.quotas.token_bounds import bound_tokens, tokens_to_reserve, vocabulary_of
from bulkhead.quotas.token_estimates import RECENT_COUNTS, TokenCounter
from tests.paths import ROOT
from tests.unit.bulkhead.test_token_estimates import FAMILIES, SAMPLES, TEXT

OLDER, NEWER = "cl100k_base", "o200k_base"
UNKNOWN = ("claude-haiku-4-5-20251001", "SmolLM2-135M-Instruct")
"""Models whose vocabulary is not public, or not known: GPT's older one stands for it."""
SCRIPTS = {
    "Latin with marks": (0xC0, 0x180),
    "Latin, extended": (0x180, 0x250),
    "IPA": (0x250, 0x2B0),
    "marks": (0x300, 0x370),
    "Greek": (0x370, 0x400),
    "Cyrillic": (0x410, 0x450),
    "Cyrillic, rare": (0x48A, 0x530),
    "Armenian": (0x531, 0x590),
    "Hebrew": (0x5D0, 0x5EB),
    "Arabic": (0x620, 0x64B),
    "Syriac": (0x710, 0x750),
    "N'Ko": (0x7C0, 0x7FB),
    "Devanagari": (0x900, 0x980),
    "Tamil": (0xB80, 0xC00),
    "Thai": (0xE00, 0xE5C),
    "Tibetan": (0xF00, 0xFD0),
    "Georgian": (0x10A0, 0x1100),
    "Jamo": (0x1100, 0x1200),
    "Ethiopic": (0x1200, 0x1380),
    "Cherokee": (0x13A0, 0x1400),
    "Khmer": (0x1780, 0x17F0),
    "signs": (0x2010, 0x2C00),
    "Braille": (0x2800, 0x2900),
    "kana": (0x3040, 0x3100),
    "Han": (0x4E00, 0xA000),
    "Han, rare": (0x3400, 0x4DB0),
    "Yi": (0xA000, 0xA4C0),
    "Hangul": (0xAC00, 0xD7A0),
    "Arabic, presentation": (0xFB50, 0xFE00),
    "full width": (0xFF01, 0xFF5F),
    "emoji": (0x1F300, 0x1F700),
    "Han, supplement": (0x20000, 0x2A000),
}
PAIRS = (
    "acdgiklnprstvxyz be caehiort daeino eacdefijlmnprstx faiou geo haeit icdekmnorstvz jo kaei laeilo "
    "maeimopsu nacdeginost obdfiklmnprstuw paeilort qu radeiorstuz saceiost taehiloruy umnrsz veiu whin xit yaemps zuy"
)
"""First letters, each with those that often follow it."""
CHOSEN = random.Random(29)


def write_random(letters: str, size: int = 3_000) -> str:
    return "".join(CHOSEN.choices(letters, k=size))


def write_words(parts: list[str], length: int) -> str:
    return " ".join("".join(CHOSEN.choices(parts, k=length)) for _ in range(800))


def list_letters(first: int, behind: int) -> str:
    return "".join(chr(code) for code in range(first, behind) if unicodedata.category(chr(code))[0] in "LMNSP")


FREQUENT_PAIRS = [row[0] + second for row in PAIRS.split() for second in row[1:]]
HOSTILE = {
    **{name: write_random(list_letters(*codes)) for name, codes in SCRIPTS.items()},
    "letters": write_random(string.ascii_lowercase),
    "words of letters": write_words(list(string.ascii_letters), 6),
    "words of pairs": write_words(FREQUENT_PAIRS, 3),
    "long words of pairs": write_words(FREQUENT_PAIRS, 12),
    "lone letters": " ".join(write_random(string.ascii_lowercase)),
    "letters in lines": "\n".join(write_random(string.ascii_lowercase)),
    "letters and digits": "".join(CHOSEN.choice("qxzjkvw") + CHOSEN.choice(string.digits) for _ in range(2_000)),
    "letters and signs": "".join(CHOSEN.choice("qxzjkvw") + CHOSEN.choice("!?;:,.~^|") for _ in range(2_000)),
    "capitals": write_random(string.ascii_uppercase),
    "digits": write_random(string.digits),
    "signs of ASCII": write_random(string.punctuation),
    "blanks": write_random(" \t\n\r"),
    "blanks and lines": " \n" * 1_500,
    "indentation": "    " * 1_000,
    "controls": write_random("".join(map(chr, range(1, 32)))),
    "zalgo": "".join(letter + write_random(list_letters(0x300, 0x370), 6) for letter in "hello world " * 60),
    "families": "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466" * 200,
    "flags": write_random("".join(chr(0x1F1E6 + place) for place in range(26))),
    "joiners": "\u200d\u200b" * 1_000,
    "ligatures": "\ufdfa" * 500,
    "Base64": base64.b64encode(CHOSEN.randbytes(2_500)).decode(),
    "Base85": base64.b85encode(CHOSEN.randbytes(2_500)).decode(),
    "hexadecimal": CHOSEN.randbytes(2_000).hex(),
}
USUAL_FILES = ("README.md", "docs/explanation/money.md", "pyproject.toml", "libs/bulkhead/model_apis/media.py")


def count_tokens(text: str, vocabulary: str) -> int:
    return toktok.batch_count([text], vocabulary, threads=1)[0]


@pytest.mark.parametrize("model", FAMILIES)
def test_no_text_has_more_tokens_than_are_reserved_whatever_was_counted_before(model):
    counter = TokenCounter(model)
    for _ in range(RECENT_COUNTS + 16):
        counter.learn_count(TEXT, 1)
    for name, row in SAMPLES.items():
        counted = max(row["counts"][vocabulary] for vocabulary in FAMILIES[model])
        assert tokens_to_reserve(counter, row["text"].encode()) >= counted, name


@pytest.mark.parametrize("name", HOSTILE)
def test_letters_that_no_language_has_are_reserved_in_full(name):
    text = HOSTILE[name]
    newer, older = count_tokens(text, NEWER), count_tokens(text, OLDER)
    assert bound_tokens("gpt-4.1", text) >= newer and bound_tokens("gpt-4", text) >= older
    for model in UNKNOWN:
        assert bound_tokens(model, text) >= max(newer, older), model


@pytest.mark.parametrize("usual", ["The request has to be made in writing. ", "    return None\n", "\n"])
@pytest.mark.parametrize("name", ["Cyrillic, rare", "N'Ko", "Hangul", "Latin, extended", "letters", "Khmer"])
def test_usual_text_hides_no_unusual_text(name, usual):
    text = "".join(HOSTILE[name][start : start + 9] + usual for start in range(0, 900, 9))
    for model in UNKNOWN:
        assert bound_tokens(model, text) >= count_tokens(text, OLDER), model


@pytest.mark.parametrize("model", FAMILIES)
def test_usual_text_is_reserved_at_most_double(model):
    languages = list(SAMPLES)[:25]
    counted = {name: max(SAMPLES[name]["counts"][vocabulary] for vocabulary in FAMILIES[model]) for name in languages}
    ratios = [bound_tokens(model, SAMPLES[name]["text"]) / counted[name] for name in languages]
    assert statistics.median(ratios) <= 2.0 and max(ratios) <= 3.6
    for file in USUAL_FILES:
        text = (ROOT / file).read_text()
        assert bound_tokens(model, text) <= count_tokens(text, NEWER) * (2.4 if "claude" in model else 2.0), file


@pytest.mark.parametrize("model", ["gpt-4o-2024-08-06", "gpt-4-0613", "text-embedding-3-small"])
def test_gpt_models_are_counted_exactly(model):
    row = {NEWER: "o200k", OLDER: "cl100k"}[vocabulary_of(model)]
    for name, sample in SAMPLES.items():
        assert bound_tokens(model, sample["text"]) == sample["counts"][row], name


@pytest.mark.parametrize(
    ("model", "vocabulary"),
    [
        ("gpt-4.1-mini-2025-04-14", NEWER),
        ("openai/gpt-5-2025-08-07", NEWER),
        ("openai.gpt-oss-120b-1:0", NEWER),
        ("o3-mini-2025-01-31", NEWER),
        ("gpt-3.5-turbo-0125", OLDER),
        ("gpt-4-turbo-2024-04-09", OLDER),
        ("text-embedding-ada-002", OLDER),
        ("eleutherai/gpt-neo-2.7b", ""),
        ("gpt-3", ""),
        ("gpt-10", ""),
        ("claude-sonnet-4", ""),
    ],
)
def test_a_vocabulary_is_known_by_the_models_name(model, vocabulary):
    assert vocabulary_of(model) == vocabulary


@pytest.mark.parametrize("words", ["\requirements", "\recommendations", "\really", 'say "no"\\', "C:\\new", "\\\\n\n"])
def test_the_strings_of_a_body_are_counted_as_they_are_read(words):
    text = words * 2_000
    body = json.dumps({"content": text}, ensure_ascii=False).encode()
    counter = TokenCounter("gpt-4.1")
    for _ in range(RECENT_COUNTS):
        counter.learn_count(TEXT, 1)
    counted = count_tokens(text, NEWER)
    assert counted <= tokens_to_reserve(counter, body, is_json=True)
    assert bound_tokens("gpt-4.1", text) == counted


@pytest.mark.parametrize("model", ["gpt-4.1", "gpt-4", "claude-haiku-4-5-20251001"])
@pytest.mark.parametrize("piece", ["a", "A ", " ", "\n", "!", "e\u0301", "ab", "'s", "1", "\0"])
def test_a_megabyte_of_anything_is_counted_in_time(model, piece):
    text = piece * (1_000_000 // len(piece.encode()))
    began_s = time.process_time()
    assert 0 < bound_tokens(model, text) <= 1_010_000
    assert time.process_time() - began_s < 5.0
