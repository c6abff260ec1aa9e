"""PayPal's signature: what it proves, what it cannot prove, and whose certificate is believed."""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import CallFailed, InvalidInput
from holdfast.outcome import Cause
from holdfast.providers.paypal import LocalVerification, PayPal
from holdfast.providers.paypal.signatures import TransmissionSignature, public_roots, signed_message
from holdfast.values import Secret, Secrets
from holdfast.webhooks.request import RawRequest
from holdfast.webhooks.signatures import Verdict
from tests.providers.connection import NOON, Canned, connection, incoming

VECTORS = Path(__file__).resolve().parents[3] / "shared/specs/signature-vectors.json"
CERT_URL = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-a5cafa77"
WEBHOOK = "4JH86294D6297924G"
OWNER = "messageverificationcerts.paypal.com"
BODY = b'{"id":"WH-1","event_type":"PAYMENT.CAPTURE.COMPLETED","resource":{"id":"2GG279541U471931P"}}'
HOSTS = frozenset({"https://api.paypal.com"})
Key = rsa.RSAPrivateKey


@cache
def key(name: str) -> Key:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(
    subject: str,
    *,
    issuer: str = "",
    signed_by: str = "",
    is_authority: bool = False,
    since: datetime = NOON - timedelta(days=1),
    until: datetime = NOON + timedelta(days=365),
    elliptic: bool = False,
) -> bytes:
    """A certificate for the key of its own name, signed with the key of the issuer's, as PEM."""
    issuer, public = issuer or subject, key(subject).public_key()
    signer = key(signed_by or issuer)
    usage = x509.KeyUsage(
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
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(ec.generate_private_key(ec.SECP256R1()).public_key() if elliptic else public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if not is_authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(signer, SHA256()).public_bytes(Encoding.PEM)


@cache
def root() -> bytes:
    return certificate("Root", is_authority=True)


@cache
def leaf() -> bytes:
    return certificate(OWNER, issuer="Root")


def verification() -> LocalVerification:
    known = LocalVerification(roots=root())
    known.add(CERT_URL, leaf(), at=NOON)
    return known


def headers(
    body: bytes = BODY, *, at: datetime = NOON, webhook: str = WEBHOOK, signer: str = OWNER, **changes: str
) -> dict[str, str]:
    """Those of a delivery, rightly signed; then with the changes."""
    said = {
        "transmission_id": "dfb3be50-fd74-11e4-8bf3-77339302725b",
        "transmission_time": f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "cert_url": CERT_URL,
        "auth_algo": "SHA256withRSA",
    }
    said |= {name: value for name, value in changes.items() if name in ("transmission_id", "transmission_time")}
    message = signed_message(said, webhook, body)
    said["transmission_sig"] = base64.b64encode(key(signer).sign(message, padding.PKCS1v15(), SHA256())).decode()
    return said | changes


def delivery(said: Mapping[str, str], body: bytes = BODY) -> RawRequest:
    pairs = [(f"PAYPAL-{name.replace('_', '-').upper()}", value) for name, value in said.items()]
    return incoming(body, *((name.lower(), value) for name, value in pairs))


def judge(request: RawRequest, known: LocalVerification | None, *ids: str) -> Verdict:
    scheme = TransmissionSignature(hosts=HOSTS, verification=known)
    return scheme.verify(request, Secrets(list(ids or (WEBHOOK,))))


# The message


def test_the_message_of_the_official_vector_is_built_byte_for_byte() -> None:
    if not VECTORS.exists():
        pytest.skip("the signature vectors are not on this machine")
    [vector] = [one for one in json.loads(VECTORS.read_text())["vectors"] if one["scheme"] == "paypal-message"]

    message = signed_message(
        {"transmission_id": vector["transmission_id"], "transmission_time": vector["timestamp"]},
        vector["webhook_id"],
        vector["body"].encode(),
    )

    assert message == b"dfb3be50-fd74-11e4-8bf3-77339302725b|2015-05-18T15:45:13Z|4JH86294D6297924G|2771810304"


def test_a_checksum_is_written_without_a_sign() -> None:
    body = next(b"%d" % number for number in range(100) if zlib.crc32(b"%d" % number) > 2**31)
    said = {"transmission_id": "t", "transmission_time": "now"}
    assert signed_message(said, "w", body) == b"t|now|w|%d" % zlib.crc32(body)
    assert b"-" not in signed_message(said, "w", body)


# Genuine


def test_what_paypal_signed_is_believed() -> None:
    assert judge(delivery(headers()), verification()) == Verdict(valid=True)


def test_while_a_webhook_is_replaced_either_id_counts() -> None:
    said = headers(webhook="OLD4294D6297924G1")
    assert judge(delivery(said), verification(), WEBHOOK, "OLD4294D6297924G1") == Verdict(valid=True, secret=1)


def test_the_same_transmission_may_come_again() -> None:
    known = verification()
    assert [judge(delivery(headers()), known).valid for _ in range(3)] == [True] * 3


@pytest.mark.parametrize("time", ["2026-03-02T12:00:00.123456789Z", "2026-03-02T13:00:00+01:00"])
def test_a_time_may_be_written_in_any_form_of_the_standard(time: str) -> None:
    assert judge(delivery(headers(transmission_time=time)), verification()).valid


# Forged


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"webhook": "SOMEBODYELSES1234"}, "wrong_signature"),
        ({"signer": "stranger.paypal.com"}, "wrong_signature"),
        ({"transmission_sig": "A" * 344}, "wrong_signature"),
        ({"auth_algo": "SHA1withRSA"}, "malformed_header"),
        ({"auth_algo": "sha256withrsa"}, "malformed_header"),
        ({"transmission_sig": "no base64!" * 10}, "malformed_header"),
        ({"transmission_id": "a|b"}, "malformed_header"),
        ({"transmission_time": "yesterday"}, "malformed_header"),
        ({"transmission_time": "2026-99-02T12:00:00Z"}, "malformed_header"),
        ({"at": NOON - timedelta(seconds=301)}, "stale"),
        ({"at": NOON + timedelta(seconds=301)}, "future"),
    ],
    ids=str,
)
def test_what_paypal_did_not_sign_like_this_is_refused(changes: dict[str, Any], reason: str) -> None:
    verdict = judge(delivery(headers(**changes)), verification())
    assert (verdict.valid, verdict.reason) == (False, reason)
    assert verdict.hint


