"""Hooks of the site's builder: the version, and where the source of a page is once the repository has an address."""

import tomllib
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def on_config(config: Any) -> Any:
    """Read version and address from pyproject.toml. OWNER in an address: the repository has none yet."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    address = project["urls"]["Source"]
    config.site_name = f"Bulkhead {project['version']}"
    config.extra["source"] = "" if "OWNER" in address else f"{address}/blob/main/docs/"
    return config
