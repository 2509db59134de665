"""The shipped judge `grounded`: is this answer right, and supported by these documents, for this question? Pure.

In: a question, documents, an answer. Out: a vote with its reason. It stands on the grounding of the mesh's own checker,
and asks no model: an answer passes when it claims something, each of its sentences has a source, its values are those
of what it speaks of, and it leaves out no part of the question.
"""

import hashlib
from collections.abc import Mapping

from bulkhead.evaluation.checks import escape_surrogates
from bulkhead.evaluation.judges.panels import GROUNDED, JurorVote
from bulkhead.grounding.align import SUPPORTED, ground_text
from bulkhead.grounding.questions import find_unanswered
from bulkhead.grounding.sources import MAX_SOURCE_CHARS, GroundingSource, GroundingSources
from bulkhead_contracts import bounds


def judge_grounding(question: str, documents: Mapping[str, str], answer: str) -> JurorVote:
    """The vote. An abstention without documents, and of more text than is read."""
    if not documents:
        return JurorVote(GROUNDED, None, "there are no documents that the answer may rest on")
    if sum(map(len, documents.values())) > MAX_SOURCE_CHARS:
        return JurorVote(GROUNDED, None, f"the documents have more than {MAX_SOURCE_CHARS:,} characters")
    if len(answer) > bounds.MAX_ANSWER_CHARS:
        return JurorVote(GROUNDED, False, f"the answer has more than {bounds.MAX_ANSWER_CHARS:,} characters")
    sources = GroundingSources(
        [
            GroundingSource(hashlib.sha256(name.encode()).hexdigest()[:12], text, document=name)
            for name, text in documents.items()
        ],
        question,
    )
    rows = ground_text(answer, sources)
    flaws = [flaw for row in rows for flaw in row.flaws] + list(find_unanswered(question, rows, sources))
    if flaws:
        messages = escape_surrogates("; ".join(dict.fromkeys(flaw.message for flaw in flaws)))
        return JurorVote(GROUNDED, False, messages[: bounds.MAX_SUMMARY_CHARS])
    if not any(row.status in SUPPORTED for row in rows):
        return JurorVote(GROUNDED, False, "it claims nothing that the documents say")
    return JurorVote(GROUNDED, True, "each sentence has a source")
