"""Extras of the package and contents of images, from the rows of services.yaml.

In: the rows, and pyproject.toml as it stands. Out: pyproject.toml with the extras of services renewed between two
markers, and infra/bulkhead_infra/docker/services.json: the code that each image has beside its service's own folder,
for a build that has no YAML.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from bulkhead_infra.docker.image_contents import extra_of
from bulkhead_infra.services import EVERY_SERVICE, SERVICES

BEGIN = "# The extras of services, rendered by `make render` from infra/bulkhead_infra/services.yaml."
END = "# End of the extras of services."


def extras() -> str:
    """One extra per service, and one with all of them."""
    packages = {extra_of(name): row.extra for name, row in EVERY_SERVICE.items()}
    whole = f"bulkhead[{','.join(sorted(packages))}]"
    lines = [f"{extra} = [{_quoted(packages[extra])}]" for extra in sorted(packages)]
    return "\n".join([f"services = [{_quoted([whole])}]", *lines])


def files(root: Path) -> dict[str, str]:
    head, rest = (root / "pyproject.toml").read_text().split(BEGIN, 1)
    _, tail = rest.split(END, 1)
    code = {
        "everywhere": {name: row.code for name, row in SERVICES.items()},
        "kubernetes": {name: row.code for name, row in EVERY_SERVICE.items() if name not in SERVICES},
    }
    return {
        "pyproject.toml": f"{head}{BEGIN}\n{extras()}\n{END}{tail}",
        "infra/bulkhead_infra/docker/services.json": json.dumps(code, indent=1) + "\n",
    }


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)
