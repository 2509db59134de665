"""The picture of recorded runs: lag, replicas and latency over time, a column per run. Pure.

In: documents of run.Record. Out: SVG as text.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

COLUMN, PANEL, LEFT, TOP, GAP = 340, 120, 52, 54, 34
INNER = COLUMN - LEFT - 14
INK, GREY, FAINT, BLUE, ORANGE = "#24292f", "#8c959f", "#d0d7de", "#0969da", "#bc4c00"
Points = Sequence[tuple[float, float]]


def svg(records: Sequence[Mapping[str, Any]]) -> str:
    """See the module."""
    width, height = COLUMN * len(records), TOP + 3 * (PANEL + GAP) + 22
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, record in enumerate(records):
        parts += _column(record, number * COLUMN)
    return "\n".join([*parts, "</svg>", ""])


def _column(record: Mapping[str, Any], left: float) -> list[str]:
    service, compression = record["service"], record["compression"]
    own = [look for look in record["looks"] if look["service"] == service]
    others = {look["service"] for look in record["looks"]} - {service}
    last_s = max(look["at_s"] for look in own)
    begun_s, ended_s = record["high"]

    def across(at_s: float) -> float:
        return left + LEFT + INNER * at_s / float(last_s)

    parts = [
        _text(left + LEFT, 18, f"{service} is slow, {len(record['tasks'])} tasks", size=14),
        _text(left + LEFT, 34, "the load is tenfold in the shaded time"),
    ]
    latency = [(task["at_s"], task["took_s"]) for task in record["tasks"]]
    most_others = [
        (look["at_s"], max(one["wanted"] for one in record["looks"] if one["service"] in others and _same(one, look)))
        for look in own
    ]
    panels: list[tuple[str, list[tuple[Points, str, bool]]]] = [
        ("lag: messages waiting and in hand", [([(look["at_s"], look["lag"]) for look in own], BLUE, True)]),
        (
            "replicas wanted (blue), ready (orange); of other services (grey)",
            [
                (most_others, GREY, True),
                ([(look["at_s"], look["ready"]) for look in own], ORANGE, True),
                ([(look["at_s"], look["wanted"]) for look in own], BLUE, True),
            ],
        ),
        ("seconds from submission to end, by submission", [(latency, BLUE, False)]),
    ]
    for row, (title, curves) in enumerate(panels):
        top = TOP + row * (PANEL + GAP) + 12
        parts.append(_text(left + LEFT, top - 5, title, size=10))
        shade = across(ended_s) - across(begun_s)
        parts.append(f'<rect x="{across(begun_s):.1f}" y="{top}" width="{shade:.1f}" height="{PANEL}" fill="#f2f4f7"/>')
        parts += _panel(curves, across, left, top)
    bottom = TOP + 3 * (PANEL + GAP) + 6
    parts += [_text(across(at), bottom, f"{at * compression / 60:.0f}") for at in _marks(last_s)]
    return [
        *parts,
        _text(left + LEFT, bottom + 13, f"minutes of the autoscaler; one lasts {60 / compression:g} s here"),
    ]


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(abs(one["at_s"] - other["at_s"]) < 0.7)


def _panel(
    curves: Sequence[tuple[Points, str, bool]], across: Callable[[float], float], left: float, top: float
) -> list[str]:
    most = max((value for points, _, _ in curves for _, value in points), default=0) or 1

    def down(value: float) -> float:
        return top + PANEL - (PANEL - 6) * value / most

    parts = [
        f'<path d="M{left + LEFT} {down(value):.1f}h{INNER}" stroke="{FAINT}" stroke-width="0.6"/>'
        for value in (0, most / 2, most)
    ]
    parts += [_text(left + LEFT - 6, down(value) + 4, f"{value:.3g}", anchor="end") for value in (0, most / 2, most)]
    for points, colour, line in curves:
        if line:
            steps = "".join(f"H{across(at):.1f}V{down(value):.1f}" for at, value in points[1:])
            begin = f"M{across(points[0][0]):.1f} {down(points[0][1]):.1f}"
            parts.append(f'<path d="{begin}{steps}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        else:
            parts += [
                f'<circle cx="{across(at):.1f}" cy="{down(value):.1f}" r="1.4" fill="{colour}"/>'
                for at, value in points
            ]
    return parts


def _marks(last_s: float) -> list[float]:
    """Every two minutes of the autoscaler, where a run lasts long: at most eight."""
    step = 12.0
    while last_s / step > 8:
        step *= 2
    return [step * number for number in range(int(last_s / step) + 1)]


def _text(x: float, y: float, what: str, *, size: int = 11, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(what)}</text>'
