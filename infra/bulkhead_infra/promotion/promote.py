"""Promotion: a release that passed its checks is copied to an environment by digest, and written into its overlay.

In: a release in the stage below, the environment's key. Out: the same bytes in `PREFIX/<environment>`, with their
signatures and attestations and one about the promotion; images.yaml; a line of history. Called again after it was cut
off, it goes on: each step can be done twice. Nothing is built here.
"""

from collections.abc import Collection
from pathlib import Path

from bulkhead_infra.promotion import checks
from bulkhead_infra.promotion.attachments import attest, copy_attached
from bulkhead_infra.promotion.errors import Refused
from bulkhead_infra.promotion.keys import SigningKey, Trust
from bulkhead_infra.promotion.overlay import Entry, Overlay
from bulkhead_infra.promotion.registry.client import Registry
from bulkhead_infra.promotion.release import ARTIFACT, BUILD, ENVIRONMENTS, Stored, load
from bulkhead_infra.promotion.statements import PROMOTION, all_parts, now, promotion, statement, whoever


def promote(
    registry: Registry,
    reference: str,
    environment: str,
    key: SigningKey,
    trust: Trust,
    overlays: Path,
    *,
    expected: Collection[str] = checks.ALL,
    partly: bool = False,
) -> Entry:
    """expected: images that a release must have; partly: as `examine` has it. Raises PromotionError."""
    _may_sign(key, trust, environment)
    overlay, source = Overlay(overlays / environment), ENVIRONMENTS[environment]
    stored = (
        load(registry, BUILD, reference) if source == BUILD else _below(registry, reference, source, trust, overlays)
    )
    checks.complete(stored, expected)
    checks.refuse(checks.examine(registry, stored, trust, partly=partly))
    for name, digest in stored.parts.items():
        # The release last: it is there when all of its images are.
        _copy(registry, name, digest, stored, environment)
    stack = overlay.stack()
    entry = Entry(
        action="promote",
        release=stored.digest,
        version=stored.release.version,
        previous=stack[-1] if stack else None,
        at=now(),
        by=whoever(),
    )
    return _record(registry, stored, environment, key, overlay, entry)


def rollback(
    registry: Registry, environment: str, key: SigningKey, trust: Trust, overlays: Path, *, partly: bool = False
) -> Entry:
    """To the release that the environment had before, which is examined again. Raises Refused."""
    _may_sign(key, trust, environment)
    overlay = Overlay(overlays / environment)
    stack = overlay.stack()
    if len(stack) < 2:
        why = f"its history has {len(stack) or 'no'} release" + ("" if stack else "s")
        raise Refused("no_previous", f"{environment} cannot go back", why, "Promote the release that it shall have")
    stored = load(registry, environment, stack[-2])
    checks.refuse(checks.examine(registry, stored, trust, partly=partly))
    _was_promoted(registry, stored, environment, trust)
    entry = Entry(
        action="rollback",
        release=stored.digest,
        version=stored.release.version,
        previous=stack[-1],
        at=now(),
        by=whoever(),
    )
    return _record(registry, stored, environment, key, overlay, entry)


def _may_sign(key: SigningKey, trust: Trust, environment: str) -> None:
    """Before anything is copied: a promotion that nobody trusts would have to be done again."""
    if key.id not in trust.keys[environment]:
        what, why = f"this key may not promote to {environment}", f"it is no trusted {environment} key"
        then = f"Sign with the key of {environment}, or trust its public key"
        raise Refused("wrong_signer", what, why, then)


def _below(registry: Registry, reference: str, source: str, trust: Trust, overlays: Path) -> Stored:
    """A release that the environment below has now, and was promoted to by a key of it."""
    what = f"{reference} is not in {source}"
    then = f"Promote it to {source} first, and look at it there"
    try:
        stored = load(registry, source, reference)
    except Refused as error:
        if error.code != "missing":
            raise
        raise Refused(f"not_in_{source}", what, f"{source} has no such release", then) from error
    _was_promoted(registry, stored, source, trust)
    stack = Overlay(overlays / source).stack()
    if not stack or stack[-1] != stored.digest:
        why = f"{source} has {stack[-1] if stack else 'none'} now"
        raise Refused(f"not_in_{source}", what, why, then)
    return stored


def _was_promoted(registry: Registry, stored: Stored, environment: str, trust: Trust) -> None:
    if checks.promoted(registry, stored, environment, trust) is None:
        what = f"{stored.digest} was not promoted to {environment}"
        why = f"no {environment} key has signed such a promotion"
        raise Refused(f"not_in_{environment}", what, why, f"Promote it to {environment}")


def _copy(registry: Registry, name: str, digest: str, stored: Stored, environment: str) -> None:
    source, target = registry.repository(stored.stage, name), registry.repository(environment, name)
    _copy_manifest(registry, source, target, digest, digest)
    _copy_manifest(registry, source, target, digest, stored.release.version)
    copy_attached(registry, source, target, digest)


def _copy_manifest(registry: Registry, source: str, target: str, reference: str, name: str) -> None:
    manifest = registry.manifest(source, reference)
    for child in manifest.children:
        _copy_manifest(registry, source, target, child.digest, child.digest)
    for blob in manifest.blobs:
        registry.copy_blob(source, target, blob)
    registry.put_manifest(target, name, manifest)


def _record(
    registry: Registry, stored: Stored, environment: str, key: SigningKey, overlay: Overlay, entry: Entry
) -> Entry:
    here = stored.model_copy(update={"stage": environment})
    said = promotion(stored, entry.action, environment, entry.previous, entry.by, entry.at)
    repository = registry.repository(environment, ARTIFACT)
    attest(registry, repository, stored.digest, key, statement(all_parts(registry, here), PROMOTION, said))
    places = {name: registry.name(registry.repository(environment, name)) for name in stored.release.images}
    overlay.write({name: f"{places[name]}@{digest}" for name, digest in stored.release.images.items()}, entry)
    return entry
