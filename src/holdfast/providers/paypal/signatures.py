"""How PayPal proves that a delivery is its own: RSA over four words, one of them a CRC32 of the body.

A CRC32 is no hash: whoever has seen one genuine delivery can write another body that fits its signature, within
milliseconds. So a right signature says that PayPal once sent something with these headers, and nothing about the body.
https://developer.paypal.com/api/rest/webhooks/rest/#verify-webhook-signature
"""

import base64
import contextlib
import re
import ssl
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from holdfast.errors import ConfigurationError, InvalidInput, MissingExtra
from holdfast.values import Secrets
from holdfast.webhooks.request import RawRequest
from holdfast.webhooks.signatures import Verdict

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.x509 import Certificate

ALGORITHM: Final = "SHA256withRSA"
CERTIFICATES: Final = "/v1/notifications/certs/"
HEADERS: Final[Mapping[str, re.Pattern[str]]] = {
    "transmission_id": re.compile(r"[A-Za-z0-9_-]{1,50}", re.ASCII),
    "transmission_time": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII),
    "transmission_sig": re.compile(r"[A-Za-z0-9+/]{64,1000}={0,2}", re.ASCII),
    "cert_url": re.compile(r"[!-~]{1,500}", re.ASCII),
    "auth_algo": re.compile(r"[A-Za-z0-9]{1,100}", re.ASCII),
}
"""The fields of a transmission, as the postback names them; the headers are `PAYPAL-TRANSMISSION-ID` and so on."""
CERTIFICATE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,100}", re.ASCII)
ONE_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
OWNER: Final = ".paypal.com"
MOST_CERTIFICATES: Final = 32
MOST_WANTED: Final = 8
MOST_SEEN: Final = 100_000
LARGEST: Final = 64 * 1024

Transmission = Mapping[str, str]
"""The five headers, by the names in `HEADERS`."""
Get = Callable[[str], Awaitable[bytes]]
"""Fetches an address without credentials, following no redirect: `(await client.get(url)).content`."""


def read_transmission(request: RawRequest) -> Transmission | Verdict:
    """The headers of a delivery, each there once and in its form; nothing of it is proven."""
    found: dict[str, str] = {}
    for name, form in HEADERS.items():
        header = f"paypal-{name.replace('_', '-')}"
        values = {value.strip() for value in request.all(header)}
        if not values:
            hint = f"{header} is missing: not from PayPal, or a proxy dropped the header"
            return Verdict(valid=False, reason="missing_header", hint=hint)
        value = values.pop()
        if values or not form.fullmatch(value):
            return _malformed(f"{header} came in another form, or more than once")
        found[name] = value
    return found


def signed_message(transmission: Transmission, webhook_id: str, body: bytes) -> bytes:
    """What PayPal signs: the CRC32 in decimal, without a sign."""
    parts = (transmission["transmission_id"], transmission["transmission_time"], webhook_id, str(zlib.crc32(body)))
    return "|".join(parts).encode("utf-8", "surrogatepass")


class LocalVerification:
    """What it takes to verify deliveries on this machine: PayPal's certificates, and what was delivered before.

    `PayPal(..., verification=LocalVerification())` refuses what is not signed. A certificate that is not known yet is
    `wanted`, its delivery refused, and sent again by PayPal. A hub fetches it meanwhile; whoever has none calls
    `await verification.refresh(get)` now and then.
    """

    def __init__(self, *, roots: bytes = b"", intermediates: bytes = b"") -> None:
        """`roots` are the authorities to trust, as PEM, by default those of this machine; `intermediates` are between
        them and PayPal, for where PayPal does not send them along.
        """
        self.wanted: list[str] = []
        """Addresses of certificates that deliveries named and nobody has fetched."""
        self._roots = roots
        self._intermediates = intermediates
        self._known: OrderedDict[str, Certificate] = OrderedDict()
        self._seen: OrderedDict[str, bytes] = OrderedDict()

    async def refresh(self, get: Get, *, at: datetime | None = None) -> None:
        """Fetch what is wanted, each once: anybody can name an address, so one that fails must not stop the others.

        Raises:
            Exception: The first failure: what `get` raised, or InvalidInput for what is not PayPal's certificate.
        """

        async def fetch(url: str) -> None:
            self.add(url, await get(url), at=at or datetime.now(UTC))

        await self.fetch_wanted(fetch)

    async def fetch_wanted(self, fetch: Callable[[str], Awaitable[None]]) -> None:
        """Have each address fetched that is wanted, and added; one that fails is wanted no more.

        Raises:
            Exception: The first failure, once all had their turn.
        """
        failures: list[Exception] = []
        asked, self.wanted = self.wanted, []
        for url in asked:
            try:
                await fetch(url)
            except Exception as error:  # a border: `fetch` is the caller's own
                failures.append(error)
        if failures:
            raise failures[0]

    def want(self, url: str) -> None:
        """Have it fetched the next time; of too many the oldest are forgotten."""
        if url not in self.wanted:
            self.wanted = [*self.wanted, url][-MOST_WANTED:]

    def add(self, url: str, pem: bytes, *, at: datetime) -> None:
        """Trust the certificate of this address from now on, if it is PayPal's, leads to a root, and is valid then.

        Raises:
            InvalidInput: It does not.
            MissingExtra: The package `cryptography` is not installed.
        """
        if len(pem) > LARGEST:
            raise InvalidInput(f"{url} is no certificate: it is larger than {LARGEST} bytes")
        self._known[url] = _trusted(url, pem, self._intermediates, self._roots or public_roots(), at)
        if len(self._known) > MOST_CERTIFICATES:
            self._known.popitem(last=False)

    def key(self, url: str, at: datetime) -> "RSAPublicKey | None":
        """The key of the certificate at this address, if it is known and valid at that time; else it is wanted."""
        found = self._known.get(url)
        if found is not None and found.not_valid_before_utc <= at <= found.not_valid_after_utc:
            return _rsa(found)
        self.want(url)
        return None

    def is_reused(self, transmission_id: str, body: bytes) -> bool:
        """Whether the same transmission has brought another body before; the same one again is a repetition."""
        digest = sha256(body).digest()
        known = self._seen.setdefault(transmission_id, digest)
        if len(self._seen) > MOST_SEEN:
            self._seen.popitem(last=False)
        return known != digest


