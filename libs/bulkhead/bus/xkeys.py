"""xkeys: X25519 keys in the broker's notation, and the boxes that it and the identity service seal with them.

In: a seed (`SX...`), a public key (`X...`), bytes. Out: bytes. The Python package `nkeys` has no curve keys; the form
is that of the Go package (github.com/nats-io/nkeys, xkeys.go): `xkv1`, 24 bytes of nonce, a NaCl box.
"""

import base64
import binascii
import os

import nkeys
from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

CURVE = 23 << 3
"""The prefix byte of curve keys; base32 makes an X of it."""
VERSION = b"xkv1"
KEY_BYTES, NONCE_BYTES = 32, 24


class BoxNotForUs(ValueError):
    """A box that cannot be opened: another key's, or altered."""


def seed_of(raw: bytes) -> str:
    """The seed of a private key."""
    head = bytes(((nkeys.PREFIX_BYTE_SEED | CURVE >> 5), (CURVE & 31) << 3))
    return _encode_key(head + raw)


def public_xkey(seed: str) -> str:
    """The public key of a seed. Raises ValueError."""
    return _encode_key(bytes((CURVE,)) + bytes(_private_key(seed).public_key))


def seal(plain: bytes, seed: str, recipient: str) -> bytes:
    """A box that the recipient alone can open, and knows to be ours. Raises ValueError."""
    nonce = os.urandom(NONCE_BYTES)
    return VERSION + bytes(Box(_private_key(seed), _public_key(recipient)).encrypt(plain, nonce))


def unseal(box: bytes, seed: str, sender: str) -> bytes:
    """The content of a box that the sender made for us. Raises BoxNotForUs; ValueError for keys that are none."""
    if not box.startswith(VERSION):
        raise BoxNotForUs("no box of this version")
    try:
        return bytes(Box(_private_key(seed), _public_key(sender)).decrypt(box[len(VERSION) :]))
    except (CryptoError, ValueError, TypeError) as error:
        raise BoxNotForUs("sealed for another key, or altered") from error


def _encode_key(raw: bytes) -> str:
    return base64.b32encode(raw + bytes(nkeys.crc16_checksum(bytearray(raw)))).rstrip(b"=").decode()


def _decode_key(text: str) -> bytes:
    try:
        raw = base64.b32decode(text.encode() + b"=" * (-len(text) % 8))
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("no xkey: it is not base32") from error
    if len(raw) < 3 or bytes(nkeys.crc16_checksum(bytearray(raw[:-2]))) != raw[-2:]:
        raise ValueError("no xkey: its checksum is wrong")
    return raw[:-2]


def _private_key(seed: str) -> PrivateKey:
    raw = _decode_key(seed)
    is_long = len(raw) == KEY_BYTES + 2
    if not is_long or raw[0] & 248 != nkeys.PREFIX_BYTE_SEED or (raw[0] & 7) << 5 | (raw[1] & 248) >> 3 != CURVE:
        raise ValueError("no seed of an xkey: it begins with SX")
    return PrivateKey(raw[2:])


def _public_key(key: str) -> PublicKey:
    raw = _decode_key(key)
    if len(raw) != KEY_BYTES + 1 or raw[0] != CURVE:
        raise ValueError("no public xkey: it begins with X")
    return PublicKey(raw[1:])
