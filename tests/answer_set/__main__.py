"""Score a model on the set of answers: `python -m tests.answer_set --model scripted:terse`.

In: a model and, if wanted, ids of questions. Out: outcomes by kind of question, for wrong answers also by flaw; with
--json a row per task.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.answer_set.questions import FLAWS, KINDS, load
from tests.answer_set.running import MODELS, Row, run

OUTCOMES = (
    *("right_plain", "right_marked", "mixed_plain", "mixed_marked", "abstains_plain", "abstains_marked"),
    *("wrong_marked", "wrong_plain"),
    *("thrown_away", "refused", "failed"),
)


def counts(rows: Iterable[Row], name: Callable[[Row], str]) -> dict[str, Counter[str]]:
    """Outcomes by a name of the row, and `all`."""
    found: dict[str, Counter[str]] = {}
    for row in rows:
        for key in (name(row), "all"):
            found.setdefault(key, Counter())[row.outcome] += 1
    return found


def caught(rows: Iterable[Row]) -> dict[str, tuple[int, int]]:
    """By flaw: wrong answers that do not stand as plain `succeeded`, of how many."""
    found = {}
    for flaw in FLAWS:
        those = [row for row in rows if row.flaw == flaw]
        if those:
            found[flaw] = (sum(row.outcome != "wrong_plain" for row in those), len(those))
    return found


def _table(title: str, found: dict[str, Counter[str]], order: Iterable[str]) -> None:
    shown = [outcome for outcome in OUTCOMES if found["all"][outcome]]
    print(f"{title:26}{'tasks':>6}" + "".join(f"{outcome:>16}" for outcome in shown))
    for key in (*order, "all"):
        if key in found:
            cells = "".join(f"{found[key][outcome]:>16}" for outcome in shown)
            print(f"{key:26}{found[key].total():>6}{cells}")


def main() -> int:
    """Parse, run, show."""
    parser = argparse.ArgumentParser(prog="python -m tests.answer_set", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="rules", help="what answers")
    parser.add_argument("--questions", nargs="+", default=[], metavar="ID", help="these questions alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a row per task there")
    asked = parser.parse_args()
    known = {question.id: question for question in load()}
    if unknown := set(asked.questions) - set(known):
        parser.error(f"no such question: {', '.join(sorted(unknown))}; tests/answer_set/questions.yaml has them")
    chosen = tuple(known[name] for name in asked.questions or known)
    with tempfile.TemporaryDirectory(prefix="bulkhead-answers-") as folder:
        rows = asyncio.run(run([asked.model], chosen, Path(folder)))
    by_kind = counts(rows, lambda row: row.kind)
    calls = sum(row.model_calls for row in rows) / len(rows)
    flaws = caught(rows)
    if asked.json:
        report = {"model": asked.model, "model_calls_per_task": round(calls, 2), "by_kind": by_kind, "caught": flaws}
        asked.json.write_text(json.dumps(report | {"rows": [row.json for row in rows]}, indent=1, ensure_ascii=False))
    _table(f"{asked.model}, by kind", by_kind, KINDS)
    print(f"{calls:.1f} model calls per task")
    for flaw, (count, of) in flaws.items():
        print(f"caught {flaw:26}{count:>4} of {of}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
