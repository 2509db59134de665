"""Places of addresses of crypto currencies in a text, and of the texts in QR codes that order a payment.

In: a text. Out: where each begins and ends. Where a currency has a checksum that is cheap, it decides; elsewhere length
and alphabet do, which no word and no digest has. Pure, and linear in the text: each pattern is bounded.
"""

import re
from hashlib import sha256
from itertools import chain

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_RIPPLE58 = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BEFORE, _BEHIND = r"(?<![^\W_])", r"(?![^\W_])"
_IN_BASE58 = re.compile(rf"{_BEFORE}[1-9A-HJ-NP-Za-km-z]{{25,128}}{_BEHIND}")
_IN_BECH32 = re.compile(
    rf"{_BEFORE}(?:[a-z][a-z0-9]{{1,83}}1[{_BECH32}]{{8,1000}}|[A-Z][A-Z0-9]{{1,83}}1[{_BECH32.upper()}]{{8,1000}}){_BEHIND}"
)
_LONG_WORD = re.compile(r"[A-Za-z0-9]{25}|000201")
_WITHOUT_SUM = re.compile(
    rf"{_BEFORE}(?:0x(?:[0-9a-f]{{40}}|[0-9a-f]{{64}})|(?-i:[qp][{_BECH32}]{{41}})|(?:nano|xrb)_[13][13-9a-km-uw-z]{{59}}"
    r"|(?-i:(?=[A-Z]*[2-7])(?:[A-Z2-7]{56}|[A-Z2-7]{58}))|(?-i:[EUk0]Q[A-Za-z0-9_-]{46})"
    rf"|000201[ -~]{{20,512}}?6304[0-9a-f]{{4}}){_BEHIND}",
    re.I,
)
"""Ethereum and Sui, Bitcoin Cash, Nano, Stellar and Algorand, TON; a payment of EMV (PIX and others)."""
_CHARS_OF_KEY = 42
"""Of a key of 32 bytes in base 58 (Solana) at least; Monero, Cardano and Polkadot have longer ones."""


def find_wallets(text: str) -> list[tuple[int, int]]:
    """Start and end of each address, in order."""
    if _LONG_WORD.search(text) is None:
        return []
    spans = [match.span() for match in _WITHOUT_SUM.finditer(text)]
    spans += [match.span() for match in _IN_BECH32.finditer(text) if _is_bech32(match[0].lower())]
    spans += [match.span() for match in _IN_BASE58.finditer(text) if _is_base58(match[0])]
    return sorted(spans)


def wallet_form(raw: str) -> str:
    """The address as all its spellings are compared: letters of base 58 have a case."""
    return raw if _IN_BASE58.fullmatch(raw) and not _is_bech32(raw.lower()) else raw.lower()


def _is_base58(word: str) -> bool:
    if len(word) >= _CHARS_OF_KEY:
        return word.lower() != word != word.upper()
    return any(_passes_sum(word, alphabet) for alphabet in (_BASE58, _RIPPLE58))


def _passes_sum(word: str, alphabet: str) -> bool:
    """The checksum of Bitcoin over an address: the first bytes of its digest's digest stand at its end."""
    number = 0
    for sign in word:
        number = number * 58 + alphabet.index(sign)
    zeros = len(word) - len(word.lstrip(alphabet[0]))
    payload = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)
    return sha256(sha256(payload[:-4]).digest()).digest()[:4] == payload[-4:]


def _is_bech32(word: str) -> bool:
    """The checksum of BIP 173 and BIP 350, whatever the prefix: of Bitcoin, Cosmos, Cardano, Lightning."""
    prefix, _, data = word.rpartition("1")
    if not prefix or not set(data) <= set(_BECH32):
        return False
    spread = chain((ord(sign) >> 5 for sign in prefix), (0,), (ord(sign) & 31 for sign in prefix))
    remainder = 1
    for value in chain(spread, map(_BECH32.index, data)):
        top = remainder >> 25
        remainder = (remainder & 0x1FFFFFF) << 5 ^ value
        for position, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            remainder ^= generator if top >> position & 1 else 0
    return remainder in (1, 0x2BC830A3)
