"""The version before this one, N-1: what stands beside this tree while a mesh is upgraded, or taken back.

In: the repository. Out: a revision and what it starts tasks with. The last revision before a new logic version differs
most from what replaces it, and must still work beside it; whoever releases moves it on.
"""

import subprocess

from infra.docker.contents import ROOT

PREVIOUS = "296b553de9d020aba23078c9e0a7820422e3f88c"
LOGIC = 3
"""The newest decision logic that it knows: one of the two newest of this tree."""


def has_history() -> bool:
    """Whether this clone holds that revision. Not in a shallow one: `git fetch --unshallow` brings it."""
    command = ["git", "-C", str(ROOT), "cat-file", "-e", f"{PREVIOUS}^{{commit}}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
