"""Whether an answer speaks to its question."""

import pytest

from bulkhead.grounding.align import ground
from bulkhead.grounding.questions import questions, unanswered
from bulkhead.grounding.sources import Source, Sources

POLICY = Source(
    "a" * 12,
    "The notice period is three months. The works council must be informed in writing before a notice.\n"
    "Our chief executive is Maria Lind. She joined in 2019.",
)


def flaws(question, answer):
    sources = Sources((POLICY,), question)
    return [flaw.code for flaw in unanswered(question, ground(answer, sources), sources)]


def test_a_question_of_two_parts_is_two():
    assert len(questions("What is the notice period, and who must be informed?")) == 2
    assert questions("Note the harbour.") == []


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