@dataclass(frozen=True, kw_only=True)
class TransmissionSignature:
    """PayPal's signature, as far as it can be judged here; the webhook's ids stand in for secrets.

    Without `verification` only what needs no certificate is looked at: that all headers are there, name a certificate
    at PayPal, and are fresh.
    """

    hosts: frozenset[str]
    """Where certificates may be, each as scheme and host."""
    verification: LocalVerification | None = None
    tolerance: float = 300

    def verify(self, request: RawRequest, secrets: Secrets) -> Verdict:
        """Judge the request; never raises."""
        said = read_transmission(request)
        if isinstance(said, Verdict):
            return said
        if said["auth_algo"] != ALGORITHM:
            return _malformed(f"paypal-auth-algo is not {ALGORITHM}")
        host, _, name = said["cert_url"].rpartition(CERTIFICATES)
        if host not in self.hosts or not CERTIFICATE_NAME.fullmatch(name):
            hint = "paypal-cert-url is none of this environment's PayPal; are live and sandbox mixed up?"
            return Verdict(valid=False, reason="foreign_certificate", hint=hint)
        verdict = self._signed(said, request, secrets)
        return self._fresh(said, request, verdict) if verdict.valid else verdict

    def _signed(self, said: Transmission, request: RawRequest, secrets: Secrets) -> Verdict:
        if self.verification is None:
            return Verdict(valid=True)
        key = self.verification.key(said["cert_url"], request.received_at)
        if key is None:
            hint = "the certificate is not known yet, or expired; the hub fetches it, and PayPal sends this again"
            return Verdict(valid=False, reason="unknown_certificate", hint=hint)
        for number, webhook_id in enumerate(secrets):
            if _is_signed(key, said["transmission_sig"], signed_message(said, webhook_id.reveal(), request.body)):
                return Verdict(valid=True, secret=number)
        hint = "signed for another webhook id, or the body was changed; compare the id with the one in the dashboard"
        return Verdict(valid=False, reason="wrong_signature", hint=hint)

    def _fresh(self, said: Transmission, request: RawRequest, verdict: Verdict) -> Verdict:
        try:
            sent_at = datetime.fromisoformat(said["transmission_time"])
            age = (request.received_at - sent_at).total_seconds()
        except (ValueError, OverflowError):
            return _malformed("paypal-transmission-time is no time")
        if abs(age) > self.tolerance:
            hint = f"sent {age:.0f} s before it arrived: a replay, or this machine's clock is wrong"
            return Verdict(valid=False, reason="stale" if age > 0 else "future", hint=hint, secret=verdict.secret)
        if self.verification and self.verification.is_reused(said["transmission_id"], request.body):
            hint = "this transmission has brought another body before: somebody made one that fits its signature"
            return Verdict(valid=False, reason="reused", hint=hint, secret=verdict.secret)
        return verdict


def public_roots() -> bytes:
    """The certificate authorities this machine trusts, as PEM.

    Raises:
        ConfigurationError: It lists none.
    """
    found = ssl.create_default_context().get_ca_certs(binary_form=True)
    if not found:
        raise ConfigurationError("this machine lists no certificate authorities; pass LocalVerification(roots=…)")
    return "".join(map(ssl.DER_cert_to_PEM_cert, found)).encode()


def _trusted(url: str, pem: bytes, intermediates: bytes, roots: bytes, at: datetime) -> "Certificate":
    try:
        from cryptography import x509
        from cryptography.x509 import verification
    except ImportError as error:
        raise MissingExtra("paypal") from error
    try:
        leaf, *between = x509.load_pem_x509_certificates(pem)
        between += x509.load_pem_x509_certificates(intermediates) if intermediates else []
        [name] = leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        owner = str(name.value).lower()
        _rsa(leaf)
        store = verification.Store(_authorities(roots))
        judge = verification.PolicyBuilder().store(store).time(at.astimezone(UTC).replace(tzinfo=None))
        judge.build_server_verifier(x509.DNSName(owner)).verify(leaf, between)
    except (ValueError, verification.VerificationError) as error:
        raise InvalidInput(f"{url} is not trusted: {error}") from error
    if not owner.endswith(OWNER):
        raise InvalidInput(f"{url} is not PayPal's: it belongs to {owner[:100]}")
    return leaf


def _authorities(roots: bytes) -> "list[Certificate]":
    """Those that can be read: the lists that machines come with hold old ones that break the rules."""
    from cryptography import x509

    found: list[Certificate] = []
    for pem in ONE_CERTIFICATE.findall(roots):
        with warnings.catch_warnings(), contextlib.suppress(ValueError):
            warnings.simplefilter("ignore")
            found.append(x509.load_pem_x509_certificate(pem))
    return found


def _rsa(certificate: "Certificate") -> "RSAPublicKey":
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        raise ValueError("its key is not RSA")
    return key


def _is_signed(key: "RSAPublicKey", signature: str, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        key.verify(base64.b64decode(signature, validate=True), message, PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


def _malformed(hint: str) -> Verdict:
    return Verdict(valid=False, reason="malformed_header", hint=hint)
