"""Grants and provenance labels: signed by one service, verified in another.

A grant token is a compact EdDSA JWT: header kid = `service`, or `service#2` for its second key, claims = {"grant":
TaskGrant|StepGrant, "parent": task grant token (step grants only)}. Ed25519 is deterministic: the same claims give the
same token.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import ValidationError
from pydantic_core import from_json

from bulkhead.bounded_dict import BoundedDict
from bulkhead.grants.key_file import PublicKeyFile, service_of
from bulkhead_contracts import bounds, catalog
from bulkhead_contracts.approval import ApprovalGrant, SignedKind
from bulkhead_contracts.grant import StepGrant, TaskGrant, Voucher
from bulkhead_contracts.provenance import Attribution
from bulkhead_contracts.result import Label

G = TypeVar("G", TaskGrant, StepGrant, Voucher)
EXPIRED = "the grant has expired; the task outlived its deadline"
MAX_LABELS_KNOWN = 4_096
"""Labels that verified, by their signatures: a label goes through several messages of its task."""
MAX_GRANTS_KNOWN = 2_048
"""Tokens that verified: one comes with every call of its step."""


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

    @property
    def expires_unix_ms(self) -> int:
        """End of the earlier one of both grants."""
        return min(grant.expires_unix_ms for grant in (self.task, self.step) if grant is not None)

    @property
    def constraints(self) -> tuple[str, ...]:
        """Constraints of both grants. All of them hold, so that a step grant can only narrow."""
        return self.task.constraints + (self.step.constraints if self.step is not None else ())


def _encode_b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode_b64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


_ALGORITHM = "EdDSA"
_JSON = json.JSONEncoder(separators=(",", ":"))
_CANONICAL_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
"""RFC 8785, for what labels and attributions hold: ASCII keys, texts and truth values."""


def _compact_json(value: dict[str, object]) -> bytes:
    return _JSON.encode(value).encode()


def _read_part(part: str) -> dict[str, object]:
    """Head or claims of a token. Raises ValueError."""
    value = from_json(_decode_b64(part))
    if not isinstance(value, dict):
        raise ValueError("a part of it is no JSON object")
    return value


def new_signing_seed() -> str:
    """A fresh Ed25519 seed, base64url."""
    key = Ed25519PrivateKey.generate()
    return _encode_b64(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))


def public_of(seed: str) -> str:
    """Public key (base64url) of a seed."""
    key = Ed25519PrivateKey.from_private_bytes(_decode_b64(seed)).public_key()
    return _encode_b64(key.public_bytes(Encoding.Raw, PublicFormat.Raw))


def parent_sha256(token: str) -> str:
    """The digest by which a step grant names its task grant: of what is signed, so that it outlives a redaction."""
    return hashlib.sha256(token.rpartition(".")[0].encode()).hexdigest()


class Signer:
    """Signs as one service. kid: the name of its key; "" is the service's own."""

    def __init__(self, service: str, seed: str, kid: str = "") -> None:
        self.service = service
        self._key = Ed25519PrivateKey.from_private_bytes(_decode_b64(seed))
        self._head = _encode_b64(_compact_json({"alg": _ALGORITHM, "kid": kid or service, "typ": "JWT"}))

    def sign_grant(self, grant: TaskGrant | StepGrant | Voucher, parent: str = "") -> str:
        """Token of a grant; a step grant takes its task grant's token as parent."""
        if parent and isinstance(grant, StepGrant):
            grant = grant.model_copy(update={"parent_sha256": parent_sha256(parent)})
        claims: dict[str, object] = {"grant": grant.model_dump(mode="json")}
        if parent:
            claims["parent"] = parent
        return self._sign_claims(claims)

    def sign_approval(self, approval: ApprovalGrant) -> str:
        """Token of a person's word about one call."""
        return self._sign_claims({"approval": approval.model_dump(mode="json")})

    def _sign_claims(self, claims: dict[str, object]) -> str:
        # As PyJWT writes it, byte for byte, without its checks of a key and options that never change.
        signed = f"{self._head}.{_encode_b64(_compact_json(claims))}"
        return f"{signed}.{_encode_b64(self._key.sign(signed.encode()))}"

    def sign_label(self, label: Label, tenant: str, task: str) -> Label:
        """The label with this service's signature, for this task alone."""
        return label.model_copy(update={"signature": self._sign_observation(label, tenant, task)})

    def sign_attribution(self, attribution: Attribution, tenant: str, task: str) -> Attribution:
        """The attribution with this service's signature, for this task alone."""
        return attribution.model_copy(update={"signature": self._sign_observation(attribution, tenant, task)})

    def _sign_observation(self, observed: Label | Attribution, tenant: str, task: str) -> str:
        return _encode_b64(self._key.sign(_bytes_to_sign(observed, tenant, task)))


