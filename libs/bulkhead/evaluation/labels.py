"""Answers that people have labelled, as the files that a calibration reads. Pure.

In: rows of `GET /v1/labels/export`. Out: the text of each file, by its path: one of JSON Lines, and beside it a folder
with what the answers cite.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

_NO_FILE_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
MAX_NAME_CHARS = 60


def build_label_files(rows: Iterable[Mapping[str, Any]], name: str) -> dict[str, str]:
    """Files of labelled answers. name: of the file of JSON Lines, `labels.jsonl`."""
    folder = PurePosixPath(name).stem + ".documents"
    lines, files = [], dict[str, str]()
    for row in rows:
        paths = []
        for document in row["documents"]:
            # Two names that look alike as files are two files.
            digest = hashlib.sha256(document["name"].encode()).hexdigest()[:8]
            base = _NO_FILE_NAME.sub("_", document["name"]).strip("._")[:MAX_NAME_CHARS] or "source"
            path = f"{folder}/{row['id']}/{digest}-{base}.txt"
            files[path] = document["text"]
            paths.append(path)
        lines.append(json.dumps({**row, "documents": paths}, ensure_ascii=False) + "\n")
    return {name: "".join(lines), **files}
