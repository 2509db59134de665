"""Keys: one nkey per identity for the bus, one Ed25519 signing key per service for grants and labels.

In: a folder and a policy. Out: files of mode 0600 in a folder of mode 0700, made once and never overwritten:
`<identity>.nkey`, `<service>.sign`, and `public.json` ({key id: public signing key}), which services read again when it
changes. The same public keys stand in `jwks.json` (RFC 7517), for whoever verifies grants with other software. With the
identity service also `identity.issuer` and `identity.xkey`, and no nkeys of those whom it lets in.

    python -m bulkhead_infra.identity.keys DIR rotate SERVICE    # a new key; tokens of the old one stay good
    python -m bulkhead_infra.identity.keys DIR retire SERVICE    # takes all but the newest out
"""

import argparse
import base64
import binascii
import json
import os
import secrets
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nkeys
from nacl.public import PrivateKey
from nkeys import NkeysError

from bulkhead.bus.xkeys import public_xkey, seed_of
from bulkhead.grants import new_signing_seed, public_of
from bulkhead.grants.key_file import kid_of, service_of
from bulkhead_infra.identity.policy import IDENTITY, IdentityPolicy

PUBLIC_FILE, JWKS_FILE = "public.json", "jwks.json"
PUBLIC_FILES = (PUBLIC_FILE, JWKS_FILE)
SEED_BYTES = 32
ISSUER_FILE, XKEY_FILE = f"{IDENTITY}.issuer", f"{IDENTITY}.xkey"
"""What the identity service signs the users of others with, and what the broker encrypts its questions for."""


class KeyFileError(Exception):
    """A key file that cannot be used; the message says which and what to do."""


def ensure_keys(folder: Path, policy: IdentityPolicy) -> None:
    """Make what is missing. Raises KeyFileError for what is there and unfit."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for identity in policy.with_nkey:
        _ensure_key_file(folder / f"{identity}.nkey", _new_nkey_seed)
        nkey_public(folder, identity)
    if IDENTITY in policy.services:
        _ensure_key_file(folder / ISSUER_FILE, lambda: _new_nkey_seed(nkeys.PREFIX_BYTE_ACCOUNT))
        _ensure_key_file(folder / XKEY_FILE, lambda: seed_of(bytes(PrivateKey.generate())))
        login_keys(folder)
    published = _read_public_keys(folder)
    public: dict[str, str] = {}
    for service in policy.services:
        _ensure_key_file(folder / f"{service}.sign", new_signing_seed)
        own_key = _signing_public(folder / f"{service}.sign")
        # A key that was exchanged by hand ends the earlier ones; one that was rotated stands beside them.
        public |= _keys_of_service(published, service) if kid_of(published, service, own_key) else {service: own_key}
    _publish_keys(folder, public)


def rotate_signing_key(folder: Path, service: str) -> str:
    """A new signing key for a service, and its id. Tokens of the earlier ones stay good until `retire_signing_keys`.
    Others know it before it signs; the service signs with it from its next start.
    """
    published, seed = _read_public_keys(folder), new_signing_seed()
    own_key = _signing_public(folder / f"{service}.sign")
    numbers = [int(kid.partition("#")[2] or 1) for kid in _keys_of_service(published, service)]
    kid = f"{service}#{max(numbers, default=1) + 1}"
    _publish_keys(
        folder,
        {**({} if kid_of(published, service, own_key) else {service: own_key}), **published, kid: public_of(seed)},
    )
    replace_file(folder / f"{service}.sign", seed)
    return kid


def retire_signing_keys(folder: Path, service: str) -> tuple[str, ...]:
    """Take all of a service's public keys out but the one that it signs with; their ids. What they signed is refused
    from then on."""
    published, own_key = _read_public_keys(folder), _signing_public(folder / f"{service}.sign")
    retired = tuple(kid for kid, key in _keys_of_service(published, service).items() if key != own_key)
    _publish_keys(folder, {kid: key for kid, key in published.items() if kid not in retired})
    return retired


def key_set_document(public: Mapping[str, str]) -> dict[str, object]:
    """The public keys as a JSON Web Key Set."""
    row = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig"}
    return {"keys": [{**row, "kid": kid, "x": key} for kid, key in sorted(public.items())]}


def _keys_of_service(public: Mapping[str, str], service: str) -> dict[str, str]:
    return {kid: key for kid, key in public.items() if service_of(kid) == service}


def _read_public_keys(folder: Path) -> dict[str, str]:
    """The keys that stand in the file; none where there is no file that can be read: it is written anew."""
    try:
        content = json.loads((folder / PUBLIC_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return {str(kid): str(key) for kid, key in content.items()} if isinstance(content, dict) else {}


def _publish_keys(folder: Path, public: Mapping[str, str]) -> None:
    texts = {
        PUBLIC_FILE: json.dumps(public, indent=1, sort_keys=True),
        JWKS_FILE: json.dumps(key_set_document(public), indent=1),
    }
    # Services of this machine read copies of their own, while they run.
    copies = sorted(folder.glob(f"services/*/{PUBLIC_FILE}"))
    for path in (folder / PUBLIC_FILE, folder / JWKS_FILE, *copies):
        if not path.is_file() or path.read_text() != texts[path.name]:
            replace_file(path, texts[path.name])


def nkey_seed(folder: Path, identity: str) -> str:
    """The seed of one identity. Raises KeyFileError."""
    return _read_key(folder / f"{identity}.nkey")


def nkey_public(folder: Path, identity: str) -> str:
    """The nkey public key of one identity, as the broker knows it. Raises KeyFileError."""
    return _public_of(folder / f"{identity}.nkey")


def _public_of(path: Path) -> str:
    try:
        return bytes(nkeys.from_seed(bytearray(_read_key(path).encode())).public_key).decode()
    except (NkeysError, ValueError, binascii.Error) as error:
        raise KeyFileError(_broken_message(path)) from error


def login_keys(folder: Path) -> tuple[str, str]:
    """The public keys of the identity service's issuer and xkey, as the broker knows them. Raises KeyFileError."""
    issuer, path = _public_of(folder / ISSUER_FILE), folder / XKEY_FILE
    try:
        return issuer, public_xkey(_read_key(path))
    except ValueError as error:
        raise KeyFileError(_broken_message(path)) from error


