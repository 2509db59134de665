"""A tenant's plain rules over sentences: forbidden phrases, personal data, and which sentences may leave. Pure."""

import unicodedata
from collections.abc import Sequence

from bulkhead.flow import replace
from bulkhead.grounding.align import GroundedSentence, mark_sentences
from bulkhead.grounding.checked_values import Flaw
from bulkhead.grounding.language import fold_text
from bulkhead.grounding.personal_data import find_personal_data, mask_personal_data
from bulkhead.grounding.sentences import MARK, MARKER, TextSentence
from bulkhead_contracts.output import OutputPolicy

NOTHING_LEFT = "Nothing of the answer could be verified against its sources."
"""The text of an answer of which no sentence may leave."""


def text_as_read(text: str) -> str:
    """A text as it is read: without markers, marks, emphasis and characters that nobody sees."""
    plain = MARK.sub("", MARKER.sub("", text))
    return "".join(char for char in plain if char not in "*_`" and unicodedata.category(char) != "Cf")


def find_forbidden_phrase(text: str, phrases: Sequence[str]) -> str:
    """The first of the phrases that the text holds, however it is set; "" when it holds none."""
    folded = " ".join(fold_text(text_as_read(text)).split())
    return next((phrase for phrase in phrases if " ".join(fold_text(phrase).split()) in folded), "")


def apply_rules(rows: Sequence[GroundedSentence], policy: OutputPolicy) -> tuple[GroundedSentence, ...]:
    """The sentences with the policy's flaws: forbidden ones, and those with personal data where that is left out. A
    phrase that goes on in the next sentence forbids both."""
    is_forbidden = [
        bool(policy.forbidden and find_forbidden_phrase(row.sentence.text, policy.forbidden)) for row in rows
    ]
    for index in range(len(rows) - 1 if policy.forbidden else 0):
        if not is_forbidden[index] and not is_forbidden[index + 1]:
            both = f"{rows[index].sentence.text} {rows[index + 1].sentence.text}"
            if find_forbidden_phrase(both, policy.forbidden):
                is_forbidden[index] = is_forbidden[index + 1] = True
    return tuple(_apply_sentence_rules(row, policy, wrong) for row, wrong in zip(rows, is_forbidden, strict=True))


def _apply_sentence_rules(row: GroundedSentence, policy: OutputPolicy, wrong: bool) -> GroundedSentence:
    text = row.sentence.text
    if wrong:
        return replace(
            row, status="unverified", flaws=(Flaw("forbidden", "a rule of the tenant forbids this sentence"),)
        )
    hidden = policy.personal_data == "mask" and len(find_personal_data(text_as_read(text))) > len(
        find_personal_data(text)
    )
    if hidden or (policy.personal_data == "drop" and find_personal_data(text_as_read(text))):
        return replace(row, status="unverified", flaws=(Flaw("forbidden", "the sentence holds personal data"),))
    if policy.personal_data == "mask" and (masked_text := mask_personal_data(text)) != text:
        masked_sentence = TextSentence(masked_text, row.sentence.start, row.sentence.end, row.sentence.markers)
        return replace(row, sentence=masked_sentence)
    return row


def may_be_shown(row: GroundedSentence, policy: OutputPolicy) -> bool:
    """True when a sentence may be shown under this policy."""
    if any(flaw.code == "forbidden" for flaw in row.flaws):
        return False
    if row.status == "unverified":
        return not policy.drops_unverified
    if row.status == "plain":
        return not policy.require_citation and policy.delivery == "draft"
    return row.status == "absent" or bool(row.markers) or not (policy.require_citation or policy.delivery != "draft")


def render_answer(text: str, rows: Sequence[GroundedSentence], policy: OutputPolicy) -> str:
    """The text as this policy lets it be shown."""
    answer_text = mark_sentences(text, rows, lambda row: may_be_shown(row, policy))
    return answer_text if any(char.isalnum() for char in MARKER.sub("", answer_text)) else NOTHING_LEFT
