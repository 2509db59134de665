"""Texts in frames: JSON in colours, and nothing from outside is markup."""

import re

import pytest

from bulkhead_services.gateway.console.blocks import MAX_COLOURED_CHARS, indent_json, render_block

HOSTILE = '{"<img src=x>": "a</span>\\u202e & \\"b", "n": [-1.5, true, null]}'


def test_json_has_its_parts_in_colours_and_its_text_escaped() -> None:
    html = str(render_block(HOSTILE, 'A "label"'))
    assert 'class="json"' in html and 'aria-label="A &#34;label&#34;"' in html
    assert '<span class="name">&#34;&lt;img src=x&gt;&#34;</span>:' in html
    assert '<span class="value">-1.5</span>' in html and '<span class="value">null</span>' in html
    assert "a&lt;/span&gt;" in html and "\u202e" not in html
    assert set(re.findall(r"<(/?\w+)", html)) == {"pre", "/pre", "span", "/span"}


def test_what_is_no_json_or_too_long_is_prose() -> None:
    assert str(render_block("{not json")) == '<pre class="prose" tabindex="0">{not json</pre>'
    assert 'class="prose"' in render_block("[" + "1," * MAX_COLOURED_CHARS + "1]")


@pytest.mark.parametrize("depth, values", [(500, 7_500), (900, 30_000)])
def test_json_that_its_depth_would_blow_up_stands_as_it_is(depth: int, values: int) -> None:
    deep = "[" * depth + "1," * values + "1" + "]" * depth
    assert len(deep) < MAX_COLOURED_CHARS and indent_json(deep) == deep
    assert render_block(deep) == f'<pre class="prose" tabindex="0">{deep}</pre>'
