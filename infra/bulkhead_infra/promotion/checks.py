"""Checks of a release before it goes anywhere: whole, unaltered, attested, tested, signed.

In: a release in a stage, the trusted keys. Out: what does not hold, each with its code; nothing lets it through. Every
digest is computed here from the bytes that the registry sends; no tag is believed.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

from bulkhead_infra.docker.image_contents import IMAGES, registry_name
from bulkhead_infra.promotion import attachments
from bulkhead_infra.promotion.attachments import Found, Statement
from bulkhead_infra.promotion.errors import Refused
from bulkhead_infra.promotion.keys import Trust
from bulkhead_infra.promotion.registry.client import UNREADABLE, Manifest, Registry, altered
from bulkhead_infra.promotion.release import ARTIFACT, BUILD, Stored
from bulkhead_infra.promotion.statements import MATERIALS, PASSED, PROMOTION, PROVENANCE, TESTS

SUITE = "e2e"
"""The suite that a release must have passed."""
TESTS_OF_IMAGES = "tests/e2e/containers"
HARMLESS = re.compile(r"-(q+|v+|s|n[0-9]+|r[A-Za-z]+)|--(durations|timeout|color|tb)=[a-z0-9]+")
"""Options of pytest that leave no test out."""
SIGNER = "release"
"""The role of those who sign images, attestations and releases."""
REVISION_LABEL, SERVICE_LABEL = "org.opencontainers.image.revision", "bulkhead.service"
SHORTEST_REVISION = 12
ALL = tuple(map(registry_name, IMAGES))
"""Images of the code that runs this: what the manifests beside it need."""
BUILD_ANEW = "Build a release anew, and test it"


def examine(
    registry: Registry, stored: Stored, trust: Trust, *, signed: bool = True, partly: bool = False
) -> list[Refused]:
    """What does not hold.

    signed: whether signatures are due; they come last, after everything else is examined. partly: whether a run of
    some tests of the suite is enough.
    """
    found = []
    for check in _checks(registry, stored, trust, signed, partly):
        try:
            check()
        except Refused as error:
            found.append(error)
    return found


def refuse(found: Sequence[Refused]) -> None:
    """Raise the first, which says how many more there are."""
    if found:
        first, more = found[0], len(found) - 1
        why = f"{first.why}; and {more} more: `verify` lists them" if more else first.why
        raise Refused(first.code, first.what, why, first.then)


def complete(stored: Stored, expected: Collection[str]) -> None:
    """Raises Refused where images are lacking: services of two releases would meet."""
    if missing := sorted(set(expected) - set(stored.release.images)):
        why = f"it lacks {', '.join(missing)}"
        raise Refused("incomplete", f"release {stored.release.version} is not whole", why, BUILD_ANEW)


def promoted(registry: Registry, stored: Stored, environment: str, trust: Trust) -> Statement | None:
    """The promotion to that environment, signed by a key of it."""
    repository = registry.repository(environment, ARTIFACT)
    found = attachments.statements(registry, repository, stored.digest, trust, environment)
    rows = [
        one
        for one in found.statements
        if one.predicate_type == PROMOTION and one.predicate.get("environment") == environment
    ]
    return rows[-1] if rows else None


def whole(arguments: object) -> bool:
    """Whether pytest ran all tests of the suite with these: the folder, and options that leave nothing out."""
    rows = arguments if isinstance(arguments, list | tuple) else ()
    rest = [one for one in rows if one != TESTS_OF_IMAGES]
    return len(rest) < len(rows) and all(isinstance(one, str) and HARMLESS.fullmatch(one) for one in rest)


def runs(registry: Registry, stored: Stored, trust: Trust) -> list[dict[str, Any]]:
    """Attested test runs of a release, for people."""
    repository = registry.repository(stored.stage, ARTIFACT)
    found = attachments.statements(registry, repository, stored.digest, trust, SIGNER)
    rows = [row.predicate for row in found.statements if row.predicate_type == TESTS]
    keys = ("suite", "result", "arguments", "by", "finishedOn")
    return [{**{key: row.get(key) for key in keys}, "whole": whole(row.get("arguments"))} for row in rows]


def _checks(
    registry: Registry, stored: Stored, trust: Trust, signed: bool, partly: bool
) -> Iterator[Callable[[], object]]:
    read: set[str] = set()
    for name, digest in stored.parts.items():
        repository = registry.repository(stored.stage, name)
        if stored.stage == BUILD:
            yield partial(_tag, registry, repository, digest, stored)
        yield partial(_content, registry, repository, digest, read)
        part = _Part(registry, stored, name, trust)
        if name != ARTIFACT:
            yield partial(_labels, registry, stored, name)
            yield partial(_origin, part)
        yield partial(_tested, part, partly)
        if signed:
            yield partial(attachments.signer, registry, repository, digest, trust, SIGNER)


class _Part:
    """One part of a release, with what is said of it: read when it is first needed."""

    def __init__(self, registry: Registry, stored: Stored, name: str, trust: Trust) -> None:
        self.stored, self.name = stored, name
        self.told = f"{name} of release {stored.release.version}"
        self._repository, self._digest = registry.repository(stored.stage, name), stored.parts[name]
        self._where = f"{registry.name(self._repository)}@{self._digest}"
        self._registry, self._trust = registry, trust

    @cached_property
    def found(self) -> Found:
        return attachments.statements(self._registry, self._repository, self._digest, self._trust, SIGNER)

    def statements(self, kind: str, code: str, lack: str, then: str) -> list[Statement]:
        """Statements of a kind, at least one. Raises Refused."""
        rows = [row for row in self.found.statements if row.predicate_type == kind]
        if not rows and self.found.strangers:
            why = f"{self.found.strangers} of its statements are not by a trusted {SIGNER} key, or of something else"
            raise Refused("wrong_signer", f"{self._where} has {lack} that counts", why, f"{then} with a trusted key")
        if not rows:
            raise Refused(code, f"{self._where} has {lack}", "the registry has no such statement for it", then)
        return rows


def _tag(registry: Registry, repository: str, digest: str, stored: Stored) -> None:
    """A tag of the build that names other content now was written to by somebody else."""
    names = registry.digest(repository, stored.release.version)
    if names != digest:
        where = f"{registry.name(repository)}:{stored.release.version}"
        raise altered(where, digest, f"the tag names {names or 'nothing'} now")


def _content(registry: Registry, repository: str, digest: str, read: set[str]) -> None:
    manifest = registry.manifest(repository, digest)
    for child in manifest.children:
        if registry.manifest(repository, child.digest).children:
            what, why = f"{registry.name(repository)}@{child.digest} is no image", "it is an index within an index"
            raise Refused("unreadable", what, why, BUILD_ANEW)
        _content(registry, repository, child.digest, read)
    for blob in manifest.blobs:
        if blob.digest not in read:
            registry.check_blob(repository, blob)
            read.add(blob.digest)


def _labels(registry: Registry, stored: Stored, name: str) -> None:
    """An image says itself which service and commit it is."""
    repository = registry.repository(stored.stage, name)
    manifest = _plain(registry, repository, registry.manifest(repository, stored.release.images[name]))
    config = registry.blob(repository, manifest.config.digest) if manifest.config else b"{}"
    try:
        labels = (json.loads(config).get("config") or {}).get("Labels") or {}
        revision, service = str(labels.get(REVISION_LABEL, "")), registry_name(str(labels.get(SERVICE_LABEL, "")))
    except UNREADABLE:
        revision = service = ""
    fits = len(revision) >= SHORTEST_REVISION and stored.release.revision.startswith(revision)
    if not fits or service != name:
        what = f"{name} of release {stored.release.version} is of another build"
        why = f"its labels say {service or 'no service'} at {revision or 'no commit'}, not {stored.release.revision}"
        raise Refused("mixed", what, why, BUILD_ANEW)


def _plain(registry: Registry, repository: str, manifest: Manifest) -> Manifest:
    """Of an index the first image."""
    return registry.manifest(repository, manifest.children[0].digest) if manifest.children else manifest


def _origin(part: _Part) -> None:
    part.statements(MATERIALS, "unattested", "no bill of materials", "Call `attest`")
    rows = part.statements(PROVENANCE, "unattested", "no provenance", "Call `attest`")
    if not any(_of_this_build(row, part.stored) for row in rows):
        raise Refused("mixed", f"{part.told} is of another build", "its provenance says so", BUILD_ANEW)


def _of_this_build(row: Statement, stored: Stored) -> bool:
    definition = row.predicate.get("buildDefinition", {})
    source, release = definition.get("externalParameters", {}), stored.release
    same = (source.get("revision"), source.get("version")) == (release.revision, release.version)
    return bool(same and definition.get("internalParameters", {}).get("release") == stored.digest)


def _tested(part: _Part, partly: bool) -> None:
    then = f"Call `test --suite {SUITE}`"
    rows = part.statements(TESTS, "untested", "no test result", then)
    # A result speaks of all images together, so that it cannot be borrowed for another set.
    found = [row for row in rows if row.predicate.get("suite") == SUITE and part.stored.subjects <= row.subjects]
    what = f"{part.told} is not tested"
    if not found:
        raise Refused("untested", what, f"no result of {SUITE} speaks of this whole release", then)
    # A failure counts, whatever was run. Of two runs that ended at a time, the failure is the last.
    counted = [row for row in found if partly or _failed(row) or whole(row.predicate.get("arguments"))]
    if not counted:
        given = " ".join(map(str, found[-1].predicate.get("arguments") or ())) or "unknown arguments"
        why = f"its runs of {SUITE} chose some tests: pytest {given}"
        raise Refused("untested", what, why, f"{then} without arguments of pytest, or let it through by --partial")
    last = max(counted, key=lambda row: (str(row.predicate.get("finishedOn", "")), _failed(row)))
    if _failed(last):
        failed = ", ".join(map(str, last.predicate.get("failedTests", ())[:3])) or "nothing passed"
        raise Refused("untested", what, f"its last run of {SUITE} failed ({failed})", "Mend it, and build anew")


def _failed(row: Statement) -> bool:
    return row.predicate.get("result") != PASSED
