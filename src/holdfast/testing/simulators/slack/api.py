"""What every call at Slack has in common: tokens, tiers, warnings, pages; and what Slack sends by itself."""

import base64
import hmac
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from math import ceil
from random import Random
from string import ascii_uppercase, digits
from typing import ClassVar, Final, TypeVar, cast
from urllib.parse import parse_qs, urlencode

from holdfast.clock import Clock
from holdfast.testing.faults import Faults, Status, chance
from holdfast.testing.journal import Journal
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.forms import media_type, multipart, pairs
from holdfast.testing.simulators.rates import SlidingWindow
from holdfast.testing.simulators.simulator import Headers, Reply, Request, Response, Simulator, Webhook, route
from holdfast.testing.simulators.slack.workspace import LIMITS, TIERS, Channel, Limits, Thing

SCOPES: Final = (
    "app_mentions:read,channels:history,channels:join,channels:read,chat:write,chat:write.public,commands,files:read,"
    "files:write,groups:read,im:history,im:write,incoming-webhook,reactions:write,users:read,users:read.email"
)
LONGEST_TEXT: Final = 40_000
MOST_BLOCKS: Final = 50
MOST_ATTACHMENTS: Final = 100


class Refused(Exception):
    """Slack says no: nearly always with status 200."""

    def __init__(self, error: str, *, status: int = 200, headers: Headers = (), **more: object) -> None:
        super().__init__(error)
        self.response = Response.json({"ok": False, "error": error, **more}, status=status, headers=headers)


SlackT = TypeVar("SlackT", bound="SlackApi")
_Method = Callable[[SlackT, Request], Response]


def web_method(name: str, operation: str) -> Callable[[_Method[SlackT]], _Method[SlackT]]:
    """The method of the Web API of that name, by GET and by POST."""

    def mark(method_of: _Method[SlackT]) -> _Method[SlackT]:
        return route("GET", f"/api/{name}", operation)(route("POST", f"/api/{name}", operation)(method_of))

    return mark


