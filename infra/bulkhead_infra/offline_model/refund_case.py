"""The demo's generated case, read by the forms in which `demo.wording` writes it: a refund of a cancelled ticket.

Enters: the facts of the case, sentences of its documents. Leaves: the rules that hold, the sum, cited lines.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bulkhead_infra.demo import wording
from bulkhead_infra.demo.wording import find_values
from bulkhead_infra.offline_model.quoting import Sentence, mark_ids
from bulkhead_infra.offline_model.roles.calling import DIFFERENCE, Call, make_call, search_call
from bulkhead_infra.offline_model.text import find_dates

AMOUNT_LINE = "The amount comes to"
FORMS = {
    "rate": wording.RATE,
    "fee": wording.FEE,
    "cap": wording.CAP,
    "floor": wording.FLOOR,
    "waiver_but": wording.WAIVER_BUT,
    "waiver": wording.WAIVER,
    "exclusion": wording.EXCLUSION,
}
KINDS_OF_TASK = {"rates": ("rate", "fee", "cap", "floor"), "waivers": ("waiver", "waiver_but", "exclusion")}
SEARCHES = ("maximum minimum limits of a refund: exceeds, never lower", "rules effective from")


@dataclass(frozen=True)
class Rule:
    """One sentence of the documents. value: a share, an amount, or what is left of a fee, as an expression."""

    kind: str
    sentence: Sentence
    value: str = ""
    cause: str = ""
    fare: str = ""
    days: str = ""

    def holds_after(self, days: int) -> bool:
        """True when a rate holds for a cancellation so many days before; every other rule does."""
        ends = [int(number) for number in re.findall(r"\d+", self.days)]
        if len(ends) == 2:
            return ends[0] <= days <= ends[1]
        return not ends or (days >= ends[0] if self.days.startswith("at least") else days <= ends[0])


@dataclass(frozen=True)
class RefundCase:
    """The parameters of one case. proven: the proof of the cause was handed in."""

    fare: str
    paid: str
    departs: str
    cancelled: str
    cause: str
    proven: bool

    def days_call(self) -> Call:
        [start], [end] = find_dates(self.cancelled), find_dates(self.departs)
        return make_call(DIFFERENCE, start=start.isoformat(), end=end.isoformat())

    def search_calls(self, task: str) -> list[Call]:
        """Searches for the rules of a task, their limits, and the dates from which documents hold."""
        return [search_call(text) for text in (f"{task} {self.cause} waived reduced", *SEARCHES)]

    def rules_in(self, sentences: Iterable[Sentence]) -> list[Rule]:
        """The rules on tickets of this fare and all waivers, each sentence once."""
        rules = {sentence.text: _rule_of(sentence) for sentence in sentences}
        return [rule for rule in rules.values() if rule and (rule.cause or rule.fare in ("", self.fare))]


def _rule_of(sentence: Sentence) -> Rule | None:
    for kind, form in FORMS.items():
        if (values := find_values(form, sentence.text)) is not None:
            value = (
                values.get("amount", "").rpartition(" ")[2]
                or values.get("share")
                or _rest_of_fee(values.get("effect", ""))
            )
            return Rule(kind, sentence, value, values.get("cause", ""), values.get("fare", ""), values.get("days", ""))
    return None


def _rest_of_fee(effect: str) -> str:
    """The rest of a fee after an exception, as an expression."""
    if values := find_values(wording.EFFECTS["by"], effect):
        return f"{{fee}} * (100 - {values['value']}) / 100"
    if values := find_values(wording.EFFECTS["to"], effect):
        return values["value"].rpartition(" ")[2]
    return "{fee} / 2" if effect == wording.EFFECTS["halved"] else "0"


def read_case(facts: str) -> RefundCase | None:
    """The case that facts state in the generator's form; None for any others."""
    values = find_values(wording.FACTS, facts)
    if values is None:
        return None
    proven, unproven = (find_values(form, values["reason"]) for form in (wording.PROVEN, wording.UNPROVEN))
    cause = (proven or unproven or {"cause": values["reason"]})["cause"]
    return RefundCase(values["fare"], values["paid"], values["departs"], values["cancelled"], cause, bool(proven))


