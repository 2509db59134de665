"""The shipped judge on the labelled answers that ship: what `bulkhead eval calibrate` prints of it, as the docs say."""

import asyncio

from bulkhead.evaluation.judges.calibration import CalibrationFigures, calibrate_judge, load_labelled
from bulkhead.evaluation.judges.certificates import GATE, SeatedJudge
from bulkhead.evaluation.judges.panels import GROUNDED, Judge
from bulkhead.evaluation.statistics import Estimate
from bulkhead_cli.evaluation.calibrate import judge_here
from tests.paths import ROOT
from tests.proof.__main__ import Figure

LABELLED = ROOT / "examples" / "evaluation" / "labelled" / "labelled.jsonl"
PAGE = ROOT / "docs" / "explanation" / "proof.md"


def calibrate_shipped_judge() -> CalibrationFigures:
    """Its figures."""
    labelled = load_labelled(LABELLED)
    runs = asyncio.run(judge_here(labelled, SeatedJudge(judge=Judge(name=GROUNDED))))
    return calibrate_judge(labelled, {run.case: run.verdicts[0].passed for run in runs.runs})


def measure() -> list[Figure]:
    """Each line of the page's table, computed anew."""
    figures = calibrate_shipped_judge()
    table = figures.table
    assert figures.length is not None

    def render_estimate(estimate: Estimate | None) -> str:
        assert estimate is not None
        return f"{estimate.value:.2f} [{estimate.low:.2f} {estimate.high:.2f}]"

    measured = {
        "labelled answers, labellers that differ": f"{figures.cases}, {figures.disputed}",
        "good: pass, fail": f"{table.good_passed}, {table.good_failed}",
        "bad: pass, fail": f"{table.bad_passed}, {table.bad_failed}",
        "good that pass, at least": f"{table.true_positive.value:.1%}, {table.true_positive.low:.1%}",
        "bad that fail, at least": f"{table.true_negative.value:.1%}, {table.true_negative.low:.1%}",
        "Cohen's kappa with the label": render_estimate(figures.kappa),
        "Krippendorff's alpha with the labellers": render_estimate(figures.alpha),
        "alpha of the labellers alone": render_estimate(figures.labellers_alpha),
        "longer answers pass, p": f"{figures.length.difference:+.1%}, {figures.length.p_value:.3f}",
        "certified": "yes" if figures.reaches(GATE, GATE) else "no: it is advice",
    }
    claims = dict(_read_table())
    return [
        Figure(name, value, claims.get(name, "nothing"), claims.get(name) == value) for name, value in measured.items()
    ]


def _read_table() -> list[tuple[str, str]]:
    """Rows of the page's table of the judge."""
    section = PAGE.read_text().partition("## The shipped judge")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return [(row[0], row[1]) for row in rows if len(row) == 2]
