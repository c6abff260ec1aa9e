"""Zoom, simulated: one token at a time, a hundred creations per host and day, lists that cut off agendas."""

import hmac
from base64 import b64decode
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import ClassVar
from urllib.parse import parse_qs, unquote

from holdfast.clock import Clock
from holdfast.testing.faults import Faults
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.simulator import Headers, Reply, Request, Response, Simulator, Webhook, route

LISTED_AGENDA = 250


@dataclass(kw_only=True)
class Meeting:
    """A meeting as this account holds it."""

    id: int
    uuid: str
    host: str
    password: str
    created_at: datetime
    facts: dict[str, object]
    """As asked for: topic, agenda, start_time, duration, settings, and the rest."""
    started: bool = False
    deleted: bool = False
    participants: list[str] = field(default_factory=list[str])

    @property
    def start_time(self) -> datetime | None:
        text = self.facts.get("start_time")
        return datetime.fromisoformat(str(text)) if text else None

    def listed(self, base_url: str) -> dict[str, object]:
        """As in a list: no host's link, no passcode, and not all of the agenda."""
        shown = {name: self.facts.get(name) for name in ("topic", "type", "start_time", "duration", "timezone")}
        return {
            **{name: value for name, value in shown.items() if value is not None},
            "id": self.id,
            "uuid": self.uuid,
            "host_id": self.host,
            "agenda": str(self.facts.get("agenda", ""))[:LISTED_AGENDA],
            "created_at": _zulu(self.created_at),
            "join_url": f"{base_url}/j/{self.id}?pwd={self.password}",
        }

    def whole(self, base_url: str, zak: str) -> dict[str, object]:
        """As created and read."""
        return {
            **self.listed(base_url),
            **self.facts,
            "status": "started" if self.started else "waiting",
            "password": self.password,
            "start_url": f"{base_url}/s/{self.id}?zak={zak}",
        }


