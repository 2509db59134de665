"""HTML to readable text with structure. Enters: markup. Leaves: text and blocks.

Pure. Scripts, styles and hidden parts are dropped; headings, list items and table rows stay recognisable.
"""

from html.parser import HTMLParser

from bulkhead_services.rag.structure import BlockKind, BlockText, ExtractedText, join_blocks

_DROPPED = frozenset({"script", "style", "noscript", "template", "svg", "math", "iframe", "head"})
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCK_TAGS = """
    address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption
    figure footer form header hr html legend main nav ol p section summary table tbody tfoot thead ul"""
_BLOCKS = frozenset(_BLOCK_TAGS.split())


def read_webpage(markup: str) -> ExtractedText:
    """Text of a page: one block per line, blank lines between blocks but not between rows or items."""
    reader = _WebpageReader()
    reader.feed(markup)
    reader.close()
    return reader.build_text()


class _WebpageReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._dropped: list[str] = []
        self._kind: BlockKind = "paragraph"
        self._level = 0
        self._pieces: list[str] = []
        self._cells: list[str] | None = None
        self._verbatim = 0
        self._in_title = False
        self._title: list[str] = []
        self._found: list[BlockText] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._dropped == ["head"] and (tag in _BLOCKS or tag in _HEADINGS):
            # A head that is never closed must not swallow the page.
            self._dropped.clear()
        if tag == "title" and self._dropped in ([], ["head"]):
            self._in_title = True
        elif self._dropped or tag in _DROPPED:
            if tag in _DROPPED:
                self._dropped.append(tag)
        elif tag in _HEADINGS:
            self._end_block()
            self._kind, self._level = "heading", _HEADINGS[tag]
        elif tag == "li":
            self._end_block()
            self._kind = "item"
        elif tag == "tr":
            self._end_block()
            self._kind, self._cells = "row", []
        elif tag in ("td", "th"):
            self._end_cell()
        elif tag == "pre":
            self._end_block()
            self._kind, self._verbatim = "code", self._verbatim + 1
        elif tag == "br":
            self._pieces.append("\n" if self._verbatim else " ")
        elif tag in _BLOCKS and self._cells is None:
            self._end_block()

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif self._dropped:
            if tag in self._dropped:
                # Close up to the matching one: unclosed elements inside a dropped one end with it.
                while self._dropped.pop() != tag:
                    pass
        elif tag == "pre":
            self._end_block()
            self._verbatim = max(0, self._verbatim - 1)
        elif tag in ("td", "th"):
            self._end_cell()
        elif tag in _HEADINGS or tag in ("li", "tr", "table") or (tag in _BLOCKS and self._cells is None):
            self._end_block()

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self._title.append(data)
        elif not self._dropped:
            self._pieces.append(data)

    def _end_cell(self) -> None:
        text = " ".join("".join(self._pieces).split())
        self._pieces.clear()
        if self._cells is not None and text:
            self._cells.append(text)

    def _end_block(self) -> None:
        raw = "".join(self._pieces)
        self._pieces.clear()
        if self._verbatim:
            text = "\n".join(line.rstrip() for line in raw.strip("\n").splitlines())
        else:
            text = " ".join(raw.split())
        if self._cells is not None:
            text = " | ".join([*self._cells, *([text] if text else [])])
        if text.strip():
            self._found.append(BlockText(self._kind, self._level, text.strip()))
        self._kind, self._level, self._cells = "paragraph", 0, None

    def build_text(self) -> ExtractedText:
        """The text so far; the page's title leads when there is no first-level heading."""
        self._end_block()
        title = " ".join("".join(self._title).split())
        found_blocks = list(self._found)
        if title and found_blocks and not any(block.kind == "heading" and block.level == 1 for block in found_blocks):
            found_blocks.insert(0, BlockText("heading", 1, title))
        return join_blocks(found_blocks)
