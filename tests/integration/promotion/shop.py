"""A registry with keys, environments and releases of small images made by hand: all but Docker is as in production."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from bulkhead_infra.docker.image_contents import ROOT
from bulkhead_infra.docker.images import run_command
from bulkhead_infra.promotion import build, keys, promote
from bulkhead_infra.promotion.attachments import CONFIG, compact
from bulkhead_infra.promotion.checks import TESTS_OF_IMAGES
from bulkhead_infra.promotion.overlay import Entry, Overlay
from bulkhead_infra.promotion.registry.client import OCI_MANIFEST, Manifest, Registry, digest_of
from bulkhead_infra.promotion.release import BUILD, Base, Release, Stored, store
from bulkhead_infra.promotion.statements import TestRun

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
REVISION = run_command(["git", "-C", str(ROOT), "rev-parse", "HEAD"]).stdout.strip()
ALL = ("nats", "planner", "worker")
"""Images of a whole release: few, for speed."""


def push_image(registry: Registry, name: str, version: str, revision: str = REVISION, stage: str = BUILD) -> str:
    """A small image with the labels of a service; its digest."""
    repository = registry.repository(stage, name)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        row = tarfile.TarInfo("release.txt")
        # Another one in each repository: the registry keeps equal layers once, and tests spoil some.
        text = f"{repository} {version}".encode()
        row.size = len(text)
        archive.addfile(row, io.BytesIO(text))
    layer = registry.put_blob(repository, gzip.compress(packed.getvalue(), mtime=0))
    labels = {"org.opencontainers.image.revision": revision[:12], "bulkhead.service": name.replace("-", "_")}
    rootfs = {"type": "layers", "diff_ids": [digest_of(packed.getvalue())]}
    config = {"architecture": "amd64", "os": "linux", "config": {"Labels": labels}, "rootfs": rootfs}
    stored = registry.put_blob(repository, compact(config))
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": CONFIG, "digest": stored.digest, "size": stored.size},
        "layers": [{"mediaType": LAYER, "digest": layer.digest, "size": layer.size}],
    }
    return registry.put_manifest(repository, version, Manifest(compact(document), OCI_MANIFEST))


def ran(
    stored: Stored,
    *,
    failed: tuple[str, ...] = (),
    suite: str = "e2e",
    finished_at: str = "",
    arguments: tuple[str, ...] = (TESTS_OF_IMAGES,),
) -> TestRun:
    return TestRun(
        release=stored.digest,
        suite=suite,
        arguments=arguments,
        exit_code=1 if failed else 0,
        passed=("tests::test_it",),
        failed=failed,
        skipped=0,
        started_at="2026-01-01T00:00:00Z",
        finished_at=finished_at or "2026-01-01T00:01:00Z",
        by="somebody",
        run="urn:test",
    )


class Shop:
    """See the module. Keys: `release`, `staging` and `production` are trusted, `stranger` by nobody."""

    def __init__(self, place: str, folder: Path) -> None:
        self.place, self.folder = place, folder
        self.registry = Registry(place)
        self.trusted, self.overlays = folder / "signers", folder / "overlays"
        for role in keys.ROLES:
            keys.make_key(role, folder / "keys")
        keys.make_key("release-stranger", folder / "keys")
        self.trusted.mkdir()
        for role in keys.ROLES:
            (self.overlays / role).mkdir(parents=True)
            (self.trusted / f"{role}.pub").write_bytes((folder / "keys" / f"{role}.pub").read_bytes())

    def key(self, role: str) -> keys.SigningKey:
        return keys.read_key(self.folder / "keys" / f"{role}.pem")

    @property
    def trust(self) -> keys.Trust:
        return keys.Trust.read(self.trusted)

    def push(self, version: str, images: tuple[str, ...] = ALL, **digests: str) -> Stored:
        """A release that nobody has attested."""
        found = {name: push_image(self.registry, name, version) for name in images} | digests
        return store(self.registry, self.release(version, found))

    def release(self, version: str, images: dict[str, str]) -> Release:
        return Release(
            version=version,
            revision=REVISION,
            source="git+https://example.org/bulkhead",
            builder="urn:test:builder",
            run="urn:test:run",
            started_at="2026-01-01T00:00:00Z",
            finished_at="2026-01-01T00:00:30Z",
            base=Base(name="base", digest=digest_of(b"base"), python="3.11.2"),
            images=images,
        )

    def ready(self, version: str, *, but: str = "", signer: str = "release") -> Stored:
        """A release that may be promoted; but: a step that is left out (attest, test, sign)."""
        stored, key = self.push(version), self.key(signer)
        steps: dict[str, Callable[[], None]] = {
            "attest": lambda: build.attest_origin(self.registry, stored, key),
            "test": lambda: build.attest_tests(self.registry, stored, ran(stored), key),
            "sign": lambda: build.put_signatures(self.registry, stored, key),
        }
        for name, step in steps.items():
            if name != but:
                step()
        return stored

    def promote(self, stored: Stored | str, environment: str, role: str = "") -> Entry:
        reference = stored if isinstance(stored, str) else stored.digest
        key = self.key(role or environment)
        return promote.promote(self.registry, reference, environment, key, self.trust, self.overlays, expected=ALL)

    def rollback(self, environment: str) -> Entry:
        return promote.rollback(self.registry, environment, self.key(environment), self.trust, self.overlays)

    def overlay(self, environment: str) -> Overlay:
        return Overlay(self.overlays / environment)

    def file_of(self, digest: str) -> Path:
        """Where the registry keeps a blob or manifest."""
        text = digest.removeprefix("sha256:")
        return self.folder / "data/docker/registry/v2/blobs/sha256" / text[:2] / text / "data"

    def document(self, stored: Stored, name: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.file_of(stored.parts[name]).read_text())
        return found