class ZoomSimulator(Simulator):
    """A Zoom account with a Server-to-Server OAuth app; the API is under `/v2`, tokens under `/oauth/token`.

    In the ledger, a meeting's key is its topic, the one thing about the booking that Zoom is told; the agenda's first
    line is among the facts.
    """

    vendor: ClassVar[str] = "zoom"
    hosts: ClassVar[tuple[str, ...]] = ("api.zoom.us", "zoom.us")
    retries: ClassVar[tuple[float, ...]] = (300, 1200, 3600)
    patience: ClassVar[float] = 3
    schemes: ClassVar[tuple[str, str] | None] = ("v0", "v1")
    account_id: ClassVar[str] = "zoom-account"
    client_id: ClassVar[str] = "zoom-client"
    client_secret: ClassVar[str] = "zoom-client-secret"

    def __init__(
        self,
        *,
        seed: int = 0,
        ledger: Ledger | None = None,
        faults: Faults | None = None,
        clock: Clock | None = None,
        journal: Journal | None = None,
        webhook_secret: str = "",
        webhook_url: str = "",
        quota: int = 100,
        token_life: int = 3600,
        hosts: frozenset[str] | None = None,
    ) -> None:
        """`quota` is per host and day; `hosts` are the users there are, by default any."""
        super().__init__(
            seed=seed,
            ledger=ledger,
            faults=faults,
            clock=clock,
            journal=journal,
            webhook_secret=webhook_secret,
            webhook_url=webhook_url,
        )
        self.quota = quota
        self.token_life = token_life
        self.users = hosts
        self.meetings: dict[int, Meeting] = {}
        self.tokens_issued = 0
        self._token = ""
        self._token_until = self.clock.now()
        self._spent: Counter[tuple[str, str]] = Counter()

    @property
    def live(self) -> list[Meeting]:
        """Meetings that were not deleted."""
        return [meeting for meeting in self.meetings.values() if not meeting.deleted]

    @property
    def credentials(self) -> Mapping[str, str]:
        return {
            "account_id": self.account_id,
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "webhook_secret": self.webhook_secret,
            "host": "host@example.org",
        }

    def reset(self) -> None:
        super().reset()
        self.meetings.clear()
        self.tokens_issued, self._token = 0, ""
        self._spent.clear()

    def sign(self, body: bytes, *, secret: str, at: datetime, url: str = "") -> Headers:
        """https://developers.zoom.us/docs/api/webhooks/#verify-webhook-events"""
        timestamp = str(int(at.timestamp()))
        mac = hmac.new(secret.encode(), b"v0:" + timestamp.encode() + b":" + body, "sha256")
        return (("x-zm-request-timestamp", timestamp), ("x-zm-signature", f"v0={mac.hexdigest()}"))

    def not_found(self, request: Request) -> Response:
        # Zoom's edge answers what it does not know in XML.
        return Response(status=404, headers=(("content-type", "application/xml"),), body=b"<error>no such API</error>")

    # OAuth.

    @route("POST", "/oauth/token", "token")
    def issue(self, request: Request) -> Response:
        """A new token; the one before is worth nothing from now on."""
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()} | request.query
        if form.get("grant_type") != "account_credentials" or form.get("account_id") != self.account_id:
            return Response.json({"reason": "unsupported grant type", "error": "unsupported_grant_type"}, status=400)
        if _basic(request.header("authorization")) != f"{self.client_id}:{self.client_secret}":
            return Response.json(
                {"reason": "Invalid client_id or client_secret", "error": "invalid_client"}, status=400
            )
        self.tokens_issued += 1
        self._token = f"zoom-token-{self.tokens_issued}-{self.random().getrandbits(128):032x}"
        self._token_until = self.clock.now() + timedelta(seconds=self.token_life)
        return Response.json(
            {
                "access_token": self._token,
                "token_type": "bearer",
                "expires_in": self.token_life,
                "scope": "meeting:read:meeting:admin meeting:write:meeting:admin",
                "api_url": self.base_url,
            }
        )

    def expire(self, request: Request) -> bool:
        is_ours = bool(self._token) and request.header("authorization") == f"Bearer {self._token}"
        if is_ours:
            self._token_until = self.clock.now()
        return is_ours

    def revoke(self) -> None:
        """End the life of the current token, as somebody else's token request would."""
        self._token = ""

    # Meetings.

    @route("POST", "/v2/users/{user}/meetings", "meetings.create")
    def create(self, request: Request) -> Response:
        host = unquote(request.params["user"])
        if refusal := self._unauthorized(request) or self._unknown_host(host) or self._over_quota(host):
            return refusal
        facts = request.json()
        if wrong := _invalid(facts):
            return self._answer({"code": 300, "message": "Validation Failed.", "errors": wrong}, status=400)
        meeting = self._new(host, facts)
        self.meetings[meeting.id] = meeting
        self.ledger.record(
            Kind.MEETING,
            vendor=self.vendor,
            id=str(meeting.id),
            key=str(facts.get("topic", "Zoom Meeting")),
            facts={"host": host, "agenda": str(facts.get("agenda", "")).partition("\n")[0]},
        )
        self._tell("meeting.created", meeting, {**meeting.listed(self.base_url), "id": meeting.id})
        return self._answer(meeting.whole(self.base_url, self._zak()), status=201)

    @route("GET", "/v2/users/{user}/meetings", "meetings.find")
    def list(self, request: Request) -> Response:
        """Unexpired scheduled meetings, in pages."""
        host = unquote(request.params["user"])
        if refusal := self._unauthorized(request) or self._unknown_host(host):
            return refusal
        asked = request.query
        found = [meeting for meeting in self.live if meeting.host == host and _within(meeting, asked)]
        size, first = min(int(asked.get("page_size", "30")), 300), int(asked.get("next_page_token") or 0)
        page = [meeting.listed(self.base_url) for meeting in found[first : first + size]]
        more = str(first + size) if first + size < len(found) else ""
        return self._answer({"page_size": size, "total_records": len(found), "next_page_token": more, "meetings": page})

    @route("GET", "/v2/meetings/{meeting}", "meetings.get")
    def get(self, request: Request) -> Response:
        found = self._existing(request)
        return found if isinstance(found, Response) else self._answer(found.whole(self.base_url, self._zak()))

    @route("PATCH", "/v2/meetings/{meeting}", "meetings.update")
    def update(self, request: Request) -> Response:
        found = self._existing(request)
        if isinstance(found, Response):
            return found
        if refusal := self._over_quota(found.host):
            return refusal
        found.facts.update(request.json())
        self._tell("meeting.updated", found, {"id": found.id, **request.json()})
        return self._answer(None, status=204)

    @route("DELETE", "/v2/meetings/{meeting}", "meetings.delete")
    def delete(self, request: Request) -> Response:
        found = self._existing(request)
        if isinstance(found, Response):
            return found
        found.deleted = True
        key = str(found.facts.get("topic", "Zoom Meeting"))
        self.ledger.record(Kind.MEETING_DELETED, vendor=self.vendor, id=str(found.id), key=key)
        self._tell("meeting.deleted", found, {**found.listed(self.base_url), "id": found.id})
        return self._answer(None, status=204)

    # What people do.

    def start(self, meeting: int) -> None:
        """The host opens the meeting. Raises KeyError: there is none of this id."""
        found = self.meetings[meeting]
        found.started = True
        self._tell("meeting.started", found, {**_run(found), "start_time": _zulu(self.clock.now())})

    def join(self, meeting: int, name: str) -> None:
        """Somebody comes in."""
        found = self.meetings[meeting]
        found.participants.append(name)
        self._tell("meeting.participant_joined", found, {**_run(found), "participant": self._participant(found, name)})

    def leave(self, meeting: int, name: str) -> None:
        """Somebody goes."""
        found = self.meetings[meeting]
        self._tell("meeting.participant_left", found, {**_run(found), "participant": self._participant(found, name)})

    def end(self, meeting: int) -> None:
        """The meeting is over; its link would open it again."""
        found = self.meetings[meeting]
        found.started = False
        self._tell("meeting.ended", found, {**_run(found), "end_time": _zulu(self.clock.now())})

    def validate_url(self) -> str:
        """Ask the receiver to prove that it knows the secret; the plain token, whose proof is the answer."""
        challenge = self.challenge()
        if challenge.url:
            self.owe(challenge)
        return challenge.about

    def challenge(self) -> Webhook:
        """https://developers.zoom.us/docs/api/webhooks/#validate-your-webhook-endpoint"""
        plain = f"{self.random().getrandbits(128):032x}"
        return self._webhook("endpoint.url_validation", {"plainToken": plain}, about=plain, key="")

    def refute(self, challenge: Webhook, reply: Reply) -> str:
        """The token has to come back, and its HMAC with the secret the challenge was signed with."""
        if reply.status != 200:
            return f"it answered {reply.status}, not 200"
        answer = Request(method="POST", target="", body=reply.body).json()
        if answer.get("plainToken") != challenge.about:
            return "plainToken in the answer is not the one it was asked with"
        mac = hmac.new(self.webhook_secret.encode(), challenge.about.encode(), "sha256").hexdigest()
        right = hmac.compare_digest(str(answer.get("encryptedToken")).encode(), mac.encode())
        return "" if right else "encryptedToken in the answer is not the HMAC of plainToken with the secret token"

    # Small things.

    def _new(self, host: str, facts: dict[str, object]) -> Meeting:
        random = self.random()
        number = random.randrange(10**10, 10**11)
        while number in self.meetings:
            number = random.randrange(10**10, 10**11)
        return Meeting(
            id=number,
            uuid=f"{random.getrandbits(64):016x}==",
            host=host,
            password=f"{random.getrandbits(32):08x}",
            created_at=self.clock.now(),
            facts=facts,
        )

    def _unauthorized(self, request: Request) -> Response | None:
        if self._token and request.header("authorization") == f"Bearer {self._token}":
            if self.clock.now() < self._token_until:
                return None
            return self._answer({"code": 124, "message": "Access token is expired."}, status=401)
        return self._answer({"code": 124, "message": "Invalid access token."}, status=401)

    def _unknown_host(self, host: str) -> Response | None:
        if self.users is None or host in self.users:
            return None
        return self._answer({"code": 1001, "message": f"User does not exist: {host}."}, status=404)

    def _over_quota(self, host: str) -> Response | None:
        today = (host, f"{self.clock.now().astimezone(UTC):%Y-%m-%d}")
        if self._spent[today] < self.quota:
            self._spent[today] += 1
            return None
        self.faults.count(self.vendor, "host_quota")
        text = (
            f"You have exceeded the daily rate limit ({self.quota}) of Meeting Create/Update API requests permitted "
            "for this particular user. You may resume these requests at GMT 00:00:00."
        )
        # These headers speak of another limit, which is far from spent. https://devforum.zoom.us/t/18928
        misleading = (
            ("x-ratelimit-category", "Light"),
            ("x-ratelimit-limit", "6000"),
            ("x-ratelimit-remaining", "5893"),
        )
        return self._answer({"code": 429, "message": text}, status=429, headers=misleading)

    def _existing(self, request: Request) -> Meeting | Response:
        if refusal := self._unauthorized(request):
            return refusal
        number = request.params["meeting"]
        found = self.meetings.get(int(number)) if number.isdigit() else None
        if found is None or found.deleted:
            return self._answer({"code": 3001, "message": f"Meeting does not exist: {number}."}, status=404)
        return found

    def _participant(self, meeting: Meeting, name: str) -> dict[str, object]:
        number = meeting.participants.index(name)
        now = _zulu(self.clock.now())
        return {"user_id": str(16778240 + number), "user_name": name, "join_time": now, "email": ""}

    def _zak(self) -> str:
        return f"{self.random().getrandbits(256):064x}"

    def _answer(self, data: object, *, status: int = 200, headers: Headers = ()) -> Response:
        number = f"v=2.0;clid=us02;rid=WEB_{self.random().getrandbits(64):016x}"
        date = format_datetime(self.clock.now().astimezone(UTC), usegmt=True)
        headers = (*headers, ("x-zm-trackingid", number), ("date", date))
        return (
            Response(status=status, headers=headers)
            if data is None
            else Response.json(data, status=status, headers=headers)
        )

    def _tell(self, event: str, meeting: Meeting, about: Mapping[str, object]) -> None:
        payload = {"account_id": self.account_id, "object": about}
        self._owe(event, payload, about=str(meeting.id), key=str(meeting.facts.get("topic", "Zoom Meeting")))

    def _owe(self, event: str, payload: Mapping[str, object], *, about: str, key: str) -> None:
        if self.webhook_url:
            self.owe(self._webhook(event, payload, about=about, key=key))

    def _webhook(self, event: str, payload: Mapping[str, object], *, about: str, key: str) -> Webhook:
        at = int(self.clock.now().timestamp() * 1000)
        body = Response.json({"event": event, "event_ts": at, "payload": payload}).body
        return Webhook(vendor=self.vendor, url=self.webhook_url, event=event, about=about, key=key, body=body)


