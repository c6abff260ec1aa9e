"""Slack, simulated: a workspace with channels and people, the Web API of one app, its incoming webhook, its events."""

import base64
import hmac
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import ceil
from random import Random
from string import ascii_uppercase, digits
from typing import Any, ClassVar, Final, TypeVar, cast
from urllib.parse import urlencode

from holdfast.clock import Clock
from holdfast.testing.faults import Faults, Status, chance
from holdfast.testing.ledger import Kind, Ledger
from holdfast.testing.simulators.forms import media_type, multipart, pairs
from holdfast.testing.simulators.rates import SlidingWindow
from holdfast.testing.simulators.simulator import Headers, Request, Response, Simulator, Webhook, route

SCOPES: Final = (
    "app_mentions:read,channels:history,channels:join,channels:read,chat:write,chat:write.public,commands,groups:read,"
    "im:history,im:write,incoming-webhook,reactions:write,users:read,users:read.email"
)
LONGEST_TEXT: Final = 40_000
MOST_BLOCKS: Final = 50
MOST_ATTACHMENTS: Final = 100
TIERS: Final[Mapping[str, int]] = {
    "chat.delete": 3,
    "chat.deleteScheduledMessage": 3,
    "chat.scheduledMessages.list": 3,
    "chat.scheduleMessage": 3,
    "chat.update": 3,
    "conversations.history": 3,
    "conversations.info": 3,
    "conversations.join": 3,
    "conversations.list": 2,
    "conversations.members": 4,
    "conversations.open": 3,
    "conversations.replies": 3,
    "reactions.add": 3,
    "users.info": 4,
    "users.list": 2,
    "users.lookupByEmail": 3,
}
"""The tier of each limited method; `chat.postMessage` has a limit of its own, the others none worth naming."""

Thing = dict[str, Any]
"""An object as Slack writes it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Calls let through within any minute by tier, and messages within any second by channel; zero: no limit."""

    tier1: int = 1
    tier2: int = 20
    tier3: int = 50
    tier4: int = 100
    channel: int = 1

    def of(self, tier: int) -> int:
        """Calls a minute."""
        return (0, self.tier1, self.tier2, self.tier3, self.tier4)[tier]


@dataclass(kw_only=True, slots=True)
class Channel:
    """A place to write to: a channel, or the conversation with one person."""

    id: str
    name: str
    created: int
    person: str = ""
    """Whom it is with, where it is a direct conversation."""
    is_member: bool = True
    is_archived: bool = False
    is_private: bool = False
    messages: list[Thing] = field(default_factory=list[Thing])

    def to_json(self) -> Thing:
        """As in a list."""
        shown: Thing = {"id": self.id, "created": self.created, "is_archived": self.is_archived}
        if self.person:
            return {**shown, "is_im": True, "is_org_shared": False, "user": self.person, "is_user_deleted": False}
        text = {"creator": "", "last_set": 0, "value": ""}
        return {
            **shown,
            "creator": "U00000000",
            "is_channel": not self.is_private,
            "is_ext_shared": False,
            "is_general": self.name == "general",
            "is_group": self.is_private,
            "is_im": False,
            "is_member": self.is_member,
            "is_mpim": False,
            "is_org_shared": False,
            "is_pending_ext_shared": False,
            "is_private": self.is_private,
            "is_shared": False,
            "name": self.name,
            "name_normalized": self.name,
            "num_members": 3,
            "pending_shared": [],
            "previous_names": [],
            "purpose": text,
            "topic": text,
            "unlinked": 0,
        }


class Refused(Exception):
    """Slack says no: nearly always with status 200."""

    def __init__(self, error: str, *, status: int = 200, headers: Headers = (), **more: object) -> None:
        super().__init__(error)
        self.response = Response.json({"ok": False, "error": error, **more}, status=status, headers=headers)


SlackT = TypeVar("SlackT", bound="SlackSimulator")
_Method = Callable[[SlackT, Request], Response]


def web_method(name: str, operation: str) -> Callable[[_Method[SlackT]], _Method[SlackT]]:
    """The method of the Web API of that name, by GET and by POST."""

    def mark(method_of: _Method[SlackT]) -> _Method[SlackT]:
        return route("GET", f"/api/{name}", operation)(route("POST", f"/api/{name}", operation)(method_of))

    return mark