class SlackApi(Simulator):
    """One workspace with one app installed, without what can be said in it."""

    vendor: ClassVar[str] = "slack"
    hosts: ClassVar[tuple[str, ...]] = ("slack.com", "www.slack.com", "hooks.slack.com", "files.slack.com")
    retries: ClassVar[tuple[float, ...]] = (0, 60, 300)
    patience: ClassVar[float] = 3
    schemes: ClassVar[tuple[str, str] | None] = ("v0", "v1")

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
        limits: Limits = LIMITS,
        token_life: int = 0,
    ) -> None:
        """`token_life` in seconds is for an app with token rotation; without, its token lives for ever."""
        super().__init__(
            seed=seed,
            ledger=ledger,
            faults=faults,
            clock=clock,
            journal=journal,
            webhook_secret=webhook_secret,
            webhook_url=webhook_url,
        )
        made_up = chance(seed, self.vendor, "app")
        self.webhook_secret = webhook_secret or f"{made_up.getrandbits(128):032x}"
        self.limits = limits
        self.token_life = token_life
        self.team, self.app, self.bot_user, self.bot = (f"{letter}{code(made_up)}" for letter in "TAUB")
        self.client_id = f"{made_up.randrange(10**12)}.{made_up.randrange(10**12)}"
        self.client_secret = f"{made_up.getrandbits(128):032x}"
        self.bot_token = f"xoxb-{made_up.randrange(10**12)}-{made_up.randrange(10**13)}-{made_up.getrandbits(96):024x}"
        self.refresh_token = f"xoxe-1-{made_up.getrandbits(256):064x}" if token_life else ""
        self.service = f"/services/{self.team}/{self.bot}/{made_up.getrandbits(96):024x}"
        """Where the incoming webhook is, on this vendor's address; it writes to `#general`."""
        self.verification_token = f"{made_up.getrandbits(96):024x}"
        self._forget()

    @property
    def credentials(self) -> Mapping[str, str]:
        return {
            "token": self.bot_token,
            "signing_secret": self.webhook_secret,
            "incoming_webhook": f"{self.base_url}{self.service}",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            **({"refresh_token": self.refresh_token} if self.refresh_token else {}),
        }

    @property
    def messages(self) -> list[Thing]:
        """Every message in the workspace, channel by channel."""
        return [message for channel in self.channels.values() for message in channel.messages]

    def reset(self) -> None:
        super().reset()
        self._forget()

    def sign(self, body: bytes, *, secret: str, at: datetime, url: str = "") -> Headers:
        """https://docs.slack.dev/authentication/verifying-requests-from-slack"""
        timestamp = str(int(at.timestamp()))
        mac = hmac.new(secret.encode(), b"v0:" + timestamp.encode() + b":" + body, "sha256")
        return (("x-slack-request-timestamp", timestamp), ("x-slack-signature", f"v0={mac.hexdigest()}"))

    def retry_after(self, number: int, reply: Reply) -> float | None:
        """A receiver that wants no more says so: https://docs.slack.dev/apis/events-api#turning-retries-off"""
        return None if reply.header("x-slack-no-retry") == "1" else super().retry_after(number, reply)

    def retry_headers(self, number: int, reply: Reply) -> Headers:
        """How often it was tried before, and what came of it."""
        reason = "http_timeout" if reply.failure == "timeout" else "connection_failed"
        if reply.status:
            reason = "http_error"
        return (("x-slack-retry-num", str(number)), ("x-slack-retry-reason", reason))

    def challenge(self) -> Webhook:
        """As when the endpoint's address is entered: https://docs.slack.dev/reference/events/url_verification"""
        text = f"{self.random().getrandbits(256):064x}"
        told = {"token": self.verification_token, "challenge": text, "type": "url_verification"}
        return self._webhook("url_verification", json.dumps(told).encode(), about=text, key="")

    def refute(self, challenge: Webhook, reply: Reply) -> str:
        """The challenge has to come back: alone, in a form, or in JSON."""
        if not reply.accepted:
            return f"it answered {reply.status}, not 200"
        return "" if challenge.about in _echoes(reply) else "the answer does not hold the challenge"

    def answer(self, request: Request) -> Response:
        name = request.path.removeprefix("/api/")
        try:
            self._throttle(name)
            response = super().answer(request)
        except Refused as refused:
            response = refused.response
        sent_as = request.header("content-type") or ""
        if request.path.startswith("/api/"):
            response = replace(response, headers=(*response.headers, *self._headers()))
            if media_type(request) == "application/json" and "charset" not in sent_as.lower():
                response = _warned(response, "missing_charset")
        return response

    def failure(self, fault: Status) -> Response:
        """429 says how long to wait in a header only; the rest is Slack's own trouble."""
        names = {429: "ratelimited", 503: "service_unavailable"}
        wait = fault.retry_after if fault.retry_after is not None else 30 if fault.status == 429 else None
        headers = () if wait is None else (("retry-after", f"{ceil(wait)}"),)
        error = {"ok": False, "error": names.get(fault.status, "internal_error")}
        return Response.json(error, status=fault.status, headers=(*headers, *self._headers()))

    def limited(self, wait: float) -> Response:
        """Whole seconds, rounded up, so that whoever waits as told is let through."""
        return self.failure(Status(429, retry_after=ceil(wait)))

    def expire(self, request: Request) -> bool:
        token = (request.header("authorization") or "").partition(" ")[2].strip() or str(asked_of(request).get("token"))
        is_ours = bool(self.token_life) and token in self._alive
        if is_ours:
            self._alive[token] = self.clock.monotonic()
        return is_ours

    def not_found(self, request: Request) -> Response:
        if not request.path.startswith("/api/"):
            return Response(status=404, headers=(("content-type", "text/html"),), body=b"no_service")
        raise Refused("unknown_method", req_method=request.path.removeprefix("/api/"))

    def add_channel(self, name: str, *, member: bool = True, archived: bool = False, private: bool = False) -> str:
        """A channel there is from now on; its id."""
        id = f"{'G' if private else 'C'}{code(self.random())}"
        self.channels[id] = Channel(
            id=id, name=name, created=self._unix(), is_member=member, is_archived=archived, is_private=private
        )
        return id

    def add_person(self, name: str, email: str = "") -> str:
        """Somebody who is in the workspace from now on; the id."""
        id = f"U{code(self.random())}"
        profile = {"real_name": name, "display_name": name, "email": email or f"{name}@example.com", "team": self.team}
        self.people[id] = {
            "id": id,
            "team_id": self.team,
            "name": name,
            "deleted": False,
            "real_name": name,
            "tz": "Europe/Zurich",
            "tz_label": "Central European Time",
            "tz_offset": 3600,
            "profile": profile,
            "is_admin": False,
            "is_owner": False,
            "is_primary_owner": False,
            "is_restricted": False,
            "is_ultra_restricted": False,
            "is_bot": False,
            "is_app_user": False,
            "updated": self._unix(),
        }
        return id

    def tick(self) -> None:
        """What was scheduled is written."""
        for id, (at, channel, content) in sorted(self.scheduled.items(), key=lambda item: item[1][0]):
            if at <= self._unix():
                del self.scheduled[id]
                self._post(channel, content, to=channel.id)

    def _forget(self) -> None:
        self.channels: dict[str, Channel] = {}
        self.people: dict[str, Thing] = {}
        self.scheduled: dict[str, tuple[int, Channel, Thing]] = {}
        """By id: when, where and what."""
        self.revoked = False
        life = self.token_life or float("inf")
        self._alive = {self.bot_token: self.clock.monotonic() + life}
        self._last_ts = 0
        self._calls: defaultdict[str, SlidingWindow] = defaultdict(self._no_window)
        self._posted: dict[str, SlidingWindow] = {}
        self.add_channel("general")
        self.add_channel("alerts")
        self.add_person("grace")

    def _no_window(self) -> SlidingWindow:
        return self.window(0)

    def _authorize(self, request: Request) -> Thing:
        """What is asked, by somebody who may ask."""
        asked = asked_of(request)
        kind, _, token = (request.header("authorization") or "").partition(" ")
        token = token.strip() if kind.lower() == "bearer" else str(asked.get("token") or "")
        if not token:
            raise Refused("not_authed")
        if self.revoked and token in self._alive:
            raise Refused("token_revoked")
        if token not in self._alive:
            raise Refused("invalid_auth")
        if self._alive[token] <= self.clock.monotonic():
            raise Refused("token_expired")
        return asked

    def _throttle(self, name: str) -> None:
        if name not in self._calls and name in TIERS:
            self._calls[name] = self.window(self.limits.of(TIERS[name]), 60)
        self._pass(self._calls[name])

    def _throttle_channel(self, channel: Channel) -> None:
        if channel.id not in self._posted:
            self._posted[channel.id] = self.window(self.limits.channel)
        self._pass(self._posted[channel.id])

    def _pass(self, window: SlidingWindow) -> None:
        if wait := window.wait():
            # Whole seconds, rounded up, so that whoever waits as told is let through.
            raise Refused("ratelimited", status=429, headers=(("retry-after", str(ceil(wait))),))
        window.take()

    def _channel(self, asked: str) -> Channel:
        """By id, or by name."""
        found = self.channels.get(asked)
        named = (channel for channel in self.channels.values() if asked and channel.name == asked.removeprefix("#"))
        found = found or next(named, None)
        if found is None:
            raise Refused("channel_not_found")
        return found

    def _writable(self, asked: str) -> Channel:
        """By id or name; a person's id is the conversation with that person."""
        if asked == self.bot_user:
            raise Refused("cannot_dm_bot")
        channel = self._direct(asked) if asked.startswith("U") else self._channel(asked)
        if channel.is_archived:
            raise Refused("is_archived")
        if not channel.is_member and channel.is_private:
            raise Refused("not_in_channel")
        return channel

    def _direct(self, person: str) -> Channel:
        if person not in self.people:
            raise Refused("user_not_found" if person.startswith("U") else "channel_not_found")
        for channel in self.channels.values():
            if channel.person == person:
                return channel
        id = f"D{code(self.random())}"
        self.channels[id] = Channel(id=id, name="directmessage", created=self._unix(), person=person)
        return self.channels[id]

    def _content(self, asked: Mapping[str, object]) -> Thing:
        """What a message says, where Slack can say it."""
        text = str(asked.get("text") or "")
        blocks, attachments = listed(asked, "blocks"), listed(asked, "attachments")
        if not (text or blocks or attachments):
            raise Refused("no_text")
        if len(blocks) > MOST_BLOCKS or any("type" not in cast(Thing, block) for block in blocks):
            raise Refused("invalid_blocks", errors=["a block has no type, or there are more than fifty"])
        if len(attachments) > MOST_ATTACHMENTS:
            raise Refused("too_many_attachments")
        content: Thing = {"text": text[:LONGEST_TEXT]}
        content |= {"blocks": blocks} if blocks else {}
        content |= {"attachments": attachments} if attachments else {}
        content |= {name: asked[name] for name in ("thread_ts",) if asked.get(name)}
        metadata = asked.get("metadata")
        metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
        return content | ({"metadata": metadata} if metadata else {})

    def _post(self, channel: Channel, content: Thing, *, to: str) -> Thing:
        if thread := content.get("thread_ts"):
            message_of(channel, str(thread), error="thread_not_found")
        message = {**self._from_bot(), "ts": self._ts(), **content}
        channel.messages.append(message)
        payload = cast(Thing, cast(Thing, content.get("metadata") or {}).get("event_payload") or {})
        facts = {"to": channel.person or channel.id, "text": str(content["text"])}
        key = str(payload.get("reference") or to)
        self.ledger.record(Kind.MESSAGE, vendor=self.vendor, id=f"{channel.id}/{message['ts']}", key=key, facts=facts)
        return message

    def _from_bot(self) -> Thing:
        return {
            "type": "message",
            "user": self.bot_user,
            "bot_id": self.bot,
            "app_id": self.app,
            "team": self.team,
            "bot_profile": {
                "id": self.bot,
                "app_id": self.app,
                "name": "simulated",
                "deleted": False,
                "icons": {f"image_{size}": f"{self.base_url}/icons/{size}.png" for size in (36, 48, 72)},
                "team_id": self.team,
                "updated": self._unix(),
            },
        }

    def _paged(
        self, asked: Thing, name: str, found: Sequence[object], *, more: bool = False, **besides: object
    ) -> Response:
        wanted = number(asked, "limit", 100)
        if not 1 <= wanted <= 1000:
            raise Refused("invalid_limit")
        limit = int(wanted)
        first = _cursor(str(asked.get("cursor") or ""))
        page, rest = found[first : first + limit], first + limit < len(found)
        after = base64.b64encode(f"next:{first + limit}".encode()).decode() if rest else ""
        besides |= {"has_more": rest} if more else {}
        return ok(**{name: page}, response_metadata={"next_cursor": after}, **besides)

    def _event(self, event: Thing, *, about: str) -> None:
        now = self._unix()
        told = {
            "token": self.verification_token,
            "team_id": self.team,
            "api_app_id": self.app,
            "event": {"event_ts": f"{now}.000000", **event},
            "type": "event_callback",
            "event_id": f"Ev{code(self.random())}",
            "event_time": now,
            "authorizations": [
                {
                    "enterprise_id": None,
                    "team_id": self.team,
                    "user_id": self.bot_user,
                    "is_bot": True,
                    "is_enterprise_install": False,
                }
            ],
            "authed_users": [self.bot_user],
            "is_ext_shared_channel": False,
            "event_context": f"4-{self.random().getrandbits(128):032x}",
        }
        body = json.dumps(told, separators=(",", ":")).encode()
        self._owe(str(event["type"]), body, about=about, key=str(event.get("channel", "")))

    def _owe(self, event: str, body: bytes, *, about: str, key: str, kind: str = "application/json") -> None:
        if self.webhook_url:
            self.owe(self._webhook(event, body, about=about, key=key, kind=kind))

    def _webhook(self, event: str, body: bytes, *, about: str, key: str, kind: str = "application/json") -> Webhook:
        headers = (("content-type", kind), ("user-agent", "Slackbot 1.0 (+https://api.slack.com/robots)"))
        return Webhook(
            vendor=self.vendor, url=self.webhook_url, event=event, about=about, key=key, body=body, headers=headers
        )

    def _owe_form(self, event: str, form: Mapping[str, str], *, about: str, key: str) -> None:
        kind = "application/x-www-form-urlencoded"
        self._owe(event, urlencode(form).encode(), about=about, key=key, kind=kind)

    def _headers(self) -> Headers:
        return (("x-slack-req-id", f"{self.random().getrandbits(128):032x}"), ("x-oauth-scopes", SCOPES))

    def _ts(self) -> str:
        """A time no other message has: it is the message's id."""
        self._last_ts = max(self._last_ts + 1, int(self.clock.now().timestamp() * 1_000_000))
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"

    def _unix(self) -> int:
        return int(self.clock.now().timestamp())


