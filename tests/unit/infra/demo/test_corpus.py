"""The demo's corpus: deterministic, varied, honest about its answer."""

import re
from decimal import Decimal

import pytest

from bulkhead_infra.demo import wording
from bulkhead_infra.demo.corpus import generate_demo
from bulkhead_infra.demo.verdict import compare_answer
from tests.paths import ROOT


def test_same_seed_same_demo_and_other_seed_other_demo() -> None:
    assert generate_demo(7) == generate_demo(7)
    assert len({generate_demo(seed).objective for seed in range(30)}) == 30


def test_what_decides_varies_over_seeds() -> None:
    demos = [generate_demo(seed) for seed in range(80)]
    assert {d.expected.exception_reason for d in demos} == {
        "applies",
        "no_cause",
        "excluded",
        "excluded_inline",
        "no_proof",
    }
    assert {len(d.documents) for d in demos} >= {5, 6}
    assert {name.rsplit(".")[-1] for d in demos for name in (doc.name for doc in d.documents)} == {"md", "txt", "html"}
    assert len({d.airline for d in demos}) > 20
    assert {d.expected.currency for d in demos} == set(wording.CURRENCIES)
    assert all(d.expected.amount > 0 and d.expected.amount == round(d.expected.amount, 2) for d in demos)
    assert len({d.expected.amount for d in demos}) == 80


def test_file_names_do_not_tell_which_document_is_the_newer() -> None:
    newer_first = 0
    for seed in range(100):
        current, outdated = generate_demo(seed).expected.must_cite[:2]
        newer_first += current < outdated
        assert not re.search(r"new|old|20\d\d|v\d", current + outdated)
    assert 30 < newer_first < 70


def test_compare_sees_a_wrong_amount_and_a_missing_source() -> None:
    demo = generate_demo(7)
    right = f"The refund is {demo.expected.currency} {demo.expected.amount}."
    assert compare_answer(demo, right, demo.expected.must_cite).ok
    comma = f"{demo.expected.amount + 1000:,.2f}"
    assert not compare_answer(demo, f"The refund is {demo.expected.currency} {comma}.", demo.expected.must_cite).ok
    missing = compare_answer(demo, right, demo.expected.must_cite[1:])
    assert not missing.ok and demo.expected.must_cite[0] in missing.differences[0]
    other = f"The refund is {demo.expected.currency} {demo.expected.amount + Decimal('0.01')}."
    assert not compare_answer(demo, other, demo.expected.must_cite).ok
    quoted_only = f"“The refund is {demo.expected.currency} {demo.expected.amount}” is not so."
    assert not compare_answer(demo, quoted_only, demo.expected.must_cite).ok
    assert not compare_answer(demo, "", ()).ok


@pytest.mark.slow
def test_no_word_of_the_corpus_stands_in_a_service() -> None:
    words = {*wording.AIRLINE_FIRST, *wording.FAMILY_NAMES, *(f"{fare} ticket" for fare in wording.FARE_CLASSES)}
    words |= {word for pair in wording.CAUSES for word in pair} | {"airline", "airfare", "suitcase", "cancelled ticket"}
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, sorted(words)))})\b")
    paths = [
        path for path in (ROOT / "services/bulkhead_services").rglob("*") if path.suffix in (".py", ".md", ".toml")
    ]
    assert not [(path, found.group()) for path in paths for found in pattern.finditer(path.read_text(encoding="utf-8"))]


def test_the_offline_model_has_the_forms_of_the_case_and_not_its_answers() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "infra/bulkhead_infra/offline_model").rglob("*.py")]
    assert not [text for text in texts if "demo.corpus" in text or "demo.verdict" in text]
