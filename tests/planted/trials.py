"""One bug, planted, and the suite that should see it: until that is known.

In: a copy of the tree and what runs it, a bug. Out: a Finding. A machine that is slow or busy makes no verdict: a
command whose time was up is held against the same command without the bug, and asked again with more time when that
was slow as well.
"""

from dataclasses import replace
from pathlib import Path

from . import suites, trees
from .bugs import Bug
from .running import Runner
from .suites import Finding, Limits

HANGS = 10
"""So many times as long as without the bug: it hangs, which is caught."""
TRIES = 2
CONTROL_SEEDS = 3


def narrow(runner: Runner, clean: Path, bug: Bug, tree: Path, limits: Limits | None = None) -> Finding:
    """With the bug in the tree."""
    limits = limits or Limits()
    for _ in range(TRIES):
        with trees.planted(clean, bug, tree):
            found = suites.narrow(runner, bug, limits)
        if not found.late:
            return found
        without = suites.narrow(runner, bug, limits)
        if without.caught is not False:
            return replace(found, by=f"{found.by}; nor is it well without the bug: {without.by}")
        if found.seconds > HANGS * without.seconds:
            told = f"it hangs: {found.seconds:.0f} s, {without.seconds:.0f} s without the bug"
            return replace(found, caught=True, by=told, late=False)
        limits = limits.longer()
    return replace(found, by=f"{found.by}, twice; {without.seconds:.0f} s without the bug")


def control(runner: Runner, bug: Bug) -> Finding:
    """The same without the bug: it must pass."""
    if bug.suite == "simulation":
        first = int(bug.seeds.partition("-")[0])
        bug = replace(bug, seeds=f"{first}-{first + CONTROL_SEEDS - 1}")
    return suites.narrow(runner, bug, Limits())
