"""JaaS: links that any JWT library verifies, and a door that opens to its signature only."""

import base64
import hashlib
import hmac
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from holdfast.errors import ConfigurationError, MissingCredential, MissingExtra
from holdfast.meetings.models import Feature, MeetingRequest
from holdfast.meetings.provider import CreateSemantics, LocalMeetingProvider, MeetingProvider
from holdfast.providers.jaas import JaaS, JaasSignature
from holdfast.values import Reference, Secret, Secrets
from holdfast.webhooks.door import ReceivesWebhooks
from holdfast.webhooks.request import RawRequest
from tests.providers.connection import NOON, incoming

VECTORS = Path(__file__).parents[3] / "shared/specs/meetings/signature-vectors.json"
APP = "vpaas-magic-cookie-1fc542a3e4414a44b2611668195e2bfe"
ROOM = "0123456789abcdefghijklmnop"
START = datetime(2026, 3, 2, 12, tzinfo=UTC)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = pem(KEY)
REQUEST = MeetingRequest(
    reference=Reference("booking-1"), token=ROOM, starts_at=START, duration=timedelta(minutes=30), topic="Meeting"
)


def jaas(**changes: object) -> JaaS:
    facts: dict[str, object] = {
        "app_id": APP,
        "key_id": "4f4910",
        "private_key": Secret(PEM),
        "webhook_secret": Secrets("whsec_jaas-secret"),
    }
    return JaaS(**facts | changes)  # type: ignore[arg-type]  # JaaS's own fields


def claims(url: str) -> dict[str, object]:
    token = parse_qs(urlsplit(url).query)["jwt"][0]
    found: dict[str, object] = jwt.decode(
        token,
        KEY.public_key(),
        algorithms=["RS256"],
        audience="jitsi",
        issuer="chat",
        options={"verify_nbf": False, "verify_exp": False},
    )
    return found


def test_it_is_a_local_provider_that_receives_webhooks() -> None:
    provider: LocalMeetingProvider = jaas()
    door: ReceivesWebhooks = jaas()

    assert provider.capabilities.create is CreateSemantics.LOCAL
    assert not isinstance(provider, MeetingProvider)
    assert isinstance(door, ReceivesWebhooks)


def test_the_guests_link_opens_one_room_around_one_time_and_moderates_nothing() -> None:
    snapshot = jaas(host_features=frozenset({"recording"})).create(REQUEST, now=NOON)

    assert snapshot.join_url.startswith(f"https://8x8.vc/{APP}/{ROOM}?jwt=")
    assert snapshot.vendor_id == ROOM
    assert claims(snapshot.join_url) == {
        "aud": "jitsi",
        "iss": "chat",
        "sub": APP,
        "room": ROOM,
        "nbf": int(datetime(2026, 3, 2, 11, 45, tzinfo=UTC).timestamp()),
        "exp": int(datetime(2026, 3, 2, 13, 30, tzinfo=UTC).timestamp()),
        "context": {"user": {"moderator": "false"}, "features": {}},
    }


def test_the_hosts_link_moderates_the_same_room_and_never_shows() -> None:
    url = jaas(host_features=frozenset({"recording"})).host_url(
        ROOM, starts_at=START, ends_at=START + timedelta(minutes=30), now=NOON
    )

    said = claims(url.reveal())
    assert said["room"] == ROOM
    assert said["context"] == {"user": {"moderator": "true"}, "features": {"recording": "true"}}
    assert "jwt" not in f"{url!r} {url}"


@pytest.mark.parametrize("key_id", ["4f4910", f"{APP}/4f4910"])
def test_the_key_is_named_as_the_console_names_it(key_id: str) -> None:
    url = jaas(key_id=key_id).create(REQUEST, now=NOON).join_url

    header = jwt.get_unverified_header(parse_qs(urlsplit(url).query)["jwt"][0])
    assert header == {"alg": "RS256", "typ": "JWT", "kid": f"{APP}/4f4910"}


@pytest.mark.parametrize("key", ["no key", pem(ec.generate_private_key(ec.SECP256R1()))])
def test_a_key_that_cannot_sign_is_refused_when_the_provider_is_made(key: str) -> None:
    with pytest.raises(ConfigurationError, match="RSA private key") as caught:
        jaas(private_key=Secret(key))

    assert key not in str(caught.value)


@pytest.mark.parametrize("package", ["jwt", "jwt.algorithms", "cryptography.hazmat.primitives.asymmetric.rsa"])
def test_without_its_packages_it_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(MissingExtra, match=r"holdfast\[jwt\]"):
        jaas(private_key=Secret(PEM)).create(REQUEST, now=NOON)


def test_credentials_come_from_the_environment_and_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAAS_APP_ID", APP)
    monkeypatch.setenv("JAAS_KEY_ID", "4f4910")
    monkeypatch.setenv("JAAS_PRIVATE_KEY", pem(KEY).replace("\n", "\\n"))
    monkeypatch.setenv("JAAS_WEBHOOK_SECRET", "new-to-hide,old-to-hide")

    made = JaaS.from_env()

    assert claims(made.create(REQUEST, now=NOON).join_url)["sub"] == APP
    assert made.webhook_secrets is not None
    assert len(made.webhook_secrets) == 2
    assert "to-hide" not in repr(made)
    assert "PRIVATE" not in repr(made)


