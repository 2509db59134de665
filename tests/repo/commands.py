"""A command of a page exists, with the options that the page gives it.

In: a line as a reader would type it. Out: nothing, or an AssertionError that names what there is not.
"""

import importlib.util
import re
import shlex

import typer
from typer.core import TyperGroup
from typer.main import get_command

from bulkhead_cli.main import app


def exists(line: str) -> None:
    """Of `bulkhead ...` and `python -m ...`."""
    words = [word for word in shlex.split(line.replace("...", "")) if word]
    if words[0] == "python":
        assert words[1] == "-m" and importlib.util.find_spec(words[2]), line
        return
    assert words[0] == "bulkhead", line
    found = get_command(app)
    context = typer.Context(found)
    for word in words[1:]:
        inner = found.get_command(context, word) if isinstance(found, TyperGroup) else None
        if inner is None:
            break
        found = inner
    assert found is not get_command(app) or words == ["bulkhead"] or words[1].startswith("--"), line
    known = {option for one in found.params for option in one.opts} | {"--help"}
    used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert used <= known, f"{line}: {sorted(used - known)}"
