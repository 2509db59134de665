"""Build once: images of one commit, pushed by the machine's Docker, and their release.json.

In: a commit, a registry. Out: a release that lies in the registry, unsigned. The digests are those that the push
reported; what the registry then shows must hash to them.
"""

import json
import os
import re
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from bulkhead_infra.docker import image_contents, images
from bulkhead_infra.docker.stack import StackError, run_docker
from bulkhead_infra.promotion import checks
from bulkhead_infra.promotion.attachments import attest, sign
from bulkhead_infra.promotion.errors import PromotionError, WrongUsage
from bulkhead_infra.promotion.keys import SigningKey, Trust
from bulkhead_infra.promotion.registry.client import Registry, digest_of
from bulkhead_infra.promotion.release import ARTIFACT, BUILD, Base, Release, Stored, refuse_taken, store
from bulkhead_infra.promotion.statements import (
    MATERIALS,
    PROVENANCE,
    TESTS,
    TestRun,
    all_parts,
    now,
    provenance,
    run_address,
    statement,
    tests,
)

PUSH_TIMEOUT_S = 900.0
PUSHED = re.compile(r"digest: (sha256:[0-9a-f]{64})")
PINS = ("requirements.lock", "pyproject.toml")
"""Files of the revision that say what its images install."""
PYTHON = "import platform; print(platform.python_version())"
ALL = {image_contents.registry_name(name): name for name in image_contents.IMAGES}
"""Images of the code by their names in a registry."""


def build(registry: Registry, revision: str, version: str, names: Sequence[str] = ()) -> Stored:
    """names: images, all where none is named. Raises PromotionError."""
    if unknown := sorted(set(names) - set(ALL)):
        why = f"there are {', '.join(ALL)}"
        raise WrongUsage("image", f"`{unknown[0]}` is no image", why, "Name some of these, or none for all")
    commit = _git("rev-parse", "--verify", f"{revision}^{{commit}}").strip()
    date = _git("show", "-s", "--format=%cd", "--date=format:%Y%m%d", commit).strip()
    version = version or f"{date}-{commit[:12]}"
    refuse_taken(registry, version)
    started = now()
    try:
        base, reference = _base()
        built = images.ensure_images([ALL[name] for name in names or ALL], tag=version, revision=commit, base=reference)
        found = {
            image_contents.registry_name(name): _push(registry, name, image, version) for name, image in built.items()
        }
    except (images.DockerImageError, StackError) as error:
        raise PromotionError(
            "build_failed", "no release was built", str(error), "Mend that, and build again"
        ) from error
    release = Release(
        version=version,
        revision=commit,
        source=_source(),
        builder=_builder(),
        run=run_address(),
        started_at=started,
        finished_at=now(),
        base=base,
        images=found,
    )
    return store(registry, release)


def attest_origin(registry: Registry, stored: Stored, key: SigningKey) -> None:
    """Provenance and bill of materials of each image, signed. Raises PromotionError."""
    try:
        from bulkhead_infra.promotion import sbom
    except ImportError as error:
        why, then = str(error), "Run `make setup`, which installs cyclonedx-bom"
        raise PromotionError("no_cyclonedx", "no bill of materials can be made", why, then) from error
    with tempfile.TemporaryDirectory(prefix="bulkhead-pins-") as folder:
        root = Path(folder)
        for file in PINS:
            (root / file).write_text(_git("show", f"{stored.release.revision}:{file}"))
        lock = digest_of((root / PINS[0]).read_bytes())
        for name, digest in stored.release.images.items():
            repository = registry.repository(stored.stage, name)
            subject = {registry.name(repository): digest}
            origin = statement(subject, PROVENANCE, provenance(name, stored, lock))
            materials = statement(subject, MATERIALS, sbom.bill_of_materials(stored.release, name, root))
            attest(registry, repository, digest, key, origin, materials)