def _bytes_to_sign(observed: Label | Attribution, tenant: str, task: str) -> bytes:
    """Bytes that a signature covers. Kind, tenant and task are part of them: none is good for anything else."""
    observation = observed.model_dump(mode="json", exclude={"signature"})
    whole = {"kind": type(observed).__name__, "tenant": tenant, "task": task, "said": observation}
    return _CANONICAL_JSON.encode(whole).encode()


class Verifier:
    """Knows every service's public keys."""

    def __init__(self, public_keys: Mapping[str, str], file: PublicKeyFile | None = None) -> None:
        self._file = file
        self._labels = BoundedDict[str, tuple[Label, str, str]](MAX_LABELS_KNOWN)
        self._grants = BoundedDict[bytes, tuple[TaskGrant, StepGrant | None]](MAX_GRANTS_KNOWN)
        self._set_keys(public_keys)

    @classmethod
    def from_file(cls, path: Path) -> "Verifier":
        """Read `public.json`: {key id: public key}; again when it changes."""
        return cls(json.loads(path.read_text()), PublicKeyFile(path))

    def _set_keys(self, public_keys: Mapping[str, str]) -> None:
        self._keys = {kid: Ed25519PublicKey.from_public_bytes(_decode_b64(key)) for kid, key in public_keys.items()}
        # What a key signed that is no longer there is believed no more.
        self._labels.clear()
        self._grants.clear()

    def _refresh_keys(self) -> None:
        """Take the keys that are in the file by now."""
        if self._file is not None and (changed := self._file.changed_keys()) is not None:
            self._set_keys(changed)

    def verify_label(self, label: Label, tenant: str, task: str) -> bool:
        """True if its observer signed it for this task, or who may hand it on from an earlier one. Deciders observe
        nothing, whatever they sign.
        """
        self._refresh_keys()
        signed = (label, tenant, task)
        if self._labels.get_refreshed(label.signature) == signed:
            return True
        if not self._is_signed_by(label, label.signed_by or label.observed_by, tenant, task):
            return False
        self._labels[label.signature] = signed
        return True

    def verify_attribution(self, attribution: Attribution, tenant: str, task: str) -> bool:
        """True if the observer named in the attribution signed it for this task."""
        self._refresh_keys()
        return self._is_signed_by(attribution, attribution.observed_by, tenant, task)

    def _is_signed_by(self, observed: Label | Attribution, by: str, tenant: str, task: str) -> bool:
        if not observed.signature or by in catalog.DECIDERS:
            return False
        signed_bytes = _bytes_to_sign(observed, tenant, task)
        for kid, key in self._keys.items():
            if service_of(kid) != by:
                continue
            try:
                key.verify(_decode_b64(observed.signature), signed_bytes)
                return True
            except (InvalidSignature, ValueError):
                continue
        return False

    def verify_authority(self, token: str, *, tenant: str, task: str, now_unix_ms: int) -> Authority:
        """Verify a token for a task at a time. Raises GrantRefused.

        Checked: issuer's signature (task grants by the signer, step grants by the planner), tenant, task, expiry,
        and that a step grant names no tool beyond its task grant.
        """
        if not token or len(token) > bounds.MAX_GRANT_TOKEN_BYTES:
            raise GrantRefused("no_grant", "the message carries no grant; only granted work is done")
        self._refresh_keys()
        top, step = self._verify_chain(token)
        grants: list[TaskGrant | StepGrant] = [top, step] if step is not None else [top]
        for grant in grants:
            if grant.tenant != tenant or grant.task != task:
                raise GrantRefused("foreign", "the grant is for another tenant or task")
            if grant.expires_unix_ms <= now_unix_ms:
                raise GrantRefused("expired", EXPIRED)
        return Authority(task=top, step=step, token=token)

    def verify_approval(self, token: str, *, tenant: str, task: str, kind: SignedKind = "approval") -> ApprovalGrant:
        """A person's word of this kind that the signer signed, for a call of this task. Raises GrantRefused."""
        self._refresh_keys()
        claims = self._verified_claims(token)
        if claims["_issuer"] != "signer":
            raise GrantRefused("wrong_issuer", "a person's word must be signed by signer")
        try:
            approval = ApprovalGrant.model_validate(claims.get("approval"))
        except ValidationError as error:
            raise GrantRefused("malformed", "the approval's claims do not fit the schema") from error
        if (approval.kind, approval.tenant, approval.task) != (kind, tenant, task):
            raise GrantRefused("foreign", "the word is of another kind, or for another tenant or task")
        return approval

    def _verify_chain(self, token: str, *, is_parent: bool = False) -> tuple[TaskGrant, StepGrant | None]:
        """The grants of a token, each signed by who may issue it, the second one within the first; each token once.
        is_parent: a task grant is the only one that it may be."""
        name = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        chain = self._grants.get_refreshed(name)
        if chain is None:
            chain = self._grants[name] = self._read_chain(token, is_parent=is_parent)
        if is_parent and chain[1] is not None:
            raise GrantRefused("wrong_issuer", "a TaskGrant must be signed by signer")
        return chain

    def _read_chain(self, token: str, *, is_parent: bool) -> tuple[TaskGrant, StepGrant | None]:
        claims = self._verified_claims(token)
        claimed = claims.get("grant")
        if is_parent or not isinstance(claimed, dict) or claimed.get("kind") != "step":
            return self._parse_grant(TaskGrant, token, claims, "signer"), None
        step = self._parse_grant(StepGrant, token, claims, "planner")
        parent = claims.get("parent")
        if not isinstance(parent, str):
            raise GrantRefused("no_parent", "a step grant must carry its task grant")
        top, _ = self._verify_chain(parent, is_parent=True)
        if step.parent_sha256 != parent_sha256(parent):
            raise GrantRefused("other_parent", "the step grant was made for another task grant than it carries")
        if not set(step.tools) <= set(top.tools):
            raise GrantRefused("widened", "the step grant names tools that the task grant does not")
        return top, step

    def verify_voucher(self, token: str, now_unix_ms: int) -> Voucher:
        """The signer's word about a requester's own token. Raises GrantRefused."""
        if not token or len(token) > bounds.MAX_VOUCHER_CHARS:
            raise GrantRefused("no_voucher", "the request carries no voucher of the signer")
        voucher = self._parse_grant(Voucher, token, self._verified_claims(token), "signer")
        if voucher.expires_unix_ms <= now_unix_ms:
            raise GrantRefused("expired", "the voucher has expired")
        return voucher

    def _verified_claims(self, token: str) -> dict[str, object]:
        try:
            head_part, claims_part, signature = token.split(".")
            head = _read_part(head_part)
            kid = str(head.get("kid", ""))
            key = self._keys.get(kid)
            if key is None:
                raise GrantRefused("unknown_issuer", f"no key is known for issuer {kid[:40]!r}")
            if head.get("alg") != _ALGORITHM:
                raise ValueError(f"it is not signed by {_ALGORITHM}")
            key.verify(_decode_b64(signature), f"{head_part}.{claims_part}".encode())
            claims = _read_part(claims_part)
        except (ValueError, InvalidSignature) as error:
            reason = str(error) or "its signature is wrong"
            raise GrantRefused("bad_signature", f"the grant does not verify: {reason}") from error
        return {**claims, "_issuer": service_of(kid)}

    @staticmethod
    def _parse_grant(kind: type[G], token: str, claims: dict[str, object], issuer: str) -> G:
        if claims["_issuer"] != issuer:
            raise GrantRefused("wrong_issuer", f"a {kind.__name__} must be signed by {issuer}")
        try:
            return kind.model_validate(claims["grant"])
        except ValidationError as error:
            raise GrantRefused("malformed", "the grant's claims do not fit the schema") from error


def unverified_claims(token: str) -> dict[str, object]:
    """Claims without checking the signature; for replay and display only. {} for what is no token."""
    try:
        _, claims_part, _ = token.split(".")
        return _read_part(claims_part)
    except ValueError:
        return {}
