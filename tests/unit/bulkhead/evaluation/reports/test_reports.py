"""Reports of a run: cases that can be compared, the worst first; pages, builds' files and logs of hostile texts."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import jsonschema_rs
import pytest

from bulkhead.evaluation.answers import CaseAnswer
from bulkhead.evaluation.cases import Check, EvaluationCase
from bulkhead.evaluation.reports.html import mark_differences, render_html
from bulkhead.evaluation.reports.inspect_log import build_inspect_log, log_file_name
from bulkhead.evaluation.reports.junit import render_junit
from bulkhead.evaluation.reports.report import EvaluationReport, build_report, find_problems, report_json
from bulkhead.evaluation.run_folder import RunFolder, RunManifest
from bulkhead.evaluation.runs import CaseRun, CaseRunOutcome

SCHEMA = json.loads((Path(__file__).parent / "inspect_log.schema.json").read_text())
"""Part of inspect-ai's own schema; `tests/e2e/test_evaluation.py` has inspect-ai itself read a log."""
HOSTILE = "</div><script>alert(1)</script>\x00\x1b[31m {{ 7 * 7 }} <del>"


def case(name: str, *tags: str) -> EvaluationCase:
    checks = (Check(contains="yes"),)
    return EvaluationCase(name=name, objective=f"Is {name}?", references=("yes",), checks=checks, tags=tags)


def build_folder(path: Path, answers: dict[str, list[str | None]], digests: dict[str, str] | None = None) -> RunFolder:
    """A run with these answers, None where there is none."""
    cases = tuple(case(name, "even" if number % 2 == 0 else "odd") for number, name in enumerate(answers))
    manifest = RunManifest(
        run=path.name,
        case_file="sets/cases.jsonl",
        began_unix_ms=1_750_000_000_000,
        made_by="0.1.0",
        repetitions=max(map(len, answers.values())),
        deadline_s=60,
        cases=cases,
        digests=dict.fromkeys(answers, "0") | (digests or {}),
    )
    folder = RunFolder.create(path, manifest)
    for name, texts in answers.items():
        for repetition, text in enumerate(texts):
            answer = None if text is None else CaseAnswer(text)
            code, status = ("", "succeeded") if text is not None else ("provider_error", "failed")
            outcome = CaseRunOutcome("t1", status, answer, 1_200, None, 700, 90, code, models=("p/m",))
            failed = () if text == "yes" or text is None else ("contains: yes (it does not stand in the answer)",)
            folder.begin_run((name, "", repetition), 1_000)
            folder.finish_run(CaseRun(name, "", repetition, outcome, failed))
    return folder


@pytest.fixture
def report(tmp_path: Path) -> EvaluationReport:
    before = {"fell": ["yes", "yes"], "kept": ["yes", "yes"], "rose": ["no", "yes"], "other": ["yes", "yes"]}
    after = {"fell": [HOSTILE, None], "kept": ["yes", "yes"], "rose": ["yes", "yes"], "other": ["no", "no"]}
    baseline = build_folder(tmp_path / "before", before)
    return build_report(build_folder(tmp_path / "after", after, {"other": "1"}), baseline)


def test_the_worst_comes_first_and_a_changed_case_is_not_compared(report: EvaluationReport) -> None:
    assert [(row.case.name, row.change) for row in report.cases] == [
        ("fell", "worse"),
        ("other", "new"),
        ("kept", "same"),
        ("rose", "better"),
    ]
    assert report.incomparable == ("other",) and report.difference is not None and report.difference.test is not None
    test = report.difference.test
    assert (test.higher, test.lower, test.equal) == (1, 1, 1) and report.difference.verdict == "no difference shown"
    assert {row.name: row.passed.value for row in report.by_tag} == {"even": 0.5, "odd": 0.5}
    document = json.loads(json.dumps(report_json(report)))
    assert document["cases"][0]["passed_before"] == 1 and document["difference_by_tag"][0]["name"] == "even"


def test_a_release_does_not_stand_on_a_run_that_passes_too_little_or_is_not_whole(tmp_path: Path) -> None:
    part = build_report(build_folder(tmp_path / "part", {"a": ["yes", "no"], "b": ["yes"]}))
    problems = find_problems(part, 0.9)
    assert len(problems) == 2 and "1 of 4 runs not made" in problems[0] and "66.7% of the runs pass" in problems[1]
    assert not find_problems(build_report(build_folder(tmp_path / "whole", {"a": ["yes", "no"]})), 0.5)


def test_a_run_that_is_worse_beyond_doubt_is_a_problem(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(8)]
    before, after = (build_folder(tmp_path / text, {name: [text] for name in names}) for text in ("yes", "no"))
    (problem,) = find_problems(build_report(after, before), None)
    assert "worse than yes (McNemar's exact test, p = 0.00781)" in problem
    assert not find_problems(build_report(before, after), None)


def test_a_page_is_one_file_in_which_texts_are_texts(report: EvaluationReport) -> None:
    page = render_html(report, ["<b>worse</b>"])
    assert "<script" not in page and "&lt;script&gt;" in page and "49" not in page and "&lt;b&gt;worse" in page
    assert not re.search(r"(?:src|href)=", page) and page.index(">fell<") < page.index(">kept<")
    assert "<del>yes</del>" in page and page.count("<ins>") >= 2


def test_words_that_differ_are_marked_and_long_texts_are_whole() -> None:
    now, before = mark_differences("40 EUR are refunded", "30 EUR are refunded")
    assert [(piece.text, piece.mark) for piece in now] == [("40", "added"), (" EUR are refunded", "")]
    assert [(piece.text, piece.mark) for piece in before] == [("30", "removed"), (" EUR are refunded", "")]
    long = "word " * 5_000
    assert mark_differences(long, "x")[0][0].text == long


def test_a_file_for_builds_holds_each_run_with_its_reasons(report: EvaluationReport) -> None:
    suite = ET.fromstring(render_junit(report))[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("8", "3", "1")
    failure = suite.find("testcase[@name='fell[0]']/failure")
    assert failure is not None and "contains: yes" in failure.get("message", "") and "<script>" in (failure.text or "")
    error = suite.find("testcase[@name='fell[1]']/error")
    assert error is not None and error.get("message") == "provider_error"


def test_a_log_has_the_form_of_inspect_ai(report: EvaluationReport) -> None:
    log = build_inspect_log(report, 1_750_000_060_000)
    jsonschema_rs.validator_for(SCHEMA).validate(log)
    assert log_file_name(report) == "2025-06-15T15-06-40+00-00_cases_after.json"
    samples = {(row["id"], row["epoch"]): row for row in log["samples"]}
    assert samples["kept", 2]["scores"]["checks"]["value"] == "C"
    assert samples["fell", 2]["scores"]["checks"]["explanation"] == "no answer: provider_error"
    part = replace(report, totals=replace(report.totals, expected_count=9))
    assert build_inspect_log(part, 0)["status"] == "cancelled"
