"""Documents out of sections, and documents beside the point. Enters: sections. Leaves: Markdown, text or HTML."""

import html
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from bulkhead_infra.demo import wording


@dataclass(frozen=True)
class Section:
    heading: str
    lines: tuple[str, ...]


def render_document(rng: random.Random, name: str, title: str, head: Sequence[str], sections: Sequence[Section]) -> str:
    """One document in the format that its name's ending tells; head lines stand first or last."""
    head_last = bool(head) and rng.random() < 0.35
    blocks = [] if head_last else [Section("", tuple(head))] if head else []
    blocks += list(sections)
    if head_last:
        blocks.append(Section("Validity", tuple(head)))
    return {"md": _render_markdown, "txt": _render_text, "html": _render_html}[name.rsplit(".", 1)[1]](
        rng, title, blocks
    )


def _render_markdown(rng: random.Random, title: str, sections: Sequence[Section]) -> str:
    listed = rng.random() < 0.5
    out = [f"# {title}"]
    for section in sections:
        if section.heading:
            out.append(f"## {section.heading}")
        out.append("\n".join(f"- {line}" for line in section.lines) if listed else "\n\n".join(section.lines))
    return "\n\n".join(out) + "\n"


def _render_text(rng: random.Random, title: str, sections: Sequence[Section]) -> str:
    out = [title.upper() if rng.random() < 0.5 else title]
    for number, section in enumerate(sections, 1):
        body = " ".join(section.lines)
        out.append(f"{number}. {section.heading}\n\n{body}" if section.heading else body)
    return "\n\n".join(out) + "\n"


def _render_html(rng: random.Random, title: str, sections: Sequence[Section]) -> str:
    listed = rng.random() < 0.5
    name = html.escape(title)
    out = [f"<!doctype html>\n<html><head><title>{name}</title></head><body>", f"<h1>{name}</h1>"]
    for section in sections:
        if section.heading:
            out.append(f"<h2>{html.escape(section.heading)}</h2>")
        lines = [html.escape(line, quote=False) for line in section.lines]
        if listed:
            out.append("<ul>\n" + "\n".join(f"<li>{line}</li>" for line in lines) + "\n</ul>")
        else:
            out.append("\n".join(f"<p>{line}</p>" for line in lines))
    return "\n".join([*out, "</body></html>"]) + "\n"


def _suitcase_sections(rng: random.Random, currency: str, fares: tuple[str, ...]) -> list[Section]:
    fee = wording.render_money(currency, Decimal(rng.randrange(30, 70)))
    cap = wording.render_money(currency, Decimal(rng.randrange(900, 1600, 50)))
    lines = (
        f"Each extra suitcase costs a fee of {fee} on {fares[0]} tickets.",
        f"A suitcase booked online at least 5 days ahead is {rng.choice((10, 15, 20))}% cheaper.",
        f"Compensation for a lost suitcase is limited to a maximum of {cap}.",
    )
    return [Section("Suitcases", lines)]


def _rebooking_sections(rng: random.Random, currency: str, fares: tuple[str, ...]) -> list[Section]:
    lines = [
        f"Changing the date of a {fare} ticket costs {wording.render_money(currency, Decimal(cost))}."
        for fare, cost in zip(fares, rng.sample(range(25, 95, 10), 3), strict=True)
    ]
    return [Section("New dates", (*lines, "A change is possible up to 2 days before departure."))]


def _loyalty_sections(rng: random.Random, currency: str, fares: tuple[str, ...]) -> list[Section]:
    earned = f"{fares[1]} tickets earn {rng.choice((50, 125, 150))} percent of the distance as points."
    return [Section("Points", (earned, "Points expire after 36 months without a flight."))]


DISTRACTORS: tuple[tuple[str, Callable[[random.Random, str, tuple[str, ...]], list[Section]]], ...] = (
    ("Suitcases and other luggage", _suitcase_sections),
    ("Flying on another day", _rebooking_sections),
    ("Points for regulars", _loyalty_sections),
)
