"""JUnit file of a report, for builds. In: a report. Out: XML; a test case is one run of a case."""

import re
from xml.etree import ElementTree as ET  # Written, never parsed.

from bulkhead.evaluation.reports.report import EvaluationReport
from bulkhead.evaluation.runs import CaseRun

_NOT_IN_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
SHOWN_CHARS = 4_000


def render_junit(report: EvaluationReport) -> str:
    """The XML. A run of a case without an answer is an error, one that fails a check a failure."""
    runs = [run for case in report.cases for run in case.runs]
    failures = sum(not run.has_passed and run.outcome.answer is not None for run in runs)
    errors = sum(run.outcome.answer is None for run in runs)
    seconds = sum(run.outcome.latency_ms for run in runs) / 1000
    suite = ET.Element(
        "testsuite",
        name=_clean_text(report.manifest.case_file),
        tests=str(len(runs)),
        failures=str(failures),
        errors=str(errors),
        time=f"{seconds:.3f}",
    )
    properties = ET.SubElement(suite, "properties")
    totals = {"run": report.manifest.run, "cost_usd_micros": str(report.totals.spent_usd_micros)}
    for name, value in totals.items():
        ET.SubElement(properties, "property", name=name, value=value)
    for run in runs:
        _add_case(suite, run, repeated=report.manifest.repetitions > 1)
    document = ET.Element("testsuites")
    document.append(suite)
    ET.indent(document)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(document, encoding="unicode")}\n'


def _add_case(suite: ET.Element, run: CaseRun, *, repeated: bool) -> None:
    name = f"{run.case}[{run.repetition}]" if repeated else run.case
    element = ET.SubElement(suite, "testcase", classname="bulkhead.eval", name=name)
    element.set("time", f"{run.outcome.latency_ms / 1000:.3f}")
    if run.verdicts:
        ET.SubElement(element, "system-out").text = _clean_text("\n".join(map(str, run.verdicts)))
    if run.has_passed:
        return
    if run.outcome.answer is None:
        problem = ET.SubElement(element, "error", message=_clean_text(run.outcome.code))
        problem.text = f"task {run.outcome.task}: {run.outcome.status}"
        return
    problem = ET.SubElement(element, "failure", message=_clean_text("; ".join(run.failed)))
    problem.text = _clean_text(f"task {run.outcome.task}\n{run.outcome.answer.plain_text}")


def _clean_text(text: str) -> str:
    return _NOT_IN_XML.sub("\ufffd", text)[:SHOWN_CHARS]