class SlackSimulator(Simulator):
    """One workspace with one app installed; the Web API is under `/api/`, the incoming webhook under `/services/`.

    There are the channels `general` and `alerts`, one person, and whatever `add_channel` and `add_person` add. In the
    ledger a message's key is `reference` in its metadata's payload, or the channel or person it was sent to. With a
    `webhook_url` what people do owes an event.
    """

    vendor: ClassVar[str] = "slack"
    retries: ClassVar[tuple[float, ...]] = (0, 60, 300)

    def __init__(
        self,
        *,
        seed: int = 0,
        ledger: Ledger | None = None,
        faults: Faults | None = None,
        clock: Clock | None = None,
        webhook_secret: str = "",
        webhook_url: str = "",
        limits: Limits = Limits(),
        token_life: int = 0,
    ) -> None:
        """`token_life` in seconds is for an app with token rotation; without, its token lives for ever."""
        super().__init__(
            seed=seed,
            ledger=ledger,
            faults=faults,
            clock=clock,
            webhook_secret=webhook_secret,
            webhook_url=webhook_url,
        )
        made_up = chance(seed, self.vendor, "app")
        self.webhook_secret = webhook_secret or f"{made_up.getrandbits(128):032x}"
        self.limits = limits
        self.token_life = token_life
        self.team, self.app, self.bot_user, self.bot = (f"{letter}{_code(made_up)}" for letter in "TAUB")
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

    # Webhooks

    def sign(self, body: bytes, *, secret: str, at: datetime, url: str = "") -> Headers:
        """https://docs.slack.dev/authentication/verifying-requests-from-slack"""
        timestamp = str(int(at.timestamp()))
        mac = hmac.new(secret.encode(), b"v0:" + timestamp.encode() + b":" + body, "sha256")
        return (("x-slack-request-timestamp", timestamp), ("x-slack-signature", f"v0={mac.hexdigest()}"))

    def retry_headers(self, number: int, status: int) -> Headers:
        """How often it was tried before, and what came of it."""
        reason = "http_error" if status else "connection_failed"
        return (("x-slack-retry-num", str(number)), ("x-slack-retry-reason", reason))

    # Every call

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

    def not_found(self, request: Request) -> Response:
        if not request.path.startswith("/api/"):
            return Response(status=404, headers=(("content-type", "text/html"),), body=b"no_service")
        raise Refused("unknown_method", req_method=request.path.removeprefix("/api/"))

    # The Web API

    @web_method("api.test", "api.test")
    def test_api(self, request: Request) -> Response:
        asked = _asked(request)
        if asked.get("error"):
            raise Refused(str(asked["error"]), args=asked)
        return _ok(args=asked)

    @web_method("auth.test", "auth.test")
    def test_auth(self, request: Request) -> Response:
        self._authorize(request)
        return _ok(
            url="https://simulated.slack.com/",
            team="Simulated",
            user="simulated_bot",
            team_id=self.team,
            user_id=self.bot_user,
            bot_id=self.bot,
            is_enterprise_install=False,
        )

    @web_method("auth.revoke", "auth.revoke")
    def revoke(self, request: Request) -> Response:
        asked = self._authorize(request)
        if asked.get("test") not in ("1", "true", True):
            self.revoke_token()
        return _ok(revoked=self.revoked)

    @web_method("oauth.v2.access", "token")
    def rotate_token(self, request: Request) -> Response:
        """A new token for the refresh token; the one before works until it expires."""
        asked = _asked(request)
        given = (asked.get("client_id"), asked.get("client_secret"))
        if request.header("authorization"):
            given = _basic(request)
        if given != (self.client_id, self.client_secret):
            raise Refused("bad_client_secret" if given[0] == self.client_id else "invalid_client_id")
        if asked.get("grant_type") != "refresh_token" or not self.token_life:
            raise Refused("invalid_grant_type" if self.token_life else "token_rotation_not_enabled")
        if asked.get("refresh_token") != self.refresh_token:
            raise Refused("invalid_refresh_token")
        random = self.random()
        self.bot_token = f"xoxe.xoxb-1-{random.getrandbits(256):064x}"
        self.refresh_token = f"xoxe-1-{random.getrandbits(256):064x}"
        self._alive[self.bot_token] = self.clock.monotonic() + self.token_life
        return _ok(
            access_token=self.bot_token,
            refresh_token=self.refresh_token,
            expires_in=self.token_life,
            token_type="bot",  # a kind of token
            scope=SCOPES,
            bot_user_id=self.bot_user,
            app_id=self.app,
            team={"id": self.team, "name": "Simulated"},
            enterprise=None,
            is_enterprise_install=False,
        )

    @web_method("chat.postMessage", "messages.send")
    def post_message(self, request: Request) -> Response:
        asked = self._authorize(request)
        channel = self._writable(str(asked.get("channel", "")))
        self._throttle_channel(channel)
        message = self._post(channel, self._content(asked), to=str(asked["channel"]))
        return _ok(channel=channel.id, ts=message["ts"], message=message)

    @web_method("chat.postEphemeral", "messages.send")
    def post_ephemeral(self, request: Request) -> Response:
        """Seen by one person, kept by nobody."""
        asked = self._authorize(request)
        self._writable(str(asked.get("channel", "")))
        if str(asked.get("user", "")) not in self.people:
            raise Refused("user_not_in_channel")
        self._content(asked)
        return _ok(message_ts=self._ts())

    @web_method("chat.update", "messages.update")
    def update_message(self, request: Request) -> Response:
        asked = self._authorize(request)
        channel = self._channel(str(asked.get("channel", "")))
        message = _message(channel, str(asked.get("ts", "")))
        if message.get("bot_id") != self.bot:
            raise Refused("cant_update_message")
        content = self._content(asked)
        message.update(content, edited={"user": self.bot_user, "ts": self._ts()})
        return _ok(channel=channel.id, ts=message["ts"], text=message["text"], message=message)

    @web_method("chat.delete", "messages.delete")
    def delete_message(self, request: Request) -> Response:
        asked = self._authorize(request)
        channel = self._channel(str(asked.get("channel", "")))
        message = _message(channel, str(asked.get("ts", "")))
        if message.get("bot_id") != self.bot:
            raise Refused("cant_delete_message")
        channel.messages.remove(message)
        return _ok(channel=channel.id, ts=message["ts"])

    @web_method("chat.getPermalink", "messages.fetch")
    def permalink(self, request: Request) -> Response:
        asked = self._authorize(request)
        channel = self._channel(str(asked.get("channel", "")))
        ts = _message(channel, str(asked.get("message_ts", "")))["ts"]
        link = f"https://simulated.slack.com/archives/{channel.id}/p{ts.replace('.', '')}"
        return _ok(channel=channel.id, permalink=link)

    @web_method("chat.scheduleMessage", "messages.schedule")
    def schedule_message(self, request: Request) -> Response:
        asked = self._authorize(request)
        channel, at = self._writable(str(asked.get("channel", ""))), str(asked.get("post_at", ""))
        if not at.isdigit():
            raise Refused("invalid_time")
        if not self._unix() < int(at) <= self._unix() + 120 * 86_400:
            raise Refused("time_in_past" if int(at) <= self._unix() else "time_too_far")
        content, id = self._content(asked), f"Q{_code(self.random())}"
        self.scheduled[id] = (int(at), channel, content)
        message = {**self._from_bot(), **content, "type": "delayed_message"}
        return _ok(channel=channel.id, scheduled_message_id=id, post_at=int(at), message=message)

    @web_method("chat.scheduledMessages.list", "messages.find")
    def list_scheduled(self, request: Request) -> Response:
        asked = self._authorize(request)
        found: list[Thing] = [
            {"id": id, "channel_id": channel.id, "post_at": at, "date_created": self._unix(), "text": content["text"]}
            for id, (at, channel, content) in self.scheduled.items()
            if asked.get("channel") in (None, channel.id)
        ]
        return self._paged(asked, "scheduled_messages", found)

    @web_method("chat.deleteScheduledMessage", "messages.delete")
    def delete_scheduled(self, request: Request) -> Response:
        asked = self._authorize(request)
        if self.scheduled.pop(str(asked.get("scheduled_message_id", "")), None) is None:
            raise Refused("invalid_scheduled_message_id")
        return _ok()

    @web_method("conversations.list", "channels.find")
    def list_channels(self, request: Request) -> Response:
        asked = self._authorize(request)
        kinds = str(asked.get("types") or "public_channel").replace(" ", "").split(",")
        hides = asked.get("exclude_archived") in ("1", "true", True)
        found = [
            channel.to_json()
            for channel in self.channels.values()
            if _kind(channel) in kinds and not (hides and channel.is_archived)
        ]
        return self._paged(asked, "channels", found)

    @web_method("conversations.info", "channels.fetch")
    def channel_info(self, request: Request) -> Response:
        asked = self._authorize(request)
        return _ok(channel=self._channel(str(asked.get("channel", ""))).to_json())

    @web_method("conversations.members", "channels.fetch")
    def channel_members(self, request: Request) -> Response:
        asked = self._authorize(request)
        channel = self._channel(str(asked.get("channel", "")))
        members = [channel.person] if channel.person else list(self.people)
        return self._paged(asked, "members", [*members, *([self.bot_user] if channel.is_member else [])])

    @web_method("conversations.join", "channels.join")
    def join_channel(self, request: Request) -> Response:
        asked = self._authorize(request)
        channel = self._channel(str(asked.get("channel", "")))
        if channel.is_archived:
            raise Refused("is_archived")
        channel.is_member = True
        return _ok(channel=channel.to_json())

    @web_method("conversations.open", "channels.open")
    def open_conversation(self, request: Request) -> Response:
        """With one person; opening it again finds it."""
        asked = self._authorize(request)
        person = str(asked.get("users") or "")
        if not person:
            raise Refused("users_list_not_supplied")
        known = any(channel.person == person for channel in self.channels.values())
        channel = self._direct(person)
        found = {"id": channel.id} if asked.get("return_im") not in ("1", "true", True) else channel.to_json()
        return _ok(channel=found, **({"no_op": True, "already_open": True} if known else {}))

    @web_method("conversations.history", "messages.find")
    def history(self, request: Request) -> Response:
        """Newest first, without what was said in threads."""
        asked = self._authorize(request)
        channel = self._channel(str(asked.get("channel", "")))
        oldest, latest = float(asked.get("oldest") or 0), float(asked.get("latest") or "inf")
        inclusive = asked.get("inclusive") in ("1", "true", True)
        found = [
            message
            for message in reversed(channel.messages)
            if message.get("thread_ts") in (None, message["ts"])
            and (oldest < float(message["ts"]) < latest or (inclusive and float(message["ts"]) in (oldest, latest)))
        ]
        return self._paged(asked, "messages", found, more=True)

    @web_method("conversations.replies", "messages.find")
    def replies(self, request: Request) -> Response:
        """The thread, oldest first."""
        asked = self._authorize(request)
        channel, ts = self._channel(str(asked.get("channel", ""))), str(asked.get("ts", ""))
        found = [one for one in channel.messages if ts in (one["ts"], one.get("thread_ts"))]
        if not found:
            raise Refused("thread_not_found")
        return self._paged(asked, "messages", found, more=True)

    @web_method("reactions.add", "messages.update")
    def react(self, request: Request) -> Response:
        asked = self._authorize(request)
        message = _message(self._channel(str(asked.get("channel", ""))), str(asked.get("timestamp", "")))
        reactions = cast(list[Thing], message.setdefault("reactions", []))
        if any(one["name"] == asked.get("name") for one in reactions):
            raise Refused("already_reacted")
        reactions.append({"name": asked.get("name"), "users": [self.bot_user], "count": 1})
        return _ok()

    @web_method("users.list", "people.find")
    def list_people(self, request: Request) -> Response:
        return self._paged(self._authorize(request), "members", list(self.people.values()))

    @web_method("users.info", "people.fetch")
    def person_info(self, request: Request) -> Response:
        asked = self._authorize(request)
        found = self.people.get(str(asked.get("user", "")))
        if found is None:
            raise Refused("user_not_found")
        return _ok(user=found)

    @web_method("users.lookupByEmail", "people.fetch")
    def person_by_email(self, request: Request) -> Response:
        asked = self._authorize(request)
        for person in self.people.values():
            if asked.get("email") == person["profile"]["email"]:
                return _ok(user=person)
        raise Refused("users_not_found")

    @route("POST", "/services/{team}/{bot}/{secret}", "messages.send")
    def incoming_webhook(self, request: Request) -> Response:
        """Answers in plain text; what it wrote cannot be found again by the caller."""
        if request.path != self.service:
            return self.not_found(request)
        payload = dict(pairs(request)).get("payload", "{}").encode()
        is_form = media_type(request) == "application/x-www-form-urlencoded"
        try:
            asked: object = json.loads(payload if is_form else request.body)
        except ValueError:
            return _plain("invalid_payload", 400)
        if not isinstance(asked, dict):
            return _plain("invalid_payload", 400)
        channel = self.channels[next(iter(self.channels))]
        try:
            content = self._content(cast(Thing, asked))
            self._throttle_channel(channel)
        except Refused as refused:
            status = refused.response.status
            if status == 429:
                return replace(_plain("rate_limited", 429), headers=refused.response.headers)
            return _plain(str(refused), 400)
        if channel.is_archived:
            return _plain("channel_is_archived", 410)
        self._post(channel, content, to=channel.id)
        return _plain("ok", 200)

    # What people do

    def add_channel(self, name: str, *, member: bool = True, archived: bool = False, private: bool = False) -> str:
        """A channel there is from now on; its id."""
        id = f"{'G' if private else 'C'}{_code(self.random())}"
        self.channels[id] = Channel(
            id=id, name=name, created=self._unix(), is_member=member, is_archived=archived, is_private=private
        )
        return id

    def add_person(self, name: str, email: str = "") -> str:
        """Somebody who is in the workspace from now on; the id."""
        id = f"U{_code(self.random())}"
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

    def archive(self, channel: str) -> None:
        """Nobody writes there any more."""
        self._channel(channel).is_archived = True

    def revoke_token(self) -> None:
        """The app is thrown out of the workspace."""
        self.revoked = True
        self._event({"type": "tokens_revoked", "tokens": {"bot": [self.bot_user], "oauth": []}}, about=self.team)

    def write(self, channel: str, person: str, text: str) -> str:
        """Somebody writes there; an app that is named hears of it once more. The message's `ts`."""
        place = self._channel(channel)
        message: Thing = {"type": "message", "user": person, "ts": self._ts(), "text": text, "team": self.team}
        place.messages.append(message)
        kind = "im" if place.person else "channel"
        told = {**message, "channel": place.id, "event_ts": message["ts"]}
        self._event({**told, "channel_type": kind}, about=message["ts"])
        if f"<@{self.bot_user}>" in text:
            self._event({**told, "type": "app_mention"}, about=message["ts"])
        return str(message["ts"])

    def press(self, channel: str, ts: str, person: str, action_id: str, value: str = "") -> None:
        """Somebody presses a button of a message."""
        message = _message(self._channel(channel), ts)
        action = {"type": "button", "action_id": action_id, "value": value, "action_ts": self._ts()}
        payload = {
            "type": "block_actions",
            "user": {"id": person, "team_id": self.team},
            "api_app_id": self.app,
            "token": self.verification_token,
            "container": {"type": "message", "message_ts": ts, "channel_id": channel, "is_ephemeral": False},
            "trigger_id": f"{self.random().randrange(10**12)}.{self.random().getrandbits(64):x}",
            "team": {"id": self.team, "domain": "simulated"},
            "channel": {"id": channel, "name": self._channel(channel).name},
            "message": message,
            "response_url": f"{self.base_url}/actions/{self.team}/{_code(self.random())}",
            "actions": [action],
        }
        self._owe_form("block_actions", {"payload": json.dumps(payload)}, about=ts, key=channel)

    def command(self, channel: str, person: str, command: str, text: str = "") -> None:
        """Somebody types a slash command."""
        form = {
            "token": self.verification_token,
            "team_id": self.team,
            "team_domain": "simulated",
            "channel_id": channel,
            "channel_name": self._channel(channel).name,
            "user_id": person,
            "user_name": self.people[person]["name"],
            "command": command,
            "text": text,
            "api_app_id": self.app,
            "is_enterprise_install": "false",
            "response_url": f"{self.base_url}/commands/{self.team}/{_code(self.random())}",
            "trigger_id": f"{self.random().randrange(10**12)}.{self.random().getrandbits(64):x}",
        }
        self._owe_form("slash_command", form, about=form["trigger_id"], key=channel)

    def verify_url(self) -> str:
        """Ask the receiver for the challenge, as when its address is entered; the challenge."""
        challenge = f"{self.random().getrandbits(256):064x}"
        told = {"token": self.verification_token, "challenge": challenge, "type": "url_verification"}
        self._owe("url_verification", json.dumps(told).encode(), about="", key="")
        return challenge

    def tick(self) -> None:
        """What was scheduled is written."""
        for id, (at, channel, content) in sorted(self.scheduled.items(), key=lambda item: item[1][0]):
            if at <= self._unix():
                del self.scheduled[id]
                self._post(channel, content, to=channel.id)

    # How

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
        return SlidingWindow(self.clock, 0, 60)

    def _authorize(self, request: Request) -> Thing:
        """What is asked, by somebody who may ask."""
        asked = _asked(request)
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
            self._calls[name] = SlidingWindow(self.clock, self.limits.of(TIERS[name]), 60)
        self._pass(self._calls[name])

    def _throttle_channel(self, channel: Channel) -> None:
        if channel.id not in self._posted:
            self._posted[channel.id] = SlidingWindow(self.clock, self.limits.channel, 1)
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
        id = f"D{_code(self.random())}"
        self.channels[id] = Channel(id=id, name="directmessage", created=self._unix(), person=person)
        return self.channels[id]

    def _content(self, asked: Mapping[str, object]) -> Thing:
        """What a message says, where Slack can say it."""
        text = str(asked.get("text") or "")
        blocks, attachments = _listed(asked, "blocks"), _listed(asked, "attachments")
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
            _message(channel, str(thread), error="thread_not_found")
        message = {**self._from_bot(), "ts": self._ts(), **content}
        channel.messages.append(message)
        payload = cast(Thing, cast(Thing, content.get("metadata") or {}).get("event_payload") or {})
        facts = {"address": channel.person or channel.id, "text": str(content["text"])}
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
                "team_id": self.team,
                "updated": self._unix(),
            },
        }

    def _paged(
        self, asked: Mapping[str, object], name: str, found: Sequence[object], *, more: bool = False
    ) -> Response:
        limit = int(str(asked.get("limit") or 100))
        if not 1 <= limit <= 1000:
            raise Refused("invalid_limit")
        first = _cursor(str(asked.get("cursor") or ""))
        page, rest = found[first : first + limit], first + limit < len(found)
        after = base64.b64encode(f"next:{first + limit}".encode()).decode() if rest else ""
        return _ok(**{name: page}, response_metadata={"next_cursor": after}, **({"has_more": rest} if more else {}))

    def _event(self, event: Thing, *, about: str) -> None:
        now = self._unix()
        told = {
            "token": self.verification_token,
            "team_id": self.team,
            "api_app_id": self.app,
            "event": {"event_ts": f"{now}.000000", **event},
            "type": "event_callback",
            "event_id": f"Ev{_code(self.random())}",
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
            headers = (("content-type", kind), ("user-agent", "Slackbot 1.0 (+https://api.slack.com/robots)"))
            self.owe(
                Webhook(
                    vendor=self.vendor,
                    url=self.webhook_url,
                    event=event,
                    about=about,
                    key=key,
                    body=body,
                    headers=headers,
                )
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


def _asked(request: Request) -> Thing:
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


def _listed(asked: Mapping[str, object], name: str) -> list[object]:
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


def _message(channel: Channel, ts: str, *, error: str = "message_not_found") -> Thing:
    for message in channel.messages:
        if message["ts"] == ts:
            return message
    raise Refused(error)


def _cursor(text: str) -> int:
    try:
        return int(base64.b64decode(text, validate=True).decode().removeprefix("next:")) if text else 0
    except ValueError:
        raise Refused("invalid_cursor") from None


def _basic(request: Request) -> tuple[str, str]:
    try:
        given = base64.b64decode((request.header("authorization") or "").partition(" ")[2]).decode()
    except ValueError:
        return "", ""
    name, _, secret = given.partition(":")
    return name, secret


def _kind(channel: Channel) -> str:
    return "im" if channel.person else "private_channel" if channel.is_private else "public_channel"


def _ok(**more: object) -> Response:
    return Response.json({"ok": True, **more})


def _plain(text: str, status: int) -> Response:
    return Response(status=status, headers=(("content-type", "text/html"),), body=text.encode())


def _warned(response: Response, warning: str) -> Response:
    said = cast(Thing, json.loads(response.body))
    said["warning"] = warning
    said["response_metadata"] = {**cast(Thing, said.get("response_metadata") or {}), "warnings": [warning]}
    return replace(response, body=json.dumps(said, separators=(",", ":")).encode())


def _code(random: Random) -> str:
    return "".join(random.choices(ascii_uppercase + digits, k=10))
