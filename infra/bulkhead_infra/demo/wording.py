"""Sentences of the generated documents, several per rule. Enters: values. Leaves: one of the wordings.

The wordings differ in order, verb and spelling of numbers, so that no reader can lean on one phrase.
"""

import random
from datetime import date
from decimal import Decimal


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

# cause as the case says it, cause as the rules name it, the proof
CAUSES = (
    ("jury service", "jury service", "court summons"),
    ("a bereavement in the family", "bereavement", "death certificate"),
    ("a military call-up", "a military call-up", "deployment order"),
    ("a stay in hospital", "a hospital stay", "hospital letter"),
    ("the loss of a job", "loss of a job", "notice of dismissal"),
    ("a visa refusal", "a refused visa", "consulate's letter"),
    ("a flood at home", "flood damage at home", "insurer's report"),
)
IDLE_REASONS = (
    "a change of plans",
    "a meeting that was moved",
    "a better offer elsewhere",
    "a double booking",
    "an exam that was postponed",
)


def pick_wording(rng: random.Random, *options: str) -> str:
    return rng.choice(options)


def render_money(rng: random.Random, currency: str, amount: Decimal) -> str:
    """An amount in one of the usual spellings."""
    signs = {"EUR": "€", "USD": "$", "GBP": "£"}
    forms = [f"{currency} {amount:.2f}", f"{amount:.2f} {currency}"]
    if currency in signs:
        forms.append(f"{signs[currency]}{amount:.2f}")
    return rng.choice(forms)


def render_percent(rng: random.Random, value: int) -> str:
    return rng.choice((f"{value}%", f"{value} percent", f"{value} per cent", f"{value} %"))


def render_date(rng: random.Random, when: date) -> str:
    """A date in one of the usual spellings."""
    return rng.choice((when.isoformat(), f"{when.day} {when:%B} {when.year}", f"{when:%B} {when.day}, {when.year}"))


def render_day_range(rng: random.Random, low: int | None, high: int | None) -> str:
    """A condition on days: at least `low`, at most `high`, or both."""
    if low is not None and high is not None:
        return pick_wording(
            rng, f"between {low} and {high} days", f"{low} to {high} days", f"from {low} to {high} days"
        )
    if low is not None:
        return pick_wording(
            rng, f"{low} days or more", f"at least {low} days", f"no fewer than {low} days", f"more than {low - 1} days"
        )
    assert high is not None
    return pick_wording(
        rng,
        f"fewer than {high + 1} days",
        f"{high} days or fewer",
        f"less than {high + 1} days",
        f"at most {high} days",
    )


def rate_rule(rng: random.Random, fare: str, days: str, share: str) -> str:
    """The share of the price that comes back."""
    return pick_wording(
        rng,
        f"{fare} tickets: {share} of the price is refunded if the cancellation is made {days} before departure.",
        f"Whoever cancels a {fare} ticket {days} before departure gets back {share} of the ticket price.",
        f"On a cancelled {fare} ticket we refund {share} of the price paid, provided that the cancellation "
        f"reaches us {days} before departure.",
        f"A {fare} ticket that is cancelled {days} before departure is reimbursed at {share} of its price.",
        f"If a {fare} booking is cancelled {days} before departure, {share} of the ticket price is paid back.",
    )


def fee_rule(rng: random.Random, fare: str, amount: str) -> str:
    """The fee that is taken off."""
    return pick_wording(
        rng,
        f"A cancellation fee of {amount} is deducted from the refund of a {fare} ticket.",
        f"Cancelling a {fare} ticket costs a fee of {amount}, which is taken off the refund.",
        f"From the refund on a cancelled {fare} ticket we withhold {amount} as a handling charge.",
        f"{fare} tickets: less a charge of {amount} upon cancellation.",
        f"The fee for cancelling is {amount} on {fare} tickets and is subtracted from the sum refunded.",
    )


def effective_date_line(rng: random.Random, when: str) -> str:
    """From when a document holds."""
    return pick_wording(
        rng,
        f"These rules are effective from {when}.",
        f"In force since {when}.",
        f"This edition applies to all cancellations made from {when} on.",
        f"Valid from {when} until replaced.",
        f"Effective date: {when}.",
        f"What is written here takes effect on {when}.",
    )


def print_date_line(rng: random.Random, when: str) -> str:
    """A date that decides nothing."""
    return pick_wording(
        rng, f"Printed on {when}.", f"Layout last revised on {when}.", f"Copy made for the archive on {when}."
    )


def cap_rule(rng: random.Random, amount: str) -> str:
    return pick_wording(
        rng,
        f"No refund for a cancelled ticket exceeds {amount}.",
        f"The refund after a cancellation is capped at {amount} per ticket.",
        f"At most {amount} is refunded for any one ticket that is cancelled.",
        f"Refunds on cancelled tickets are limited to a maximum of {amount} each.",
    )


