"""Signatures and attestations beside what they speak of, in the form that cosign reads.

Sources: SIGNATURE_SPEC.md and ATTESTATION_SPEC.md of sigstore/cosign; DSSE's protocol.md.
In: a repository, a digest, a key. Out: the tag `sha256-<hex>.sig` (simple signing payloads, the signature as an
annotation) and `sha256-<hex>.att` (in-toto statements in DSSE envelopes). What cannot be read or is signed by nobody
that is trusted counts as not there, and is told apart for the error.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bulkhead_infra.promotion.errors import Refused
from bulkhead_infra.promotion.keys import SigningKey, Trust
from bulkhead_infra.promotion.registry.client import OCI_MANIFEST, UNREADABLE, Descriptor, Manifest, Registry

SIGNATURES, ATTESTATIONS = "sig", "att"
SIGNATURE_KEY = "dev.cosignproject.cosign/signature"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
CONFIG = "application/vnd.oci.image.config.v1+json"
MAX_ATTACHED = 1_000


def attached_tag(digest: str, kind: str) -> str:
    """`sha256-<hex>.sig`, as cosign finds it."""
    return f"{digest.replace(':', '-')}.{kind}"


def compact(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class Statement:
    """A verified in-toto statement. subjects: digests that it speaks of."""

    predicate_type: str
    subjects: frozenset[str]
    predicate: Mapping[str, Any]
    signer: str


@dataclass(frozen=True, slots=True)
class Found:
    """strangers: how many more there are that no trusted key has signed."""

    statements: tuple[Statement, ...]
    strangers: int


def sign(registry: Registry, repository: str, digest: str, key: SigningKey) -> None:
    """Sign what a digest names."""
    identity = {"docker-reference": registry.name(repository)}
    critical = {
        "identity": identity,
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    payload = compact({"critical": critical, "optional": None})
    annotations = {SIGNATURE_KEY: base64.b64encode(key.sign(payload)).decode()}
    blob = registry.put_blob(repository, payload)
    _write(registry, repository, digest, SIGNATURES, [Descriptor(SIMPLE_SIGNING, blob.digest, blob.size, annotations)])


def signer(registry: Registry, repository: str, digest: str, trust: Trust, role: str) -> str:
    """The id of the trusted key that signed it. Raises Refused: unsigned, wrong_signer."""
    where = f"{registry.name(repository)}@{digest}"
    rows = _attached(registry, repository, digest, SIGNATURES)
    if not rows:
        then = "Sign the release with `sign`, after its tests"
        raise Refused("unsigned", f"{where} is not signed", "the registry has no signature for it", then)
    for row in rows:
        payload = registry.blob(repository, row.digest)
        signature = _decoded(row.annotations.get(SIGNATURE_KEY, ""))
        found = trust.signer(role, payload, signature)
        if found and _claims(payload) == digest:
            return found
    raise Refused(
        "wrong_signer",
        f"{where} is signed by nobody that is trusted",
        f"none of its {len(rows)} signatures is by a {role} key",
        "Sign it with that key, or trust the signer's public key if it is yours",
    )


def attest(registry: Registry, repository: str, digest: str, key: SigningKey, *said: Mapping[str, Any]) -> None:
    """Put signed statements beside a digest."""
    rows = []
    for statement in said:
        blob = registry.put_blob(repository, _envelope(statement, key))
        annotations = {SIGNATURE_KEY: "", "predicateType": str(statement["predicateType"])}
        rows.append(Descriptor(ENVELOPE, blob.digest, blob.size, annotations))
    _write(registry, repository, digest, ATTESTATIONS, rows)


def _envelope(statement: Mapping[str, Any], key: SigningKey) -> bytes:
    payload = compact(statement)
    signature = base64.b64encode(key.sign(_pre_authentication(payload))).decode()
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key.id, "sig": signature}],
    }
    return compact(envelope)


def statements(registry: Registry, repository: str, digest: str, trust: Trust, role: str) -> Found:
    """The statements about a digest that a key of this role signed."""
    found, strangers = [], 0
    for row in _attached(registry, repository, digest, ATTESTATIONS):
        one = _verified(registry.blob(repository, row.digest), trust, role)
        if one is None or digest not in one.subjects:
            strangers += 1
        else:
            found.append(one)
    return Found(tuple(found), strangers)


def _verified(envelope: bytes, trust: Trust, role: str) -> Statement | None:
    try:
        document = json.loads(envelope)
        payload = _decoded(document["payload"])
        signatures = [_decoded(row["sig"]) for row in document["signatures"]]
        name = next(filter(None, (trust.signer(role, _pre_authentication(payload), one) for one in signatures)), None)
        if name is None or document["payloadType"] != PAYLOAD_TYPE:
            return None
        body = json.loads(payload)
        subjects = frozenset(f"sha256:{row['digest']['sha256']}" for row in body["subject"])
        if body["_type"] != STATEMENT or not isinstance(body["predicate"], dict):
            return None
        return Statement(body["predicateType"], subjects, body["predicate"], name)
    except UNREADABLE:
        return None


def _pre_authentication(payload: bytes) -> bytes:
    """DSSE's PAE: the bytes that are signed."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _claims(payload: bytes) -> str:
    """The digest that a simple signing payload speaks of."""
    try:
        return str(json.loads(payload)["critical"]["image"]["docker-manifest-digest"])
    except UNREADABLE:
        return ""


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def _attached(registry: Registry, repository: str, digest: str, kind: str) -> tuple[Descriptor, ...]:
    manifest = registry.find_manifest(repository, attached_tag(digest, kind))
    wanted = SIMPLE_SIGNING if kind == SIGNATURES else ENVELOPE
    return tuple(row for row in manifest.layers[:MAX_ATTACHED] if row.media_type == wanted) if manifest else ()


def copy_attached(registry: Registry, source: str, target: str, digest: str) -> None:
    """Bring signatures and attestations along; what the target has of its own stays."""
    for kind in (SIGNATURES, ATTESTATIONS):
        rows = _attached(registry, source, digest, kind)
        for row in rows:
            registry.copy_blob(source, target, row)
        if rows:
            _write(registry, target, digest, kind, rows)


def _write(registry: Registry, repository: str, digest: str, kind: str, rows: Sequence[Descriptor]) -> None:
    """Add layers to the manifest of a tag; the same one is not added twice."""
    layers = list(_attached(registry, repository, digest, kind))
    layers += [row for row in rows if row not in layers]
    contents = {"type": "layers", "diff_ids": [row.digest for row in layers]}
    config = registry.put_blob(repository, compact({"architecture": "", "os": "", "config": {}, "rootfs": contents}))
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
        "layers": [row.document() for row in layers],
    }
    registry.put_manifest(repository, attached_tag(digest, kind), Manifest(compact(document), OCI_MANIFEST))
