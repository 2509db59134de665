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

import jwt
import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import ValidationError

from bulkhead.bounded_dict import BoundedDict
from bulkhead.grants.key_file import KeyFile, service_of
from bulkhead_contracts import bounds, catalog
from bulkhead_contracts.approval import ApprovalGrant
from bulkhead_contracts.grant import StepGrant, TaskGrant, Voucher
from bulkhead_contracts.provenance import Attribution
from bulkhead_contracts.result import Label

G = TypeVar("G", TaskGrant, StepGrant, Voucher)
MAX_LABELS_KNOWN = 4_096
"""Labels whose signature was looked at: a label goes through several messages of its task."""
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
    def constraints(self) -> tuple[str, ...]:
        """Of both grants. All of them hold, so that a step grant can only narrow."""
        return self.task.constraints + (self.step.constraints if self.step is not None else ())


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


def parent_sha256(token: str) -> str:
    """The digest by which a step grant names its task grant: of what is signed, so that it outlives a redaction."""
    return hashlib.sha256(token.rpartition(".")[0].encode()).hexdigest()


class Signer:
    """Signs as one service. kid: the name of its key; "" is the service's own."""

    def __init__(self, service: str, seed: str, kid: str = "") -> None:
        self.service = service
        self._key = Ed25519PrivateKey.from_private_bytes(_unb64(seed))
        self._head = _b64(_compact({"alg": "EdDSA", "kid": kid or service, "typ": "JWT"}))

    def grant(self, grant: TaskGrant | StepGrant | Voucher, parent: str = "") -> str:
        """Token of a grant; a step grant takes its task grant's token as parent."""
        if parent and isinstance(grant, StepGrant):
            grant = grant.model_copy(update={"parent_sha256": parent_sha256(parent)})
        claims: dict[str, object] = {"grant": grant.model_dump(mode="json")}
        if parent:
            claims["parent"] = parent
        return self._signed(claims)

    def approval(self, approval: ApprovalGrant) -> str:
        """Token of a person's word about one call."""
        return self._signed({"approval": approval.model_dump(mode="json")})

    def _signed(self, claims: dict[str, object]) -> str:
        # As PyJWT writes it, byte for byte, without its checks of a key and options that never change.
        signed = f"{self._head}.{_b64(_compact(claims))}"
        return f"{signed}.{_b64(self._key.sign(signed.encode()))}"

    def label(self, label: Label, tenant: str, task: str) -> Label:
        """The label with this service's signature, for this task alone."""
        return label.model_copy(update={"signature": self._testify(label, tenant, task)})

    def attribution(self, attribution: Attribution, tenant: str, task: str) -> Attribution:
        """The attribution with this service's signature, for this task alone."""
        return attribution.model_copy(update={"signature": self._testify(attribution, tenant, task)})

    def _testify(self, observed: Label | Attribution, tenant: str, task: str) -> str:
        return _b64(self._key.sign(_testimony(observed, tenant, task)))


def _testimony(observed: Label | Attribution, tenant: str, task: str) -> bytes:
    """What a signature covers. Kind, tenant and task are part of it: none is good for anything else."""
    said = observed.model_dump(mode="json", exclude={"signature"})
    return rfc8785.dumps({"kind": type(observed).__name__, "tenant": tenant, "task": task, "said": said})


