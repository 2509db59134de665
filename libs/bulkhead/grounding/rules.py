"""A tenant's plain rules over sentences: forbidden phrases, personal data, and which sentences may leave. Pure."""

import unicodedata
from collections.abc import Sequence

from bulkhead.flow import replace
from bulkhead.grounding.align import Grounded, with_marks
from bulkhead.grounding.checked_values import Flaw
from bulkhead.grounding.language import fold
from bulkhead.grounding.personal_data import MASKED as MASKED
from bulkhead.grounding.personal_data import masked as masked
from bulkhead.grounding.personal_data import places
from bulkhead.grounding.sentences import MARK, MARKER, Sentence
from bulkhead_contracts.output import OutputPolicy

NOTHING_LEFT = "Nothing of the answer could be verified against its sources."
"""The text of an answer of which no sentence may leave."""


def personal(text: str) -> list[tuple[int, int]]:
    """Places of what looks like personal data: electronic addresses, account, card and telephone numbers."""
    return [(start, end) for start, end, _ in places(text)]


def read_out(text: str) -> str:
    """A text as it is read: without markers, marks, emphasis and characters that nobody sees."""
    plain = MARK.sub("", MARKER.sub("", text))
    return "".join(char for char in plain if char not in "*_`" and unicodedata.category(char) != "Cf")


def forbidden(text: str, phrases: Sequence[str]) -> str:
    """The first of the phrases that the text holds, however it is set; "" when it holds none."""
    folded = " ".join(fold(read_out(text)).split())
    return next((phrase for phrase in phrases if " ".join(fold(phrase).split()) in folded), "")


def ruled(rows: Sequence[Grounded], policy: OutputPolicy) -> tuple[Grounded, ...]:
    """The sentences with the policy's flaws: forbidden ones, and those with personal data where that is left out. A
    phrase that goes on in the next sentence forbids both."""
    held = [bool(policy.forbidden and forbidden(row.sentence.text, policy.forbidden)) for row in rows]
    for at in range(len(rows) - 1 if policy.forbidden else 0):
        if not held[at] and not held[at + 1]:
            both = f"{rows[at].sentence.text} {rows[at + 1].sentence.text}"
            if forbidden(both, policy.forbidden):
                held[at] = held[at + 1] = True
    return tuple(_ruled(row, policy, wrong) for row, wrong in zip(rows, held, strict=True))


def _ruled(row: Grounded, policy: OutputPolicy, wrong: bool) -> Grounded:
    text = row.sentence.text
    if wrong:
        return replace(
            row, status="unverified", flaws=(Flaw("forbidden", "a rule of the tenant forbids this sentence"),)
        )
    hidden = policy.personal_data == "mask" and len(personal(read_out(text))) > len(personal(text))
    if hidden or (policy.personal_data == "drop" and personal(read_out(text))):
        return replace(row, status="unverified", flaws=(Flaw("forbidden", "the sentence holds personal data"),))
    if policy.personal_data == "mask" and (shown := masked(text)) != text:
        kept = Sentence(shown, row.sentence.start, row.sentence.end, row.sentence.markers)
        return replace(row, sentence=kept)
    return row


def leaves(row: Grounded, policy: OutputPolicy) -> bool:
    """Whether a sentence may be shown under this policy."""
    if any(flaw.code == "forbidden" for flaw in row.flaws):
        return False
    if row.status == "unverified":
        return not policy.drops
    if row.status == "plain":
        return not policy.require_citation and policy.delivery == "draft"
    return row.status == "absent" or bool(row.markers) or not (policy.require_citation or policy.delivery != "draft")


def shown(text: str, rows: Sequence[Grounded], policy: OutputPolicy) -> str:
    """The text as this policy lets it be shown."""
    kept = with_marks(text, rows, lambda row: leaves(row, policy))
    return kept if any(char.isalnum() for char in MARKER.sub("", kept)) else NOTHING_LEFT
