"""The planted bugs, as their files describe them.

In: bugs/*.toml, one each. Out: Bug values whose edits are known to fit the tree; or BadBug, which says what to mend.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePath

FOLDER = Path(__file__).with_name("bugs")
SUITES = ("playbooks", "contract", "integration", "simulation", "e2e")
"""What can catch a bug, the quickest first."""
_KEYS = {"what", "why", "caught_by", "tests", "seeds", "edit"}


class BadBug(ValueError):
    """A bug's file that cannot be used, or whose text the tree does not hold any more."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One text that stands exactly once, and what takes its place.

    file: a path, or a pattern (services/bulkhead_services/worker/*.py), so that code may move from file to file within
    a service.
    """

    file: str
    find: str
    replace: str

    def apply(self, root: Path, changed: dict[str, str]) -> None:
        """Make the mistake, in `changed` (text by path), over what stands there already. Raises BadBug."""
        held = {str(path.relative_to(root)): path.read_text() for path in sorted(root.glob(self.file))} | {
            name: text for name, text in changed.items() if PurePath(name).match(self.file)
        }
        where = [name for name, text in held.items() for _ in range(text.count(self.find))]
        if len(where) != 1:
            first = self.find.strip().splitlines()[0]
            raise BadBug(
                f"{self.file}: the text to find ({first!r} ...) stands there {len(where)} times, not once; "
                "adapt `find` (and `replace`) to the code as it is now"
            )
        changed[where[0]] = held[where[0]].replace(self.find, self.replace)


@dataclass(frozen=True, slots=True)
class Bug:
    """One mistake. suite: what must catch it; tests: pytest's arguments; seeds: the simulation's range (A-B)."""

    name: str
    what: str
    why: str
    suite: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...] = ()
    seeds: str = ""

    def texts(self, root: Path) -> dict[str, str]:
        """The changed files, whole. Several edits of one file come one after another. Raises BadBug."""
        changed: dict[str, str] = {}
        for edit in self.edits:
            try:
                edit.apply(root, changed)
            except BadBug as error:
                raise BadBug(f"bug {self.name}: {error}") from error
        return changed


def load(names: tuple[str, ...] = (), folder: Path = FOLDER) -> list[Bug]:
    """The bugs of these names, or all, by name. Raises BadBug."""
    found = {file.stem: file for file in sorted(folder.glob("*.toml"))}
    if unknown := [name for name in names if name not in found]:
        raise BadBug(f"no bug is called {', '.join(unknown)}; `python -m tests.planted --list` shows them all")
    return [_read(found[name]) for name in (names or found)]


def _read(file: Path) -> Bug:
    try:
        row = tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise BadBug(f"{file.name}: {error}") from error
    try:
        edits = tuple(Edit(one["file"], one["find"], one["replace"]) for one in row["edit"])
        bug = Bug(
            file.stem,
            row["what"],
            row["why"],
            row["caught_by"],
            edits,
            tuple(row.get("tests", ())),
            row.get("seeds", ""),
        )
    except KeyError as error:
        raise BadBug(f"{file.name}: {error} is missing; look at another bug's file") from error
    if strange := row.keys() - _KEYS:
        raise BadBug(f"{file.name}: unknown: {', '.join(sorted(strange))}")
    if bug.suite not in SUITES:
        raise BadBug(f"{file.name}: caught_by = {bug.suite!r}; one of {', '.join(SUITES)}")
    if bug.suite == "simulation":
        first, _, last = bug.seeds.partition("-")
        if not (first.isdigit() and last.isdigit() and int(last) - int(first) >= 50):
            raise BadBug(
                f"{file.name}: seeds = {bug.seeds!r}; write a range of 50 seeds or more: one seed that "
                "happens to show a bug today shows nothing tomorrow"
            )
    elif not bug.tests:
        raise BadBug(f"{file.name}: tests = [...] must name the tests that catch it")
    return bug
