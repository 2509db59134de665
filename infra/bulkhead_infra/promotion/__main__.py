"""`python -m bulkhead_infra.promotion`: from one build to production.

In: a registry (--registry or BULKHEAD_REGISTRY: HOST/PREFIX), a release (its digest, its version, or the file that
`build --out` wrote). Out: what was done, as text or with --json. Exit codes: 0; 1 it could not be done; 2 wrong usage;
3 the registry was not reached; 4 refused.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bulkhead_infra.docker.image_contents import ROOT
from bulkhead_infra.promotion import build, checks, keys, promote, suite
from bulkhead_infra.promotion.errors import PromotionError, Refused, WrongUsage
from bulkhead_infra.promotion.overlay import Overlay
from bulkhead_infra.promotion.registry.client import Registry
from bulkhead_infra.promotion.release import BUILD, ENVIRONMENTS, Stored, load
from bulkhead_infra.promotion.statements import PASSED, TestRun

REGISTRY_VARIABLE = "BULKHEAD_REGISTRY"
OVERLAYS, SIGNERS = ROOT / "infra/kubernetes/overlays", ROOT / "infra/kubernetes/signers"
Answer = tuple[Mapping[str, Any], str]
"""A command's document, and the same for people."""


def _build(asked: argparse.Namespace, registry: Registry) -> Answer:
    stored = build.build(registry, asked.revision, asked.version, asked.images or ())
    if asked.out:
        asked.out.write_text(stored.model_dump_json(indent=1) + "\n")
    lines = [f"{digest}  {name}" for name, digest in sorted(stored.release.images.items())]
    return {"release": stored.digest, **stored.release.model_dump()}, "\n".join([_told(stored), *lines])


def _test(asked: argparse.Namespace, registry: Registry) -> Answer:
    run = suite.run(registry, _release(asked, registry), asked.suite, asked.pytest or [checks.TESTS_OF_IMAGES])
    asked.out.write_text(run.model_dump_json(indent=1) + "\n")
    text = f"{run.result}: {len(run.passed)} passed, {len(run.failed)} failed, {run.skipped} skipped; {asked.out}"
    if run.result != PASSED:
        raise PromotionError("tests_failed", f"{asked.suite} did not pass", text, "Mend it, and build a release anew")
    return run.model_dump(), text


def _attest(asked: argparse.Namespace, registry: Registry) -> Answer:
    stored, key = _release(asked, registry), keys.read_key(asked.key)
    build.attest_origin(registry, stored, key)
    if asked.tests:
        build.attest_tests(registry, stored, _result(asked.tests), key)
    return {"release": stored.digest, "signer": key.id}, f"{_told(stored)}: attested by {key.id}"


def _sign(asked: argparse.Namespace, registry: Registry) -> Answer:
    stored, key = _release(asked, registry), keys.read_key(asked.key)
    build.sign_all(registry, stored, key, keys.Trust.read(asked.trust), partly=asked.partial)
    return {"release": stored.digest, "signer": key.id}, f"{_told(stored)}: signed by {key.id}"


def _verify(asked: argparse.Namespace, registry: Registry) -> Answer:
    stored = load(registry, asked.stage, _reference(asked.release))
    trust = keys.Trust.read(asked.trust)
    found = checks.examine(registry, stored, trust, partly=asked.partial)
    rows, told = _runs(registry, stored, trust)
    refusals = [one.document() for one in found]
    document = {"release": stored.digest, "stage": asked.stage, "tests": rows, "refusals": refusals}
    if found:
        print(json.dumps(document) if asked.json else "\n".join(f"{one.code}: {one}" for one in found))
        checks.refuse(found)
    return document, f"{_told(stored)} in {asked.stage}: every check holds{told}"


def _promote(asked: argparse.Namespace, registry: Registry) -> Answer:
    key, trust = keys.read_key(asked.key), keys.Trust.read(asked.trust)
    reference = _reference(asked.release)
    expected = () if asked.partial else checks.ALL
    entry = promote.promote(
        registry, reference, asked.to, key, trust, asked.overlays, expected=expected, partly=asked.partial
    )
    return {"environment": asked.to, **entry.model_dump()}, f"{asked.to} has {entry.version} {entry.release}"


def _rollback(asked: argparse.Namespace, registry: Registry) -> Answer:
    key, trust = keys.read_key(asked.key), keys.Trust.read(asked.trust)
    entry = promote.rollback(registry, asked.environment, key, trust, asked.overlays, partly=asked.partial)
    text = f"{asked.environment} has {entry.version} {entry.release} again, instead of {entry.previous}"
    return {"environment": asked.environment, **entry.model_dump()}, text


def _status(asked: argparse.Namespace, registry: Registry) -> Answer:
    found = {name: _environment(Overlay(asked.overlays / name), registry, name, asked.trust) for name in ENVIRONMENTS}
    return {name: row for name, (row, _) in found.items()}, "\n".join(text for _, text in found.values())


def _environment(overlay: Overlay, registry: Registry, name: str, signers: Path) -> Answer:
    stack, history = overlay.stack(), overlay.history()
    if not stack:
        return {"release": None}, f"{name}: nothing was promoted"
    stored, last = load(registry, name, stack[-1]), history[-1]
    places = {image: place.rpartition("@")[2] for image, place in overlay.images().items()}
    fits = places == stored.release.images
    row = {"release": stored.digest, "last": last.model_dump(), "back_to": stack[-2:-1], "images_fit": fits}
    row["tests"], told = _runs(registry, stored, keys.Trust.read(signers))
    text = f"{name}: {last.version} {stored.digest}, {last.action} by {last.by} at {last.at}"
    return row, (text if fits else f"{text}; images.yaml has other digests: promote it again") + told


