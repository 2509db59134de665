"""A conversation that comes as an input: its sentences, and its summary. Enters: parts. Leaves: sentences, lines.

What the person stated and what answers quoted is kept; questions, and answers that found nothing, are not.
"""

import re
from collections.abc import Iterable, Iterator

from bulkhead_infra.offline_model.parts import Part
from bulkhead_infra.offline_model.quoting import NOTHING, Sentence
from bulkhead_infra.offline_model.text import MARKER, split_sentences

OF_MEMORY = frozenset({"conversation", "pinned"})
"""Inputs by the step that they stand for."""
SUMMARY_TASK = "Write the summary that takes the place of the conversation"
_HEADING = re.compile(r"^(?:Turn \d+, the (?:person|answer)|Summary of turns \d+ to \d+):\s*|^- (?:The \w+: )?")


def remembered_sentences(inputs: Iterable[Part]) -> list[Sentence]:
    """Statements of a conversation, each cited by the part that holds it."""
    return [Sentence(text, (part.id,)) for part in inputs for text in _statements(part)]


def summary_lines(inputs: Iterable[Part]) -> list[str]:
    """A line for each statement that holds a figure or a name, each once."""
    statements = dict.fromkeys(text for part in inputs for text in _statements(part))
    return [f"- {text}" for text in statements if re.search(r"\d|\s[A-Z]", text)]


def _statements(part: Part) -> Iterator[str]:
    if part.attributes.get("step_id") not in OF_MEMORY:
        return
    for line in part.text.splitlines():
        statement = MARKER.sub("", _HEADING.sub("", line)).strip()
        if statement and not statement.startswith((NOTHING, "(no answer")):
            yield from (text.strip("“” .") for text in split_sentences(statement) if not text.endswith("?"))
