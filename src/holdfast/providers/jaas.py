"""JaaS (Jitsi as a Service, 8x8): rooms that exist when somebody opens them, links signed here, no call to anybody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from os import environ
from typing import Final, Self

from pydantic import BaseModel, Field

from holdfast.errors import ConfigurationError, MissingExtra
from holdfast.http.wire import decode_json
from holdfast.meetings.models import Feature, MeetingRequest, MeetingSnapshot
from holdfast.meetings.provider import Capabilities, CreateSemantics
from holdfast.values import Secret, Secrets, require_env, secret_from_env
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import HmacTimestamped, Verdict

# https://developer.8x8.com/jaas/docs/webhooks-payload; the rest is kept for raw handlers.
EVENTS: Final = frozenset(
    {
        "ROOM_CREATED",
        "ROOM_DESTROYED",
        "PARTICIPANT_JOINED",
        "PARTICIPANT_LEFT",
        "PARTICIPANT_JOINED_LOBBY",
        "PARTICIPANT_LEFT_LOBBY",
        "RECORDING_STARTED",
        "RECORDING_ENDED",
        "RECORDING_UPLOADED",
    }
)


MOST_SIGNATURES: Final = 4
"""In one header: two while a secret rotates. Each costs us work before we know who sends it."""


class Event(BaseModel):
    """A webhook, as JaaS writes it."""

    event: str = Field(alias="eventType")
    idempotency_key: str = Field(alias="idempotencyKey", default="")
    fqn: str = ""
    """`<AppID>/<room>`."""

    @property
    def room(self) -> str:
        return self.fqn.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class JaasSignature:
    """`X-Jaas-Signature: t=<seconds>,v1=<base64>`: an HMAC of `<t>.<raw body>`, several `v1` while a secret rotates.

    https://developer.8x8.com/jaas/docs/webhooks-signatures
    """

    tolerance: float = 300

    def verify(self, request: RawRequest, secrets: Secrets) -> Verdict:
        header = request.header("x-jaas-signature")
        if header is None:
            hint = "x-jaas-signature is missing: not from JaaS, or a proxy dropped the header"
            return Verdict(valid=False, reason="missing_header", hint=hint)
        # Base64 ends in "=" itself: only the first one divides name and value.
        elements = [element.strip().partition("=") for element in header.split(",")]
        times = [value for name, _, value in elements if name == "t"]
        signatures = [value for name, _, value in elements if name == "v1"]
        few = 0 < len(signatures) <= MOST_SIGNATURES
        if len(times) != 1 or not few or len(request.all("x-jaas-signature")) > 1:
            hint = f"x-jaas-signature has not one t= and one to {MOST_SIGNATURES} v1="
            return Verdict(valid=False, reason="malformed_header", hint=hint)
        verdicts = [self._verify(request, times[0], signature, secrets) for signature in signatures]
        return min(verdicts, key=lambda verdict: (not verdict.valid, verdict.reason == "wrong_signature"))

    def _verify(self, request: RawRequest, time: str, signature: str, secrets: Secrets) -> Verdict:
        scheme = HmacTimestamped(
            "v1", "t", "{timestamp}.{body}", prefix="", tolerance=self.tolerance, encoding="base64"
        )
        return scheme.verify(replace(request, headers=(("t", time), ("v1", signature))), secrets)


@dataclass(frozen=True, kw_only=True)
class JaaS:
    """Hold meetings with JaaS; good as the last provider, since no outage can keep a link from being made.

    `private_key` is the RSA key, in PEM, whose public half was uploaded at jaas.8x8.vc under API keys; `key_id` is
    what the console shows for it.

    Raises:
        MissingExtra: The extra `jwt` is not installed.
        ConfigurationError: The key is no RSA private key in PEM.
    """

    app_id: str
    key_id: str
    private_key: Secret
    webhook_secret: Secrets | None = None
    name: str = "jaas"
    base_url: str = "https://8x8.vc"
    opens: timedelta = timedelta(minutes=15)
    """How long before the start links begin to work."""
    closes: timedelta = timedelta(hours=1)
    """How long after the planned end they still do."""
    host_features: frozenset[str] = frozenset()
    """What hosts may use beside talking, some of it billed: `recording`, `livestreaming`, `transcription`."""

    _key: object = field(init=False, repr=False, compare=False)

    # The lobby and a passcode are switched on by a moderator inside the room, so neither can be promised beforehand.
    capabilities = Capabilities(
        create=CreateSemantics.LOCAL, features=frozenset({Feature.JOIN_BEFORE_HOST}), webhooks=True
    )
    scheme = JaasSignature()

    def __post_init__(self) -> None:
        object.__setattr__(self, "_key", _load(self.private_key))  # parsed once: it costs more than signing

    @classmethod
    def from_env(cls) -> Self:
        """With JAAS_APP_ID, JAAS_KEY_ID and JAAS_PRIVATE_KEY from the environment, and JAAS_WEBHOOK_SECRET if set.

        Line ends in the key may be written as `\\n`.

        Raises:
            MissingCredential: One of them is unset or empty.
        """
        require_env(
            {
                "JAAS_APP_ID": "the app id at 8x8, vpaas-magic-cookie-...",
                "JAAS_KEY_ID": "the id of the key whose public half is at 8x8",
                "JAAS_PRIVATE_KEY": "its private half in PEM",
            }
        )
        return cls(
            app_id=secret_from_env("JAAS_APP_ID").reveal(),
            key_id=secret_from_env("JAAS_KEY_ID").reveal(),
            private_key=Secret(secret_from_env("JAAS_PRIVATE_KEY").reveal().replace("\\n", "\n")),
            webhook_secret=Secrets.from_env("JAAS_WEBHOOK_SECRET") if environ.get("JAAS_WEBHOOK_SECRET") else None,
        )

    @property
    def webhook_secrets(self) -> Secrets | None:
        return self.webhook_secret

    def create(self, request: MeetingRequest, *, now: datetime) -> MeetingSnapshot:
        """Name the room by the token, which nobody can guess, and sign a link that lets guests in, and only there."""
        ends_at = request.starts_at + request.duration
        jwt = self._jwt(request.token, request.starts_at, ends_at, moderator=False)
        return MeetingSnapshot(
            vendor_id=request.token,
            token=request.token,
            join_url=self._link(request.token, jwt),
            starts_at=request.starts_at,
        )

    def host_url(self, vendor_id: str, *, starts_at: datetime, ends_at: datetime, now: datetime) -> Secret:
        """A link that makes whoever opens it the moderator."""
        return Secret(self._link(vendor_id, self._jwt(vendor_id, starts_at, ends_at, moderator=True)))

    def handshake(self, request: RawRequest) -> Answer | None:
        return None

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        """One event; the same `idempotencyKey` is the same happening."""
        event = Event.model_validate(decode_json(request.body))
        return [
            Delivery(
                type=event.event,
                dedup_key=event.idempotency_key or sha256(request.body).hexdigest(),
                vendor_id=event.room,
                recognised=event.event in EVENTS,
                body=request.body,
            )
        ]

    def _link(self, room: str, jwt: str) -> str:
        return f"{self.base_url}/{self.app_id}/{room}?jwt={jwt}"

    def _jwt(self, room: str, starts_at: datetime, ends_at: datetime, *, moderator: bool) -> str:
        """https://developer.8x8.com/jaas/docs/api-keys-jwt; booleans are written as strings."""
        claims: dict[str, object] = {
            "aud": "jitsi",
            "iss": "chat",
            "sub": self.app_id,
            "room": room,
            # Their Python sample says `nbfTime`, which is no claim at all.
            "nbf": int((starts_at - self.opens).timestamp()),
            "exp": int((ends_at + self.closes).timestamp()),
            "context": {
                # Neither name nor id: guests share one link, and each is asked for a name before joining.
                "user": {"moderator": "true" if moderator else "false"},
                "features": dict.fromkeys(sorted(self.host_features), "true") if moderator else {},
            },
        }
        return _sign(claims, self._key, self.key_id if "/" in self.key_id else f"{self.app_id}/{self.key_id}")


def _load(private_key: Secret) -> object:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from jwt.algorithms import RSAAlgorithm
        from jwt.exceptions import InvalidKeyError
    except ImportError as error:
        raise MissingExtra("jwt") from error
    try:
        key: object = RSAAlgorithm(RSAAlgorithm.SHA256).prepare_key(private_key.reveal())
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidKeyError):
        key = None
    if not isinstance(key, RSAPrivateKey):
        # Not `from` the cause: its text may quote the key.
        raise ConfigurationError("jaas: private_key is no RSA private key in PEM, without a passphrase")
    return key


def _sign(claims: Mapping[str, object], key: object, kid: str) -> str:
    try:
        import jwt
    except ImportError as error:
        raise MissingExtra("jwt") from error
    return jwt.encode(dict(claims), key, algorithm="RS256", headers={"kid": kid})  # type: ignore[arg-type]  # see _load
