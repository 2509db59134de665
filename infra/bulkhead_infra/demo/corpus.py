"""An airline's fare rules and one customer's case. Enters: a seed. Leaves: documents, objective, answer."""

import random
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from bulkhead_infra.demo import wording
from bulkhead_infra.demo.layout import DISTRACTORS, Section, render_document

CENT = Decimal("0.01")


@dataclass(frozen=True)
class DemoDocument:
    """A file of the corpus; the ending of `name` tells its media type (.md, .txt, .html)."""

    name: str
    text: str


@dataclass(frozen=True)
class ExpectedAnswer:
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
    documents: tuple[DemoDocument, ...]
    expected: ExpectedAnswer
    names: tuple[str, ...]


@dataclass(frozen=True)
class FareRules:
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


def generate_demo(seed: int) -> Demo:
    """The demo of a seed: the same seed gives the same documents, objective and answer."""
    rng = random.Random(f"bulkhead-demo-{seed}")  # noqa: S311 - a corpus, not a secret
    airline = f"{rng.choice(wording.AIRLINE_FIRST)} {rng.choice(wording.AIRLINE_LAST)}"
    who = f"{rng.choice(wording.GIVEN_NAMES)} {rng.choice(wording.FAMILY_NAMES)}"
    rules = draw_rules(rng)
    documents, sources = _render_documents(rng, rules, airline)
    objective = _render_objective(rng, rules, airline, who)
    return Demo(
        seed, airline, objective, documents, _compute_expected(rules, sources), (airline, *who.split(), *rules.fares)
    )


