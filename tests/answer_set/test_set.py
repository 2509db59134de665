"""The set is sound: its own reference answers are right, its wrong ones are wrong, and its documents can be read."""

import io
from decimal import Decimal

import pypdf
import pytest

from tests.answer_set import documents
from tests.answer_set.characters import CHARACTERS, Passage
from tests.answer_set.questions import FLAWS, KINDS, DayOfYear, Question, dates, judge, load, numbers

QUESTIONS = load()
IDS = [question.id for question in QUESTIONS]
PASSAGE = Passage("0123456789ab", "some.md", "Some text with 7 words and 0.5 numbers.")
MAX_BYTES = 1_500_000


def test_the_set_is_large_enough_and_has_every_kind_and_flaw() -> None:
    assert len(QUESTIONS) >= 80 and len(set(IDS)) == len(IDS)
    assert len({question.question for question in QUESTIONS}) == len(QUESTIONS)
    assert {question.kind for question in QUESTIONS} == set(KINDS)
    assert {wrong.flaw for question in QUESTIONS for wrong in question.wrong_answers} == set(FLAWS)
    assert {question.difficulty for question in QUESTIONS} == {1, 2, 3, 4}


def test_the_documents_can_be_read_and_stay_small() -> None:
    found = {
        name: content for library in documents.libraries() for name, content in documents.of_library(library).items()
    }
    assert len(found) >= 20 and sum(map(len, found.values())) < MAX_BYTES
    pages = {
        name: [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages]
        for name, content in found.items()
        if name.endswith(".pdf")
    }
    assert len(pages["site-register.pdf"]) >= 30
    assert '("the Supplier")' in pages["supply-contract.pdf"][0] and "GBP 446" in pages["supply-contract.pdf"][1]


@pytest.mark.parametrize("question", QUESTIONS, ids=IDS)
def test_right_answers_are_right_in_every_characters_words(question: Question) -> None:
    assert set(question.must_cite) <= set(documents.of_library(question.library))
    said = {name: one.answer(question, question.reference, (PASSAGE,)) for name, one in CHARACTERS.items()}
    said |= {"reference": question.reference, "elsewhere": question.elsewhere or question.reference}
    assert {name: found for name, text in said.items() if (found := judge(question, text)).verdict != "right"} == {}


@pytest.mark.parametrize("question", QUESTIONS, ids=IDS)
def test_wrong_answers_are_wrong_and_the_question_gives_none_away(question: Question) -> None:
    assert question.wrong_answers
    for wrong in question.wrong_answers:
        assert judge(question, wrong.text).verdict in ("wrong", "mixed"), wrong
    assert not [reason for reason in judge(question, question.question).reasons if reason.startswith("it says")]


def test_numbers_are_read_in_every_notation() -> None:
    assert numbers("GBP 1,234.50, 1.234,50 EUR and 1\u202f234,50 EUR") == {Decimal("1234.50")}
    assert numbers("9,350円 or 0.52; 78,5 m²; 8%") == {
        Decimal(9350),
        Decimal("9.350"),
        Decimal("0.52"),
        Decimal("78.5"),
        8,
    }
    assert numbers("on 2025-06-20 at 18:05 to 20-61-17") == set()


def test_dates_are_read_in_every_form() -> None:
    for text in ("20 June 2025", "June 20th, 2025", "2025-06-20", "20.06.2025", "20. Juni 2025", "20 de junio de 2025"):
        assert dates(text) == {DayOfYear(2025, 6, 20)}, text
    assert dates("le 1er août") == {DayOfYear(None, 8, 1)} and dates("6月10日まで") == {DayOfYear(None, 6, 10)}
    assert dates("5 marches, 12 mayors") == set()


def test_an_answer_that_tells_nothing_abstains_where_there_is_an_answer() -> None:
    question = next(one for one in QUESTIONS if one.kind == "look-up")
    assert judge(question, "The documents do not say this.").verdict == "abstains"


def test_an_answer_that_quotes_the_wrong_row_beside_the_right_one_is_mixed() -> None:
    question = next(one for one in QUESTIONS if one.id == "firm-jug-price")
    assert judge(question, "1 to 49 21.50; 50 to 199 19.80; 200 and more 17.90").verdict == "mixed"
