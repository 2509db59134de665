"""A set whose cases no longer resemble the requests is told; one that does is not."""

import random

import pytest

from bulkhead.evaluation.population import language_of, measure_distances

REFUNDS = ["refund", "ticket", "train", "late", "minutes", "euro", "claim", "form", "pay", "delay", "station"]
PAYROLL = ["salary", "payroll", "bonus", "tax", "wage", "holiday", "contract", "employee", "month", "pension"]
TOPICS = {"refunds": REFUNDS, "payroll": PAYROLL}


def write_requests(topic: str, count: int, chance: random.Random, words: int = 10) -> list[str]:
    return ["what is the " + " ".join(chance.choices(TOPICS[topic], k=words)) for _ in range(count)]


def drifted(cases: list[str], requests: list[str]) -> list[str]:
    return [row.measure for row in measure_distances(cases, requests) if row.has_drifted]


@pytest.mark.slow
def test_another_topic_length_or_language_is_drift_of_that_kind() -> None:
    chance = random.Random(5)
    cases = write_requests("refunds", 60, chance)
    assert drifted(cases, write_requests("refunds", 200, chance)) == []
    assert drifted(cases, write_requests("payroll", 200, chance)) == ["topics"]
    assert "lengths" in drifted(cases, write_requests("refunds", 200, chance, words=60))
    german = [text.replace("what is the", "was ist der") for text in write_requests("refunds", 200, chance)]
    assert "languages" in drifted(cases, german)


@pytest.mark.slow
def test_sets_that_are_drawn_from_the_requests_are_seldom_told() -> None:
    chance = random.Random(9)
    told = 0
    for _ in range(30):
        requests = write_requests("refunds", 60, chance) + write_requests("payroll", 60, chance)
        told += bool(drifted(chance.sample(requests, 40), requests))
    assert told <= 3


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the refund for a train that is late?", "en"),
        ("Was ist die Erstattung und wie bekomme ich sie?", "de"),
        ("Сколько стоит билет?", "cyrillic"),
        ("払い戻しはいくらですか", "cjk"),
        ("1234", "none"),
        ("Xyzzy plugh", "latin"),
    ],
)
def test_a_language_is_told_by_its_stop_words_or_its_script(text: str, language: str) -> None:
    assert language_of(text) == language