def floor_rule(rng: random.Random, amount: str) -> str:
    return pick_wording(
        rng,
        f"A refund for a cancelled ticket is never lower than {amount}.",
        f"Whatever the deductions, at least {amount} is refunded for a cancelled ticket.",
        f"The minimum refund after a cancellation is {amount}.",
        f"No refund on a cancelled ticket falls below {amount}.",
    )


def waiver_rule(rng: random.Random, cause: str, proof: str, effect: str, value: str, but: str) -> str:
    """One exception; `effect` is waived, halved, to (an amount) or by (a percentage)."""
    effect_wordings = {
        "waived": ("the cancellation fee is waived", "no cancellation fee is charged", "we waive the cancellation fee"),
        "halved": (
            "the cancellation fee is halved",
            "only half of the cancellation fee is charged",
            "we halve the cancellation fee",
        ),
        "to": (
            f"the cancellation fee is reduced to {value}",
            f"the cancellation fee drops to {value}",
            f"only {value} is charged as a cancellation fee",
        ),
        "by": (
            f"the cancellation fee is reduced by {value}",
            f"we lower the cancellation fee by {value}",
            f"the cancellation fee is cut by {value}",
        ),
    }[effect]
    chosen = rng.choice(effect_wordings)
    article = "an" if proof[0] in "aeiou" else "a"
    return pick_wording(
        rng,
        f"{cause[0].upper()}{cause[1:]}: {chosen} when {article} {proof} is presented{but}.",
        f"If a passenger has to cancel because of {cause}, {chosen}, provided that {article} {proof} is submitted"
        f"{but}.",
        f"In cases of {cause}, {chosen} on presentation of {article} {proof}{but}.",
        f"Where {cause} is the reason for cancelling, {chosen} as soon as {article} {proof} has reached us{but}.",
    )


def exclusion_inline(rng: random.Random, fare: str) -> str:
    return pick_wording(
        rng,
        f", except on {fare} tickets",
        f"; this does not extend to {fare} tickets",
        f", but not for {fare} tickets",
        f" unless the ticket is a {fare} one",
    )


def exclusion_rule(rng: random.Random, fare: str) -> str:
    return pick_wording(
        rng,
        f"{fare} tickets are excluded from every waiver listed here.",
        f"However, no waiver is granted on {fare} tickets.",
        f"None of these exceptions extends to {fare} tickets.",
        f"Holders of {fare} tickets cannot claim any of these exceptions.",
    )


def case_facts(
    rng: random.Random,
    who: str,
    airline: str,
    fare: str,
    dates: tuple[str, str, str],
    paid: str,
    extra: str,
    why: str,
    proof: str,
) -> str:
    """The customer's case; dates: booked, departing, cancelled."""
    booked, departing, cancelled = dates
    return pick_wording(
        rng,
        f"{who} bought a {fare} ticket from {airline} on {booked} and paid {paid} for it{extra}. The flight departs "
        f"on {departing}. {who} cancelled on {cancelled} because of {why}{proof}.",
        f"The customer, {who}, holds a {fare} ticket of {airline} booked on {booked} at a price of {paid}{extra}. "
        f"Departure is on {departing}. The customer cancelled on {cancelled} owing to {why}{proof}.",
        f"On {booked} {who} booked with {airline}, choosing a {fare} ticket with a price of {paid}{extra}; departure "
        f"was set for {departing}. On {cancelled} {who} cancelled the ticket due to {why}{proof}.",
    )


def render_tasks(rng: random.Random, fare: str, who: str) -> str:
    """The work to be done, as a numbered list or as prose."""
    rates = pick_wording(
        rng,
        f"Find which percentage of the price is refunded and which cancellation fee is deducted when a {fare} ticket "
        "is cancelled, including any maximum or minimum",
        f"Look up the rules for cancelling a {fare} ticket: the share of the price that is refunded, the fee that is "
        "deducted, and any cap or minimum on the refund",
    )
    waiver = pick_wording(
        rng,
        "Find out whether an exception or waiver of the cancellation fee applies to this case",
        f"Check whether the reason that {who} gave for cancelling waives or reduces the cancellation fee, or whether "
        "an exclusion stands against it",
    )
    days = pick_wording(
        rng,
        "Work out how many days before departure the cancellation was made",
        "Determine the number of days from the cancellation to the departure",
    )
    amount = pick_wording(
        rng,
        "Then compute the amount refunded from the results above: the percentage of the price less the fee, within any "
        "cap",
        "Using the results of the earlier steps, calculate the refund (percentage of the price paid, minus the fee "
        "that remains, within the limits)",
    )
    final = pick_wording(
        rng,
        f"Finally, answer how much {who} gets refunded and why, citing every document that decides, both of them "
        "where two contradict each other (the later effective date wins)",
        "In the final answer state the amount refunded and the reasons; where documents disagree, the later effective "
        "date wins and both are cited",
    )
    if rng.random() < 0.5:
        return "\n".join(f"{number}. {task}." for number, task in enumerate((rates, waiver, days, amount, final), 1))
    return f"{rates}. {waiver}. {days}. {amount}. {final}."
