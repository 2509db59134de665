"""Log of a run in the form of inspect-ai (`EvalLog`, version 2), which `inspect view` opens. In: a report. Out: JSON.

A run of a case is a sample: its input is the objective, its target the first reference, its epoch the repetition, its
score `checks` C or I. The form is held against inspect-ai's own schema by a test.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bulkhead.evaluation.cases import EvaluationCase
from bulkhead.evaluation.reports.report import EvaluationReport
from bulkhead.evaluation.runs import CaseRun

SCORER = "checks"


def log_file_name(report: EvaluationReport) -> str:
    """A name that the viewer takes for a log's."""
    began = datetime.fromtimestamp(report.manifest.began_unix_ms / 1000, UTC)
    return f"{began:%Y-%m-%dT%H-%M-%S}+00-00_{Path(report.manifest.case_file).stem}_{report.manifest.run}.json"


def build_inspect_log(report: EvaluationReport, now_unix_ms: int) -> dict[str, Any]:
    """The log."""
    manifest, totals = report.manifest, report.totals
    passed = report.figures.passed.value if report.figures is not None else 0.0
    began, model = _iso_time(manifest.began_unix_ms), f"bulkhead/{manifest.route or 'default'}"
    metric = {"name": "accuracy", "value": passed, "params": {}}
    score = {"name": SCORER, "scorer": SCORER, "params": {}, "metrics": {"accuracy": metric}}
    return {
        "version": 2,
        "status": "success" if totals.is_complete else "cancelled",
        "eval": {
            "eval_id": manifest.run,
            "run_id": manifest.run,
            "created": began,
            "task": Path(manifest.case_file).stem,
            "task_id": manifest.run,
            "task_version": 0,
            "task_file": manifest.case_file,
            "dataset": {
                "name": Path(manifest.case_file).stem,
                "location": manifest.case_file,
                "samples": len(manifest.cases),
                "sample_ids": [case.name for case in manifest.cases],
                "shuffled": False,
            },
            "model": model,
            "model_base_url": manifest.mesh,
            "model_args": {},
            "config": {"epochs": manifest.repetitions, "epochs_reducer": ["mean"]},
            "packages": {"bulkhead": manifest.made_by} if manifest.made_by else {},
            "metadata": {"release": manifest.release, "cost_usd_micros": totals.spent_usd_micros},
        },
        "plan": {"name": "plan", "steps": [{"solver": "bulkhead_task", "params": {}}]},
        "results": {"total_samples": totals.expected_count, "completed_samples": len(totals.runs), "scores": [score]},
        "stats": {"started_at": began, "completed_at": _iso_time(now_unix_ms), "model_usage": {}},
        "samples": [_sample_json(row.case, run, model) for row in report.cases for run in row.runs],
    }


def _sample_json(case: EvaluationCase, run: CaseRun, model: str) -> dict[str, Any]:
    outcome = run.outcome
    text = outcome.answer.text if outcome.answer is not None else ""
    usage = {
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": outcome.tokens,
        "total_cost": outcome.cost_usd_micros / 1_000_000,
    }
    writer = outcome.models[0] if outcome.models else model
    reply = {"role": "assistant", "content": text, "source": "generate", "model": writer}
    explanation = "\n".join(run.failed) if outcome.answer is not None else f"no answer: {outcome.code}"
    return {
        "id": case.name,
        "epoch": run.repetition + 1,
        "input": case.objective,
        "target": case.references[0] if case.references else "",
        "messages": [{"role": "user", "content": case.objective, "source": "input"}, reply],
        "output": {"model": writer, "choices": [{"message": reply, "stop_reason": "stop"}], "usage": usage},
        "scores": {SCORER: {"value": "C" if run.has_passed else "I", "answer": text, "explanation": explanation}},
        "metadata": {"task": outcome.task, "tags": list(case.tags), "origin": case.origin},
        "model_usage": {writer: usage},
        "total_time": outcome.latency_ms / 1000,
    }


def _iso_time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat()
