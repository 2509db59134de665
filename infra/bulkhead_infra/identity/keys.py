"""Keys: one nkey per identity for the bus, one Ed25519 signing key per service for grants and labels.

In: a folder and a policy. Out: files of mode 0600 in a folder of mode 0700, made once and never overwritten:
`<identity>.nkey`, `<service>.sign`, and `public.json` ({service: public signing key}), which follows from them.
"""

import base64
import binascii
import json
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import nkeys
from nkeys import NkeysError

from bulkhead.grants import new_signing_seed, public_of
from bulkhead_infra.identity.policy import Policy

PUBLIC_FILE = "public.json"
SEED_BYTES = 32


class KeyFileError(Exception):
    """A key file that cannot be used; the message says which and what to do."""


def ensure(folder: Path, policy: Policy) -> None:
    """Make what is missing. Raises KeyFileError for what is there and unfit."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for identity in policy.identities:
        _ensure(folder / f"{identity}.nkey", _new_nkey_seed)
        nkey_public(folder, identity)
    public = {}
    for service in policy.services:
        _ensure(folder / f"{service}.sign", new_signing_seed)
        public[service] = _signing_public(folder / f"{service}.sign")
    text = json.dumps(public, indent=1, sort_keys=True)
    path = folder / PUBLIC_FILE
    if not path.is_file() or path.read_text() != text:
        replace(path, text)


def nkey_seed(folder: Path, identity: str) -> str:
    """The seed of one identity. Raises KeyFileError."""
    return _read(folder / f"{identity}.nkey")


def nkey_public(folder: Path, identity: str) -> str:
    """The nkey public key of one identity, as the broker knows it. Raises KeyFileError."""
    path = folder / f"{identity}.nkey"
    try:
        return bytes(nkeys.from_seed(bytearray(_read(path).encode())).public_key).decode()
    except (NkeysError, ValueError, binascii.Error) as error:
        raise KeyFileError(_broken(path)) from error


def public_nkeys(folder: Path, policy: Policy) -> dict[str, str]:
    """The nkey public keys of all identities: what the accounts are rendered with."""
    return {identity: nkey_public(folder, identity) for identity in policy.identities}


def hand_over(folder: Path, service: str, target: Path, more: Mapping[str, str] | None = None) -> None:
    """A folder with a service's own keys, everybody's public ones and `more` ({file: text}), and nothing else."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.chmod(0o700)
    wanted = {name: (folder / name).read_text() for name in (f"{service}.nkey", f"{service}.sign", PUBLIC_FILE)}
    wanted |= more or {}
    for stray in target.iterdir():
        if stray.name not in wanted:
            stray.unlink()
    for name, text in wanted.items():
        replace(target / name, text)


def write_new(path: Path, text: str) -> bool:
    """Write a private file unless there is one; whole or not at all. Returns whether it was written."""
    temporary = _temporary(path, text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def replace(path: Path, text: str) -> None:
    """Write a private file in the place of another, whole or not at all."""
    _temporary(path, text).replace(path)


def _temporary(path: Path, text: str) -> Path:
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


def _ensure(path: Path, make: Callable[[], str]) -> None:
    if not path.exists():
        write_new(path, make())
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        way = "`chmod 600` it, or delete it to have a new key made at the next start"
        raise KeyFileError(f"{path} has mode {mode:04o}: others on this machine can read the key; {way}")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError as error:
        raise KeyFileError(f"{path} is missing; start the mesh with `bulkhead up`, which makes the keys") from error
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(_broken(path)) from error


def _broken(path: Path) -> str:
    return f"{path} holds no key; restore it, or delete it to have a new one made at the next start"


def _new_nkey_seed() -> str:
    return bytes(nkeys.encode_seed(os.urandom(SEED_BYTES), nkeys.PREFIX_BYTE_USER)).decode()


def _signing_public(path: Path) -> str:
    seed = _read(path)
    try:
        if len(base64.urlsafe_b64decode(seed + "=" * (-len(seed) % 4))) != SEED_BYTES:
            raise ValueError("wrong length")
        return public_of(seed)
    except (ValueError, binascii.Error) as error:
        raise KeyFileError(_broken(path)) from error
