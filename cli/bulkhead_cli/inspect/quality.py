"""`bulkhead quality`: how good the answers of ended tasks are, by feature, prompt or model.

In: the gateway's page of quality. Out: a table, or JSON.
"""

from typing import Any

from rich.markup import escape
from rich.table import Table

from bulkhead.gateway_api.ratings import QualityQuery
from bulkhead.text.amounts import format_count, format_usd
from bulkhead_cli.query_command import query_command
from bulkhead_cli.screen import out, print_whole

NOTHING = "-"


def print_quality(page: dict[str, Any]) -> None:
    """Print the rows, and what is left out."""
    if not page["total"]["ended"]:
        out.print("no task has ended in that time")
    else:
        table = Table(box=None, pad_edge=False)
        for column in (page["by"], "ended", "good", "people", "judges", "refused", "citations", "per good"):
            table.add_column(column, no_wrap=True)
        for row in [*page["rows"], page["total"] | {"name": "all"}]:
            table.add_row(escape(row["name"]), *_cells_of(row))
        print_whole(table)
    if page["unread"]:
        out.print(f"{format_count(page['unread'], 'task')} not read yet: ask again in a moment", style="yellow")
    if page["note"]:
        out.print(page["note"], markup=False)


def _cells_of(row: dict[str, Any]) -> list[str]:
    ratings, per_good = row["ratings"], row["per_good_usd_micros"]
    return [
        f"{row['ended']:,}",
        _render_share(row["good_share"]),
        _render_votes(row["rated"], ratings["good"] + ratings["bad"]),
        _render_verdicts(row["judged"], ratings["judged_good"] + ratings["judged_bad"], ratings["advice"]),
        f"{row['refused']:,}",
        f"{row['citations'] / row['answers']:.1f}" if row["answers"] else NOTHING,
        format_usd(per_good) if per_good is not None else NOTHING,
    ]


def _render_votes(share: dict[str, float] | None, count: int) -> str:
    return f"{_render_share(share)} of {count:,}" if count else NOTHING


def _render_verdicts(share: dict[str, float] | None, count: int, advice: int) -> str:
    """`80% [60% 92%] of 10, 50% advice`: of all verdicts so many are advice, and count in no share."""
    note = f"{advice / (count + advice):.0%} advice" if advice else ""
    return ", ".join(part for part in (_render_votes(share, count) if count or not advice else "", note) if part)


def _render_share(share: dict[str, float] | None) -> str:
    """`80% [60% 92%]`."""
    if share is None:
        return NOTHING
    return f"{share['value']:.0%} [{share['low']:.0%} {share['high']:.0%}]"


quality = query_command(
    QualityQuery,
    "quality",
    """Show how good the answers of ended tasks are, by feature, prompt or model.

    good: answered in full, and not degraded. people, judges: shares of good ratings; advice: verdicts
    of judges without a certificate, which count in no share. refused: answered "no".
    citations: for an answer. per good: cost of all that ended, for a good answer. Shares have their interval of 95 %.
    A prompt is counted by the release that a task was given. Tasks of evaluations and runs of agents are not counted.
    """,
    print_quality,
)