def test_another_body_is_refused() -> None:
    assert judge(delivery(headers(), BODY.replace(b"WH-1", b"WH-2")), verification()).reason == "wrong_signature"


@pytest.mark.parametrize("name", list(headers()))
def test_every_header_is_needed_and_counts_once(name: str) -> None:
    said = headers()
    missing = delivery({other: value for other, value in said.items() if other != name})
    twice = replace(delivery(said), headers=(*delivery(said).headers, (f"paypal-{name.replace('_', '-')}", "x")))
    assert judge(missing, verification()).reason == "missing_header"
    assert judge(twice, verification()).reason == "malformed_header"


@pytest.mark.parametrize(
    "url",
    [
        "http://api.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com.evil.example/v1/notifications/certs/CERT-1",
        "https://evil.example/v1/notifications/certs/CERT-1",
        "https://api.paypal.com@evil.example/v1/notifications/certs/CERT-1",
        "https://api.paypal.com:8443/v1/notifications/certs/CERT-1",
        "https://api.paypal.com\\@evil.example/v1/notifications/certs/CERT-1",
        "https://evil.example/https://api.paypal.com/v1/notifications/certs/CERT-1",
        "https://www.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com/v1/notifications/certs/../../redirect?to=evil.example",
        "https://api.paypal.com/v1/notifications/certs/CERT-1?next=evil.example",
        "https://api.paypal.com/v1/notifications/certs/CERT-1#x",
        "https://api.paypal.com/v1/notifications/certs/",
        "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
    ],
)
@pytest.mark.parametrize("with_certificates", [True, False])
def test_a_certificate_from_anywhere_else_is_neither_believed_nor_wanted(url: str, with_certificates: bool) -> None:
    known = verification() if with_certificates else None
    assert judge(delivery(headers(cert_url=url)), known).reason == "foreign_certificate"
    assert known is None or known.wanted == []


# A CRC32 is no hash


def forged_with_the_checksum_of(genuine: bytes, claim: Mapping[str, object]) -> bytes:
    """Another JSON body with the same CRC32: every byte of its padding is one of two letters, and one choice fits."""
    at, bits = len(b'{"x":"'), 64
    body = json.dumps({"x": "a" * bits, **claim}, separators=(",", ":")).encode()
    assert body[at : at + bits] == b"a" * bits

    def flipped(number: int, text: bytes) -> bytes:
        return text[: at + number] + b"q" + text[at + number + 1 :]

    base = zlib.crc32(body)
    rows: list[tuple[int, int]] = []  # Gauss: a checksum's difference, and which letters make it
    for number in range(bits):
        difference, letters = zlib.crc32(flipped(number, body)) ^ base, 1 << number
        for other, also in rows:
            if difference ^ other < difference:
                difference, letters = difference ^ other, letters ^ also
        if difference:
            rows.append((difference, letters))
            rows.sort(reverse=True)
    wanted, chosen = base ^ zlib.crc32(genuine), 0
    for other, also in rows:
        if wanted ^ other < wanted:
            wanted, chosen = wanted ^ other, chosen ^ also
    for number in range(bits):
        if chosen >> number & 1:
            body = flipped(number, body)
    return body


