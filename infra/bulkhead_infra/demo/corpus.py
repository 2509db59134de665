"""An airline's fare rules and one customer's case. Enters: a seed. Leaves: documents, objective, answer.

`python -m bulkhead_infra.demo.corpus --seed 7 --out DIR` writes the documents and prints objective and answer as JSON.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from bulkhead_infra.demo import wording
from bulkhead_infra.demo.layout import DISTRACTORS, Section, render

CENT = Decimal("0.01")


@dataclass(frozen=True)
class Document:
    """A file of the corpus; the ending of `name` tells its media type (.md, .txt, .html)."""

    name: str
    text: str


@dataclass(frozen=True)
class Expected:
    """The right answer, known to the generator alone."""

    amount: Decimal
    currency: str
    must_cite: tuple[str, ...]
    exception_reason: str


@dataclass(frozen=True)
class Demo:
    """One generated case; `names` are the generated words that must stand in no service."""

    seed: int
    airline: str
    objective: str
    documents: tuple[Document, ...]
    expected: Expected
    names: tuple[str, ...]


@dataclass(frozen=True)
class Rules:
    """The numbers of one case, drawn before any sentence is written."""

    fares: tuple[str, ...]
    mine: str
    currency: str
    price: Decimal
    thresholds: tuple[int, ...]
    rates: dict[str, tuple[int, ...]]
    fees: dict[str, Decimal]
    contested: str
    old_rates: tuple[int, ...]
    old_fee: Decimal
    cap: Decimal | None
    floor: Decimal | None
    days: int
    cause: int
    effect: str
    effect_value: Decimal
    standing: str  # applies, no_cause, excluded_inline, excluded, no_proof


def generate(seed: int) -> Demo:
    """The demo of a seed: the same seed gives the same documents, objective and answer."""
    rng = random.Random(f"bulkhead-demo-{seed}")  # noqa: S311 - a corpus, not a secret
    airline = f"{rng.choice(wording.AIRLINE_FIRST)} {rng.choice(wording.AIRLINE_LAST)}"
    who = f"{rng.choice(wording.GIVEN_NAMES)} {rng.choice(wording.FAMILY_NAMES)}"
    rules = draw_rules(rng)
    documents, sources = _documents(rng, rules, airline)
    objective = _objective(rng, rules, airline, who)
    return Demo(seed, airline, objective, documents, _expected(rules, sources), (airline, *who.split(), *rules.fares))


def draw_rules(rng: random.Random) -> Rules:
    """Numbers and outcome of one case."""
    fares = tuple(rng.sample(wording.FARE_CLASSES, 3))
    thresholds = rng.choice(((30, 7), (21,), (14, 3), (45, 14), (28,), (60, 21)))
    drawn = {fare: rng.sample(range(30, 95, 5), len(thresholds) + 1) for fare in fares}
    rates = {fare: tuple(sorted(values, reverse=True)) for fare, values in drawn.items()}
    fees = dict(zip(fares, (Decimal(value) for value in rng.sample(range(20, 90, 5), 3)), strict=True))
    mine = rng.choice(fares)
    price = Decimal(rng.randrange(28_000, 99_000)) / 100
    contested = rng.choice(("fee", "rate"))
    old_rates = tuple(rate + rng.choice((5, -5, 10, -10)) for rate in rates[mine])
    band = rng.randrange(len(thresholds) + 1)
    low, high = bands(thresholds)[band]
    days = rng.randint(low if low is not None else 1, high if high is not None else (low or 1) + 25)
    effect = rng.choice(("waived", "halved", "to", "by"))
    effect_value = Decimal(rng.choice((5, 8, 10, 12))) if effect == "to" else Decimal(rng.choice((20, 25, 40, 75)))
    full = price * rates[mine][band] / 100
    limit = rng.choice(("none", "none", "loose", "cap", "floor"))
    cap = {"loose": price + 150, "cap": full * Decimal("0.6")}.get(limit)
    floor = full * Decimal("1.1") if limit == "floor" else None
    return Rules(
        fares,
        mine,
        rng.choice(wording.CURRENCIES),
        price,
        thresholds,
        rates,
        fees,
        contested,
        old_rates,
        fees[mine] + rng.choice((-10, -5, 15, 20)),
        cap.quantize(Decimal(1)) if cap else None,
        floor.quantize(Decimal(1)) if floor else None,
        days,
        rng.randrange(len(wording.CAUSES)),
        effect,
        effect_value,
        rng.choice(("applies", "applies", "no_cause", "excluded_inline", "excluded", "no_proof")),
    )


def bands(thresholds: tuple[int, ...]) -> list[tuple[int | None, int | None]]:
    """Ranges of days from long before to shortly before: (30, 7) -> (30, -), (7, 29), (-, 6)."""
    lows: list[int | None] = [*thresholds, None]
    highs: list[int | None] = [None, *(threshold - 1 for threshold in thresholds)]
    return list(zip(lows, highs, strict=True))


def _documents(rng: random.Random, rules: Rules, airline: str) -> tuple[tuple[Document, ...], dict[str, str]]:
    """The files, and which file holds: current, outdated, waivers, limits."""
    stems = rng.sample(("conditions", "circular", "handbook", "leaflet", "notes", "desk-guide", "sheet"), 6)
    names = [f"{stem}-{rng.randrange(11, 98)}.{rng.choice(('md', 'txt', 'html'))}" for stem in stems]
    older = date(2023, 1, 1) + timedelta(days=rng.randrange(0, 600))
    newer = older + timedelta(days=rng.randrange(40, 300))
    full_is_newer = rng.random() < 0.5
    full_name, part_name, waiver_name, limit_name, *others = names
    written: list[Document] = []
    for name, is_full in ((full_name, True), (part_name, False)):
        current = is_full == full_is_newer
        body = _rule_sections(rng, rules, is_full, current)
        head = _head(rng, newer if current else older, newer)
        titles = (f"{airline}: cancelling a ticket", f"{airline} refunds", f"Cancellations at {airline}")
        title = wording.pick(rng, *titles)
        written.append(Document(name, render(rng, name, title, head, body)))
    written.append(Document(waiver_name, _waivers(rng, rules, airline, waiver_name)))
    limits = [wording.cap_rule(rng, wording.money(rng, rules.currency, rules.cap))] if rules.cap else []
    if rules.floor:
        limits.append(wording.floor_rule(rng, wording.money(rng, rules.currency, rules.floor)))
    payout = f"Payment goes to the card that was charged, within {rng.choice((7, 10, 14))} working days."
    paying = [Section("Paying out", (*limits, payout))]
    written.append(Document(limit_name, render(rng, limit_name, f"{airline}: payments", [], paying)))
    for name, (title, make) in zip(others, rng.sample(DISTRACTORS, 2 if rng.random() < 0.5 else 1), strict=False):
        written.append(Document(name, render(rng, name, title, [], make(rng, rules.currency, rules.fares))))
    rng.shuffle(written)
    now, then = (full_name, part_name) if full_is_newer else (part_name, full_name)
    return tuple(written), {"current": now, "outdated": then, "waivers": waiver_name, "limits": limit_name}


def _head(rng: random.Random, since: date, newest: date) -> list[str]:
    head = [wording.effective(rng, wording.day(rng, since))]
    if rng.random() < 0.6:
        head.append(wording.printed(rng, wording.day(rng, newest + timedelta(days=rng.randrange(5, 90)))))
    rng.shuffle(head)
    return head


def _rule_sections(rng: random.Random, rules: Rules, is_full: bool, current: bool) -> list[Section]:
    """Refund rules: all fares and matters in the full document, the contested one in the other."""
    sections = []
    for matter in ("rate", "fee"):
        if not is_full and matter != rules.contested:
            continue
        fares = rng.sample(rules.fares, len(rules.fares)) if is_full else [rules.mine]
        outdated = matter == rules.contested and not current
        lines: list[str] = []
        for fare in fares:
            own = outdated and fare == rules.mine
            if matter == "fee":
                fee = rules.old_fee if own else rules.fees[fare]
                lines.append(wording.fee_rule(rng, fare, wording.money(rng, rules.currency, fee)))
                continue
            rates = rules.old_rates if own else rules.rates[fare]
            for (low, high), rate in zip(bands(rules.thresholds), rates, strict=True):
                share = wording.percent(rng, rate)
                lines.append(wording.rate_rule(rng, fare, wording.band(rng, low, high), share))
        heading = {
            "rate": ("What is refunded", "Refunds", "How much comes back"),
            "fee": ("Cancellation fees", "What is taken off", "Deductions"),
        }[matter]
        sections.append(Section(rng.choice(heading), tuple(lines)))
    return sections


def _waivers(rng: random.Random, rules: Rules, airline: str, name: str) -> str:
    causes = [rules.cause, *rng.sample([i for i in range(len(wording.CAUSES)) if i != rules.cause], 2)]
    other_fare = next(fare for fare in rules.fares if fare != rules.mine)
    lines = []
    for index in causes:
        own = index == rules.cause
        effect = rules.effect if own else rng.choice(("waived", "halved", "to", "by"))
        number = rules.effect_value if own else Decimal(rng.choice((15, 30, 60)))
        value = wording.percent(rng, int(number)) if effect == "by" else wording.money(rng, rules.currency, number)
        but = ""
        if own and rules.standing == "excluded_inline":
            but = wording.exclusion_inline(rng, rules.mine)
        elif rng.random() < 0.3:
            but = wording.exclusion_inline(rng, other_fare)
        lines.append(wording.waiver_rule(rng, *wording.CAUSES[index][1:], effect, value, but))
    rng.shuffle(lines)
    if rules.standing == "excluded":
        lines.append(wording.exclusion_rule(rng, rules.mine))
    elif rng.random() < 0.3 and rules.standing != "excluded_inline":
        lines.append(wording.exclusion_rule(rng, other_fare))
    title = wording.pick(rng, f"{airline}: special circumstances", f"{airline} and hardship", "Leniency")
    return render(rng, name, title, [], [Section(wording.pick(rng, "Waivers", "Exceptions to the fee"), tuple(lines))])


def _objective(rng: random.Random, rules: Rules, airline: str, who: str) -> str:
    cancelled = date(2025, 3, 1) + timedelta(days=rng.randrange(0, 300))
    departing = cancelled + timedelta(days=rules.days)
    booked = cancelled - timedelta(days=rng.randrange(20, 120))
    said, _, proof = wording.CAUSES[rules.cause]
    why = rng.choice(wording.IDLE_REASONS) if rules.standing == "no_cause" else said
    evidence = wording.pick(rng, f" and has sent in the {proof}", f" and enclosed the {proof}")
    if rules.standing == "no_proof":
        evidence = wording.pick(rng, f" but has no {proof} to show", f", without sending any {proof}")
    elif rules.standing == "no_cause":
        evidence = ""
    paid = f"{rules.currency} {rules.price:.2f}"
    extra = f", besides {rules.currency} {rng.randrange(20, 60)}.00 for a suitcase" if rng.random() < 0.4 else ""
    dates = wording.day(rng, booked), wording.day(rng, departing), wording.day(rng, cancelled)
    facts = wording.case_facts(rng, who, airline, rules.mine, dates, paid, extra, why, evidence)
    return f"{facts}\n\n{wording.tasks(rng, rules.mine, who)}"


def _expected(rules: Rules, sources: dict[str, str]) -> Expected:
    """The right amount: share of the price, less what the exception leaves of the fee, within the limits."""
    band = sum(rules.days < threshold for threshold in rules.thresholds)
    fee = rules.fees[rules.mine]
    if rules.standing == "applies":
        fee = {
            "waived": Decimal(0),
            "halved": fee / 2,
            "to": rules.effect_value,
            "by": fee * (100 - rules.effect_value) / 100,
        }[rules.effect]
    amount = max(Decimal(0), rules.price * rules.rates[rules.mine][band] / 100 - fee)
    limited = amount if rules.cap is None else min(amount, rules.cap)
    limited = limited if rules.floor is None else max(limited, rules.floor)
    must = [sources["current"], sources["outdated"]]
    if rules.standing != "no_cause":
        must.append(sources["waivers"])
    if limited != amount:
        must.append(sources["limits"])
    return Expected(limited.quantize(CENT, ROUND_HALF_UP), rules.currency, tuple(must), rules.standing)


def write(demo: Demo, directory: Path) -> list[Path]:
    """The documents as files in `directory` (made if missing); their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    for document in demo.documents:
        (directory / document.name).write_text(document.text, encoding="utf-8")
    return [directory / document.name for document in demo.documents]


def main(argv: Sequence[str] | None = None) -> None:
    """Write the documents of a seed and print objective and expected answer as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bulkhead_infra.demo.corpus")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    demo = generate(given.seed)
    files = [str(path) for path in write(demo, given.out)] if given.out else [d.name for d in demo.documents]
    told = {"seed": demo.seed, "airline": demo.airline, "objective": demo.objective, "files": files}
    expected = {**demo.expected.__dict__, "amount": str(demo.expected.amount)}
    print(json.dumps({**told, "expected": expected}, indent=2))


if __name__ == "__main__":
    main()
