"""Files of pins, and of rows beside them. In: a path, a text or pins. Out: the file, whole or as it was."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from bulkhead_cli.output import CommandError, Exit


def write_pins(path: Path, pins: Mapping[str, BaseModel]) -> None:
    """The pins by name. Raises CommandError."""
    rows = {name: pin.model_dump() for name, pin in sorted(pins.items())}
    replace_file(path, json.dumps(rows, indent=1, ensure_ascii=True) + "\n")


def replace_file(path: Path, text: str) -> None:
    """Raises CommandError for a place that cannot be written."""
    new = path.with_suffix(".new")
    try:
        new.write_text(text)
        new.replace(path)
    except OSError as error:
        problem = f"{path} cannot be written: {error.strerror}"
        raise CommandError(Exit.FAILED, problem, "name a place that you may write") from error
