"""`python -m infra.render [--check]`: write the generated files, or say which differ from what they should be."""

import argparse
import sys
from pathlib import Path

from infra.render import asyncapi, readmes, schemas

ROOT = Path(__file__).resolve().parents[2]


def wanted() -> dict[Path, str]:
    """Every generated file with its text."""
    found: dict[str, str] = {}
    found.update(schemas.files())
    found.update(asyncapi.files())
    found.update(readmes.files(ROOT))
    return {ROOT / name: text for name, text in found.items()}


def main() -> int:
    """Exit code 0, or 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(prog="render", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a file is out of date")
    check = parser.parse_args().check
    files = wanted()
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text() != text]
    folders = {path.parent for path in files if path.parent.name == "schemas"}
    stray = [path for folder in folders if folder.is_dir() for path in folder.glob("*.json") if path not in files]
    for path in (*stale, *stray):
        print(f"{'differs' if check else 'written'}: {path.relative_to(ROOT)}", file=sys.stderr)
    if check:
        if stale or stray:
            print("generated files are out of date: run `make render` and commit the result", file=sys.stderr)
        return 1 if stale or stray else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
    for path in stray:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