def draw_rules(rng: random.Random) -> FareRules:
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
    low, high = day_ranges(thresholds)[band]
    days = rng.randint(low if low is not None else 1, high if high is not None else (low or 1) + 25)
    effect = rng.choice(("waived", "halved", "to", "by"))
    effect_value = Decimal(rng.choice((5, 8, 10, 12))) if effect == "to" else Decimal(rng.choice((20, 25, 40, 75)))
    full = price * rates[mine][band] / 100
    limit = rng.choice(("none", "none", "loose", "cap", "floor"))
    cap = {"loose": price + 150, "cap": full * Decimal("0.6")}.get(limit)
    floor = full * Decimal("1.1") if limit == "floor" else None
    return FareRules(
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


def day_ranges(thresholds: tuple[int, ...]) -> list[tuple[int | None, int | None]]:
    """Ranges of days from long before to shortly before: (30, 7) -> (30, -), (7, 29), (-, 6)."""
    lows: list[int | None] = [*thresholds, None]
    highs: list[int | None] = [None, *(threshold - 1 for threshold in thresholds)]
    return list(zip(lows, highs, strict=True))


def _render_documents(
    rng: random.Random, rules: FareRules, airline: str
) -> tuple[tuple[DemoDocument, ...], dict[str, str]]:
    """The files, and which file holds: current, outdated, waivers, limits."""
    stems = rng.sample(("conditions", "circular", "handbook", "leaflet", "notes", "desk-guide", "sheet"), 6)
    names = [f"{stem}-{rng.randrange(11, 98)}.{rng.choice(('md', 'txt', 'html'))}" for stem in stems]
    older = date(2023, 1, 1) + timedelta(days=rng.randrange(0, 600))
    newer = older + timedelta(days=rng.randrange(40, 300))
    full_is_newer = rng.random() < 0.5
    full_name, part_name, waiver_name, limit_name, *distractor_names = names
    written: list[DemoDocument] = []
    for name, is_full in ((full_name, True), (part_name, False)):
        current = is_full == full_is_newer
        body = _rule_sections(rng, rules, is_full, current)
        head = _render_head(rng, newer if current else older, newer)
        titles = (f"{airline}: cancelling a ticket", f"{airline} refunds", f"Cancellations at {airline}")
        title = rng.choice(titles)
        written.append(DemoDocument(name, render_document(rng, name, title, head, body)))
    written.append(DemoDocument(waiver_name, _render_waivers(rng, rules, airline, waiver_name)))
    bounds = ((wording.CAP, rules.cap), (wording.FLOOR, rules.floor))
    limits = [form.format(amount=wording.render_money(rules.currency, amount)) for form, amount in bounds if amount]
    payout = f"Payment goes to the card that was charged, within {rng.choice((7, 10, 14))} working days."
    paying = [Section("Paying out", (*limits, payout))]
    written.append(DemoDocument(limit_name, render_document(rng, limit_name, f"{airline}: payments", [], paying)))
    for name, (title, make) in zip(
        distractor_names, rng.sample(DISTRACTORS, 2 if rng.random() < 0.5 else 1), strict=False
    ):
        written.append(
            DemoDocument(name, render_document(rng, name, title, [], make(rng, rules.currency, rules.fares)))
        )
    rng.shuffle(written)
    current_name, outdated_name = (full_name, part_name) if full_is_newer else (part_name, full_name)
    return tuple(written), {
        "current": current_name,
        "outdated": outdated_name,
        "waivers": waiver_name,
        "limits": limit_name,
    }


def _render_head(rng: random.Random, since: date, newest: date) -> list[str]:
    head = [wording.EFFECTIVE.format(day=wording.render_date(since))]
    if rng.random() < 0.6:
        head.append(wording.PRINTED.format(day=wording.render_date(newest + timedelta(days=rng.randrange(5, 90)))))
    rng.shuffle(head)
    return head


def _rule_sections(rng: random.Random, rules: FareRules, is_full: bool, current: bool) -> list[Section]:
    """Refund rules: all fares and matters in the full document, the contested one in the other."""
    sections = []
    for matter in ("rate", "fee"):
        if not is_full and matter != rules.contested:
            continue
        fares = rng.sample(rules.fares, len(rules.fares)) if is_full else [rules.mine]
        outdated = matter == rules.contested and not current
        lines: list[str] = []
        for fare in fares:
            uses_old_value = outdated and fare == rules.mine
            if matter == "fee":
                fee = rules.old_fee if uses_old_value else rules.fees[fare]
                lines.append(wording.FEE.format(fare=fare, amount=wording.render_money(rules.currency, fee)))
                continue
            rates = rules.old_rates if uses_old_value else rules.rates[fare]
            for (low, high), rate in zip(day_ranges(rules.thresholds), rates, strict=True):
                days = wording.render_day_range(low, high)
                lines.append(wording.RATE.format(fare=fare, days=days, share=rate))
        heading = {
            "rate": ("What is refunded", "Refunds", "How much comes back"),
            "fee": ("Cancellation fees", "What is taken off", "Deductions"),
        }[matter]
        sections.append(Section(rng.choice(heading), tuple(lines)))
    return sections


def _render_waivers(rng: random.Random, rules: FareRules, airline: str, name: str) -> str:
    causes = [
        rules.cause,
        *rng.sample([position for position in range(len(wording.CAUSES)) if position != rules.cause], 2),
    ]
    other_fare = next(fare for fare in rules.fares if fare != rules.mine)
    lines = []
    for index in causes:
        is_case_cause = index == rules.cause
        effect = rules.effect if is_case_cause else rng.choice(("waived", "halved", "to", "by"))
        number = rules.effect_value if is_case_cause else Decimal(rng.choice((15, 30, 60)))
        value = str(number) if effect == "by" else wording.render_money(rules.currency, number)
        left_out = rules.mine if is_case_cause and rules.standing == "excluded_inline" else ""
        left_out = left_out or (other_fare if rng.random() < 0.3 else "")
        form, (cause, proof) = wording.WAIVER_BUT if left_out else wording.WAIVER, wording.CAUSES[index]
        effect = wording.EFFECTS[effect].format(value=value)
        lines.append(form.format(cause=cause, effect=effect, proof=proof, fare=left_out))
    rng.shuffle(lines)
    if rules.standing == "excluded":
        lines.append(wording.EXCLUSION.format(fare=rules.mine))
    elif rng.random() < 0.3 and rules.standing != "excluded_inline":
        lines.append(wording.EXCLUSION.format(fare=other_fare))
    title = rng.choice((f"{airline}: special circumstances", f"{airline} and hardship", "Leniency"))
    section = Section(rng.choice(("Waivers", "Exceptions to the fee")), tuple(lines))
    return render_document(rng, name, title, [], [section])


def _render_objective(rng: random.Random, rules: FareRules, airline: str, who: str) -> str:
    cancelled = date(2025, 3, 1) + timedelta(days=rng.randrange(0, 300))
    departing = cancelled + timedelta(days=rules.days)
    booked = cancelled - timedelta(days=rng.randrange(20, 120))
    cause, proof = wording.CAUSES[rules.cause]
    reason = (wording.UNPROVEN if rules.standing == "no_proof" else wording.PROVEN).format(cause=cause, proof=proof)
    extra = f", besides {rules.currency} {rng.randrange(20, 60)}.00 for a suitcase" if rng.random() < 0.4 else ""
    facts = wording.FACTS.format(
        who=who,
        fare=rules.mine,
        airline=airline,
        booked=wording.render_date(booked),
        paid=wording.render_money(rules.currency, rules.price),
        extra=extra,
        departs=wording.render_date(departing),
        cancelled=wording.render_date(cancelled),
        reason=rng.choice(wording.IDLE_REASONS) if rules.standing == "no_cause" else reason,
    )
    numbered = rng.random() < 0.5
    tasks = [task.format(who=who, fare=rules.mine) for task in wording.TASKS.values()]
    work = "\n".join(f"{number}. {task}" for number, task in enumerate(tasks, 1)) if numbered else " ".join(tasks)
    return f"{facts}\n\n{work}"


def _compute_expected(rules: FareRules, sources: dict[str, str]) -> ExpectedAnswer:
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
    return ExpectedAnswer(limited.quantize(CENT, ROUND_HALF_UP), rules.currency, tuple(must), rules.standing)


def write_documents(demo: Demo, directory: Path) -> list[Path]:
    """The documents as files in `directory` (made if missing); their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    for document in demo.documents:
        (directory / document.name).write_text(document.text, encoding="utf-8")
    return [directory / document.name for document in demo.documents]
