"""Zoom Meetings (REST v2), by a Server-to-Server OAuth app."""

import hmac
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha256
from os import environ
from typing import Final, Self

from pydantic import BaseModel, Field

from holdfast.errors import Rejected
from holdfast.http.origin import is_loopback
from holdfast.http.session import Http
from holdfast.http.tokens import Token
from holdfast.http.transports import HttpResponse
from holdfast.http.vendor import CAUSES
from holdfast.http.wire import JsonIn, JsonOut, VendorError, decode_json, encode_json, read_json_error, segment
from holdfast.meetings.models import Feature, MeetingRequest, MeetingSnapshot
from holdfast.meetings.provider import Capabilities, CreateSemantics
from holdfast.outcome import Cause, Effect
from holdfast.values import Secret, Secrets, require_env, secret_from_env
from holdfast.webhooks.request import Answer, Delivery, RawRequest
from holdfast.webhooks.signatures import HmacTimestamped

# https://developers.zoom.us/docs/api/meetings/events/; the rest is kept for raw handlers.
EVENTS: Final = frozenset(
    {
        "meeting.created",
        "meeting.updated",
        "meeting.deleted",
        "meeting.permanently_deleted",
        "meeting.recovered",
        "meeting.started",
        "meeting.ended",
        "meeting.participant_joined",
        "meeting.participant_left",
        "recording.completed",
    }
)
SCHEDULED: Final = 2
PAGE_SIZE: Final = 300
MINUTE: Final = timedelta(minutes=1)
DAY: Final = timedelta(days=1)
# Zoom says it in words only: the headers of this answer are those of the account's own, unspent limit.
# https://devforum.zoom.us/t/18928
HOST_QUOTA: Final = re.compile(r"daily rate limit \(\d+\).*(particular user|GMT 00:00:00)", re.IGNORECASE | re.DOTALL)


class Issued(BaseModel):
    """The answer to `POST /oauth/token`."""

    access_token: str = Field(min_length=1, repr=False)
    expires_in: int


class Meeting(BaseModel):
    """A meeting, as created, read and listed; lists leave out the secret parts."""

    id: int
    join_url: str
    agenda: str = ""
    start_time: datetime | None = None
    start_url: str | None = Field(default=None, repr=False)
    password: str | None = Field(default=None, repr=False)

    @property
    def token(self) -> str:
        """Ours, from the first line of the agenda; lists cut off what comes later."""
        found = re.match(r"\[ref:([0-9a-v]+)\]", self.agenda)
        return found[1] if found else ""

    def to_snapshot(self, token: str = "") -> MeetingSnapshot:
        return MeetingSnapshot(
            vendor_id=str(self.id),
            join_url=self.join_url,
            token=token or self.token,
            host_url=Secret(self.start_url) if self.start_url else None,
            passcode=Secret(self.password) if self.password else None,
            starts_at=self.start_time,
        )


class Hosted(BaseModel):
    """A meeting, as read by who may start it."""

    start_url: str = Field(repr=False)


class MeetingList(BaseModel):
    """The answer to `GET /users/{userId}/meetings`."""

    meetings: list[Meeting] = []
    next_page_token: str = ""


class Participant(BaseModel):
    user_id: str | int = ""
    participant_uuid: str = ""


class Recording(BaseModel):
    recording_end: str = ""


class Object(BaseModel):
    """What an event is about; `id` is a number in some events and a text in others."""

    id: str | int = ""
    uuid: str = ""
    participant: Participant | None = None
    recording_files: list[Recording] | None = None


class Payload(BaseModel):
    object: Object | None = None
    plain_token: str = Field(alias="plainToken", default="")


class Event(BaseModel):
    """The envelope of every webhook."""

    event: str
    event_ts: int = 0
    payload: Payload = Payload()

    @property
    def dedup_key(self) -> str:
        """Events have no id: what happened to which run of which meeting, when, and to whom."""
        about = self.payload.object or Object()
        who = about.participant or Participant()
        ended = max((file.recording_end for file in about.recording_files or ()), default="")
        parts = (self.event, about.uuid or about.id, self.event_ts, who.participant_uuid or who.user_id, ended)
        return ":".join(map(str, parts)).rstrip(":")


