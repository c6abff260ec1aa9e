"""What the simulated PayPal signs with: a key that everybody can read here, so it proves nothing anywhere else."""

from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Final

from holdfast.errors import MissingExtra

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.x509 import Certificate, CertificateBuilder, Name

OWNER: Final = "messageverificationcerts.sandbox.paypal.com"
AUTHORITY: Final = "Simulated Certificate Authority"
FROM: Final = datetime(2020, 1, 1)
UNTIL: Final = datetime(2120, 1, 1)
# Two primes, written down so that every run signs alike.
P: Final = int(
    "fac9c2863ff3dd275a9aaa6efea1e6478e07057c38e926cc3884f994cb6930d28b3367bcb2f35514c9aa9c3b1622e380"
    "620799cdca38529c209f35cea572a47df2e9bc1389c028838c6beae6bd2cc98debdeeab930ad4708828d3bae4ce6eac1"
    "64df7c7fac39c8a85da14623ce204ccd939c2586a8f8bb80dd5e41ba648f2db5",
    16,
)
Q: Final = int(
    "e42206150bef24dd4d609a70f80d19be4fd431760e1ee0d61c6ab3dcc80f2613c9edf3d5a0689826092851daca6872fd"
    "43d67b7306bb809474bd0b3e9227ca8cf811cf02ec7fde857a7ba2b0892d67701f33d1167e8adf4968c6e5c2242de541"
    "5bd8bb2fd42434bfb48cee21ee6bf05e1e38cc0bab72880a0d2c71c068327eff",
    16,
)
E: Final = 65537


@dataclass(frozen=True, kw_only=True, slots=True)
class Signer:
    """A key, its certificate, and the root that certificate leads to, as PEM."""

    key: "RSAPrivateKey"
    certificate: bytes
    root: bytes

    def sign(self, message: bytes) -> str:
        """SHA256withRSA, in base64."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        return b64encode(self.key.sign(message, PKCS1v15(), SHA256())).decode()


@cache
def signer() -> Signer:
    """The one there is.

    Raises:
        MissingExtra: The package `cryptography` is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import rsa
        from cryptography.hazmat.primitives.serialization import Encoding
    except ImportError as error:
        raise MissingExtra("paypal") from error
    d = pow(E, -1, (P - 1) * (Q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p=P,
        q=Q,
        d=d,
        dmp1=d % (P - 1),
        dmq1=d % (Q - 1),
        iqmp=pow(Q, -1, P),
        public_numbers=rsa.RSAPublicNumbers(e=E, n=P * Q),
    )
    key = numbers.private_key()
    usage = _usage(key, is_authority=True)
    root = _signed(usage.subject_name(_name(AUTHORITY)).issuer_name(_name(AUTHORITY)).serial_number(1), key)
    usage = _usage(key, is_authority=False).issuer_name(root.subject)
    usage = usage.add_extension(x509.SubjectAlternativeName([x509.DNSName(OWNER)]), critical=False)
    leaf = _signed(usage.subject_name(_name(OWNER)).serial_number(2), key)
    return Signer(key=key, certificate=leaf.public_bytes(Encoding.PEM), root=root.public_bytes(Encoding.PEM))


def _usage(key: "RSAPrivateKey", *, is_authority: bool) -> "CertificateBuilder":
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    builder = x509.CertificateBuilder().public_key(key.public_key()).not_valid_before(FROM).not_valid_after(UNTIL)
    allowed = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    builder = builder.add_extension(allowed, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    builder = builder.add_extension(issuer, critical=False)
    if is_authority:
        return builder
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return builder.add_extension(purpose, critical=False)


def _name(common: str) -> "Name":
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


def _signed(builder: "CertificateBuilder", key: "RSAPrivateKey") -> "Certificate":
    from cryptography.hazmat.primitives.hashes import SHA256

    return builder.sign(key, SHA256())
