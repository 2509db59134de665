"""The bill of materials of an image, as CycloneDX: its base, and the pins of requirements.lock that it installs.

In: a release, an image's name, the tree of the release's revision. Out: the document as a dict. The same input gives
the same document.
"""

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.markers import Marker

from bulkhead_infra.docker import image_contents
from bulkhead_infra.promotion.release import Base, Release

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)\s*(?:;\s*([^\\\n]+?))?\s*(?:\\)?$", re.M)
NAMES = {image_contents.registry_name(name): name for name in image_contents.IMAGES}


@dataclass(frozen=True, slots=True)
class Pin:
    """A package that an image installs."""

    name: str
    version: str


def pins(image: str, base: Base, root: Path) -> list[Pin]:
    """What pip installs into the image: pins whose markers hold on its platform."""
    text = "".join(image_contents.requirement_lists(NAMES[image], root))
    return sorted(set(_installed(text, base.python)), key=lambda pin: pin.name)


def _installed(text: str, python: str) -> Iterator[Pin]:
    platform = {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
    }
    for name, version, marker in PIN.findall(text):
        if not marker or Marker(marker).evaluate(platform):
            yield Pin(name, version)


def bill_of_materials(release: Release, image: str, root: Path) -> dict[str, Any]:
    """See the module."""
    digest = release.images[image]
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{release.run} {image}@{digest}"))
    bom.metadata.timestamp = datetime.fromisoformat(release.finished_at)
    bom.metadata.component = _component(ComponentType.CONTAINER, f"bulkhead/{image}", release.version, digest)
    base = _component(ComponentType.CONTAINER, release.base.name, "", release.base.digest)
    packages = [
        Component(type=ComponentType.LIBRARY, name=pin.name, version=pin.version, purl=purl, bom_ref=purl.to_string())
        for pin in pins(image, release.base, root)
        for purl in [PackageURL("pypi", name=pin.name, version=pin.version)]
    ]
    for component in (base, *packages):
        bom.components.add(component)
    bom.metadata.properties.add(Property(name="bulkhead:revision", value=release.revision))
    bom.register_dependency(bom.metadata.component, [base, *packages])
    found: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    return found


def _component(kind: ComponentType, name: str, version: str, digest: str) -> Component:
    hashed = HashType(alg=HashAlgorithm.SHA_256, content=digest.removeprefix("sha256:"))
    return Component(type=kind, name=name, version=version or None, hashes=[hashed], bom_ref=f"{name}@{digest}")