def _run(meeting: Meeting) -> dict[str, object]:
    """In events of a running meeting the id is a text."""
    topic = str(meeting.facts.get("topic", "Zoom Meeting"))
    return {"id": str(meeting.id), "uuid": meeting.uuid, "host_id": meeting.host, "topic": topic}


def _invalid(facts: Mapping[str, object]) -> list[dict[str, str]]:
    """What Zoom complains about, of what it checks."""
    wrong: list[dict[str, str]] = []
    if facts.get("type", 2) not in (1, 2, 3, 8, 10):
        wrong.append({"field": "type", "message": "Invalid field."})
    if len(str(facts.get("agenda", ""))) > 2000:
        wrong.append({"field": "agenda", "message": "Invalid field."})
    if len(str(facts.get("topic", ""))) > 200:
        wrong.append({"field": "topic", "message": "Invalid field."})
    try:
        datetime.strptime(str(facts.get("start_time", "2026-01-01T00:00:00Z")).removesuffix("Z"), "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        wrong.append({"field": "start_time", "message": "Invalid field."})
    return wrong


def _within(meeting: Meeting, asked: Mapping[str, str]) -> bool:
    start = meeting.start_time
    day = f"{start:%Y-%m-%d}" if start else ""
    return not day or asked.get("from", "") <= day <= asked.get("to", "9999")


def _basic(header: str | None) -> str:
    kind, _, encoded = (header or "").partition(" ")
    try:
        return b64decode(encoded).decode() if kind.lower() == "basic" else ""
    except ValueError:
        return ""


def _zulu(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
