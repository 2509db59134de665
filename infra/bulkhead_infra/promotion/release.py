"""A release: every image of one build by its digest, kept in the registry under a digest of its own.

In: release.json. Out: a checked `Release`, and where each part of it lies: `PREFIX/<stage>/<image>`, with the stages
`build`, `staging` and `production`. The release is the artifact `PREFIX/<stage>/release`; its tag is its version.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from bulkhead.validation_errors import find_misfits
from bulkhead_infra.promotion.attachments import compact
from bulkhead_infra.promotion.errors import Refused, WrongUsage
from bulkhead_infra.promotion.registry.client import DIGEST, OCI_MANIFEST, Manifest, Registry, altered

BUILD, STAGING, PRODUCTION = "build", "staging", "production"
ENVIRONMENTS: Mapping[str, str] = {STAGING: BUILD, PRODUCTION: STAGING}
"""The stage that each environment takes its releases from."""
ARTIFACT = "release"
RELEASE_TYPE = "application/vnd.bulkhead.release.v1+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
MAX_IMAGES = 100

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Digest = Annotated[str, StringConstraints(pattern=rf"^{DIGEST.pattern}$")]
Version = Annotated[str, StringConstraints(pattern=rf"^{VERSION.pattern}$")]
ImageName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Words = Annotated[str, StringConstraints(min_length=1, max_length=1_000)]


class Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Base(Document):
    """The image that all others stand on. digest: of its content; python: its version, which decides on packages."""

    name: Words
    digest: Digest
    python: Annotated[str, StringConstraints(pattern=r"^3\.\d+\.\d+$")]


class Release(Document):
    """release.json. revision: the whole git commit; builder and run: who built it, as URIs."""

    version: Version
    revision: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
    source: Words
    builder: Words
    run: Words
    started_at: Words
    finished_at: Words
    base: Base
    images: Annotated[dict[ImageName, Digest], Field(min_length=1, max_length=MAX_IMAGES)]

    def text(self) -> str:
        return json.dumps(self.model_dump(), indent=1, sort_keys=True) + "\n"


class Stored(BaseModel):
    """A release that was read from a stage. digest: its own."""

    model_config = ConfigDict(frozen=True)

    digest: Digest
    stage: str
    release: Release

    @property
    def subjects(self) -> frozenset[str]:
        """Digests of the release and of all of its images."""
        return frozenset((self.digest, *self.release.images.values()))

    @property
    def parts(self) -> Mapping[str, str]:
        """Digests by repository below the stage; the release itself is one."""
        return {**self.release.images, ARTIFACT: self.digest}


def store(registry: Registry, release: Release) -> Stored:
    """Put a release beside its images. Raises Refused where its version is taken."""
    repository = registry.repository(BUILD, ARTIFACT)
    refuse_taken(registry, release.version)
    content = registry.put_blob(repository, release.text().encode())
    config = registry.put_blob(repository, b"{}")
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": RELEASE_TYPE,
        "config": {"mediaType": EMPTY_TYPE, "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": RELEASE_TYPE, "digest": content.digest, "size": content.size}],
        "annotations": {"org.opencontainers.image.revision": release.revision},
    }
    digest = registry.put_manifest(repository, release.version, Manifest(compact(document), OCI_MANIFEST))
    return Stored(digest=digest, stage=BUILD, release=release)


def refuse_taken(registry: Registry, version: str) -> None:
    """Raises Refused where a release of this version is there: a version is built once."""
    if registry.digest(registry.repository(BUILD, ARTIFACT), version):
        what = f"there is a release {version} in {registry.name(registry.prefix)}"
        raise Refused("exists", what, "a version is built once", "Promote that one, or build another --version")


def load(registry: Registry, stage: str, reference: str) -> Stored:
    """By digest or version. Raises WrongUsage, and Refused where it is not there, is altered or is no release."""
    _refuse_other_names(reference)
    repository = registry.repository(stage, ARTIFACT)
    manifest = registry.manifest(repository, reference)
    where = f"{registry.name(repository)}@{manifest.digest}"
    then = "Name a release that `build` has pushed"
    rows = [row for row in manifest.layers if row.media_type == RELEASE_TYPE]
    if len(rows) != 1:
        raise Refused("no_release", f"{where} is no release", "it holds no release.json", then)
    try:
        release = Release.model_validate_json(registry.blob(repository, rows[0].digest))
    except ValidationError as error:
        why = str(find_misfits(error, Release)[0])
        raise Refused("no_release", f"{where} holds a release.json that cannot be read", why, then) from error
    if not DIGEST.fullmatch(reference) and release.version != reference:
        raise altered(where, reference, f"the tag names release {release.version}")
    return Stored(digest=manifest.digest, stage=stage, release=release)


def _refuse_other_names(reference: str) -> None:
    """A reference becomes a part of an address: it is a digest or a version."""
    if not DIGEST.fullmatch(reference) and not VERSION.fullmatch(reference):
        shown, why = (
            reference[:100],
            "a digest is `sha256:` and 64 hex digits, and a version has no other signs than ._-",
        )
        raise WrongUsage("release", f"`{shown}` is no release", why, "Copy the digest that `build` printed")
