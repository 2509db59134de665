"""Case files: both forms, and what is said of one that does not fit."""

import json
from pathlib import Path

import pytest

from bulkhead.evaluation.cases import CaseError, EvaluationCase, digest_cases, load_cases
from bulkhead.evaluation.drift import PROBE

ROW = {"name": "late", "objective": "What is refunded?", "documents": ["terms.md"], "checks": [{"contains": "40 EUR"}]}


def test_yaml_and_jsonl_say_the_same_and_documents_lie_beside_the_file(tmp_path: Path) -> None:
    other = {**ROW, "name": "other", "documents": [], "checks": [{"equals_number": 4}, {"cites": "terms.md"}]}
    files = {"a.yaml": json.dumps([ROW, other]), "b.yml": json.dumps({"cases": [ROW, other]})}
    files["c.jsonl"] = f"{json.dumps(ROW)}\n\n{json.dumps(other)}\n"
    found = set()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        found.add(load_cases(tmp_path / name))
    ((first, second),) = found
    assert first.documents == (str(tmp_path / "terms.md"),) and [one.kind for one in second.checks] == [
        "equals_number",
        "cites",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no YAML"),
        ("a: 1", "no list of cases"),
        ("[]", "has 0 cases"),
        (json.dumps([ROW, ROW]), "several cases are called late"),
        (json.dumps([ROW, 7]), "case 2: must be an object"),
        (json.dumps([{**ROW, "objektive": "x"}]), "case 1 (late): objektive: unknown field; did you mean objective?"),
        (json.dumps([{**ROW, "checks": []}]), "case 1 (late): checks: must hold at least 1"),
        (json.dumps([{**ROW, "checks": [{"contain": "x"}]}]), "did you mean contains?"),
        (json.dumps([{**ROW, "checks": [{"contains": "x", "regex": "y"}]}]), "must have exactly one of contains"),
        (json.dumps([{**ROW, "checks": [{"contains": None}]}]), "must have exactly one of contains"),
        (json.dumps([{**ROW, "checks": [{"regex": "("}]}]), "regex '(' is none"),
        (json.dumps([{**ROW, "checks": [{"regex": "(?=x)y"}]}]), "RE2 has no lookaround"),
        ("a: &a [x]\ncases: [*a, *a]", "an alias, which a set may not have"),
        (json.dumps([{**ROW, "checks": [{"json_schema": {"type": "x"}}]}]), "json_schema is no schema"),
        (json.dumps([{**ROW, "name": "a b"}]), "name: must match"),
        (json.dumps([{**ROW, "checks": [{"reference_overlap": 0.5}]}]), "needs references"),
        (json.dumps([{**ROW, "checks": [{"python": "checks.txt:f"}]}]), "python: must match"),
        (json.dumps([{**ROW, "input": "x"}]), "input: unknown field"),
    ],
)
def test_what_does_not_fit_is_told_by_case_and_field(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "cases.yaml"
    path.write_text(text)
    with pytest.raises(CaseError) as caught:
        load_cases(path)
    assert says in str(caught.value) and caught.value.hint


@pytest.mark.parametrize("document", ["/etc/passwd", "../secret.md", "sub/../../secret.md", "link.md", "a\0b"])
def test_documents_outside_the_folder_of_the_set_are_refused(tmp_path: Path, document: str) -> None:
    (tmp_path / "secret.md").write_text("x")
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    path = folder / "cases.jsonl"
    path.write_text(json.dumps({**ROW, "documents": [document]}))
    with pytest.raises(CaseError, match="does not lie in the folder of the set"):
        load_cases(path)
    (folder / "sub" / "terms.md").write_text("x")
    path.write_text(json.dumps({**ROW, "documents": ["sub/../sub/terms.md"]}))
    assert load_cases(path)


def test_a_file_that_is_not_there_and_a_line_that_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"cannot be read.*No such file"):
        load_cases(tmp_path / "none.yaml")
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps(ROW) + "\n{\n")
    with pytest.raises(CaseError, match="line 2 is no JSON"):
        load_cases(path)


def test_the_probes_own_questions_fit() -> None:
    found = load_cases(PROBE)
    assert len(found) == 5 and all(isinstance(one, EvaluationCase) and not one.documents for one in found)


def test_a_golden_set_has_inputs_and_its_digests_follow_what_is_judged(tmp_path: Path) -> None:
    (tmp_path / "terms.md").write_text("40 EUR")
    (tmp_path / "checks.py").write_text("def check(answer): return True\n")
    row = {**ROW, "input": ROW["objective"], "checks": [{"python": "checks.py:check"}], "tags": ["a"], "origin": "hand"}
    del row["objective"]
    path = tmp_path / "cases.jsonl"

    def digest(**changes: object) -> str:
        path.write_text(json.dumps(row | changes))
        digests = digest_cases(load_cases(path), {})
        inputs.add(digests.inputs["late"])
        return digests.wholes["late"]

    inputs = set[str]()
    first = digest()
    assert first == digest(tags=["b"], origin="task 7") and first != digest(references=["40 EUR"])
    (tmp_path / "terms.md").write_text("50 EUR")
    second = digest()
    (tmp_path / "checks.py").write_text("def check(answer): return False\n")
    assert len({first, second, digest()}) == 3
    assert len(inputs) == 3, "the checks are no input"
    (tmp_path / "terms.md").unlink()
    with pytest.raises(CaseError, match=r"terms\.md cannot be read"):
        digest()
