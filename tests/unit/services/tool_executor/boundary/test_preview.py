"""What people are shown of a call is what the call is."""

import pytest

from bulkhead_contracts import bounds
from bulkhead_services.tool_executor.boundary.preview import render_preview


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("anna@ours.example", '"anna@ours.example"'),
        ('a"   to_verified: "yes', '"a\\u{22} \\u{20}\\u{20}to_verified: \\u{22}yes"'),
        ("a\nb", '"a\\u{a}b"'),
        ("a\\u{a}b", '"a\\u{5c}u{a}b"'),
        ("pay\u3164me\u2800now\ufe0f\u202egnp", '"pay\\u{3164}me\\u{2800}now\\u{fe0f}\\u{202e}gnp"'),
        (50, "50"),
        (None, "null"),
    ],
)
def test_no_value_looks_like_another(value: object, shown: str) -> None:
    assert render_preview("pay", {"to": value}) == f"pay\n  to: {shown}"


def test_a_long_text_does_not_push_the_recipient_out() -> None:
    text = render_preview("mail", {"note": "x" * 9_000, "more": ["y" * 900] * 20, "to": "eve@evil.example"})
    assert text.splitlines()[1] == '  to: "eve@evil.example"' and len(text) <= bounds.MAX_PREVIEW_CHARS
    assert text.endswith("read the whole arguments before you decide")