@dataclass(frozen=True, kw_only=True)
class Zoom:
    """Hold meetings with Zoom.

    The credentials are those of a Server-to-Server OAuth app at marketplace.zoom.us with scopes to read and write
    meetings of the account; `host` is the user, by id or e-mail, who holds meetings that name no other.
    """

    account_id: str
    client_id: str
    client_secret: Secret
    host: str
    webhook_secret: Secrets | None = None
    """The app's "Secret Token", for deliveries."""
    name: str = "zoom"
    base_url: str = "https://api.zoom.us/v2"
    token_url: str = "https://zoom.us/oauth/token"
    webhook_tolerance: float = 300
    """Seconds a delivery's signature stays good; Zoom names no limit, and tries again for 85 minutes."""

    # No idempotency key: after a lost answer the host's meetings are searched for our token.
    capabilities = Capabilities(
        create=CreateSemantics.SEARCHABLE,
        features=frozenset(Feature),
        webhooks=True,
        elsewhere=frozenset({"1001", "3001"}),
    )
    # https://developers.zoom.us/docs/api/errors/
    causes = CAUSES | {
        401: Cause.CREDENTIAL,  # 124: expired, or replaced by a token that another process fetched
        (400, "124"): Cause.CREDENTIAL,
        (400, "4700"): Cause.CREDENTIAL,  # the token lacks a scope
        (400, "4711"): Cause.CREDENTIAL,
        404: Cause.REJECTED,  # 1001: no such user; 3001: no such meeting
        429: Cause.THROTTLED,  # but see `read_error`
    }
    private_fields = frozenset(
        {"download_token", "download_url", "host_id", "operator", "operator_id", "play_url", "registrant", "share_url"}
    )

    @classmethod
    def from_env(cls) -> Self:
        """With ZOOM_ACCOUNT_ID, ZOOM_CLIENT_ID, ZOOM_CLIENT_SECRET and ZOOM_HOST from the environment.

        Where they are set, ZOOM_WEBHOOK_SECRET (several, newest first, by commas), and ZOOM_URL and ZOOM_TOKEN_URL,
        which replace the addresses of their API.

        Raises:
            MissingCredential: One of them is unset or empty.
        """
        require_env(
            {
                "ZOOM_ACCOUNT_ID": "the account id of your Server-to-Server OAuth app",
                "ZOOM_CLIENT_ID": "the app's client id",
                "ZOOM_CLIENT_SECRET": "the app's client secret",
                "ZOOM_HOST": "the user who holds meetings that name no other host",
            }
        )
        return cls(
            account_id=secret_from_env("ZOOM_ACCOUNT_ID").reveal(),
            client_id=secret_from_env("ZOOM_CLIENT_ID").reveal(),
            client_secret=secret_from_env("ZOOM_CLIENT_SECRET"),
            host=secret_from_env("ZOOM_HOST").reveal(),
            webhook_secret=Secrets.from_env("ZOOM_WEBHOOK_SECRET") if environ.get("ZOOM_WEBHOOK_SECRET") else None,
            base_url=environ.get("ZOOM_URL", "").strip() or cls.base_url,
            token_url=environ.get("ZOOM_TOKEN_URL", "").strip() or cls.token_url,
        )

    @property
    def live(self) -> bool:
        """Whether people meet there: Zoom has no sandbox, so everywhere but on this machine."""
        return not is_loopback(self.base_url)

    def headers(self) -> Mapping[str, str]:
        return {}  # the token is put in by the connection

    def read_error(self, response: HttpResponse) -> VendorError:
        """`{"code": 124, "message": "…"}`, at times XML or HTML; which limit a 429 means, only the message tells."""
        said = read_json_error(response)
        if response.status != 429:
            return said
        if HOST_QUOTA.search(said.message) or HOST_QUOTA.search(response.content.decode("utf-8", "replace")):
            return VendorError(
                code=said.code,
                message=said.message,
                cause=Cause.REFUSED,
                reason="host_quota",
                narrow=True,
                retry_after=_until_midnight(response),
            )
        return VendorError(code=said.code, message=said.message, retry_after=_retry_after(response))

    # The token: one for all processes, since a new one may end the life of the one in use.
    # https://devforum.zoom.us/t/72070

    def token_scope(self) -> str:
        return f"{self.token_url}|{self.account_id}|{self.client_id}"

    async def fetch_token(self, http: Http) -> Token:
        """`POST https://zoom.us/oauth/token`; there is no refresh token."""
        credentials = b64encode(f"{self.client_id}:{self.client_secret.reveal()}".encode()).decode()
        issued = await http.post(
            self.token_url,
            Issued,
            operation="token",
            effect=Effect.IDEMPOTENT,
            form={"grant_type": "account_credentials", "account_id": self.account_id},
            headers={"authorization": f"Basic {credentials}"},
        )
        return Token(value=Secret(issued.access_token), expires_in=issued.expires_in)

    # Meetings.

    async def create(self, http: Http, request: MeetingRequest) -> MeetingSnapshot:
        """`POST /users/{userId}/meetings`; no fractions of seconds, no fractions of minutes."""
        settings: dict[str, JsonOut] = {}
        if Feature.WAITING_ROOM in request.features:
            settings["waiting_room"] = True
        if Feature.JOIN_BEFORE_HOST in request.features:
            settings["join_before_host"] = True
        if Feature.CLOUD_RECORDING in request.features:
            settings["auto_recording"] = "cloud"
        body: dict[str, JsonOut] = {
            "topic": request.topic,
            "agenda": f"[ref:{request.token}]",
            "type": SCHEDULED,
            "start_time": f"{request.starts_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "duration": -(-request.duration // MINUTE),
            "timezone": request.time_zone,
            "settings": settings,
        }
        if Feature.PASSCODE in request.features:
            body["default_password"] = True
        host = request.host or self.host
        path = f"/users/{segment(host)}/meetings"
        made = await http.post(path, Meeting, operation="create", effect=Effect.ONCE, json=body, scope=host)
        return made.to_snapshot(request.token)

    async def find(self, http: Http, request: MeetingRequest) -> MeetingSnapshot | None:
        """`GET /users/{userId}/meetings`, page by page; how soon a new meeting is listed, Zoom does not say."""
        params: dict[str, str | int] = {
            "type": "scheduled",
            "page_size": PAGE_SIZE,
            "from": f"{request.starts_at - DAY:%Y-%m-%d}",
            "to": f"{request.starts_at + DAY:%Y-%m-%d}",
        }
        path = f"/users/{segment(request.host or self.host)}/meetings"
        while True:
            page = await http.get(path, MeetingList, operation="find", params=params)
            found = next((meeting for meeting in page.meetings if meeting.token == request.token), None)
            if found or not page.next_page_token:
                return found.to_snapshot() if found else None
            params["next_page_token"] = page.next_page_token

    async def delete(self, http: Http, vendor_id: str) -> None:
        """`DELETE /meetings/{meetingId}`, without an e-mail to the host; 404 with 3001 says that it is gone."""
        path, quietly = f"/meetings/{segment(vendor_id)}", {"schedule_for_reminder": "false"}
        try:
            await http.delete(path, None, operation="delete", effect=Effect.IDEMPOTENT, params=quietly)
        except Rejected as error:
            if error.status != 404:
                raise

    async def host_url(self, http: Http, vendor_id: str) -> Secret:
        """`GET /meetings/{meetingId}`: its `start_url` lives two hours, so it is fetched and never kept."""
        meeting = await http.get(f"/meetings/{segment(vendor_id)}", Hosted, operation="host_url")
        return Secret(meeting.start_url)

    # Webhooks.

    @property
    def scheme(self) -> HmacTimestamped:
        return HmacTimestamped("x-zm-signature", "x-zm-request-timestamp", tolerance=self.webhook_tolerance)

    @property
    def webhook_secrets(self) -> Secrets | None:
        return self.webhook_secret

    def handshake(self, request: RawRequest) -> Answer | None:
        """`endpoint.url_validation`, asked at set-up and every 72 hours, answered with the secret it is signed with."""
        try:
            event = Event.model_validate(decode_json(request.body))
        except ValueError:
            return None
        if event.event != "endpoint.url_validation" or self.webhook_secret is None:
            return None
        key = list(self.webhook_secret)[self.scheme.verify(request, self.webhook_secret).secret].reveal().encode()
        plain = event.payload.plain_token
        answer = {"plainToken": plain, "encryptedToken": hmac.new(key, plain.encode(), sha256).hexdigest()}
        return Answer(body=encode_json(answer))

    def parse(self, request: RawRequest) -> Sequence[Delivery]:
        body = decode_json(request.body)
        event = Event.model_validate(body)
        about = event.payload.object or Object()
        return [
            Delivery(
                type=event.event,
                dedup_key=event.dedup_key,
                vendor_id=str(about.id),
                recognised=event.event in EVENTS,
                body=request.body,
                digest=_digest(body),
            )
        ]


