"""An environment's files: images.yaml, which its manifests read, and promotions.jsonl, the history for rollbacks.

In: promotions. Out: `infra/kubernetes/overlays/<environment>/images.yaml` and a line of history. The history is a
stack: a promotion lays a release on top, a rollback takes the top away.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bulkhead.validation_errors import find_misfits
from bulkhead_infra.kubernetes.images import images_text, references
from bulkhead_infra.promotion.errors import PromotionError
from bulkhead_infra.promotion.release import Digest, Version

IMAGES_FILE, HISTORY_FILE = "images.yaml", "promotions.jsonl"


class Entry(BaseModel):
    """A line of the history. release: what the environment has from then on; previous: what it had before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["promote", "rollback"]
    release: Digest
    version: Version
    previous: Digest | None = None
    at: str
    by: str


class Overlay:
    """The folder of one environment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not folder.is_dir():
            why, then = f"there is no folder {folder}", "Call this in the repository, or name --overlays"
            raise PromotionError("no_overlay", "the environment has no files", why, then)

    def history(self) -> list[Entry]:
        """Oldest first. Raises PromotionError."""
        file = self._folder / HISTORY_FILE
        found = []
        for number, line in enumerate(file.read_text().splitlines() if file.is_file() else (), 1):
            try:
                found.append(Entry.model_validate_json(line))
            except ValidationError as error:
                what, why = f"{file}:{number} cannot be read", str(find_misfits(error, Entry)[0])
                raise PromotionError("bad_history", what, why, "Restore the file from git") from error
        return found

    def stack(self) -> list[str]:
        """Releases that a rollback can reach, the last is what the environment has. Raises PromotionError."""
        found: list[str] = []
        for number, entry in enumerate(self.history(), 1):
            if entry.action == "rollback":
                if found[-2:-1] != [entry.release]:
                    what, why = (
                        f"{self._folder / HISTORY_FILE}:{number} does not fit",
                        "nothing before it can be gone back to",
                    )
                    raise PromotionError("bad_history", what, why, "Restore the file from git")
                found.pop()
            elif not found or found[-1] != entry.release:
                found.append(entry.release)
        return found

    def images(self) -> Mapping[str, str]:
        """References by image, as its manifests have them."""
        file = self._folder / IMAGES_FILE
        return references(file.read_text()) if file.is_file() else {}

    def write(self, images: Mapping[str, str], entry: Entry) -> None:
        """images: references by image. Each file is replaced whole; called twice, it writes no second line."""
        self._replace(IMAGES_FILE, images_text(images))
        lines = [one.model_dump_json(exclude_none=True) for one in self.history()]
        if not lines or self.stack()[-1] != entry.release or entry.action == "rollback":
            self._replace(
                HISTORY_FILE, "".join(f"{line}\n" for line in [*lines, entry.model_dump_json(exclude_none=True)])
            )

    def _replace(self, name: str, text: str) -> None:
        part = self._folder / f"{name}.part"
        part.write_text(text)
        os.replace(part, self._folder / name)
