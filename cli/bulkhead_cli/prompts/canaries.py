"""A canary beside the rest, as a table for people: of a label of prompts, or of a workflow."""

from typing import Any

from bulkhead.text import amounts
from bulkhead_cli.output import one_line
from bulkhead_cli.screen import out

VERDICTS = {"regressed": "rolled back", "better": "does better", "no_worse": "no difference shown"}


def print_watch(name: str, watch: dict[str, Any]) -> None:
    """Print both sides in figures, the verdict, and how near each metric is to the bound."""
    verdict = VERDICTS.get(watch["verdict"])
    line = f"the canary of {name} since release {watch['began']}: {verdict or 'running'}"
    out.print(one_line(f"{line}{': ' if watch['reason'] else ''}{watch['reason']}"), markup=False)
    arms = watch["canary"], watch["rest"]
    rows = {
        "tasks": [str(arm["tasks"]) for arm in arms],
        "with a full answer": [str(arm["good"]) for arm in arms],
        "failed": [str(arm["errors"]) for arm in arms],
        "tokens of a task": [amounts.format_tokens(arm["tokens"]) for arm in arms],
        "cost of a task": [amounts.format_usd_short(arm["cost_usd_micros"]) for arm in arms],
        "median time": [amounts.format_duration(arm["latency_ms"]) for arm in arms],
        "rated bad": [f"{arm['rated_bad']} of {arm['rated']}" for arm in arms],
    }
    for row_name, figures in {"": ["canary", "rest"], **rows}.items():
        out.print(f"  {row_name:20} {figures[0]:>12} {figures[1]:>12}", markup=False)
    out.print(f"  evidence that it is worse, of {watch['bound']:,.0f} at which it is rolled back:", markup=False)
    for row in watch["evidence"]:
        note = "  a warning alone" if row["metric"] == "ratings" else ""
        out.print(f"    {row['metric']:18} {row['worse']:>12,.1f}{note}", markup=False)
