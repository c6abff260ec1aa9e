"""Texts that rest encrypted in the store: AES-GCM under a key made from the hub's secret."""

import base64
import os

from holdfast.errors import MissingExtra
from holdfast.values import Secret, Secrets

_NONCE = 12  # bytes, the length AES-GCM is made for


class Seal:
    """Seals with the current secret, opens with any; `purpose` keeps keys of different uses apart."""

    def __init__(self, secrets: Secrets, purpose: str) -> None:
        self._secrets = secrets
        self._purpose = purpose.encode()

    def seal(self, text: Secret, bound_to: str) -> str:
        """A sealed form of the text, which opens only beside the same `bound_to`.

        Raises:
            MissingExtra: The package `cryptography` is not installed.
        """
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise MissingExtra("encryption") from error
        nonce = os.urandom(_NONCE)
        sealed = AESGCM(self._key(self._secrets.current)).encrypt(nonce, text.reveal().encode(), bound_to.encode())
        return base64.b64encode(nonce + sealed).decode()

    def open(self, sealed: str, bound_to: str) -> Secret | None:
        """The text; None when it was sealed with a secret we no longer have, or was changed.

        Raises:
            MissingExtra: The package `cryptography` is not installed.
        """
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise MissingExtra("encryption") from error
        try:
            data = base64.b64decode(sealed, validate=True)
        except ValueError:
            return None
        for secret in self._secrets:
            try:
                return Secret(
                    AESGCM(self._key(secret)).decrypt(data[:_NONCE], data[_NONCE:], bound_to.encode()).decode()
                )
            except (InvalidTag, ValueError):
                continue
        return None

    def _key(self, secret: Secret) -> bytes:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return HKDF(SHA256(), 32, salt=None, info=b"holdfast sealed 1 " + self._purpose).derive(
            secret.reveal().encode("utf-8", "surrogatepass")
        )
