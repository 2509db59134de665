"""Places of accounts and cards in a text: each in its spellings, whatever stands before and behind it."""

import itertools

import pytest

from bulkhead.grounding.personal_data import find_personal_data, mask_personal_data
from bulkhead.policy.values import typed_values
from bulkhead.text.accounts import compact_account, find_cards, find_ibans, is_iban, passes_luhn

IBANS = (
    "DE89370400440532013000",
    "GB33BUKB20201555555555",
    "NL91ABNA0417164300",
    "NO9386011117947",
    "AT611904300234573201",
    "FR1420041010050500013M02606",
    "MT84MALT011000012345MTLCAST001S",
    "SA0380000000608010167519",
)
BETWEEN = (
    " ",
    " but ",
    " as ",
    " from 2026 to ",
    " and 95.50 EUR to ",
    " 12 ",
    "-",
    ".",
    " to12 ",
    "_ _",
    ", ",
    " für ",
)
VISA, MASTER, AMEX = "4111 1111 1111 1111", "5500 0055 5555 5559", "3782 822463 10005"


def accounts_in(text: str) -> list[str]:
    return [compact_account(text[start:end]) for start, end in find_ibans(text)]


def printed(iban: str, sign: str = " ") -> str:
    return sign.join(iban[at : at + 4] for at in range(0, len(iban), 4))


@pytest.mark.parametrize("between", BETWEEN)
def test_an_account_is_found_after_another_in_any_spelling(between: str) -> None:
    for first, second in itertools.permutations(IBANS, 2):
        for spelled, following in itertools.product((first, printed(first), first.lower()), (second, printed(second))):
            text = f"no longer {spelled}{between}{following} now, by 3 March"
            assert accounts_in(text) == [first, second], text


@pytest.mark.parametrize(
    "mistyped", ["DE89370400440532013001", "DE8937040044053201300", "AT611904300234573202", "ZZ12"]
)
def test_what_is_mistyped_takes_no_words_and_no_account_along(mistyped: str) -> None:
    itself = [mistyped] if len(mistyped) > 4 else []
    for spelled, between in itertools.product((mistyped, printed(mistyped)), (" ", " to ", " and then with ")):
        assert accounts_in(f"from {spelled}{between}GB33BUKB20201555555555") == [*itself, "GB33BUKB20201555555555"]
        assert accounts_in(f"from {spelled}{between}nobody") == itself


@pytest.mark.parametrize("text", ["as it was", "in ab12 cd34", "INV-2026 of AB12 for 1,250.00 EUR", "version 1.2.3"])
def test_words_with_digits_are_no_account(text: str) -> None:
    assert not find_ibans(text)


def test_the_examples_are_right() -> None:
    assert all(is_iban(iban) for iban in IBANS) and all(passes_luhn(card) for card in (VISA, MASTER, AMEX))


@pytest.mark.parametrize("behind", ["", " 12/27", " 12/27 123", " 123", f" {VISA}", ", 5", " on 2026-03-14"])
@pytest.mark.parametrize("before", ["", "2026-03-14 ", "card 7 ", f"{MASTER} ", f"{MASTER} {AMEX} "])
@pytest.mark.parametrize("card", [VISA, MASTER, AMEX])
def test_a_card_is_found_beside_other_numbers(card: str, before: str, behind: str) -> None:
    for spelled in (card, card.replace(" ", ""), card.replace(" ", "-")):
        text = f"{before}{spelled}{behind}"
        assert spelled in [text[start:end] for start, end in find_cards(text)], text
        for source in (False, True):
            forms = {form for kind, _, form in typed_values(text, source=source) if kind == "account"}
            assert compact_account(spelled) in forms, (text, source)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("AT611904300234573201 from GB33BUKB20201555555555.", ["iban", "iban"]),
        ("AT61 1904 3002 3457 3201 with NL91 ABNA 0417 1643 00 now", ["iban", "iban"]),
        ("NO93 8601 1117 947", ["iban"]),
        ("4111 1111 1111 1111 12/27", ["card"]),
        ("4111111111111111 5500005555555559 3782 822463 10005", ["card", "card", "card"]),
        ("4111 1111 1111 1111 030 1234567", ["card", "phone"]),
        ("030 1234567 040 7654321", ["phone"]),
        ("+49 30 1234567 2026-04-01", ["phone"]),
        ("+49 30 1234567 +49 40 7654321", ["phone", "phone"]),
    ],
)
def test_personal_data_is_found_beside_other_personal_data(text: str, kinds: list[str]) -> None:
    assert [kind for _, _, kind in find_personal_data(text)] == kinds
    unmasked = mask_personal_data(text).replace("2026-04-01", "").replace("12/27", "")
    assert not any(sign.isdigit() for sign in unmasked)


def test_a_digest_is_no_personal_data() -> None:
    assert not find_personal_data("ab12" + "cd3e4f5a" * 7 + "b6c7")


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("2026-03-14 2026-03-15 14 March 2026 16 March 2026", ["2026-03-14", "2026-03-15", "2026-03-14", "2026-03-16"]),
        ("50 EUR 70 EUR", ["50", "70"]),
        ("95.50 EUR and EUR 110 EUR 120", ["95.5", "110", "120"]),
    ],
)
def test_days_and_amounts_in_a_row_are_each_found(text: str, forms: list[str]) -> None:
    kinds = ("date",) if "2026" in text else ("number",)
    source = "2026" in text
    assert [form for kind, _, form in typed_values(text, source=source) if kind in kinds] == forms
