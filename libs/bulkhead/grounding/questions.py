"""Whether an answer speaks to its question: half of it left out, or nothing of what it asks about. Pure."""

import re
from collections.abc import Sequence

from bulkhead.grounding.align import SUPPORTED, Grounded
from bulkhead.grounding.checked_values import Flaw
from bulkhead.grounding.language import fold, language_of, stems, terms
from bulkhead.grounding.sentences import sentences
from bulkhead.grounding.sources import Sources
from bulkhead.grounding.values import names, values

_ASKS = (
    r"(?:who|whom|what|when|where|how|which|why|wer|wen|was|wann|wo|wie|welche\w*|warum|qui|que|quand|ou|comment|combien"
    r"|quel\w*|cuando|donde|como|cuanto\w*|cual\w*)"
)
_AND = re.compile(rf"(?:,|;)?\s+(?:and|und|et|y|e)\s+(?=(?:by |for |from |to |bis |ab |in )?{_ASKS}\b)", re.I)
_QUESTION = re.compile(
    rf"^(?:[^\w]*)(?:{_ASKS}|is|are|does|do|can|may|must|should|did|was|ist|sind|darf|kann|muss)\b", re.I
)
_GENERIC = stems(
    "much many long often please tell give list name need want get gets know find following question answer document "
    "documents according viel viele lange bitte nenne according same also exactly total there amount number"
)
MIN_MISSING = 2


def questions(text: str) -> list[str]:
    """The questions that a text asks, each by itself: `what ..., and who ...?` are two."""
    asked = [
        row.text
        for row in sentences(text)
        if row.text.rstrip().endswith(("?", "？")) or _QUESTION.match(fold(row.text))
    ]
    return [part for row in asked for part in _AND.split(row) if part.strip()][:16]


def unanswered(question: str, grounded: Sequence[Grounded], sources: Sources) -> tuple[Flaw, ...]:
    """What of the question the answer does not speak of. Words that no source holds either show what is not known."""
    if any(row.status == "absent" for row in grounded) or not any(row.status in SUPPORTED for row in grounded):
        return ()
    spoken = language_of(" ".join(source.text for source in sources.sources if source.kind != "objective"))
    if language_of(question) not in ("", spoken) or not spoken:
        return ()  # Words of two languages do not tell.
    parts = [terms(part, names(values(part))) - _GENERIC for part in questions(question)]
    said = frozenset().union(
        *(stems(row.sentence.bare) | names(values(row.sentence.bare)) for row in grounded if row.status != "plain"),
        *(sources.units[index].words for row in grounded for index in row.units),
    )
    flaws: list[Flaw] = []
    for at, part in enumerate(parts):
        others = frozenset().union(*(row for index, row in enumerate(parts) if index != at))
        own = part - others
        if len(parts) > 1 and own and not own & said:
            flaws.append(Flaw("unanswered", f"a part of the question is not answered: {', '.join(sorted(own))}"))
    whole = frozenset().union(*parts)
    missing = whole - said - frozenset().union(*sources.words)
    if not flaws and len(missing) >= MIN_MISSING and 2 * len(missing) > len(whole):
        what = (
            f"the answer says nothing of what is asked, and no source that was read does: {', '.join(sorted(missing))}"
        )
        flaws.append(Flaw("unanswered", what))
    return tuple(flaws[:4])
