"""The runbooks as a page of the console: docs/how-to/runbooks.md as HTML, a section per alert.

In: the page of the docs. Out: a template without its frame. Links to other pages of the docs become their words: the
gateway has no docs.
"""

import itertools
import re
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

SOURCE = Path("docs") / "how-to" / "runbooks.md"
TARGET = "services/bulkhead_services/gateway/console/templates/runbooks/sections.html"


def files(root: Path) -> dict[str, str]:
    """The template."""
    return {TARGET: render_sections((root / SOURCE).read_text())}


def render_sections(markdown: str) -> str:
    """HTML of everything below the title; each heading of the second level has its name in small letters as its id."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(re.sub(r"^# .*\n", "", markdown))
    for heading, text in itertools.pairwise(tokens):
        if heading.type == "heading_open" and heading.tag == "h2":
            heading.attrSet("id", text.content.lower())
    for token in tokens:
        if token.children:
            token.children = _without_far_links(token.children)
    html = parser.renderer.render(tokens, parser.options, {})
    return f"{{# Rendered from {SOURCE.as_posix()} by `make render`. #}}\n{{% raw %}}\n{html}{{% endraw %}}\n"


def _without_far_links(tokens: list[Token]) -> list[Token]:
    near_tokens, is_far = list[Token](), False
    for token in tokens:
        if token.type == "link_open":
            is_far = not str(token.attrGet("href")).startswith("#")
        if token.type in ("link_open", "link_close") and is_far:
            continue
        near_tokens.append(token)
    return near_tokens
