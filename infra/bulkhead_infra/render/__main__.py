"""`python -m bulkhead_infra.render [--check | --release]`: write the generated files, or say which are out of date.

--release also records today's schemas in contracts/released.json, which nothing else writes. Exit codes: 0; 1 when
places that name services disagree, with --check when a file is out of date, with --release when a released version has
gone or changed in a way that breaks.
"""

import argparse
import json
import sys
from pathlib import Path

from bulkhead_infra.kubernetes import chart
from bulkhead_infra.observability import dashboards
from bulkhead_infra.render import agreement, asyncapi, cluster, compose, readmes, reference, release, runbooks, schemas
from bulkhead_infra.services import EVERY_SERVICE, SERVICES
from bulkhead_services.gateway.http.openapi import openapi

ROOT = Path(__file__).resolve().parents[3]
OPENAPI_FILE, IMAGES_FILE = "contracts/openapi.json", "infra/bulkhead_infra/docker/services.json"


def generated_files() -> dict[Path, str]:
    """Every generated file with its text."""
    from_code = [part.files() for part in (schemas, asyncapi, compose, cluster, reference, dashboards)]
    from_tree = [part.files(ROOT) for part in (readmes, chart, runbooks)]
    own_files = {OPENAPI_FILE: _render_openapi(), IMAGES_FILE: _render_images()}
    return {ROOT / name: text for files in (*from_code, *from_tree, own_files) for name, text in files.items()}


def _render_openapi() -> str:
    """The gateway's HTTP API, as the gateway describes it."""
    return json.dumps(openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _render_images() -> str:
    """The code and the packages that each image has beside those of every service, for a build that has no YAML."""
    rows = {name: {"code": row.code, "packages": row.packages} for name, row in EVERY_SERVICE.items()}
    contents = {"everywhere": {name: rows[name] for name in SERVICES}}
    contents["kubernetes"] = {name: row for name, row in rows.items() if name not in SERVICES}
    return json.dumps(contents, indent=1) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="render", description=__doc__)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="change nothing; fail when a file is out of date")
    mode.add_argument("--release", action="store_true", help="also record today's schemas as released")
    options = parser.parse_args()
    if problems := agreement.find_disagreements(ROOT):
        print("\n".join(problems), file=sys.stderr)
        return 1
    return max(_write_files(check=options.check), _record_release() if options.release else 0)


def _record_release() -> int:
    findings = release.record_release(ROOT)
    for finding in findings:
        print(finding.message if finding.breaking else f"{finding.name}: recorded as changed", file=sys.stderr)
    if any(finding.breaking for finding in findings):
        print(f"{release.FILE} was not written", file=sys.stderr)
        return 1
    return 0


def _write_files(*, check: bool) -> int:
    files = generated_files()
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text() != text]
    folders = {path.parent for path in files if path.parent.name == "schemas"}
    stray = [path for folder in folders if folder.is_dir() for path in folder.glob("*.json") if path not in files]
    rendered = (path for path in (ROOT / chart.RENDERED_FOLDER).rglob("*") if path.is_file())
    stray += [path for path in rendered if path not in files]
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
