"""Invoices and addresses that decode: BOLT 11 without a true signature, and taproot.

https://github.com/lightning/bolts/blob/master/11-payment-encoding.md,
https://github.com/bitcoin/bips/blob/master/bip-0350.mediawiki
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

_LETTERS: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32, _BECH32M = 1, 0x2BC830A3
_PAYMENT_HASH, _DESCRIPTION_HASH, _EXPIRY = 1, 23, 6


@dataclass(kw_only=True, slots=True)
class Minted:
    """An invoice of the merchant's wallet."""

    bolt11: str
    preimage: str = field(repr=False)
    payment_hash: str
    sats: int
    created_at: int
    expires_at: int
    settled: bool = False


def mint(sats: int, *, description_hash: bytes, created_at: int, seconds: int, random: Random) -> Minted:
    """An invoice over so many satoshi that ends after so many seconds."""
    preimage = random.randbytes(32)
    payment_hash = hashlib.sha256(preimage).digest()
    words = [
        *_words(created_at, 7),
        *_tagged(_PAYMENT_HASH, _five(payment_hash)),
        *_tagged(_DESCRIPTION_HASH, _five(description_hash)),
        *_tagged(_EXPIRY, _words(seconds, 4)),
        *(random.randrange(32) for _ in range(104)),
    ]
    return Minted(
        bolt11=_encode(f"lnbc{sats * 10}n", words, _BECH32),  # n: nano-bitcoin, a tenth of a satoshi
        preimage=preimage.hex(),
        payment_hash=payment_hash.hex(),
        sats=sats,
        created_at=created_at,
        expires_at=created_at + seconds,
    )


def taproot_address(random: Random) -> str:
    """An address of the main network that nobody has a key to."""
    return _encode("bc", [1, *_five(random.randbytes(32))], _BECH32M)


def _tagged(tag: int, words: Sequence[int]) -> list[int]:
    return [tag, *divmod(len(words), 32), *words]


def _words(number: int, length: int) -> list[int]:
    return [number >> 5 * place & 31 for place in reversed(range(length))]


def _five(data: bytes) -> list[int]:
    """Eight bits each become five, with zeros at the end."""
    length = -(-len(data) * 8 // 5)
    return _words(int.from_bytes(data, "big") << length * 5 - len(data) * 8, length)


def _encode(prefix: str, words: Sequence[int], constant: int) -> str:
    expanded = [ord(letter) >> 5 for letter in prefix] + [0] + [ord(letter) & 31 for letter in prefix]
    checksum = _polymod([*expanded, *words, *[0] * 6]) ^ constant
    return f"{prefix}1" + "".join(_LETTERS[word] for word in (*words, *_words(checksum, 6)))


def _polymod(values: Sequence[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            checksum ^= generator if top >> bit & 1 else 0
    return checksum
