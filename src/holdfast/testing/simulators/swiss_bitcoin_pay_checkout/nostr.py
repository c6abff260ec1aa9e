"""Nostr: events (NIP-01) and what they hold, sealed (NIP-44, version 2).

https://github.com/nostr-protocol/nips/blob/master/01.md, https://github.com/nostr-protocol/nips/blob/master/44.md
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from holdfast.testing.simulators.swiss_bitcoin_pay_checkout.curve import public_key, shared_x, sign, verifies

Event = Mapping[str, Any]

PADDED_TO: Final = 256
"""Bytes: a record's text is filled with spaces, so that its length says little."""


def derive(key: bytes, salt: str, info: str) -> bytes:
    """HKDF with SHA-256, 32 bytes."""
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt.encode(), info=info.encode()).derive(key)


def conversation_key(secret: bytes, public: bytes) -> bytes:
    """What both sides of a NIP-44 conversation seal with."""
    return hmac.digest(b"nip44-v2", shared_x(secret, public), "sha256")


def seal(text: str, key: bytes, nonce: bytes) -> str:
    """NIP-44: padded, encrypted, authenticated."""
    data = text.encode()
    padded = len(data).to_bytes(2, "big") + data + bytes(_padded(len(data)) - len(data))
    cipher_key, cipher_nonce, mac_key = _message_keys(key, nonce)
    sealed = _chacha20(cipher_key, cipher_nonce, padded)
    return base64.b64encode(b"\x02" + nonce + sealed + hmac.digest(mac_key, nonce + sealed, "sha256")).decode()


def unseal(payload: str, key: bytes) -> str:
    """The text. Raises ValueError: another key's, or no such payload."""
    data = base64.b64decode(payload, validate=True)
    nonce, sealed, mac = data[1:33], data[33:-32], data[-32:]
    cipher_key, cipher_nonce, mac_key = _message_keys(key, nonce)
    if data[:1] != b"\x02" or not hmac.compare_digest(hmac.digest(mac_key, nonce + sealed, "sha256"), mac):
        raise ValueError("sealed with another key")
    padded = _chacha20(cipher_key, cipher_nonce, sealed)
    return padded[2 : 2 + int.from_bytes(padded[:2], "big")].decode()


def record(kind: str, value: object) -> str:
    """The text of a record: its type and value, filled up."""
    text = json.dumps({"t": kind, "v": value}, separators=(",", ":"))
    return text + " " * (-len(text.encode()) % PADDED_TO)


def event(secret: bytes, *, created_at: int, kind: int, tags: Sequence[Sequence[str]], content: str) -> Event:
    """Signed."""
    unsigned: dict[str, Any] = {
        "pubkey": public_key(secret).hex(),
        "created_at": created_at,
        "kind": kind,
        "tags": [list(tag) for tag in tags],
        "content": content,
    }
    id = _id(unsigned)
    return unsigned | {"id": id.hex(), "sig": sign(id, secret).hex()}


def is_genuine(event: Event) -> bool:
    """Whether its id is its hash, and its author signed it."""
    try:
        id, author, signature = (bytes.fromhex(event[name]) for name in ("id", "pubkey", "sig"))
        return _id(event) == id and verifies(id, author, signature)
    except (KeyError, TypeError, ValueError):
        return False


def tagged(event: Event, name: str) -> list[str]:
    """The values of its tags of that name."""
    return [tag[1] for tag in event["tags"] if len(tag) > 1 and tag[0] == name]


def _id(event: Event) -> bytes:
    fields = [0, *(event[name] for name in ("pubkey", "created_at", "kind", "tags", "content"))]
    return hashlib.sha256(json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()).digest()


def _padded(length: int) -> int:
    if length <= 32:
        return 32
    power = 1 << (length - 1).bit_length()
    chunk = max(32, power // 8)
    return chunk * ((length - 1) // chunk + 1)


def _message_keys(key: bytes, nonce: bytes) -> tuple[bytes, bytes, bytes]:
    keys = HKDFExpand(algorithm=hashes.SHA256(), length=76, info=nonce).derive(key)
    return keys[:32], keys[32:44], keys[44:]


def _chacha20(key: bytes, nonce: bytes, data: bytes) -> bytes:
    return Cipher(algorithms.ChaCha20(key, bytes(4) + nonce), mode=None).encryptor().update(data)