@pytest.mark.parametrize("missing", ["JAAS_APP_ID", "JAAS_KEY_ID", "JAAS_PRIVATE_KEY"])
def test_a_missing_credential_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JAAS_APP_ID", "JAAS_KEY_ID", "JAAS_PRIVATE_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.delenv(missing)

    with pytest.raises(MissingCredential, match=missing):
        JaaS.from_env()


def test_it_promises_nothing_a_moderator_has_to_switch_on() -> None:
    assert jaas().capabilities.features == {Feature.JOIN_BEFORE_HOST}


# Webhooks


def signed(body: bytes, secret: str = "whsec_jaas-secret", *, at: datetime = NOON, more: str = "") -> RawRequest:
    time = str(int(at.timestamp()))
    mac = base64.b64encode(hmac.new(secret.encode(), f"{time}.".encode() + body, hashlib.sha256).digest()).decode()
    return incoming(body, ("x-jaas-signature", f"t={time},v0=ignored{more},v1={mac}"))


BODY = json.dumps(
    {
        "idempotencyKey": "7b0b9d1e-4d2c-4d0c-8a56-0e3f6a7f9d11",
        "customerId": "c",
        "appId": APP,
        "eventType": "ROOM_CREATED",
        "sessionId": "s",
        "timestamp": 1772452800000,
        "fqn": f"{APP}/{ROOM}",
        "data": {"conference": f"{ROOM}@conference"},
    }
).encode()


def verdict(request: RawRequest, *secrets: str) -> tuple[bool, str]:
    found = jaas().scheme.verify(request, Secrets(secrets or ["whsec_jaas-secret"]))
    return found.valid, found.reason


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (signed(BODY), (True, "")),
        (signed(BODY, more=",v1=AAAA"), (True, "")),
        (signed(BODY, "another"), (False, "wrong_signature")),
        (signed(BODY, at=NOON - timedelta(seconds=301)), (False, "stale")),
        (signed(BODY, at=NOON + timedelta(seconds=301)), (False, "future")),
        (incoming(BODY), (False, "missing_header")),
        (incoming(BODY, ("x-jaas-signature", "v1=AAAA")), (False, "malformed_header")),
        (incoming(BODY, ("x-jaas-signature", "t=1,t=2,v1=AAAA")), (False, "malformed_header")),
        (incoming(BODY, ("x-jaas-signature", "t=now,v1=AAAA")), (False, "malformed_header")),
        (incoming(BODY, ("x-jaas-signature", "t=1,v1=AAAA"), ("x-jaas-signature", "t=1")), (False, "malformed_header")),
    ],
)
def test_only_what_is_rightly_and_freshly_signed_is_believed(request_: RawRequest, expected: tuple[bool, str]) -> None:
    assert verdict(request_) == expected


def test_a_rotated_secret_still_opens_the_door() -> None:
    assert verdict(signed(BODY, "old"), "new", "old") == (True, "")


@pytest.mark.skipif(not VECTORS.exists(), reason="the shared vectors are not on this machine")
def test_the_published_vector_is_accepted_and_any_other_byte_refused() -> None:
    vector = next(row for row in json.loads(VECTORS.read_text())["webhooks"] if row["provider"] == "jaas")
    at = datetime.fromtimestamp(int(vector["timestamp"]), UTC)
    headers = (("x-jaas-signature", vector["value"]),)

    def judge(body: bytes) -> bool:
        request = RawRequest(method="POST", url="https://x.test", headers=headers, body=body, received_at=at)
        return jaas().scheme.verify(request, Secrets(vector["secret"])).valid

    assert judge(vector["body"].encode())
    assert not judge(vector["body"].encode() + b" ")


def test_an_event_is_about_its_room_and_known_by_its_idempotency_key() -> None:
    (delivery,) = jaas().parse(incoming(BODY))

    assert (delivery.type, delivery.vendor_id, delivery.recognised) == ("ROOM_CREATED", ROOM, True)
    assert delivery.dedup_key == "7b0b9d1e-4d2c-4d0c-8a56-0e3f6a7f9d11"
    assert jaas().handshake(incoming(BODY)) is None


def test_an_event_nobody_knows_is_kept() -> None:
    (delivery,) = jaas().parse(incoming(b'{"eventType": "POLL_CREATED"}'))

    assert (delivery.type, delivery.recognised, delivery.vendor_id) == ("POLL_CREATED", False, "")
    assert delivery.dedup_key


@pytest.mark.parametrize("body", [b"", b"[]", b"not JSON", b'{"fqn": "a/b"}'])
def test_a_body_nobody_can_read_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        jaas().parse(incoming(body))


def test_more_signatures_than_a_rotation_needs_are_not_even_computed() -> None:
    mac = base64.b64encode(bytes(32)).decode()
    header = f"t={int(NOON.timestamp())}" + f",v1={mac}" * 1000

    verdict = JaasSignature().verify(incoming(b"{}", ("x-jaas-signature", header)), Secrets("s"))

    assert (verdict.valid, verdict.reason) == (False, "malformed_header")