def _digest(body: JsonIn) -> str:
    # Two deliveries of one finished recording differ in it, and in nothing else. https://devforum.zoom.us/t/128602
    same = {name: value for name, value in body.items() if name != "download_token"} if isinstance(body, dict) else body
    return sha256(encode_json(same)).hexdigest()


def _until_midnight(response: HttpResponse) -> float:
    """Seconds to 00:00 UTC, by Zoom's clock, when the host's quota begins anew; an hour where it tells no time."""
    now = _date(response)
    if now is None:
        return 3600
    return (now.replace(hour=0, minute=0, second=0, microsecond=0) + DAY - now).total_seconds()


def _retry_after(response: HttpResponse) -> float | None:
    """Per second: `X-RateLimit-Reset`, a Unix time. Per day: `Retry-After`, a time as text, not in seconds."""
    now = _date(response)
    try:
        if now and (reset := response.header("x-ratelimit-reset")):
            return max(0.0, int(reset) - now.timestamp())
        if now and (until := response.header("retry-after")) and "T" in until:
            return max(0.0, (datetime.fromisoformat(until) - now).total_seconds())
    except (ValueError, TypeError):
        return None
    return None


def _date(response: HttpResponse) -> datetime | None:
    try:
        return parsedate_to_datetime(response.header("date") or "").astimezone(UTC)
    except (ValueError, TypeError, IndexError):
        return None
