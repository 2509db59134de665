"""`make promote-dry-run`: every step of a promotion, and every refusal, against a registry on this machine.

In: Docker, docker-registry, two images of the commit that is checked out. Out: each command as it was called, with what
it said. Everything lies in a temporary folder; nothing of the repository is changed. Exit code 1 where a step ended
otherwise than it must.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkhead_infra.docker.images import DockerImageError
from bulkhead_infra.docker.stack import StackError, run_docker
from bulkhead_infra.promotion.__main__ import main as promotion
from bulkhead_infra.promotion.errors import PromotionError
from bulkhead_infra.promotion.registry.local import local_registry

IMAGES = ("nats", "planner")
SUITE = ("tests/e2e/containers/test_images.py", "-k", "anothers and (nats or planner)")
ROLES = ("release", "staging", "production", "release-stranger")


@dataclass
class DryRun:
    """A folder and a registry in which the steps are done. steps: what was called, and how it ended."""

    registry: str
    folder: Path
    quiet: bool
    steps: list[dict[str, Any]] = field(default_factory=list)

    def call(self, *arguments: str, refused: str = "", key: str = "") -> dict[str, Any]:
        """refused: the code of the refusal that must come; "" where it must not."""
        name, *rest = arguments
        signed = ("--key", str(self.folder / "keys" / f"{key}.pem")) if key else ()
        shown = " ".join((name, *rest, *(("--key", f"{key}.pem") if key else ()))).replace(f"{self.folder}/", "")
        places = ("--registry", self.registry, "--trust", str(self.folder / "signers"))
        overlays = ("--overlays", str(self.folder / "overlays"))
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            # First of all: what stands after `--` is pytest's.
            code = promotion([name, "--json", *places, *overlays, *signed, *rest])
        said: dict[str, Any] = json.loads((out.getvalue() if code == 0 else err.getvalue()).splitlines()[-1])
        error = said.get("error", {})
        well = error.get("code", "") == refused
        self.steps.append(
            {"command": shown, "exit_code": code, "as_expected": well, **({"error": error} if error else {})}
        )
        if not self.quiet:
            told = (
                f"refused ({error['code']}): {error['what']}: {error['why']}" if error else said.get("release", "done")
            )
            print(f"{'ok ' if well else 'NOT AS EXPECTED'} {shown}\n      {told}", flush=True)
        if not well:
            wanted = refused or "success"
            what, why = f"`{shown}` ended otherwise", f"{error.get('code', 'success')} instead of {wanted}"
            raise PromotionError("dry_run", what, why, "Mend it, and call `make promote-dry-run` again")
        return said

    def release(self, version: str) -> str:
        """Built and tested, its result beside it; the file that names it."""
        file = str(self.folder / f"{version}.json")
        self.call("build", "--version", version, "--out", file, "--images", *IMAGES)
        self.call("test", file, "--out", str(self.folder / f"{version}-tests.json"), "--", *SUITE)
        return file


def run(dry: DryRun) -> None:
    """All steps. Raises PromotionError."""
    keys, signers = dry.folder / "keys", dry.folder / "signers"
    signers.mkdir()
    for role in ROLES:
        (dry.folder / "overlays" / role).mkdir(parents=True)
        dry.call("key", role, str(keys))
        if role != "release-stranger":
            (signers / f"{role}.pub").write_bytes((keys / f"{role}.pub").read_bytes())
    first = dry.release("v1")
    dry.call("attest", first, key="release")
    dry.call("sign", first, key="release", refused="untested")
    dry.call("attest", first, "--tests", str(dry.folder / "v1-tests.json"), key="release")
    dry.call("promote", first, "--to", "staging", "--partial", key="staging", refused="unsigned")
    # Its tests are some of the suite: only a dry run lets that through.
    dry.call("sign", first, key="release", refused="untested")
    dry.call("sign", first, "--partial", key="release-stranger")
    dry.call("promote", first, "--to", "staging", "--partial", key="staging", refused="wrong_signer")
    dry.call("sign", first, "--partial", key="release")
    dry.call("promote", first, "--to", "staging", key="staging", refused="incomplete")
    dry.call("promote", first, "--to", "production", "--partial", key="production", refused="not_in_staging")
    second = dry.release("v2")
    dry.call("attest", second, "--tests", str(dry.folder / "v2-tests.json"), key="release")
    dry.call("sign", second, "--partial", key="release")
    for file in (first, second):
        dry.call("promote", file, "--to", "staging", "--partial", key="staging")
        dry.call("promote", file, "--to", "production", "--partial", key="production")
    dry.call("rollback", "production", "--partial", key="production")
    dry.call("verify", first, "--in", "production", "--partial")
    dry.call("status")
    _push_over(dry.registry)
    dry.call("promote", second, "--to", "staging", "--partial", key="staging", refused="altered")


def _push_over(registry: str) -> None:
    """Somebody pushes another image under the version of a release."""
    run_docker("pull", "--quiet", f"{registry}/build/planner:v1")
    run_docker("tag", f"{registry}/build/planner:v1", f"{registry}/build/planner:v2")
    run_docker("push", f"{registry}/build/planner:v2")
    run_docker("image", "rm", f"{registry}/build/planner:v1", f"{registry}/build/planner:v2")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bulkhead_infra.promotion.dry_run", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the steps as JSON")
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bulkhead-dry-run-") as name:
        folder = Path(name)
        steps: list[dict[str, Any]] = []
        try:
            with local_registry(folder) as host:
                run(DryRun(f"{host}/bulkhead", folder, asked.json, steps))
        except PromotionError as error:
            print(json.dumps({"error": error.document(), "steps": steps}) if asked.json else error, file=sys.stderr)
            return error.exit_code
        except (DockerImageError, StackError) as error:
            print(json.dumps({"error": str(error), "steps": steps}) if asked.json else error, file=sys.stderr)
            return 1
    print(json.dumps({"steps": steps}) if asked.json else f"{len(steps)} steps ended as they must")
    return 0


if __name__ == "__main__":
    sys.exit(main())
