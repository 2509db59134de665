"""Attribution: which text each value of a call stands in, and what only looks as if it did."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.policy.attribution import SourceText, attribute_values, least_trusted_source
from bulkhead_contracts import bounds

ASKED = SourceText(
    "Pay 1,250.00 EUR to Anna Schmidt (DE89 3704 0044 0532 0130 00), mail bob@example.com.au and open "
    "https://shop.example/a?x=1. Counter 'visits', account 12-345-678, since 2026-01-05. Ask shop.example.",
    "user",
    "1" * 64,
)
INVOICE = SourceText(
    '{"iban": "GB82 WEST 1234 5698 7654 32", "rows": [{"amount": 12.5, "to": "X Y"}]}', "tool", "2" * 64, "inv", "c1"
)


def origins(value: object, *sources: SourceText) -> list[tuple[str, str, str]]:
    values, complete = attribute_values({"a": value}, sources or (ASKED, INVOICE))
    assert complete and values[0].pointer == "/a"
    return [(one.source, one.match, one.field) for one in values[0].origins]


@pytest.mark.parametrize(
    "value",
    [
        1250,
        "1250",
        "1.250,00",
        "1250 EUR",
        "anna schmidt",
        "DE89370400440532013000",
        "de89-3704-0044-0532-0130-00",
        "BOB@example.com.au",
        "https://SHOP.example/a?x=1",
        "https://shop.example/a%3Fx=1",
        "https://shop.example/",
        "visits",
        "12345678",
        "\uff56\uff49sits",
        "visi\u200bts",
    ],
)
def test_what_was_asked_for_in_other_letters_is_the_askers(value: object) -> None:
    assert origins(value)[0][0] == "user"


@pytest.mark.parametrize(
    "value",
    [
        125,
        250,
        "250 EUR",
        "DE8937040044053201300",
        "bob@example.com",
        "b@example.com.au",
        "https://shop.example/a",
        "https://shop.example/a?x=12",
        "http://shop.example",
        "https://shop.example.evil.example/",
        "visit",
        "345678",
        2026,
        "bob@ex\u0430mple.com.au",  # A Cyrillic letter.
        "schmidt de",
        "visits EUR",
    ],
)
def test_a_part_a_change_and_a_letter_that_looks_alike_stand_nowhere(value: object) -> None:
    assert origins(value) == []


def test_a_whole_field_is_named() -> None:
    assert ("tool", "field", "/iban") in origins("GB82WEST12345698765432")
    assert ("tool", "field", "/rows/0/amount") in origins(12.50)
    assert all(match != "field" for _, match, _ in origins("X"))


def test_a_key_that_stands_twice_makes_no_field() -> None:
    twice = SourceText('{"to": "anna", "to": "eve"}', "tool", "3" * 64)
    assert [match for _, match, _ in origins("eve", twice)] == ["exact"]


def test_values_within_a_text_are_values_of_their_own() -> None:
    text = "Dear Bob, wire 9,000 EUR to GB82 WEST 1234 5698 7654 32, card 4111 1111 1111 1111, https://evil.example/x)."
    values, _ = attribute_values({"body": text}, (ASKED, INVOICE))
    assert [(one.text, [origin.source for origin in one.origins]) for one in values[1:]] == [
        ("https://evil.example/x", []),
        ("GB82 WEST 1234 5698 7654 32", ["tool", "tool"]),
        ("4111 1111 1111 1111", []),
        ("9,000", []),
    ]


def test_long_values_with_one_beginning_stay_two() -> None:
    honest, other = "a " * 200 + "anna", "a " * 200 + "eve"
    values, _ = attribute_values({"a": honest, "b": other}, (SourceText(honest, "user", "1" * 64),))
    assert [bool(one.origins) for one in values] == [True, False] and values[0].text != values[1].text


def test_more_than_can_be_told_is_not_complete() -> None:
    values, complete = attribute_values({"a": [f"v{at}" for at in range(200)]}, ())
    assert len(values) == bounds.MAX_ATTRIBUTED_VALUES and not complete
    assert attribute_values({"a": "x"}, (SourceText("y" * 200_000, "tool", "1" * 64),))[1] is False


def test_the_least_trusted_source_of_a_context() -> None:
    assert (least_trusted_source(()), least_trusted_source((ASKED,)), least_trusted_source((ASKED, INVOICE))) == (
        "user",
        "user",
        "tool",
    )


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(
    st.dictionaries(st.text(), st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))),
    st.lists(st.text()),
)
@pytest.mark.slow
def test_any_arguments_and_texts_are_attributed(arguments: dict[str, object], texts: list[str]) -> None:
    attribute_values(arguments, [SourceText(text, "tool", "1" * 64) for text in texts])


@given(st.text(alphabet="abc123 .,-/@", min_size=1, max_size=20), st.text(max_size=60))
def test_a_field_of_json_is_found_whatever_it_holds(value: str, other: str) -> None:
    source = SourceText(json.dumps({"other": other, "it": value}), "tool", "1" * 64)
    assert "/it" in [field for _, _, field in origins(value, source)]


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "1 ",
        "1,",
        "a.",
        "a@",
        "DE12",
        "h://",
        "%41",
        "(",
        "1.",
        "DE12 3456 ",
        "4111 1111 ",
        "_a@b_",
        "3 march ",
        "12:30 ",
        "3.4.",
        "+1",
        "a[at]b[dot]",
        "A1z",
        "bc1q",
        "ab:",
        "call us on ",
        "@abc ",
        " dot ",
    ],
)
def test_time_is_linear_in_the_text(unit: str) -> None:
    def spent(chars: int) -> float:
        text, before = unit * (chars // len(unit)) + f" {chars}", time.process_time()
        attribute_values({"a": text[:4_000]}, [SourceText(text, "tool", "1" * 64)])
        return time.process_time() - before

    spent(1_000)
    assert spent(32_000) < 24 * max(spent(4_000), 0.005)


def test_a_text_has_a_field_where_exactly_one_of_a_kind_stands_in_it() -> None:
    mail = "Pay 210 EUR to NL91ABNA0417164300, says jan@plumber.example in report.pdf"
    first = SourceText(mail, "tool", "1" * 64, "read_mail")
    assert origins(210, first)[0] == ("tool", "field", "/amount")
    assert origins("NL91 ABNA 0417 1643 00", first)[0] == ("tool", "field", "/account")
    second = SourceText(f"{mail} or GB82WEST12345698765432", "tool", "1" * 64, "read_mail")
    assert origins("NL91ABNA0417164300", second) == [("tool", "exact", "")]


def test_a_number_beside_amounts_of_money_is_no_amount() -> None:
    asked = SourceText("Pay invoice 4711, 75 EUR, of INV-200", "user", "1" * 64)
    assert [[match for _, match, _ in origins(value, asked)] for value in (75, 4711, 200)] == [
        ["field", "exact"],
        ["normalised"],
        [],
    ]


def test_a_host_within_a_text_is_an_address_and_a_file_is_none() -> None:
    values, _ = attribute_values({"a": "Get it at www.evil.example/app; see notes.txt and node 3.5"}, ())
    assert [one.text for one in values[1:]] == ["www.evil.example/app"]


def of_user(text: str, value: object) -> bool:
    return origins(value, SourceText(text, "user", "1" * 64)) != []


@pytest.mark.parametrize(
    "spelled", ["'a@b.example'", "*a@b.example*", "_a@b.example_", "email=a@b.example", "x@c.example/a@b.example"]
)
def test_quotes_markup_and_the_name_of_a_field_are_no_part_of_an_address(spelled: str) -> None:
    assert of_user(f"Write to {spelled} now.", "a@b.example")
    assert not of_user("Write to a@b.example.", f"x{spelled}")


def test_marks_that_stand_in_an_address_are_a_part_of_it() -> None:
    for address in ("o'neil@b.example", "_a@b.example", "bounce+user=c@b.example"):
        assert of_user(f"Write to {address}.", address)
    assert not of_user("Write to bounce+user=c@b.example.", "c@b.example")
    assert not of_user("Write to a_@b.example.", "a@b.example")


@pytest.mark.parametrize(
    "account", ["DE12370400440532013000", "DE12 3704 0044 0532 0130 00", "GB30-NWBK-6016-1331-9268-19"]
)
@pytest.mark.parametrize("behind", ["for May 2026", "by 5 May", "2026 EUR 40", "from 2026"])
def test_an_account_whose_checksum_is_wrong_ends_before_the_next_word(account: str, behind: str) -> None:
    assert of_user(f"Pay to {account} {behind}.", account.replace(" ", "").replace("-", ""))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on 3 March 2026", "2026-03-03"),
        ("on Mar 3rd, 2026", "3 March 2026"),
        ("am 3. März 2026", "2026-03-03"),
        ("le 3 mars 2026", "2026-03-03"),
        ("am 3.4.2026", "2026-04-03"),
        ("on 12/24/2026", "2026-12-24"),
        ("at 3 pm", "15:00"),
        ("at 12.30 a.m.", "00:30"),
        ("um 9 Uhr", "09:00"),
        ("on 2026-03-03 at 3pm", "2026-03-03T15:00:00"),
    ],
)
def test_a_day_and_a_time_are_the_same_in_every_form(written: str, value: str) -> None:
    assert of_user(f"We meet {written}.", value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on 03/04/2026", "2026-04-03"),
        ("on 3 March", "2026-03-03"),
        ("on 31.2.2026", "2026-02-31T10:00"),
        ("at 3", "03:00"),
        ("for 9.30 EUR", "09:30"),
        ("on 2026-03-03 at 3pm", "2026-03-03T15:00Z"),
        ("on 2026-03-03 at 3pm and on 2026-03-04 at 4pm", "2026-03-03T16:00"),
    ],
)
def test_what_may_be_another_day_or_time_stands_nowhere(written: str, value: str) -> None:
    assert not of_user(f"We meet {written}.", value)


def test_json_is_searched_as_it_reads_and_not_as_it_is_escaped() -> None:
    result = SourceText(json.dumps({"text": "Hi,\neve@x.example: Zo\u00eb Doe", "ann@x.example": 1}), "tool", "3" * 64)
    for value in ("eve@x.example", "zo\u00eb doe", "ann@x.example"):
        assert origins(value, result)[0][0] == "tool"
    assert not origins("Doe 1", result), "no value spans two of its fields"


def test_a_text_within_json_has_a_field_where_exactly_one_of_a_kind_stands_in_it() -> None:
    mail = {"text": "Pay 210 EUR on 3 March 2026, see https://a.example/x", "memo": "a@b.example or c@b.example"}
    result = SourceText(json.dumps(mail), "tool", "3" * 64)
    fields = {"https://a.example/x": "/text/url", 210: "/text/amount", "2026-03-03": "/text/date"}
    for value, field in fields.items():
        assert ("tool", "field", field) in origins(value, result)
    assert all(match != "field" for _, match, _ in origins("a@b.example", result)), "two stand in it"
    long = SourceText(json.dumps({"k" * 198: "see https://a.example/x"}), "tool", "3" * 64)
    assert all(match != "field" for _, match, _ in origins("https://a.example/x", long)), "no pointer is so long"


@pytest.mark.parametrize("written", ["0123-456-789", "0123.456.789", "0123456789"])
def test_an_account_of_digits_is_the_askers_beside_other_numbers(written: str) -> None:
    assert of_user(f"Pay to {written} 110 EUR, by account 4711 {written}.", "0123456789")
