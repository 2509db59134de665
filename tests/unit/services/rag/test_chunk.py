"""Chunks cover the text, know their place, and stay the same."""

from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead_services.rag.chunk import HARD_MAX_CHARS, MAX_CHARS, chunks_of, sentence_spans
from bulkhead_services.rag.structure import read_structure

DIGEST = "ab" * 32
WORDS = st.sampled_from(["refund", "fee", "Flex", "e.g.", "3.5", "No.", "the", "ticket", "Ünder", "x" * 60, "…", "旅"])
SENTENCE = st.lists(WORDS, min_size=1, max_size=40).map(lambda words: " ".join(words) + ".")
LINE = st.one_of(
    SENTENCE,
    SENTENCE.map(lambda s: "# " + s[:60]),
    SENTENCE.map(lambda s: "- " + s),
    st.just(""),
    st.just("```"),
    st.just("| a | b |"),
    st.just("---"),
    st.text(max_size=80),
)
TEXT = st.lists(LINE, max_size=60).map("\n".join)


@given(TEXT, st.booleans())
@settings(max_examples=150)
def test_chunks_cover_the_text_in_order_without_overlap(text: str, markdown: bool) -> None:
    chunks = chunks_of("a.md", DIGEST, read_structure(text, markdown=markdown))
    at = 0
    for chunk in chunks:
        assert text[at : chunk.start].strip() == ""
        assert at <= chunk.start < chunk.end
        assert text[chunk.start : chunk.end].strip() != ""
        assert chunk.end - chunk.start <= HARD_MAX_CHARS + MAX_CHARS
        at = chunk.end
    assert text[at:].strip() == ""
    assert len({chunk.id for chunk in chunks}) == len(chunks)


@given(TEXT)
@settings(max_examples=40)
def test_chunks_are_stable(text: str) -> None:
    found = read_structure(text, markdown=True)
    assert chunks_of("a.md", DIGEST, found) == chunks_of("a.md", DIGEST, found)
    other = chunks_of("b.md", DIGEST, found)
    assert not {c.id for c in chunks_of("a.md", DIGEST, found)} & {c.id for c in other}


def test_long_paragraphs_are_divided_between_sentences() -> None:
    text = " ".join(
        f"Rule number {n} says that fare class {n} costs {n}.50 EUR, e.g. on Mr. Smith's ticket." for n in range(60)
    )
    chunks = chunks_of("a.txt", DIGEST, read_structure(text, markdown=False))
    assert len(chunks) > 3
    for chunk in chunks:
        piece = text[chunk.start : chunk.end]
        assert piece.startswith("Rule number") and piece.endswith("ticket.")
        assert len(piece) <= MAX_CHARS


def test_sentences_end_where_sentences_end() -> None:
    text = 'It costs 3.50 EUR. "Really?" Yes! See art. 5 of the rules, e.g. No. 7. Done'
    assert [text[a:b] for a, b in sentence_spans(text, 0, len(text))] == [
        "It costs 3.50 EUR.",
        '"Really?"',
        "Yes!",
        "See art. 5 of the rules, e.g. No. 7.",
        "Done",
    ]


def test_heading_goes_with_what_it_heads() -> None:
    body = "This sentence fills the room of a chunk quite well. " * 12
    text = f"# Top\n\n## First\n\n{body}\n\n## Second\n\n{body}\n"
    chunks = chunks_of("a.md", DIGEST, read_structure(text, markdown=True))
    assert [c.title for c in chunks] == ["Top > First", "Top > Second"]
    assert text[chunks[1].start :].startswith("## Second")


def test_small_sections_share_a_chunk_under_their_common_title() -> None:
    text = "# Fares\n\n## A\n\nShort.\n\n## B\n\nAlso short.\n"
    (chunk,) = chunks_of("a.md", DIGEST, read_structure(text, markdown=True))
    assert chunk.title == "Fares"


def test_very_many_dots_take_no_time() -> None:
    text = "." * 300_000 + " A" + "!" * 30_000
    assert chunks_of("a.txt", DIGEST, read_structure(text, markdown=False))


def test_heading_is_carried_over_when_its_text_does_not_fit() -> None:
    short, long = "A rule of the first section. " * 11, "A rule of the second section. " * 25
    text = f"## First\n\n{short}\n\n## Second\n\n{long}\n"
    chunks = chunks_of("a.md", DIGEST, read_structure(text, markdown=True))
    assert [text[c.start :][:9] for c in chunks] == ["## First\n", "## Second"]
    assert [c.title for c in chunks] == ["First", "Second"]