def _runs(registry: Registry, stored: Stored, trust: keys.Trust) -> tuple[list[dict[str, Any]], str]:
    """Attested runs of tests with their arguments; none where they cannot be read, which `verify` says."""
    try:
        rows = checks.runs(registry, stored, trust)
    except Refused:
        return [], ""
    lines = [
        f"  {row['suite']} {row['result']}{'' if row['whole'] else ' in part'}: "
        f"pytest {' '.join(row['arguments'] or ())}, by {row['by']} at {row['finishedOn']}"
        for row in rows
    ]
    return rows, "".join(f"\n{line}" for line in lines)


def _key(asked: argparse.Namespace, _: Registry) -> Answer:
    secret, public = keys.make_key(asked.role, asked.folder)
    text = f"{secret} signs; keep it secret\n{public} verifies; put it into {SIGNERS.relative_to(ROOT)}/"
    return {"private": str(secret), "public": str(public)}, text


def _told(stored: Stored) -> str:
    return f"release {stored.release.version} {stored.digest} ({len(stored.release.images)} images)"


def _reference(text: str) -> str:
    """The digest that a file of `build --out` has; else what was given."""
    try:
        return Stored.model_validate_json(Path(text).read_bytes()).digest if Path(text).is_file() else text
    except (OSError, ValidationError) as error:
        why = str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else error.strerror or str(error)
        then = "Name the file that `build --out` wrote"
        raise WrongUsage("release", f"{text[:100]} is no release", why, then) from error


def _release(asked: argparse.Namespace, registry: Registry) -> Stored:
    return load(registry, BUILD, _reference(asked.release))


def _result(file: Path) -> TestRun:
    try:
        return TestRun.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        then = "Name the file that `test --out` wrote"
        raise WrongUsage("result", f"{file} is no test result", str(error), then) from error


def parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--registry", default=os.environ.get(REGISTRY_VARIABLE, ""), metavar="HOST/PREFIX")
    shared.add_argument("--json", action="store_true", help="print the answer, or the error, as JSON")
    shared.add_argument("--trust", type=Path, default=SIGNERS, metavar="DIR", help="folder of public keys")
    shared.add_argument("--overlays", type=Path, default=OVERLAYS, metavar="DIR", help="folder of environments")
    signing = argparse.ArgumentParser(add_help=False)
    signing.add_argument("--key", type=Path, metavar="FILE", help=f"private key; else {keys.KEY_VARIABLE} holds it")
    made = argparse.ArgumentParser(prog="python -m bulkhead_infra.promotion", description=__doc__)
    commands = made.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, call: Callable[..., Answer], told: str, *parents: Any, more: str = ""
    ) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=told, description=told, epilog=more, parents=[shared, *parents])
        one.set_defaults(call=call)
        if name in ("test", "attest", "sign", "verify", "promote"):
            one.add_argument("release", help="digest, version, or the file that `build --out` wrote")
        if name in ("sign", "verify", "promote", "rollback"):
            told = "let a release through that lacks images or was tested in part, for a dry run"
            one.add_argument("--partial", action="store_true", help=told)
        return one

    one = command("build", _build, "Build all images of a commit, push them, and store their release")
    one.add_argument("--revision", default="HEAD", help="git commit (HEAD)")
    one.add_argument("--version", default="", help="name of the release (date and commit)")
    one.add_argument("--images", nargs="+", metavar="NAME", help="some images, for a dry run")
    one.add_argument("--out", type=Path, metavar="FILE", help="write the release there")
    one = command(
        "test",
        _test,
        "Run a suite on the images of a release, by digest",
        more=f"After -- stand arguments of pytest ({checks.TESTS_OF_IMAGES}).",
    )
    one.add_argument("--suite", default=checks.SUITE, help=f"its name ({checks.SUITE})")
    one.add_argument("--out", type=Path, required=True, metavar="FILE", help="write the result there")
    one = command("attest", _attest, "Attest origin, materials and tests of a release", signing)
    one.add_argument("--tests", type=Path, metavar="FILE", help="the file that `test --out` wrote")
    command("sign", _sign, "Sign a release that is attested and tested", signing)
    one = command("verify", _verify, "Examine a release")
    one.add_argument("--in", dest="stage", choices=(BUILD, *ENVIRONMENTS), default=BUILD)
    one = command("promote", _promote, "Copy a release to an environment, by digest", signing)
    one.add_argument("--to", required=True, choices=tuple(ENVIRONMENTS))
    one = command("rollback", _rollback, "Go back to the release that an environment had before", signing)
    one.add_argument("environment", choices=tuple(ENVIRONMENTS))
    command("status", _status, "Show what each environment has")
    one = command("key", _key, "Make a key pair")
    one.add_argument("role", help=f"{', '.join(keys.ROLES)}; a dash and more may follow")
    one.add_argument("folder", type=Path)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    end = given.index("--") if "--" in given else len(given)
    asked = parser().parse_args(given[:end])
    asked.pytest = given[end + 1 :]
    try:
        with Registry(asked.registry or "localhost/none" if asked.call is _key else asked.registry) as registry:
            document, text = asked.call(asked, registry)
    except PromotionError as error:
        print(json.dumps({"error": error.document()}) if asked.json else error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(document) if asked.json else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
