"""The Web API's methods, the incoming webhook, and the people in the workspace."""

import base64
import json
from dataclasses import replace
from math import inf
from typing import cast

from holdfast.testing.simulators.forms import media_type, pairs
from holdfast.testing.simulators.simulator import Request, Response, route
from holdfast.testing.simulators.slack.api import (
    SCOPES,
    Refused,
    asked_of,
    code,
    message_of,
    number,
    ok,
    plain,
    web_method,
)
from holdfast.testing.simulators.slack.files import SlackFiles
from holdfast.testing.simulators.slack.workspace import Channel, Thing


class SlackSimulator(SlackFiles):
    """One workspace with one app installed; the Web API is under `/api/`, the incoming webhook under `/services/`.

    There are the channels `general` and `alerts`, one person, and whatever `add_channel` and `add_person` add. In the
    ledger a message's key is `reference` in its metadata's payload, or the channel or person it was sent to. With a
    `webhook_url` what people do owes an event.
    """

    @web_method("api.test", "api.test")
    def test_api(self, request: Request) -> Response:
        asked = asked_of(request)
        if asked.get("error"):
            raise Refused(str(asked["error"]), args=asked)
        return ok(args=asked)

    @web_method("auth.test", "auth.test")
    def test_auth(self, request: Request) -> Response:
        self._authorize(request)
        return ok(
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
        return ok(revoked=self.revoked)

    @web_method("oauth.v2.access", "token")
    def rotate_token(self, request: Request) -> Response:
        """A new token for the refresh token; the one before works until it expires."""
        asked = asked_of(request)
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
        return ok(
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
        content = self._content(asked)
        self._throttle_channel(channel)
        message = self._post(channel, content, to=str(asked["channel"]))
        return ok(channel=channel.id, ts=message["ts"], message=message)

    @web_method("chat.postEphemeral", "messages.send")
    def post_ephemeral(self, request: Request) -> Response:
        """Seen by one person, kept by nobody."""
        asked = self._authorize(request)
        self._writable(str(asked.get("channel", "")))
        if str(asked.get("user", "")) not in self.people:
            raise Refused("user_not_in_channel")
        self._content(asked)
        return ok(message_ts=self._ts())

    @web_method("chat.update", "messages.update")
    def update_message(self, request: Request) -> Response:
        asked = self._authorize(request)
        channel = self._channel(str(asked.get("channel", "")))
        message = message_of(channel, str(asked.get("ts", "")))
        if message.get("bot_id") != self.bot:
            raise Refused("cant_update_message")
        content = self._content(asked)
        message.update(content, edited={"user": self.bot_user, "ts": self._ts()})
        return ok(channel=channel.id, ts=message["ts"], text=message["text"], message=message)

    @web_method("chat.delete", "messages.delete")
    def delete_message(self, request: Request) -> Response:
        asked = self._authorize(request)
        channel = self._channel(str(asked.get("channel", "")))
        message = message_of(channel, str(asked.get("ts", "")))
        if message.get("bot_id") != self.bot:
            raise Refused("cant_delete_message")
        channel.messages.remove(message)
        return ok(channel=channel.id, ts=message["ts"])

    @web_method("chat.getPermalink", "messages.fetch")
    def permalink(self, request: Request) -> Response:
        asked = self._authorize(request)
        channel = self._channel(str(asked.get("channel", "")))
        ts = message_of(channel, str(asked.get("message_ts", "")))["ts"]
        link = f"https://simulated.slack.com/archives/{channel.id}/p{ts.replace('.', '')}"
        return ok(channel=channel.id, permalink=link)

    @web_method("chat.scheduleMessage", "messages.schedule")
    def schedule_message(self, request: Request) -> Response:
        asked = self._authorize(request)
        channel, at = self._writable(str(asked.get("channel", ""))), str(asked.get("post_at", ""))
        if not at.isdigit():
            raise Refused("invalid_time")
        if not self._unix() < int(at) <= self._unix() + 120 * 86_400:
            raise Refused("time_in_past" if int(at) <= self._unix() else "time_too_far")
        content, id = self._content(asked), f"Q{code(self.random())}"
        self.scheduled[id] = (int(at), channel, content)
        message = {**self._from_bot(), **content, "type": "delayed_message"}
        return ok(channel=channel.id, scheduled_message_id=id, post_at=int(at), message=message)

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
        return ok()

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
        return ok(channel=self._channel(str(asked.get("channel", ""))).to_json())

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
        return ok(channel=channel.to_json())

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
        return ok(channel=found, **({"no_op": True, "already_open": True} if known else {}))

    @web_method("conversations.history", "messages.find")
    def history(self, request: Request) -> Response:
        """Newest first, without what was said in threads."""
        asked = self._authorize(request)
        channel = self._channel(str(asked.get("channel", "")))
        oldest, latest = number(asked, "oldest", 0), number(asked, "latest", inf)
        inclusive = asked.get("inclusive") in ("1", "true", True)
        found = [
            message
            for message in reversed(channel.messages)
            if message.get("thread_ts") in (None, message["ts"])
            and (oldest < float(message["ts"]) < latest or (inclusive and float(message["ts"]) in (oldest, latest)))
        ]
        return self._paged(
            asked, "messages", found, more=True, pin_count=0, channel_actions_ts=None, channel_actions_count=0
        )

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
        message = message_of(self._channel(str(asked.get("channel", ""))), str(asked.get("timestamp", "")))
        reactions = cast(list[Thing], message.setdefault("reactions", []))
        if any(one["name"] == asked.get("name") for one in reactions):
            raise Refused("already_reacted")
        reactions.append({"name": asked.get("name"), "users": [self.bot_user], "count": 1})
        return ok()

    @web_method("users.list", "people.find")
    def list_people(self, request: Request) -> Response:
        asked = self._authorize(request)
        return self._paged(asked, "members", list(self.people.values()), cache_ts=self._unix())

    @web_method("users.info", "people.fetch")
    def person_info(self, request: Request) -> Response:
        asked = self._authorize(request)
        found = self.people.get(str(asked.get("user", "")))
        if found is None:
            raise Refused("user_not_found")
        return ok(user=found)

    @web_method("users.lookupByEmail", "people.fetch")
    def person_by_email(self, request: Request) -> Response:
        asked = self._authorize(request)
        for person in self.people.values():
            if asked.get("email") == person["profile"]["email"]:
                return ok(user=person)
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
            return plain("invalid_payload", 400)
        if not isinstance(asked, dict):
            return plain("invalid_payload", 400)
        channel = self.channels[next(iter(self.channels))]
        try:
            content = self._content(cast(Thing, asked))
            self._throttle_channel(channel)
        except Refused as refused:
            status = refused.response.status
            if status == 429:
                return replace(plain("rate_limited", 429), headers=refused.response.headers)
            return plain(str(refused), 400)
        if channel.is_archived:
            return plain("channel_is_archived", 410)
        self._post(channel, content, to=channel.id)
        return plain("ok", 200)

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
        message = message_of(self._channel(channel), ts)
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
            "response_url": f"{self.base_url}/actions/{self.team}/{code(self.random())}",
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
            "response_url": f"{self.base_url}/commands/{self.team}/{code(self.random())}",
            "trigger_id": f"{self.random().randrange(10**12)}.{self.random().getrandbits(64):x}",
        }
        self._owe_form("slash_command", form, about=form["trigger_id"], key=channel)

    def verify_url(self) -> str:
        """Owe the receiver the challenge, as when its address is entered; the challenge."""
        challenge = self.challenge()
        if challenge.url:
            self.owe(challenge)
        return challenge.about


def _basic(request: Request) -> tuple[str, str]:
    try:
        given = base64.b64decode((request.header("authorization") or "").partition(" ")[2]).decode()
    except ValueError:
        return "", ""
    name, _, secret = given.partition(":")
    return name, secret


def _kind(channel: Channel) -> str:
    return "im" if channel.person else "private_channel" if channel.is_private else "public_channel"
