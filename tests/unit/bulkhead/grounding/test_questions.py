"""Whether an answer speaks to its question."""

import pytest

from bulkhead.grounding.align import ground_text
from bulkhead.grounding.questions import find_unanswered, split_questions
from bulkhead.grounding.sources import GroundingSource, GroundingSources

POLICY = GroundingSource(
    "a" * 12,
    "The notice period is three months. The works council must be informed in writing before a notice.\n"
    "Our chief executive is Maria Lind. She joined in 2019.",
)


def flaws(question, answer):
    sources = GroundingSources((POLICY,), question)
    return [flaw.code for flaw in find_unanswered(question, ground_text(answer, sources), sources)]


def test_a_question_of_two_parts_is_two():
    assert len(split_questions("What is the notice period, and who must be informed?")) == 2
    assert split_questions("Note the harbour.") == []


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("What is the notice period, and who must be informed?", "The notice period is three months.", ["unanswered"]),
        (
            "What is the notice period, and who must be informed?",
            "The notice period is three months. The works council must be informed.",
            [],
        ),
        ("What is the notice period?", "The notice period is three months.", []),
        (
            "Which shoe size and hat colour has the chief executive?",
            "Our chief executive is Maria Lind.",
            ["unanswered"],
        ),
        ("Which shoe size has the chief executive?", "The documents do not say.", []),
        ("Wie lang ist die Kündigungsfrist?", "The notice period is three months.", []),
    ],
)
def test_what_is_left_out_is_told(question, answer, expected):
    assert flaws(question, answer) == expected
