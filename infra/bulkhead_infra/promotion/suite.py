"""Run a suite against the images of a release, by digest.

In: a release, paths of tests. Out: the result, whatever it is, for `attest` to sign: no key is near where the code of a
release runs. The images are pulled by digest and given the tag that the tests of containers take (BULKHEAD_TEST_TAG),
so that nothing is built; they are looked at again afterwards.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

from bulkhead_infra.docker.image_contents import ROOT
from bulkhead_infra.docker.images import DockerImageError
from bulkhead_infra.docker.stack import StackError, run_docker
from bulkhead_infra.promotion.errors import PromotionError, Refused
from bulkhead_infra.promotion.keys import KEY_VARIABLE
from bulkhead_infra.promotion.registry.client import Registry
from bulkhead_infra.promotion.release import Stored
from bulkhead_infra.promotion.statements import TestRun, now, run_address, whoever

PULL_TIMEOUT_S, SUITE_TIMEOUT_S = 900.0, 3_600.0
STDERR = 2
"""The words of pytest belong to people: standard output has the result alone."""
HIDDEN = (KEY_VARIABLE, "PYTEST_ADDOPTS", "PYTEST_PLUGINS")
"""Variables that the suite does not get: the key, and options that its result would not tell."""
TAG_VARIABLE = "BULKHEAD_TEST_TAG"


def run(registry: Registry, stored: Stored, suite: str, arguments: Sequence[str]) -> TestRun:
    """arguments: of pytest. Raises PromotionError where the images cannot be had, Refused where they were exchanged."""
    tag = f"release-{stored.digest.removeprefix('sha256:')[:12]}"
    try:
        before = _pull(registry, stored, tag)
        found = _pytest(stored, suite, arguments, tag)
        after = {image: _content(image) for image in before}
        run_docker("image", "rm", *before, *_places(registry, stored).values(), check=False)
    except (DockerImageError, StackError) as error:
        then = "Look at Docker and the registry, and test again"
        raise PromotionError("no_images", "the release was not tested", str(error), then) from error
    if changed := [image for image, content in before.items() if after[image] != content]:
        why, then = "its content changed while the suite ran", "Test on a machine where nothing else builds"
        raise Refused("altered", f"{changed[0]} is not what was pulled", why, then)
    return found


def _pull(registry: Registry, stored: Stored, tag: str) -> Mapping[str, str]:
    """Contents by the names that the tests use."""
    found = {}
    for name, place in _places(registry, stored).items():
        run_docker("pull", "--quiet", place, timeout_s=PULL_TIMEOUT_S)
        image = f"bulkhead/{name}:{tag}"
        run_docker("tag", place, image)
        found[image] = _content(image)
    return found


def _places(registry: Registry, stored: Stored) -> Mapping[str, str]:
    """References by digest."""
    rows = stored.release.images.items()
    return {name: f"{registry.name(registry.repository(stored.stage, name))}@{digest}" for name, digest in rows}


def _content(image: str) -> str:
    return run_docker("image", "inspect", "--format", "{{.Id}}", image).stdout.strip()


def _pytest(stored: Stored, suite: str, arguments: Sequence[str], tag: str) -> TestRun:
    given = {TAG_VARIABLE: tag, "BULKHEAD_TAG": tag, "BULKHEAD_IMAGES": "bulkhead", "BULKHEAD_STRICT_SKIPS": "1"}
    environ = {name: value for name, value in os.environ.items() if name not in HIDDEN} | given
    started = now()
    with tempfile.TemporaryDirectory(prefix="bulkhead-suite-") as folder:
        report = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *arguments]
        try:
            code = subprocess.run(  # noqa: S603
                command, cwd=ROOT, env=environ, check=False, timeout=SUITE_TIMEOUT_S, stdout=STDERR
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
        rows = list(ElementTree.parse(report).iter("testcase")) if report.is_file() else []  # noqa: S314 - our own
    states = [(f"{row.get('classname')}::{row.get('name')}", {child.tag for child in row}) for row in rows]
    failed = [name for name, state in states if state & {"failure", "error"}]
    skipped = [name for name, state in states if "skipped" in state]
    passed = [name for name, _ in states if name not in failed and name not in skipped]
    return TestRun(
        release=stored.digest,
        suite=suite,
        arguments=tuple(arguments),
        exit_code=code,
        passed=tuple(passed),
        failed=tuple(failed),
        skipped=len(skipped),
        started_at=started,
        finished_at=now(),
        by=whoever(),
        run=run_address(),
    )
