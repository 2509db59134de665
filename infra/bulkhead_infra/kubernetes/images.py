"""Images of an overlay by digest: images.sha256, as `infra/release/images.sh` writes it, and images.yaml, made of it.

In: a line `SHA256  HOST/PREFIX/NAME:VERSION` for each image. Out: kustomize's transformers as text. What has no digest
gets a placeholder that every rule refuses. The Job that makes streams bears the digest of its image in its name,
because the template of a Job can never be changed.
"""

import re
from collections.abc import Mapping

from bulkhead_infra.docker.image_contents import INFRASTRUCTURE
from bulkhead_infra.kubernetes import objects
from bulkhead_infra.kubernetes.objects import IMAGES, Object
from bulkhead_infra.services import EVERY_SERVICE, SERVICES

LIST_FILE = "images.sha256"
PLACEHOLDER = "sha256:" + "0" * 64
REFERENCE = re.compile(r"(?P<name>[a-z0-9][a-z0-9./:_-]*[a-z0-9])@(?P<digest>sha256:[0-9a-f]{64})")
JOB, JOB_IMAGE = "provision-streams", "provisioner"
SHOWN = 8
LINE = re.compile(r"(?P<hex>[0-9a-f]{64})  (?P<place>\S+/(?P<name>[a-z0-9-]+)):[^\s/:]+")


class ImageError(ValueError):
    """A reference that names no image by its digest; the message says which."""


def names() -> tuple[str, ...]:
    """Names of all images, below `bulkhead/`; from the rows, as the contents of images are rendered of them, too."""
    return tuple(map(objects.name_of, dict.fromkeys((*SERVICES, *EVERY_SERVICE, *INFRASTRUCTURE))))


def images_text(references: Mapping[str, str]) -> str:
    """See the module. references: `registry.example.org/bulkhead/worker@sha256:...` by `worker`. Raises ImageError."""
    if unknown := sorted(set(references) - set(names())):
        raise ImageError(f"{unknown[0]} is no image of the manifests; there are {', '.join(names())}")
    found = {name: _split(name, references[name]) if name in references else _none(name) for name in names()}
    rows = [_transformer(name, place, digest) for name, (place, digest) in found.items()]
    return objects.text(*rows, _job_name(found[JOB_IMAGE][1]), comment="Images by digest, from images.sha256.")


def _none(name: str) -> tuple[str, str]:
    return f"{IMAGES}/{name}", PLACEHOLDER


def _split(name: str, reference: str) -> tuple[str, str]:
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise ImageError(f"{name}: {reference!r} names no digest; write it as registry.example.org/{name}@sha256:...")
    return match["name"], match["digest"]


def _transformer(name: str, place: str, digest: str) -> Object:
    return {
        "apiVersion": "builtin",
        "kind": "ImageTagTransformer",
        "metadata": {"name": name},
        "imageTag": {"name": f"{IMAGES}/{name}", "newName": place, "digest": digest},
    }


def _job_name(digest: str) -> Object:
    return {
        "apiVersion": "builtin",
        "kind": "SuffixTransformer",
        "metadata": {"name": JOB},
        "suffix": f"-{digest.removeprefix('sha256:')[:SHOWN]}",
        "fieldSpecs": [{"kind": "Job", "path": "metadata/name"}],
    }


def references(text: str) -> dict[str, str]:
    """References by name, of a list. Raises ImageError for a line that lists no image."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = LINE.fullmatch(line)
        if match is None:
            raise ImageError(f"line {number} of {LIST_FILE} is not as a release has it: restore it from git")
        found[match["name"]] = f"{match['place']}@sha256:{match['hex']}"
    return found
