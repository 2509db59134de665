"""Keys under a passphrase: scrypt (RFC 7914) and ChaCha20-Poly1305 (RFC 8439).

In: small text files, a passphrase. Out: bytes that show nothing but their length, and back. A wrong passphrase and
changed bytes look alike: BackupError.
"""

import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from bulkhead_infra.backup.archive import BackupError, BackupPathError

COST, BLOCK_SIZE, PARALLEL = 2**15, 8, 1
"""32 MiB and about 0.1 s for each guess."""
KEY_BYTES, SALT_BYTES, NONCE_BYTES = 32, 16, 12
MIN_PASSPHRASE_CHARS = 12
MAX_FILES, MAX_FILE_CHARS = 10_000, 64 * 1024
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_HEAD = b"bulkhead-keys-1\n"
"""Names the parameters above: other ones get another number."""


def seal_files(files: Mapping[str, str], passphrase: str) -> bytes:
    salt, nonce = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(NONCE_BYTES)
    return (
        _HEAD + salt + nonce + _derive_cipher(passphrase, salt).encrypt(nonce, json.dumps(dict(files)).encode(), _HEAD)
    )


def unseal_files(sealed: bytes, passphrase: str) -> dict[str, str]:
    """The files by name; names have no directories. Raises BackupError."""
    if not sealed.startswith(_HEAD):
        raise BackupError("the keys in it are sealed in a way that this version does not know; use a newer one")
    payload = sealed[len(_HEAD) :]
    salt, nonce, body = (
        payload[:SALT_BYTES],
        payload[SALT_BYTES : SALT_BYTES + NONCE_BYTES],
        payload[SALT_BYTES + NONCE_BYTES :],
    )
    try:
        files = json.loads(_derive_cipher(passphrase, salt).decrypt(nonce, body, _HEAD))
    except (InvalidTag, ValueError) as error:
        raise BackupError("the passphrase does not open the keys in this backup; nothing was restored") from error
    if not isinstance(files, dict) or len(files) > MAX_FILES:
        raise BackupError("the keys in this backup are not what a bulkhead writes; nothing was restored")
    for name, text in files.items():
        if not FILE_NAME.fullmatch(name) or not isinstance(text, str) or len(text) > MAX_FILE_CHARS:
            raise BackupError(f"the keys in this backup hold {name[:80]!r}, which is no key file; nothing was restored")
    return files


def read_passphrase(path: Path) -> str:
    """The passphrase in a file of one line. Raises BackupError."""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BackupPathError(f"the passphrase cannot be read from {path}; put it there on one line") from error
    if len(text) < MIN_PASSPHRASE_CHARS or "\n" in text:
        raise BackupPathError(f"{path} must hold one line of at least {MIN_PASSPHRASE_CHARS} characters")
    return text


def _derive_cipher(passphrase: str, salt: bytes) -> ChaCha20Poly1305:
    key = Scrypt(salt=salt, length=KEY_BYTES, n=COST, r=BLOCK_SIZE, p=PARALLEL).derive(passphrase.encode())
    return ChaCha20Poly1305(key)
