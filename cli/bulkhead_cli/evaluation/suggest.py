"""`bulkhead eval suggest`: rows of routes by the report of `eval models`; nothing is applied.

In: a report, a gate per tier. Out: YAML with the reasons as comments, or JSON, and an exit code.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from bulkhead.evaluation.reports.frontier import FrontierPoint, FrontierReport, propose_candidate
from bulkhead.text.amounts import format_duration, format_usd
from bulkhead.text.validation_errors import find_misfits
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import out
from bulkhead_contracts.model import DEFAULT_TIER

MAX_REPORT_BYTES = 64_000_000
_GATE = re.compile(r"(?:([A-Za-z0-9][A-Za-z0-9._:/-]{0,63})=)?(0?\.\d{1,6}|[01](?:\.0{0,6})?)", re.ASCII)


def suggest_routes(path: Path, gates: Sequence[str], *, as_json: bool) -> Exit:
    """Print a proposal for each tier. Raises CommandError for a report or a gate that does not fit."""
    gate_by_tier, report = parse_gates(gates), read_report(path)
    candidates, settings = report.list_points(), {row.route: row.settings for row in report.routes}
    proposals = {tier: propose_candidate(candidates, gate) for tier, gate in gate_by_tier.items()}
    reasons = {tier: _reason(proposals[tier], candidates, gate) for tier, gate in gate_by_tier.items()}
    routes = {tier: settings[row.name] for tier, row in proposals.items() if row is not None and settings[row.name]}
    if as_json:
        chosen = {tier: row.name if row is not None else None for tier, row in proposals.items()}
        print_json({"routes": routes, "chosen": chosen, "reasons": reasons})
    else:
        for tier, row in proposals.items():
            text = f"# {tier}: {reasons[tier]}\n"
            if tier in routes:
                text += yaml.safe_dump({tier: routes[tier]}, sort_keys=False)
            elif row is not None:
                text += f"# The mesh did not tell how {row.name} is configured: copy its row of BULKHEAD_ROUTES.\n"
            out.print(text, end="", markup=False, highlight=False, soft_wrap=True)
    return Exit.FAILED if None in proposals.values() else Exit.OK


def parse_gates(gates: Sequence[str]) -> dict[str, float]:
    """Shares by tier. Raises CommandError for a text that is none, and for a tier that is named twice."""
    shares: dict[str, float] = {}
    for text in gates:
        match = _GATE.fullmatch(text)
        tier = (match[1] or DEFAULT_TIER) if match else ""
        if match is None or tier in shares:
            problem = f"--min-pass {text[:80]!r} is no share of a tier, or its tier is named twice"
            raise CommandError(Exit.USAGE, problem, "write 0.9, or small=0.8, once for each tier")
        shares[tier] = float(match[2])
    return shares


def read_report(path: Path) -> FrontierReport:
    """A whole report. Raises CommandError for a file that is none, and for one whose runs were not all made."""
    hint = "write one with bulkhead eval models SET --route A --route B --json > REPORT"
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise CommandError(Exit.USAGE, f"{path} has more than {MAX_REPORT_BYTES:,} bytes", hint)
        report = FrontierReport.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CommandError(Exit.USAGE, f"{path} cannot be read: {error.strerror}", hint) from error
    except ValidationError as error:
        problem = f"{path} is no report of eval models: {find_misfits(error, FrontierReport)[0]}"
        raise CommandError(Exit.USAGE, problem, hint) from error
    if report.runs < report.runs_wanted:
        problem = f"{path} has {report.runs} of {report.runs_wanted} runs: what was left out might change the order"
        raise CommandError(Exit.USAGE, problem, "run eval models again with a larger --budget-usd")
    return report


def _reason(chosen: FrontierPoint | None, candidates: Sequence[FrontierPoint], gate: float) -> str:
    if chosen is None:
        best = max(candidates, key=lambda row: row.passed_low, default=None)
        nearest = f"; the nearest is {best.name} with {best.passed_low:.1%}" if best is not None else ""
        return f"no lower bound of {len(candidates)} routes reaches {gate:.1%}{nearest}"
    return (
        f"{chosen.name} is the cheapest on the frontier of {len(candidates)} routes whose lower bound reaches "
        f"{gate:.1%}: {chosen.passed:.1%} passed, lower bound {chosen.passed_low:.1%}; "
        f"{format_usd(round(chosen.cost_usd_micros))} a run, p50 {format_duration(chosen.latency_ms)}"
    )
