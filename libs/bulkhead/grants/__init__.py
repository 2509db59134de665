"""Grants and provenance labels: signed by one service, verified in another.

A grant token is a compact EdDSA JWT: header kid = issuing service, claims = {"grant": TaskGrant|StepGrant,
"parent": task grant token (step grants only)}. Ed25519 is deterministic: the same claims give the same token.
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import jwt
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import ValidationError

from bulkhead.bounded_dict import BoundedDict
from bulkhead_contracts import bounds, catalog
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.result import Label

G = TypeVar("G", TaskGrant, StepGrant)
MAX_LABELS_KNOWN = 4_096
"""Labels whose signature was looked at: a label goes through several messages of its task."""


class GrantRefused(Exception):
    """A token that gives no authority for this; `code` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Authority:
    """The rights of a verified token."""

    task: TaskGrant
    step: StepGrant | None
    token: str


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


_JSON = json.JSONEncoder(separators=(",", ":"))


def _compact(value: dict[str, object]) -> bytes:
    return _JSON.encode(value).encode()


def new_signing_seed() -> str:
    """A fresh Ed25519 seed, base64url."""
    key = Ed25519PrivateKey.generate()
    return _b64(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))


def public_of(seed: str) -> str:
    """Public key (base64url) of a seed."""
    key = Ed25519PrivateKey.from_private_bytes(_unb64(seed)).public_key()
    return _b64(key.public_bytes(Encoding.Raw, PublicFormat.Raw))


class Signer:
    """Signs as one service."""

    def __init__(self, service: str, seed: str) -> None:
        self.service = service
        self._key = Ed25519PrivateKey.from_private_bytes(_unb64(seed))
        self._head = _b64(_compact({"alg": "EdDSA", "kid": service, "typ": "JWT"}))

    def grant(self, grant: TaskGrant | StepGrant, parent: str = "") -> str:
        """Token of a grant; a step grant takes its task grant's token as parent."""
        claims: dict[str, object] = {"grant": grant.model_dump(mode="json")}
        if parent:
            claims["parent"] = parent
        # As PyJWT writes it, byte for byte, without its checks of a key and options that never change.
        signed = f"{self._head}.{_b64(_compact(claims))}"
        return f"{signed}.{_b64(self._key.sign(signed.encode()))}"

    def label(self, label: Label) -> Label:
        """The label with this service's signature."""
        signature = self._key.sign(_label_bytes(label))
        return label.model_copy(update={"signature": _b64(signature)})


def _label_bytes(label: Label) -> bytes:
    return rfc8785.dumps(label.model_dump(exclude={"signature"}))


class Verifier:
    """Knows every service's public key."""

    def __init__(self, public_keys: dict[str, str]) -> None:
        self._keys = {name: Ed25519PublicKey.from_public_bytes(_unb64(key)) for name, key in public_keys.items()}
        self._labels = BoundedDict[Label, bool](MAX_LABELS_KNOWN)

    @classmethod
    def from_file(cls, path: Path) -> "Verifier":
        """Read `public.json`: {service: public key}."""
        return cls(json.loads(path.read_text()))

    def label(self, label: Label) -> bool:
        """Whether the observer named in the label signed it. Deciders observe nothing, whatever they sign."""
        known = self._labels.use(label)
        if known is None:
            known = self._labels[label] = self._signed(label)
        return known

    def _signed(self, label: Label) -> bool:
        key = self._keys.get(label.observed_by)
        if key is None or not label.signature or label.observed_by in catalog.DECIDERS:
            return False
        try:
            key.verify(_unb64(label.signature), _label_bytes(label))
        except (InvalidSignature, ValueError):
            return False
        return True

    def authority(self, token: str, *, tenant: str, task: str, now_unix_ms: int) -> Authority:
        """Verify a token for a task at a time. Raises GrantRefused.

        Checked: issuer's signature (task grants by the signer, step grants by the planner), tenant, task, expiry,
        and that a step grant names no tool beyond its task grant.
        """
        if not token or len(token) > bounds.MAX_GRANT_TOKEN_BYTES:
            raise GrantRefused("no_grant", "the message carries no grant; only granted work is done")
        claims = self._claims(token)
        claimed = claims.get("grant")
        if isinstance(claimed, dict) and claimed.get("kind") == "step":
            step = self._parse(StepGrant, token, claims, "planner")
            parent = claims.get("parent")
            if not isinstance(parent, str):
                raise GrantRefused("no_parent", "a step grant must carry its task grant")
            top = self._parse(TaskGrant, parent, self._claims(parent), "signer")
            if not set(step.tools) <= set(top.tools):
                raise GrantRefused("widened", "the step grant names tools that the task grant does not")
            grants: list[TaskGrant | StepGrant] = [top, step]
        else:
            step = None
            top = self._parse(TaskGrant, token, claims, "signer")
            grants = [top]
        for grant in grants:
            if grant.tenant != tenant or grant.task != task:
                raise GrantRefused("foreign", "the grant is for another tenant or task")
            if grant.expires_unix_ms <= now_unix_ms:
                raise GrantRefused("expired", "the grant has expired; the task outlived its deadline")
        return Authority(task=top, step=step, token=token)

    def _claims(self, token: str) -> dict[str, object]:
        try:
            issuer = jwt.get_unverified_header(token).get("kid", "")
            key = self._keys.get(issuer)
            if key is None:
                raise GrantRefused("unknown_issuer", f"no key is known for issuer {str(issuer)[:40]!r}")
            claims = jwt.decode(token, key, algorithms=["EdDSA"])
        except jwt.InvalidTokenError as error:
            raise GrantRefused("bad_signature", f"the grant does not verify: {error}") from error
        return {**claims, "_issuer": issuer}

    @staticmethod
    def _parse(kind: type[G], token: str, claims: dict[str, object], issuer: str) -> G:
        if claims["_issuer"] != issuer:
            raise GrantRefused("wrong_issuer", f"a {kind.__name__} must be signed by {issuer}")
        try:
            return kind.model_validate(claims["grant"])
        except ValidationError as error:
            raise GrantRefused("malformed", "the grant's claims do not fit the schema") from error


def unverified_claims(token: str) -> dict[str, object]:
    """Claims without checking the signature; for replay and display only. {} for what is no token."""
    try:
        return dict(jwt.decode(token, options={"verify_signature": False}))
    except jwt.InvalidTokenError:
        return {}
