"""`bulkhead eval`: sets that are validated without a mesh, and wrong usage before anything starts."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from bulkhead.evaluation.answers import CaseAnswer
from bulkhead.evaluation.run_folder import RunFolder
from bulkhead.evaluation.runs import CaseRun, CaseRunOutcome
from bulkhead_cli.main import app
from bulkhead_cli.target import API_KEYS_FILE
from tests.paths import ROOT

EXAMPLE = ROOT / "examples" / "evaluation" / "cases.jsonl"
ROW = {"name": "a", "input": "x", "checks": [{"contains": "x"}], "tags": ["t"]}


def bulkhead(folder: Path, *words: str):
    # Nothing listens there.
    (folder / "mesh.json").write_text(json.dumps({"http_url": "http://127.0.0.1:9"}))
    environ = {"BULKHEAD_DATA": str(folder), "BULKHEAD_API_KEY": "k", "BULKHEAD_URL": None, "COLUMNS": "200"}
    return CliRunner().invoke(app, ["eval", *words], env=environ)


def test_the_example_set_is_valid(tmp_path: Path) -> None:
    done = bulkhead(tmp_path, "check", str(EXAMPLE), "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["cases"], document["documents"], document["tags"]["numbers"]) == (6, 2, 3)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"documents": ["none.md"]}, "none.md cannot be read"),
        ({"checks": [{"python": "none.py:check"}]}, "none.py cannot be read"),
        ({"checks": [{"python": "broken.py:check"}]}, "cannot be loaded: SyntaxError"),
        ({"checks": [{"python": "leaves.py:check"}]}, "cannot be loaded: SystemExit"),
        ({"checks": [{"tool": "x"}]}, "unknown field"),
    ],
)
def test_what_is_wrong_with_a_set_is_told_without_a_run(tmp_path: Path, row: dict[str, object], says: str) -> None:
    (tmp_path / "cases.jsonl").write_text(json.dumps(ROW | row))
    (tmp_path / "broken.py").write_text("def check(")
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)")
    done = bulkhead(tmp_path, "check", str(tmp_path / "cases.jsonl"))
    assert done.exit_code == 2 and says in " ".join(done.stderr.split()), done.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("run", "FILE", "--tag", "u"), 2, "has the tag u"),
        (("run", "FILE", "--baseline", "none"), 2, "holds no run that can be read"),
        (("run", "FILE", "--resume", "none"), 2, "holds no run that can be read"),
        (("run", "FILE", "--budget-usd", "0"), 2, "a limit is an amount of dollars"),
        (("run", "FILE", "--min-pass", "2"), 2, "--min-pass"),
        (("run", "FILE", "--sign", "none.pem"), 2, "none.pem holds no private key"),
        (("run", "my cases.jsonl", "--sign", "none.pem"), 2, "is no name of a set"),
        (("run", "FILE"), 3, "no answer from http://127.0.0.1:9"),
        (("compare", "none", "none"), 2, "holds no run that can be read"),
    ],
)
def test_wrong_usage_is_told_before_anything_starts(
    tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    (tmp_path / "cases.jsonl").write_text(json.dumps(ROW))
    done = bulkhead(tmp_path, *(str(tmp_path / "cases.jsonl") if word == "FILE" else word for word in words))
    assert done.exit_code == code and says in " ".join(done.stderr.split()), done.stderr


def begin_run(folder: Path, row: dict[str, object], *words: str) -> Path:
    """A run that was begun and has one answer, `x`, which passed."""
    (folder / "cases.jsonl").write_text(json.dumps(row))
    done = bulkhead(folder, "run", str(folder / "cases.jsonl"), "--out", str(folder / "run"), *words)
    assert done.exit_code == 3, done.output
    record = RunFolder.open(folder / "run", may_write=True)
    outcome = CaseRunOutcome("t1", "succeeded", CaseAnswer("x", answered="yes"), 9, None, 7, 5)
    record.finish_run(CaseRun("a", "", 0, outcome))
    record.close()
    return folder / "run"


def resume_run(folder: Path, row: dict[str, object], *words: str):
    (folder / "cases.jsonl").write_text(json.dumps(row))
    return bulkhead(folder, "run", str(folder / "cases.jsonl"), "--resume", str(folder / "run"), *words)


def test_a_check_that_cannot_be_loaded_is_told_before_a_run_is_begun(tmp_path: Path) -> None:
    (tmp_path / "checks.py").write_text("def other(answer): return True\n")
    (tmp_path / "cases.jsonl").write_text(json.dumps(ROW | {"checks": [{"python": "checks.py:check"}]}))
    done = bulkhead(tmp_path, "run", str(tmp_path / "cases.jsonl"), "--out", str(tmp_path / "run"))
    assert done.exit_code == 2 and "cannot be loaded" in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_whose_checks_were_changed_is_resumed_and_judged_again(tmp_path: Path) -> None:
    path = begin_run(tmp_path, ROW)
    spent = RunFolder.open(path).runs.spent_usd_micros
    done = resume_run(tmp_path, ROW | {"checks": [{"contains": "y"}]}, "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["figures"]["passed"]["value"] == 0, done.output
    after = RunFolder.open(path)
    assert after.runs.spent_usd_micros == spent and str(after.manifest.cases[0].checks[0]) == "contains: y"
    assert not next(iter(after.finished.values())).has_passed
    assert resume_run(tmp_path, ROW, "--min-pass", "1").exit_code == 0
    done = resume_run(tmp_path, ROW | {"input": "another"})
    assert done.exit_code == 2 and "only checks may be changed" in " ".join(done.stderr.split()), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--url", "http://127.0.0.1:10"), ("--api-key", "other")])
def test_a_run_is_not_resumed_on_another_mesh_or_as_another_tenant(tmp_path: Path, words: tuple[str, ...]) -> None:
    path = begin_run(tmp_path, ROW)
    done = resume_run(tmp_path, ROW, *words)
    assert done.exit_code == 2 and "was begun on http://127.0.0.1:9 as key " in " ".join(done.stderr.split())
    assert resume_run(tmp_path, ROW, *words, "--force-mesh").exit_code == 0
    assert resume_run(tmp_path, ROW, *words).exit_code == 0 and RunFolder.open(path).manifest.tenant != "k"
    done = resume_run(tmp_path, ROW)
    assert done.exit_code == 2 and "this is http://127.0.0.1:9 as key " in " ".join(done.stderr.split())


@pytest.mark.slow
def test_a_resumed_run_keeps_its_budget_until_another_is_named(tmp_path: Path) -> None:
    path = begin_run(tmp_path, ROW, "--budget-usd", "0.5")
    budgets = []
    for words in ((), ("--budget-usd", "2"), ()):
        assert resume_run(tmp_path, ROW, *words).exit_code == 0
        budgets.append(RunFolder.open(path).manifest.budget_usd_micros)
    assert budgets == [500_000, 2_000_000, 2_000_000]


@pytest.mark.slow
def test_a_tenant_is_known_by_its_row_and_not_by_its_key(tmp_path: Path) -> None:
    rows = [{"sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": "demo"} for key in ("k", "renewed")]
    (tmp_path / API_KEYS_FILE).parent.mkdir(exist_ok=True)
    (tmp_path / API_KEYS_FILE).write_text(json.dumps({"keys": rows}))
    path = begin_run(tmp_path, ROW)
    assert RunFolder.open(path).manifest.tenant == "demo"
    assert resume_run(tmp_path, ROW, "--api-key", "renewed").exit_code == 0


LABELLED = {"question": "What is refunded?", "documents": [{"name": "terms.md", "text": "40 EUR are refunded."}]}


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    answers = {"good": "40 EUR are refunded.", "bad": "Dogs travel free of charge."}
    rows = [LABELLED | {"case": label, "answer": text, "labels": {"ann": label}} for label, text in answers.items()]
    (tmp_path / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "labelled.jsonl"


@pytest.mark.slow
def test_the_shipped_judge_is_calibrated_without_a_mesh(tmp_path: Path, labelled: Path) -> None:
    certificate = tmp_path / "grounded.certificate.json"
    done = bulkhead(tmp_path, "calibrate", str(labelled), "--out", str(certificate), "--json")
    assert done.exit_code == 1 and json.loads(done.stdout)["rates"]["true_positive"]["value"] == 1.0, done.output
    assert not json.loads(certificate.read_text())["is_certified"], "two answers show nothing"
    generous = ("calibrate", str(labelled), "--min-good", "0", "--min-bad", "0", "--out", str(certificate))
    done = bulkhead(tmp_path, *generous)
    assert done.exit_code == 1 and "20 of each are needed" in " ".join(done.stdout.split()), done.output
    rows = [json.loads(line) for line in labelled.read_text().splitlines()]
    rows = [row | {"case": f"{row['case']}{number}"} for row in rows for number in range(20)]
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = bulkhead(tmp_path, *generous)
    assert done.exit_code == 0 and "certified until" in done.stdout, done.output
    (tmp_path / "terms.md").write_text("40 EUR are refunded.")
    row = ROW | {"checks": [{"judge": "grounded"}], "documents": ["terms.md"]}
    (tmp_path / "cases.jsonl").write_text(json.dumps(row))
    assert "judge grounded is certified until" in bulkhead(tmp_path, "check", str(tmp_path / "cases.jsonl")).stdout
    old = json.loads(certificate.read_text()) | {"expires_unix_ms": 1}
    certificate.write_text(json.dumps(old))
    assert "past its date" in bulkhead(tmp_path, "check", str(tmp_path / "cases.jsonl")).stdout


def test_a_calibration_says_what_it_lacks(tmp_path: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = bulkhead(tmp_path, "calibrate", str(labelled), "--judge", "panel")
    assert done.exit_code == 2 and "there are: grounded" in " ".join(done.stderr.split())
    monkeypatch.setitem(sys.modules, "krippendorff", None)
    done = bulkhead(tmp_path, "calibrate", str(labelled))
    assert done.exit_code == 2 and "pip install 'bulkhead[evaluation]'" in " ".join(done.stderr.split())


def report_row(route: str, low: float, cost: float, settings: dict[str, object] | None = None) -> dict[str, object]:
    share = {"value": low + 0.05, "low": low, "high": 1.0}
    latency = {"value": 900.0, "low": None, "high": None}
    return {
        "route": route,
        "passed": share,
        "latency_p50_ms": latency,
        "cost_usd_micros": latency | {"value": cost},
        "settings": settings,
    }


def write_report(folder: Path, **changes: object) -> str:
    small = {"provider": "openai", "model": "m-small-1", "temperature": 0.0}
    routes = [report_row("large", 0.92, 9_000), report_row("small", 0.8, 1_000, small)]
    (folder / "report.json").write_text(json.dumps({"runs": 4, "runs_wanted": 4, "routes": routes} | changes))
    return str(folder / "report.json")


def test_a_proposal_is_rows_of_routes_with_a_reason_and_1_where_no_route_clears_a_gate(tmp_path: Path) -> None:
    words = ("suggest", write_report(tmp_path), "--min-pass", "0.9", "--min-pass", "cheap=0.75")
    done = bulkhead(tmp_path, *words)
    assert done.exit_code == 0, done.output
    row = {"provider": "openai", "model": "m-small-1", "temperature": 0.0}
    assert yaml.safe_load(done.stdout) == {"cheap": row}
    assert "# default: large is the cheapest on the frontier of 2 routes" in done.stdout
    assert "copy its row of BULKHEAD_ROUTES" in done.stdout
    document = json.loads(bulkhead(tmp_path, *words, "--json").stdout)
    assert document["routes"] == {"cheap": row} and document["chosen"] == {"default": "large", "cheap": "small"}
    none = bulkhead(tmp_path, "suggest", write_report(tmp_path), "--min-pass", "0.95")
    assert none.exit_code == 1 and "the nearest is large with 92.0%" in none.stdout, none.output


@pytest.mark.parametrize(
    ("changes", "gates", "says"),
    [
        ({}, ("1.5",), "is no share of a tier"),
        ({}, ("0.9", "default=0.8"), "named twice"),
        ({"runs": 3}, ("0.9",), "has 3 of 4 runs"),
        ({"routes": [report_row("a\nb: c", 0.9, 1)]}, ("0.9",), "is no report of eval models"),
        ({"routes": [report_row("a", 0.9, -1)]}, ("0.9",), "is no report of eval models"),
    ],
)
def test_a_report_or_a_gate_that_does_not_fit_is_wrong_usage(
    tmp_path: Path, changes: dict[str, object], gates: tuple[str, ...], says: str
) -> None:
    words = [word for gate in gates for word in ("--min-pass", gate)]
    done = bulkhead(tmp_path, "suggest", write_report(tmp_path, **changes), *words)
    assert done.exit_code == 2 and says in " ".join(done.stderr.split()), done.output


def test_models_are_compared_on_routes_that_are_there(tmp_path: Path) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text(json.dumps(ROW))
    for routes, says in ((("a", "a"), "no list of different routes"), ((), "--route")):
        done = bulkhead(tmp_path, "models", str(file), *(word for name in routes for word in ("--route", name)))
        assert done.exit_code == 2 and says in done.stderr, done.output
