"""Folders of the repository that tests read, found once: a test may then move without counting its parents."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "contracts" / "examples"
HISTORIES = ROOT / "tests" / "replay" / "histories"
