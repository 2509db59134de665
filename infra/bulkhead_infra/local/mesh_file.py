"""mesh.json of a running mesh, kept true. In: what it is to hold. Out: the file, written when that has changed."""

from collections.abc import Callable
from typing import Any

from bulkhead_infra.local.rundir import RunDir


class MeshFile:
    """Writes nothing before `begins` is set: until then the file tells of the run before."""

    def __init__(self, run: RunDir, facts: Callable[[], dict[str, Any]], say: Callable[[str], None]) -> None:
        self.begins = False
        self._run, self._facts, self._say = run, facts, say
        self._written: dict[str, Any] = {}

    def write(self) -> None:
        """A full disk is said, and does not stop the supervision."""
        if not self.begins or (facts := self._facts()) == self._written:
            return
        try:
            self._run.write_mesh(facts)
            self._written = facts
        except OSError as error:
            self._say(f"{self._run.path} cannot be written: {error.strerror}; free space there")
