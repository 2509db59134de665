"""Recorded runs and their labels: what the table says of them."""

import json
from pathlib import Path

import pytest

from tests.health_set.__main__ import main


def _record(folder: Path, name: str, results: list[str]) -> None:
    rows = [{"agent": "a", "action": "read", "arguments": {"file": "plan"}, "result": result} for result in results]
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def _score(folder: Path, labels: dict[str, object]) -> int:
    (folder / "labels.json").write_text(json.dumps(labels))
    return main(["--folder", str(folder), "--labels", str(folder / "labels.json")])


def test_each_label_is_counted_where_it_belongs(tmp_path, capsys) -> None:
    _record(tmp_path, "x/works", ["part one", "the second part", "what comes third", "a fourth", "the end"])
    _record(tmp_path, "x/goes_on", ["same"] * 6)
    _record(tmp_path, "x/loops", ["other", *["same"] * 6])
    _record(tmp_path, "x/late", ["same"] * 9)
    looping = {"label": "looping", "period": 1}
    assert (
        _score(
            tmp_path,
            {
                "x/works": {"label": "honest"},
                "x/goes_on": {"label": "honest"},
                "x/unclear": {"label": "doubtful"},
                "x/loops": looping | {"start": 1},
                "x/late": looping | {"start": 4},
            },
        )
        == 0
    )
    told = capsys.readouterr().out
    assert "| x | 2 | 1 | 1 | 2 | 1 | 2 | 1 |" in told and "Precision 0.6667, recall 0.5." in told
    assert "x/goes_on: stopped by loop.repeat at row 3" in told and "x/late: stopped by loop.repeat after 0.0" in told


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ({"label": "fine"}, "write honest, looping or doubtful"),
        ({"label": "looping", "start": 2}, "write both, in rows"),
    ],
)
def test_a_label_that_does_not_fit_is_refused(tmp_path, label, said) -> None:
    _record(tmp_path, "x/run", ["same"])
    with pytest.raises(ValueError, match=said):
        _score(tmp_path, {"x/run": label})
