"""The end of a task as a typed value: the answer, the passages that it cites, its standing and its cost."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from bulkhead.gateway_api.tasks import CitationDocument, TaskDocument
from bulkhead_contracts import bounds
from bulkhead_contracts.types import Count

MICROS_PER_USD = 1_000_000
MARKER = re.compile(r"\[#([0-9a-f]{12})\]")


class TaskResult(TaskDocument):
    """A task that has ended: all fields of TaskDocument (answer, answered, standing, usage, steps, failure, ...), and
    the sources of its answer.

    citations: in the order of the answer, each with its document or tool (`source`), `place` and quoted passage
    (`text`). more_citations: how many are not listed.
    """

    citations: Annotated[tuple[CitationDocument, ...], Field(max_length=bounds.MAX_CITATIONS)] = ()
    more_citations: Count = 0

    @property
    def numbered_answer(self) -> str:
        """The answer with [1], [2] in place of its markers: [1] is the first of `citations`. "" where there is none."""
        return number_markers(self.answer or "")[0]

    @property
    def cost_usd(self) -> Decimal:
        """Settled cost in US dollars; a lower bound while `spent_more`, and until `charged` is there."""
        return Decimal((self.charged or self.usage).cost_usd_micros) / MICROS_PER_USD

    @property
    def is_whole(self) -> bool:
        """True where everything that was asked for is answered, without a fallback and with nothing left out."""
        return self.answered == "yes" and self.standing == "ok" and bool(self.complete)


def number_markers(text: str) -> tuple[str, tuple[str, ...]]:
    """The text with numbers in place of its markers, and the markers in that order, each once."""
    markers = tuple(dict.fromkeys(MARKER.findall(text)))
    return MARKER.sub(lambda match: f"[{markers.index(match[1]) + 1}]", text), markers