class Verifier:
    """Knows every service's public keys."""

    def __init__(self, public_keys: Mapping[str, str], file: KeyFile | None = None) -> None:
        self._file = file
        self._labels = BoundedDict[tuple[Label, str, str], bool](MAX_LABELS_KNOWN)
        self._grants = BoundedDict[bytes, tuple[TaskGrant, StepGrant | None]](MAX_GRANTS_KNOWN)
        self._take(public_keys)

    @classmethod
    def from_file(cls, path: Path) -> "Verifier":
        """Read `public.json`: {key id: public key}; again when it changes."""
        return cls(json.loads(path.read_text()), KeyFile(path))

    def _take(self, public_keys: Mapping[str, str]) -> None:
        self._keys = {kid: Ed25519PublicKey.from_public_bytes(_unb64(key)) for kid, key in public_keys.items()}
        # What a key signed that is no longer there is believed no more.
        self._labels.clear()
        self._grants.clear()

    def _look(self) -> None:
        """Take the keys that are in the file by now."""
        if self._file is not None and (changed := self._file.changed()) is not None:
            self._take(changed)

    def label(self, label: Label, tenant: str, task: str) -> bool:
        """Whether its observer signed it for this task, or who may hand it on from an earlier one. Deciders observe
        nothing, whatever they sign."""
        self._look()
        name = (label, tenant, task)
        known = self._labels.use(name)
        if known is None:
            known = self._labels[name] = self._signed(label, label.signed_by or label.observed_by, tenant, task)
        return known

    def attribution(self, attribution: Attribution, tenant: str, task: str) -> bool:
        """Whether the observer named in the attribution signed it for this task."""
        self._look()
        return self._signed(attribution, attribution.observed_by, tenant, task)

    def _signed(self, observed: Label | Attribution, by: str, tenant: str, task: str) -> bool:
        if not observed.signature or by in catalog.DECIDERS:
            return False
        said = _testimony(observed, tenant, task)
        for kid, key in self._keys.items():
            if service_of(kid) != by:
                continue
            try:
                key.verify(_unb64(observed.signature), said)
                return True
            except (InvalidSignature, ValueError):
                continue
        return False

    def authority(self, token: str, *, tenant: str, task: str, now_unix_ms: int) -> Authority:
        """Verify a token for a task at a time. Raises GrantRefused.

        Checked: issuer's signature (task grants by the signer, step grants by the planner), tenant, task, expiry,
        and that a step grant names no tool beyond its task grant.
        """
        if not token or len(token) > bounds.MAX_GRANT_TOKEN_BYTES:
            raise GrantRefused("no_grant", "the message carries no grant; only granted work is done")
        self._look()
        name = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        known = self._grants.use(name)
        if known is None:
            known = self._grants[name] = self._chain(token)
        top, step = known
        grants: list[TaskGrant | StepGrant] = [top, step] if step is not None else [top]
        for grant in grants:
            if grant.tenant != tenant or grant.task != task:
                raise GrantRefused("foreign", "the grant is for another tenant or task")
            if grant.expires_unix_ms <= now_unix_ms:
                raise GrantRefused("expired", "the grant has expired; the task outlived its deadline")
        return Authority(task=top, step=step, token=token)

    def approval(self, token: str, *, tenant: str, task: str) -> ApprovalGrant:
        """A person's word that the signer signed, for a call of this task. Raises GrantRefused."""
        claims = self._claims(token)
        if claims["_issuer"] != "signer":
            raise GrantRefused("wrong_issuer", "a person's word must be signed by signer")
        try:
            found = ApprovalGrant.model_validate(claims.get("approval"))
        except ValidationError as error:
            raise GrantRefused("malformed", "the approval's claims do not fit the schema") from error
        if (found.tenant, found.task) != (tenant, task):
            raise GrantRefused("foreign", "the approval is for another tenant or task")
        return found

    def _chain(self, token: str) -> tuple[TaskGrant, StepGrant | None]:
        """The grants of a token, each signed by who may issue it, the second one within the first."""
        claims = self._claims(token)
        claimed = claims.get("grant")
        if not isinstance(claimed, dict) or claimed.get("kind") != "step":
            return self._parse(TaskGrant, token, claims, "signer"), None
        step = self._parse(StepGrant, token, claims, "planner")
        parent = claims.get("parent")
        if not isinstance(parent, str):
            raise GrantRefused("no_parent", "a step grant must carry its task grant")
        top = self._parse(TaskGrant, parent, self._claims(parent), "signer")
        if step.parent_sha256 != parent_sha256(parent):
            raise GrantRefused("other_parent", "the step grant was made for another task grant than it carries")
        if not set(step.tools) <= set(top.tools):
            raise GrantRefused("widened", "the step grant names tools that the task grant does not")
        return top, step

    def voucher(self, token: str, now_unix_ms: int) -> Voucher:
        """The signer's word about a requester's own token. Raises GrantRefused."""
        if not token or len(token) > bounds.MAX_VOUCHER_CHARS:
            raise GrantRefused("no_voucher", "the request carries no voucher of the signer")
        found = self._parse(Voucher, token, self._claims(token), "signer")
        if found.expires_unix_ms <= now_unix_ms:
            raise GrantRefused("expired", "the voucher has expired")
        return found

    def _claims(self, token: str) -> dict[str, object]:
        try:
            kid = str(jwt.get_unverified_header(token).get("kid", ""))
            key = self._keys.get(kid)
            if key is None:
                raise GrantRefused("unknown_issuer", f"no key is known for issuer {kid[:40]!r}")
            claims = jwt.decode(token, key, algorithms=["EdDSA"])
        except jwt.InvalidTokenError as error:
            raise GrantRefused("bad_signature", f"the grant does not verify: {error}") from error
        return {**claims, "_issuer": service_of(kid)}

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