def test_a_forged_body_with_the_genuine_checksum_has_a_right_signature() -> None:
    """Why nothing that such a body says is believed."""
    forged = forged_with_the_checksum_of(BODY, {"id": "WH-2", "event_type": "PAYMENT.CAPTURE.COMPLETED"})
    assert forged != BODY
    assert json.loads(forged)["id"] == "WH-2"
    assert judge(delivery(headers(), forged), verification()).valid


def test_a_transmission_that_brought_another_body_before_is_refused() -> None:
    known = verification()
    assert judge(delivery(headers()), known).valid

    verdict = judge(delivery(headers(), forged_with_the_checksum_of(BODY, {"id": "WH-2"})), known)

    assert (verdict.valid, verdict.reason) == (False, "reused")
    assert judge(delivery(headers()), known).valid


def test_what_is_refused_for_its_signature_does_not_use_up_a_transmission() -> None:
    known = verification()
    assert judge(delivery(headers(), b"{}"), known).reason == "wrong_signature"
    assert judge(delivery(headers()), known).valid


# Certificates


@pytest.mark.parametrize(
    ("pem", "complaint"),
    [
        (lambda: certificate(OWNER, issuer="Root", signed_by="Stranger"), "not trusted"),
        (lambda: certificate(OWNER), "not trusted"),
        (lambda: certificate("shop.example", issuer="Root"), "belongs to shop.example"),
        (lambda: certificate("paypal.com.evil.example", issuer="Root"), "belongs to"),
        (lambda: certificate("notpaypal.com", issuer="Root"), "belongs to"),
        (lambda: certificate(OWNER, issuer="Root", until=NOON - timedelta(seconds=1)), "not trusted"),
        (lambda: certificate(OWNER, issuer="Root", since=NOON + timedelta(seconds=1)), "not trusted"),
        (lambda: certificate(OWNER, issuer="Root", elliptic=True), "not RSA"),
        (lambda: b"<html>", "not trusted"),
        (lambda: b"", "not trusted"),
        (lambda: b"x" * 70_000, "larger than"),
    ],
    ids=[
        "forged issuer",
        "own issuer",
        "somebody",
        "suffix",
        "no dot",
        "expired",
        "not yet",
        "EC",
        "page",
        "none",
        "big",
    ],
)
def test_a_certificate_that_is_not_paypals_or_leads_nowhere_is_not_trusted(pem: object, complaint: str) -> None:
    known = LocalVerification(roots=root())
    with pytest.raises(InvalidInput, match=complaint):
        known.add(CERT_URL, pem(), at=NOON)  # type: ignore[operator]  # a table of functions
    assert judge(delivery(headers()), known).reason == "unknown_certificate"


@pytest.mark.parametrize("sent_along", [True, False])
def test_an_intermediate_authority_is_taken_from_the_file_or_from_the_settings(sent_along: bool) -> None:
    between = certificate("Between", issuer="Root", is_authority=True)
    below = certificate(OWNER, issuer="Between")
    known = LocalVerification(roots=root(), intermediates=b"" if sent_along else between)
    known.add(CERT_URL, below + between if sent_along else below, at=NOON)
    assert judge(delivery(headers()), known).valid


def test_a_certificate_counts_only_while_it_is_valid() -> None:
    known = LocalVerification(roots=root())
    known.add(CERT_URL, certificate(OWNER, issuer="Root", until=NOON + timedelta(hours=1)), at=NOON)
    later = NOON + timedelta(hours=2)

    verdict = judge(replace(delivery(headers(at=later)), received_at=later), known)

    assert (verdict.valid, verdict.reason) == (False, "unknown_certificate")
    assert known.wanted == [CERT_URL]


async def test_a_certificate_is_fetched_once_and_its_next_delivery_believed() -> None:
    # given
    known, fetched = LocalVerification(roots=root()), list[str]()
    assert [judge(delivery(headers()), known).reason for _ in range(3)] == ["unknown_certificate"] * 3

    async def get(url: str) -> bytes:
        fetched.append(url)
        return leaf()

    # when
    await known.refresh(get, at=NOON)
    await known.refresh(get, at=NOON)

    # then
    assert fetched == [CERT_URL]
    assert judge(delivery(headers()), known).valid


async def test_an_address_somebody_made_up_does_not_keep_the_others_from_being_fetched() -> None:
    # given
    known = LocalVerification(roots=root())
    for name in ("CERT-made-up", "CERT-360caa42-fca2a594-a5cafa77"):
        judge(delivery(headers(cert_url=f"https://api.paypal.com/v1/notifications/certs/{name}")), known)

    async def get(url: str) -> bytes:
        return leaf() if url == CERT_URL else b"no such certificate"

    # when
    with pytest.raises(InvalidInput, match="made-up is not trusted"):
        await known.refresh(get, at=NOON)

    # then
    assert judge(delivery(headers()), known).valid
    assert known.wanted == []


