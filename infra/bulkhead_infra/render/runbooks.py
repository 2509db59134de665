"""The runbooks as a page of the console: docs/how-to/runbooks.md as HTML, a section per alert.

In: the page of the docs. Out: a template without its frame: a table of contents, then the sections, and beside each
command the place in the console where the same is done. Links to other pages of the docs become their words: the
gateway has no docs.
"""

import itertools
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

SOURCE = Path("docs") / "how-to" / "runbooks.md"
TARGET = "services/bulkhead_services/gateway/console/templates/runbooks/sections.html"
COMMAND = re.compile(r"^bulkhead ([a-z-]+)(.*)$", re.MULTILINE)
PLACES = {
    "approvals": ("Approvals", "/approvals"),
    "breakers": ("Breakers", "/coordination#breakers"),
    "cancel": ("Cancel, on the task's page", "/tasks"),
    "dead-letters": ("Dead letters", "/dead-letters"),
    "doctor": ("The mesh", "/#mesh"),
    "export": ("Export, on the task's page", "/tasks"),
    "halt": ("Halt something", "/coordination"),
    "halts": ("Halts", "/coordination#halts"),
    "limits": ("Limits", "/spend#limits"),
    "models": ("Models and tools", "/models"),
    "replay": ("Fork, on the task's page", "/tasks"),
    "resume": ("Resume", "/coordination#halts"),
    "spend": ("Spend", "/spend"),
    "tasks": ("Tasks", "/tasks"),
    "timeline": ("Messages, on the task's page", "/tasks"),
    "topup": ("Top up, on the task's page", "/tasks"),
    "why": ("The tree, on the task's page", "/tasks"),
    "writes": ("Uncertain writes", "/approvals#writes"),
}
"""Where the console does what a command does: words and address. A command that is not here has no place there."""
OPTION = re.compile(r"--(by|since) (\w+)")


def files(root: Path) -> dict[str, str]:
    """The template."""
    return {TARGET: render_sections((root / SOURCE).read_text())}


def render_sections(markdown: str) -> str:
    """HTML of everything below the title; each heading of the second level has its name in small letters as its id."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(re.sub(r"^# .*\n", "", markdown))
    names = list[str]()
    for heading, text in itertools.pairwise(tokens):
        if heading.type == "heading_open" and heading.tag == "h2":
            heading.attrSet("id", text.content.lower())
            names.append(text.content)
    for token in tokens:
        if token.children:
            token.children = _without_far_links(token.children)
    html = parser.renderer.render(_with_places(tokens), parser.options, {})
    contents = "".join(f'<li><a href="#{name.lower()}">{escape(name)}</a></li>' for name in names)
    contents = f'<nav class="contents" aria-label="Sections"><ul>{contents}</ul></nav>\n'
    head = f"{{# Rendered from {SOURCE.as_posix()} by `make render`. #}}"
    return f"{head}\n{{% raw %}}\n{contents}{html}{{% endraw %}}\n"


def _with_places(tokens: Iterable[Token]) -> list[Token]:
    """The tokens, and behind those that name commands links to the places of the console that do the same."""
    linked_tokens = list[Token]()
    for token in tokens:
        if token.children:
            token.children = _with_places(token.children)
        linked_tokens.append(token)
        if token.type in ("fence", "code_inline") and (links := _links_of(token.content)):
            block = token.type == "fence"
            html = (
                f'<p class="place">In the console: {links}</p>\n' if block else f' <span class="place">({links})</span>'
            )
            linked_tokens.append(Token("html_block" if block else "html_inline", "", 0, content=html))
    return linked_tokens


def _links_of(commands: str) -> str:
    """Links to the places of these commands, each once."""
    links = dict[str, str]()
    for command, options in COMMAND.findall(commands):
        if command in PLACES:
            words, address = PLACES[command]
            query = "&".join(f"{name}={value}" for name, value in OPTION.findall(options)) if command == "spend" else ""
            links[f"{address}?{query}" if query else address] = words + (f" by {by[0]}" if (by := _by(options)) else "")
    return ", ".join(f'<a href="{escape(address)}">{escape(words)}</a>' for address, words in links.items())


def _by(options: str) -> list[str]:
    return [value for name, value in OPTION.findall(options) if name == "by"]


def _without_far_links(tokens: list[Token]) -> list[Token]:
    near_tokens, is_far = list[Token](), False
    for token in tokens:
        if token.type == "link_open":
            is_far = not str(token.attrGet("href")).startswith("#")
        if token.type in ("link_open", "link_close") and is_far:
            continue
        near_tokens.append(token)
    return near_tokens
