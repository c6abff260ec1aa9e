"""Keys that what a store keeps is sealed under: AES-256-GCM, and the envelope around it."""

import base64
import binascii
import hmac
import os
from dataclasses import dataclass
from typing import Any, Final, Self

from holdfast.errors import ConfigurationError, MissingExtra, UnknownKey, Unreadable
from holdfast.values import Secret, Secrets, require_env

MAGIC: Final = b"\x00hf1"
"""What every envelope begins with; no JSON does."""
KEY_LENGTH: Final = 32
NONCE_LENGTH: Final = 12
RING: Final = "k"
SUBJECT: Final = "s"


class Cipher:
    """One key: seals with a random nonce, and opens only what was bound to the same place."""

    __slots__ = ("_aead", "_invalid")

    def __init__(self, key: bytes) -> None:
        """Raises MissingExtra: the package `cryptography` is not installed."""
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise MissingExtra("encryption") from error
        self._aead: Any = AESGCM(key)
        self._invalid = InvalidTag

    def seal(self, plain: bytes, bound_to: bytes) -> bytes:
        """A nonce and what only this key opens, beside the same `bound_to`."""
        nonce = os.urandom(NONCE_LENGTH)
        sealed: bytes = self._aead.encrypt(nonce, plain, bound_to)
        return nonce + sealed

    def open(self, sealed: bytes, bound_to: bytes) -> bytes | None:
        """The inverse of `seal`; None when a bit of it, or what it is bound to, is another."""
        try:
            plain: bytes = self._aead.decrypt(sealed[:NONCE_LENGTH], sealed[NONCE_LENGTH:], bound_to)
        except (self._invalid, ValueError):
            return None
        return plain


@dataclass(frozen=True, slots=True)
class Envelope:
    """What rests in the store: which key opens it, and what is sealed."""

    kind: str
    """`RING` or `SUBJECT`."""
    name: str
    """The key's id, or the subject."""
    generation: int
    """Of the subject's key."""
    sealed: bytes

    def pack(self) -> bytes:
        """The envelope as bytes."""
        label = self.label
        return MAGIC + len(label).to_bytes(2, "big") + label + self.sealed

    @property
    def label(self) -> bytes:
        """What names the key, readable and protected from change."""
        return f"{self.kind}:{self.generation}:{self.name}".encode()

    @classmethod
    def unpack(cls, data: bytes) -> "Envelope | None":
        """The inverse of `pack`; None: this is no envelope."""
        start = len(MAGIC) + 2
        end = start + int.from_bytes(data[len(MAGIC) : start], "big")
        if not data.startswith(MAGIC) or len(data) < end + NONCE_LENGTH:
            return None
        try:
            kind, generation, name = data[start:end].decode().split(":", 2)
            envelope = cls(kind, name, int(generation), data[end:])
        except ValueError:
            return None
        return envelope if kind in (RING, SUBJECT) and envelope.label == data[start:end] else None


def place(*parts: str | bytes) -> bytes:
    """Where something belongs, as bytes in which no part can be shifted into the next."""
    encoded = [part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


class KeyRing:
    """Keys for `Holdfast(encryption=…)`: the first seals, each of them opens. Give a new one first, then rotate.

    `KeyRing("new", "old")`, each 32 random bytes in base64, as `KeyRing.generate()` makes them. A key's id is made from
    the key, so ids need no care.
    """

    def __init__(self, *keys: str | Secret | Secrets, require: bool = False) -> None:
        """With `require` what rests unsealed is refused; without, what was kept before encryption stays readable.

        Raises:
            ConfigurationError: A text is no such key.
            MissingCredential: There is none.
            MissingExtra: The extra `encryption` is not installed.
        """
        self.secrets = Secrets(*keys)
        self.require = require
        self._ciphers: dict[str, Cipher] = {}
        for secret in self.secrets:
            key = _key(secret)
            key_id = hmac.digest(key, b"holdfast key id 1", "sha256").hex()[:8]
            self._ciphers.setdefault(key_id, Cipher(hmac.digest(key, b"holdfast seal 1", "sha256")))
        self.current = next(iter(self._ciphers))
        """The id of the key that seals."""

    @classmethod
    def from_env(cls, variable: str, *, require: bool = False) -> Self:
        """Read from an environment variable; several, newest first, are separated by commas.

        Raises:
            MissingCredential: The variable is unset or empty.
            ConfigurationError: A text is no key.
        """
        require_env({variable: "keys that seal what is stored, newest first, by commas: KeyRing.generate() makes one"})
        return cls(Secrets.from_env(variable), require=require)

    @staticmethod
    def generate() -> str:
        """A new key, as text for the environment."""
        return base64.urlsafe_b64encode(os.urandom(KEY_LENGTH)).decode()

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of its keys, newest first; an id tells nothing of its key."""
        return tuple(self._ciphers)

    def seal(self, plain: bytes, bound_to: bytes) -> bytes:
        """An envelope under the current key."""
        return enclose(self._ciphers[self.current], RING, self.current, 0, plain, bound_to)

    def open(self, envelope: Envelope, bound_to: bytes, what: str) -> bytes:
        """What is in it; `what` names it in errors.

        Raises:
            UnknownKey: It is sealed under a key that is not here.
            Unreadable: It was altered, or belongs elsewhere.
        """
        cipher = self._ciphers.get(envelope.name)
        if cipher is None:
            raise UnknownKey(what, envelope.name)
        return disclose(cipher, envelope, bound_to, what)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self.ids)})"


def enclose(cipher: Cipher, kind: str, name: str, generation: int, plain: bytes, bound_to: bytes) -> bytes:
    """An envelope of this key, bound to a place and to what it says about itself."""
    label = Envelope(kind, name, generation, b"").label
    return Envelope(kind, name, generation, cipher.seal(plain, place(label) + bound_to)).pack()


def disclose(cipher: Cipher, envelope: Envelope, bound_to: bytes, what: str) -> bytes:
    """The inverse of `enclose`. Raises Unreadable."""
    plain = cipher.open(envelope.sealed, place(envelope.label) + bound_to)
    if plain is None:
        raise Unreadable(what)
    return plain


def _key(secret: Secret) -> bytes:
    text = secret.reveal().strip().translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_LENGTH:
        raise ConfigurationError(
            "a key is 32 random bytes in base64; make one with: "
            'python -c "from holdfast import KeyRing; print(KeyRing.generate())"'
        )
    return key
