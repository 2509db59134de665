"""Contents of images, from the rows of services.yaml.

In: the rows. Out: infra/bulkhead_infra/docker/services.json, the code and the packages that each image has beside those
of every service, for a build that has no YAML.
"""

import json
from pathlib import Path

from bulkhead_infra.services import EVERY_SERVICE, SERVICES, ServiceDefinition


def _row_contents(row: ServiceDefinition) -> dict[str, tuple[str, ...]]:
    return {"code": row.code, "packages": row.packages}


def files(root: Path) -> dict[str, str]:
    contents = {
        "everywhere": {name: _row_contents(row) for name, row in SERVICES.items()},
        "kubernetes": {name: _row_contents(row) for name, row in EVERY_SERVICE.items() if name not in SERVICES},
    }
    return {"infra/bulkhead_infra/docker/services.json": json.dumps(contents, indent=1) + "\n"}
