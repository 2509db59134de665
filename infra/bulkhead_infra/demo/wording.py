"""Words of the generated case: the names, and one form for each kind of sentence. Enters: values. Leaves: sentences.

The offline model reads the sentences by the same forms (`find_values`); the answer stands in none of them.
"""

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from functools import cache


def _split_words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


AIRLINE_FIRST = _split_words(
    "Northwind Kestrel Halcyon Larkspur Meridian Tamarack Aurelia Solstice Brightwater Cormorant Juniper Vantage"
)
AIRLINE_LAST = ("Air", "Airways", "Airlines", "Aviation", "Skyways")
GIVEN_NAMES = _split_words("Maria Jonas Aiko Tomasz Priya Samuel Leila Henrik Chiara Mateo Ngozi Elif")
FAMILY_NAMES = _split_words("Alvarez Lindqvist Tanaka Nowak Raman Okafor Haddad Sorensen Rossi Fuentes Demir Keller")
FARE_CLASSES = _split_words("Saver Flex Classic Select Breeze Beacon Horizon Prime Comet Plus Basic Value")
CURRENCIES = ("EUR", "USD", "GBP", "CHF")
CAUSES = (
    ("jury service", "court summons"),
    ("a bereavement in the family", "death certificate"),
    ("a military call-up", "deployment order"),
    ("a stay in hospital", "hospital letter"),
    ("the loss of a job", "notice of dismissal"),
    ("a visa refusal", "consulate's letter"),
    ("a flood at home", "insurer's report"),
)
"""Causes of a cancellation, each with its proof."""
IDLE_REASONS = (
    "a change of plans",
    "a meeting that was moved",
    "a better offer elsewhere",
    "a double booking",
    "an exam that was postponed",
)

RATE = "{fare} tickets: {share} percent of the price is refunded if the cancellation is made {days} before departure."
FEE = "A cancellation fee of {amount} is deducted from the refund of a {fare} ticket."
CAP = "No refund for a cancelled ticket exceeds {amount}."
FLOOR = "A refund for a cancelled ticket is never lower than {amount}."
WAIVER = "Where {cause} is the reason, the cancellation fee is {effect} when the {proof} is presented."
WAIVER_BUT = WAIVER.replace("presented.", "presented, except on {fare} tickets.")
EXCLUSION = "{fare} tickets are excluded from every waiver listed here."
EFFECTIVE = "These rules are effective from {day}."
PRINTED = "Printed on {day}."
EFFECTS = {"waived": "waived", "halved": "halved", "to": "reduced to {value}", "by": "reduced by {value} percent"}
FACTS = (
    "{who} bought a {fare} ticket from {airline} on {booked} and paid {paid} for it{extra}. The flight departs on "
    "{departs}. {who} cancelled on {cancelled} because of {reason}."
)
PROVEN, UNPROVEN = "{cause} and enclosed the {proof}", "{cause} but has no {proof} to show"
TASKS = {
    "rates": "Find which percentage of the price is refunded and which cancellation fee is deducted when a {fare} "
    "ticket is cancelled, including any maximum or minimum.",
    "waivers": "Check whether the reason that {who} gave for cancelling waives or reduces the cancellation fee, or "
    "whether an exclusion stands against it.",
    "days": "Work out how many days before departure the cancellation was made.",
    "amount": "Then compute the amount refunded from the results above: the percentage of the price less the fee, "
    "within any cap.",
    "answer": "Finally, answer how much {who} gets refunded and why, citing every document that decides, both of them "
    "where two contradict each other (the later effective date wins).",
}


@cache
def _pattern_of(form: str) -> re.Pattern[str]:
    """A form as a regular expression: a group for each value, the same text where its name is repeated."""
    known: set[str] = set()
    pieces = []
    for fixed, name in re.findall(r"([^{]*)(?:\{(\w+)\})?", form.rstrip(".")):
        pieces.append(re.escape(fixed))
        if name:
            pieces.append(f"(?P={name})" if name in known else rf"(?P<{name}>.{{0,120}}?)")
            known.add(name)
    return re.compile("".join(pieces) + r"(?:\.(?!\d)|$)")


def find_values(form: str, text: str) -> Mapping[str, str] | None:
    """The values with which a form stands in a text; None where it does not."""
    match = _pattern_of(form).search(text)
    return match.groupdict() if match else None


def render_money(currency: str, amount: Decimal) -> str:
    return f"{currency} {amount:.2f}"


def render_date(when: date) -> str:
    return f"{when.day} {when:%B} {when.year}"


def render_day_range(low: int | None, high: int | None) -> str:
    """A condition on days: at least `low`, at most `high`, or both."""
    if low is not None and high is not None:
        return f"between {low} and {high} days"
    return f"at least {low} days" if high is None else f"at most {high} days"
