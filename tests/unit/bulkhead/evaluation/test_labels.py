"""Files of labelled answers."""

import json

from bulkhead.evaluation.labels import build_label_files


def test_documents_lie_beside_the_answers_under_names_of_their_own() -> None:
    names = ("../../etc/passwd", "..//../etc/passwd", "terms.md", "", "…")
    row = {
        "id": "t1",
        "question": "q",
        "answer": "ü",
        "labels": {"ann": "bad"},
        "documents": [{"name": name, "text": f"of {name}"} for name in names],
    }
    files = build_label_files([row], "labels.jsonl")
    [line] = files.pop("labels.jsonl").splitlines()
    written = json.loads(line)
    assert written["answer"] == "ü" and written["labels"] == {"ann": "bad"} and set(written["documents"]) == set(files)
    assert len(files) == len(names) and all(path.startswith("labels.documents/t1/") for path in files)
    assert not any(".." in path or path.count("/") != 2 for path in files)
    assert sorted(files.values()) == sorted(f"of {name}" for name in names)
