"""Signed statements of evaluations: in-toto statements in DSSE envelopes, signed with Ed25519.

In: a statement and a private key; or an envelope, public keys, and what it is to fit. Out: an envelope as JSON; or the
statement, and why it does not fit. Private keys are PEM files (PKCS #8), public keys the 64 hex digits of their bytes.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import BaseModel, Field, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from bulkhead.text.amounts import format_duration
from bulkhead_contracts import bounds
from bulkhead_contracts.evaluation import (
    DATASETS,
    IMAGES,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    PROMPTS,
    STATEMENT_TYPE,
    EvaluationStatement,
)

MAX_AHEAD_MS = 600_000
"""How far the clock of the signer may be ahead, or behind where it dates a report."""


class StatementError(ValueError):
    """A key or a statement that cannot be used; `hint` says what to do."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.hint = hint


class _Signature(BaseModel):
    keyid: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    sig: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$")]


class _EnvelopeForm(BaseModel):
    payload: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$")]
    payloadType: Literal["application/vnd.in-toto+json"]
    signatures: Annotated[list[_Signature], Field(min_length=1, max_length=8)]


class _Payload(BaseModel):
    type_: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    predicateType: Literal["urn:bulkhead:evaluation:v1"]


class VerifiedStatement(NamedTuple):
    """A statement whose signature holds. sha256: of its payload; key_id: of the key that signed it."""

    statement: EvaluationStatement
    sha256: str
    key_id: str


def make_key(path: Path) -> str:
    """Write a new private key for its owner alone; returns the public key. Raises StatementError, OSError."""
    signer = CryptoSigner.generate_ed25519()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise StatementError(f"{path} exists", "name another file: a key is not written over") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(signer.private_bytes)
    return str(signer.public_key.keyval["public"])


def load_key(path: Path) -> CryptoSigner:
    """The private key of a file. Raises StatementError."""
    hint = "`bulkhead eval keygen FILE` makes one"
    try:
        private_key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StatementError(f"{path} holds no private key that can be read: {error}", hint) from error
    if not isinstance(private_key, Ed25519PrivateKey):
        raise StatementError(f"{path} holds no Ed25519 key", hint)
    return CryptoSigner(private_key)


def public_key_of(signer: CryptoSigner) -> str:
    """The public half of a private key, 64 hex digits."""
    return str(signer.public_key.keyval["public"])


def sign_statement(statement: EvaluationStatement, signer: CryptoSigner) -> str:
    """The envelope, with as many of the failed cases as fit. Raises StatementError for a statement that is too large
    without any."""
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [row.model_dump(mode="json") for row in statement.subject],
        "predicateType": PREDICATE_TYPE,
        "predicate": statement.predicate.model_dump(mode="json"),
    }
    envelope = Envelope(json.dumps(document, ensure_ascii=False).encode(), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    text = json.dumps(envelope.to_dict())
    if len(text) > bounds.MAX_STATEMENT_BYTES and (failed := statement.predicate.failed):
        predicate = statement.predicate.model_copy(update={"failed": failed[:-1]})
        return sign_statement(statement.model_copy(update={"predicate": predicate}), signer)
    if len(text) > bounds.MAX_STATEMENT_BYTES:
        reason = f"the statement takes {len(text):,} bytes, of {bounds.MAX_STATEMENT_BYTES:,}"
        raise StatementError(reason, "evaluate fewer things at once")
    return text


def verify_envelope(text: str, public_keys: Iterable[str]) -> VerifiedStatement:
    """The statement of an envelope that one of these keys signed. Raises StatementError."""
    try:
        form = _EnvelopeForm.model_validate_json(text)
        envelope = Envelope.from_dict(form.model_dump())
        # The key first: nothing of a statement counts, and little of it is read, before its signature holds.
        accepted = envelope.verify([_load_public(key) for key in public_keys], 1)
        _Payload.model_validate_json(envelope.payload)
        statement = EvaluationStatement.model_validate_json(envelope.payload)
    except VerificationError as error:
        hint = "sign it with a key that is named, or have an operator add its public key to the gate's keys"
        raise StatementError("no key that is named here has signed it", hint) from error
    except (ValidationError, FormatError, ValueError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        hint = "send the file that `bulkhead eval run --sign` or `eval serve` wrote"
        raise StatementError(f"it is no statement of an evaluation: {reason[:200]}", hint) from error
    return VerifiedStatement(statement, hashlib.sha256(envelope.payload).hexdigest(), next(iter(accepted)))


def _load_public(public_key: str) -> SSlibKey:
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)))


@dataclass(frozen=True, slots=True)
class Expectation:
    """Demands on a statement. set_sha256: None for any version of the set. prompts, images: digests by name.
    models: exactly those that answered; None for any. tenant: "" for any."""

    case_set: str = ""
    set_sha256: str | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    models: frozenset[str] | None = None
    min_pass: float = 0.0
    max_age_ms: int | None = None
    tenant: str = ""


class Mismatch(NamedTuple):
    """One reason for which a statement does not fit. code: `other_tenant`, `other_set`, `other_digests`,
    `other_models`, `stale` or `failed`."""

    code: str
    reason: str


def find_statement_misfits(statement: EvaluationStatement, expected: Expectation, now_unix_ms: int) -> list[Mismatch]:
    """Reasons for which a statement does not fit, those that no new evaluation mends first; [] for none."""
    predicate, misfits = statement.predicate, list[Mismatch]()
    if expected.tenant and predicate.tenant != expected.tenant:
        misfits.append(Mismatch("other_tenant", f"it is of {predicate.tenant or 'no tenant'}, not {expected.tenant}"))
    if expected.case_set and predicate.case_set != expected.case_set:
        misfits.append(Mismatch("other_set", f"it is of the set {predicate.case_set}, not of {expected.case_set}"))
    set_sha256 = statement.digests_of(DATASETS).get(predicate.case_set)
    if expected.set_sha256 and set_sha256 != expected.set_sha256:
        misfits.append(Mismatch("other_set", f"the set {predicate.case_set} is {str(set_sha256)[:12]}"))
    for kind, expected_digests in ((PROMPTS, expected.prompts), (IMAGES, expected.images)):
        digests = statement.digests_of(kind)
        misfits += [
            Mismatch("other_digests", f"{kind}{name} is {digest[:12]}, and {digests.get(name, 'none')[:12]} there")
            for name, digest in sorted(expected_digests.items())
            if digests.get(name) != digest
        ]
    if expected.models is not None and (odd := expected.models ^ frozenset(predicate.models)):
        answered = ", ".join(predicate.models) or "none"
        misfits.append(Mismatch("other_models", f"{answered} answered; that differs in {', '.join(sorted(odd))}"))
    age_ms = now_unix_ms - predicate.made_unix_ms
    if expected.max_age_ms is not None and not -MAX_AHEAD_MS <= age_ms <= expected.max_age_ms:
        age = f"it is {format_duration(age_ms)} old" if age_ms >= 0 else "it was made in the future"
        misfits.append(Mismatch("stale", f"{age}, of {format_duration(expected.max_age_ms)} at most"))
    misfits += [Mismatch("failed", problem) for problem in predicate.problems]
    if not predicate.runs or predicate.passed < expected.min_pass:
        names = ", ".join(row.case for row in predicate.failed[:5])
        reason = f"{predicate.passed:.0%} of {predicate.runs} runs passed, less than {expected.min_pass:.0%}"
        misfits.append(Mismatch("failed", f"{reason}: {names}" if names else reason))
    return misfits