def account(known: LocalVerification | None) -> PayPal:
    return PayPal(client_id="c", client_secret=Secret("a-client-secret"), verification=known)


async def test_the_upkeep_fetches_what_is_wanted_once_and_shows_nobody_a_credential() -> None:
    # given
    known, wire = LocalVerification(roots=root()), Canned(content=leaf())
    assert judge(delivery(headers()), known).reason == "unknown_certificate"

    # when
    for _ in range(2):
        await account(known).upkeep(connection(account(known), wire))

    # then
    assert [(one.method, one.url, one.headers) for one in wire.requests] == [
        ("GET", CERT_URL, (("user-agent", "holdfast"),))
    ]
    assert judge(delivery(headers()), known).valid


async def test_without_certificates_there_is_nothing_to_keep_up() -> None:
    wire = Canned()
    await account(None).upkeep(connection(account(None), wire))
    assert wire.requests == []


@pytest.mark.parametrize(
    ("status", "cause", "is_wanted"),
    [
        (301, Cause.REJECTED, False),
        (302, Cause.REJECTED, False),
        (401, Cause.REJECTED, False),
        (404, Cause.REJECTED, False),
        (429, Cause.UNKNOWN, True),
        (503, Cause.UNKNOWN, True),
    ],
)
async def test_a_redirect_is_not_followed_and_what_may_be_there_soon_is_asked_for_again(
    status: int, cause: Cause, is_wanted: bool
) -> None:
    # given
    known = LocalVerification(roots=root())
    wire = Canned(status=status, content=leaf(), headers=(("location", "https://evil.example/"),))
    judge(delivery(headers()), known)

    # when
    with pytest.raises(CallFailed) as failed:
        await account(known).upkeep(connection(account(known), wire))

    # then
    assert (failed.value.cause, failed.value.status) == (cause, status)
    assert [one.url for one in wire.requests] == [CERT_URL]
    assert (known.wanted == [CERT_URL]) is is_wanted
    assert judge(delivery(headers()), known).reason == "unknown_certificate"


@pytest.mark.parametrize("content", [b"<html>", b"x" * 70_000, b""])
async def test_what_is_no_certificate_of_paypals_is_neither_trusted_nor_asked_for_again(content: bytes) -> None:
    known = LocalVerification(roots=root())
    judge(delivery(headers()), known)

    with pytest.raises(InvalidInput):
        await account(known).upkeep(connection(account(known), Canned(content=content)))

    assert known.wanted == []


def test_nobody_can_have_more_than_a_few_addresses_fetched() -> None:
    known = LocalVerification(roots=root())
    for number in range(100):
        judge(delivery(headers(cert_url=f"https://api.paypal.com/v1/notifications/certs/CERT-{number}")), known)
    assert len(known.wanted) == 8


def test_without_roots_those_of_this_machine_count_and_trust_no_own_certificate() -> None:
    assert public_roots().startswith(b"-----BEGIN CERTIFICATE-----")
    with pytest.raises(InvalidInput, match="not trusted"):
        LocalVerification().add(CERT_URL, leaf(), at=NOON)


# Without certificates


def test_without_certificates_a_fresh_delivery_in_the_right_form_is_a_hint() -> None:
    assert judge(delivery(headers(), b"anything"), None).valid
    assert judge(delivery(headers(at=NOON - timedelta(hours=1))), None).reason == "stale"


@pytest.mark.parametrize(
    ("base_url", "hosts"),
    [
        ("https://api-m.paypal.com", {"https://api.paypal.com", "https://api-m.paypal.com"}),
        ("https://api-m.sandbox.paypal.com", {"https://api.sandbox.paypal.com", "https://api-m.sandbox.paypal.com"}),
        (
            "http://127.0.0.1:8080",
            {"https://api.sandbox.paypal.com", "https://api-m.sandbox.paypal.com", "http://127.0.0.1:8080"},
        ),
    ],
)
def test_certificates_come_from_the_environment_of_the_account_only(base_url: str, hosts: set[str]) -> None:
    paypal = PayPal(client_id="c", client_secret=Secret("s"), base_url=base_url)
    assert paypal.scheme.hosts == hosts


@given(
    values=st.lists(st.text(st.characters(max_codepoint=255), max_size=60), min_size=5, max_size=5),
    body=st.binary(max_size=50),
    genuine=st.integers(0, 31),
)
def test_whatever_comes_gets_a_verdict(values: Sequence[str], body: bytes, genuine: int) -> None:
    said = dict(_GENUINE)
    for number, name in enumerate(said):
        if not genuine >> number & 1:
            said[name] = values[number]
    verdict = judge(delivery(said, body), _KNOWN)
    assert isinstance(verdict, Verdict)
    assert not verdict.valid or genuine == 31


_GENUINE = headers()
_KNOWN = verification()
