"""Lightning invoices that look right and hold together: a preimage, its hash, and a BOLT 11 text."""

import hashlib
from dataclasses import dataclass
from random import Random

_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


@dataclass(frozen=True, kw_only=True, slots=True)
class Invoice:
    """One Lightning invoice; who knows the preimage was paid."""

    preimage: str
    payment_hash: str
    bolt11: str


def make_invoice(sats: int, random: Random) -> Invoice:
    """An invoice over so many satoshi; its text has the true prefix and amount, the rest is made up."""
    preimage = random.randbytes(32)
    data = "".join(random.choice(_BECH32) for _ in range(180))
    return Invoice(
        preimage=preimage.hex(),
        payment_hash=hashlib.sha256(preimage).hexdigest(),
        bolt11=f"lnbc{sats * 10}n1p{data}",  # n: nano-bitcoin, a tenth of a satoshi
    )
