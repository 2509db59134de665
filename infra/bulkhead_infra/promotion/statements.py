"""Statements about a release, as in-toto has them: origin of its images, results of tests, promotions.

In: a release that lies in the registry, and what happened. Out: statements to sign. Predicates: SLSA provenance v1,
CycloneDX, in-toto's test result v0.1, and `urn:bulkhead:promotion:v1` for a promotion.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from getpass import getuser
from typing import Annotated, Any

from pydantic import StringConstraints

from bulkhead_infra.docker.images import DOCKERFILE
from bulkhead_infra.promotion.attachments import STATEMENT
from bulkhead_infra.promotion.registry.client import Registry
from bulkhead_infra.promotion.release import ARTIFACT, Digest, Document, Stored, Words

PROVENANCE = "https://slsa.dev/provenance/v1"
TESTS = "https://in-toto.io/attestation/test-result/v0.1"
PROMOTION = "urn:bulkhead:promotion:v1"
MATERIALS = "https://cyclonedx.org/bom"
BUILD_TYPE = "urn:bulkhead:build:dockerfile:v1"
PASSED, FAILED = "PASSED", "FAILED"
Time = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")]
"""As `now` writes it: times of this form are in order as texts."""


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def whoever() -> str:
    """The person who started this: GitHub's actor, else the user of this machine."""
    return os.environ.get("GITHUB_ACTOR") or getuser()


def run_address() -> str:
    """The run that this is part of: GitHub's page, else a name of this moment."""
    server, repository, run = (os.environ.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    return f"{server}/{repository}/actions/runs/{run}" if run else f"urn:bulkhead:run:{whoever()}:{now()}"


class TestRun(Document):
    """A run of a suite. release: the digest of what was tested; arguments: of pytest.

    A run in which nothing passed has not passed.
    """

    __test__ = False

    release: Digest
    suite: Words
    arguments: tuple[str, ...]
    exit_code: int
    passed: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: int
    started_at: Time
    finished_at: Time
    by: str
    run: str

    @property
    def result(self) -> str:
        return PASSED if self.exit_code == 0 and self.passed and not self.failed else FAILED


def statement(subjects: Mapping[str, str], kind: str, predicate: Mapping[str, Any]) -> dict[str, Any]:
    """subjects: digests by name."""
    rows = [{"name": name, "digest": {"sha256": _hex(digest)}} for name, digest in sorted(subjects.items())]
    return {"_type": STATEMENT, "subject": rows, "predicateType": kind, "predicate": predicate}


def all_parts(registry: Registry, stored: Stored) -> dict[str, str]:
    """Subjects of a statement about a whole release."""
    return {registry.name(registry.repository(stored.stage, name)): digest for name, digest in stored.parts.items()}


def provenance(image: str, stored: Stored, lock_digest: str) -> dict[str, Any]:
    """The predicate for one image. lock_digest: of requirements.lock."""
    release = stored.release
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "source": release.source,
                "revision": release.revision,
                "version": release.version,
                "dockerfile": DOCKERFILE,
                "image": image,
            },
            "internalParameters": {"release": stored.digest},
            "resolvedDependencies": [
                {"uri": release.source, "digest": {"gitCommit": release.revision}},
                {"uri": release.base.name, "digest": {"sha256": _hex(release.base.digest)}},
                {"uri": "requirements.lock", "digest": {"sha256": _hex(lock_digest)}},
            ],
        },
        "runDetails": {
            "builder": {"id": release.builder},
            "metadata": {
                "invocationId": release.run,
                "startedOn": release.started_at,
                "finishedOn": release.finished_at,
            },
        },
    }


def tests(stored: Stored, run: TestRun) -> dict[str, Any]:
    return {
        "result": run.result,
        "configuration": [{"name": run.suite, "digest": {"gitCommit": stored.release.revision}}],
        "url": run.run,
        "passedTests": list(run.passed),
        "failedTests": list(run.failed),
        "suite": run.suite,
        "arguments": list(run.arguments),
        "skippedTests": run.skipped,
        "by": run.by,
        "startedOn": run.started_at,
        "finishedOn": run.finished_at,
    }


def promotion(stored: Stored, action: str, environment: str, previous: str | None, by: str, at: str) -> dict[str, Any]:
    row = {"action": action, "environment": environment, ARTIFACT: stored.digest, "version": stored.release.version}
    return {**row, "previous": previous, "by": by, "at": at, "run": run_address()}


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
