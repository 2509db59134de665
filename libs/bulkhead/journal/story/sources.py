"""Sources behind the markers of a task's texts: characters of documents, results of tools and steps. Pure.

In: the task's facts. Out: sources by marker; the sentences of a text with what they rest on.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping

from bulkhead.grounding.sentences import split_sentences
from bulkhead.journal.history import JournalEntry
from bulkhead.journal.story.model import Sentence, Source
from bulkhead.text.plain_text import cut_line
from bulkhead_contracts.result import Citation, ContentRef, Result
from bulkhead_contracts.retrieval import Passage, RetrievalReplied
from bulkhead_contracts.step import StepAssigned, StepProposed
from bulkhead_contracts.task import StepEnded, TaskEnded, TaskRequested, TaskSubmitted
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested

MAX_TEXT_CHARS = 400
MAX_SENTENCES = 200
MAX_CITING_CHARS = 32_000
"""Of one text: finding sentences takes more than its length where it has markers alone."""
_BLANKS = re.compile(r"(?<!\s)\s+([.,;:!?])")
"""A run is tried from its first blank alone: of a page of blanks each would else be the start of a try."""
Texts = Mapping[str, str]


def source_of_passage(passage: Passage, step_id: str, texts: Texts) -> Source:
    """The source that a passage is."""
    return _document_source(passage.citation, step_id, texts.get(passage.content.sha256, passage.content.summary))


def _document_source(citation: Citation, step_id: str, text: str = "") -> Source:
    where = f"characters {citation.start}–{citation.end}"
    return Source(citation.marker, "document", citation.document, where, step_id, cut_line(text, MAX_TEXT_CHARS))


def find_sources(entries: Iterable[JournalEntry], texts: Texts) -> dict[str, Source]:
    """Every content that a text of the task may cite, by marker."""
    by_marker: dict[str, Source] = {}
    tools: dict[str, str] = {}
    for entry in entries:
        match entry.body:
            case TaskRequested() as body:
                marker = hashlib.sha256(body.objective.encode()).hexdigest()[:12]
                by_marker[marker] = Source(marker, "objective", text=cut_line(body.objective, MAX_TEXT_CHARS))
            case ToolCallRequested() as body:
                tools[body.call_id] = body.tool
            case ToolCallReplied() as body if body.content is not None:
                name = tools.get(body.call_id, "")
                _add_content_source(by_marker, body.content, "tool_result", name, body.step_id, texts)
            case RetrievalReplied() as body:
                for passage in body.passages:
                    by_marker.setdefault(passage.content.marker, source_of_passage(passage, body.step_id, texts))
            case StepProposed() as body:
                for evidence in body.evidence:
                    if evidence.citation is not None:
                        source = _document_source(evidence.citation, body.step.id, evidence.content.summary)
                        by_marker.setdefault(evidence.content.marker, source)
                    else:
                        _add_content_source(
                            by_marker, evidence.content, "tool_result", evidence.label.source, body.step.id, texts
                        )
            case StepAssigned(inputs=inputs) | TaskSubmitted(given=inputs):
                for step_input in inputs:
                    _add_result_sources(by_marker, step_input.result, step_input.step_id, texts)
            case StepEnded() as body if body.result is not None and body.outcome == "accepted":
                _add_result_sources(by_marker, body.result, body.step_id, texts)
            case TaskEnded() as body if body.result is not None:
                _add_result_sources(by_marker, body.result, "", texts)
    return by_marker


def _add_result_sources(by_marker: dict[str, Source], result: Result, step_id: str, texts: Texts) -> None:
    for citation in result.citations:
        by_marker.setdefault(citation.marker, _document_source(citation, step_id))
    for label in result.provenance:
        if label.kind == "tool_result":
            source = Source(label.sha256[:12], "tool_result", label.source, step_id=label.step_id or step_id)
            by_marker.setdefault(source.marker, source)
    if step_id and result.content is not None:
        _add_content_source(by_marker, result.content, "step_result", step_id, step_id, texts)


def _add_content_source(
    by_marker: dict[str, Source], content: ContentRef, kind: str, name: str, step_id: str, texts: Texts
) -> None:
    text = cut_line(texts.get(content.sha256, content.summary), MAX_TEXT_CHARS)
    by_marker.setdefault(content.marker, Source(content.marker, kind, name, "", step_id, text))  # type: ignore[arg-type]


def sentences_with_sources(text: str, sources: Mapping[str, Source]) -> tuple[Sentence, ...]:
    """The sentences of a text, each with what its markers name."""
    story_sentences = []
    for sentence in split_sentences(text[:MAX_CITING_CHARS])[:MAX_SENTENCES]:
        if plain := _BLANKS.sub(r"\1", sentence.bare_text):
            story_sentences.append(
                Sentence(plain, tuple(sources.get(marker) or Source(marker, "unknown") for marker in sentence.markers))
            )
    return tuple(story_sentences)


def cited_sources(text: str, sources: Mapping[str, Source]) -> tuple[Source, ...]:
    """Sources on which a text rests, each once."""
    return tuple(
        dict.fromkeys(source for sentence in sentences_with_sources(text, sources) for source in sentence.sources)
    )
