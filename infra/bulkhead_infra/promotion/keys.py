"""Keys of signers: ECDSA P-256, the scheme that every reader of cosign's signatures knows.

In: a private key as PKCS #8 in PEM, from a file or BULKHEAD_SIGNING_KEY; a folder of public keys, `<role>.pub` or
`<role>-<anything>.pub`. Out: signatures, and who made one. Roles: `release` signs images, attestations and releases;
`staging` and `production` sign promotions to that environment. Two files of a role are trusted at once: rotation.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bulkhead_infra.promotion.errors import WrongUsage
from bulkhead_infra.promotion.registry.client import digest_of

KEY_VARIABLE = "BULKHEAD_SIGNING_KEY"
ROLES = ("release", "staging", "production")
SCHEME = ec.ECDSA(hashes.SHA256())
PEM, SPKI = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo


def key_id(public: ec.EllipticCurvePublicKey) -> str:
    """The digest of the public key."""
    return digest_of(public.public_bytes(serialization.Encoding.DER, SPKI))


def _is_p256(public: object) -> TypeGuard[ec.EllipticCurvePublicKey]:
    return isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)


class SigningKey:
    """A private key."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private
        self.id = key_id(private.public_key())

    def sign(self, data: bytes) -> bytes:
        """A signature in DER."""
        return self._private.sign(data, SCHEME)


def read_key(path: Path | None) -> SigningKey:
    """From a file, or from BULKHEAD_SIGNING_KEY. Raises WrongUsage."""
    given = path or KEY_VARIABLE
    then = "Make one with `python -m bulkhead_infra.promotion key ROLE DIR`"
    if path is None and not os.environ.get(KEY_VARIABLE):
        raise WrongUsage("no_key", "nothing can be signed", f"neither --key nor {KEY_VARIABLE} is given", then)
    try:
        text = path.read_bytes() if path else os.environ[KEY_VARIABLE].encode()
        private = serialization.load_pem_private_key(text, None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise WrongUsage("bad_key", f"{given} holds no private key that can be used", str(error), then) from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise WrongUsage("bad_key", f"{given} holds another kind of key", "it is not ECDSA P-256", then)
    return SigningKey(private)


def make_key(role: str, folder: Path) -> tuple[Path, Path]:
    """role.pem and role.pub, neither of which is overwritten. Raises WrongUsage."""
    if role.partition("-")[0] not in ROLES:
        why = f"a role is one of {', '.join(ROLES)}, and may be followed by a dash and more"
        raise WrongUsage("role", f"`{role}` is no role", why, "Write `release-2026`, for example")
    private = ec.generate_private_key(ec.SECP256R1())
    folder.mkdir(parents=True, exist_ok=True)
    secret, public = folder / f"{role}.pem", folder / f"{role}.pub"
    if secret.exists() or public.exists():
        raise WrongUsage("key_exists", f"{role} has a key in {folder}", "keys are never overwritten", "Name another")
    unsealed = serialization.NoEncryption()
    secret.touch(mode=0o600)
    secret.write_bytes(private.private_bytes(PEM, serialization.PrivateFormat.PKCS8, unsealed))
    public.write_bytes(private.public_key().public_bytes(PEM, SPKI))
    return secret, public


@dataclass(frozen=True, slots=True)
class Trust:
    """The public keys that may sign, by role and id."""

    keys: Mapping[str, Mapping[str, ec.EllipticCurvePublicKey]]

    @classmethod
    def read(cls, folder: Path) -> "Trust":
        """Raises WrongUsage where a file is no key of a role, two roles share a key, or none is there."""
        found: dict[str, dict[str, ec.EllipticCurvePublicKey]] = {role: {} for role in ROLES}
        for file in sorted(folder.glob("*.pub")):
            role = file.stem.partition("-")[0]
            try:
                public = serialization.load_pem_public_key(file.read_bytes())
            except (OSError, ValueError, UnsupportedAlgorithm) as error:
                raise WrongUsage(
                    "bad_key", f"{file} is no public key", str(error), "Replace it by a key in PEM"
                ) from error
            if role not in found or not _is_p256(public):
                why = f"it is not ECDSA P-256, or its name does not begin with {', '.join(ROLES)}"
                raise WrongUsage("bad_key", f"{file} cannot be trusted for anything", why, "Rename or remove it")
            name = key_id(public)
            if others := [other for other, known in found.items() if other != role and name in known]:
                why, then = f"{others[0]} has the same key", "Make a key of its own for each role, and remove this file"
                raise WrongUsage("shared_key", f"{file} cannot be trusted for {role}", why, then)
            found[role][name] = public
        if not any(found.values()):
            why = f"{folder} has no file *.pub"
            raise WrongUsage(
                "no_trust", "no signer is trusted", why, "Put the public keys there, or name another folder by --trust"
            )
        return cls(found)

    def signer(self, role: str, data: bytes, signature: bytes) -> str | None:
        """The id of the key of this role that made a signature; None where none did."""
        for name, public in self.keys.get(role, {}).items():
            try:
                public.verify(signature, data, SCHEME)
            except InvalidSignature:
                continue
            return name
        return None
