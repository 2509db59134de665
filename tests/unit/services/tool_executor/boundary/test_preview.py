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


@pytest.mark.parametrize(
    "value",
    [
        "b\u043eb@example.com",  # Cyrillic o
        "\u0430\u0440\u0440\u04cf\u0435.com",  # A whole name in Cyrillic
        "\u0391nna",  # Greek capital alpha
        "\u0410\u0412\u0421 \u041e\u041e\u041e",  # Cyrillic ABC OOO
        "\u0392\u039f\u0392",  # Greek BOB
        "a" * 2_000 + " b\u043eb",  # Behind what is shown
        "\u0420\u0430ypal",  # Half of it Cyrillic
        "\u043c\u043e\u0441kva",  # Latin in Cyrillic
        "e\u0501a@example.com",  # Cyrillic komi de
        "\u0585ffice",  # Armenian
        "\u13a0dmin",  # Cherokee
        "\uff45va",  # Full width
        "\U0001d41aadmin",  # Mathematical
        "\u2170nvoice",  # A Roman numeral
        "\u0261oogle",  # Latin script g
        "\u0251dmin",  # Latin alpha
        "\u0131nvoice.pdf",  # Dotless i in the name of a file
        "\u00e9va@example.com",  # An accent in an address
        "o\u0338ffice",  # A stroke over a letter
        "12\u0663",  # An Arabic digit
        "\uff11\uff12",  # Full-width digits
        "example\u2024com/x",  # A leader for a dot
        "a@example.com\u2215x",  # A division slash
    ],
)
def test_letters_that_may_be_taken_for_others_are_named(value: str) -> None:
    [_, line] = render_preview("mail", {"to": value}).splitlines()
    assert "  <- look twice: " in line, line


@pytest.mark.parametrize(
    "value",
    [
        "Zo\u00eb M\u00fcller",
        "\u041c\u043e\u0441\u043a\u0432\u0430",
        "\u0391\u03b8\u03ae\u03bd\u03b1",
        "\u6771\u4eac\u30bf\u30ef\u30fc",
        "caf\u00e9 \u041c\u043e\u0441\u043a\u0432\u0430",
        "T\u00fcrk\u0131ye",
        "bob@example.com",
        "\u20ac 50",
    ],
)
def test_words_of_one_script_are_shown_as_they_are(value: str) -> None:
    assert render_preview("mail", {"to": value}) == f'mail\n  to: "{value}"'


def test_names_of_letters_are_bounded() -> None:
    line = render_preview("mail", {"to": "a@" + "".join(map(chr, range(0x430, 0x450)))}).splitlines()[1]
    assert line.count(" is ") == 5 and line.endswith(" and 27 more")


def test_a_letter_that_is_named_obeys_nothing_itself() -> None:
    line = render_preview("mail", {"to": "bob@example.com\u202e\u200bmoc"})
    assert "\u202e" not in line and "\u200b" not in line and "RIGHT-TO-LEFT OVERRIDE" in line


def test_a_note_stands_before_the_values() -> None:
    assert render_preview("ask", {"results": "ok"}, "not checked") == 'ask\n  (not checked)\n  results: "ok"'
