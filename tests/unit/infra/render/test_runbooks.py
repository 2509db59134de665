"""The runbooks as a page of the console: each section has its entry, each command its place in the console."""

from bulkhead_infra.render.runbooks import render_sections

MARKDOWN = """# Runbooks

## BulkheadBreakerOpen

```sh
bulkhead breakers
bulkhead spend --by tool --since 1h
```

Close it with `bulkhead breakers reset BREAKER`; start `bulkhead up` [again](up.md).
"""


def test_sections_are_listed_and_a_command_stands_beside_its_place_in_the_console() -> None:
    html = render_sections(MARKDOWN)
    assert '<li><a href="#bulkheadbreakeropen">BulkheadBreakerOpen</a></li>' in html
    places = '<a href="/coordination#breakers">Breakers</a>, <a href="/spend?by=tool&amp;since=1h">Spend by tool</a>'
    assert f'<p class="place">In the console: {places}</p>' in html
    assert '<code>bulkhead breakers reset BREAKER</code> <span class="place">(<a href="/coord' in html
    assert "<code>bulkhead up</code> again" in html