def attest_tests(registry: Registry, stored: Stored, run: TestRun, key: SigningKey) -> None:
    """One statement about the whole release, beside each of its parts. Raises WrongUsage."""
    if run.release != stored.digest:
        why = f"it was run on {run.release}"
        raise WrongUsage("other_result", f"the test result is not of {stored.digest}", why, "Test this release")
    said = statement(all_parts(registry, stored), TESTS, tests(stored, run))
    for name, digest in stored.parts.items():
        attest(registry, registry.repository(stored.stage, name), digest, key, said)


def sign_all(registry: Registry, stored: Stored, key: SigningKey, trust: Trust, *, partly: bool = False) -> None:
    """Sign each image and the release. Raises Refused for what is untested, altered or mixed."""
    checks.refuse(checks.examine(registry, stored, trust, signed=False, partly=partly))
    put_signatures(registry, stored, key)


def put_signatures(registry: Registry, stored: Stored, key: SigningKey) -> None:
    """Whatever is signed: `sign_all` examines it before."""
    # The release last: it is signed when all of its images are.
    for name, digest in sorted(stored.parts.items(), key=lambda part: part[0] == ARTIFACT):
        sign(registry, registry.repository(stored.stage, name), digest, key)


def _push(registry: Registry, name: str, image: str, version: str) -> str:
    repository = registry.repository(BUILD, image_contents.registry_name(name))
    place = f"{registry.name(repository)}:{version}"
    run_docker("tag", image, place)
    said = run_docker("push", place, timeout_s=PUSH_TIMEOUT_S).stdout
    run_docker("image", "rm", place, image, check=False)
    found = PUSHED.search(said)
    if not found:
        raise images.DockerImageError(f"`docker push {place}` told no digest; it said: {said.strip()[-300:]}")
    registry.manifest(repository, found[1])
    return found[1]


def _base() -> tuple[Base, str]:
    """The base, and the reference by which images are built on this very one, whatever its tag names a moment later."""
    name = images.base_image()
    given = bool(os.environ.get("BULKHEAD_BASE_IMAGE"))
    if given:
        run_docker("pull", "--quiet", name, timeout_s=PUSH_TIMEOUT_S)
    row = json.loads(run_docker("image", "inspect", name).stdout)[0]
    # What was pulled has the registry's digest. What was made here has that of its content: a digest that it has all
    # the same is of a registry to which somebody pushed it, and says nothing of where it came from.
    reference = row["RepoDigests"][0] if given and row.get("RepoDigests") else name
    command = ("run", "--rm", "--network", "none", "--entrypoint", "python3", name, "-c", PYTHON)
    digest = reference.rpartition("@")[2] if reference != name else row["Id"]
    return Base(name=name, digest=digest, python=run_docker(*command).stdout.strip()), reference


def _git(*arguments: str) -> str:
    done = images.run_command(["git", "-C", str(image_contents.ROOT), *arguments])
    if done.returncode:
        why = done.stderr.strip()
        raise WrongUsage("revision", f"git could not do `{arguments[0]}`", why, "Name a commit that this clone has")
    return done.stdout


def _source() -> str:
    """The address of the repository, without a password in it."""
    if os.environ.get("GITHUB_REPOSITORY"):
        return f"git+{os.environ['GITHUB_SERVER_URL']}/{os.environ['GITHUB_REPOSITORY']}"
    done = images.run_command(["git", "-C", str(image_contents.ROOT), "remote", "get-url", "origin"])
    parts = urlsplit(done.stdout.strip())
    if done.returncode or not parts.scheme or not parts.hostname:
        return "urn:bulkhead:source:local"
    return f"git+{urlunsplit((parts.scheme, parts.netloc.rpartition('@')[2], parts.path, '', ''))}"


def _builder() -> str:
    """The workflow that builds, else this machine."""
    workflow = os.environ.get("GITHUB_WORKFLOW_REF")
    return (
        f"{os.environ['GITHUB_SERVER_URL']}/{workflow}" if workflow else f"urn:bulkhead:builder:{socket.gethostname()}"
    )