def number(asked: Thing, name: str, default: float) -> float:
    """The argument as a number.

    Raises:
        Refused: It is none.
    """
    try:
        return float(asked.get(name) or default)
    except (TypeError, ValueError):
        raise Refused("invalid_arguments", response_metadata={"messages": [f"[ERROR] {name}"]}) from None


def asked_of(request: Request) -> Thing:
    """The arguments: JSON, a form, a form with files, or the query."""
    kind = media_type(request)
    if kind == "multipart/form-data":
        return dict(multipart(request)[0])
    asked: Thing = dict(pairs(request))
    if kind == "application/json" and request.body:
        try:
            body: object = json.loads(request.body)
        except ValueError:
            raise Refused("invalid_json") from None
        if not isinstance(body, dict):
            raise Refused("json_not_object")
        asked |= cast(Thing, body)
    return asked


def listed(asked: Mapping[str, object], name: str) -> list[object]:
    """A list; in a form it is JSON."""
    value = asked.get(name)
    if not value:
        return []
    try:
        found: object = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise Refused(f"invalid_{name}_format" if name == "blocks" else f"invalid_{name}")
    return cast(list[object], found)


def message_of(channel: Channel, ts: str, *, error: str = "message_not_found") -> Thing:
    for message in channel.messages:
        if message["ts"] == ts:
            return message
    raise Refused(error)


def _cursor(text: str) -> int:
    try:
        return int(base64.b64decode(text, validate=True).decode().removeprefix("next:")) if text else 0
    except ValueError:
        raise Refused("invalid_cursor") from None


def ok(**more: object) -> Response:
    return Response.json({"ok": True, **more})


def plain(text: str, status: int) -> Response:
    return Response(status=status, headers=(("content-type", "text/html"),), body=text.encode())


def _warned(response: Response, warning: str) -> Response:
    said = cast(Thing, json.loads(response.body))
    said["warning"] = warning
    said["response_metadata"] = {**cast(Thing, said.get("response_metadata") or {}), "warnings": [warning]}
    return replace(response, body=json.dumps(said, separators=(",", ":")).encode())


def code(random: Random) -> str:
    return "".join(random.choices(ascii_uppercase + digits, k=10))


def _echoes(reply: Reply) -> tuple[str, ...]:
    """What the answer may mean by the challenge."""
    text = reply.body.decode("utf-8", "replace")
    found = [text.strip(), *parse_qs(text).get("challenge", ())]
    try:
        value: object = json.loads(text)
    except ValueError:
        return tuple(found)
    return (*found, str(cast(Thing, value).get("challenge"))) if isinstance(value, dict) else tuple(found)
