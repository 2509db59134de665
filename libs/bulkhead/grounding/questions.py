"""Checks that an answer speaks to its question: half of it left out, or nothing of what it asks about. Pure."""

import re
from collections.abc import Sequence

from bulkhead.grounding.align import SUPPORTED, GroundedSentence
from bulkhead.grounding.checked_values import Flaw
from bulkhead.grounding.language import find_terms, fold_text, language_of, word_stems
from bulkhead.grounding.sentences import split_sentences
from bulkhead.grounding.sources import GroundingSources
from bulkhead.grounding.values import find_values, identifier_names

_ASKS = (
    r"(?:who|whom|what|when|where|how|which|why|wer|wen|was|wann|wo|wie|welche\w*|warum|qui|que|quand|ou|comment|combien"
    r"|quel\w*|cuando|donde|como|cuanto\w*|cual\w*)"
)
_AND = re.compile(rf"(?:,|;)?\s+(?:and|und|et|y|e)\s+(?=(?:by |for |from |to |bis |ab |in )?{_ASKS}\b)", re.I)
_QUESTION = re.compile(
    rf"^(?:[^\w]*)(?:{_ASKS}|is|are|does|do|can|may|must|should|did|was|ist|sind|darf|kann|muss)\b", re.I
)
_GENERIC = word_stems(
    "much many long often please tell give list name need want get gets know find following question answer document "
    "documents according viel viele lange bitte nenne according same also exactly total there amount number"
)
MIN_MISSING = 2


def split_questions(text: str) -> list[str]:
    """The questions that a text asks, each by itself: `what ..., and who ...?` are two."""
    question_sentences = [
        row.text
        for row in split_sentences(text)
        if row.text.rstrip().endswith(("?", "？")) or _QUESTION.match(fold_text(row.text))
    ]
    return [part for row in question_sentences for part in _AND.split(row) if part.strip()][:16]


def find_unanswered(question: str, grounded: Sequence[GroundedSentence], sources: GroundingSources) -> tuple[Flaw, ...]:
    """Parts of the question of which the answer says nothing. Words that no source holds show what is not known."""
    if any(row.status == "absent" for row in grounded) or not any(row.status in SUPPORTED for row in grounded):
        return ()
    spoken = language_of(" ".join(source.text for source in sources.sources if source.kind != "objective"))
    if language_of(question) not in ("", spoken) or not spoken:
        return ()  # Words of two languages do not tell.
    parts = [find_terms(part, identifier_names(find_values(part))) - _GENERIC for part in split_questions(question)]
    answered_words = frozenset().union(
        *(
            word_stems(row.sentence.bare_text) | identifier_names(find_values(row.sentence.bare_text))
            for row in grounded
            if row.status != "plain"
        ),
        *(sources.units[index].words for row in grounded for index in row.unit_indexes),
    )
    flaws: list[Flaw] = []
    for position, part in enumerate(parts):
        other_words = frozenset().union(*(row for index, row in enumerate(parts) if index != position))
        own_words = part - other_words
        if len(parts) > 1 and own_words and not own_words & answered_words:
            flaws.append(Flaw("unanswered", f"a part of the question is not answered: {', '.join(sorted(own_words))}"))
    question_words = frozenset().union(*parts)
    missing = question_words - answered_words - frozenset().union(*sources.words)
    if not flaws and len(missing) >= MIN_MISSING and 2 * len(missing) > len(question_words):
        message = (
            f"the answer says nothing of what is asked, and no source that was read does: {', '.join(sorted(missing))}"
        )
        flaws.append(Flaw("unanswered", message))
    return tuple(flaws[:4])