def kind_of_task(task: str) -> str:
    """The part of the case that a task is about: rates, waivers, days, amount, answer; empty for none of them."""
    return next((kind for kind, form in wording.TASKS.items() if find_values(form, task) is not None), "")


@dataclass(frozen=True)
class Settlement:
    """The rules that hold for a case after so many days, and those that later ones replaced."""

    case: RefundCase
    rules: Sequence[Rule]
    days: int

    def holding(self, *kinds: str) -> list[Rule]:
        """The rules of these kinds for these days, the one with the latest date first."""
        fitting = [rule for rule in self.rules if rule.kind in kinds and rule.holds_after(self.days)]
        return sorted(fitting, key=lambda rule: rule.sentence.day, reverse=True)

    def ruling(self) -> tuple[str, Sequence[Rule]]:
        """Why no exception lowers the fee, empty when one does; the rules that say so."""
        waivers = self.holding("waiver", "waiver_but")
        mine = [rule for rule in waivers if rule.cause == self.case.cause]
        if not mine:
            return f"none of those listed covers the case ({self.case.cause})", waivers[:3]
        if mine[0].fare == self.case.fare:
            return "the case falls under what the exception leaves out", mine
        if excluding := self.holding("exclusion"):
            return "the case is excluded from it", [*mine, *excluding]
        return "" if self.case.proven else "its condition (the proof) is not met", mine

    @property
    def expression(self) -> str:
        """The calculation: a share of the price, less the rest of the fee, within the limits; empty without a rate."""
        rate, fee, cap, floor = (next(iter(self.holding(kind)), None) for kind in ("rate", "fee", "cap", "floor"))
        if rate is None or fee is None:
            return ""
        refusal, rulings = self.ruling()
        rest = fee.value if refusal else rulings[0].value.format(fee=fee.value)
        amount = f"max(0, {rate.value} / 100 * {self.case.paid.rpartition(' ')[2]} - {rest})"
        amount = f"min({cap.value}, {amount})" if cap else amount
        return f"round({f'max({floor.value}, {amount})' if floor else amount}, 2)"

    def lines(self, result: str, result_id: str) -> list[str]:
        """The amount, the rules that it rests on with those they replaced, and the ruling on exceptions."""
        whole, _, cents = result.rpartition("=")[2].strip().partition(".")
        applied = [rules for kind in ("rate", "fee", "cap", "floor") if (rules := self.holding(kind))]
        marks = mark_ids([result_id, *(rules[0].sentence.cited[0] for rules in applied)])
        amount = f"{self.case.paid.partition(' ')[0]} {whole}.{cents:0<2}"
        lines = [f"{AMOUNT_LINE} {amount}: {' '.join(result.split())} {marks}."]
        for first, *replaced in applied:
            others = [rule.sentence for rule in replaced if rule.value != first.value]
            lines += [differing_line(first.sentence, other) for other in others] or [first.sentence.line]
        refusal, rulings = self.ruling()
        if rulings:
            says = f"No exception applies: {refusal}" if refusal else "Exception applies: the case meets its terms"
            marks = mark_ids(part_id for rule in rulings for part_id in rule.sentence.cited)
            lines.append(f"{says}: {' and '.join(rule.sentence.quote for rule in rulings)} {marks}.")
        return lines


def differing_line(holds: Sentence, other: Sentence) -> str:
    """One line on two sentences that differ, the one that holds first."""
    why = f"the later effective date, {holds.since}, prevails, so the first holds"
    return f"Two passages differ: {holds.quote} and {other.quote}; {why} {mark_ids((*holds.cited, *other.cited))}."
