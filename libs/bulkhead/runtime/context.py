"""The context that the runtime gives a service's composition root (`app.py`)."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bulkhead.blobs import Blobs
from bulkhead.bus.port import Bus
from bulkhead.grants import Signer, Verifier, public_of
from bulkhead.grants.key_file import PublicKeyFile, kid_of
from bulkhead.runtime.background import BackgroundTasks
from bulkhead.runtime.publish.publisher import Publisher


def unix_ms() -> int:
    """The wall clock, in milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Context:
    """One running service: its bus under its own identity, its blobs, its keys, its clock."""

    service: str
    instance: str
    bus: Bus
    blobs: Blobs
    signer: Signer
    verifier: Verifier
    message_key: bytes
    """HMAC key of `Nats-Msg-Id`."""
    publisher: Publisher
    clock: Callable[[], int]
    """Unix milliseconds."""
    background: BackgroundTasks = field(default_factory=BackgroundTasks)
    """What the service cannot be without, beside its messages."""


@dataclass(frozen=True, slots=True)
class ServiceIdentity:
    """A service's key material."""

    nkey_seed: str
    """"" of who logs in with a token."""
    signing_seed: str
    public_keys: dict[str, str]
    """By key id: the service's name, or `service#2` for its second key."""
    public_file: Path | None = None
    """Read again when it changes."""

    @classmethod
    def load(cls, folder: Path, service: str, *, nkey: bool = True) -> "ServiceIdentity":
        """Read `<service>.nkey`, `<service>.sign` and `public.json`; a missing file says which and what to do. nkey:
        False for who logs in with a token."""
        import json

        contents = []
        for name in (f"{service}.nkey", f"{service}.sign", "public.json"):
            path = folder / name
            if path.suffix == ".nkey" and not nkey:
                contents.append("")
                continue
            if not path.is_file():
                raise FileNotFoundError(
                    f"{service} has no key file {path}; start the mesh with `bulkhead up`, which makes the keys, "
                    "or set BULKHEAD_IDENTITY_DIR"
                )
            contents.append(path.read_text().strip())
        identity = cls(contents[0], contents[1], json.loads(contents[2]), folder / "public.json")
        if problem := _key_mismatch(identity, service):
            raise ValueError(
                f"{folder / f'{service}.sign'} {problem}: nobody would believe what this service signs; hand it its "
                "own files anew, all of one mesh (`bulkhead up` does at each start)"
            )
        return identity

    @property
    def message_key(self) -> bytes:
        """Derived from a seed that all replicas of a service share, and no other service has."""
        return hashlib.blake2b(
            (self.nkey_seed or self.signing_seed).encode(), digest_size=32, person=b"bulkhead-msgid"
        ).digest()


def _key_mismatch(identity: ServiceIdentity, service: str) -> str:
    """Why others could not verify what this identity signs; "" when they can."""
    try:
        public = public_of(identity.signing_seed)
    except ValueError:
        return "holds no signing key"
    return "" if kid_of(identity.public_keys, service, public) else "is not the key that public.json names for it"


def make_context(
    service: str, instance: str, bus: Bus, identity: ServiceIdentity, clock: Callable[[], int] = unix_ms
) -> Context:
    """Tie a service's identity to its bus."""
    kid = kid_of(identity.public_keys, service, public_of(identity.signing_seed))
    file = PublicKeyFile(identity.public_file) if identity.public_file is not None else None
    signer, verifier = Signer(service, identity.signing_seed, kid), Verifier(identity.public_keys, file)
    key = identity.message_key
    publisher = Publisher(service, bus, key, clock)
    return Context(service, instance, bus, Blobs(bus, service), signer, verifier, key, publisher, clock)
