"""A tenant's plain rules: phrases, personal data, and which sentences of an answer may leave."""

import pytest

from bulkhead.grounding.align import ground_text
from bulkhead.grounding.personal_data import find_personal_data, mask_personal_data
from bulkhead.grounding.rules import NOTHING_LEFT, apply_rules, find_forbidden_phrase, render_answer
from bulkhead.grounding.sources import GroundingSource, GroundingSources
from bulkhead_contracts.output import DRAFT, OutputPolicy, with_stricter_delivery

MARK = "a" * 12
SOURCES = GroundingSources(
    (GroundingSource(MARK, "The fee is 40.00 EUR. Project Falcon starts in May. Call +49 30 1234567."),), ""
)


def said(text, **policy):
    rules = OutputPolicy(**policy)
    return render_answer(text, apply_rules(ground_text(text, SOURCES), rules), rules)


@pytest.mark.parametrize(
    "text",
    [
        "write to maria.lind@example.org",
        "IBAN DE89 3704 0044 0532 0130 00",
        "card 4111 1111 1111 1111",
        "call +49 30 1234567",
        "call 030/1234567",
    ],
)
def test_personal_data_is_found_and_masked(text):
    assert find_personal_data(text) and "[masked]" in mask_personal_data(text)


@pytest.mark.parametrize("text", ["2026-04-01", "1,234,567.50 EUR", "order 4111111111111112", "12345678 units", "a@b"])
def test_dates_and_amounts_are_no_personal_data(text):
    assert not find_personal_data(text)


@pytest.mark.parametrize(
    "text",
    ["blue  bird", "blue\nbird", "**blue** bird", "bl\u200bue bird", f"blue [#{MARK}] bird", "It is blue. Bird it is."],
)
def test_a_phrase_is_forbidden_however_it_is_set(text):
    assert said(f"The fee is 40.00 EUR {text}", forbidden=("blue bird", "blue. bird")) == NOTHING_LEFT


@pytest.mark.parametrize(
    "text",
    [
        "John Smith is a convicted fraudster; no further details are available.",
        "The police will arrest him tomorrow, though the documents do not mention it.",
        "Ihr Vermieter ist ein Betrueger, und es gibt keine Information dazu.",
    ],
)
def test_a_claim_does_not_leave_beside_the_word_that_nothing_is_known(text):
    assert said(text, delivery="verified") == NOTHING_LEFT
    assert "mention pets" in said("The lease, however, does not mention pets.", delivery="verified")


def test_forbidden_phrases_are_found_whatever_their_case():
    assert find_forbidden_phrase("The PROJECT Fálcon starts", ("project falcon",)) == "project falcon"
    assert find_forbidden_phrase("nothing", ("project falcon",)) == ""


@pytest.mark.parametrize("delivery", ["verified", "held"])
def test_no_sentence_without_a_source_leaves(delivery):
    text = "Hello!\nThe fee is 40.00 EUR.\nA company car is provided.\nThe fee is 41.00 EUR."
    assert said(text, delivery=delivery) == f"The fee is 40.00 EUR [#{MARK}]."
    assert said("A company car is provided.", delivery=delivery) == NOTHING_LEFT


def test_a_forbidden_sentence_leaves_under_no_delivery():
    for delivery in ("draft", "verified", "held"):
        text = said("The fee is 40.00 EUR. Project Falcon starts in May.", delivery=delivery, forbidden=("falcon",))
        assert "Falcon" not in text and "40.00" in text


def test_personal_data_is_masked_or_its_sentence_left_out():
    text = "The fee is 40.00 EUR. Call +49 30 1234567."
    assert said(text, personal_data="mask").endswith(f"Call [masked] [#{MARK}].")
    assert said(text, personal_data="drop") == f"The fee is 40.00 EUR [#{MARK}]."


def test_required_citations_leave_talk_out():
    assert said("Sure!\nThe fee is 40.00 EUR.", require_citation=True) == f"The fee is 40.00 EUR [#{MARK}]."


def test_a_request_makes_delivery_stricter_and_never_looser():
    assert with_stricter_delivery(DRAFT, "held").delivery == "held"
    assert with_stricter_delivery(OutputPolicy(delivery="held"), "draft").delivery == "held"