def public_nkeys(folder: Path, policy: IdentityPolicy) -> dict[str, str]:
    """The nkey public keys of all who have one: what the accounts are rendered with."""
    return {identity: nkey_public(folder, identity) for identity in policy.with_nkey}


def hand_over(
    folder: Path, service: str, target: Path, extra_files: Mapping[str, str] | None = None, *, nkey: bool = True
) -> None:
    """A folder with a service's own keys, everybody's public ones and `extra_files` ({file: text}), nothing else. nkey:
    False for a service that logs in with a token."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.chmod(0o700)
    own_files = (*((f"{service}.nkey",) if nkey else ()), f"{service}.sign", PUBLIC_FILE)
    contents = {name: (folder / name).read_text() for name in own_files}
    contents |= extra_files or {}
    for stray in target.iterdir():
        if stray.name not in contents:
            stray.unlink()
    for name, text in contents.items():
        replace_file(target / name, text)


def write_new(path: Path, text: str) -> bool:
    """Write a private file unless there is one; whole or not at all. Returns whether it was written."""
    temporary = _write_temporary(path, text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def replace_file(path: Path, text: str) -> None:
    """Write a private file in the place of another, whole or not at all."""
    _write_temporary(path, text).replace(path)


def _write_temporary(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _ensure_key_file(path: Path, make: Callable[[], str]) -> None:
    if not path.exists():
        write_new(path, make())
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        way = "`chmod 600` it, or delete it to have a new key made at the next start"
        raise KeyFileError(f"{path} has mode {mode:04o}: others on this machine can read the key; {way}")


def _read_key(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError as error:
        raise KeyFileError(f"{path} is missing; start the mesh with `bulkhead up`, which makes the keys") from error
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(_broken_message(path)) from error


def _broken_message(path: Path) -> str:
    return f"{path} holds no key; restore it, or delete it to have a new one made at the next start"


def _new_nkey_seed(prefix: int = nkeys.PREFIX_BYTE_USER) -> str:
    return bytes(nkeys.encode_seed(os.urandom(SEED_BYTES), prefix)).decode()


def _signing_public(path: Path) -> str:
    seed = _read_key(path)
    try:
        if len(base64.urlsafe_b64decode(seed + "=" * (-len(seed) % 4))) != SEED_BYTES:
            raise ValueError("wrong length")
        return public_of(seed)
    except (ValueError, binascii.Error) as error:
        raise KeyFileError(_broken_message(path)) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Rotate or retire keys of a mesh on this machine, in its own folder and in those of its services. Exit codes: 0; 2
    for a wrong name or folder."""
    parser = argparse.ArgumentParser(prog="python -m bulkhead_infra.identity.keys", description="Rotate signing keys.")
    parser.add_argument("folder", metavar="DIR", type=Path, help="Folder `identity` of the mesh's directory.")
    parser.add_argument("what", choices=("rotate", "retire"))
    parser.add_argument("service", metavar="SERVICE")
    options = parser.parse_args(arguments)
    folder, service = options.folder, options.service
    try:
        changed = (
            (rotate_signing_key(folder, service),) if options.what == "rotate" else retire_signing_keys(folder, service)
        )
    except KeyFileError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"service": service, options.what: changed}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
